"""Traces from files: CSVs of requests per second, and windows of IPA's own trace in a checkout.

A CSV has ``second,requests`` rows, or a single column ``requests``; of requests in classes it has a
column each, ``requests:translate,requests:summarize``, with or without ``second``. IPA keeps its
trace, requests per second over 22 days, as a compressed archive and unpacks it once; either file is
taken here, and the archive is read in memory: nothing is written to the checkout.
"""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ipa_energy.arrays import Counts
from ipa_energy.config import TwitterWindow
from ipa_energy.errors import ConfigError, UnavailableError, in_words
from ipa_energy.workloads.shapes import SHAPES
from ipa_energy.workloads.trace import (
    LONGEST_DURATION_S,
    MOST_REQUESTS_IN_A_SECOND,
    Workload,
    damped,
)

TOTAL = "requests"
OF_CLASS = "requests:"
_HEADERS_TEXT = "'second,requests', 'requests', or a column 'requests:CLASS' for each class"


def csv_workload(path: Path, damping_factor: int | None = None) -> Workload:
    """The trace in ``path``, damped.

    Counts are integers from 0, one row a second; where there is a ``second`` column it rises by 1
    from row to row, from any start. Blank lines are skipped. Classes are damped one by one.

    Raises:
        ConfigError: the file is missing, unreadable, empty or not such a table; the message has
            the file and the line. Or the damping factor is below 1.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names, counts = _counts(path, csv.reader(file))
    except FileNotFoundError as error:
        raise ConfigError(
            "there is no such trace",
            where=path,
            allowed=f"a CSV file, or a name: {', '.join(SHAPES)}",
        ) from error
    except OSError as error:
        raise ConfigError(f"the trace cannot be read: {error.strerror}", where=path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"the trace is not a CSV text file: {in_words(error)}", where=path
        ) from error
    source = f"{path}" if damping_factor is None else f"{path}, damping_factor {damping_factor}"
    columns = damped(np.array(counts, dtype=np.int64), damping_factor)
    by_class = {} if names == [TOTAL] else dict(zip(names, columns.T, strict=True))
    by_class = {name.removeprefix(OF_CLASS): column for name, column in by_class.items()}
    return Workload(path.stem, columns.sum(axis=1), source, by_class)


def _counts(path: Path, rows: Iterator[list[str]]) -> tuple[list[str], list[list[int]]]:
    """(names of the columns of counts, a row a second)."""
    numbered = ((f"{path}:{line}", row) for line, row in _numbered(rows) if any(row))
    header = _header(path, numbered)
    has_seconds = header[0] == "second"
    names = header[has_seconds:]
    found: list[list[int]] = []
    previous_second: int | None = None
    where = None
    for seconds, (where, row) in enumerate(numbered, start=1):
        if seconds > LONGEST_DURATION_S:
            raise ConfigError(
                "the trace is too long", where=where, allowed=f"{LONGEST_DURATION_S} seconds"
            )
        if len(row) != len(header):
            raise ConfigError(
                f"{len(row)} cells under {len(header)} columns", where=where, allowed=_HEADERS_TEXT
            )
        if has_seconds:
            previous_second = _next_second(row[0], previous_second, where)
        cells = zip(names, row[has_seconds:], strict=True)
        found.append([_whole(cell, name, where) for name, cell in cells])
    if where is None:
        raise ConfigError(
            "the trace has a header and no rows", where=path, allowed="one row a second"
        )
    return names, found


def _header(path: Path, numbered: Iterator[tuple[str, list[str]]]) -> list[str]:
    where, header = next(numbered, (str(path), []))
    if not header:
        raise ConfigError("the trace is empty", where=where, allowed=f"a header {_HEADERS_TEXT}")
    names = [cell.strip() for cell in header]
    counted = names[names[0] == "second" :]
    classes = [name.removeprefix(OF_CLASS) for name in counted if name.startswith(OF_CLASS)]
    is_by_class = len(classes) == len(set(classes)) == len(counted) > 0 and all(classes)
    if counted != [TOTAL] and not is_by_class:
        raise ConfigError(f"the header is {','.join(names)!r}", where=where, allowed=_HEADERS_TEXT)
    return names


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
        if column == "second" or number <= MOST_REQUESTS_IN_A_SECOND:
            return number
    raise ConfigError(
        f"{column} is {text!r}",
        where=where,
        allowed="an integer from 0"
        + ("" if column == "second" else f" to {MOST_REQUESTS_IN_A_SECOND}"),
    )


TRACE_FOLDER = Path("load_tester/barazmoon/twitter")
TEXT_NAME = "workload.txt"
ARCHIVE_NAME = "workload.tbz2"
MOST_TEXT_BYTES = 64 * 2**20
"""The trace is 5.8 MB; a member above this is not it, and is not unpacked."""


def twitter_workload(ipa_home: Path | None, windows: Sequence[TwitterWindow]) -> Workload:
    """The windows of IPA's trace, one after the other: seconds [start, end) of each, damped.

    Args:
        ipa_home: root of a checkout of IPA; None if the user gave none.
        windows: from the pipeline YAML.

    Raises:
        UnavailableError: no checkout is given.
        ConfigError: the folder is not a checkout, its trace is damaged, or a window is out of it.
    """
    if ipa_home is None:
        raise UnavailableError(
            "workload_type twitter needs the trace in a checkout of IPA; fix: give --ipa-home DIR "
            "or set IPA_HOME, or choose another load with --workload NAME|FILE"
        )
    if not windows:
        raise ConfigError("workload_config names no window", allowed="a list of start, end")
    path = _trace_path(ipa_home)
    trace = _read_trace(path)
    parts = [damped(_window_of(trace, window, path), window.damping_factor) for window in windows]
    text = " + ".join(f"{w.start}..{w.end} ÷ {w.damping_factor or 1}" for w in windows)
    return Workload("twitter", np.concatenate(parts), f"{path}, seconds {text}")


def _trace_path(ipa_home: Path) -> Path:
    folder = ipa_home / TRACE_FOLDER
    for name in (TEXT_NAME, ARCHIVE_NAME):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"no {TRACE_FOLDER / ARCHIVE_NAME} below it",
        where=ipa_home,
        fix="give the root folder of a checkout of IPA as --ipa-home or IPA_HOME",
    )


def _read_trace(path: Path) -> Counts:
    try:
        text = path.read_bytes() if path.name == TEXT_NAME else _unpacked(path)
        trace = np.array(text.split()).astype(np.int64)
    except (OSError, EOFError, tarfile.TarError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"the trace cannot be read: {in_words(error)}",
            where=path,
            fix="restore the file from IPA's repository",
        ) from error
    if not len(trace):
        raise ConfigError(
            "the trace is empty", where=path, fix="restore the file from IPA's repository"
        )
    return trace


def _unpacked(path: Path) -> bytes:
    """The text inside the archive; in memory, so that no member name can lead anywhere."""
    with tarfile.open(path, "r:bz2") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is None or Path(member.name).name != TEXT_NAME:
                continue
            if member.size > MOST_TEXT_BYTES:
                raise ValueError(f"{TEXT_NAME} in it has {member.size} bytes")
            return file.read()
    raise ValueError(f"it holds no {TEXT_NAME}")


def _window_of(trace: Counts, window: TwitterWindow, path: Path) -> Counts:
    if not 0 <= window.start < window.end <= len(trace):
        raise ConfigError(
            f"workload_config asks for seconds {window.start} to {window.end} of the trace",
            where=path,
            allowed=f"0 <= start < end <= {len(trace)}",
        )
    return trace[window.start : window.end]
