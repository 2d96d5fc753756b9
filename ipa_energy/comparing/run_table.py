"""The comparison as a table: one row a run, its difference to the first one under each figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ipa_energy.comparing.class_metrics import ClassMetrics
from ipa_energy.comparing.comparison import Comparison, relative
from ipa_energy.comparing.forecast_scores import forecast_table
from ipa_energy.comparing.metrics import RunMetrics
from ipa_energy.comparing.saving_tables import (
    IN_CARBON_TABLE,
    carbon_table,
    grams_yardstick_table,
    share_table,
    yardstick_table,
)
from ipa_energy.records import NOTATION, notice_of
from ipa_energy.registries import QUANTITIES
from ipa_energy.tables import (
    Cell,
    Head,
    Row,
    Table,
    fixed,
    percent,
    points,
    signed,
    significant,
    table_text,
    wrapped,
)

Change = Callable[[float, float], str]
Measured = RunMetrics | ClassMetrics


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        head: what it is.
        value: the figure of a run, or of a class of its requests.
        text: how it is written.
        change: the difference of two figures as text; None: none is shown.
    """

    head: Head
    value: Callable[[Any], float]
    text: Callable[[float], str]
    change: Change | None

    def cell(self, run: Measured, base: Measured) -> Cell:
        """A run's cell, with its difference to the run that it is held against."""
        value = self.value(run)
        note = ""
        if self.change is not None and run is not base:
            note = self.change(value, self.value(base))
        return Cell(self.text(value), note=note, key=None if math.isnan(value) else value)


def _in_percent(value: float, first: float) -> str:
    return percent(relative(value, first))


def _in_points(value: float, first: float) -> str:
    return points(value - first)


def _in_numbers(value: float, first: float) -> str:
    return signed(value - first, "+.0f") if value != first else "±0"


def _column(
    title: str,
    unit: str,
    key: str,
    text: Callable[[float], str],
    change: Change | None = _in_percent,
) -> Column:
    return Column(Head(title, unit), attrgetter(key), text, change)


def _as_share(title: str, unit: str, key: str) -> Column:
    return _column(title, unit, key, lambda value: fixed(100 * value, 1), _in_points)


def _as_count(title: str, key: str) -> Column:
    return _column(title, "", key, lambda value: fixed(value, 0), _in_numbers)


def _seconds(value: float) -> str:
    return fixed(value, 3)


COLUMNS: tuple[Column, ...] = (
    _column("energy", "J/request", "joules_per_request", lambda value: significant(value, 4)),
    _as_share("in SLA", "%", "sla_attainment"),
    _column("accuracy", "", "accuracy_mean", lambda value: fixed(value, 4), _in_points),
    _column("cores", "mean", "cores_mean", lambda value: fixed(value, 1)),
    _column("p50", "s", "latency_p50_s", _seconds),
    _column("p99", "s", "latency_p99_s", _seconds),
    _column("total", "kJ", "energy_j", lambda value: significant(value / 1000, 4)),
    _column("power", "W", "power_mean_w", significant),
    _column("core", "hours", "core_hours", significant),
    _as_count("requests", "requests"),
    _as_count("dropped", "dropped"),
    _as_count("changes", "reconfigurations"),
    _column("decision", "ms", "decision_s_median", lambda value: significant(1000 * value), None),
)
"""What matters most first: narrow screens show these. Energy has its quality beside it."""

IN_HINDSIGHT = 6
"""So many of them hold a run against hindsight where that has a table of its own."""

MOST_WITH_HINDSIGHT = 3
"""Up to so many runs have their baselines below them in one table."""

QUALITY = Head("quality", "of joules")
TOGETHER = 3
"""The first columns stay together: joules never stand without their quality."""

ENERGY_SLA = _as_share("in energy SLA", "% intervals", "energy_sla_attainment")
"""Only where a run has one."""

HINDSIGHT = (
    "In hindsight: the best static plan is one plan for the whole trace, the hindsight plan the"
    " best course of plans that begins with what the run began with, every change paid for; both"
    " know the load beforehand. They maximise the run's own objective, in which joules are one term"
    " of several: fewer joules may come with less accuracy, and more joules with more."
)


def tables_of(comparison: Comparison) -> list[Table]:
    """The runs, then what energy saves and what hindsight would have done where that is known."""
    found = [
        *(run_table(comparison), class_table(comparison)),
        *(yardstick_table(comparison), grams_yardstick_table(comparison)),
        *hindsight_tables(comparison),
        carbon_table(comparison),
        forecast_table({run.name: run.forecasts for run in comparison.runs}),
    ]
    return [table for table in found if table is not None]


def hindsight_tables(comparison: Comparison) -> list[Table]:
    """Those of them that say what knowing the load would have done."""
    found = (_hindsight_table(comparison), share_table(comparison))
    return [table for table in found if table is not None]


PER_TOKEN = _column("energy", "J/token", "joules_per_token", lambda value: significant(value, 4))
"""Only where a language model answers."""

FAILED = _as_count("failed", "failed")
"""Only where a request of a run did: they do in live runs."""


def _further(comparison: Comparison) -> list[Column]:
    """A column for each quantity that any run has beyond those of :data:`COLUMNS`."""
    capped = any(run.energy_sla_joules is not None for run in comparison.runs)
    names = dict.fromkeys(
        name for run in comparison.runs for name in run.amounts if name not in IN_CARBON_TABLE
    )

    def column(name: str) -> Column:
        unit = QUANTITIES[name].unit if name in QUANTITIES else ""
        return Column(
            Head(name, unit),
            lambda run: run.amount(name),
            lambda value: significant(value, 4),
            _in_percent,
        )

    failed = any(run.failed for run in comparison.runs)
    return [
        *([FAILED] if failed else []),
        *([ENERGY_SLA] if capped else []),
        *([PER_TOKEN] if any(run.joules_per_token > 0 for run in comparison.runs) else []),
        *(column(name) for name in names),
    ]


_FOR_CLASSES = (
    COLUMNS[0],
    Column(
        Head("share", "% of requests"),
        attrgetter("share"),
        lambda value: fixed(100 * value, 1),
        None,
    ),
    COLUMNS[1],
    Column(
        Head("SLA", "s"),
        lambda each: math.nan if each.latency_sla_s is None else each.latency_sla_s,
        significant,
        None,
    ),
    _column("accuracy", "", "accuracy", lambda value: fixed(value, 4), _in_points),
    _column("p50", "s", "latency_p50_s", _seconds, None),
    _column("p99", "s", "latency_p99_s", _seconds, None),
    _column("requests", "", "requests", lambda value: fixed(value, 0), None),
)


def class_table(comparison: Comparison) -> Table | None:
    """A row a run and class, held against the same class of the first run that has it."""
    first: dict[str, ClassMetrics] = {}
    rows = []
    for index, run in enumerate(comparison.runs):
        for each in run.classes:
            base = first.setdefault(each.name, each)
            cells = [column.cell(each, base) for column in _FOR_CLASSES]
            rows.append(Row(f"{run.name}: {each.name}", cells, color=f"run{index}"))
    if not rows:
        return None
    return Table(
        "By class of requests",
        "class",
        [column.head for column in _FOR_CLASSES],
        rows,
        note="Each class is held to its own latency SLA where it has one. Accuracy is that of the"
        " options that served it. A class has the joules of its own batches; idle and loading"
        " joules are shared out by how long replicas worked for it, so that the classes' add up to"
        " all joules.",
        notes_as="  vs first",
        together=3,
    )


def _has_own_hindsight(comparison: Comparison) -> bool:
    return len(comparison.runs) > MOST_WITH_HINDSIGHT and bool(comparison.baselines)


def run_table(comparison: Comparison) -> Table:
    """The runs, few of them with their baselines, with their differences to the first run."""
    first = comparison.runs[0]
    columns = (*COLUMNS, *_further(comparison))
    baselines = () if _has_own_hindsight(comparison) else comparison.baselines
    rows = [_row(run, columns, first, f"run{at}") for at, run in enumerate(comparison.runs)]
    rows += [_row(run, columns, first, muted=True) for run in baselines]
    return Table(
        "Metrics",
        "run",
        _heads(columns),
        rows,
        note=f"Small figures are differences to {first.name}: percent, or percentage points (pt)."
        " Joules per request are all joules of a run, idle included, over answered requests."
        f" {_accuracy_note(comparison)} Cores and watts are means over the workload; core hours are"
        f" cores reserved times hours.{f' {HINDSIGHT}' if baselines else ''}",
        notes_as="  vs first",
        together=TOGETHER,
    )


def _heads(columns: Sequence[Column]) -> list[Head]:
    energy, *others = (column.head for column in columns)
    return [energy, QUALITY, *others]


def _row(
    run: RunMetrics,
    columns: Sequence[Column],
    base: RunMetrics,
    color: str = "",
    *,
    muted: bool = False,
) -> Row:
    energy, *others = (column.cell(run, base) for column in columns)
    cells = [energy, Cell(run.quality or "none", quiet=True), *others]
    return Row(run.name, cells, detail=run.detail or "", color=color, muted=muted)


def _hindsight_table(comparison: Comparison) -> Table | None:
    """The baselines of many runs, each with its differences to its own run; None for few runs."""
    if not _has_own_hindsight(comparison):
        return None
    columns = COLUMNS[:IN_HINDSIGHT]
    rows = [
        _row(found, columns, run, f"run{index}")
        for index, run in enumerate(comparison.runs)
        for baselines in (comparison.static_best, comparison.hindsight)
        if (found := baselines.get(run.name) or (baselines.get("") if index == 0 else None))
    ]
    return Table(
        "Best static plans and hindsight",
        "baseline",
        _heads(columns),
        rows,
        note=f"{HINDSIGHT} Small figures are differences to the run itself.",
        notes_as="  vs the run",
        together=TOGETHER,
    )


def _accuracy_note(comparison: Comparison) -> str:
    what = "Accuracy is the mean over time of the plans in force"
    if any(run.is_summed for run in comparison.runs):
        what += ", summed over the stages, so that it can be above 1; a point is 0.01"
    return f"{what}."


def comparison_table(comparison: Comparison, *, width: int | None = None) -> str:
    """The comparison as aligned text, without a final newline.

    Under each run but the first stands its difference to the first (percent; percentage points,
    ``pt``, for shares), under all runs the baselines, then what energy saves, notes and warnings.

    Args:
        comparison: what to show.
        width: characters of a line; a wider table goes on in a second one below. None: no limit.
    """
    runs, *others = tables_of(comparison)
    parts = [table_text(runs, width=width, corner=False)]
    parts += [f"{table.title}\n\n{table_text(table, width=width)}" for table in others]
    plans: dict[str, list[str]] = {}
    for run in comparison.baselines:
        if run.detail:
            plans.setdefault(run.detail, []).append(run.name)
    details = [f"{', '.join(names)}: {plan}" for plan, names in plans.items()]
    notes = [
        *details,
        *([f"({NOTATION})"] if details else []),
        *([f"({HINDSIGHT})"] if comparison.baselines else []),
        *([f"({_accuracy_note(comparison)})"] if comparison.runs[0].is_summed else []),
        *dict.fromkeys(
            f"({run.name}: the joules of its profile are {notice})"
            for run in comparison.runs
            if (notice := notice_of(run.meter))
        ),
        *(f"warning: {text}" for text in comparison.warnings),
    ]
    if notes:
        parts.append("\n".join(wrapped(note, width) for note in notes))
    return "\n\n".join(parts)
