"""What to ask a Prometheus server for the joules of a window.

Two ways, for a counter of energy and for anything else ::

    CounterQuery('kepler_node_cpu_joules_total{zone="package"}')
    PromqlQuery('sum(avg_over_time(node_power_watts[$window])) * $window_s')

An expression is the server's to evaluate, at the end of the window, with ``[$window]`` for the
window as a range and ``$window_s`` for its length in seconds; its value must be an energy. What it
reads must be written ``name{…}[$window]``, because these samples are checked for gaps all the same.

How a counter is followed stands in :mod:`.counters`. Counters of one thing are counted once: those
of an exporter that repeats them, of two exporters, of one exporter that is scraped twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import MOST_W, MeterFault, require_movement
from ipa_energy.meters.prometheus.counters import (
    ENDED,
    MAX_GAP_INTERVALS,
    Window,
    agreed,
    counter_of,
    covered,
    doubles,
    gained,
    gained_while_there,
    known_identity,
    largest_step,
    longest_rest_s,
    merged,
    period_between_steps_s,
)
from ipa_energy.meters.prometheus.server import METER, CounterSeries, PrometheusServer
from ipa_energy.meters.sources import Counted
from ipa_energy.records import Quality

RANGE = "[$window]"
LENGTH = "$window_s"
STILL_FIX = "use a longer window; a counter that rests under load is dead: leave it out"
MODE = "mode"

REST_PERIODS = 6.0
"""A hardware counter that stands still for so many of its periods has stopped for a while."""

GAUGE_FIX = (
    "of watts make joules: --query 'sum(avg_over_time({name}[$window])) * $window_s'; if it only "
    "ever grows, it is a counter that its exporter calls a gauge: --query "
    "'sum(increase({name}[$window]))'"
)

_SELECTOR = re.compile(
    r'(?P<selector>(?:[A-Za-z_:][\w:]*)?(?:\{(?:[^{}"]|"(?:\\.|[^"\\])*")*\})?)\s*\[\$window\]'
)


_AVERAGED = re.compile(
    r"\b(?P<function>(?:avg|min|max|sum|last|quantile|median)_over_time)\s*\(\s*"
    r"(?P<name>[A-Za-z_:][\w:]*)"
)

_COUNTED: dict[Counted, re.Pattern[str]] = {
    "CPU": re.compile(r"\bkepler_\w+_joules|\w*_rapl_\w+"),
    "GPU": re.compile(r"\bDCGM_\w+"),
}
"""Metrics of which it is known what they count."""


def counted_by(text: str) -> Counted | None:
    """What a query counts, from the names in it; None if they do not tell, or tell of both."""
    found = [what for what, name in _COUNTED.items() if name.search(text)]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Watch:
    """Counters that never rest while their exporter is alive, by the machine that they are of.

    Attributes:
        selector: picks them.
        identity: labels that tell them apart.
        node: the label that names the machine, here and in what is measured.
    """

    selector: str
    identity: tuple[str, ...]
    node: str


@dataclass(frozen=True, slots=True)
class CounterQuery:
    """Counters of energy, summed by domain.

    Attributes:
        selector: an instant vector selector.
        quality: of what the exporter feeds the counters with.
        joules_per_unit: 1 for joules, 0.001 for millijoules.
        domain_labels: labels whose values name the domain, joined by ``/``.
        identity: the exporter's labels that tell one physical counter from another; empty if nobody
            knows them.
        may_rest: True if no energy at all is believable: an idle container's share.
        watch: what tells that the exporter of counters that may rest is alive: then they may also
            begin and end within a window. None if nothing does.
        beside: picks counters of the same exporter that are not in it, to be named if they moved.
    """

    selector: str
    quality: Quality
    joules_per_unit: float = 1.0
    domain_labels: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    may_rest: bool = False
    watch: Watch | None = None
    beside: str | None = None

    def __post_init__(self) -> None:
        _check_unit(self.joules_per_unit)

    @property
    def selectors(self) -> tuple[str, ...]:
        """What must be scraped without a gap over the window."""
        return (self.selector,)

    def domains(self, found: Sequence[CounterSeries]) -> tuple[str, ...]:
        """Names of the parts that ``found`` would give, in alphabetical order."""
        there = [one for one in found if not _only_ended(one)]
        return tuple(sorted({domain_of(one.labels, self.domain_labels) for one in there}))

    def joined(self, found: Sequence[CounterSeries]) -> list[CounterSeries]:
        """Series of one counter and one exporter as one.

        Raises:
            MeterFault: two series of one counter contradict each other.
        """
        joined: list[CounterSeries] = []
        by_identity: dict[tuple[str, ...], list[CounterSeries]] = {}
        for one in found:
            by_identity.setdefault(self.identity or known_identity(one.labels), []).append(one)
        for identity, series in by_identity.items():
            joined += merged(series, identity, METER) if identity else series
        return joined

    def check(self, server: PrometheusServer, found: Sequence[CounterSeries]) -> None:
        """See that the user's own metric is no gauge.

        Raises:
            MeterFault: it is.
        """
        for name in sorted({one.labels.get("__name__", "") for one in found} - {""}):
            if not self.identity and server.metric_type(name) == "gauge":
                fix = GAUGE_FIX.format(name=name)
                raise MeterFault(METER, "absent", f"{name} is a gauge and counts no energy", fix)

    def joules(
        self, server: PrometheusServer, found: Sequence[CounterSeries], window: Window
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """What the counters gained, each once, restarts accounted for.

        Args:
            server: to be asked about what is beside them.
            found: the joined samples of ``selectors`` around the window.
            window: the window.

        Returns:
            Domain → joules, and what is missing from them, in words.

        Raises:
            ConfigError: the server refuses the query.
            MeterFault: the window is not covered, or a value is impossible.
        """
        self.check(server, found)
        alive = self._alive(server, found, window)
        domains: dict[str, float] = {}
        wholes: dict[str, list[tuple[float, Sequence[CounterSeries]]]] = {}
        by_counter = self._by_counter(found)
        notes = [] if self.identity else list(doubles([series[0] for series in by_counter]))
        for series in by_counter:
            name = domain_of(series[0].labels, self.domain_labels)
            if _only_ended(series[0]):
                notes += _lost_unseen(name, series[0], window)
                continue
            if alive and not any(
                one.times_s[0] <= window.end_s and one.times_s[-1] >= window.start_s
                for one in series
            ):
                continue
            gain = self._gain(series, window, alive)
            notes += self._lost(name, series[0], window)
            domains[name] = domains.get(name, 0.0) + gain
            # Idle and dynamic mode are two shares of one counter.
            whole = domain_of(series[0].labels, [n for n in self.domain_labels if n != MODE])
            wholes.setdefault(whole, []).append((gain, series))
        if not self.may_rest or (not any(domains.values()) and not alive):
            moved = {whole: math.fsum(g for g, _ in parts) for whole, parts in wholes.items()}
            require_movement(METER, moved, window.length_s, STILL_FIX, of=f"{self.selector}: ")
        if self.identity and not self.may_rest:
            for whole, parts in wholes.items():
                _require_running(whole, [one for _, series in parts for one in series], window)
        notes += self._left_out(server, window)
        return dict(sorted(domains.items())), tuple(dict.fromkeys(notes))

    def _left_out(self, server: PrometheusServer, window: Window) -> list[str]:
        """Counters beside these that moved as well."""
        if self.beside is None:
            return []
        found = server.series(self.beside, window.start_s, window.end_s)
        moved = {one.labels.get("__name__", "") for one in found if len(set(one.values)) > 1}
        return [f"{name} moved and is not in the figure" for name in sorted(moved)]

    def _by_counter(self, found: Sequence[CounterSeries]) -> list[list[CounterSeries]]:
        """The series of each counter, those of several exporters together."""
        groups: dict[tuple[str, ...], list[CounterSeries]] = {}
        for one in found:
            key = counter_of(one.labels, self.identity, self.domain_labels)
            groups.setdefault(key, []).append(one)
        return list(groups.values())

    def _gain(
        self, series: Sequence[CounterSeries], window: Window, alive: frozenset[str]
    ) -> float:
        """Joules of one counter.

        Raises:
            MeterFault: no exporter has a figure, or two do not agree.
        """
        most_w = MOST_W if self.identity else math.inf
        watched = self.watch is not None and series[0].labels.get(self.watch.node, "") in alive
        follow = gained_while_there if watched else gained
        gains, steps, fault = [], [], None
        for one in series:
            try:
                gains.append(follow(one, window, METER, self.joules_per_unit, most_w=most_w))
                steps.append(largest_step(one))
            except MeterFault as error:
                fault = error
        if fault is not None and not gains:
            raise fault
        return agreed(gains, steps, series[0].label, METER) * self.joules_per_unit

    def _alive(
        self, server: PrometheusServer, found: Sequence[CounterSeries], window: Window
    ) -> frozenset[str]:
        """Nodes whose exporter ran all through the window.

        Raises:
            MeterFault: the exporter of a node answered and counted nothing.
        """
        if self.watch is None:
            return frozenset()
        gap_s = window.max_gap_s
        rows = server.series(self.watch.selector, window.start_s - gap_s, window.end_s + gap_s)
        by_node: dict[str, list[CounterSeries]] = {}
        for one in merged(rows, self.watch.identity, METER):
            try:
                covered(one, window, METER)
            except MeterFault:
                continue
            by_node.setdefault(one.labels.get(self.watch.node, ""), []).append(one)
        nodes = {one.labels.get(self.watch.node, "") for one in found}
        for node in sorted(nodes & set(by_node)):
            _require_running(f"the counter of node {node}", by_node[node], window)
        return frozenset(nodes & set(by_node))

    def _lost(self, name: str, series: CounterSeries, window: Window) -> list[str]:
        """What nobody counted of something that ended in the window."""
        ended = window.start_s <= series.times_s[-1] < window.end_s
        if not ended or series.labels.get("state") == ENDED:
            return []
        return [
            f"{name} ended in the window: what it drew after its last scrape, in up to "
            f"{window.interval_s:.3g} s, is lost"
        ]


def _only_ended(series: CounterSeries) -> bool:
    """True for the last value of something that was not scraped while it ran."""
    return series.labels.get("state") == ENDED and len(set(series.values)) == 1


def _lost_unseen(name: str, series: CounterSeries, window: Window) -> list[str]:
    if not window.start_s < series.times_s[0] <= window.end_s:
        return []
    return [f"{name} came and went between two scrapes: its joules are lost"]


def _require_running(what: str, series: Sequence[CounterSeries], window: Window) -> None:
    """See that one of these moved all through the window, as they have moved around it.

    Raises:
        MeterFault: they stood still for too long: the exporter hung, and told its last values.
    """
    period_s = period_between_steps_s(series)
    rest_s = min(longest_rest_s(one, window) for one in series)
    limit_s = MAX_GAP_INTERVALS * window.interval_s
    if math.isfinite(period_s):
        limit_s = max(limit_s, REST_PERIODS * period_s)
    moved = any(len(set(one.values)) > 1 for one in series)
    if not moved or (math.isfinite(period_s) and rest_s > limit_s):
        told = f"{what} stood still for {rest_s:.3g} s, and was scraped"
        fix = "see the exporter's log: it hangs, or counts less often than the window is long"
        raise MeterFault(METER, "dead", told, fix)


@dataclass(frozen=True, slots=True)
class PromqlQuery:
    """Any expression whose value is an energy.

    Attributes:
        expression: PromQL with ``[$window]`` and ``$window_s``.
        quality: of what it reads; you know it, Prometheus does not.
        joules_per_unit: 1 if it is in joules.
        domain_labels: labels of its result whose values name the domain.
        may_rest: as of a :class:`CounterQuery`.
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

    def check(self, server: PrometheusServer, found: Sequence[CounterSeries]) -> None:
        """See that no counter is averaged as if it were a power.

        Raises:
            MeterFault: one is.
        """
        for call in _AVERAGED.finditer(self.expression):
            name = call["name"]
            if server.metric_type(name) == "counter":
                told = f"{name} is a counter, of which {call['function']}() is no power"
                fix = f"--query '{name}', or increase({name}[$window])"
                raise MeterFault(METER, "absent", told, fix)

    def joules(
        self, server: PrometheusServer, found: Sequence[CounterSeries], window: Window
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """The expression's value at the end of the window, by domain."""
        self.check(server, found)
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
        return domains, doubles(found)


WindowQuery = CounterQuery | PromqlQuery
"""A way to get the joules of a window out of a Prometheus server."""


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
