"""Patches that only add: zero-context hunks, and their file format.

A patch file changes one target and holds our own lines and line numbers, nothing of the target's
text::

    --- a/optimizer/models.py
    +++ b/optimizer/models.py
    @@ -772,0 +773,2 @@
    +our first line
    +our second line

``git diff -U0`` writes this form, but repeats a line of the target after the second ``@@``; that
text has to go. Lines ``diff --git`` and ``index`` may stand before the first header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.errors import ConfigError

_HEADER = re.compile(rb"@@ -(?P<before>\d+),0 \+(?P<start>\d+)(?:,(?P<count>\d+))? @@")
_PREAMBLE = (b"diff --git ", b"index ")


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines to insert at one place.

    Attributes:
        number: 1 for the first of its file.
        after_line: number of the target's line that they follow; 0 puts them first.
        lines: what is inserted, without line ends.
    """

    number: int
    after_line: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FilePatch:
    """Every hunk for one target, in the order of the file; ``path`` is relative, with slashes."""

    path: str
    hunks: tuple[Hunk, ...]


def parse_patch(data: bytes, where: Path) -> FilePatch:
    """The patch in ``data``; ``where`` names it in errors.

    Raises:
        ConfigError: it is not of the form above (with the line where it is not).
    """
    lines = _numbered(data, where)
    path = _target(lines, where)
    hunks: list[Hunk] = []
    added = 0
    pending = next(lines, None)
    while pending is not None:
        number, text = pending
        header = _HEADER.fullmatch(text)
        if header is None:
            raise _refusal(where, number, "a header '@@ -LINE,0 +LINE,COUNT @@' and nothing more")
        after_line = int(header["before"])
        count = int(header["count"]) if header["count"] is not None else 1
        if count == 0 or int(header["start"]) != after_line + added + 1:
            raise _refusal(where, number, f"'+{after_line + added + 1},COUNT', COUNT at least 1")
        if hunks and after_line <= hunks[-1].after_line:
            raise _refusal(where, number, "hunks in the order of the file, one a place")
        body = tuple(_added_line(lines, where, number) for _ in range(count))
        hunks.append(Hunk(len(hunks) + 1, after_line, body))
        added += count
        pending = next(lines, None)
    if not hunks:
        raise ConfigError("a patch without a hunk", where=where)
    return FilePatch(path, tuple(hunks))


def _numbered(data: bytes, where: Path) -> Iterator[tuple[int, bytes]]:
    if not data.endswith(b"\n"):
        raise ConfigError("its last line has no end", where=where, fix="end it with a newline")
    if b"\r" in data:
        raise ConfigError("holds carriage returns", where=where, allowed="lines that end in LF")
    return enumerate(data.splitlines(), start=1)


def _target(lines: Iterator[tuple[int, bytes]], where: Path) -> str:
    """Read the two header lines; the path in the second one."""
    number, text = next(lines, (0, b""))
    while text.startswith(_PREAMBLE):
        number, text = next(lines, (number, b""))
    if not text.startswith(b"--- a/"):
        raise _refusal(where, number, "'--- a/PATH'")
    old = text.removeprefix(b"--- a/")
    number, text = next(lines, (number, b""))
    if text != b"+++ b/" + old:
        raise _refusal(where, number, f"'+++ b/{old.decode(errors='replace')}'")
    return old.decode(errors="replace")


def _added_line(lines: Iterator[tuple[int, bytes]], where: Path, header: int) -> bytes:
    number, text = next(lines, (header, b""))
    if not text.startswith(b"+"):
        raise _refusal(where, number, "a line that begins with '+', as many as the header says")
    return text[1:]


def _refusal(where: Path, number: int, allowed: str) -> ConfigError:
    return ConfigError(
        "not a patch of pure additions without context",
        where=f"{where}:{number}",
        allowed=allowed,
    )
