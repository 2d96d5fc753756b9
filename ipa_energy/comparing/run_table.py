"""The comparison as a table: one row a run, its difference to the first one under each figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from ipa_energy.comparing.comparison import Comparison, relative
from ipa_energy.comparing.metrics import RunMetrics
from ipa_energy.records import NOTATION
from ipa_energy.registries import QUANTITIES
from ipa_energy.tables import (
    MINUS,
    Cell,
    Head,
    Row,
    Table,
    fixed,
    percent,
    points,
    significant,
    table_text,
)

Change = Callable[[float, float], str]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        head: what it is.
        text: a run's value.
        value: what is compared; None for nothing.
        change: the difference of two values as text.
    """

    head: Head
    text: Callable[[RunMetrics], str]
    value: Callable[[RunMetrics], float] | None = None
    change: Change = lambda value, first: percent(relative(value, first))

    def cell(self, run: RunMetrics, first: RunMetrics) -> Cell:
        """A run's cell, with its difference to the first run."""
        note = ""
        if self.value is not None and run is not first:
            note = self.change(self.value(run), self.value(first))
        return Cell(self.text(run), note=note, quiet=self.head.title == "quality")


def _in_points(value: float, first: float) -> str:
    return points(value - first)


def _count(value: float, first: float) -> str:
    difference = int(value - first)
    return f"{difference:+d}".replace("-", MINUS) if difference else "±0"


def _column(title: str, unit: str, key: str, text: Callable[[float], str]) -> Column:
    value: Callable[[RunMetrics], float] = attrgetter(key)
    return Column(Head(title, unit), lambda run: text(value(run)), value)


COLUMNS: tuple[Column, ...] = (
    _column("energy", "J/request", "joules_per_request", lambda value: significant(value, 4)),
    Column(Head("quality", "of joules"), lambda run: run.quality or "none"),
    _column("total", "kJ", "energy_j", lambda value: significant(value / 1000, 4)),
    _column("power", "W", "power_mean_w", significant),
    Column(
        Head("in SLA", "%"),
        lambda run: fixed(100 * run.sla_attainment, 1),
        attrgetter("sla_attainment"),
        _in_points,
    ),
    _column("p50", "s", "latency_p50_s", lambda value: fixed(value, 3)),
    _column("p99", "s", "latency_p99_s", lambda value: fixed(value, 3)),
    Column(
        Head("accuracy"),
        lambda run: fixed(run.accuracy_mean, 4),
        attrgetter("accuracy_mean"),
        _in_points,
    ),
    _column("cores", "mean", "cores_mean", lambda value: fixed(value, 1)),
    _column("core", "hours", "core_hours", significant),
    Column(Head("requests"), lambda run: f"{run.requests}", attrgetter("requests"), _count),
    Column(Head("dropped"), lambda run: f"{run.dropped}", attrgetter("dropped"), _count),
    Column(
        Head("changes"),
        lambda run: f"{run.reconfigurations}",
        attrgetter("reconfigurations"),
        _count,
    ),
    Column(Head("decision", "ms"), lambda run: significant(1000 * run.decision_s_median)),
)
TOGETHER = 3
"""The first columns stay together: joules never stand without their quality."""


ENERGY_SLA = Column(
    Head("in energy SLA", "% intervals"),
    lambda run: fixed(100 * run.energy_sla_attainment, 1),
    attrgetter("energy_sla_attainment"),
    _in_points,
)
"""Only where a run has one."""


def _further(comparison: Comparison) -> list[Column]:
    """A column for each quantity that any run has beyond those of :data:`COLUMNS`."""
    capped = any(run.energy_sla_joules is not None for run in comparison.runs)
    names = dict.fromkeys(name for run in comparison.runs for name in run.amounts)

    def column(name: str) -> Column:
        unit = QUANTITIES[name].unit if name in QUANTITIES else ""

        def value(run: RunMetrics) -> float:
            return run.amount(name)

        return Column(Head(name, unit), lambda run: significant(value(run), 4), value)

    return [*([ENERGY_SLA] if capped else []), *(column(name) for name in names)]


def run_table(comparison: Comparison) -> Table:
    """The runs, then the baselines, each but the first with its differences to the first run."""
    first = comparison.runs[0]
    columns = (*COLUMNS, *_further(comparison))

    def row(run: RunMetrics, *, color: str = "", muted: bool = False) -> Row:
        cells = [column.cell(run, first) for column in columns]
        return Row(run.name, cells, detail=run.detail or "", color=color, muted=muted)

    runs = [row(run, color=f"run{index}") for index, run in enumerate(comparison.runs)]
    return Table(
        "Metrics",
        "run",
        [column.head for column in columns],
        [*runs, *(row(run, muted=True) for run in comparison.baselines)],
        note=f"Small figures are differences to {first.name}: percent, or percentage points (pt)."
        " Joules per request are all joules of a run, idle included, over answered requests."
        f" {_accuracy_note(comparison)} Cores and watts are means over the workload.",
        notes_as="  vs first",
        together=TOGETHER,
    )


def _accuracy_note(comparison: Comparison) -> str:
    what = "Accuracy is the mean over time of the plans in force"
    if _is_summed(comparison):
        what += ", summed over the stages, so that it can be above 1; a point is 0.01"
    return f"{what}."


def _is_summed(comparison: Comparison) -> bool:
    return any(run.settings.get("accuracy_method") == "sum" for run in comparison.runs)


def comparison_table(comparison: Comparison, *, width: int | None = None) -> str:
    """The comparison as aligned text, without a final newline.

    Under each run but the first stands its difference to the first (percent; percentage points,
    ``pt``, for shares), under all runs the baselines, then warnings.

    Args:
        comparison: what to show.
        width: characters of a line; a wider table goes on in a second one below. None: no limit.
    """
    table = table_text(run_table(comparison), width=width, corner=False)
    details = [f"{run.name}: {run.detail}" for run in comparison.baselines if run.detail]
    notes = [
        *details,
        *([f"({NOTATION})"] if details else []),
        *([f"({_accuracy_note(comparison)})"] if _is_summed(comparison) else []),
        *(f"warning: {text}" for text in comparison.warnings),
    ]
    return "\n\n".join([table, "\n".join(notes)] if notes else [table])
