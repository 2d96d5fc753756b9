"""One entry of a profile: its columns, and what each of them may hold.

The rules are here so that reading a file, and appending to one, refuse the same things. A figure
that was not measured is an empty cell and NaN, never 0; a joule figure never comes without the
meter and the quality that say what it is worth.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.records import QUALITIES, Quality


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One measured entry; the fields are the CSV's columns, in order.

    ``joules_per_request`` is J = e + n·p/λ at the row's own replicas and load. Absent figures are
    NaN and an empty cell in the file. ``quality`` and ``meter`` are empty without energy.
    """

    stage: str
    variant: str
    hardware: str
    cpu_cores: float
    gpu_share: float
    batch: int
    replicas: int
    load_rps: float
    latency_avg_s: float
    latency_p99_s: float
    throughput_rps: float
    accuracy: float
    dynamic_energy_j: float
    idle_power_w: float
    joules_per_request: float
    energy_ci95_j: float
    trials: int
    meter: str
    quality: Quality | None

    @property
    def option_key(self) -> tuple[str, str, str, float, float, int]:
        """What makes an option: stage, variant, hardware, cores, GPU share, batch."""
        return (
            self.stage,
            self.variant,
            self.hardware,
            self.cpu_cores,
            self.gpu_share,
            self.batch,
        )

    @property
    def is_saturated(self) -> bool:
        """True if the row's load is what its replicas serve, or more."""
        return self.load_rps >= SATURATED * self.replicas * self.throughput_rps

    @property
    def has_energy(self) -> bool:
        """True if the row has joules."""
        return self.quality is not None


SATURATED = 0.97
"""A load above this share of the replicas' throughput is saturation, give or take rounding."""

COLUMNS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(ProfileRow))
"""The header of a profile, in order."""

_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[0-9]{1,15}(\.0*)?")
_ENERGY = ("dynamic_energy_j", "idle_power_w", "joules_per_request", "meter", "quality")
_P99_ROOM = 1e-6
"""Relative: a p99 may fall this much below the mean, by rounding in some other tool."""


@dataclass(frozen=True, slots=True)
class _Range:
    """A finite number of a unit, from ``low`` on (or above it) up to ``high``."""

    allowed: str
    low: float
    high: float = math.inf
    above: bool = False
    empty: bool = False
    """True if the cell may be empty, which reads as NaN."""

    def holds(self, value: float) -> bool:
        return math.isfinite(value) and (
            (value > self.low if self.above else value >= self.low) and value <= self.high
        )


_RANGES: Mapping[str, _Range] = {
    "cpu_cores": _Range("cores, a finite number ≥ 0", 0),
    "gpu_share": _Range("a share of one GPU, 0 to 1", 0, 1),
    "load_rps": _Range("requests per second, a finite number ≥ 0", 0),
    "latency_avg_s": _Range("seconds, a finite number > 0", 0, above=True),
    "latency_p99_s": _Range("seconds, a finite number > 0", 0, above=True),
    "throughput_rps": _Range("requests per second, a finite number > 0", 0, above=True),
    "accuracy": _Range("a ratio from -1 to 1 (0.28, not 28)", -1, 1),
    "dynamic_energy_j": _Range("joules, a finite number ≥ 0, or empty", 0, empty=True),
    "idle_power_w": _Range("watts, a finite number ≥ 0, or empty", 0, empty=True),
    "joules_per_request": _Range("joules, a finite number ≥ 0, or empty", 0, empty=True),
    "energy_ci95_j": _Range("joules, a finite number ≥ 0, or empty", 0, empty=True),
}
_COUNTS = ("batch", "replicas", "trials")
FITTED = "fit("
"""How ``meter`` begins in a row that a fit predicted; it has no trial of its own."""
_NAMES = ("stage", "variant", "hardware")


def parse_row(cells: Sequence[str], where: str) -> ProfileRow | list[ConfigError]:
    """The row of a line's cells (in the order of :data:`COLUMNS`), or everything wrong with it.

    Args:
        cells: as many as there are columns.
        where: ``file:line``, for the messages.
    """
    problems: list[ConfigError] = []
    values: dict[str, object] = {}
    for column, cell in zip(COLUMNS, (cell.strip() for cell in cells), strict=True):
        try:
            values[column] = _parser(column)(column, cell, where)
        except ConfigError as problem:
            problems.append(problem)
    if problems:
        return problems
    row = ProfileRow(**values)  # type: ignore[arg-type]
    return list(_contradictions(row, where)) or row


def format_row(row: ProfileRow) -> list[str]:
    """The cells of a row; numbers in the shortest form that reads back to the same float."""
    return [_format(getattr(row, column)) for column in COLUMNS]


def _format(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        # float() first: NumPy's scalars are floats too, but their repr is not a number.
        return "" if math.isnan(value) else repr(float(value)).removesuffix(".0")
    return str(value)


def _parser(column: str) -> Callable[[str, str, str], object]:
    if column in _RANGES:
        return _number
    if column in _COUNTS:
        return _count
    if column == "quality":
        return _quality
    return _text


def _text(column: str, cell: str, where: str) -> str:
    if column in _NAMES and not cell:
        raise ConfigError(f"{column} is empty", where=where, allowed="a name")
    if not cell.isprintable():
        raise ConfigError(f"{column} is {cell!r}", where=where, allowed="printable text")
    return cell


def _number(column: str, cell: str, where: str) -> float:
    rule = _RANGES[column]
    if not cell:
        if rule.empty:
            return math.nan
        raise ConfigError(f"{column} is empty", where=where, allowed=rule.allowed)
    fix = None
    value = float(cell) if _NUMBER.fullmatch(cell) else math.nan
    if rule.holds(value):
        return value
    if column == "accuracy" and 1 < abs(value) <= 100:
        fix = f"if this is percent, write {value / 100:g}"
    elif re.fullmatch(r"[-+]?[0-9]+,[0-9]+", cell):
        fix = f"write {cell.replace(',', '.')}"
    raise ConfigError(f"{column} is {_quoted(cell)}", where=where, allowed=rule.allowed, fix=fix)


def _count(column: str, cell: str, where: str) -> int:
    value = int(float(cell)) if _INTEGER.fullmatch(cell) else -1
    if value < (0 if column == "trials" else 1):
        what = f"{column} is {_quoted(cell) if cell else 'empty'}"
        raise ConfigError(what, where=where, allowed="an integer ≥ 1")
    return value


def _quality(column: str, cell: str, where: str) -> Quality | None:
    if not cell:
        return None
    for quality in QUALITIES:
        if cell == quality:
            return quality
    allowed = " | ".join(QUALITIES) + ", or empty without energy"
    raise ConfigError(f"{column} is {_quoted(cell)}", where=where, allowed=allowed)


def _quoted(cell: str) -> str:
    if _NUMBER.fullmatch(cell):
        return cell
    return repr(cell if len(cell) <= 40 else cell[:37] + "…")


def _contradictions(row: ProfileRow, where: str) -> Iterator[ConfigError]:
    """What is wrong between the columns of one row."""
    if row.cpu_cores == 0 and row.gpu_share == 0:
        yield ConfigError(
            "cpu_cores and gpu_share are both 0", where=where, allowed="one of them above 0"
        )
    if row.trials == 0 and not row.meter.startswith(FITTED):
        yield ConfigError(
            "trials is 0",
            where=where,
            allowed=f"an integer ≥ 1, or 0 for a prediction, whose meter is {FITTED}…)",
        )
    if row.latency_p99_s < row.latency_avg_s * (1 - _P99_ROOM):
        yield ConfigError(
            f"latency_p99_s is {row.latency_p99_s:g} s, below latency_avg_s of"
            f" {row.latency_avg_s:g} s",
            where=where,
            allowed="a p99 that is not below the mean",
        )
    filled = [
        column
        for column in _ENERGY
        if not (getattr(row, column) in ("", None) or _is_nan(getattr(row, column)))
    ]
    absent = [column for column in _ENERGY if column not in filled]
    if absent == ["joules_per_request"] and row.load_rps == 0:
        return  # Without load there are no joules per request, but there are idle watts.
    stray_interval = not filled and not math.isnan(row.energy_ci95_j)
    if (filled and absent) or stray_interval:
        yield ConfigError(
            f"energy is half-filled: {', '.join(filled or ['energy_ci95_j'])} without"
            f" {', '.join(absent)}",
            where=where,
            allowed=f"all of {', '.join(_ENERGY)}, or none of them",
        )


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
