"""What one target is in: as the commit has it, patched, or something of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from ipa_energy.plugin.blob import git_blob_hash, split_lines
from ipa_energy.plugin.checkout import Checkout
from ipa_energy.plugin.manifest import Target
from ipa_energy.plugin.placement import Misfit, find_places, our_lines, put_in, take_out
from ipa_energy.plugin.python_source import syntax_error

CLEAN, PATCHED, FOREIGN, MISSING = "clean", "patched", "foreign", "missing"
IN, OUT, DAMAGED = "in", "out", "damaged"


@dataclass(frozen=True, slots=True)
class TargetState:
    """One target as it is now.

    Attributes:
        path: of the target, relative to the checkout.
        state: ``clean`` or ``patched``, byte for byte; ``foreign`` for any other content;
            ``missing``.
        patch: whether our lines are in it: all of them, ``in``; none, ``out``; ``damaged`` if some
            are missing or changed, or hold the file together; None if it cannot be read.
        blob: git's hash of the content; None if it cannot be read.
        other: the content with the hunks in, or out if they are in; None if that cannot be had.
        misfits: the hunks that keep ``other`` from being had; where it can be had, those that
            stand on other lines than the patch says.
        reason: what is wrong with the file, in words; None if nothing is.
    """

    path: str
    state: str
    patch: str | None = None
    blob: str | None = None
    other: bytes | None = None
    misfits: tuple[Misfit, ...] = ()
    reason: str | None = None


def look_at(checkout: Checkout, target: Target) -> TargetState:
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
    return state_of_content(data, target)


def state_of_content(data: bytes, target: Target) -> TargetState:
    """The state of a target that holds ``data``."""
    blob, lines = git_blob_hash(data), split_lines(data)
    if blob == target.blob_before:
        made = put_in(lines, target.hunks, [hunk.after_line for hunk in target.hunks])
        return _checked(target, CLEAN, blob, made, target.blob_after)
    if our_lines(lines, target.hunks):
        made, misfits = take_out(lines, target.hunks)
        if blob == target.blob_after:
            return _checked(target, PATCHED, blob, made, target.blob_before)
        if misfits:
            return _edited(target, DAMAGED, data, None, misfits)
        return _edited(target, IN, data, made, [])
    places, misfits = find_places(lines, target.hunks, target.surroundings)
    if misfits:
        return _edited(target, OUT, data, None, misfits)
    placed = put_in(lines, target.hunks, places)
    return _edited(target, OUT, data, placed, _moved(target, places))


def _moved(target: Target, places: list[int]) -> list[Misfit]:
    """The hunks whose line has another number now: they fit, but not where the patch says."""
    return [
        Misfit(hunk, f"line {hunk.after_line}, which it follows, is line {place} now")
        for hunk, place in zip(target.hunks, places, strict=True)
        if place != hunk.after_line
    ]


def _checked(target: Target, state: str, blob: str, made: bytes, wanted: str) -> TargetState:
    """A pristine or patched file, whose other form is known by its hash."""
    if git_blob_hash(made) == wanted:
        return TargetState(target.path, state, IN if state == PATCHED else OUT, blob, made)
    reason = "its patch does not give the content that the manifest says; make the manifest anew"
    return TargetState(target.path, FOREIGN, blob=blob, reason=reason)


def _edited(
    target: Target, patch: str, data: bytes, made: bytes | None, misfits: list[Misfit]
) -> TargetState:
    """A file with edits; its other form is not to be had where it would break the file."""
    reason = "has changes of its own"
    if git_blob_hash(data.replace(b"\r\n", b"\n")) in {target.blob_before, target.blob_after}:
        reason = "has lines that end in CRLF"
    if made is not None and target.path.endswith(".py"):
        wrong = syntax_error(made)
        if wrong is not None and syntax_error(data) is None:
            made = None
            reason += f" and would be no Python {'without' if patch == IN else 'with'} the "
            reason += f"patch's lines ({wrong})"
            patch = DAMAGED if patch == IN else OUT
    return TargetState(
        target.path,
        FOREIGN,
        patch,
        git_blob_hash(data),
        made,
        misfits=tuple(misfits),
        reason=reason,
    )
