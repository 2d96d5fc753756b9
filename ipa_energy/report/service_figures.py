"""What users of the pipeline saw: load, accuracy, cores and latency."""

from __future__ import annotations

import math

import numpy as np

from ipa_energy.report.figure import Axis, Bars, Figure, Line, Mark
from ipa_energy.report.run_lines import SECONDS, line_of, sla_line, slas
from ipa_energy.report.series import (
    Drawn,
    Series,
    latency_distribution,
    latency_percentiles,
    per_second,
    stepwise,
)


def load_figure(runs: list[Drawn]) -> Figure:
    """Offered load, and what each run expected."""
    first = runs[0]
    offered = per_second(first.run.offered_rps, first.run.duration_s)
    marks = [Line(name="offered", x=offered.x, y=offered.y, color="muted", width=1, fill=True)]
    for drawn in runs:
        predicted = stepwise(
            drawn.run, lambda step: step.predicted_load_rps if step.start_s > 0 else math.nan
        )
        marks.append(line_of(drawn, predicted, "predicted", step=True))
    return Figure(
        key="load",
        title="Load",
        caption="Requests offered each second (area), and the load that each run predicted for the"
        " next interval (lines).",
        marks=marks,
        x=SECONDS,
        y=Axis("load (requests/s)", from_zero=True),
    )


def cores_figure(runs: list[Drawn]) -> Figure:
    """Reserved cores over time."""
    marks = []
    for drawn in runs:
        series = (
            per_second(drawn.run.cores, drawn.run.duration_s)
            if len(drawn.run.cores)
            else stepwise(drawn.run, lambda step: step.cores)
        )
        marks.append(line_of(drawn, series, step=True))
    return Figure(
        key="cores",
        title="Cores",
        caption="Cores reserved by all replicas, those that start or drain included.",
        marks=marks,
        x=SECONDS,
        y=Axis("cost (cores)", from_zero=True),
    )


def accuracy_figure(runs: list[Drawn]) -> Figure:
    """Pipeline accuracy over time."""
    marks = []
    for drawn in runs:
        raw = stepwise(drawn.run, lambda step: step.accuracy_raw)
        if np.isnan(raw.y).all():
            raw = stepwise(drawn.run, lambda step: step.terms["accuracy"])
        marks.append(line_of(drawn, raw, step=True))
    return Figure(
        key="accuracy",
        title="Accuracy",
        caption="Accuracy of the whole pipeline under the plan in force, from the variants' own"
        " figures (for logs without those: the accuracy term of the objective).",
        marks=marks,
        x=SECONDS,
        y=Axis("pipeline accuracy"),
    )


def latency_figure(runs: list[Drawn]) -> Figure:
    """Latency percentiles over time, the SLA and drops."""
    marks: list[Mark] = []
    has_drops = False
    for drawn in runs:
        drops, (p50, p99) = latency_percentiles(drawn.run, (50, 99))
        marks.append(line_of(drawn, p99, "p99"))
        marks.append(line_of(drawn, p50, "p50", dash="dot"))
        if drops.any():
            has_drops = True
            marks.append(
                Bars(
                    name=f"{drawn.name} dropped",
                    at=p50.x,
                    lengths=drops,
                    color=f"run{drawn.index}",
                    group=f"run{drawn.index}",
                    upright=True,
                    legend=False,
                    panel=1,
                )
            )
    last_s = max(drawn.run.duration_s for drawn in runs)
    marks += [sla_line(sla_s, (0, last_s), (sla_s, sla_s)) for sla_s in slas(runs)]
    latency = Axis("latency (s)", from_zero=True, share=0.75)
    drops_axis = Axis("drops (requests)", from_zero=True, share=0.25)
    return Figure(
        key="latency",
        title="Latency",
        caption="End-to-end latency of answered requests by time of sending, p99 (solid) and p50"
        " (dotted) of every 10 s, and the SLA (dashed)."
        + (" Bars beneath: requests dropped." if has_drops else " No request was dropped."),
        marks=marks,
        x=SECONDS,
        y=(latency, drops_axis) if has_drops else latency,
        height=380 if has_drops else 320,
    )


def distribution_figure(runs: list[Drawn]) -> Figure:
    """Cumulative distribution of latency."""
    marks = []
    for drawn in runs:
        series = latency_distribution(drawn.run)
        marks.append(line_of(drawn, Series(series.x, 100 * series.y), run=None))
    marks += [sla_line(sla_s, (sla_s, sla_s), (0, 100)) for sla_s in slas(runs)]
    return Figure(
        key="distribution",
        title="Distribution of latency",
        caption="Share of all requests answered within a latency; a line that ends below 100 % lost"
        " the rest.",
        marks=marks,
        x=Axis("latency (s)", from_zero=True),
        y=Axis("requests answered (%)", low=0, high=101),
    )
