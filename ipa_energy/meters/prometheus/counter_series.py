"""Scraped counters, and what they gained in a window.

Prometheus keeps a counter as samples, one a scrape. For the window from *s* to *e* ::

    sample      o        o        o        o        o
                │    s   │        │        │  e     │
    window      ┆    [───────────────────────]      ┆

the counter's climb is followed from the last sample at or before *s* to the first at or after *e*,
and read at *s* and *e* on the straight line between the samples around them. A value below its
predecessor means that the counter began again at zero, as in Prometheus' ``increase()``: all of the
new value is gain. Unlike ``increase()``, nothing is extrapolated: a window that its samples do not
enclose, or with more than one scrape missing in a row, has no figure.

What a counter gained between its last scrape and a restart is lost to everybody, so a window with a
restart is low by up to one scrape interval of energy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ipa_energy.meters.fault import MeterFault

MAX_GAP_INTERVALS = 2.5
"""One missed scrape does no harm to a cumulative counter; two may hide a restart."""

MAX_RESTART_RATIO = 10.0
"""A counter back at more than this many times its usual gain did not start at zero."""


@dataclass(frozen=True, slots=True)
class CounterSeries:
    """One time series as it was scraped.

    Attributes:
        labels: label → value; the metric's name is ``__name__``.
        times_s: Unix seconds of the samples, ascending.
        values: of the samples, in the counter's unit.
    """

    labels: Mapping[str, str]
    times_s: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def label(self) -> str:
        """The series as PromQL writes it, for messages."""
        pairs = [f'{key}="{value}"' for key, value in self.labels.items() if key != "__name__"]
        return f"{self.labels.get('__name__', '')}{{{', '.join(pairs)}}}"


@dataclass(frozen=True, slots=True)
class Window:
    """The time asked about.

    Attributes:
        start_s: Unix seconds on the server's clock.
        end_s: likewise, later.
        interval_s: seconds between two scrapes.
    """

    start_s: float
    end_s: float
    interval_s: float

    @property
    def max_gap_s(self) -> float:
        """Longest time between two samples that still counts as covered."""
        return MAX_GAP_INTERVALS * self.interval_s


def merged(
    series: Sequence[CounterSeries], identity: Sequence[str], meter: str
) -> list[CounterSeries]:
    """Series of one physical counter joined into one.

    An exporter that labels a GPU with the pod that holds it starts a new series with each pod, and
    repeats the counter for each of several pods.

    Args:
        series: what was found.
        identity: the labels that tell one counter from another.
        meter: name for messages.

    Raises:
        MeterFault: two series of one counter differ at the same moment.
    """
    groups: dict[tuple[str, ...], dict[float, float]] = {}
    labels: dict[tuple[str, ...], Mapping[str, str]] = {}
    for one in series:
        key = tuple(one.labels.get(name, "") for name in identity)
        labels.setdefault(key, one.labels)
        samples = groups.setdefault(key, {})
        for time_s, value in zip(one.times_s, one.values, strict=True):
            if samples.setdefault(time_s, value) != value:
                raise MeterFault(
                    meter,
                    "dead",
                    f"{one.label} shows {value:g} and another series of the same counter "
                    f"{samples[time_s]:g} at {time_s:.3f}",
                    "scrape each exporter once, or narrow the selector",
                )
    return [
        CounterSeries(labels[key], tuple(sorted(group)), tuple(v for _, v in sorted(group.items())))
        for key, group in groups.items()
    ]


def interval_between_scrapes_s(series: Sequence[CounterSeries]) -> float:
    """Seconds between two samples, the median of the slowest series; NaN with under two samples."""
    medians = [
        statistics.median(b - a for a, b in pairwise(one.times_s))
        for one in series
        if len(one.times_s) > 1
    ]
    return max(medians, default=math.nan)


def period_between_steps_s(series: Sequence[CounterSeries]) -> float:
    """Seconds between two changes of value, the median of the slowest; NaN if none moved twice."""
    medians = []
    for one in series:
        steps_s = [
            time_s
            for time_s, before, now in zip(
                one.times_s[1:], one.values, one.values[1:], strict=False
            )
            if now != before
        ]
        if len(steps_s) > 1:
            gaps = (b - a for a, b in pairwise(steps_s))
            medians.append(statistics.median(gaps))
    return max(medians, default=math.nan)


def covered(series: CounterSeries, window: Window, meter: str) -> tuple[int, int]:
    """First and last sample that enclose the window.

    Raises:
        MeterFault: samples are missing before it, after it or within it.
    """
    times_s = series.times_s
    first = max((i for i, t in enumerate(times_s) if t <= window.start_s), default=None)
    last = min((i for i, t in enumerate(times_s) if t >= window.end_s), default=None)
    if first is None or last is None or window.start_s - times_s[first] > window.max_gap_s:
        side = "ends before the window does" if first is not None and last is None else ""
        raise MeterFault(
            meter,
            "dead",
            f"{series.label} {side or 'begins after the window does'}: its samples do not cover "
            f"{window.start_s:.3f} to {window.end_s:.3f}",
            "choose a window in which its target is up, and a selector whose pods do not change",
        )
    for before_s, after_s in zip(times_s[first:last], times_s[first + 1 : last + 1], strict=True):
        if after_s - before_s > window.max_gap_s:
            raise MeterFault(
                meter,
                "dead",
                f"{series.label} has no sample for {after_s - before_s:.3g} s within the window "
                f"(scraped every {window.interval_s:.3g} s)",
                "see the target's state on the server's page /targets; measure the window again",
            )
    return first, last


def gained(series: CounterSeries, window: Window, meter: str) -> float:
    """What the counter gained in the window, in its unit.

    Raises:
        MeterFault: the window is not covered, a value is not a finite number of 0 or more, or the
            counter restarted at something other than zero.
    """
    first, last = covered(series, window, meter)
    times_s, values = series.times_s[first : last + 1], series.values[first : last + 1]
    bad = [value for value in values if not (math.isfinite(value) and value >= 0)]
    if bad:
        raise MeterFault(meter, "dead", f"{series.label} has the value {bad[0]}, no counter's")
    gains = _gains(times_s, values, series.label, meter)
    before = gains[0] * (window.start_s - times_s[0]) / (times_s[1] - times_s[0])
    after = gains[-1] * (times_s[-1] - window.end_s) / (times_s[-1] - times_s[-2])
    # Not below 0 but for the last bit of a float: both ends lie within their intervals.
    return max(0.0, math.fsum(gains) - before - after)


def _gains(
    times_s: Sequence[float], values: Sequence[float], label: str, meter: str
) -> list[float]:
    """Gain of each interval between two samples."""
    spans = list(zip(times_s, times_s[1:], values, values[1:], strict=False))
    rates = [(new - old) / (b - a) for a, b, old, new in spans if new >= old]
    usual = max(rates, default=0.0)
    gains = []
    for a, b, old, new in spans:
        if new < old and new > MAX_RESTART_RATIO * usual * (b - a):
            raise MeterFault(
                meter,
                "dead",
                f"{label} fell from {old:g} to {new:g}: it restarted, but not at 0, and what it "
                "gained is not known",
                "measure the window again",
            )
        gains.append(new - old if new >= old else new)
    return gains
