"""The figures of runs by class of requests (:mod:`.class_metrics`) as a table."""

from __future__ import annotations

import math

from ipa_energy.comparing.class_metrics import ClassMetrics
from ipa_energy.comparing.comparison import Comparison
from ipa_energy.tables import Cell, Head, Row, Table, fixed, percent, points, significant


def class_table(comparison: Comparison) -> Table | None:
    """A row a run and class, held against the same class of the first run that has it."""
    first: dict[str, ClassMetrics] = {}
    rows = []
    for index, run in enumerate(comparison.runs):
        for each in run.classes:
            base = first.setdefault(each.name, each)
            rows.append(_row(f"{run.name}: {each.name}", each, base, index))
    if not rows:
        return None
    heads = [
        Head("energy", "J/request"),
        Head("share", "% of requests"),
        Head("in SLA", "%"),
        Head("SLA", "s"),
        Head("accuracy"),
        Head("p50", "s"),
        Head("p99", "s"),
        Head("requests"),
    ]
    note = (
        "Each class is held to its own latency SLA where it has one. Accuracy is that of the"
        " options that served it. A class has the joules of its own batches; idle and loading"
        " joules are shared out by how long replicas worked for it, so that the classes' add up to"
        " all joules."
    )
    return Table(
        "By class of requests", "class", heads, rows, note=note, notes_as="  vs first", together=3
    )


def _row(label: str, each: ClassMetrics, base: ClassMetrics, index: int) -> Row:
    def cell(value: float, text: str, note: str = "") -> Cell:
        shown = "" if each is base else note
        return Cell(text, note=shown, key=None if math.isnan(value) else value)

    def by(value: float, before: float) -> str:
        return percent(value / before - 1 if before else math.nan)

    joules, in_sla = each.joules_per_request, each.sla_attainment
    sla_s = math.nan if each.latency_sla_s is None else each.latency_sla_s
    cells = [
        cell(joules, significant(joules, 4), by(joules, base.joules_per_request)),
        cell(each.share, fixed(100 * each.share, 1)),
        cell(in_sla, fixed(100 * in_sla, 1), points(in_sla - base.sla_attainment)),
        cell(sla_s, significant(sla_s)),
        cell(each.accuracy, fixed(each.accuracy, 4), points(each.accuracy - base.accuracy)),
        cell(each.latency_p50_s, fixed(each.latency_p50_s, 3)),
        cell(each.latency_p99_s, fixed(each.latency_p99_s, 3)),
        cell(each.requests, fixed(each.requests, 0)),
    ]
    return Row(label, cells, color=f"run{index}")
