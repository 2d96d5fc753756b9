"""Traces from CSV files: ``second,requests`` rows, or a single column ``requests``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ipa_energy.errors import ConfigError
from ipa_energy.workloads.shapes import SHAPES
from ipa_energy.workloads.trace import (
    LONGEST_DURATION_S,
    MOST_REQUESTS_IN_A_SECOND,
    Workload,
    damped,
)

HEADERS = (["second", "requests"], ["requests"])
_HEADERS_TEXT = "'second,requests' or 'requests'"


def csv_workload(path: Path, damping_factor: int | None = None) -> Workload:
    """The trace in ``path``, damped.

    Counts are integers from 0, one row a second; where there is a ``second`` column it rises by 1
    from row to row, from any start. Blank lines are skipped.

    Raises:
        ConfigError: the file is missing, unreadable, empty or not such a table; the message has
            the file and the line. Or the damping factor is below 1.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            counts = list(_counts(path, csv.reader(file)))
    except FileNotFoundError as error:
        raise ConfigError(
            "there is no such trace",
            where=path,
            allowed=f"a CSV file, or a name: {', '.join(SHAPES)}",
        ) from error
    except OSError as error:
        raise ConfigError(f"the trace cannot be read: {error.strerror}", where=path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"the trace is not a CSV text file: {error}", where=path) from error
    source = f"{path}" if damping_factor is None else f"{path}, damping_factor {damping_factor}"
    return Workload(path.stem, damped(np.array(counts, dtype=np.int64), damping_factor), source)


def _counts(path: Path, rows: Iterator[list[str]]) -> Iterator[int]:
    numbered = ((f"{path}:{line}", row) for line, row in _numbered(rows) if any(row))
    columns = _columns(path, numbered)
    previous_second: int | None = None
    where = None
    for seconds, (where, row) in enumerate(numbered, start=1):
        if seconds > LONGEST_DURATION_S:
            raise ConfigError(
                "the trace is too long", where=where, allowed=f"{LONGEST_DURATION_S} seconds"
            )
        if len(row) != columns:
            raise ConfigError(
                f"{len(row)} cells under {columns} columns", where=where, allowed=_HEADERS_TEXT
            )
        if columns == 2:
            previous_second = _next_second(row[0], previous_second, where)
        yield _whole(row[-1], "requests", where)
    if where is None:
        raise ConfigError(
            "the trace has a header and no rows", where=path, allowed="one row a second"
        )


def _columns(path: Path, numbered: Iterator[tuple[str, list[str]]]) -> int:
    where, header = next(numbered, (str(path), []))
    if not header:
        raise ConfigError("the trace is empty", where=where, allowed=f"a header {_HEADERS_TEXT}")
    names = [cell.strip() for cell in header]
    if names not in HEADERS:
        raise ConfigError(f"the header is {','.join(names)!r}", where=where, allowed=_HEADERS_TEXT)
    return len(names)


def _next_second(cell: str, previous: int | None, where: str) -> int:
    second = _whole(cell, "second", where)
    if previous is not None and second != previous + 1:
        raise ConfigError(
            f"second {second} after second {previous}",
            where=where,
            allowed=f"{previous + 1}: one row a second, in order",
        )
    return second


def _numbered(rows: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    for row in rows:
        yield rows.line_num, row  # type: ignore[attr-defined]


def _whole(cell: str, column: str, where: str) -> int:
    """The cell as an integer from 0; stricter than ``int``, which takes ``1_0``, ``+1`` and ``٣``.

    Raises:
        ConfigError: it is anything else.
    """
    text = cell.strip()
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        number = int(text)
        if column != "requests" or number <= MOST_REQUESTS_IN_A_SECOND:
            return number
    raise ConfigError(
        f"{column} is {text!r}",
        where=where,
        allowed="an integer from 0"
        + (f" to {MOST_REQUESTS_IN_A_SECOND}" if column == "requests" else ""),
    )
