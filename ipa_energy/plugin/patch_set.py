"""The patches for one commit of IPA: lines to insert, where, and the bytes they are meant for.

A patch file changes one target. It holds our own lines, line numbers, and git's hashes of the
target before and after, nothing of the target's text::

    diff --git a/optimizer/models.py b/optimizer/models.py
    index 791b0b1816388793b1b80005290111fc6a0e5cd5..HASH_OF_40_DIGITS 100644
    --- a/optimizer/models.py
    +++ b/optimizer/models.py
    @@ -772,0 +773,2 @@
    +our first line
    +our second line

``git diff -U0 --full-index`` writes this form, but repeats a line of the target after the second
``@@``; that text has to go. ``manifest.json`` beside the patches says of what commit they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from ipa_energy.errors import ConfigError
from ipa_energy.shipped import shipped_folder

MANIFEST = "manifest.json"
FOLDER = "ipa-e1f08dd"
_HEAD = re.compile(
    rb"diff --git a/(?P<path>[^\r\n]+) b/(?P=path)\n"
    rb"index (?P<before>[0-9a-f]{40})\.\.(?P<after>[0-9a-f]{40})( \d+)?\n"
    rb"--- a/(?P=path)\n\+\+\+ b/(?P=path)\n"
)
_HUNK = re.compile(
    rb"@@ -(?P<before>\d+),0 \+(?P<start>\d+)(?:,(?P<count>\d+))? @@\n(?P<lines>(?:\+[^\r\n]*\n)+)"
)


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
class Target:
    """What is to be done to one file, and its blob hash before and after."""

    path: str
    blob_before: str
    blob_after: str
    hunks: tuple[Hunk, ...]

    @property
    def texts(self) -> frozenset[bytes]:
        """Every line that is inserted."""
        return frozenset(line for hunk in self.hunks for line in hunk.lines)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Manifest:
    """What the patches of a folder are for."""

    repository: str
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]


_MANIFEST_TYPE = TypeAdapter(Manifest)


@dataclass(frozen=True, slots=True)
class PatchSet:
    """Every target of one commit of one repository, in the order of the patch files' names."""

    repository: str
    commit: str
    targets: tuple[Target, ...]

    @property
    def short_commit(self) -> str:
        """The commit as people write it."""
        return self.commit[:7]


def git_blob_hash(data: bytes) -> str:
    """The 40 hex digits under which git stores ``data`` (``git hash-object``); needs no git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def split_lines(data: bytes) -> list[bytes]:
    """The lines with their ends; joined they are ``data`` again. Lines end in LF, as for git."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def put_in(data: bytes, hunks: Sequence[Hunk]) -> bytes:
    """The file that the hunks were made for, with them; what goes in ends as the line before it."""
    lines = split_lines(data)
    made: list[bytes] = []
    done = 0
    for hunk in hunks:
        made += lines[done : hunk.after_line]
        neighbour = lines[max(0, hunk.after_line - 1) :][:1]
        end = b"\r\n" if neighbour and neighbour[0].endswith(b"\r\n") else b"\n"
        made += [line + end for line in hunk.lines]
        done = hunk.after_line
    return b"".join([*made, *lines[done:]])


def bundled_patches() -> Path:
    """The folder of patches for IPA that comes with this package."""
    return shipped_folder("patches") / FOLDER


def load_patch_set(folder: Path) -> PatchSet:
    """The patches in ``folder``.

    Raises:
        ConfigError: a file is missing or malformed, or two patches are for one file.
    """
    path = folder / MANIFEST
    try:
        manifest = _MANIFEST_TYPE.validate_json(_read(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{place}: {first['msg']}", where=path) from None
    targets = tuple(parse_patch(_read(path), path) for path in sorted(folder.glob("*.patch")))
    if not targets:
        raise ConfigError("no *.patch in it", where=folder)
    paths = [target.path for target in targets]
    for name in paths:
        if paths.count(name) > 1:
            raise ConfigError(f"two patches for {name}", where=folder, fix="make it one file")
    return PatchSet(manifest.repository, manifest.commit, targets)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from error


def parse_patch(data: bytes, where: Path) -> Target:
    """The one target of a patch file; ``where`` names the file in errors.

    Raises:
        ConfigError: it is not of the form above (with the line where it is not).
    """
    head = _HEAD.match(data)
    if head is None:
        raise _refusal(where, 1, "'diff --git', 'index' with two full hashes, '--- a/', '+++ b/'")
    path = head["path"].decode(errors="replace")
    if "\\" in path or "\0" in path or {"", ".", ".."} & set(path.split("/")):
        raise ConfigError(f"{path} is not a plain relative path", where=where)
    at, added = head.end(), 0
    hunks: list[Hunk] = []
    while at < len(data) or not hunks:
        found = _HUNK.match(data, at)
        number = data.count(b"\n", 0, at) + 1
        if found is None:
            raise _refusal(where, number, "'@@ -LINE,0 +LINE,COUNT @@', then lines that begin '+'")
        after_line = int(found["before"])
        lines = tuple(line[1:] for line in found["lines"].splitlines())
        if (int(found["start"]), int(found["count"] or 1)) != (after_line + added + 1, len(lines)):
            raise _refusal(where, number, f"'+{after_line + added + 1},{len(lines)}'")
        if hunks and after_line <= hunks[-1].after_line:
            raise _refusal(where, number, "hunks in the order of the file, one a place")
        hunks.append(Hunk(len(hunks) + 1, after_line, lines))
        at, added = found.end(), added + len(lines)
    return Target(path, head["before"].decode(), head["after"].decode(), tuple(hunks))


def _refusal(where: Path, number: int, allowed: str) -> ConfigError:
    return ConfigError(
        "not a patch of pure additions without context",
        where=f"{where}:{number}",
        allowed=allowed,
    )
