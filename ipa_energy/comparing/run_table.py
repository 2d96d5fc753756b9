"""The comparison as a table: one row a run, its difference to the first one under each figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ipa_energy.comparing.carbon_table import IN_CARBON_TABLE, carbon_table
from ipa_energy.comparing.class_table import class_table
from ipa_energy.comparing.comparison import Comparison, relative
from ipa_energy.comparing.forecast_scores import forecast_table
from ipa_energy.comparing.hull import Saving
from ipa_energy.comparing.metrics import RunMetrics
from ipa_energy.records import NOTATION, notice_of
from ipa_energy.registries import QUANTITIES
from ipa_energy.tables import (
    DASH,
    Cell,
    Head,
    Row,
    Table,
    Value,
    fixed,
    percent,
    points,
    signed,
    significant,
    table_text,
    wrapped,
)

Change = Callable[[float, float], str]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        head: what it is.
        value: a run's figure.
        text: how it is written.
        change: the difference of two figures as text; None: none is shown.
    """

    head: Head
    value: Callable[[RunMetrics], float]
    text: Callable[[float], str]
    change: Change | None

    def cell(self, run: RunMetrics, base: RunMetrics) -> Cell:
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
        run_table(comparison),
        class_table(comparison),
        yardstick_table(comparison),
        grams_yardstick_table(comparison),
        hindsight_table(comparison),
        share_table(comparison),
        carbon_table(comparison),
        forecasts_of_runs(comparison),
    ]
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


def hindsight_table(comparison: Comparison) -> Table | None:
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


def share_table(comparison: Comparison) -> Table | None:
    """What each run got of what was possible, a row a run; None if nobody asked."""
    colors = {run.name: f"run{index}" for index, run in enumerate(comparison.runs)}
    if not comparison.shares:
        return None

    def in_percent(value: float) -> Cell:
        return Cell(fixed(100 * value, 1), key=None if math.isnan(value) else 100 * value)

    rows = [
        Row(
            name,
            [
                in_percent(told.of_hindsight),
                in_percent(told.of_bound),
                told.objective,
                told.first_objective,
                told.static_objective,
                told.hindsight_objective,
                told.bound,
                told.missed_j,
            ],
            color=colors.get(name, ""),
        )
        for name, told in comparison.shares.items()
    ]
    heads = [
        Head("got", "% of hindsight's gain"),
        Head("of the bound's", "%"),
        Head("objective", "of the run", 5),
        Head("first run's", "", 5),
        Head("best static", "", 5),
        Head("hindsight", "", 5),
        Head("bound", "", 5),
        Head("missed", "J/request", 3),
    ]
    note = (
        "The objective of each run as the whole run comes to it, at its own weights: joules and"
        " core seconds that were spent, starting and draining replicas included; it says nothing of"
        " lateness. Gains are over the first run. Nothing that answers as promptly exceeds the"
        " bound. Missed: what the hindsight plan is better by, in joules at equal accuracy."
    )
    return Table(
        "What knowing the load would have gained", "run", heads, rows, note=note, together=3
    )


def yardstick_table(comparison: Comparison) -> Table | None:
    """What energy saves at equal accuracy and SLA attainment, a row a run; None if nobody asked."""
    colors = {run.name: f"run{index}" for index, run in enumerate(comparison.runs)}
    rows = [_saving_row(name, saving, colors) for name, saving in comparison.savings.items()]
    if not rows:
        return None
    return Table(
        "What energy saves at equal accuracy and SLA attainment",
        "run",
        _saving_heads("energy", "J/request"),
        rows,
        note="Least without: the joules, at the accuracy of the run, of the best mixture of runs of"
        " the same pipeline with no energy in the objective, at other weights and with IPA's"
        " baselines, that answer as many requests in time, half a point less at most (the hull"
        " without energy; means"
        " over the seeds of arrivals). A saving is what no other weight gives.",
        together=3,
    )


def grams_yardstick_table(comparison: Comparison) -> Table | None:
    """The same in grams, of runs with carbon in their objective; None without any."""
    colors = {run.name: f"run{index}" for index, run in enumerate(comparison.runs)}
    rows = [
        _saving_row(name, against, colors, [Cell(rival)])
        for name, saving in comparison.savings.items()
        if saving.grams is not None
        for rival, against in {
            "the best other weights": saving.grams,
            **saving.grams.rivals,
        }.items()
    ]
    if not rows:
        return None
    return Table(
        "What carbon saves at equal accuracy and SLA attainment",
        "run",
        [Head("against"), *_saving_heads("carbon", "g/million requests")],
        rows,
        note="As above, in grams. The best other weights: those without energy and constant weights"
        " of energy, so that what is left is what knowing the hour's intensity is worth. The least"
        " joules: the grams of whatever mixture of these needs least joules. Plans that never"
        " change are made for the busiest interval, and for somewhat less and more, at each weight"
        " of energy."
        " The same grams for every request: the budget as a cap on each. A forecast that is true"
        " is one that nobody has.",
        together=4,
    )


def _saving_heads(what: str, unit: str) -> list[Head]:
    return [
        Head(f"with {what}", unit),
        Head("least without", unit),
        Head("saving", "%"),
        Head("range", "over the seeds, %"),
        Head("seeds"),
        Head("accuracy"),
        Head("in SLA", "at least, %"),
    ]


def _saving_row(
    name: str, saving: Saving, colors: Mapping[str, str], before: Sequence[Cell] = ()
) -> Row:
    known = [at for at, value in enumerate(saving.savings) if not math.isnan(value)]
    cells: list[Cell | Value]
    if not known:
        reason = "no weights without energy reach this accuracy"
        if before:
            reason = "none of them is as accurate and as punctual"
        cells = [*before, Cell(DASH, reason=reason), *[None] * 6]
        return Row(name, cells, color=colors.get(name, ""))

    def mean(values: Iterable[float]) -> float:
        found = list(values)
        return sum(found) / len(found)

    outcomes = [saving.outcomes[at] for at in known]
    span = f"{fixed(100 * saving.least, 1)} to {fixed(100 * saving.most, 1)}"
    cells = [
        *before,
        mean(outcome.joules_per_request for outcome in outcomes),
        mean(saving.least_joules[at] for at in known),
        Cell(fixed(100 * saving.mean, 1), key=100 * saving.mean),
        Cell(span, key=100 * saving.least),
        len(known),
        Cell(fixed(mean(outcome.accuracy for outcome in outcomes), 4), key=outcomes[0].accuracy),
        Cell(
            fixed(100 * min(saving.attainments), 1),
            key=100 * min(saving.attainments),
        ),
    ]
    return Row(name, cells, color=colors.get(name, ""))


def forecasts_of_runs(comparison: Comparison) -> Table | None:
    """How good the runs' forecasts were; None if none of them logged any."""
    return forecast_table({run.name: run.forecasts for run in comparison.runs})


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
