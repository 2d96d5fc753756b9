r"""The integer program: IPA's, with energy, made linear.

Sets and data. A linear pipeline has stages *s*; a stage has options *o* = (variant, allocation,
batch), each with latency :math:`l_o`, throughput of one replica :math:`h_o`, accuracy :math:`a_o`,
dynamic joules per request :math:`e_o`, idle watts of one replica :math:`p_o`, cores :math:`c_o` and
batch :math:`b_o`. The pipeline gets :math:`\lambda` requests per second, stage *s* sees
:math:`\lambda_s = m_s\lambda` of them.

Variables. :math:`x_{so} \in \{0, 1\}`, and the replicas :math:`n_s`. Nothing in the objective or in
a constraint improves with a larger :math:`n_s`, so the smallest one that carries the load is
optimal and the only variables left are binary, one an option::

    (1)  choice        Σ_o x_so = 1                                           for each stage s
    (2)  throughput    n_s·h_o ≥ λ_s, 1 ≤ n_s ≤ scaling_cap
                       ⟹ n_so = max(1, ⌈λ_s / h_o⌉), options with n_so > scaling_cap leave
    (3)  batching      b_o ≤ batching_cap; larger options leave
    (4)  latency       Σ_s [l_o + q_so] ≤ latency SLA,       q_so = (b_o − 1) / λ_s
    (5)  energy        Σ_s m_s·J_so ≤ energy SLA,            J_so = e_o + n_so·p_o / λ_s

    maximise  alpha·A − beta·Σ_s n_so·c_o − gamma·Σ_s b_o − energy_weight·E                   (6)

*A* is the sum, average or product over the stages of the accuracies, raw or rank-normalised within
the stage. *E* is Σ m_s·J_so (joules per pipeline request) or λ times that (watts). With the energy
risk ``upper``, :math:`e_o` is the upper end of its 95 % interval in (5) and (6) alike; a sum of
such ends is at least as cautious as the upper end of the sum. What is left is a multiple-choice
knapsack: every solver of this package gets the same :class:`Problem`, a table of candidates per
stage, and returns one candidate a stage.

Source of everything but (5) and the energy term: IPA, Journal of Systems Research 2024,
arXiv 2308.12871. The waiting time is charged for the batch that is chosen, as the paper has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats, Ints
from ipa_energy.errors import ConfigError
from ipa_energy.records import Allocation, EnergyMetric, EnergyRisk, Option, Stage

AccuracyMethod = Literal["sum", "average", "multiply"]

LOWEST_PLANNED_LOAD_RPS = 1.0
"""A smaller load is planned as this: joules per request have no meaning without requests."""

CONSTRAINT_RTOL = 1e-12
"""Relative room for the rounding of a sum of a few floats, so that 0.1 s + 0.2 s fits 0.3 s."""


def planned_load_rps(load_rps: float) -> float:
    """The load to plan for, given a predicted one: at least 1 request per second."""
    return max(LOWEST_PLANNED_LOAD_RPS, load_rps)


def within(total: float, cap: float | None) -> bool:
    """True if ``total`` respects ``cap`` (None: no cap), up to the rounding of its summation."""
    return cap is None or total <= cap + CONSTRAINT_RTOL * abs(cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Weights, caps and SLAs of the program, as the pipeline YAML gives them.

    Attributes:
        alpha: weight of the pipeline accuracy.
        beta: weight of one reserved core.
        gamma: weight of one unit of batch size.
        energy_weight: weight of the energy term; 0 is IPA.
        energy_metric: what the energy term counts, joules per pipeline request or watts.
        energy_risk: the joules of (5) and (6): the mean of the trials, or the upper end of its
            95 % interval.
        accuracy_method: how stage accuracies combine.
        normalize_accuracy: rank-normalise accuracies within each stage to 0..1 first.
        latency_sla_s: cap of equation (4), None for none.
        energy_sla_joules: cap of equation (5), joules per pipeline request, None for none.
        scaling_cap: most replicas of a stage.
        batching_cap: largest batch of a stage.
    """

    alpha: float
    beta: float
    gamma: float
    energy_weight: float = 0.0
    energy_metric: EnergyMetric = "joules_per_request"
    energy_risk: EnergyRisk = "mean"
    accuracy_method: AccuracyMethod = "sum"
    normalize_accuracy: bool = False
    latency_sla_s: float | None = None
    energy_sla_joules: float | None = None
    scaling_cap: int
    batching_cap: int

    @property
    def needs_energy(self) -> bool:
        """True if a decision depends on joules."""
        return self.energy_weight != 0 or self.energy_sla_joules is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRules:
    """What narrows a stage's options before the program sees them.

    Attributes:
        allocations: variant → the allocations that it may have (IPA's base allocation, on each
            kind of hardware); variants not named are out. None: every profiled one is open.
        variants: the only variants allowed (FA2 fixes one). None: all.
        replicas: fixed number of replicas (RIM). None: equation (2) decides.
    """

    allocations: Mapping[str, tuple[Allocation, ...]] | None = None
    variants: frozenset[str] | None = None
    replicas: int | None = None

    def allows(self, option: Option) -> bool:
        """True if ``option`` passes the variant and allocation rules."""
        if self.variants is not None and option.variant not in self.variants:
            return False
        return self.allows_allocation(option)

    def allows_allocation(self, option: Option) -> bool:
        """True if ``option`` passes the allocation rule."""
        if self.allocations is None:
            return True
        return option.allocation in self.allocations.get(option.variant, ())


def accuracy_scores(stage: Stage, *, normalize: bool) -> dict[str, float]:
    """Variant → the accuracy that enters the objective.

    Raw accuracies, or IPA's rank normalisation: variants sorted by (accuracy, name) get 0, …, 1 in
    equal steps, a single variant gets 1. Ranks count every profiled variant of the stage, also
    those that rules or caps exclude, so that a cap never changes what a variant is worth.
    """
    raw = {option.variant: option.accuracy for option in stage.options}
    if not normalize:
        return raw
    ranked = sorted(raw, key=lambda variant: (raw[variant], variant))
    if len(ranked) == 1:
        return {ranked[0]: 1.0}
    return {variant: rank / (len(ranked) - 1) for rank, variant in enumerate(ranked)}


@dataclass(frozen=True, slots=True)
class Candidates:
    """The options of one stage that are open at one load; arrays of one length, one entry each.

    Attributes:
        stage: the stage.
        option_index: index into ``stage.options``.
        replicas: n_so of equation (2), or the fixed number.
        accuracy: score in the objective.
        delay_s: l_o + q_so, this stage's part of (4).
        energy_j: m_s·J_so, this stage's part of (5), of the end that ``energy_risk`` plans with;
            NaN if the profile has no energy, or not that end.
        penalty: beta·n·c + gamma·b + energy_weight·(energy part): this stage's part of (6) but A.
    """

    stage: Stage
    option_index: Ints
    replicas: npt.NDArray[np.int64]
    accuracy: Floats
    delay_s: Floats
    energy_j: Floats
    penalty: Floats

    def __len__(self) -> int:
        return len(self.option_index)


@dataclass(frozen=True, slots=True)
class Problem:
    """The program at one load: what every solver gets.

    A solver returns choices: tuples with one index into ``stages[s]`` per stage.
    """

    stages: tuple[Candidates, ...]
    load_rps: float
    settings: Settings
    rules: tuple[StageRules, ...]

    def combined_accuracy(self, scores: Sequence[float]) -> float:
        """A of equation (6) from one score a stage."""
        return combine_accuracy(scores, self.settings.accuracy_method)

    def is_empty(self) -> bool:
        """True if some stage has no candidate left, so that no solver need be asked."""
        return any(len(candidates) == 0 for candidates in self.stages)


def combine_accuracy(scores: Sequence[float], method: AccuracyMethod) -> float:
    """Pipeline accuracy from the stages': their sum, average or product."""
    if method == "multiply":
        return math.prod(scores)
    total = sum(scores)
    return total / len(scores) if method == "average" else total


def require_intervals(
    stages: Sequence[Stage], energy_risk: EnergyRisk, where: Path | None = None
) -> None:
    """Refuse joules without an interval where decisions plan with its upper end.

    Args:
        stages: the pipeline; options without joules are passed over.
        energy_risk: the end that is planned with.
        where: the profile, for the message.

    Raises:
        ConfigError: ``energy_risk`` is ``upper`` and an option with joules has no interval.
    """
    if energy_risk == "mean":
        return
    found = [(stage, option) for stage in stages for option in stage.options if option.has_energy]
    lacking = [(stage, option) for stage, option in found if math.isnan(option.energy_ci95_j)]
    if not lacking:
        return
    stage, option = lacking[0]
    others = f", nor have {len(lacking) - 1} other entries" if len(lacking) > 1 else ""
    raise ConfigError(
        f"stage {stage.name}, {option.label} on {option.hardware}: its joules have no 95 %"
        f" interval{others}, and energy_risk: upper plans with its upper end",
        where=where,
        allowed="a profile with energy_ci95_j in every row, which takes two trials",
        fix="profile those entries with --trials 3, or set energy_risk: mean",
    )


class _Columns:
    """Everything about a stage's allowed options that no load changes."""

    __slots__ = (
        "accuracy",
        "allowed",
        "batch",
        "cores",
        "dynamic_energy_j",
        "idle_power_w",
        "latency_s",
        "throughput_rps",
    )

    def __init__(self, stage: Stage, rules: StageRules, settings: Settings) -> None:
        options = stage.options
        scores = accuracy_scores(stage, normalize=settings.normalize_accuracy)
        self.allowed: Ints = np.array(
            [
                index
                for index, option in enumerate(options)
                if option.batch <= settings.batching_cap and rules.allows(option)
            ],
            dtype=np.intp,
        )
        kept = [options[index] for index in self.allowed]

        def column(values: list[float]) -> Floats:
            return np.array(values, dtype=np.float64)

        self.accuracy = column([scores[option.variant] for option in kept])
        self.batch = column([option.batch for option in kept])
        self.cores = column([option.cpu_cores for option in kept])
        self.latency_s = column([option.latency_s for option in kept])
        self.throughput_rps = column([option.throughput_rps for option in kept])
        self.dynamic_energy_j = column([option.dynamic_energy_j for option in kept])
        if settings.energy_risk == "upper":
            self.dynamic_energy_j += column([option.energy_ci95_j for option in kept])
        self.idle_power_w = column([option.idle_power_w for option in kept])


@dataclass(frozen=True, slots=True)
class Loads:
    """The loads one plan is made for, in pipeline requests per second; all equal at one load.

    Attributes:
        lowest_rps: batches fill at this load: the waits of (4).
        mean_rps: joules and penalties are those of this load, with the replicas of the peak.
        peak_rps: what (2) has to carry.
    """

    lowest_rps: float
    mean_rps: float
    peak_rps: float

    @classmethod
    def of(cls, counts_rps: npt.NDArray[np.int64]) -> Loads:
        """The loads of a trace of per-second counts, each at least 1."""
        return cls(
            lowest_rps=planned_load_rps(float(counts_rps.min())),
            mean_rps=planned_load_rps(float(counts_rps.mean())),
            peak_rps=planned_load_rps(float(counts_rps.max())),
        )


class Program:
    """A pipeline's program with the load still open; built once, asked at every load.

    Args:
        stages: the pipeline, first stage first.
        settings: weights, caps and SLAs.
        rules: one a stage; default no rules.

    Raises:
        ConfigError: a decision would need joules, or intervals of them, that the profile does not
            have, or a product of accuracies some of which are negative.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        settings: Settings,
        rules: Sequence[StageRules] | None = None,
    ) -> None:
        self.stages = tuple(stages)
        self.settings = settings
        self.rules = tuple(rules) if rules is not None else tuple(StageRules() for _ in stages)
        self._check_energy()
        self._check_product()
        self._columns = tuple(
            _Columns(stage, rule, settings)
            for stage, rule in zip(self.stages, self.rules, strict=True)
        )

    def at(self, load_rps: float) -> Problem:
        """The program at ``load_rps`` pipeline requests per second.

        Raises:
            ConfigError: the load is not a positive finite number.
        """
        return self.over(Loads(load_rps, load_rps, load_rps))

    def over(self, loads: Loads) -> Problem:
        """The program of a plan that has to last through changing load.

        Raises:
            ConfigError: a load is not a positive finite number.
        """
        for load_rps in (loads.lowest_rps, loads.mean_rps, loads.peak_rps):
            if not (math.isfinite(load_rps) and load_rps > 0):
                raise ConfigError(f"load of {load_rps:g} rps", allowed="a finite load above 0 rps")
        return Problem(
            stages=tuple(
                self._candidates(*parts, loads)
                for parts in zip(self.stages, self.rules, self._columns, strict=True)
            ),
            load_rps=loads.mean_rps,
            settings=self.settings,
            rules=self.rules,
        )

    def _candidates(
        self, stage: Stage, rule: StageRules, columns: _Columns, loads: Loads
    ) -> Candidates:
        settings = self.settings
        share = stage.requests_per_input
        needed = np.ceil(share * loads.peak_rps / columns.throughput_rps * (1 - CONSTRAINT_RTOL))
        np.maximum(needed, 1.0, out=needed)
        limit = settings.scaling_cap if rule.replicas is None else rule.replicas
        open_ = needed <= limit
        replicas = needed if rule.replicas is None else np.full_like(needed, rule.replicas)
        joules = columns.dynamic_energy_j + replicas * columns.idle_power_w / (
            share * loads.mean_rps
        )
        energy_j = share * joules
        penalty = settings.beta * replicas * columns.cores + settings.gamma * columns.batch
        if settings.energy_weight != 0:
            scale = loads.mean_rps if settings.energy_metric == "watts" else 1.0
            penalty = penalty + settings.energy_weight * scale * energy_j
        delay_s = columns.latency_s + (columns.batch - 1) / (share * loads.lowest_rps)
        return Candidates(
            stage=stage,
            option_index=columns.allowed[open_],
            replicas=replicas[open_].astype(np.int64),
            accuracy=columns.accuracy[open_],
            delay_s=delay_s[open_],
            energy_j=energy_j[open_],
            penalty=penalty[open_],
        )

    def _check_energy(self) -> None:
        if not self.settings.needs_energy:
            return
        for stage in self.stages:
            for option in stage.options:
                if not option.has_energy:
                    raise ConfigError(
                        f"stage {stage.name}, {option.label}: the profile has no joules",
                        allowed="a profile with dynamic_energy_j and idle_power_w in every row"
                        " when energy_weight is not 0 or energy_sla_joules is set",
                        fix="profile the pipeline with ipa-energy profile, or set energy_weight: 0",
                    )
        require_intervals(self.stages, self.settings.energy_risk)

    def _check_product(self) -> None:
        if self.settings.accuracy_method != "multiply" or self.settings.normalize_accuracy:
            return
        for stage in self.stages:
            for option in stage.options:
                if option.accuracy < 0:
                    raise ConfigError(
                        f"stage {stage.name}, variant {option.variant}: accuracy"
                        f" {option.accuracy:g} is negative (minus a word error rate?), and a"
                        " product of such figures has no meaning",
                        allowed="accuracy_method: sum or average, or normalize_accuracy: true",
                    )
