"""From a config and its profile to the program that is solved at every decision.

IPA's modes end here as :class:`~ipa_energy.optimizer.stage_columns.StageRules`::

    allocation_mode  base      each variant on its base allocation (:mod:`.base_allocation`)
                     variable  every profiled allocation is open
                     fix       every variant on the stage's initial allocation
    baseline_mode    scale     the stage's initial variant for good; replicas and batch are free
                     switch    the stage's initial replicas for good; variant and batch are free

and the four baselines of IPA's study are presets of these (``POLICIES`` of
:mod:`ipa_energy.registries`): FA2, after Razavi et al. 2022, scales one fixed variant; RIM, after
Hu et al. 2021, switches variants on fixed replicas. SLA, weights and caps stay. Kubernetes' HPA and
InferLine (:mod:`.literature`) fix the variants as FA2 does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ipa_energy.config import PipelineConfig, StageConfig
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import BUILT_IN
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.stage_columns import StageRules
from ipa_energy.planning.base_allocation import (
    BaseAllocation,
    base_allocation,
    by_price,
    by_rising_accuracy,
    stage_sla_s,
)
from ipa_energy.planning.sites import at_no_site, capacity_of, everywhere
from ipa_energy.records import Allocation, Option, Stage
from ipa_energy.registries import POLICIES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlannedProgram:
    """A program, and what the rules found on the way to it.

    Attributes:
        program: to be asked at every load.
        latency_sla_s: the pipeline's latency SLA, from the config or by IPA's rule; the least of
            one that changes along the run.
        stage_slas_s: stage → IPA's stage SLA, seconds.
        base_allocations: stage → variant → its allocations, one a kind of hardware; None unless
            allocation_mode is base.
        excluded: stage → variant → why the rules leave it out; stages without any are not in it.
    """

    program: Program
    latency_sla_s: float
    stage_slas_s: Mapping[str, float]
    base_allocations: Mapping[str, Mapping[str, tuple[Allocation, ...]]] | None
    excluded: Mapping[str, Mapping[str, str]]


def settings_from(
    config: PipelineConfig, latency_sla_s: float, signals: Mapping[str, float] | None = None
) -> Settings:
    """Weights and limits of the config, with the SLA that :func:`program_for` determined.

    Args:
        config: the pipeline.
        latency_sla_s: of the pipeline.
        signals: see :func:`program_for`.
    """
    return Settings(
        alpha=config.alpha,
        beta=config.beta,
        gamma=config.gamma,
        energy_weight=config.energy_weight,
        energy_metric=config.energy_metric,
        energy_risk=config.energy_risk,
        accuracy_method=config.accuracy_method,
        normalize_accuracy=config.normalize_accuracy,
        latency_sla_s=latency_sla_s,
        latency_model=config.latency_model,
        energy_sla_joules=config.energy_sla_joules,
        accuracy_floor=config.accuracy_floor,
        mix=config.mix,
        request_classes=config.classes,
        scaling_cap=config.scaling_cap,
        batching_cap=config.batching_cap,
        prices=config.prices or {},
        capacity={**(config.capacity or {}), **capacity_of(config.sites)},
        gpus=config.gpu_pools,
        weights={
            name: weight
            for name, weight in config.objective_weights.items()
            if name not in BUILT_IN and weight
        },
        caps={name: cap for name, cap in config.quantity_caps.items() if name not in BUILT_IN},
        signals=signals or {},
    )


def program_for(
    config: PipelineConfig, stages: Sequence[Stage], signals: Mapping[str, float] | None = None
) -> PlannedProgram:
    """The program of a config on a profile.

    Args:
        config: the pipeline.
        stages: its stages in the config's order, from :func:`.stages_from_rows`.
        signals: what is known beside the load where a moment does not say it.

    Raises:
        ConfigError: a stage has no variant left, or not the one that ``baseline_mode: scale``
            fixes; or the profile lacks joules that the config needs.
    """
    profiled = at_no_site(stages, config.sites)
    slas_s = {stage.name: stage_sla_s(stage, config.sla_factor) for stage in profiled}
    if config.baseline_mode == "switch-scale":
        logger.warning("baseline_mode: switch-scale restricts nothing, as in IPA: same as null")
    allowed = [_allocations(config, stage, slas_s[stage.name]) for stage in profiled]
    if config.sites:
        allowed = [found and everywhere(found, list(config.sites)) for found in allowed]
    rules = [
        _rules(config, stage_config, stage, found)
        for stage_config, stage, found in zip(config.stages, stages, allowed, strict=True)
    ]
    latency_sla_s = config.tightest_sla_s
    if latency_sla_s is None:
        latency_sla_s = sum(slas_s.values())
    named = list(zip(stages, allowed, strict=True))
    _warn_of_unused(config, stages)
    for resource in _unpriced(config, stages, rules):
        logger.warning(
            "%s costs nothing in the objective: give it a price, as in prices: {%s: %g}",
            resource,
            resource,
            config.beta,
        )
    return PlannedProgram(
        program=Program(stages, settings_from(config, latency_sla_s, signals), rules),
        latency_sla_s=latency_sla_s,
        stage_slas_s=slas_s,
        base_allocations=(
            {stage.name: found.allocations for stage, found in named if found is not None}
            if config.allocation_mode == "base"
            else None
        ),
        excluded={stage.name: found.excluded for stage, found in named if found and found.excluded},
    )


def initial_deployment(
    config: PipelineConfig, stages: Sequence[Stage]
) -> tuple[tuple[Option, int], ...]:
    """What runs before the first decision: (option, replicas) of each stage.

    The YAML's ``initial_*``; where it is silent, the least accurate variant, its smallest
    allocation, its smallest batch.

    Raises:
        ConfigError: the profile does not have it.
    """
    return tuple(
        (_initial_option(config, stage_config, stage), stage_config.initial_replicas)
        for stage_config, stage in zip(config.stages, stages, strict=True)
    )


def apply_baseline(config: PipelineConfig, policy: str, stages: Sequence[Stage]) -> PipelineConfig:
    """The config of one of :data:`~ipa_energy.registries.POLICIES`.

    Raises:
        ConfigError: there is no such policy, or a stage has no variant left.
    """
    if policy not in POLICIES:
        raise ConfigError(f"no policy {policy}", where="--policy", allowed=" | ".join(POLICIES))
    changed: PipelineConfig = POLICIES[policy].load()(config, stages)
    return changed


def unrestricted(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """IPA itself: no baseline, whatever the YAML says."""
    del stages
    return config.model_copy(update={"baseline_mode": None})


def fa2_low(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """The least accurate variant of each stage for good."""
    return _fixed_variants(config, stages, most=False)


def fa2_high(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """The most accurate variant of each stage for good."""
    return _fixed_variants(config, stages, most=True)


def rim_low(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """One replica of each stage for good: the fewest there are."""
    return _fixed_replicas(config, stages, 1)


def rim_high(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """Three replicas of each stage for good, as in IPA's rim-high files."""
    return _fixed_replicas(config, stages, 3)


def ipa_switch(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """IPA itself, and its choice among equally good plans."""
    return _controlled(unrestricted(config, stages), "ipa")


def hpa_low(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """Replicas by Kubernetes' autoscaler, of the least accurate variants."""
    return _controlled(_fixed_variants(config, stages, most=False), "hpa")


def hpa_high(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """Replicas by Kubernetes' autoscaler, of the most accurate variants."""
    return _controlled(_fixed_variants(config, stages, most=True), "hpa")


def inferline_low(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """InferLine on the least accurate variants."""
    return _controlled(_fixed_variants(config, stages, most=False), "inferline")


def inferline_high(config: PipelineConfig, stages: Sequence[Stage]) -> PipelineConfig:
    """InferLine on the most accurate variants."""
    return _controlled(_fixed_variants(config, stages, most=True), "inferline")


def _controlled(config: PipelineConfig, controller: str) -> PipelineConfig:
    return config.model_copy(update={"controller": controller})


def _fixed_replicas(
    config: PipelineConfig, stages: Sequence[Stage], replicas: int
) -> PipelineConfig:
    return config.model_copy(
        update={"baseline_mode": "switch", "initial_replica": (replicas,) * len(stages)}
    )


def _fixed_variants(
    config: PipelineConfig, stages: Sequence[Stage], *, most: bool
) -> PipelineConfig:
    """Of the variants that ``allocation_mode`` leaves in, on its allocation, smallest batch."""
    starts = [_extreme_option(config, stage, most=most) for stage in stages]
    return config.model_copy(
        update={
            "baseline_mode": "scale",
            "initial_active_model": tuple(option.variant for option in starts),
            "initial_cpu_allocation": tuple(option.cpu_cores for option in starts),
            "initial_batch": tuple(option.batch for option in starts),
        }
    )


def _allocations(config: PipelineConfig, stage: Stage, sla_s: float) -> BaseAllocation | None:
    """What ``allocation_mode`` leaves open in a stage; None: everything."""
    if config.allocation_mode == "base":
        return base_allocation(stage, config.threshold, sla_s, _prices(config))
    if config.allocation_mode == "variable":
        return None
    stage_config = next(item for item in config.stages if item.name == stage.name)
    fixed = _initial_option(config, stage_config, stage).allocation
    variants = by_rising_accuracy(stage)
    have = {
        variant: any(option.allocation == fixed for option in options)
        for variant, options in variants.items()
    }
    return BaseAllocation(
        {variant: (fixed,) for variant in variants if have[variant]},
        {
            variant: f"not profiled on the stage's initial allocation of {fixed.cpu_cores:g} cores"
            for variant in variants
            if not have[variant]
        },
    )


def _rules(
    config: PipelineConfig, stage_config: StageConfig, stage: Stage, allowed: BaseAllocation | None
) -> StageRules:
    allocations = allowed.allocations if allowed is not None else None
    variants = replicas = None
    if config.baseline_mode == "scale":
        variant = stage_config.initial_variant or next(iter(_open_variants(stage, allowed)))
        if allowed is not None and variant not in allowed.allocations:
            reason = allowed.excluded.get(variant, "the profile does not have it")
            raise ConfigError(
                f"stage {stage.name}: baseline_mode: scale fixes variant {variant}, but under"
                f" allocation_mode: {config.allocation_mode} it is out: {reason}",
                where="initial_active_model",
                allowed=", ".join(allowed.allocations),
            )
        variants = frozenset({variant})
    elif config.baseline_mode == "switch":
        replicas = stage_config.initial_replicas
    return StageRules(allocations=allocations, variants=variants, replicas=replicas)


def _prices(config: PipelineConfig) -> dict[str, float]:
    """Resource → what a unit costs in the objective; ``beta`` is the price of a core."""
    return {"core": config.beta, **(config.prices or {})}


def _warn_of_unused(config: PipelineConfig, stages: Sequence[Stage]) -> None:
    """Prices and capacities of what nothing in the profile uses: perhaps a slip of the pen."""
    options = [option for stage in stages for option in stage.options]
    held = {name for option in options for name, _ in option.allocation.resources} | {"core"}
    hardware = {option.hardware for option in options}
    for name in (pool.name for pool in config.gpu_pools if pool.name not in hardware):
        known = ", ".join(sorted(hardware))
        logger.warning("gpus: nothing in the profile runs on %s; it has %s", name, known)
    sites = [
        (f"carbon.sites.{name}.capacity", site.capacity) for name, site in config.sites.items()
    ]
    for key, given in (("prices", config.prices), ("capacity", config.capacity), *sites):
        unused = [resource for resource in given or {} if resource not in held]
        if unused:
            logger.warning(
                "%s: nothing in the profile uses %s; it has %s",
                key,
                ", ".join(unused),
                ", ".join(sorted(held)),
            )


def _unpriced(
    config: PipelineConfig, stages: Sequence[Stage], rules: Sequence[StageRules]
) -> list[str]:
    """Resources other than cores that a plan may hold and that nothing charges for."""
    held = {
        resource
        for stage, rule in zip(stages, rules, strict=True)
        for option in stage.options
        if rule.allows(option)
        for resource, _ in option.allocation.resources
    }
    return sorted(held - {"core", *(config.prices or {})})


def _initial_option(pipeline: PipelineConfig, config: StageConfig, stage: Stage) -> Option:
    names = [each.name for each in pipeline.classes if each.share > 0]
    complete = {o.variant for o in stage.options if all(o.of_class(name) for name in names)}
    rising = list(by_rising_accuracy(stage))
    variant = config.initial_variant or next((v for v in rising if v in complete), rising[0])
    fitting = [
        option
        for option in stage.options
        if option.variant == variant
        and config.initial_cpu_cores in (None, option.cpu_cores)
        and config.initial_batch in (None, option.batch)
    ]
    if not fitting:
        raise ConfigError(
            f"stage {stage.name}: the profile has no {variant} at"
            f" {_any_or(config.initial_cpu_cores)} cores and batch {_any_or(config.initial_batch)}",
            where="initial_active_model, initial_cpu_allocation, initial_batch",
            allowed=", ".join(option.label for option in stage.options),
        )
    size = by_price(_prices(pipeline))
    return min(fitting, key=lambda option: (size(option.allocation), option.batch))


def _any_or(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def _extreme_option(config: PipelineConfig, stage: Stage, *, most: bool) -> Option:
    """Smallest batch of the least or most accurate variant left in, on its allocation."""
    allowed = _allocations(config, stage, stage_sla_s(stage, config.sla_factor))
    variant = list(_open_variants(stage, allowed))[-1 if most else 0]
    open_ = [
        option
        for option in stage.options
        if option.variant == variant
        and (allowed is None or option.allocation in allowed.allocations[variant])
    ]
    size = by_price(_prices(config))
    return min(open_, key=lambda option: (size(option.allocation), option.batch))


def _open_variants(stage: Stage, allowed: BaseAllocation | None) -> Iterable[str]:
    """The variants left in, by rising accuracy."""
    return by_rising_accuracy(stage) if allowed is None else allowed.allocations
