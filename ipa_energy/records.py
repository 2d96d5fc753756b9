"""The nouns that every part of the program shares.

All quantities are SI and end in their unit (``latency_s``, ``power_w``, ``load_rps``); ratios are
0..1 without suffix. What was not measured is NaN (numbers) or None (records), never 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

Quality = Literal["measured", "estimated", "imported"]
"""How a joule figure came to be. Nothing else may be written in a ``quality`` column."""

EnergyRisk = Literal["mean", "upper"]
"""Which joules a decision plans with: the mean of the trials, or the upper end of its interval."""

NOTATION = "1c = cores of a replica, b = batch, x = replicas"
"""How to read a plan such as ``yolov5s 1c b1 x6``; stands where plans are printed first."""

QUALITIES: tuple[Quality, ...] = ("measured", "estimated", "imported")


def joined_meters(names: Iterable[str]) -> str:
    """Several meters as one name, each once, in the order given: ``nvml+rapl``; empty for none."""
    return "+".join(dict.fromkeys(names))


def meters_in(name: str) -> list[str]:
    """The names that :func:`joined_meters` joined."""
    return name.split("+")


MLPERF_METER = "mlperf-wall"

NOTICES = {
    MLPERF_METER: "derived from MLPerf Inference results; not verified by MLCommons Association"
}
"""Meter → what has to be said wherever its joules are shown."""


def notice_of(meter: str | None) -> str:
    """What has to be said beside joules of a meter, or of several joined; "" for nothing."""
    return "; ".join(NOTICES[name] for name in meters_in(meter or "") if name in NOTICES)


def joules_from(quality: Quality | None, meter: str | None) -> str:
    """Where joules come from, for people: ``estimated by cpu-time``; "" without joules."""
    if quality is None:
        return ""
    notice = notice_of(meter)
    return f"{quality} by {meter}{f' ({notice})' if notice else ''}"


def weakest_quality(qualities: Collection[Quality | None]) -> Quality | None:
    """The quality of a sum: that of its weakest part; None for a sum of nothing.

    A part without any has no say. ``estimated`` is weaker than ``imported``, which is weaker than
    ``measured``.
    """
    for quality in ("estimated", "imported", "measured"):
        if quality in qualities:
            return quality
    return None


EVERY_CLASS = ""
"""Name of the class of all requests, where nobody tells them apart."""


@dataclass(frozen=True, slots=True)
class RequestClass:
    """A kind of requests, e.g. ``translate``.

    Attributes:
        name: as in the profile's column ``request_class``.
        share: of all requests, 0..1.
        latency_sla_s: of its requests; None: that of the pipeline.
    """

    name: str
    share: float
    latency_sla_s: float | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a joule figure comes from and how good it is.

    Attributes:
        meter: name of the meter that gave it (``rapl``, ``perf``, ``nvml``, ``cpu-time`` …).
        quality: ``measured``, ``estimated`` or ``imported``.
        trials: number of independent windows behind the mean.
        ci95_j: half width of the 95 % interval of the dynamic joules per request; NaN if unknown.
    """

    meter: str
    quality: Quality
    trials: int
    ci95_j: float


AT_SITE = "@"
"""Between a resource or a signal and the site that it is of: ``core@GB``, ``g_per_kwh@GB``."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one replica holds, and the settings that it runs under (DESIGN 7.1).

    Allocations have no order of their own: which of two is the larger depends on what their
    resources cost (:func:`ipa_energy.planning.base_allocation.by_price`).

    Attributes:
        resources: (name, units above 0), sorted by name: ``core``, ``gpu`` (shares of one GPU),
            ``mig-1g.10gb``, ``board`` …
        labels: (name, value), sorted by name, that tell options apart but are no amounts:
            ``hardware``, ``clock_mhz``, ``power_cap_w``, ``precision``.
    """

    resources: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, str | float], ...] = ()

    @classmethod
    def of(
        cls,
        cpu_cores: float = 0.0,
        gpu_share: float = 0.0,
        hardware: str = "cpu",
        *,
        resources: Mapping[str, float] | None = None,
        **labels: str | float,
    ) -> Allocation:
        """Cores, a share of a GPU and whatever else; what is 0 or empty is left out.

        Args:
            cpu_cores: units of ``core``.
            gpu_share: units of ``gpu``, 0..1.
            hardware: label of the machine or device.
            resources: further resource → units.
            labels: further labels.
        """
        units = {"core": cpu_cores, "gpu": gpu_share, **(resources or {})}
        known = {"hardware": hardware, **labels}
        return cls(
            tuple(sorted((name, float(amount)) for name, amount in units.items() if amount)),
            tuple(sorted((name, value) for name, value in known.items() if value != "")),
        )

    def units(self, resource: str) -> float:
        """How much of a resource one replica holds; 0 of those it does not name.

        Of an allocation at a site ``core@SITE`` are its cores if they are there, else 0, and
        ``@SITE`` is 1 or 0.
        """
        if AT_SITE in resource and self.site:
            resource, _, site = resource.rpartition(AT_SITE)
            if site != self.site:
                return 0.0
            if not resource:
                return 1.0
        for name, amount in self.resources:
            if name == resource:
                return amount
        return 0.0

    @property
    def cpu_cores(self) -> float:
        """Cores reserved by one replica."""
        return self.units("core")

    @property
    def gpu_share(self) -> float:
        """Share of one GPU reserved by one replica, 0..1."""
        return self.units("gpu")

    @property
    def hardware(self) -> str:
        """What it was profiled on; empty if nobody said."""
        return next((str(value) for name, value in self.labels if name == "hardware"), "")

    @property
    def site(self) -> str:
        """The place that it is at; empty where there is but one."""
        return next((str(value) for name, value in self.labels if name == "site"), "")

    def at_site(self, site: str) -> Allocation:
        """The same at a place."""
        return replace(self, labels=tuple(sorted((*self.labels, ("site", site)))))

    def at_no_site(self) -> Allocation:
        """The same without its place."""
        labels = tuple((name, value) for name, value in self.labels if name != "site")
        return replace(self, labels=labels)

    @property
    def label(self) -> str:
        """``2c``, ``2c+0.5g``; further resources and labels where there are any."""
        parts = [f"{self.cpu_cores:g}c"] if self.cpu_cores or not self.resources else []
        parts += [f"{self.gpu_share:g}g"] if self.gpu_share else []
        parts += [f"{units:g}×{name}" for name, units in self.resources if name not in _SHORT]
        words = [_label_text(name, value) for name, value in self.labels]
        return " ".join(["+".join(parts), *(word for word in words if word)])


_SHORT = ("core", "gpu")
_PLAIN_HARDWARE = ("cpu", "gpu")


def _label_text(name: str, value: str | float) -> str:
    if name == "site":
        return f"in {value}"
    if name == "hardware":
        return "" if value in _PLAIN_HARDWARE else f"on {value}"
    shown = value if isinstance(value, str) else f"{value:g}"
    for suffix, unit in (("_mhz", " MHz"), ("_w", " W")):
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix)} {shown}{unit}"
    return str(shown)


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """Figures of an option while ``replicas`` of it work at once; those of :class:`Option`."""

    replicas: int
    latency_s: float
    latency_avg_s: float
    latency_p99_s: float
    throughput_rps: float
    dynamic_energy_j: float
    idle_power_w: float
    provenance: Provenance | None


@dataclass(frozen=True, slots=True)
class Option:
    """One thing a stage can run: a variant on an allocation at a batch size (DESIGN section 2).

    Attributes:
        variant: name of the model variant, e.g. ``yolov5n``.
        allocation: what one replica holds, and the hardware and settings it was profiled on.
        batch: batch size b.
        latency_s: time to serve one full batch, l(o), as planning sees it (p99 or mean, with the
            pipeline's ``latency_margin`` applied).
        latency_avg_s: mean time to serve one full batch as measured.
        latency_p99_s: 99th percentile of the same.
        throughput_rps: requests per second that one replica sustains at this batch, h(o), with
            ``throughput_margin`` applied.
        accuracy: a(o) as a ratio; minus a word error rate for some of IPA's audio variants.
        dynamic_energy_j: joules per request above idle, e(o); NaN if the profile has no energy.
        idle_power_w: watts one waiting replica holds, p(o); NaN if the profile has no energy.
        provenance: of ``dynamic_energy_j``; None if the profile has no energy.
        at_once: the figures of every number of replicas that was measured, the fewest first; empty
            if it is one number, whose figures then hold for all. The fields above are those of the
            fewest, or those that :meth:`at` chose.
        load_s: time from the start of a replica until it serves; NaN if it was not measured.
        load_energy_j: joules above idle that this takes; NaN if they were not measured.
        embodied_g_per_hour: grams that making the hardware of one replica comes to, over its life;
            NaN if nobody says.
        tokens_per_request: that a language model answers with, in the mean; NaN of other models.
        by_class: class of requests → itself with the figures of these requests, of those that it
            can serve; empty where nobody tells requests apart. The fields above are then means by
            share, and the longest latency.
    """

    variant: str
    allocation: Allocation
    batch: int
    latency_s: float
    latency_avg_s: float
    latency_p99_s: float
    throughput_rps: float
    accuracy: float
    dynamic_energy_j: float
    idle_power_w: float
    provenance: Provenance | None
    at_once: tuple[ReplicaFigures, ...] = ()
    load_s: float = math.nan
    load_energy_j: float = math.nan
    embodied_g_per_hour: float = math.nan
    tokens_per_request: float = math.nan
    by_class: tuple[tuple[str, Option], ...] = ()

    def of_class(self, name: str) -> Option | None:
        """Its figures for requests of one class; None if it cannot serve them."""
        return dict(self.by_class).get(name) if self.by_class else self

    def at(self, replicas: int) -> Option:
        """Itself, with the figures of ``replicas`` replicas at once.

        Between two measured numbers they lie on the straight line; below the fewest and above the
        most they are those of the fewest and of the most, since nothing is known of others.
        """
        if not self.at_once:
            return self
        classes = tuple((name, option.at(replicas)) for name, option in self.by_class)
        return self.with_figures(_figures_at(self.at_once, replicas), by_class=classes)

    def with_figures(self, figures: ReplicaFigures, **further: Any) -> Option:
        """Itself with other figures, of whatever number of replicas, and other further fields."""
        return replace(self, **{name: getattr(figures, name) for name in _FIGURES}, **further)

    @property
    def most_measured(self) -> int:
        """The number of replicas from which on the figures stay the same."""
        return self.at_once[-1].replicas if self.at_once else 1

    @property
    def cpu_cores(self) -> float:
        """Cores reserved by one replica."""
        return self.allocation.cpu_cores

    @property
    def gpu_share(self) -> float:
        """Share of one GPU reserved by one replica, 0..1."""
        return self.allocation.gpu_share

    def units(self, resource: str) -> float:
        """Units of a resource that one replica holds."""
        return self.allocation.units(resource)

    @property
    def hardware(self) -> str:
        """What it was profiled on, e.g. ``cpu``."""
        return self.allocation.hardware

    @property
    def has_energy(self) -> bool:
        """True if both e(o) and p(o) are known."""
        return not (math.isnan(self.dynamic_energy_j) or math.isnan(self.idle_power_w))

    @property
    def energy_ci95_j(self) -> float:
        """Half width of the 95 % interval of ``dynamic_energy_j`` over the trials; NaN if unknown.

        It is that of the joules per request at any load and number of replicas too: what waits
        adds n·p/λ, and a profile has no interval of p.
        """
        return _half_width_j(self)

    def planned(self, risk: EnergyRisk) -> Option:
        """Itself, with the joules that ``risk`` plans with."""
        if risk == "mean":
            return self
        at_once = [
            replace(each, dynamic_energy_j=each.dynamic_energy_j + _half_width_j(each))
            for each in self.at_once
        ]
        return replace(
            self,
            dynamic_energy_j=self.dynamic_energy_j + self.energy_ci95_j,
            at_once=tuple(at_once),
            by_class=tuple((name, option.planned(risk)) for name, option in self.by_class),
        )

    @property
    def label(self) -> str:
        """Short name for tables and hovers: ``yolov5n 2c b4``."""
        return f"{self.variant} {self.allocation.label} b{self.batch}"


_FIGURES = tuple(field.name for field in fields(ReplicaFigures) if field.name != "replicas")


def _half_width_j(figures: Option | ReplicaFigures) -> float:
    return math.nan if figures.provenance is None else figures.provenance.ci95_j


def _figures_at(measured: Sequence[ReplicaFigures], replicas: int) -> ReplicaFigures:
    """Of ``replicas`` replicas, from those of the measured numbers, ascending."""
    above = next((each for each in measured if each.replicas >= replicas), measured[-1])
    below = next((each for each in reversed(measured) if each.replicas <= replicas), measured[0])
    if above.replicas <= below.replicas:  # measured, or beyond all that was
        return above
    share = (replicas - below.replicas) / (above.replicas - below.replicas)
    figures = {
        name: _between(getattr(below, name), getattr(above, name), share)
        for name in _FIGURES
        if name != "provenance"
    }
    provenance = _both(below.provenance, above.provenance, share)
    return ReplicaFigures(replicas=replicas, provenance=provenance, **figures)


def _between(below: float, above: float, share: float) -> float:
    return below + share * (above - below)


def _both(below: Provenance | None, above: Provenance | None, share: float) -> Provenance | None:
    """Of a figure between two: the weaker quality, the fewer trials."""
    quality = weakest_quality([each.quality for each in (below, above) if each])
    if below is None or above is None or quality is None:
        return None
    return Provenance(
        joined_meters([*meters_in(below.meter), *meters_in(above.meter)]),
        quality,
        min(below.trials, above.trials),
        _between(below.ci95_j, above.ci95_j, share),
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One of the options that a stage runs at once: its replicas, and the requests that they get.

    Attributes:
        option: with the figures of its replicas at once.
        replicas: at least 1.
        shares: class of requests → those of it that come here, as a share of *all* requests of the
            stage; :data:`EVERY_CLASS` where nobody tells them apart.
        wait_s: longest wait for a batch to fill, which its share fills at least.
        queue_s: wait for a replica, where it is planned.
    """

    option: Option
    replicas: int
    shares: tuple[tuple[str, float], ...] = ((EVERY_CLASS, 1.0),)
    wait_s: float = 0.0
    queue_s: float = 0.0

    @property
    def share(self) -> float:
        """Of the stage's requests, of whatever class."""
        return sum(share for _, share in self.shares)

    def of_classes(self) -> Iterator[tuple[Option, float]]:
        """Its option as each class of its requests finds it, and their share."""
        for name, share in self.shares:
            option = self.option.of_class(name)
            if option is not None and share:
                yield option, share


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a linear pipeline with everything it may run.

    Attributes:
        name: the stage's task name, e.g. ``crop`` (IPA's ``task_name``).
        node_name: the name its server has in IPA's logs, e.g. ``yolo``.
        options: every profiled option, in the order of the profile.
        requests_per_input: m_s, requests this stage sees for one request of the pipeline.
    """

    name: str
    node_name: str
    options: tuple[Option, ...]
    requests_per_input: float = 1.0
