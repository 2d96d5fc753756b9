"""Puts the patches into a checkout of IPA, takes them out again, and says what is there.

``apply`` patches targets whose blob hashes are those of the manifest, all of them or none. A target
with any other content, be it shifted by one line, is refused by name, with its hunk, unless edits
are to be kept (``keep_edits``): then every hunk goes where its surroundings are unchanged and
unique, or the whole is refused. ``revert`` removes exactly our lines: where the file is otherwise
as patched, every byte of it is then as before; where the user has edited around them, the edits
stay; where our lines themselves were changed, it is refused by name, with the hunk. Neither touches
a file that is not a target. Both first undo what a kill has left (see ``transaction``).

A state is said of bytes: a file is ``clean`` or ``patched`` only if its hash is the manifest's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.plugin.checkout import Checkout, locked
from ipa_energy.plugin.manifest import PatchSet
from ipa_energy.plugin.target_state import (
    DAMAGED,
    FOREIGN,
    IN,
    MISSING,
    TargetState,
    look_at,
)
from ipa_energy.plugin.transaction import is_unfinished, replace_files, roll_back

PARTIAL = "partial"


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
    with locked(checkout):
        state = _state(checkout, patches)
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
        undone = roll_back(checkout)
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
        undone = roll_back(checkout)
        files = _state(checkout, patches).files
        damaged = [file for file in files if file.patch == DAMAGED]
        if damaged:
            raise _refusal(checkout, patches, damaged, "taken out of")
        contents = _contents([file for file in files if file.patch == IN])
        if contents:
            replace_files(checkout, contents)
    return Outcome(tuple(contents), undone)


def _state(checkout: Checkout, patches: PatchSet) -> CheckoutState:
    files = tuple(look_at(checkout, target) for target in patches.targets)
    unfinished = is_unfinished(checkout)
    kinds = {file.state for file in files}
    if unfinished:
        state = PARTIAL
    elif kinds & {FOREIGN, MISSING}:
        state = FOREIGN
    else:
        state = PARTIAL if len(kinds) > 1 else kinds.pop()
    return CheckoutState(state, files, unfinished)


def _planned(
    checkout: Checkout, patches: PatchSet, state: CheckoutState, *, keep_edits: bool
) -> dict[str, tuple[str, bytes]]:
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


def _contents(files: Sequence[TargetState]) -> dict[str, tuple[str, bytes]]:
    return {
        file.path: (file.blob, file.other)
        for file in files
        if file.blob is not None and file.other is not None
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
    if checkout.commit is not None and checkout.commit != patches.commit:
        restore = (
            f"git -C {checkout.root} checkout {patches.short_commit} (the patches are for that "
            f"commit, this checkout is at {checkout.commit[:7]})"
        )
    if any(file.patch == DAMAGED for file in files):
        return f"put the patch's lines back as they were, or {restore}"
    if all(file.other is not None for file in files):
        return f"--keep-edits, which keeps the changes (every hunk has its place), or {restore}"
    return f"{restore}; changes in these files would be lost"
