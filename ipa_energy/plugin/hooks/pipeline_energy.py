"""What hangs on an IPA pipeline: the settings, and the joules of any configuration of it.

IPA's own objects know variant, allocation, batch and replicas of the moment; after an optimization
that moment is the last solution Gurobi had in its pool. So everything here is looked up from a
configuration (:class:`Chosen`), never from the pipeline's state, unless the state is what is meant.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipa_energy.energy import fill_wait_s, metric_scale
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.problem import within
from ipa_energy.optimizer.quantities import planned_load_rps
from ipa_energy.plugin.hooks.joules import EntryEnergy, estimate, joules_of, missing_batches
from ipa_energy.plugin.hooks.settings import WHERE, EnergySettings
from ipa_energy.records import Quality, joined_meters, weakest_quality

logger = logging.getLogger(__name__)

ATTRIBUTE = "ipa_energy"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What one stage of a configuration runs, found again in the profile.

    Attributes:
        task: IPA's task.
        model: IPA's model: variant and allocation.
        batch: its batch size.
        replicas: n.
        latency_s: time of one batch as IPA plans it.
        energy: figures of the entry; None if the profile has none.
    """

    task: Any
    model: Any
    batch: int
    replicas: int
    latency_s: float
    energy: EntryEnergy | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The last answer of the optimizer, for the log.

    Attributes:
        method: ``gurobi``, ``brute-force``, ``ipa-energy`` …
        decision_s: wall time.
        energy_objective: energy_weight·E of the first plan; None without plan or joules.
        conflict: why there was no plan, if the method knows.
    """

    method: str
    decision_s: float
    energy_objective: float | None
    conflict: str | None


@dataclass(slots=True)
class PipelineEnergy:
    """Energy of one IPA pipeline.

    Attributes:
        settings: of the YAML.
        has_joules: every entry that can be planned has them.
        load_rps: λ that IPA's methods are working on, at least 1.
        batching_cap: of the optimization in progress; None outside one.
        decision: the last one.
        programs: our own programs of this pipeline, by the settings they were built for.
    """

    settings: EnergySettings
    has_joules: bool = False
    load_rps: float = 1.0
    batching_cap: int | None = None
    decision: Decision | None = None
    programs: dict[Any, Any] = field(default_factory=dict)

    def plan_for(self, load_rps: float) -> None:
        """Set the load that objective and constraints are about to be asked for."""
        self.load_rps = planned_load_rps(float(load_rps))

    def share(self, index: int) -> float:
        """m_s, requests that a stage sees for one of the pipeline."""
        shares = self.settings.requests_per_input
        return shares[index] if shares else 1.0

    def stage_joules(self, index: int, chosen: Chosen) -> float | None:
        """J of a stage at the planned load; None without energy in the profile."""
        if chosen.energy is None:
            return None
        return chosen.energy.joules_per_request(chosen.replicas, self.share(index) * self.load_rps)

    def joules_per_request(self, plan: Sequence[Chosen]) -> float | None:
        """Σ m_s·J_s, joules per pipeline request; None if any stage has no energy."""
        total = 0.0
        for index, chosen in enumerate(plan):
            joules = self.stage_joules(index, chosen)
            if joules is None:
                return None
            total += self.share(index) * joules
        return total

    def risk_j(self, figures: EntryEnergy) -> float:
        """What ``energy_risk`` adds to an entry's joules: nothing, or half its 95 % interval."""
        return figures.provenance.ci95_j if self.settings.energy_risk == "upper" else 0.0

    def planned_joules_per_request(self, plan: Sequence[Chosen]) -> float | None:
        """The joules per pipeline request that decisions count; None if a stage has no energy."""
        joules = self.joules_per_request(plan)
        if joules is None:
            return None
        return joules + sum(
            self.share(index) * self.risk_j(chosen.energy)
            for index, chosen in enumerate(plan)
            if chosen.energy is not None
        )

    def penalty(self, plan: Sequence[Chosen]) -> float:
        """energy_weight·E, to be taken off the objective."""
        if self.settings.energy_weight == 0:
            return 0.0
        joules = self.planned_joules_per_request(plan)
        if joules is None:
            raise ConfigError(f"no joules for {' | '.join(label(one) for one in plan)}")
        scale = metric_scale(self.settings.energy_metric, self.load_rps)
        return self.settings.energy_weight * scale * joules

    def latency_s(self, plan: Sequence[Chosen]) -> float:
        """Model latencies and the waits to fill the chosen batches, summed over the stages."""
        return sum(
            chosen.latency_s + fill_wait_s(chosen.batch, self.share(index) * self.load_rps)
            for index, chosen in enumerate(plan)
        )

    def keeps_energy_sla(self, plan: Sequence[Chosen]) -> bool:
        """True if the plan respects the cap on joules, or there is none."""
        cap = self.settings.energy_sla_joules
        joules = self.planned_joules_per_request(plan)
        return cap is None or (joules is not None and within(joules, cap))


def energy_of(pipeline: Any) -> PipelineEnergy | None:
    """What :func:`attach` hung on a pipeline; None if it has no energy settings."""
    found = getattr(pipeline, ATTRIBUTE, None)
    return found if isinstance(found, PipelineEnergy) else None


def attach(pipeline: Any, settings: EnergySettings) -> PipelineEnergy:
    """Hang settings on a pipeline, with estimates if they are asked for.

    Raises:
        ConfigError: a decision would need joules, or intervals of them, that the profile does not
            have.
    """
    models = [model for task in pipeline.inference_graph for model in task.available_model_profiles]
    stages = len(pipeline.inference_graph)
    if settings.requests_per_input and len(settings.requests_per_input) != stages:
        raise ConfigError(
            f"requests_per_input lists {len(settings.requests_per_input)}",
            where=WHERE,
            allowed=f"a list of {stages}, one entry per stage",
        )
    if settings.energy_estimate == "cpu-time":
        estimate(models)
    lacking = [model for model in models if missing_batches(model)]
    if lacking and settings.needs_energy:
        _refuse(lacking, settings)
    if settings.needs_energy and settings.energy_risk == "upper":
        _require_intervals(models)
    if lacking:
        logger.info("the profile has no joules for every entry: none are logged")
    if settings.latency_sla_s is not None:
        _set_sla(pipeline, settings.latency_sla_s)
    energy = PipelineEnergy(settings, has_joules=not lacking)
    setattr(pipeline, ATTRIBUTE, energy)
    return energy


def _refuse(lacking: Sequence[Any], settings: EnergySettings) -> None:
    first = lacking[0]
    key = "energy_weight" if settings.energy_weight else "energy_sla_joules"
    cores, batch = first.resource_allocation.cpu, missing_batches(first)[0]
    entry = f"{first.name} at {cores:g} cores, batch {batch}"
    count = sum(len(missing_batches(model)) for model in lacking)
    estimated = settings.energy_estimate is not None
    raise ConfigError(
        f"{key} is set, and the profile has no joules for {count} entries, the first {entry}"
        + ("; nor CPU seconds to estimate them from" if estimated else ""),
        where=WHERE,
        allowed="a profile with dynamic_joules_per_request and idle_power_w for every entry",
        fix="profile again with the patched profiler"
        + ("" if estimated else ", or set energy_estimate: cpu-time")
        + ", or energy_weight: 0",
    )


def _require_intervals(models: Sequence[Any]) -> None:
    for model in models:
        for batch, figures in joules_of(model).entries.items():
            if math.isnan(figures.provenance.ci95_j):
                cores = model.resource_allocation.cpu
                raise ConfigError(
                    f"energy_risk: upper plans with 95 % intervals, and the joules of {model.name}"
                    f" at {cores:g} cores, batch {batch}, have none",
                    where=WHERE,
                    allowed="a profile with an interval of every entry, from several samples of"
                    " its joules",
                    fix="profile again with the patched profiler, or set energy_risk: mean",
                )


def _set_sla(pipeline: Any, latency_sla_s: float) -> None:
    """Give this one pipeline the YAML's SLA; IPA's is a property of its class."""
    base = type(pipeline)
    pipeline.__class__ = type(base.__name__, (base,), {"sla": property(lambda _: latency_sla_s)})


def find(
    task: Any, variant: str, allocation: float, batch: int, replicas: int, *, gpu: bool = False
) -> Chosen | None:
    """An entry of a task's profile by its figures; None if the profile has no such entry.

    Args:
        task: IPA's task.
        variant: name of the model.
        allocation: cores, or share of a GPU, of one replica.
        batch: batch size.
        replicas: n.
        gpu: whether ``allocation`` is a share of a GPU.
    """
    for model in task.available_model_profiles:
        resources = model.resource_allocation
        held = resources.gpu if gpu else resources.cpu
        if model.name != variant or float(held) != allocation:
            continue
        for profile in model.profiles:
            if int(profile.batch) == batch:
                energy = joules_of(model).entries.get(batch)
                return Chosen(task, model, batch, replicas, float(profile.latency), energy)
    return None


def current(pipeline: Any) -> list[Chosen] | None:
    """The configuration a pipeline is set to now; None if its profile has no such entry."""
    found = []
    for task in pipeline.inference_graph:
        model = task.active_model
        resources = model.resource_allocation
        held = resources.gpu if task.gpu_mode else resources.cpu
        one = find(
            task, model.name, float(held), int(task.batch), int(task.replicas), gpu=task.gpu_mode
        )
        if one is None:
            return None
        found.append(one)
    return found


def of_state(pipeline: Any, state: Mapping[str, Any]) -> list[Chosen] | None:
    """The configuration in a row of IPA's states; None if the profile has no such entry."""
    found = []
    for index, task in enumerate(pipeline.inference_graph):
        held = state[f"task_{index}_gpu" if task.gpu_mode else f"task_{index}_cpu"]
        one = find(
            task,
            str(state[f"task_{index}_variant"]),
            float(held),
            int(state[f"task_{index}_batch"]),
            int(state[f"task_{index}_replicas"]),
            gpu=task.gpu_mode,
        )
        if one is None:
            return None
        found.append(one)
    return found


def label(chosen: Chosen) -> str:
    """``yolov5n 1c b4 x3``."""
    cores = chosen.model.resource_allocation.cpu
    return f"{chosen.model.name} {cores:g}c b{chosen.batch} x{chosen.replicas}"


def quality_of(plan: Sequence[Chosen]) -> tuple[Quality | None, str | None]:
    """Weakest quality and the meters of a plan's joules; (None, None) if a stage has none."""
    if any(chosen.energy is None for chosen in plan):
        return None, None
    found = [chosen.energy.provenance for chosen in plan if chosen.energy is not None]
    meters = joined_meters(sorted({provenance.meter for provenance in found}))
    return weakest_quality([provenance.quality for provenance in found]), meters
