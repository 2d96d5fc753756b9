"""Joules from a CSV of power readings: NVIDIA FrameView and PCAT, and anything shaped like them.

Power is integrated by the trapezoid rule between samples, over the whole log or from ``start_s`` to
``end_s`` in the log's own time. ``NA`` is a missing sample, never 0 W; the straight line reaches
over it only as far as ``max_gap_s``.

What FrameView writes, best first, is the power of the graphics board: ``PCAT Power Total(W)`` (a
meter in the supply lines), else the board's own sensor, ``NV Pwr(W) (API)`` or ``AMDPwr(W) (API)``.
``GPUOnlyPwr(W) (API)`` is a part of NVIDIA's and never added. ``CPU Package Power(W)`` comes on
top, as a domain of its own. Any other power with figures in it is named as left out. Other logs
name their columns differently; then name them.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ipa_energy.errors import ConfigError

TIME_COLUMN = "TimeInSeconds"
PCAT_COLUMN = "PCAT Power Total(W)"
BOARD_COLUMNS = (PCAT_COLUMN, "NV Pwr(W) (API)", "AMDPwr(W) (API)")
CPU_COLUMN = "CPU Package Power(W)"

NO_FURTHER_POWER = ("PCAT", "GPUOnlyPwr", "NV-Total-USBCPwr", "CPU TDP", "Battery", "Perf/W")
"""Beginnings of headers in watts: parts of a board's power, no power, or all of it again."""

MISSING = ("", "NA", "N/A")
MAX_GAP_S = 1.0
"""Ten of FrameView's 100 ms."""

_UNIT = re.compile(r"[(\[]\s*([A-Za-zµμ%°/]+)\s*[)\]]")
_POWER_UNITS = {"W": 1.0, "Watts": 1.0, "mW": 1e-3, "kW": 1e3}
_TIME_UNITS = {"s": 1.0, "S": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_NOTES = ("API",)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLogChoice:
    """What to take from a log.

    Attributes:
        time_column: header of the time; None for ``TimeInSeconds``.
        power_columns: headers of powers to add up; empty for FrameView's own.
        start_s: beginning of the window in the log's time; None for its first sample.
        end_s: its end; None for the last sample.
        max_gap_s: longest time between two samples.
    """

    time_column: str | None = None
    power_columns: Sequence[str] = ()
    start_s: float | None = None
    end_s: float | None = None
    max_gap_s: float = MAX_GAP_S


@dataclass(frozen=True, slots=True)
class PowerLog:
    """What a log's window cost.

    Attributes:
        duration_s: length of the window.
        domains: joules by column, with FrameView's named ``gpu-board`` and ``cpu-package``.
        columns: the headers they came from.
        notes: powers in the log that are not among them.
    """

    duration_s: float
    domains: dict[str, float]
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Column:
    """Samples of one power, ascending in time."""

    header: str
    times_s: list[float]
    powers_w: list[float]


def looks_like_power_log(text: str) -> bool:
    """True if the first line is a FrameView header."""
    first = text.lstrip("\ufeff").split("\n", 1)[0]
    return TIME_COLUMN in first and "," in first


def parse_power_log(text: str, choice: PowerLogChoice, *, where: str | Path) -> PowerLog:
    """Joules of a log's window.

    Args:
        text: the CSV, header first.
        choice: columns and window.
        where: the file, for messages.

    Raises:
        ConfigError: a column is missing or in another unit, a line is torn or holds no number, time
            runs backwards, power is negative or stays at 0, or the window is not covered.
    """
    try:
        rows = list(csv.reader(io.StringIO(text.lstrip("\ufeff"))))
    except csv.Error as error:
        raise ConfigError(f"no CSV: {error}", where=where) from error
    if len(rows) < 2:
        raise ConfigError("no rows of samples", where=where, allowed="a CSV with a header line")
    header = [cell.strip() for cell in rows[0]]
    _require_commas(header, where)
    time_header = choice.time_column or TIME_COLUMN
    time_scale = _scale(time_header, _TIME_UNITS, where)
    time_at = _index(header, time_header, where)
    chosen = _chosen(header, rows, choice, where)
    columns = {
        domain: _column(rows, time_at, time_scale, _index(header, power_header, where), where)
        for domain, power_header in chosen.items()
    }
    start_s, end_s = _window(list(columns.values()), choice, where)
    domains = {
        domain: _integral(column, start_s, end_s, choice.max_gap_s, where)
        for domain, column in columns.items()
    }
    notes = () if choice.power_columns else _left_out(header, rows, tuple(chosen.values()))
    return PowerLog(end_s - start_s, domains, tuple(chosen.values()), notes)


def _left_out(header: list[str], rows: list[list[str]], chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Powers with figures that nobody chose, but for the own sensor of the board on PCAT."""
    others = [
        name
        for at, name in enumerate(header)
        if name not in chosen
        and not name.startswith(NO_FURTHER_POWER)
        and any(unit in _POWER_UNITS for unit in _UNIT.findall(name))
        and _has_figures(rows, at)
    ]
    sensors = [name for name in others if name in BOARD_COLUMNS]
    if PCAT_COLUMN in chosen and len(sensors) == 1:
        others.remove(sensors[0])
    if not others:
        return ()
    return (
        f"not counted: {', '.join(others)}; if it is no part of {', '.join(chosen)}, name all "
        "columns that add up: --power-column",
    )


def _chosen(
    header: list[str], rows: list[list[str]], choice: PowerLogChoice, where: str | Path
) -> dict[str, str]:
    """Domain → header of the columns to integrate."""
    if choice.power_columns:
        if len(set(choice.power_columns)) < len(choice.power_columns):
            raise ConfigError(f"columns {list(choice.power_columns)} name one twice", where=where)
        return {name: name for name in choice.power_columns}
    filled = [
        name
        for name in (*BOARD_COLUMNS, CPU_COLUMN)
        if name in header and _has_figures(rows, header.index(name))
    ]
    board = next((name for name in filled if name in BOARD_COLUMNS), None)
    chosen = {} if board is None else {"gpu-board": board}
    if CPU_COLUMN in filled:
        chosen["cpu-package"] = CPU_COLUMN
    if not chosen:
        raise ConfigError(
            f"none of {', '.join((*BOARD_COLUMNS, CPU_COLUMN))} has figures",
            where=where,
            fix=f"name the power columns; there are: {', '.join(header)}",
        )
    return chosen


def _has_figures(rows: list[list[str]], at: int) -> bool:
    return any(at < len(row) and row[at].strip() not in MISSING for row in rows[1:])


def _index(header: list[str], name: str, where: str | Path) -> int:
    if header.count(name) != 1:
        many = "no column" if name not in header else f"{header.count(name)} columns"
        raise ConfigError(f"{many} {name!r}", where=f"{where}:1", allowed=", ".join(header))
    return header.index(name)


def _require_commas(header: list[str], where: str | Path) -> None:
    if len(header) == 1:
        separator = next((s for s in (";", "\t") if s in header[0]), None)
        what = f"fields separated by {separator!r}" if separator else "a single column"
        raise ConfigError(
            what,
            where=f"{where}:1",
            allowed="commas, with a point in numbers",
            fix="write the log anew with an English locale; a spreadsheet may have changed it",
        )


def _scale(header: str, units: dict[str, float], where: str | Path) -> float:
    """Factor to SI of the unit in a header's brackets; 1 if there is none."""
    for unit in _UNIT.findall(header):
        if unit in units:
            return units[unit]
        if unit not in _NOTES:
            raise ConfigError(
                f"column {header!r} is in {unit}",
                where=f"{where}:1",
                allowed=f"{', '.join(units)}, or no brackets",
                fix="choose another column; if it is no unit, take the brackets off the header",
            )
    return 1.0


def _column(
    rows: list[list[str]], time_at: int, time_scale: float, at: int, where: str | Path
) -> _Column:
    header = rows[0][at].strip()
    scale = _scale(header, _POWER_UNITS, where)
    column = _Column(header, [], [])
    for number, row in enumerate(rows[1:], 2):
        place = f"{where}:{number}"
        if not row:
            continue
        if len(row) != len(rows[0]):
            raise ConfigError(
                f"{len(row)} fields where the header has {len(rows[0])}",
                where=place,
                fix="the line is torn, or its numbers have decimal commas: write the log anew",
            )
        if row[at].strip() in MISSING:
            continue
        time_s = _number(row[time_at], rows[0][time_at], place) * time_scale
        power_w = _number(row[at], header, place) * scale
        if power_w < 0:
            raise ConfigError(f"{header} is {power_w:g} W", where=place, allowed="0 or more")
        if column.times_s and time_s < column.times_s[-1]:
            raise ConfigError(
                f"time runs backwards, from {column.times_s[-1]:g} to {time_s:g} s",
                where=place,
                fix="one recording a file",
            )
        column.times_s.append(time_s)
        column.powers_w.append(power_w)
    if len(column.times_s) < 2 or not any(column.powers_w):
        few = "fewer than two samples" if len(column.times_s) < 2 else "stays at 0 W"
        raise ConfigError(f"{header}: {few}", where=where, fix="choose a column with figures")
    return column


def _number(cell: str, header: str, place: str) -> float:
    if not _NUMBER.fullmatch(cell.strip()):
        raise ConfigError(
            f"{header.strip()} is {cell!r}", where=place, allowed="a number with a point, or NA"
        )
    return float(cell)


def _window(
    columns: Sequence[_Column], choice: PowerLogChoice, where: str | Path
) -> tuple[float, float]:
    """The window asked for, or the time that every column covers."""
    first_s = max(column.times_s[0] for column in columns)
    last_s = min(column.times_s[-1] for column in columns)
    start_s = first_s if choice.start_s is None else choice.start_s
    end_s = last_s if choice.end_s is None else choice.end_s
    if not first_s <= start_s < end_s <= last_s:
        raise ConfigError(
            f"the window from {start_s:g} to {end_s:g} s is not within the samples of "
            f"{', '.join(column.header for column in columns)}",
            where=where,
            allowed=f"within {first_s:g} to {last_s:g} s, its end after its start",
        )
    return start_s, end_s


def _integral(
    column: _Column, start_s: float, end_s: float, max_gap_s: float, where: str | Path
) -> float:
    """Joules by the trapezoid rule, with power at the window's ends on the line between samples."""
    parts = []
    samples = zip(column.times_s, column.powers_w, strict=True)
    for (a_s, a_w), (b_s, b_w) in pairwise(samples):
        left_s, right_s = max(a_s, start_s), min(b_s, end_s)
        if right_s <= left_s:
            continue
        if b_s - a_s > max_gap_s:
            raise ConfigError(
                f"{column.header} has no sample from {a_s:g} to {b_s:g} s",
                where=where,
                allowed=f"gaps of {max_gap_s:g} s",
                fix="choose a window without the gap",
            )
        slope = (b_w - a_w) / (b_s - a_s)
        middle_w = a_w + slope * ((left_s + right_s) / 2 - a_s)
        parts.append(middle_w * (right_s - left_s))
    return math.fsum(parts)
