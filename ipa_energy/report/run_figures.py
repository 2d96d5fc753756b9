"""The figures of a comparison: where the joules went, what users saw, what each stage ran."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ipa_energy.comparing.comparison import Comparison
from ipa_energy.comparing.metrics import RunMetrics
from ipa_energy.records import joules_from
from ipa_energy.report.figure import Axis, Bars, Figure, Line, Mark, Points, Symbol, key_of
from ipa_energy.report.palette import RUNS_LIGHT, scale_color
from ipa_energy.report.run_series import (
    Drawn,
    Segment,
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
    steps_of,
    stepwise,
    time_axis,
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
            line_of(drawn, per_second(drawn.run.power_w, drawn.run.duration_s), joules=drawn.joules)
            for drawn in runs
            if drawn.has_energy
        ],
        x=time_axis(runs),
        y=Axis("power (W)", from_zero=True),
    )


def energy_figure(runs: list[Drawn]) -> Figure:
    """Cumulative joules."""
    marks = []
    for drawn in runs:
        if drawn.has_energy:
            series = cumulative_energy(drawn.run)
            scaled = Series(series.x, series.y / 1000)
            marks.append(line_of(drawn, scaled, joules=drawn.joules))
    return Figure(
        key="energy",
        title="Energy so far",
        caption="Kilojoules since the start; the gap between the lines is what was saved;"
        f" {qualities(runs)}.",
        marks=marks,
        x=time_axis(runs),
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
                joules=qualities(shown),
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
    several = len(comparison.runs) > len(RUNS_LIGHT)
    marks: list[Points] = []
    places = {run.name: index for index, run in enumerate(comparison.runs)}
    for index, run in enumerate(comparison.runs):
        marks.append(_point(run, index, 13, numbered=several))
    kinds: tuple[tuple[Mapping[str, RunMetrics], str, Symbol], ...] = (
        (comparison.static_best, "best static plan", "diamond"),
        (comparison.hindsight, "hindsight", "star"),
    )
    for baselines, kind, symbol in kinds:
        for name, run in baselines.items():
            marks.append(_point(run, places.get(name), 11, symbol=symbol, numbered=several))
        if baselines:
            marks.append(_key(kind, symbol))
    told = (
        "diamonds are the best plan that never changes",
        "stars the best course of plans that knew the load",
    )
    shown = [words for words, (baselines, _, _) in zip(told, kinds, strict=True) if baselines]
    others = f"; of the same colour, {', '.join(shown)}" if shown else ""
    numbers = " Numbers are the runs' places in the legend." if several else ""
    summed = " (sum of the stages)" if any(run.is_summed for run in comparison.runs) else ""
    return Figure(
        key="trade",
        title="What was traded",
        caption="Mean accuracy against joules per request: up and to the left is better. Circles"
        f" are the runs{others}. Hollow marks are estimated joules, filled ones measured or"
        f" imported.{numbers}",
        marks=marks,
        x=Axis("energy (J/request)"),
        y=Axis(f"mean accuracy{summed}"),
        height=320,
    )


def _point(
    run: RunMetrics,
    index: int | None,
    size: float,
    *,
    symbol: Symbol = "circle",
    numbered: bool = False,
) -> Points:
    """A run, or a baseline of the run with this index."""
    quality = f"joules: {joules_from(run.quality, run.meter) or 'no energy'}"
    inside = f"{100 * run.sla_attainment:.1f} % inside the SLA, {run.cores_mean:.1f} cores"
    is_run = symbol == "circle"
    number = f"{index + 1}" if numbered and index is not None else ""
    return Points(
        name=f"{number} {run.name}" if number and is_run else run.name,
        x=[run.joules_per_request],
        y=[run.accuracy_mean],
        color="muted" if index is None else f"run{index}",
        symbol=symbol,
        hollow=run.quality == "estimated",
        size=size,
        labels=[run.detail or run.name],
        marks=[number] if number else (),
        hover=[f"{inside}\n{quality}"],
        legend=is_run,
        joules=joules_from(run.quality, run.meter),
    )


def _key(name: str, symbol: Symbol) -> Points:
    """A legend entry that says what a symbol is."""
    return Points(name=name, x=[math.nan], y=[math.nan], color="muted", symbol=symbol, size=11)


def load_figure(runs: list[Drawn]) -> Figure:
    """Offered load, and what each run expected."""
    first = runs[0]
    offered = per_second(first.run.offered_rps, first.run.duration_s)
    marks = [Line(name="offered", x=offered.x, y=offered.y, color="muted", width=1, fill=True)]
    for drawn in runs:
        predicted = stepwise(
            drawn.run, lambda step: step.predicted_load_rps if step.start_s > 0 else math.nan
        )
        marks.append(steps_of(drawn, predicted, "predicted"))
    return Figure(
        key="load",
        title="Load",
        caption="Requests offered each second (area), and the load that each run predicted for the"
        " next interval (lines).",
        marks=marks,
        x=time_axis(runs),
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
        marks.append(steps_of(drawn, series))
    return Figure(
        key="cores",
        title="Cores",
        caption="Cores reserved by all replicas, those that start or drain included.",
        marks=marks,
        x=time_axis(runs),
        y=Axis("cost (cores)", from_zero=True),
    )


def accuracy_figure(runs: list[Drawn]) -> Figure:
    """Pipeline accuracy over time."""
    marks = []
    summed = any(drawn.metrics.is_summed for drawn in runs)
    for drawn in runs:
        raw = stepwise(drawn.run, lambda step: step.accuracy_raw)
        if np.isnan(raw.y).all():
            raw = stepwise(drawn.run, lambda step: step.terms["accuracy"])
        marks.append(steps_of(drawn, raw))
    return Figure(
        key="accuracy",
        title="Accuracy",
        caption="Accuracy of the whole pipeline under the plan in force, from the variants' own"
        " figures (for logs without those: the accuracy term of the objective).",
        marks=marks,
        x=time_axis(runs),
        y=Axis(f"accuracy{' (sum of the stages)' if summed else ''}"),
    )


def latency_figure(runs: list[Drawn]) -> Figure:
    """Latency percentiles over time, the SLA and drops."""
    marks: list[Mark] = []
    has_drops = False
    for drawn in runs:
        drops, percentiles = latency_percentiles(drawn.run, (99, 50))
        for panel, series in enumerate(percentiles):
            marks.append(line_of(drawn, series, legend=panel == 0, panel=panel))
        if drops.any():
            has_drops = True
            marks.append(
                Bars(
                    name=drawn.name,
                    at=percentiles[0].x,
                    lengths=drops,
                    color=f"run{drawn.index}",
                    group=f"run{drawn.index}",
                    upright=True,
                    legend=False,
                    panel=2,
                )
            )
    last_s = max(drawn.run.duration_s for drawn in runs)
    marks += [sla_line(sla_s, (0, last_s), (sla_s, sla_s)) for sla_s in slas(runs)]
    panels = [
        Axis("p99 latency (s)", from_zero=True, share=0.5),
        Axis("p50 latency (s)", from_zero=True, share=0.3),
        Axis("drops (requests)", from_zero=True, share=0.2, counts=True),
    ]
    return Figure(
        key="latency",
        title="Latency",
        caption="End-to-end latency of answered requests by time of sending: p99 and p50 of every"
        " 10 s, and the SLA (dashed)."
        + (" Bars beneath: requests dropped." if has_drops else " No request was dropped."),
        marks=marks,
        x=time_axis(runs),
        y=tuple(panels if has_drops else panels[:2]),
        height=470 if has_drops else 400,
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
    marks: list[Mark] = [*variant_strips(runs, stage)]
    for drawn in runs:
        for panel, knob in ((1, "batch"), (2, "replicas")):
            series = _knob(drawn, stage, knob)
            marks.append(steps_of(drawn, series, legend=panel == 1, panel=panel))
    strips = 26.0 * len(runs)
    return Figure(
        key=key_of(f"stage-{stage}", name),
        title=f"Stage {name}",
        caption="Top: the variant each run used, dark the least accurate, light the most. Below:"
        " batch size, and number of replicas; where lines coincide, those of earlier runs are the"
        " wider ones beneath.",
        marks=marks,
        x=time_axis(runs),
        y=(
            Axis("", categories=tuple(drawn.name for drawn in runs), share=strips),
            Axis("batch", from_zero=True, share=85, counts=True),
            Axis("replicas", from_zero=True, share=85, counts=True),
        ),
        overlay=True,
        height=300 + 26 * len(runs),
    )


def variant_strips(
    runs: list[Drawn], stage: int, *, panel: int = 0, prefix: str = "", knobs: bool = True
) -> list[Bars]:
    """When each run used each variant of a stage.

    Args:
        runs: a row each.
        stage: its index.
        panel: the panel whose categories are the runs.
        prefix: before the variants' names in the legend.
        knobs: batch and replicas are told apart as well.
    """
    variants = variants_by_accuracy(runs, stage)
    rows: dict[str, list[tuple[Drawn, Segment]]] = {variant: [] for variant in variants}
    for drawn in runs:
        for segment in segments(drawn.run, stage, knobs=knobs):
            rows[segment.variant].append((drawn, segment))
    last = max(1, len(variants) - 1)
    return [
        Bars(
            name=prefix + variant,
            places=[drawn.name for drawn, _ in found],
            starts=[segment.start_s for _, segment in found],
            lengths=[segment.end_s - segment.start_s for _, segment in found],
            labels=[segment.label if knobs else segment.variant for _, segment in found],
            color=scale_color(position / last),
            panel=panel,
        )
        for position, (variant, found) in enumerate(rows.items())
    ]


def _knob(drawn: Drawn, stage: int, knob: str) -> Series:
    return stepwise(
        drawn.run,
        lambda step: (
            float(getattr(step.stages[stage], knob)) if stage < len(step.stages) else math.nan
        ),
    )
