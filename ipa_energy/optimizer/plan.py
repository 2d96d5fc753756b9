"""A plan: what every stage runs, what that means, and its certificate (:mod:`.plan_building`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ipa_energy.optimizer.pools import Cut
from ipa_energy.optimizer.quantities import (
    Moment,
)
from ipa_energy.records import (
    EVERY_CLASS,
    EnergyRisk,
    Option,
    Part,
    Quality,
    joined_meters,
    weakest_quality,
)

_JOULES = "joules_per_request"

Choice = tuple[int, ...]
"""One index into ``problem.stages[s]`` per stage."""

SHARE_RTOL = 1e-9
"""Shares of a mix come out of a linear program with about so many digits, and what is made of them
holds to as many."""

EQUAL_OBJECTIVE_RTOL = 1e-9
"""Plans whose objectives differ by less are equal: the promise that all solvers share."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What one stage runs.

    Attributes:
        stage: task name of the stage.
        node_name: name of its server in IPA's logs.
        parts: what it runs: one option, or with ``mix`` several at once, the largest share first.
        accuracy: score in the objective (a rank if normalised), of a mix the mean by share.
        accuracy_raw: the same of the accuracies as profiled.
        load_rps: λ_s, requests per second this stage sees.
        joules_per_request: J at λ_s, per request of this stage; NaN without energy in the profile.
        planned_joules_per_request: the J that ``energy_risk`` plans with: the same, or the upper
            end of its 95 % interval, NaN if that is unknown.
        requests_per_input: m_s.
        queue_s: the wait for a replica under ``latency_model: queue``, of a mix the longest of its
            parts; None: it is not planned.
    """

    stage: str
    node_name: str
    parts: tuple[Part, ...]
    accuracy: float
    accuracy_raw: float
    load_rps: float
    joules_per_request: float
    planned_joules_per_request: float
    requests_per_input: float
    queue_s: float | None = None

    @property
    def option(self) -> Option:
        """Variant, allocation, batch and their profile; of a mix those with the largest share."""
        return self.parts[0].option

    @property
    def replicas(self) -> int:
        """n, of all parts."""
        return sum(part.replicas for part in self.parts)

    @property
    def tokens_per_request(self) -> float:
        """Of a language model's answers, in the mean; NaN of other models."""
        served = [each for part in self.parts for each in part.of_classes()]
        return sum(share * option.tokens_per_request for option, share in served)

    @property
    def wait_s(self) -> float:
        """q, the time to fill a batch; of a mix that of its largest share."""
        return self.parts[0].wait_s

    @property
    def classes(self) -> dict[str, float]:
        """Class of requests → its latency and wait here, at the slowest part that serves it."""
        found: dict[str, float] = {}
        for part in self.parts:
            for name, share in part.shares:
                option = part.option.of_class(name)
                if option is not None and share:
                    delay_s = option.latency_s + part.wait_s + part.queue_s
                    found[name] = max(found.get(name, 0.0), delay_s)
        return found

    @property
    def label(self) -> str:
        """``yolov5n 1c b4 x3``; of a mix ``yolov5n 1c b4 x3 62% + yolov5s 1c b1 x2 38%``."""
        return parts_label(self.parts)

    @property
    def joules_per_pipeline_request(self) -> float:
        """m_s·J, its part of a pipeline request's joules: over the stages they add up."""
        return self.requests_per_input * self.joules_per_request

    @property
    def power_w(self) -> float:
        """λ_s·J, watts of this stage."""
        return self.load_rps * self.joules_per_request

    @property
    def cost_cores(self) -> float:
        """Cores reserved by all replicas."""
        return sum(part.replicas * part.option.cpu_cores for part in self.parts)

    @property
    def capacity_rps(self) -> float:
        """n·h, requests per second all replicas sustain; of a mix, in these shares."""
        if len(self.parts) == 1 and not self.option.by_class:
            return self.replicas * self.option.throughput_rps
        return 1 / max(_busy_s(part) / part.replicas for part in self.parts)

    @property
    def quality(self) -> Quality | None:
        """Quality of the joules, None without energy in the profile."""
        found = [part.option.provenance for part in self.parts]
        return weakest_quality([each.quality for each in found if each]) if all(found) else None

    @property
    def meter(self) -> str | None:
        """Meters behind the joules, None without energy in the profile."""
        found = [part.option.provenance for part in self.parts]
        return joined_meters(each.meter for each in found if each) or None

    def to_json(self) -> dict[str, Any]:
        """The stage as ``optimize --json`` shows it."""
        option = self.option
        return {
            "stage": self.stage,
            "node_name": self.node_name,
            "variant": option.variant,
            "hardware": option.hardware,
            "cpu_cores": option.cpu_cores,
            "gpu_share": option.gpu_share,
            "batch": option.batch,
            "replicas": self.replicas,
            "latency_s": option.latency_s,
            "wait_s": self.wait_s,
            **({} if self.queue_s is None else {"queue_s": self.queue_s}),
            "throughput_rps": option.throughput_rps,
            "accuracy": self.accuracy,
            "joules_per_request": self.joules_per_request,
            "planned_joules_per_request": self.planned_joules_per_request,
            "requests_per_input": self.requests_per_input,
            "joules_per_pipeline_request": self.joules_per_pipeline_request,
            "power_w": self.power_w,
            "energy_quality": self.quality,
            "energy_meter": self.meter,
            **({"parts": [part_json(part) for part in self.parts]} if self.is_wide else {}),
        }

    @property
    def is_wide(self) -> bool:
        """True if one option and one number of replicas do not say it all."""
        return len(self.parts) > 1 or self.parts[0].shares != Part(self.option, 1).shares


def _busy_s(part: Part) -> float:
    """Seconds that one replica would work for a mean request of the stage that comes to it."""
    return sum(share / option.throughput_rps for option, share in part.of_classes())


def part_json(part: Part) -> dict[str, Any]:
    """A part as ``optimize --json`` and logs show it."""
    option = part.option
    classes = {name: share for name, share in part.shares if name != EVERY_CLASS}
    return {
        "variant": option.variant,
        "hardware": option.hardware,
        "cpu_cores": option.cpu_cores,
        "gpu_share": option.gpu_share,
        "allocation": option.allocation.label,
        "batch": option.batch,
        "replicas": part.replicas,
        "share": part.share,
        "wait_s": part.wait_s,
        **({"queue_s": part.queue_s} if part.queue_s else {}),
        **({"request_classes": classes} if classes else {}),
    }


def parts_label(parts: Sequence[Part]) -> str:
    """What a stage runs, in a few words."""
    if len(parts) == 1:
        return f"{parts[0].option.label} x{parts[0].replicas}"
    each = [f"{part.option.label} x{part.replicas} {100 * part.share:.3g}%" for part in parts]
    return " + ".join(each)


@dataclass(frozen=True, slots=True)
class Check:
    """One constraint of a plan, recomputed.

    Attributes:
        constraint: ``throughput:<stage>``, ``scaling_cap:<stage>``, ``batching_cap:<stage>``,
            ``latency_sla_s``, ``energy_sla_joules``, ``capacity:<resource>``, ``gpus:<pool>`` or
            the YAML's key of the cap of a further quantity. Of a floor it is the
            least that is allowed.
        value: what the plan has.
        limit: what is allowed; None if the constraint is off.
        holds: whether it is respected.
    """

    constraint: str
    value: float
    limit: float | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """Every constraint of one plan, recomputed from the profile alone."""

    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """True if every constraint is respected."""
        return all(check.holds for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The certificate as ``optimize --json`` shows it."""
        return {"holds": self.holds, "checks": self.checks}


@dataclass(frozen=True, slots=True)
class Plan:
    """A variant, allocation, batch and number of replicas for each stage, and what it means.

    Attributes:
        stages: one a stage, first stage first.
        moment: what it was made for, at its mean load.
        accuracy: A of the objective.
        accuracy_raw: the same combination of the raw accuracies (equal unless normalised).
        energy_risk: which joules the energy term and ``energy_sla_joules`` count.
        terms: the parts of the objective, weights included: ``accuracy``, and the penalties
            ``cost``, ``batch``, ``energy`` and those of prices and further quantities.
        amounts: totals of priced and capped resources and of further quantities, by name.
        certificate: every constraint, checked again.
        cuts: pool of GPUs → how they are cut for it; None if they cannot be.
    """

    stages: tuple[StagePlan, ...]
    moment: Moment
    accuracy: float
    accuracy_raw: float
    energy_risk: EnergyRisk
    terms: dict[str, float]
    amounts: dict[str, float]
    certificate: Certificate
    cuts: Mapping[str, Cut | None] = field(default_factory=dict)

    @property
    def load_rps(self) -> float:
        """λ, the load it was made for."""
        return self.moment.mean_rps

    @property
    def joules_per_token(self) -> float:
        """Of the tokens that its language models answer with; NaN without any."""
        known = [s.requests_per_input * s.tokens_per_request for s in self.stages]
        tokens = sum(each for each in known if not math.isnan(each))
        return self.joules_per_request / tokens if tokens else math.nan

    @property
    def objective(self) -> float:
        """Equation (6)."""
        total = self.terms["accuracy"]
        for name, penalty in self.terms.items():
            if name != "accuracy":
                total -= penalty
        return total

    @property
    def cost_cores(self) -> float:
        """Cores reserved by all stages."""
        return sum(stage.cost_cores for stage in self.stages)

    @property
    def latency_s(self) -> float:
        """Left side of (4): model latency and batch wait, summed over the stages.

        Of requests in classes it is that of the slowest class.
        """
        return latency_of(self.stages)

    @property
    def joules_per_request(self) -> float:
        """Joules per pipeline request, the mean; NaN without energy in the profile."""
        return sum(stage.joules_per_pipeline_request for stage in self.stages)

    @property
    def planned_joules_per_request(self) -> float:
        """Joules per pipeline request that ``energy_risk`` plans with; (5) where it holds here.

        With ``upper`` the sum of the stages' upper ends; NaN if the profile lacks one.
        """
        return planned_joules(self.stages)

    @property
    def power_w(self) -> float:
        """λ·J of the pipeline."""
        return self.load_rps * self.joules_per_request

    @property
    def quality(self) -> Quality | None:
        """Weakest quality of the stages' joules; None if any stage has none."""
        found = [stage.quality for stage in self.stages]
        return weakest_quality(found) if all(found) else None

    @property
    def label(self) -> str:
        """``yolov5n 1c b4 x3 | resnet18 1c b2 x1``."""
        return " | ".join(stage.label for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """The plan as ``optimize --json`` shows it."""
        return {
            "stages": self.stages,
            "accuracy": self.accuracy,
            "accuracy_raw": self.accuracy_raw,
            "cost_cores": self.cost_cores,
            "latency_s": self.latency_s,
            "joules_per_request": self.joules_per_request,
            "planned_joules_per_request": self.planned_joules_per_request,
            **(
                {}
                if math.isnan(self.joules_per_token)
                else {"joules_per_token": self.joules_per_token}
            ),
            "energy_risk": self.energy_risk,
            "power_w": self.power_w,
            "energy_quality": self.quality,
            "objective": self.objective,
            "terms": self.terms,
            **({"amounts": self.amounts} if self.amounts else {}),
            **({"gpus": self.cut_gpus()} if self.cuts else {}),
            "certificate": self.certificate,
        }

    def cut_gpus(self) -> dict[str, dict[str, int]]:
        """Pool → label of a partition → GPUs that are cut so."""
        return {
            name: {} if cut is None else {part.label: gpus for part, gpus in cut.items()}
            for name, cut in self.cuts.items()
        }


def planned_joules(stages: Sequence[StagePlan]) -> float:
    """Of a pipeline request, as ``energy_risk`` plans with them."""
    return sum(stage.requests_per_input * stage.planned_joules_per_request for stage in stages)


def latency_of(stages: Sequence[StagePlan], request_class: str | None = None) -> float:
    """Of a class of requests, or of the slowest one."""
    sites = dict.fromkeys(part.option.allocation.site for part in stages[0].parts)
    if len(sites) > 1:  # a request is served where it came in
        return max(latency_of(of_site(stages, site), request_class) for site in sites)
    delays = [stage.classes for stage in stages]
    names = list(delays[0]) if request_class is None else [request_class]
    return max((sum(each.get(name, 0.0) for each in delays) for name in names), default=0.0)


def of_site(stages: Sequence[StagePlan], site: str) -> list[StagePlan]:
    """The stages with what runs at one site alone."""
    return [
        replace(
            stage,
            parts=tuple(part for part in stage.parts if part.option.allocation.site == site),
        )
        for stage in stages
    ]
