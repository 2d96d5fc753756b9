"""What to ask a Prometheus server for the joules of a window, and how a counter is followed.

Two ways, for a counter of energy and for anything else ::

    CounterQuery('kepler_node_cpu_joules_total{zone="package"}')
    PromqlQuery('sum(avg_over_time(node_power_watts[$window])) * $window_s')

An expression is the server's to evaluate, at the end of the window, with ``[$window]`` for the
window as a range and ``$window_s`` for its length in seconds; its value must be an energy. What it
reads must be written ``name{…}[$window]``, because these samples are checked for gaps all the same.

A counter is kept as samples, one a scrape. For the window from *s* to *e* ::

    sample      o        o        o        o        o
                │    s   │        │        │  e     │
    window      ┆    [───────────────────────]      ┆

its climb is followed from the last sample at or before *s* to the first at or after *e*, and read
at *s* and *e* on the straight line between the samples around them. A value below its predecessor
means that the counter began again at zero, as in Prometheus' ``increase()``: all of the new value
is gain. Unlike ``increase()``, nothing is extrapolated: a window that its samples do not enclose,
or with more than one scrape missing in a row, has no figure. What a counter gained between its last
scrape and a restart is lost to everybody.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import MeterFault, require_movement
from ipa_energy.meters.prometheus.server import METER, CounterSeries, PrometheusServer
from ipa_energy.records import Quality

MAX_GAP_INTERVALS = 2.5
"""One missed scrape does no harm to a cumulative counter; two may hide a restart."""

MAX_RESTART_RATIO = 10.0
"""A counter back at more than this many times its usual gain did not start at zero."""


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
    def length_s(self) -> float:
        """Its seconds."""
        return self.end_s - self.start_s

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


RANGE = "[$window]"
LENGTH = "$window_s"
STILL_FIX = "use a longer window; a counter that rests under load is dead: leave it out"
MODE = "mode"

_SELECTOR = re.compile(
    r'(?P<selector>(?:[A-Za-z_:][\w:]*)?(?:\{(?:[^{}"]|"(?:\\.|[^"\\])*")*\})?)\s*\[\$window\]'
)


class WindowQuery(Protocol):
    """A way to get the joules of a window out of a Prometheus server."""

    @property
    def selectors(self) -> tuple[str, ...]:
        """What must be scraped without a gap over the window."""
        ...

    @property
    def quality(self) -> Quality:
        """Quality of the figures, as far as the query knows."""
        ...

    @property
    def may_rest(self) -> bool:
        """True if no energy at all is believable: an idle container's share."""
        ...

    def domains(self, found: Sequence[CounterSeries]) -> tuple[str, ...]:
        """Names of the parts that ``found`` would give; empty if only the server knows."""
        ...

    def joined(self, found: Sequence[CounterSeries]) -> list[CounterSeries]:
        """Each physical counter once.

        Raises:
            MeterFault: two series of one counter contradict each other.
        """
        ...

    def joules(
        self, server: PrometheusServer, found: Sequence[CounterSeries], window: Window
    ) -> dict[str, float]:
        """Joules by domain, from the joined samples of ``selectors`` around the window.

        Raises:
            ConfigError: the server refuses the query.
            MeterFault: the window is not covered, or a value is impossible.
        """
        ...


@dataclass(frozen=True, slots=True)
class CounterQuery:
    """Counters of energy, summed by domain.

    Attributes:
        selector: an instant vector selector that picks nothing twice.
        quality: of what the exporter feeds the counters with.
        joules_per_unit: 1 for joules, 0.001 for millijoules.
        domain_labels: labels whose values name the domain, joined by ``/``.
        identity: labels that tell one physical counter from another; empty if each series is one.
        may_rest: see :class:`WindowQuery`.
    """

    selector: str
    quality: Quality
    joules_per_unit: float = 1.0
    domain_labels: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    may_rest: bool = False

    def __post_init__(self) -> None:
        _check_unit(self.joules_per_unit)

    @property
    def selectors(self) -> tuple[str, ...]:
        """The one selector."""
        return (self.selector,)

    def domains(self, found: Sequence[CounterSeries]) -> tuple[str, ...]:
        """Each domain once, in alphabetical order."""
        return tuple(sorted({domain_of(one.labels, self.domain_labels) for one in found}))

    def joined(self, found: Sequence[CounterSeries]) -> list[CounterSeries]:
        """Series with the same ``identity`` as one."""
        return merged(found, self.identity, METER) if self.identity else list(found)

    def joules(
        self, server: PrometheusServer, found: Sequence[CounterSeries], window: Window
    ) -> dict[str, float]:
        """What the counters gained, restarts accounted for."""
        domains: dict[str, float] = {}
        counters: dict[str, float] = {}  # idle and dynamic mode are two shares of one counter
        for one in found:
            joules = gained(one, window, METER) * self.joules_per_unit
            name = domain_of(one.labels, self.domain_labels)
            whole = domain_of(one.labels, [each for each in self.domain_labels if each != MODE])
            domains[name] = domains.get(name, 0.0) + joules
            counters[whole] = counters.get(whole, 0.0) + joules
        if not self.may_rest:
            require_movement(METER, counters, window.length_s, STILL_FIX, of=f"{self.selector}: ")
        return dict(sorted(domains.items()))


@dataclass(frozen=True, slots=True)
class PromqlQuery:
    """Any expression whose value is an energy.

    Attributes:
        expression: PromQL with ``[$window]`` and ``$window_s``.
        quality: of what it reads; you know it, Prometheus does not.
        joules_per_unit: 1 if it is in joules.
        domain_labels: labels of its result whose values name the domain.
        may_rest: see :class:`WindowQuery`.
    """

    expression: str
    quality: Quality
    joules_per_unit: float = 1.0
    domain_labels: tuple[str, ...] = ()
    may_rest: bool = False

    def __post_init__(self) -> None:
        _check_unit(self.joules_per_unit)
        selectors = self.selectors
        if not selectors or len(selectors) < self.expression.count(RANGE) or "" in selectors:
            raise ConfigError(
                "the expression does not say over which samples its window goes",
                where=self.expression,
                allowed="one or more name{label=…}[$window], and $window_s for its seconds",
            )

    @property
    def selectors(self) -> tuple[str, ...]:
        """Every selector in front of a ``[$window]``."""
        return tuple(found["selector"] for found in _SELECTOR.finditer(self.expression))

    def domains(self, found: Sequence[CounterSeries]) -> tuple[str, ...]:
        """Nothing: the labels of the result are the server's to tell."""
        return ()

    def joined(self, found: Sequence[CounterSeries]) -> list[CounterSeries]:
        """All as they are."""
        return list(found)

    def joules(
        self, server: PrometheusServer, found: Sequence[CounterSeries], window: Window
    ) -> dict[str, float]:
        """The expression's value at the end of the window, by domain."""
        for one in found:
            covered(one, window, METER)
        length_s = window.length_s
        text = self.expression.replace(RANGE, f"[{math.ceil(length_s * 1000)}ms]")
        domains: dict[str, float] = {}
        for one in server.vector(text.replace(LENGTH, f"{length_s:.6f}"), window.end_s):
            joules = one.values[0] * self.joules_per_unit
            if not (math.isfinite(joules) and joules >= 0):
                raise MeterFault(METER, "dead", f"{text} is {joules:g} J, which is no energy")
            name = domain_of(one.labels, self.domain_labels)
            domains[name] = domains.get(name, 0.0) + joules
        if not domains:
            raise MeterFault(METER, "absent", f"{text} has no value at {window.end_s:.3f}")
        if not self.may_rest:
            require_movement(METER, domains, window.length_s, STILL_FIX, of=f"{self.expression}: ")
        return domains


def domain_of(labels: Mapping[str, str], names: Sequence[str]) -> str:
    """Values of those labels that are there, joined by ``/``; ``prometheus`` if none is."""
    return "/".join(labels[name] for name in names if labels.get(name)) or METER


def quoted(value: str) -> str:
    """A label's value as PromQL writes it, in double quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _check_unit(joules_per_unit: float) -> None:
    if not (joules_per_unit > 0 and math.isfinite(joules_per_unit)):
        raise ConfigError(f"joules_per_unit is {joules_per_unit}", allowed="more than 0")
