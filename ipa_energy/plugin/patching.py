"""Puts the patches into a checkout of IPA, takes them out again, and says what is there.

``apply`` patches targets whose blob hashes are those of the manifest, all of them or none. A target
with any other content is refused by name, unless edits are to be kept (``keep_edits``): then git
merges the edits with the patch, both starting from the blob that the manifest names, and where it
finds both at one place, the whole is refused, with the hunk. ``revert`` removes exactly our lines:
where the file is otherwise as patched, every byte of it is then as before; where the user has
edited around them, the edits stay; where our lines themselves were changed, it is refused by name,
with the hunk. Neither touches a file that is not a target. Both first undo what a kill has left.

None of the added lines may occur in the target it was made for (such a patch is refused), so our
lines in a file are known by their text, and come out without git.

A state is said of bytes: a file is ``clean`` or ``patched`` only if its hash is the manifest's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.checkout import (
    Checkout,
    clear_leftover,
    clone_command,
    git,
    locked,
    merged,
    replace_files,
)
from ipa_energy.plugin.patch_set import (
    Hunk,
    PatchSet,
    Target,
    git_blob_hash,
    put_in,
    split_lines,
)

CLEAN, PATCHED, FOREIGN, MISSING, PARTIAL = "clean", "patched", "foreign", "missing", "partial"
IN, OUT, DAMAGED = "in", "out", "damaged"


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why one hunk cannot be put in, or not be taken out."""

    hunk: Hunk
    reason: str


@dataclass(frozen=True, slots=True)
class TargetState:
    """One target as it is now.

    Attributes:
        path: of the target, relative to the checkout.
        state: ``clean`` or ``patched``, byte for byte; ``foreign`` for any other content;
            ``missing``.
        patch: whether our lines are in it: all of them, ``in``; none, ``out``; ``damaged`` if some
            are missing or changed, or hold the file together; None if it cannot be read.
        data: the content; None if it cannot be read.
        other: the content with the hunks in, or out if they are in; None if that cannot be had.
        misfits: the hunks that keep ``other`` from being had.
        reason: what is wrong with the file, in words; None if nothing is.
    """

    path: str
    state: str
    patch: str | None = None
    data: bytes | None = None
    other: bytes | None = None
    misfits: tuple[Misfit, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class CheckoutState:
    """Every target, and what they come to.

    Attributes:
        state: ``clean``, ``patched``; ``foreign`` if some target is neither; ``partial`` if some
            are the one and some the other, or if an interrupted change waits to be undone.
        files: in the manifest's order.
        unfinished: whether an interrupted change waits to be undone.
    """

    state: str
    files: tuple[TargetState, ...]
    unfinished: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call changed: paths of targets; ``undone`` if it first undid an interrupted one."""

    changed: tuple[str, ...]
    undone: bool


def state_of(checkout: Checkout, patches: PatchSet) -> CheckoutState:
    """The state of a checkout; changes nothing."""
    with locked(checkout):
        return _state(checkout, patches)


def check(checkout: Checkout, patches: PatchSet, *, keep_edits: bool = False) -> CheckoutState:
    """The state of a checkout that ``apply`` would patch, or that is patched; changes nothing.

    Raises:
        ConfigError: ``apply`` would refuse it, or an interrupted change waits to be undone.
    """
    state = state_of(checkout, patches)
    if state.unfinished:
        raise ConfigError(
            "a patch was interrupted here",
            where=checkout.root,
            fix="ipa-energy patch apply or revert: both undo it first",
        )
    _planned(checkout, patches, state, keep_edits=keep_edits)
    return state


def apply(checkout: Checkout, patches: PatchSet, *, keep_edits: bool = False) -> Outcome:
    """Patch every target; changes nothing where all of them are patched already.

    Raises:
        ConfigError: some target is not as expected, or cannot be written; no file is changed.
    """
    with locked(checkout):
        undone = _undo_interrupted(checkout, patches)
        state = _state(checkout, patches)
        contents = _planned(checkout, patches, state, keep_edits=keep_edits)
        if contents:
            replace_files(checkout, contents)
    return Outcome(tuple(contents), undone)


def revert(checkout: Checkout, patches: PatchSet) -> Outcome:
    """Take the patches out of every target that has them; changes nothing where none has.

    Raises:
        ConfigError: our lines in some target were changed, or it cannot be written; no file is
            changed.
    """
    with locked(checkout):
        undone = _undo_interrupted(checkout, patches)
        contents = _taken_out(checkout, patches, _state(checkout, patches))
        if contents:
            replace_files(checkout, contents)
    return Outcome(tuple(contents), undone)


def _undo_interrupted(checkout: Checkout, patches: PatchSet) -> bool:
    """Take out what a call that was ended has put in; whether there was such a thing."""
    if not checkout.has_leftover:
        return False
    state = _state(checkout, patches)
    if state.unfinished:
        replace_files(checkout, _taken_out(checkout, patches, state))
    else:
        clear_leftover(checkout)
    return state.unfinished


def _state(checkout: Checkout, patches: PatchSet) -> CheckoutState:
    files = tuple(_look_at(checkout, target) for target in patches.targets)
    unfinished = checkout.has_leftover and {IN, OUT} <= {file.patch for file in files}
    kinds = {file.state for file in files}
    if unfinished:
        state = PARTIAL
    elif kinds & {FOREIGN, MISSING}:
        state = FOREIGN
    else:
        state = PARTIAL if len(kinds) > 1 else kinds.pop()
    return CheckoutState(state, files, unfinished)


# ------------------------------------------------------------------ one target


def _look_at(checkout: Checkout, target: Target) -> TargetState:
    """The state of one target; never raises for what the file is or holds."""
    obstacle = checkout.obstacle(target.path)
    if obstacle is not None:
        return TargetState(target.path, FOREIGN, reason=obstacle)
    try:
        data = checkout.place(target.path).read_bytes()
    except FileNotFoundError:
        return TargetState(target.path, MISSING, reason="is not there")
    except OSError as error:
        return TargetState(target.path, FOREIGN, reason=f"cannot be read: {error.strerror}")
    if target.texts.isdisjoint(_text(line) for line in split_lines(data)):
        if git_blob_hash(data) == target.blob_before:
            return _pristine(target, data)
        return _edited_without(checkout, target, data)
    return _with_ours(target, data)


def _with_ours(target: Target, data: bytes) -> TargetState:
    blob = git_blob_hash(data)
    if blob == target.blob_before:  # the patch adds lines that the target has already
        return _pristine(target, data)
    misfit = _damage(data, target)
    if misfit is not None:
        return _edited(target, DAMAGED, data, None, misfits=(misfit,))
    made = _without(data, target)
    if blob == target.blob_after and git_blob_hash(made) == target.blob_before:
        return TargetState(target.path, PATCHED, IN, data, made)
    return _edited(target, IN, data, made)


def _pristine(target: Target, data: bytes) -> TargetState:
    made = put_in(data, target.hunks)
    if git_blob_hash(made) != target.blob_after or not _comes_out(made, data, target):
        reason = "has a patch that does not give the content it says, or could not be taken out"
        return TargetState(target.path, FOREIGN, data=data, reason=reason)
    return TargetState(target.path, CLEAN, OUT, data, made)


def _edited_without(checkout: Checkout, target: Target, mine: bytes) -> TargetState:
    """A file with edits and no line of ours: git merges the two, if it has the original."""
    try:
        if not checkout.place(".git").exists():
            raise ConfigError("without a git repository here they cannot be told from IPA's lines")
        base = git(checkout.root, "cat-file", "blob", target.blob_before)
        if b"\r" not in base and mine.count(b"\n") == mine.count(b"\r\n"):
            base = base.replace(b"\n", b"\r\n")
        made = merged(mine, base, put_in(base, target.hunks))
        if made is not None and _comes_out(made, mine, target):
            return _edited(target, OUT, mine, made)
        apart = [h for h in target.hunks if merged(mine, base, put_in(base, [h])) is None]
    except ConfigError as error:
        return _edited(target, OUT, mine, None, more=f", and {error}")
    misfits = [
        Misfit(hunk, f"the lines around line {hunk.after_line} were changed")
        for hunk in apart or target.hunks
    ]
    return _edited(target, OUT, mine, None, misfits=misfits)


def _edited(
    target: Target,
    patch: str,
    data: bytes,
    made: bytes | None,
    *,
    misfits: Sequence[Misfit] = (),
    more: str = "",
) -> TargetState:
    """A file with edits; its other form is not to be had where it would break the file."""
    reason = f"has changes of its own{more}"
    if git_blob_hash(data.replace(b"\r\n", b"\n")) in {target.blob_before, target.blob_after}:
        reason = f"has lines that end in CRLF{more}"
    if made is not None and target.path.endswith(".py"):
        wrong = _syntax_error(made)
        if wrong is not None and _syntax_error(data) is None:
            made = None
            reason += f" and would be no Python {'without' if patch == IN else 'with'} the "
            reason += f"patch's lines ({wrong})"
            patch = DAMAGED if patch == IN else OUT
    return TargetState(target.path, FOREIGN, patch, data, made, tuple(misfits), reason)


def _syntax_error(data: bytes) -> str | None:
    """What keeps ``data`` from being compiled as Python, with its line; None if nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(data, "<target>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except ValueError as error:
        return str(error)
    return None


def _text(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _without(data: bytes, target: Target) -> bytes:
    ours = target.texts
    return b"".join(line for line in split_lines(data) if _text(line) not in ours)


def _comes_out(made: bytes, data: bytes, target: Target) -> bool:
    """Whether taking our lines out of ``made`` gives ``data`` again, byte for byte."""
    return _damage(made, target) is None and _without(made, target) == data


def _damage(data: bytes, target: Target) -> Misfit | None:
    """What is wrong with our lines in a file that has some of them; None if nothing is."""
    ours = target.texts
    found = [
        (number, text)
        for number, text in enumerate(map(_text, split_lines(data)), start=1)
        if text in ours
    ]
    for hunk in target.hunks:
        here, found = found[: len(hunk.lines)], found[len(hunk.lines) :]
        if tuple(text for _, text in here) != hunk.lines:
            return Misfit(hunk, "its lines were changed, moved or repeated")
        if here[-1][0] - here[0][0] != len(here) - 1:
            return Misfit(hunk, "other lines stand between its lines")
    if found:
        number, text = found[0]
        owner = next(hunk for hunk in target.hunks if text in hunk.lines)
        return Misfit(owner, f"line {number} repeats one of its lines")
    return None


# ------------------------------------------------------------------ all targets


def _planned(
    checkout: Checkout, patches: PatchSet, state: CheckoutState, *, keep_edits: bool
) -> dict[str, tuple[bytes, bytes]]:
    """What ``apply`` has to write; nothing if everything is patched."""
    refused = [
        file
        for file in state.files
        if file.other is None or (file.state == FOREIGN and not keep_edits)
    ]
    if refused:
        raise _refusal(checkout, patches, refused, "put into")
    patched = [file for file in state.files if file.patch == IN]
    if len(patched) == len(state.files):
        return {}
    if patched:
        raise ConfigError(
            f"half patched: {len(patched)} of {len(state.files)} files have the patch, "
            f"{patched[0].path} among them",
            where=checkout.root,
            fix=f"ipa-energy patch revert --ipa-home {checkout.root}, then apply",
        )
    return _contents(state.files)


def _taken_out(
    checkout: Checkout, patches: PatchSet, state: CheckoutState
) -> dict[str, tuple[bytes, bytes]]:
    damaged = [file for file in state.files if file.patch == DAMAGED]
    if damaged:
        raise _refusal(checkout, patches, damaged, "taken out of")
    return _contents([file for file in state.files if file.patch == IN])


def _contents(files: Sequence[TargetState]) -> dict[str, tuple[bytes, bytes]]:
    return {
        file.path: (file.data, file.other)
        for file in files
        if file.data is not None and file.other is not None
    }


def _refusal(
    checkout: Checkout, patches: PatchSet, files: Sequence[TargetState], doing: str
) -> ConfigError:
    """Names the first file with its hunk, then the others, and the way out."""
    first = files[0]
    what = f"{first.path} {first.reason}"
    if first.patch == IN:
        what += ", with the patch's lines in it"
    if first.misfits:
        misfit = first.misfits[0]
        total = len(next(t for t in patches.targets if t.path == first.path).hunks)
        what += f": hunk {misfit.hunk.number} of {total} cannot be {doing} it, {misfit.reason}"
    if len(files) > 1:
        what += f" (and {len(files) - 1} more: {', '.join(file.path for file in files[1:])})"
    return ConfigError(
        f"{what}; nothing was changed", where=checkout.root, fix=_way_out(checkout, patches, files)
    )


def _way_out(checkout: Checkout, patches: PatchSet, files: Sequence[TargetState]) -> str:
    restore = f"git -C {checkout.root} checkout {patches.short_commit} -- " + " ".join(
        file.path for file in files
    )
    if checkout.commit is None:
        restore = f"take these files from IPA anew ({clone_command(patches)})"
    elif checkout.commit != patches.commit:
        restore = (
            f"git -C {checkout.root} checkout {patches.short_commit} (the patches are for that "
            f"commit, this checkout is at {checkout.commit[:7]})"
        )
    if any(file.patch == DAMAGED for file in files):
        return f"put the patch's lines back as they were, or {restore}"
    if all(file.other is not None for file in files):
        return f"--keep-edits, which keeps the changes (every hunk has its place), or {restore}"
    return f"{restore}; changes in these files would be lost"
