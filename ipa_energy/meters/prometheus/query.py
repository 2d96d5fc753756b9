"""What to ask a Prometheus server for the joules of a window.

Two ways, for a counter of energy and for anything else ::

    CounterQuery('kepler_node_cpu_joules_total{zone="package"}')
    PromqlQuery('sum(avg_over_time(node_power_watts[$window])) * $window_s')

A counter's samples are fetched and followed by :mod:`.counter_series`, without extrapolation. An
expression is the server's to evaluate, at the end of the window, with ``[$window]`` for the window
as a range and ``$window_s`` for its length in seconds; its value must be an energy. What it reads
must be written ``name{…}[$window]``, because these samples are checked for gaps all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ipa_energy.errors import ConfigError
from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.prometheus.counter_series import (
    CounterSeries,
    Window,
    covered,
    gained,
    merged,
)
from ipa_energy.meters.prometheus.server import METER, PrometheusServer
from ipa_energy.records import Quality

RANGE = "[$window]"
LENGTH = "$window_s"
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
            _require_movement(counters, self.selector, window)
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
        length_s = window.end_s - window.start_s
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
            _require_movement(domains, self.expression, window)
        return domains


def domain_of(labels: Mapping[str, str], names: Sequence[str]) -> str:
    """Values of those labels that are there, joined by ``/``; ``prometheus`` if none is."""
    return "/".join(labels[name] for name in names if labels.get(name)) or METER


def quoted(value: str) -> str:
    """A label's value as PromQL writes it, in double quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _require_movement(energy_j: Mapping[str, float], what: str, window: Window) -> None:
    still = [name for name, joules in energy_j.items() if joules == 0]
    if still:
        raise MeterFault(
            METER,
            "dead",
            f"{what}: {', '.join(still)} did not move in {window.end_s - window.start_s:.3g} s",
            "use a longer window; a counter that rests under load is dead: leave it out",
        )


def _check_unit(joules_per_unit: float) -> None:
    if not (joules_per_unit > 0 and math.isfinite(joules_per_unit)):
        raise ConfigError(f"joules_per_unit is {joules_per_unit}", allowed="more than 0")
