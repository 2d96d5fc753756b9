"""Weights and limits of the program, and the terms and caps that they make."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ipa_energy.gpu_partitions import GpuPool
from ipa_energy.optimizer.quantities import (
    ACCURACY_LOSS,
    AT_LOW_END,
    LATENCY_OF,
    LATENCY_SLA,
    LEAST_ACCURACY,
    LOG_ACCURACY_LOSS,
    UNITS,
    Moment,
)
from ipa_energy.records import AT_SITE, EnergyRisk, RequestClass
from ipa_energy.registries import QUANTITIES

LatencyModel = Literal["service", "queue"]
AccuracyMethod = Literal["sum", "average", "multiply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Weights, caps and SLAs of the program, as the pipeline YAML gives them.

    Attributes:
        alpha: weight of the pipeline accuracy.
        beta: weight of one reserved core.
        gamma: weight of one unit of batch size.
        energy_weight: weight of the energy term; 0 is IPA.
        energy_metric: the quantity that the energy term counts, one of ``energy_metrics()``.
        energy_risk: the joules of (5) and (6): the mean of the trials, or the upper end of its
            95 % interval.
        accuracy_method: how stage accuracies combine.
        normalize_accuracy: rank-normalise accuracies within each stage to 0..1 first.
        latency_sla_s: cap of equation (4), None for none.
        latency_model: what (4) counts: the time to fill a batch and to serve it, or the wait for a
            replica too (:mod:`.queue_wait`).
        energy_sla_joules: cap of equation (5), joules per pipeline request, None for none.
        accuracy_floor: least accuracy of the pipeline, as profiled, combined by
            ``accuracy_method``; None for none.
        mix: True if a stage may run several options at once.
        request_classes: kinds of requests; empty where nobody tells them apart.
        scaling_cap: most replicas of a stage.
        batching_cap: largest batch of a stage.
        prices: resource → weight of one unit of it in the objective; ``beta`` is that of a core.
        capacity: resource → units of it that all stages together may hold.
        gpus: GPUs that all stages share, cut as suits them best (:mod:`.pools`).
        weights: further quantity (:mod:`.quantities`) → its weight in the objective.
        caps: further quantity → the most that all stages together may have of it.
        signals: what is known beside the load where a moment does not say it: what a joule costs.
    """

    alpha: float
    beta: float
    gamma: float
    energy_weight: float = 0.0
    energy_metric: str = "joules_per_request"
    energy_risk: EnergyRisk = "mean"
    accuracy_method: AccuracyMethod = "sum"
    normalize_accuracy: bool = False
    latency_sla_s: float | None = None
    latency_model: LatencyModel = "service"
    energy_sla_joules: float | None = None
    accuracy_floor: float | None = None
    mix: bool = False
    request_classes: tuple[RequestClass, ...] = ()
    scaling_cap: int
    batching_cap: int
    prices: Mapping[str, float] = field(default_factory=dict)
    capacity: Mapping[str, float] = field(default_factory=dict)
    gpus: tuple[GpuPool, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    signals: Mapping[str, float] = field(default_factory=dict)

    @property
    def needs_energy(self) -> bool:
        """True if a decision depends on joules."""
        if self.energy_weight != 0 or self.energy_sla_joules is not None:
            return True
        further = {*self.weights, *self.caps}
        return any(QUANTITIES[name].needs_joules for name in further if name in QUANTITIES)


@dataclass(frozen=True, slots=True)
class Term:
    """One penalty of the objective.

    Attributes:
        name: its key among a plan's terms.
        weight: of one unit.
        quantity: what it counts, a name that :func:`.quantities.amount_of` knows.
        unit: of the quantity.
    """

    name: str
    weight: float
    quantity: str
    unit: str


@dataclass(frozen=True, slots=True)
class Cap:
    """One limit on a sum over the stages.

    Attributes:
        name: of the constraint: the YAML's key, or ``capacity:RESOURCE``.
        limit: the most that is allowed.
        quantity: what it counts, a name that :func:`.quantities.amount_of` knows.
        unit: of the quantity.
        noun: how a sentence calls it: ``a latency SLA``.
        floor: of what it is the cap of a loss; None if it is simply a cap.
        signal: what of a moment is its limit then, where the moment has it; "" for nothing.
    """

    name: str
    limit: float
    quantity: str
    unit: str
    noun: str
    floor: AccuracyFloor | None = None
    signal: str = ""

    def shown(self, total: float) -> float:
        """A total of its quantity as its key names it."""
        return total if self.floor is None else self.floor.accuracy(total)

    @property
    def scale(self) -> float:
        """What changes of its total are relative to, as what its key names changes: not 0."""
        own = abs(self.limit) if self.floor is None else self.floor.scale(self.limit)
        return own or 1.0


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """A least accuracy as a cap on a sum over the stages.

    Attributes:
        method: how the stages' accuracies combine.
        stages: how many there are.
    """

    method: AccuracyMethod
    stages: int

    def loss(self, accuracy: float) -> float:
        """The sum that a pipeline of this accuracy has."""
        if self.method == "multiply":
            return -math.log(max(accuracy, LEAST_ACCURACY))
        return self.stages * (1 - accuracy) if self.method == "average" else self.stages - accuracy

    def accuracy(self, loss: float) -> float:
        """The accuracy of a pipeline with this sum."""
        if self.method == "multiply":
            return math.exp(-loss)
        return 1 - loss / self.stages if self.method == "average" else self.stages - loss

    def scale(self, loss: float) -> float:
        """What changes of the loss are relative to, as the accuracy changes; logarithms are it."""
        if self.method == "multiply":
            return 1.0
        return abs(self.accuracy(loss)) * (self.stages if self.method == "average" else 1)

    def cap(self, accuracy: float) -> Cap:
        """The cap that keeps a pipeline at this accuracy or above."""
        product = self.method == "multiply"
        quantity = LOG_ACCURACY_LOSS if product else ACCURACY_LOSS
        limit = self.loss(accuracy)
        return Cap("accuracy_floor", limit, quantity, "", "an accuracy floor", self)


def terms_of(settings: Settings) -> tuple[Term, ...]:
    """The penalties of equation (6), IPA's first."""
    found = [
        Term("cost", settings.beta, "cost", "cores"),
        Term("batch", settings.gamma, "batch", "requests"),
    ]
    if settings.energy_weight != 0:
        metric = settings.energy_metric
        found.append(Term("energy", settings.energy_weight, metric, _unit(metric)))
    for resource, price in settings.prices.items():
        found.append(Term(f"price:{resource}", price, UNITS + resource, f"units of {resource}"))
    found += [Term(name, weight, name, _unit(name)) for name, weight in settings.weights.items()]
    return tuple(found)


def caps_of(settings: Settings, stages: int = 1) -> tuple[Cap, ...]:
    """Everything that a sum over the stages, so many of them, must stay within."""
    found = []
    if settings.latency_sla_s is not None and not settings.request_classes:
        sla_s = settings.latency_sla_s
        noun = "a latency SLA"
        found.append(Cap("latency_sla_s", sla_s, "latency_s", "s", noun, signal=LATENCY_SLA))
    found += _latency_of_classes(settings)
    if settings.energy_sla_joules is not None:
        sla_j = settings.energy_sla_joules
        found.append(Cap("energy_sla_joules", sla_j, "joules_per_request", "J", "an energy SLA"))
    if settings.accuracy_floor is not None:
        floor = AccuracyFloor(settings.accuracy_method, stages)
        found.append(floor.cap(settings.accuracy_floor))
    for resource, units in settings.capacity.items():
        what, _, site = resource.partition(AT_SITE)
        noun = f"a capacity of site {site}" if site else "a capacity"
        unit = f"units of {what}"
        found.append(Cap(f"capacity:{resource}", units, UNITS + resource, unit, noun))
    for name, limit in settings.caps.items():
        key = QUANTITIES[name].cap_key or name
        found.append(Cap(key, limit, name, _unit(name), f"a {key}"))
    return tuple(found)


def _latency_of_classes(settings: Settings) -> Iterator[Cap]:
    """One latency SLA a class that has requests: its own, or that of the pipeline."""
    for each in settings.request_classes:
        own, name = each.latency_sla_s, each.name
        sla_s = settings.latency_sla_s if own is None else own
        if sla_s is not None and each.share > 0:
            quantity, noun = LATENCY_OF + name, f"a latency SLA for class {name}"
            signal = LATENCY_SLA if own is None else ""
            yield Cap(f"latency_sla_s:{name}", sla_s, quantity, "s", noun, signal=signal)


def caps_at(caps: tuple[Cap, ...], moment: Moment) -> tuple[Cap, ...]:
    """The caps at a moment: that of joules holds at the low end of its load.

    A latency SLA that changes along a run is that of the moment, for classes without one, too.
    """
    if any(cap.signal in moment.signals for cap in caps):
        caps = tuple(replace(cap, limit=moment.signals.get(cap.signal, cap.limit)) for cap in caps)
    if moment.energy_cap_rps == moment.mean_rps:
        return caps
    return tuple(replace(cap, quantity=AT_LOW_END.get(cap.quantity, cap.quantity)) for cap in caps)


def _unit(quantity: str) -> str:
    return QUANTITIES[quantity].unit if quantity in QUANTITIES else ""
