"""The settings behind the yardstick: one pipeline at many weights, without energy and with it.

Without energy the objective is alpha·accuracy less what cores and other resources cost, so the
plans depend on the ratio of alpha to those prices alone: the sweep goes over alpha, where there is
a price, and over beta where the YAML has none; each with more room for bursts as well, so that some
answer all requests in time. IPA's baselines join it, those that switch variants at several alphas,
and over a trace the controllers of the literature: HPA, InferLine, and IPA's own switch. With
energy it goes over ``energy_weight`` at a few alphas.

Carbon has rivals of its own (:func:`carbon_rivals`): weights of energy that know no hour, plans
that never change, a budget dealt out evenly, and one whose forecast is true.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ipa_energy.config import PipelineConfig
from ipa_energy.config.carbon import CarbonConfig
from ipa_energy.errors import ConfigError
from ipa_energy.planning.planner import Planner
from ipa_energy.planning.policies import apply_baseline, program_for
from ipa_energy.planning.stages import accuracy_between

ALPHA_FACTORS = tuple(2.0 ** (step / 2) for step in range(-7, 5))
"""Of the YAML's alpha: from 1/11 to 4."""

CORE_OF_ACCURACY = 1 / 80
"""What a core costs in accuracy where a YAML has no price: that of configs/video.yaml."""

MARGINS = (0.0, 15.0, 30.0)
"""Percent added to the YAML's ``predictor_margin``: more replicas, fewer late requests. Without
this knob a run with energy that happens to be late less often would be compared with nothing."""

FEW_ALPHA_FACTORS = (0.125, 0.5, 1.0, 2.0)
OWN_PRICES = "prices as they are"
FIXED_VARIANT = ("fa2-low", "fa2-high")
SWITCHING = ("rim-low", "rim-high")
FOLLOWING = ("hpa-low", "hpa-high", "inferline-low", "inferline-high")
"""Of fixed variants too, by the load that came: they differ from FA2 over a trace alone."""

IPA_SWITCH = "ipa-switch"
BASELINES = (*FIXED_VARIANT, *SWITCHING, *FOLLOWING, IPA_SWITCH)

ENERGY_STEPS = tuple(2.0 ** (step / 2) for step in range(-8, 9))
"""Of the weight at which the whole range of joules weighs as much as that of accuracies."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """One setting of the sweep.

    Attributes:
        label: for people.
        changes: key of the YAML → value.
        policy: one of IPA's baselines laid over it; None: none.
        energy_weight: of the objective.
        is_whole: simulated as a run is, whatever could be decided in advance.
        static_room: of a plan that never changes, the load that it is made for, in loads of the
            busiest interval; None: decided at every interval.
    """

    label: str
    changes: Mapping[str, Any]
    policy: str | None = None
    energy_weight: float = 0.0
    is_whole: bool = False
    static_room: float | None = None


def kinds_without_energy(planner: Planner) -> list[Weighting]:
    """Each kind of setting that has no energy in it, at the YAML's own alpha.

    Where the YAML prices resources (boards, GPUs), other prices are weights too: in proportion to
    what a unit idles at, and to the cores that come with it.
    """
    config = planner.config
    off: dict[str, Any] = {"energy_weight": 0.0, "energy_sla_joules": None}
    if config.carbon is not None:  # grams are joules at another price
        off["carbon"] = config.carbon.model_copy(update=UNWEIGHTED)
    priced = [
        Weighting(name, {**off, "prices": prices})
        for name, prices in _other_prices(planner).items()
    ]
    baselines = [Weighting(policy, off, policy) for policy in (*FIXED_VARIANT, *SWITCHING)]
    return [*priced, Weighting(OWN_PRICES, off), *baselines]


UNWEIGHTED = {"weight": 0.0, "sla_grams": None, "budget_grams_per_day": None}

CONSTANT_SHARES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8)
"""Of alpha, what the joules of a request are made worth where a joule has one price all day."""


def constant_energy(
    planner: Planner, joules_per_request: float, grams_per_joule: float
) -> list[Weighting]:
    """Weights of energy that know no hour, for a pipeline whose objective knows it; else none.

    Args:
        planner: of the pipeline.
        joules_per_request: of its run.
        grams_per_joule: of its run.
    """
    config, carbon = planner.config, planner.config.carbon
    in_metric = config.energy_metric == "grams_per_request" and config.energy_weight > 0
    if carbon is None or not (in_metric or any(getattr(carbon, key) for key in UNWEIGHTED)):
        return []
    weights = [config.alpha * share / joules_per_request for share in CONSTANT_SHARES]
    a_joule = carbon.weight * grams_per_joule
    weights += [a_joule * factor for factor in (0.5, 1.0, 2.0) if a_joule > 0]
    off = {"carbon": carbon.model_copy(update=UNWEIGHTED), "energy_sla_joules": None}
    metric = {"energy_metric": "joules_per_request"}
    return [
        Weighting(
            f"energy_weight {weight:.4g}", {**off, **metric, "energy_weight": weight}, None, weight
        )
        for weight in weights
    ]


LEAST_JOULES = "the least joules"
CONSTANT = "a constant weight of energy"
STATIC = "the best plan that never changes"
EVEN = "the same grams for every request"
ORACLE = "the same with a forecast that is true"

STATIC_ROOMS = (0.85, 1.0, 1.25)
"""Of the busiest interval, what static plans are made for: queues bridge some, bursts need more."""

EVEN_FACTORS = (0.7, 0.85, 1.0, 1.2, 1.5)
"""Of the budget's grams a request, so that some are as accurate."""

ORACLE_FACTORS = (0.9, 1.0, 1.1)
"""Of the budget, or of the weight of a gram."""


def carbon_rivals(
    planner: Planner, *, joules_per_request: float, grams_per_joule: float, requests_per_day: float
) -> dict[str, list[Weighting]]:
    """Who a pipeline whose objective knows the hour is held against in grams, by name; else nobody.

    Args:
        planner: of the pipeline.
        joules_per_request: of its run.
        grams_per_joule: of its run.
        requests_per_day: that its run answered.
    """
    constant = constant_energy(planner, joules_per_request, grams_per_joule)
    carbon = planner.config.carbon
    if not constant or carbon is None:
        return {}
    found = {CONSTANT: constant, STATIC: _static_plans(constant)}
    if carbon.budget_grams_per_day is not None:
        found[EVEN] = _even(carbon, carbon.budget_grams_per_day / requests_per_day)
    if carbon.budget_grams_per_day is not None or carbon.forecast is not None:
        found[ORACLE] = _foreseeing(planner.config, carbon)
    return found


def _static_plans(constant: Sequence[Weighting]) -> list[Weighting]:
    none = replace(constant[0], label="no energy", energy_weight=0.0)
    none = replace(none, changes={**none.changes, "energy_weight": 0.0})
    return [
        replace(one, label=f"static for {room:g} of the busiest, {one.label}", static_room=room)
        for one in (none, *constant)
        for room in STATIC_ROOMS
    ]


def _even(carbon: CarbonConfig, grams: float) -> list[Weighting]:
    """A budget of grams as a cap on every request's."""
    off = {"energy_weight": 0.0, "energy_sla_joules": None}
    return [
        Weighting(
            f"sla_grams {cap:.4g}",
            {**off, "carbon": carbon.model_copy(update={**UNWEIGHTED, "sla_grams": cap})},
        )
        for cap in (grams * factor for factor in EVEN_FACTORS)
    ]


def _foreseeing(config: PipelineConfig, carbon: CarbonConfig) -> list[Weighting]:
    """The same with the truth as forecast, of intensities and, with a budget, of the loads."""
    keys = ("weight", "budget_grams_per_day")
    known: dict[str, Any] = {"forecast": carbon.intensity, "load_forecast": "trace"}
    found = []
    for factor in ORACLE_FACTORS:
        scaled = {key: factor * value for key in keys if (value := getattr(carbon, key))}
        changes: dict[str, Any] = {"carbon": carbon.model_copy(update={**known, **scaled})}
        if config.energy_metric == "grams_per_request":
            changes["energy_weight"] = factor * config.energy_weight
        found.append(Weighting(f"foreseen, {factor:g} of it", changes, None, config.energy_weight))
    return found


def without_energy(planner: Planner) -> list[Weighting]:
    """Every setting that the yardstick tries for a pipeline over a trace: each kind at many alphas.

    Prices as they are come with more room for bursts as well.
    """
    config, found = planner.config, []
    kinds = kinds_without_energy(planner)
    off = kinds[-1].changes
    kinds += [Weighting(policy, off, policy) for policy in (*FOLLOWING, IPA_SWITCH)]
    for kind in kinds:
        if kind.policy in (*FIXED_VARIANT, *FOLLOWING):
            found.append(kind)
        elif kind.policy is not None:
            for factor in FEW_ALPHA_FACTORS:
                alpha = config.alpha * factor
                changes = {**kind.changes, "alpha": alpha}
                found.append(Weighting(f"{kind.label}, alpha {alpha:.4g}", changes, kind.policy))
        elif kind.label == OWN_PRICES:
            for margin in MARGINS:
                percent = config.predictor_margin + margin
                room = f", predictor_margin {percent:g}" if margin else ""
                for factor in ALPHA_FACTORS:
                    changes, label = _priced(config, factor)
                    changes = {**kind.changes, **changes, "predictor_margin": percent}
                    found.append(Weighting(label + room, changes))
        else:
            for factor in ALPHA_FACTORS[::2]:
                changes, label = _priced(config, factor)
                found.append(Weighting(f"{label}, {kind.label}", {**kind.changes, **changes}))
    own = {"energy_weight": 0.0, "energy_sla_joules": None, "beta": config.beta or 1.0}
    return [*found, *_floors(planner, own, 0.0)]


MIX_FLOORS = 8
"""Accuracies at which mixes are looked for: weights alone hardly ever lead to one."""


def _floors(planner: Planner, changes: Mapping[str, Any], energy_weight: float) -> list[Weighting]:
    """With ``mix: true``: the cheapest mixes at accuracies over the pipeline's range."""
    config = planner.config
    if not config.mix:
        return []
    found = []
    for share in np.linspace(0, 1, MIX_FLOORS + 2)[1:-1]:
        floor = accuracy_between(planner.stages, config.accuracy_method, float(share))
        if floor > (config.accuracy_floor or -math.inf):
            what = "joules" if energy_weight else "cost"
            asked = {**changes, "alpha": 0.0, "accuracy_floor": floor}
            label = f"least {what} at accuracy_floor {floor:.4g}"
            found.append(Weighting(label, asked, None, energy_weight))
    return found


def _other_prices(planner: Planner) -> dict[str, dict[str, float]]:
    """Prices of the resources that the YAML prices, with the mean of its own; name → prices."""
    own = planner.config.prices or {}
    options = [option for stage in planner.stages for option in stage.options]
    found = {}
    for name, figure in (("prices by idle watts", "idle_power_w"), ("by cores", "cpu_cores")):
        prices = {}
        for resource in own:
            units = [(getattr(o, figure) / o.units(resource)) for o in options if o.units(resource)]
            prices[resource] = float(np.mean(units)) if units else math.nan
        total = sum(prices.values())
        if math.isfinite(total) and total > 0 and len(set(prices.values())) > 1:
            scale = sum(own.values()) / total
            found[name] = {resource: scale * price for resource, price in prices.items()}
    return found


def _priced(config: PipelineConfig, factor: float) -> tuple[dict[str, float | None], str]:
    """A ratio of accuracy to cost, and how it is called."""
    if config.alpha > 0 and (config.beta > 0 or config.prices):
        alpha = config.alpha * factor
        return {"alpha": alpha}, f"alpha {alpha:.4g}"
    alpha = config.alpha or 1.0
    beta = alpha * CORE_OF_ACCURACY / factor
    return {"alpha": alpha, "beta": beta}, f"beta {beta:.4g}"


def with_energy(config: PipelineConfig, planner: Planner) -> list[Weighting]:
    """Settings with energy: ``energy_weight`` over its whole range, at a few alphas.

    Raises:
        ConfigError: accuracy has no weight to hold joules against, or the profile has no joules.
    """
    if config.alpha == 0 and not config.mix:
        raise ConfigError(
            "alpha is 0: no accuracy is weighed against joules", allowed="alpha above 0"
        )
    if not any(option.has_energy for stage in planner.stages for option in stage.options):
        raise ConfigError(
            "the profile has no joules",
            where=planner.profile_path,
            fix="profile the pipeline with ipa-energy profile",
        )
    floors = _floors(planner, {"beta": 0.0, "energy_weight": 1.0}, 1.0)
    if config.alpha == 0:
        return floors
    natural = config.alpha * _accuracy_range(planner) / _joules_range(planner)
    found = []
    for factor in FEW_ALPHA_FACTORS:
        alpha = config.alpha * factor
        for step in ENERGY_STEPS:
            weight = natural * factor * step
            label = f"alpha {alpha:.4g}, energy_weight {weight:.4g}"
            found.append(Weighting(label, {"alpha": alpha, "energy_weight": weight}, None, weight))
    return [*found, *floors]


def _accuracy_range(planner: Planner) -> float:
    ranges = []
    for stage in planner.stages:
        values = [option.accuracy for option in stage.options]
        ranges.append(max(values) - min(values))
    return max(ranges) or 1.0


def _joules_range(planner: Planner) -> float:
    total = 0.0
    for stage in planner.stages:
        values = [option.dynamic_energy_j for option in stage.options if option.has_energy]
        total += max(values, default=0.0) - min(values, default=0.0)
    return total or 1.0


def reconfigured(planner: Planner, weighting: Weighting) -> PipelineConfig:
    """The YAML of the same pipeline at other weights."""
    config = planner.config.model_copy(update=dict(weighting.changes))
    if weighting.policy is not None:
        config = apply_baseline(config, weighting.policy, planner.stages)
    return config


def reweighted(planner: Planner, weighting: Weighting) -> Planner:
    """The same pipeline at other weights."""
    config, carbon = reconfigured(planner, weighting), planner.carbon
    said = config.carbon
    if carbon is not None and said is not None and said.forecast == said.intensity:
        carbon = replace(carbon, seen=carbon.series)
    planned = program_for(config, planner.stages, planner.signals())
    return replace(planner, config=config, planned=planned, carbon=carbon)
