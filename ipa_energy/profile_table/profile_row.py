"""One entry of a profile: its columns, and what each of them may hold.

The rules are here so that reading a file, and appending to one, refuse the same things. A figure
that was not measured is an empty cell and NaN, never 0; a joule figure never comes without the
meter and the quality that say what it is worth.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.records import QUALITIES, Quality


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One measured entry; the fields are the CSV's columns, in order.

    ``joules_per_request`` is J = e + n·p/λ at the row's own replicas and load. Absent figures are
    NaN and an empty cell in the file. ``quality`` and ``meter`` are empty without energy.

    The last eleven are optional. ``resource_units`` of ``resource`` are what one replica reserves
    beside cores and GPU share (one ``board``, two ``mig-1g.10gb``); clock, power cap and precision
    are settings that it was measured with; ``embodied_g_per_hour`` is what making its hardware
    emitted, per hour of use; ``load_s`` and ``load_energy_j`` are the time from the start of a
    replica until it can serve and the joules above idle that this takes; ``request_class`` is the
    kind of requests that the figures hold for, ``tokens_per_request`` what a language model answers
    them with in the mean, and ``source`` says where the figures were published.
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
    request_class: str = ""
    resource: str = ""
    resource_units: float = math.nan
    clock_mhz: float = math.nan
    power_cap_w: float = math.nan
    precision: str = ""
    embodied_g_per_hour: float = math.nan
    load_s: float = math.nan
    load_energy_j: float = math.nan
    tokens_per_request: float = math.nan
    source: str = ""

    @property
    def option_key(self) -> tuple[object, ...]:
        """What makes an option: stage, variant, hardware, cores, GPU share, batch, and labels."""
        allocation = (self.hardware, self.cpu_cores, self.gpu_share)
        return (self.stage, self.variant, *allocation, self.batch, *self.labels)

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """(column, cell) of the optional columns that tell options apart, where they are filled."""
        cells = ((column, _format(getattr(self, column))) for column in _LABELS)
        return tuple((column, cell) for column, cell in cells if cell)

    @property
    def label(self) -> str:
        """Short name for messages: ``crop yolov5n on cpu, 2 cores, batch 4``."""
        labels = "".join(f", {column} {cell}" for column, cell in self.labels)
        return (
            f"{self.stage} {self.variant} on {self.hardware}, {self.cpu_cores:g} cores, batch"
            f" {self.batch}{labels}"
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

_FIELDS = tuple(field.name for field in dataclasses.fields(ProfileRow))
COLUMNS: tuple[str, ...] = _FIELDS[: _FIELDS.index("quality") + 1]
"""The header of every profile, in order."""

OPTIONAL_COLUMNS: tuple[str, ...] = _FIELDS[len(COLUMNS) :]
"""Columns that a profile may have besides; an empty cell means what no column means."""

_LABELS = (
    "request_class",
    "resource",
    "resource_units",
    "clock_mhz",
    "power_cap_w",
    "precision",
)

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
    "resource_units": _Range("units, a finite number > 0, or empty", 0, above=True, empty=True),
    "clock_mhz": _Range("MHz, a finite number > 0, or empty", 0, above=True, empty=True),
    "power_cap_w": _Range("watts, a finite number > 0, or empty", 0, above=True, empty=True),
    "embodied_g_per_hour": _Range("grams, a finite number ≥ 0, or empty", 0, empty=True),
    "load_s": _Range("seconds, a finite number > 0, or empty", 0, above=True, empty=True),
    "load_energy_j": _Range("joules, a finite number ≥ 0, or empty", 0, empty=True),
    "tokens_per_request": _Range(
        "tokens, a finite number > 0, or empty", 0, above=True, empty=True
    ),
}
RESOURCE_COLUMNS = {"core": "cpu_cores", "gpu": "gpu_share"}
"""Resources that have a column of their own."""

_COUNTS = ("batch", "replicas", "trials")
FITTED = "fit("
"""How ``meter`` begins in a row that a fit predicted; it has no trial of its own."""
_NAMES = ("stage", "variant", "hardware")


def rounded(value: float, digits: int = 6) -> float:
    """A figure at the six digits that are more than any measurement here is good to."""
    return float(f"{value:.{digits}g}")


def as_number(text: object) -> float:
    """The number that another tool wrote; NaN: what it means that it is none, who asks knows."""
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def parse_row(
    cells: Sequence[str], where: str, columns: Sequence[str] = COLUMNS
) -> ProfileRow | list[ConfigError]:
    """The row of a line's cells, or everything wrong with it.

    Args:
        cells: as many as there are columns.
        where: ``file:line``, for the messages.
        columns: of the cells.
    """
    problems: list[ConfigError] = []
    values: dict[str, object] = {}
    for column, cell in zip(columns, (cell.strip() for cell in cells), strict=True):
        try:
            values[column] = _parser(column)(column, cell, where)
        except ConfigError as problem:
            problems.append(problem)
    if problems:
        return problems
    row = ProfileRow(**values)  # type: ignore[arg-type]
    return list(_contradictions(row, where)) or row


def columns_of(rows: Iterable[ProfileRow]) -> tuple[str, ...]:
    """The header for these rows: optional columns only where one of the rows has something."""
    rows = list(rows)
    filled = (c for c in OPTIONAL_COLUMNS if any(_format(getattr(row, c)) for row in rows))
    return (*COLUMNS, *filled)


def format_row(row: ProfileRow, columns: Sequence[str] = COLUMNS) -> list[str]:
    """The cells of a row; numbers in the shortest form that reads back to the same float."""
    return [_format(getattr(row, column)) for column in columns]


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
    if row.cpu_cores == 0 and row.gpu_share == 0 and not row.resource:
        yield ConfigError(
            "cpu_cores and gpu_share are both 0",
            where=where,
            allowed="one of them above 0, or another resource",
        )
    if bool(row.resource) != math.isfinite(row.resource_units):
        yield ConfigError(
            "resource without resource_units, or resource_units without resource",
            where=where,
            allowed="both, such as board and 1, or none",
        )
    if row.resource in RESOURCE_COLUMNS:
        yield ConfigError(
            f"resource is {row.resource}",
            where=where,
            allowed="a resource without a column of its own",
            fix=f"write its units as {RESOURCE_COLUMNS[row.resource]}",
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
