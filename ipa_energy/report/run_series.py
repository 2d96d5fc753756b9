"""A run as series to draw, thinned so that a plot stays light: at most 2000 points each.

Per-second values are averaged over equal blocks, so a mean read off a plot is still the mean. The
lines that most figures of runs are made of, and what captions say of the runs, stand here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.comparing.metrics import RunMetrics
from ipa_energy.records import joules_from
from ipa_energy.report.figure import Axis, Line
from ipa_energy.report.palette import run_dash
from ipa_energy.runlog.reader import Run
from ipa_energy.runlog.step import Step
from ipa_energy.serving.tally import merged

MOST_POINTS = 2000
LATENCY_WINDOW_S = 10.0
CDF_POINTS = 400


@dataclass(frozen=True, slots=True)
class Series:
    """A line: values at times; NaN is a gap."""

    x: Floats
    y: Floats

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time over which one stage ran one thing."""

    start_s: float
    end_s: float
    variant: str
    batch: int
    replicas: int
    label: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A run, its figures, and its place (and colour) among so many runs."""

    index: int
    run: Run
    metrics: RunMetrics
    count: int = 1

    @property
    def name(self) -> str:
        """Name in legends."""
        return self.metrics.name

    @property
    def joules(self) -> str:
        """Where its joules come from; "" if it has none."""
        return joules_from(self.metrics.quality, self.metrics.meter)

    @property
    def has_energy(self) -> bool:
        """True if there are watts to draw."""
        return len(self.run.power_w) > 0 and not bool(np.isnan(self.run.power_w).all())


def per_second(values: Floats, duration_s: float) -> Series:
    """Means per second over the workload, thinned to blocks."""
    values = values[: max(0, math.ceil(duration_s))]
    block = max(1, math.ceil(len(values) / MOST_POINTS))
    padded = np.concatenate([values, np.full(-len(values) % block, np.nan)])
    rows = padded.reshape(-1, block)
    known = ~np.isnan(rows)
    sums = np.where(known, rows, 0.0).sum(axis=1)
    counts = known.sum(axis=1)
    means = np.divide(sums, counts, out=np.full(len(rows), np.nan), where=counts > 0)
    return Series(np.arange(0, len(rows) * block, block, dtype=np.float64), means)


def cumulative_energy(run: Run) -> Series:
    """Joules so far, at whole seconds from 0 to the end of the workload."""
    power = run.power_w[: max(0, math.ceil(run.duration_s))]
    joules = np.concatenate([[0.0], np.cumsum(np.nan_to_num(power))])
    keep = np.unique(np.linspace(0, len(joules) - 1, min(len(joules), MOST_POINTS)).astype(int))
    return Series(keep.astype(np.float64), joules[keep])


def stepwise(run: Run, value: Callable[[Step], float]) -> Series:
    """A value that holds from step to step; its last point ends the last step."""
    steps = [step for step in run.steps if step.start_s < run.duration_s]
    if not steps:
        return Series(np.empty(0), np.empty(0))
    x = np.array([*(step.start_s for step in steps), run.duration_s])
    y = np.array([value(step) for step in steps])
    y = np.append(y, y[-1])
    changed = np.ones(len(y), dtype=bool)
    changed[1:-1] = y[1:-1] != y[:-2]
    return Series(x[changed], y[changed])


def latency_percentiles(run: Run, percentiles: tuple[float, ...]) -> tuple[Floats, list[Series]]:
    """Drops, and latency percentiles, by window of sending: 10 s, or longer on a long run.

    Returns:
        drops per window at the windows' starts, and one series a percentile.
    """
    if run.tally is not None:
        return _counted_percentiles(run, percentiles)
    requests = run.requests
    windows = max(1, math.ceil(run.duration_s / LATENCY_WINDOW_S))
    width_s = LATENCY_WINDOW_S * math.ceil(windows / MOST_POINTS)
    windows = max(1, math.ceil(run.duration_s / width_s))
    window = np.minimum((requests.sending_s // width_s).astype(np.int64), windows - 1)
    answered = requests.dropped_at < 0
    drops = np.bincount(window[~answered], minlength=windows).astype(np.float64)
    latency_s = (requests.done_s - requests.sending_s)[answered]
    groups = window[answered]
    order = np.argsort(groups, kind="stable")
    parts = np.split(latency_s[order], np.searchsorted(groups[order], np.arange(1, windows)))
    x = np.linspace(0, windows * width_s, windows, endpoint=False, dtype=np.float64)
    return drops, [
        Series(x, np.array([np.percentile(part, q) if len(part) else np.nan for part in parts]))
        for q in percentiles
    ]


def _counted_percentiles(run: Run, percentiles: tuple[float, ...]) -> tuple[Floats, list[Series]]:
    """The same from counts, by the step in which requests left; several of a long run as one."""
    counted = [(step.start_s, step.tally) for step in run.steps if step.tally is not None]
    block = max(1, math.ceil(len(counted) / MOST_POINTS))
    groups = [counted[begin : begin + block] for begin in range(0, len(counted), block)]
    x = np.array([group[0][0] for group in groups])
    tallies = [merged([part for _, part in group]) for group in groups]
    drops = np.array([float(sum(one.dropped) + one.failed) for one in tallies])
    return drops, [
        Series(x, np.array([one.percentile_s(q) for one in tallies])) for q in percentiles
    ]


def latency_distribution(run: Run) -> Series:
    """Share of *all* requests answered within x seconds; ends below 1 if some were dropped."""
    if run.tally is not None:
        counts = np.cumsum(run.tally.counts)
        return Series(run.tally.latency_s, counts / max(1, len(run.tally)))
    requests = run.requests
    answered = requests.dropped_at < 0
    latency_s = np.sort((requests.done_s - requests.sending_s)[answered])
    if len(latency_s) == 0:
        return Series(np.empty(0), np.empty(0))
    rank = np.unique(np.linspace(0, len(latency_s) - 1, CDF_POINTS).astype(int))
    return Series(latency_s[rank], (rank + 1) / len(requests))


def segments(run: Run, stage: int, *, knobs: bool = True) -> list[Segment]:
    """What one stage ran, equal neighbours joined; empty if the log does not say.

    Without ``knobs`` neighbours are equal if their variants are.
    """
    found: list[Segment] = []
    for step in run.steps:
        if stage >= len(step.stages) or step.start_s >= run.duration_s:
            continue
        ran = step.stages[stage]
        end_s = min(step.end_s, run.duration_s)
        before = found[-1] if found and found[-1].end_s == step.start_s else None
        same = before and (before.label == ran.label if knobs else before.variant == ran.variant)
        start_s = found.pop().start_s if same else step.start_s
        found.append(Segment(start_s, end_s, ran.variant, ran.batch, ran.replicas, ran.label))
    return found


def variants_by_accuracy(runs: list[Drawn], stage: int) -> list[str]:
    """Every variant that any run used in a stage, least accurate first."""
    accuracy: dict[str, float] = {}
    for drawn in runs:
        for step in drawn.run.steps:
            if stage < len(step.stages):
                ran = step.stages[stage]
                raw = ran.accuracy_raw if not math.isnan(ran.accuracy_raw) else ran.accuracy
                accuracy[ran.variant] = raw
    return sorted(accuracy, key=lambda variant: (accuracy[variant], variant))


WIDEST, NARROWEST = 4.6, 1.5
"""Of the lines of steps: the first run's lies below and is wide, so that it shows where the next
one runs in the same place."""


HOUR_S = 3600
LONG_S = 3 * HOUR_S
"""A run that takes longer has hours at its axis of time."""

HOURS = (1, 2, 3, 6, 12, 24, 48, 72, 168)
MOST_HOURS = 9
"""Between ticks, and how many of them."""


def time_axis(runs: list[Drawn]) -> Axis:
    """Seconds, to the end of the longest run in every figure; hours at the ticks of a long one."""
    last_s = max(drawn.metrics.duration_s for drawn in runs)
    axis = Axis("time since the start (s)", low=0.0, high=last_s)
    if last_s < LONG_S:
        return axis
    last_h = int(last_s // HOUR_S)
    between = next((hours for hours in HOURS if last_h // hours < MOST_HOURS), last_h)
    ticks = tuple((float(hour * HOUR_S), str(hour)) for hour in range(0, last_h + 1, between))
    return replace(axis, ticks=ticks, shown="time since the start (h)")


def steps_of(drawn: Drawn, series: Series, name: str = "", **further: Any) -> Line:
    """A line of values that hold until the next one, of one run among several."""
    above = (drawn.count - 1 - drawn.index) / max(1, drawn.count - 1)
    width = NARROWEST + above * (WIDEST - NARROWEST)
    return line_of(drawn, series, name, step=True, width=width, **further)


def line_of(drawn: Drawn, series: Series, name: str = "", **further: Any) -> Line:
    """A line of one run; the configuration at each point is in its hover.

    Args:
        drawn: the run.
        series: its values.
        name: what the line is, after the run's name.
        further: fields of :class:`Line`.
    """
    given = {
        "color": f"run{drawn.index}",
        "group": f"run{drawn.index}",
        "run": drawn.index,
        "dash": run_dash(drawn.index),
        **further,
    }
    return Line(name=f"{drawn.name} {name}".strip(), x=series.x, y=series.y, **given)


def sla_line(sla_s: float, x: tuple[float, float], y: tuple[float, float]) -> Line:
    """A latency SLA from one point to another."""
    return Line(name=f"SLA {sla_s:g} s", x=x, y=y, color="text", width=1.2, dash="dash")


def slas(runs: list[Drawn]) -> list[float]:
    """The latency SLAs of the runs, seconds, each once."""
    found = {drawn.metrics.latency_sla_s for drawn in runs}
    return sorted(sla_s for sla_s in found if sla_s is not None)


def qualities(runs: list[Drawn]) -> str:
    """Where the joules of the runs come from, for captions."""
    found = {drawn.joules for drawn in runs if drawn.joules}
    return ", ".join(sorted(found)) or "no energy in these logs"
