"""Files of one JSON record a line that only grow: what was written stays, whatever happens next.

A line is on disk when its append returns, or not in the file at all. A kill in the middle of one
leaves a last line without its newline; that record never happened.

A line may end in a seal, its number in the file and a checksum:
``…,"line":3,"crc32":"1c291ca3"}``. :class:`Seals` notices by it that a line was lost, doubled,
moved or changed. Lines of older versions have none and are taken as they are, until a sealed one
comes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ipa_energy.as_json import as_json
from ipa_energy.errors import ConfigError, IpaEnergyError, in_words
from ipa_energy.files import append_whole, make_folder_of

logger = logging.getLogger(__name__)


def dump_line(record: Any) -> str:
    """A record as one compact line, without its newline; NaN is null."""
    return json.dumps(as_json(record), separators=(",", ":"), allow_nan=False)


class DamageError(ValueError):
    """A line is not where, or not what, it was written as."""


_SEAL = re.compile(rb',"line":([1-9][0-9]*),"crc32":"([0-9a-f]{8})"\}$')


def sealed(line: str, number: int) -> str:
    """A line, an object as :func:`dump_line` gives it, with its seal.

    Args:
        line: without its newline.
        number: of the line in the file, from 1.
    """
    numbered = f'{line[:-1]},"line":{number}'
    return f'{numbered},"crc32":"{zlib.crc32(numbered.encode()):08x}"}}'


class Seals:
    """Checks the seals of a file's lines, handed over in order.

    Attributes:
        lines: how many there were.
    """

    def __init__(self) -> None:
        self.lines = 0
        self._seen = False

    def check(self, line: bytes) -> None:
        """Take the next line.

        Raises:
            DamageError: it is not what it was, or not in its place.
        """
        self.lines += 1
        content = line.rstrip(b"\r\n")
        seal = _SEAL.search(content)
        if seal is None:
            if self._seen:
                raise DamageError("it has no checksum, and lines before it have")
            return
        self._seen = True
        if int(seal[2], 16) != zlib.crc32(content[: seal.end(1)]):
            raise DamageError("it was changed: its checksum is another")
        if int(seal[1]) != self.lines:
            raise DamageError(
                f"this was line {int(seal[1])}: a line was lost, doubled or moved here"
            )


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, whose folder is made, on disk when this returns, or not at all.

    Raises:
        IpaEnergyError: it cannot be written; what was in the file stays.
    """
    try:
        make_folder_of(path)
        with path.open("ab", buffering=0) as file:
            append_whole(file, file.seek(0, os.SEEK_END), line.encode() + b"\n")
    except OSError as error:
        raise IpaEnergyError(
            f"{path}: cannot write: {error.strerror}; what was measured so far is kept; "
            "fix: make room or give the right, then resume"
        ) from error


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left without its end."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def records_of(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """(``file:line``, what it holds) of every line of a file; a torn last one is passed over.

    Raises:
        ConfigError: another line is not JSON.
    """
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            yield where, json.loads(line)
        except ValueError as error:
            if number < len(lines) or text.endswith("\n"):
                raise ConfigError(f"not JSON: {error}", where=where) from error
            logger.warning("%s: a torn last line is passed over", where)


def take_lines(
    lines: Iterable[bytes], take: Callable[[dict[str, Any]], None], *, path: Path, owner: str
) -> int:
    """Give every line of a journal to ``take``; the first one must be its context.

    Args:
        lines: of the file, whole ones.
        take: takes a line's record.
        path: for messages.
        owner: whose journal it should be, for messages.

    Returns:
        How many lines there were.

    Raises:
        ConfigError: a line is not JSON, its seal does not fit, or ``take`` finds it no record of
            such a journal.
    """
    seals = Seals()
    for number, line in enumerate(lines, 1):
        try:
            seals.check(line)
            record = json.loads(line)
            if number == 1 and not isinstance(record["context"], dict):
                raise TypeError("its context is no object")
            take(record)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"not a line of a {owner}'s journal: {in_words(error)}",
                where=f"{path}:{number}",
                fix="move the file away, or choose another output",
            ) from error
    return seals.lines
