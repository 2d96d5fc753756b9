"""Files of one JSON record a line that only grow: what was written stays, whatever happens next.

A line is on disk when its append returns, or not in the file at all. A kill in the middle of one
leaves a last line without its newline; that record never happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ipa_energy.as_json import as_json
from ipa_energy.errors import ConfigError, IpaEnergyError


def dump_line(record: Any) -> str:
    """A record as one compact line, without its newline; NaN is null."""
    return json.dumps(as_json(record), separators=(",", ":"), allow_nan=False)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, on disk when this returns, or not at all.

    Raises:
        IpaEnergyError: it cannot be written; what was in the file stays.
    """
    try:
        with path.open("ab") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise
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


def take_lines(
    lines: Iterable[str], take: Callable[[dict[str, Any]], None], *, path: Path, owner: str
) -> None:
    """Give every line of a journal to ``take``; the first one must be its context.

    Args:
        lines: of the file, whole ones.
        take: takes a line's record.
        path: for messages.
        owner: whose journal it should be, for messages.

    Raises:
        ConfigError: a line is not JSON, or ``take`` finds it no record of such a journal.
    """
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if number == 1 and not isinstance(record["context"], dict):
                raise TypeError("its context is no object")
            take(record)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"not a line of a {owner}'s journal: {error!r}",
                where=f"{path}:{number}",
                fix="move the file away, or choose another output",
            ) from error
