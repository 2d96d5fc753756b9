"""Where the joules went: watts, joules so far, their parts, and what was traded for them."""

from __future__ import annotations

import math
from collections.abc import Callable

from ipa_energy.compare.comparison import Comparison
from ipa_energy.compare.metrics import RunMetrics
from ipa_energy.report.figure import Axis, Bars, Figure, Points
from ipa_energy.report.run_lines import SECONDS, line_of, qualities
from ipa_energy.report.series import Drawn, Series, cumulative_energy, per_second
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
