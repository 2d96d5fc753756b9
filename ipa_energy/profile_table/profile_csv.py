"""The profile table: one CSV row an entry, read strictly and written so that a kill costs one row.

:func:`write_profile` replaces a file whole or not at all. :func:`append_rows` only ever adds, with
an fsync, so that what was measured stays measured; a kill in the middle of a line leaves a torn
one, which :func:`read_profile` skips and the next append cuts off, both with a warning.
"""

from __future__ import annotations

import csv
import errno
import io
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from ipa_energy.config.source import raise_all, read_text
from ipa_energy.energy import joules_per_request
from ipa_energy.errors import ConfigError
from ipa_energy.files import append_whole, make_folder_of, whole_file
from ipa_energy.profile_table.profile_row import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    ProfileRow,
    columns_of,
    format_row,
    parse_row,
)

logger = logging.getLogger(__name__)


def meta_path(path: str | Path) -> Path:
    """Where the provenance block of a profile is: ``PROFILE.meta.json`` beside ``PROFILE.csv``."""
    return Path(path).with_suffix(".meta.json")


def read_profile(path: str | Path, *, partial: bool = False) -> list[ProfileRow]:
    """Every row of a profile, in the order of the file. BOM, CRLF and any column order are fine.

    Args:
        path: the file.
        partial: True for a file that :func:`append_rows` is still filling: if a kill left no row
            in it yet, or not even a whole header, the answer is an empty list.

    Raises:
        ConfigError: with every mistake of the file, each with line, column and what is allowed.
    """
    path = Path(path)
    text = read_text(path)
    if partial and "\n" not in text and ",".join(COLUMNS).startswith(text):
        return []
    lines = csv_lines(text, path)
    if not lines:
        raise ConfigError("the file is empty", where=path, allowed=f"a header: {','.join(COLUMNS)}")
    columns = _columns(lines[0][1], path)
    rows: list[ProfileRow] = []
    problems: list[ConfigError] = []
    seen: dict[tuple[object, ...], int] = {}
    for number, cells in lines[1:]:
        found = _row(cells, columns, f"{path}:{number}")
        if isinstance(found, ProfileRow):
            found = _unless_repeated(found, seen, path, number)
        if isinstance(found, ProfileRow):
            rows.append(found)
        elif number == lines[-1][0] and not text.endswith(("\n", "\r")):
            logger.warning("%s:%d: a torn last line is skipped: %s", path, number, ",".join(cells))
        else:
            problems += found
    problems += _differing_accuracies(rows, path)
    if problems:
        raise_all(problems, path)
    if not rows and not partial:
        raise ConfigError("the profile has no rows", where=path, allowed="at least one entry")
    return rows


def write_profile(path: str | Path, rows: Iterable[ProfileRow]) -> None:
    """Write a whole profile; the file appears complete or, if this fails, is left as it was.

    Raises:
        ConfigError: it cannot be written there, or a row would be refused when read.
    """
    path = Path(path)
    rows = list(rows)
    columns = columns_of(rows)
    content = _csv_text([columns]) + _csv_text(_checked(rows, columns, path))
    try:
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise _cannot_write(path, error) from error


def append_rows(path: str | Path, rows: Sequence[ProfileRow]) -> None:
    """Add rows at the end, header first if the file is new, on the disk when this returns.

    The folder of a new file is made. Optional columns are those of the rows in a new file, and must
    be the file's in an old one.

    Raises:
        ConfigError: the file has another header or cannot be written, or a row would be refused
            when read; nothing is added then.
    """
    path = Path(path)
    columns = columns_of(rows)
    body = _csv_text(_checked(rows, columns, path))
    try:
        make_folder_of(path)
        with path.open("a+b", buffering=0) as file:
            end = _end_of_whole_lines(file, columns, path)
            content = body if end else _csv_text([columns]) + body
            file.truncate(end)
            append_whole(file, end, content.encode())
    except OSError as error:
        raise _cannot_write(path, error) from error


def _checked(rows: Iterable[ProfileRow], columns: Sequence[str], path: Path) -> list[list[str]]:
    """The cells of rows that will be read back; better to learn of a bad row now than then."""
    lines = []
    problems: list[ConfigError] = []
    for number, row in enumerate(rows, 1):
        cells = format_row(row, columns)
        found = parse_row(cells, f"{path}, row {number} to be written", columns)
        if isinstance(found, list):
            problems += found
        lines.append(cells)
    if problems:
        raise_all(problems, path)
    return lines


def _csv_text(lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def csv_lines(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not empty.

    Raises:
        ConfigError: it is no CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((reader.line_num, cells))
    except csv.Error as error:
        raise ConfigError(f"not CSV: {error}", where=f"{path}:{reader.line_num}") from error
    return lines


def _columns(header: list[str], path: Path) -> list[str]:
    """The file's columns, in its order."""
    names = [name.strip() for name in header]
    where = f"{path}:1"
    problems = []
    for sign, kind in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(names) == 1 and sign in names[0]:
            raise ConfigError(f"columns separated by {kind}", where=where, fix="separate by commas")
    repeated = sorted({name for name in names if names.count(name) > 1})
    missing = [name for name in COLUMNS if name not in names]
    extra = [name for name in names if name not in (*COLUMNS, *OPTIONAL_COLUMNS)]
    found = (("repeated", repeated), ("missing", missing), ("unknown", extra))
    told = [(kind, columns) for kind, columns in found if columns]
    allowed = f"{','.join(COLUMNS)}; optional {','.join(OPTIONAL_COLUMNS)}"
    for kind, columns in told:
        what = f"{kind} column{'s' * (len(columns) > 1)} {', '.join(columns)}"
        is_last = columns is told[-1][1]  # what is allowed is said once
        problems.append(ConfigError(what, where=where, allowed=allowed if is_last else None))
    if problems:
        raise_all(problems, path)
    return names


def _row(cells: list[str], columns: Sequence[str], where: str) -> ProfileRow | list[ConfigError]:
    if len(cells) != len(columns):
        what = f"{len(cells)} cells in this line"
        return [ConfigError(what, where=where, allowed=f"{len(columns)}, as in the header")]
    return parse_row(cells, where, columns)


def _unless_repeated(
    row: ProfileRow, seen: dict[tuple[object, ...], int], path: Path, number: int
) -> ProfileRow | list[ConfigError]:
    key = (*row.option_key, row.replicas, row.load_rps)
    first = seen.setdefault(key, number)
    if first == number:
        return row
    return [
        ConfigError(
            f"{row.label}, {row.replicas} replicas at {row.load_rps:g} rps repeats line {first}",
            where=f"{path}:{number}",
            allowed="one row an entry",
            fix="remove one of the two",
        )
    ]


WARNED_SHARE = 0.02
"""Joules per request may be this much beside e + n·p/load, by rounding and by how they are met."""

REFUSED_TIMES = 9.0
"""An order of magnitude, give or take other errors: joules that are so many times too large or too
small are in another unit or of another row."""


def check_joules(rows: Iterable[ProfileRow], path: Path) -> None:
    """Hold ``joules_per_request`` against e + n·p/λ, which is what plans count with.

    Raises:
        ConfigError: a row is off by an order of magnitude.
    """
    off: list[tuple[float, str]] = []
    for row in rows:
        if not row.has_energy or row.load_rps <= 0 or math.isnan(row.joules_per_request):
            continue
        expected = joules_per_request(
            row.dynamic_energy_j, row.idle_power_w, row.replicas, row.load_rps
        )
        if abs(row.joules_per_request - expected) <= WARNED_SHARE * expected:
            continue
        times = row.joules_per_request / expected if expected > 0 else math.inf
        what = f"{row.label}, x{row.replicas} at {row.load_rps:g} rps"
        text = f"{what}: {row.joules_per_request:.4g} J, not {expected:.4g} J"
        off.append((abs(math.log(times)) if 0 < times < math.inf else math.inf, text))
    if not off:
        return
    off.sort(key=lambda found: -found[0])
    shown = "; ".join(text for _, text in off[:3]) + ("; …" if len(off) > 3 else "")
    what = (
        f"joules_per_request of {len(off)} row{'s' * (len(off) > 1)} is not e + n·p/load: {shown}"
    )
    if off[0][0] > math.log(REFUSED_TIMES):
        raise ConfigError(
            what,
            where=path,
            allowed="dynamic_energy_j + replicas × idle_power_w / load_rps",
            fix="correct the column that is wrong; plans count with dynamic_energy_j and"
            " idle_power_w alone",
        )
    logger.warning("%s: %s; plans count with dynamic_energy_j and idle_power_w alone", path, what)


def _differing_accuracies(rows: list[ProfileRow], path: Path) -> list[ConfigError]:
    accuracies: dict[tuple[str, ...], float] = {}
    problems = {}
    for row in rows:
        key = (row.stage, row.variant, row.hardware, row.precision, row.request_class)
        first = accuracies.setdefault(key, row.accuracy)
        if first != row.accuracy:
            problems[key] = ConfigError(
                f"{row.stage} {row.variant} has accuracy {first:g} and {row.accuracy:g}",
                where=path,
                allowed="one accuracy for all rows of a variant on one kind of hardware",
            )
    return list(problems.values())


def _end_of_whole_lines(file: io.FileIO, columns: Sequence[str], path: Path) -> int:
    """Where to append: after the last whole line, a missing newline put in if it was whole."""
    file.seek(0)
    content = file.read()
    if not content.strip():
        return 0
    header, newline, _ = content.partition(b"\n")
    ours = ",".join(columns).encode()
    if not newline and ours.startswith(header):
        logger.warning("%s: a torn header is written anew", path)
        return 0
    if header.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r") != ours:
        raise ConfigError(
            "the file has another header",
            where=f"{path}:1",
            allowed=",".join(columns),
            fix="append to another file, or rewrite this one with these columns in this order",
        )
    if content.endswith(b"\n"):
        return len(content)
    return _end_without_torn_line(file, content, columns, path)


def _end_without_torn_line(
    file: io.FileIO, content: bytes, columns: Sequence[str], path: Path
) -> int:
    start = content.rfind(b"\n") + 1
    last = content[start:].decode(errors="replace")
    cells = next(csv.reader([last]), [])
    if isinstance(_row(cells, columns, str(path)), ProfileRow):
        file.write(b"\n")
        return len(content) + 1
    number = content[:start].count(b"\n") + 1
    logger.warning("%s:%d: a torn last line is cut off: %s", path, number, last)
    return start


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    fixes = {
        errno.ENOSPC: "free some space",
        errno.EACCES: "choose a place you may write to",
        errno.EROFS: "choose a place you may write to",
    }
    fix = fixes.get(error.errno or 0)
    return ConfigError(f"cannot be written: {error.strerror}", where=path, fix=fix)
