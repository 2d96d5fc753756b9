"""How a scraped counter is followed through a window, and what nobody can believe of it.

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

Nor does a counter leap: one step of many times the power of all others, more than a processor can
draw, is what is left of a counter that wrapped or was read wrongly.

What one exporter calls ``instance`` Prometheus may have renamed ``exported_instance``; the
exporter's own word counts (:func:`own_labels`). One counter may come as several series: repeated by
its exporter for each slice or pod that shares it (:func:`merged`), which are read milliseconds
apart, or by two exporters, which begin at values of their own (:func:`agreed`).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ipa_energy.meters.base import MeterFault
from ipa_energy.meters.prometheus.server import CounterSeries

MAX_GAP_INTERVALS = 2.5
"""One missed scrape does no harm to a cumulative counter; two may hide a restart."""

MAX_RESTART_RATIO = 10.0
"""A counter back at more than this many times its usual gain did not start at zero."""


LEAP_W = 1000.0
LEAP_RATIO = 10.0
"""A step is a leap if it is of more watts than a processor draws, and so many times all others."""

BIRTH_S = 10.0
"""What a counter shows when it is first scraped it may have gained since this long before."""

READ_SPREAD_S = 0.2
"""An exporter reads a counter that it repeats several times within this."""

EXPORTED = "exported_"
SCRAPE_LABELS = ("job", "instance", "prometheus", "prometheus_replica", "replica")
"""Labels that say who scraped what, not what is counted."""

IDENTITIES: dict[str, tuple[str, ...]] = {
    "kepler_node_cpu_joules_total": ("node_name", "zone", "path"),
    "kepler_pod_cpu_joules_total": ("node_name", "pod_id", "zone"),
    "kepler_container_cpu_joules_total": ("node_name", "container_id", "zone"),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("UUID",),
}
"""Metric → the labels by which its exporter tells one counter from another, where that is known."""

INSIDE_PACKAGE = {"core", "uncore"}
PLATFORM = "psys"
"""Names of zones, without a number: parts of ``package``, and what all of it is in."""

ENDED = "terminated"
"""``state`` of Kepler's pods and containers that are gone; their last value is repeated a while."""

AGREEMENT = 0.05
"""Two exporters may part by this share of what they count, and by two steps."""


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


def own_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels as the exporter gave them, where Prometheus kept them apart from its own.

    Of a ``path`` only the end: one exporter sees the host's files elsewhere than another.
    """
    own = dict(labels)
    for name, value in labels.items():
        if name.startswith(EXPORTED):
            own[name.removeprefix(EXPORTED)] = value
            del own[name]
    if "path" in own:
        own["path"] = own["path"].rpartition("/")[2]
    return own


def merged(
    series: Sequence[CounterSeries], identity: Sequence[str], meter: str
) -> list[CounterSeries]:
    """Series of one physical counter, as one exporter shows it, joined into one.

    An exporter that labels a GPU with the pod that holds it starts a new series with each pod, and
    repeats the counter for each of several pods.

    Args:
        series: what was found.
        identity: the exporter's own labels that tell one counter from another.
        meter: name for messages.

    Returns:
        Series with the exporter's own labels, one for each counter and scraped target.

    Raises:
        MeterFault: two series of one counter differ at the same moment by more than it moves while
            an exporter reads it.
    """
    groups: dict[tuple[str, ...], list[CounterSeries]] = {}
    for one in series:
        own = own_labels(one.labels)
        counter = [own.get(name, "") for name in identity]
        target = [one.labels.get(name, "") for name in SCRAPE_LABELS]
        groups.setdefault((*counter, *target), []).append(
            CounterSeries(own, one.times_s, one.values)
        )
    return [group[0] if len(group) == 1 else _chained(group, meter) for group in groups.values()]


def _chained(group: Sequence[CounterSeries], meter: str) -> CounterSeries:
    """One series of several; the ended ones only after the others."""
    running = [one for one in group if one.labels.get("state") != ENDED] or list(group)
    ended_s = max(one.times_s[-1] for one in running)
    fastest = max((rate for one in group for rate in _rates(one)), default=0.0)
    samples: dict[float, float] = {}
    for one in group:
        for time_s, value in zip(one.times_s, one.values, strict=True):
            if one not in running and time_s <= ended_s:
                continue
            other = samples.setdefault(time_s, value)
            if abs(other - value) > fastest * READ_SPREAD_S:
                raise MeterFault(
                    meter,
                    "dead",
                    f"{one.label} shows {value:.12g} and another series of the same counter "
                    f"{other:.12g} at {time_s:.3f}",
                    "scrape each exporter once, or name one: --query 'NAME{LABEL=\"VALUE\"}'",
                )
            samples[time_s] = min(other, value)
    last = max(group, key=lambda one: one.times_s[-1])
    return CounterSeries(last.labels, *zip(*sorted(samples.items()), strict=True))


def _rates(one: CounterSeries) -> list[float]:
    samples = zip(one.times_s, one.values, strict=True)
    return [(new - old) / (b - a) for (a, old), (b, new) in pairwise(samples)]


def counter_of(
    labels: Mapping[str, str], identity: Sequence[str] = (), telling: Sequence[str] = ()
) -> tuple[str, ...]:
    """What is the same for two series of one counter: its metric, and the labels that tell it.

    Args:
        labels: of a series.
        identity: labels that tell one counter from another; empty for those that are known of the
            metric. If nobody knows them, all do but those of who scraped, of which the instance is
            taken for the machine's name.
        telling: labels of those that tell counters apart all the same.
    """
    metric = labels.get("__name__", "")
    identity = identity or known_identity(labels)
    if identity:
        return (metric, *(labels.get(name, "") for name in identity))
    passed = set(SCRAPE_LABELS) - {"instance", *telling}
    told = [f"{name}={value}" for name, value in sorted(labels.items()) if name not in passed]
    return (metric, *told)


def known_identity(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The labels that tell counters of this metric apart; empty if nobody knows them."""
    return IDENTITIES.get(labels.get("__name__", ""), ())


def doubles(found: Sequence[CounterSeries]) -> tuple[str, ...]:
    """What would be counted twice if all series were added, in words."""
    counters = Counter(counter_of(own_labels(one.labels)) for one in found)
    repeated = {metric for (metric, *_), series in counters.items() if series > 1}
    notes = [
        f"{name} has one counter in several series (exporters, slices): added, they count it twice"
        for name in sorted(repeated)
    ]
    zones = {one.labels.get("zone", "").partition("-")[0] for one in found}
    if "package" in zones and zones & {*INSIDE_PACKAGE, PLATFORM}:
        notes.append(
            f"zones {', '.join(sorted(zones - {''}))} lie in each other and are no sum: choose "
            'with zone=~"package.*|dram.*", or use --meter kepler'
        )
    return tuple(notes)


def agreed(gains: Sequence[float], steps: Sequence[float], label: str, meter: str) -> float:
    """What a counter gained, of which several exporters tell: the first one's figure.

    Args:
        gains: what each tells.
        steps: the largest step of each.
        label: of the counter, for the message.
        meter: name for messages.

    Raises:
        MeterFault: they do not agree.
    """
    if max(gains) - min(gains) > AGREEMENT * max(gains) + 2 * max(steps):
        told = " and ".join(f"{gain:.6g}" for gain in gains)
        raise MeterFault(
            meter,
            "dead",
            f"{label} is scraped {len(gains)} times, and the gains differ: {told}",
            "scrape each exporter once, or name one: --query 'NAME{job=\"JOB\"}'; if they are "
            "different counters, tell them apart: --query-by job",
        )
    return gains[0]


def largest_step(series: CounterSeries) -> float:
    """Of the counter, between two samples; 0 if it never rises."""
    return max((new - old for old, new in pairwise(series.values)), default=0.0)


def longest_rest_s(series: CounterSeries, window: Window) -> float:
    """Seconds for which the counter stood still in the window, at most."""
    changes_s = [series.times_s[0]]
    for (_, old), (time_s, new) in pairwise(zip(series.times_s, series.values, strict=True)):
        if new != old:
            changes_s.append(time_s)
    changes_s.append(series.times_s[-1])
    return max(
        (b - a for a, b in pairwise(changes_s) if b > window.start_s and a < window.end_s),
        default=0.0,
    )


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


def gained(
    series: CounterSeries,
    window: Window,
    meter: str,
    joules_per_unit: float = 1.0,
    *,
    most_w: float = math.inf,
) -> float:
    """What the counter gained in the window, in its unit.

    Args:
        series: a counter.
        window: the window.
        meter: name for messages.
        joules_per_unit: of the counter.
        most_w: more than it can ever draw, if that is known.

    Raises:
        MeterFault: the window is not covered, a value is not a finite number of 0 or more, the
            counter restarted at something other than zero, or it leapt.
    """
    first, last = covered(series, window, meter)
    times_s, values = series.times_s[first : last + 1], series.values[first : last + 1]
    bad = [value for value in values if not (math.isfinite(value) and value >= 0)]
    if bad:
        raise MeterFault(meter, "dead", f"{series.label} has the value {bad[0]}, no counter's")
    gains = _gains(times_s, values, series.label, meter)
    _refuse_leap(series, (times_s[0], times_s[-1]), meter, joules_per_unit, most_w)
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


def _refuse_leap(
    series: CounterSeries,
    within_s: tuple[float, float],
    meter: str,
    joules_per_unit: float,
    most_w: float,
) -> None:
    """Raise MeterFault if one step is of a power that nothing explains."""
    rises: list[tuple[float, float, float]] = []  # from, to, gain
    changed_s = series.times_s[0]
    for (_, old), (time_s, new) in pairwise(zip(series.times_s, series.values, strict=True)):
        if new > old:
            rises.append((changed_s, time_s, new - old))
        if new != old:
            changed_s = time_s
    if len(rises) < 2:
        return
    usual_s = statistics.median(b - a for a, b, _ in rises)  # where nobody saw the step before
    powers_w = [gain * joules_per_unit / max(b - a, usual_s) for a, b, gain in rises]
    top = max(range(len(rises)), key=lambda at: powers_w[at])
    others_w = max(power_w for at, power_w in enumerate(powers_w) if at != top)
    before_s, after_s, gain = rises[top]
    limit_w = min(most_w, max(LEAP_W, LEAP_RATIO * others_w))
    if powers_w[top] > limit_w and before_s < within_s[1] and after_s > within_s[0]:
        raise MeterFault(
            meter,
            "dead",
            f"{series.label} went forward by {gain:g} in {after_s - before_s:.3g} s, "
            f"{powers_w[top]:.4g} W where it is {others_w:.4g} W otherwise: no power explains it",
            "measure the window again",
        )


def gained_while_there(
    series: CounterSeries,
    window: Window,
    meter: str,
    joules_per_unit: float = 1.0,
    *,
    most_w: float = math.inf,
) -> float:
    """What a counter gained that began at 0 or ended within the window; its exporter ran on.

    Raises:
        MeterFault: scrapes are missing while it was there, or it began at more than 0.
    """
    first_s, last_s = series.times_s[0], series.times_s[-1]
    if first_s > window.end_s or last_s < window.start_s:
        return 0.0
    gain = 0.0
    if first_s > window.start_s:
        gain = series.values[0]
        if gain * joules_per_unit > LEAP_W * (window.interval_s + BIRTH_S):
            raise MeterFault(
                meter,
                "dead",
                f"{series.label} begins in the window, and at {gain:g}: what it gained before is "
                "not known",
                "measure the window again",
            )
    there = Window(max(first_s, window.start_s), min(last_s, window.end_s), window.interval_s)
    if there.length_s > 0:
        gain += gained(series, there, meter, joules_per_unit, most_w=most_w)
    return gain
