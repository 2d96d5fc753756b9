"""Where hunks go in a file that others may have edited, and how they come out again.

**In.** In a target whose blob hash is the expected one, a hunk goes after the line that it names.
In any other, that line number says nothing, so a hunk is placed by its surroundings: the manifest
holds, for each, the hashes of the lines before and after its place (never their text), enough of
them to be unique in the target it was made for. A hunk has a place only where both match, in one
spot alone, after the previous hunk's; lines may end in LF or CRLF, and what goes in ends as the
line before it.

**Out.** None of the added lines occurs in the target it was made for (the manifest's maker sees to
that), so the lines of ours in a file are known by their text. They come out if they are exactly the
hunks' lines, in order, with each hunk in one piece; whatever stands around them stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ipa_energy.plugin.blob import line_end, without_end
from ipa_energy.plugin.hunk import Hunk

SMALLEST_CONTEXT = 3
LARGEST_CONTEXT = 40


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Hashes of ``context_lines`` lines before and after a hunk's place; fewer at a file's edge."""

    context_lines: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why one hunk cannot be put in, or not be taken out."""

    hunk: Hunk
    reason: str


def surroundings(lines: Sequence[bytes], place: int, context_lines: int) -> Surroundings:
    """What is around the gap before ``lines[place]``, whatever ends the lines."""
    return Surroundings(
        context_lines,
        _digest(lines[max(0, place - context_lines) : place]),
        _digest(lines[place : place + context_lines]),
    )


def unique_surroundings(lines: Sequence[bytes], place: int) -> Surroundings | None:
    """The smallest surroundings that no other place of the file has; None if there are none."""
    for context_lines in range(SMALLEST_CONTEXT, LARGEST_CONTEXT + 1):
        wanted = surroundings(lines, place, context_lines)
        if places_of(wanted, lines) == [place]:
            return wanted
    return None


def places_of(wanted: Surroundings, lines: Sequence[bytes]) -> list[int]:
    """Every place of the file with these surroundings."""
    count = wanted.context_lines
    return [
        place
        for place in range(len(lines) + 1)
        if _digest(lines[max(0, place - count) : place]) == wanted.before
        and _digest(lines[place : place + count]) == wanted.after
    ]


def find_places(
    lines: Sequence[bytes], hunks: Sequence[Hunk], wanted: Sequence[Surroundings]
) -> tuple[list[int], list[Misfit]]:
    """The place of every hunk by its surroundings, or why some have none."""
    places: list[int] = []
    misfits: list[Misfit] = []
    for hunk, around in zip(hunks, wanted, strict=True):
        found = places_of(around, lines)
        if len(found) == 1 and (not places or found[0] > places[-1]):
            if found[0] == len(lines) > 0 and not line_end(lines[-1]):
                misfits.append(Misfit(hunk, "the line before it has lost its end"))
            places.append(found[0])
        elif not found:
            misfits.append(Misfit(hunk, f"the lines around line {hunk.after_line} were changed"))
        elif len(found) > 1:
            misfits.append(Misfit(hunk, f"its surroundings occur {len(found)} times"))
        else:
            misfits.append(Misfit(hunk, "its surroundings were moved before another hunk's"))
    return places, misfits


def put_in(lines: Sequence[bytes], hunks: Sequence[Hunk], places: Sequence[int]) -> bytes:
    """The file with every hunk before ``lines[place]``; no place may follow an unended line."""
    made: list[bytes] = []
    done = 0
    for hunk, place in zip(hunks, places, strict=True):
        made += lines[done:place]
        neighbour = lines[place - 1] if place > 0 else lines[place] if lines else b"\n"
        end = line_end(neighbour) or b"\n"
        made += [line + end for line in hunk.lines]
        done = place
    return b"".join([*made, *lines[done:]])


def take_out(lines: Sequence[bytes], hunks: Sequence[Hunk]) -> tuple[bytes, list[Misfit]]:
    """The file without the hunks, or why that cannot be: one misfit, and the file as it was."""
    spots = our_lines(lines, hunks)
    done = 0
    for hunk in hunks:
        here = spots[done : done + len(hunk.lines)]
        reason = _damage(lines, hunk, here)
        if reason is not None:
            return b"".join(lines), [Misfit(hunk, reason)]
        done += len(here)
    if done < len(spots):
        extra = f"line {spots[done] + 1} repeats one of its lines"
        return b"".join(lines), [Misfit(_owner(without_end(lines[spots[done]]), hunks), extra)]
    ours = frozenset(spots)
    return b"".join(line for index, line in enumerate(lines) if index not in ours), []


def our_lines(lines: Sequence[bytes], hunks: Sequence[Hunk]) -> list[int]:
    """Indices of the lines that some hunk added, known by their text."""
    added = {line for hunk in hunks for line in hunk.lines}
    return [index for index, line in enumerate(lines) if without_end(line) in added]


def _damage(lines: Sequence[bytes], hunk: Hunk, spots: Sequence[int]) -> str | None:
    """What is wrong with a hunk that should stand at these lines; None if nothing is."""
    found = [without_end(lines[spot]) for spot in spots]
    if found != list(hunk.lines):
        return "its lines were changed, moved or repeated"
    if spots[-1] - spots[0] != len(spots) - 1:
        return "other lines stand between its lines"
    return None


def _owner(line: bytes, hunks: Sequence[Hunk]) -> Hunk:
    return next(hunk for hunk in hunks if line in hunk.lines)


def _digest(lines: Sequence[bytes]) -> str:
    text = b"".join(without_end(line) + b"\n" for line in lines)
    return hashlib.sha256(b"%d\n%b" % (len(lines), text)).hexdigest()
