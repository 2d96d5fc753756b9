"""The figures of a comparison: where the joules went, what users saw, what each stage ran."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ipa_energy.comparing.comparison import Comparison
from ipa_energy.comparing.metrics import RunMetrics
from ipa_energy.report.figure import Axis, Bars, Figure, Line, Mark, Points, key_of
from ipa_energy.report.palette import scale_color
from ipa_energy.report.run_series import (
    SECONDS,
    Drawn,
    Series,
    cumulative_energy,
    latency_distribution,
    latency_percentiles,
    line_of,
    per_second,
    qualities,
    segments,
    sla_line,
    slas,
    stepwise,
    variants_by_accuracy,
)
from ipa_energy.runlog.step import StageStep


def power_figure(runs: list[Drawn]) -> Figure:
    """Watts over time."""
    return Figure(
        key="power",
        title="Power",
        caption=f"Mean watts of all stages in each second, idle included; {qualities(runs)}.",
        marks=[
            line_of(drawn, per_second(drawn.run.power_w, drawn.run.duration_s))
            for drawn in runs
            if drawn.has_energy
        ],
        x=SECONDS,
        y=Axis("power (W)", from_zero=True),
    )


def energy_figure(runs: list[Drawn]) -> Figure:
    """Cumulative joules."""
    marks = []
    for drawn in runs:
        if drawn.has_energy:
            series = cumulative_energy(drawn.run)
            marks.append(line_of(drawn, Series(series.x, series.y / 1000)))
    return Figure(
        key="energy",
        title="Energy so far",
        caption="Kilojoules since the start; the gap between the lines is what was saved;"
        f" {qualities(runs)}.",
        marks=marks,
        x=SECONDS,
        y=Axis("energy (kJ)", from_zero=True),
    )


def split_figure(runs: list[Drawn]) -> Figure:
    """Joules by stage, idle and dynamic."""
    shown = [drawn for drawn in runs if drawn.has_energy]
    stages = shown[0].run.info.stages if shown else ()
    parts: tuple[tuple[str, Callable[[StageStep], float]], ...] = (
        ("idle", lambda stage: stage.idle_j),
        ("dynamic", lambda stage: stage.dynamic_j),
    )
    return Figure(
        key="split",
        title="Where the joules go",
        caption="Joules per answered request by stage: idle (pale: replicas that hold power while"
        f" they exist) and dynamic (solid: the work itself); {qualities(runs)}.",
        marks=[
            Bars(
                name=f"{stage_name}, {part}",
                places=[drawn.name for drawn in shown],
                lengths=[_per_request(drawn, index, joules) for drawn in shown],
                color=f"stage{index}",
                pale=part == "idle",
            )
            for index, stage_name in enumerate(stages)
            for part, joules in parts
        ],
        x=Axis("energy (J/request)", from_zero=True),
        y=Axis("", categories=tuple(drawn.name for drawn in shown)),
        height=90 + 46 * max(1, len(shown)),
    )


def _per_request(drawn: Drawn, stage: int, joules: Callable[[StageStep], float]) -> float:
    total = sum(joules(step.stages[stage]) for step in drawn.run.steps if step.stages)
    return total / drawn.metrics.served if drawn.metrics.served else math.nan


def trade_figure(comparison: Comparison) -> Figure:
    """Accuracy against joules per request, baselines included."""
    marks = [_point(run, f"run{index}", 13) for index, run in enumerate(comparison.runs)]
    colors = {run.name: f"run{index}" for index, run in enumerate(comparison.runs)}
    for baselines in (comparison.static_best, comparison.oracle):
        marks += [
            _point(run, colors.get(name, "muted"), 11, baseline=baselines is comparison.oracle)
            for name, run in baselines.items()
        ]
    known = [mark for mark in marks if not math.isnan(mark.x[0] + mark.y[0])]
    return Figure(
        key="trade",
        title="What was traded",
        caption="Mean accuracy against joules per request: up and to the left is better. Circles"
        " are the runs; of the same colour, diamonds are the best plan that never changes, stars an"
        " adaptation that knew the load. Hollow marks are estimated joules, filled ones measured"
        " or imported.",
        marks=known,
        x=Axis("energy (J/request)"),
        y=Axis("mean accuracy"),
        height=320,
    )


def _point(run: RunMetrics, color: str, size: float, *, baseline: bool | None = None) -> Points:
    """A run; a baseline is the oracle (True) or the static plan (False)."""
    quality = f"{run.quality} by {run.meter}" if run.quality else "no energy"
    inside = f"{100 * run.sla_attainment:.1f} % inside the SLA, {run.cores_mean:.1f} cores"
    return Points(
        name=f"{run.name} ({run.quality})" if run.quality else run.name,
        x=[run.joules_per_request],
        y=[run.accuracy_mean],
        color=color,
        symbol="circle" if baseline is None else "star" if baseline else "diamond",
        hollow=run.quality == "estimated",
        size=size,
        labels=[run.detail or run.name],
        hover=[f"{inside}\njoules: {quality}"],
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


def stage_figure(runs: list[Drawn], stage: int, name: str) -> Figure:
    """What one stage ran: variant strips, and batch and replicas as steps."""
    variants = variants_by_accuracy(runs, stage)
    last = max(1, len(variants) - 1)
    marks: list[Mark] = [
        _strips(runs, stage, variant, scale_color(position / last))
        for position, variant in enumerate(variants)
    ]
    for drawn in runs:
        for panel, knob in ((1, "batch"), (2, "replicas")):
            series = _knob(drawn, stage, knob)
            marks.append(line_of(drawn, series, knob, step=True, legend=False, panel=panel))
    strips = 26.0 * len(runs)
    return Figure(
        key=key_of(f"stage-{stage}", name),
        title=f"Stage {name}",
        caption="Top: the variant each run used, dark the least accurate, light the most. Below:"
        " batch size, and number of replicas, in the runs' colours.",
        marks=marks,
        x=SECONDS,
        y=(
            Axis("", categories=tuple(drawn.name for drawn in runs), share=strips),
            Axis("batch", from_zero=True, share=85),
            Axis("replicas", from_zero=True, share=85),
        ),
        overlay=True,
        height=300 + 26 * len(runs),
    )


def _strips(runs: list[Drawn], stage: int, variant: str, color: str) -> Bars:
    """Where the runs used one variant."""
    rows = [
        (drawn, segment)
        for drawn in runs
        for segment in segments(drawn.run, stage)
        if segment.variant == variant
    ]
    return Bars(
        name=variant,
        places=[drawn.name for drawn, _ in rows],
        starts=[segment.start_s for _, segment in rows],
        lengths=[segment.end_s - segment.start_s for _, segment in rows],
        labels=[segment.label for _, segment in rows],
        color=color,
    )


def _knob(drawn: Drawn, stage: int, knob: str) -> Series:
    return stepwise(
        drawn.run,
        lambda step: (
            float(getattr(step.stages[stage], knob)) if stage < len(step.stages) else math.nan
        ),
    )
