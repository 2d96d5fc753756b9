r"""The integer program: IPA's, with energy, made linear.

Sets and data. A linear pipeline has stages *s*; a stage has options *o* = (variant, allocation,
batch), each with latency :math:`l_o`, throughput of one replica :math:`h_o`, accuracy :math:`a_o`,
dynamic joules per request :math:`e_o`, idle watts of one replica :math:`p_o`, cores :math:`c_o` and
batch :math:`b_o`. The pipeline gets :math:`\lambda` requests per second, stage *s* sees
:math:`\lambda_s = m_s\lambda` of them.

Variables. :math:`x_{so} \in \{0, 1\}`, and the replicas :math:`n_s`. Nothing in the objective or in
a constraint improves with a larger :math:`n_s`, so the smallest one that carries the load is
optimal and the only variables left are binary, one an option. Where a profile has an option's
figures with several replicas at work, :math:`l_o, h_o, e_o, p_o` are those of :math:`n_{so}`
replicas (:meth:`ipa_energy.records.Option.at`), and :math:`n_{so}` is the smallest number that
carries the load with them, by definition: a larger one is not looked at, even if neighbours should
have made the option faster or more frugal there::

    (1)  choice        Σ_o x_so = 1                                           for each stage s
    (2)  throughput    n_s·h_o ≥ λ_s, 1 ≤ n_s ≤ scaling_cap
                       ⟹ n_so = min { n ≥ 1: n·h_o(n) ≥ λ_s }, = max(1, ⌈λ_s / h_o⌉) for
                       one h_o; options with n_so > scaling_cap leave
    (3)  batching      b_o ≤ batching_cap; larger options leave
    (4)  latency       Σ_s [l_o + q_so] ≤ latency SLA,       q_so = (b_o − 1) / λ_s
    (5)  energy        Σ_s m_s·J_so ≤ energy SLA,            J_so = e_o + n_so·p_o / λ_s,
                       with λ the least load that may come while the plan runs, if it is known
    (5') capacity      Σ_s n_so·units_o ≤ capacity           for each resource that has one
    (5'') accuracy     Σ_s (1 − a_so) ≤ S − accuracy floor    for a sum; an average and a product of
                       accuracies likewise (:class:`.settings.AccuracyFloor`)

    (6') GPUs          whole or cut into slices, shared by all stages (:mod:`.pools`)

    maximise  alpha·A − beta·Σ_s n_so·c_o − gamma·Σ_s b_o − energy_weight·E                   (6)
                      − Σ_r price_r·Σ_s n_so·units_ro

Everything but A is a term or a cap (:mod:`.settings`): a weight or a limit on one column of numbers
(:mod:`.quantities`), added up over the stages. Further ones are entries of
:data:`ipa_energy.registries.QUANTITIES`.

*A* is the sum, average or product over the stages of the accuracies, raw or rank-normalised within
the stage. *E* is Σ m_s·J_so (joules per pipeline request) or λ times that (watts). With the energy
risk ``upper``, :math:`e_o` is the upper end of its 95 % interval in (5) and (6) alike; a sum of
such ends is at least as cautious as the upper end of the sum. What is left is a multiple-choice
knapsack: every solver of this package gets the same :class:`Problem`, a table of candidates per
stage, and returns one candidate a stage.

Under ``latency_model: queue`` (4) has the time that requests wait for a replica beside
:math:`q_{so}` (:mod:`.queue_wait`). It falls with n, so an option is a candidate on each of a few
numbers of replicas from :math:`n_{so}` on.

Plans of equal objective (up to rounding) are ordered by joules per request, if they are
known, then by latency, the least first, then as in the profile, whichever the solver
(:mod:`.ties`).

Source of everything but (5) and the energy term: IPA, Journal of Systems Research 2024,
arXiv 2308.12871. The waiting time is charged for the batch that is chosen, as the paper has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.arrays import Counts, Floats, Ints
from ipa_energy.energy import ROUNDING_RTOL, replicas_needed
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.pools import require_slices
from ipa_energy.optimizer.quantities import Moment, over_all_options, queued_latency_s
from ipa_energy.optimizer.queue_wait import EXTRA_REPLICAS
from ipa_energy.optimizer.settings import (
    AccuracyMethod,
    Cap,
    Settings,
    Term,
    caps_at,
    caps_of,
    terms_of,
)
from ipa_energy.optimizer.stage_columns import StageColumns, StageRules
from ipa_energy.records import EnergyRisk, Option, Stage

CONSTRAINT_RTOL = ROUNDING_RTOL
"""Relative room for the rounding of a sum of a few floats, so that 0.1 s + 0.2 s fits 0.3 s."""


def within(total: float, cap: float | None) -> bool:
    """True if ``total`` respects ``cap`` (None: no cap), up to the rounding of its summation."""
    return cap is None or total <= cap + CONSTRAINT_RTOL * abs(cap)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The options of one stage that are open at one moment; arrays of one length, one entry each.

    Attributes:
        stage: the stage.
        option_index: index into ``stage.options``.
        replicas: n_so of equation (2), or the fixed number.
        accuracy: score in the objective.
        amounts: quantity → this stage's amount of it: of every term and cap, and of latency and
            joules in any case; joules are NaN if the profile has none, or not the end that
            ``energy_risk`` plans with.
        penalty: this stage's part of (6) but A: the weighted sum of the terms.
    """

    stage: Stage
    option_index: Ints
    replicas: Counts
    accuracy: Floats
    amounts: Mapping[str, Floats]
    penalty: Floats

    def __len__(self) -> int:
        return len(self.option_index)

    def option(self, at: int) -> Option:
        """One of them, with the figures that its replicas have."""
        option: Option = self.stage.options[self.option_index[at]]
        return option.at(int(self.replicas[at]))

    @property
    def delay_s(self) -> Floats:
        """l_o + q_so, this stage's part of (4)."""
        return self.amounts["latency_s"]

    @property
    def energy_j(self) -> Floats:
        """m_s·J_so, this stage's part of (5)."""
        return self.amounts["joules_per_request"]

    def select(self, index: Ints) -> Candidates:
        """Some of the candidates, in the order of ``index``."""
        return Candidates(
            stage=self.stage,
            option_index=self.option_index[index],
            replicas=self.replicas[index],
            accuracy=self.accuracy[index],
            amounts={name: column[index] for name, column in self.amounts.items()},
            penalty=self.penalty[index],
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """The program at one moment: what every solver gets.

    A solver returns choices: tuples with one index into ``stages[s]`` per stage. Their worth is
    ``alpha·A − Σ penalty``, and for each cap the sum of its column must stay within the limit.

    Attributes:
        stages: what is open in each stage.
        moment: what the plan is for.
        settings: weights and limits.
        rules: one a stage.
        terms: what the penalties are made of.
        caps: what must hold over all stages.
    """

    stages: tuple[Candidates, ...]
    moment: Moment
    settings: Settings
    rules: tuple[StageRules, ...]
    terms: tuple[Term, ...]
    caps: tuple[Cap, ...]

    @property
    def load_rps(self) -> float:
        """λ: the mean load."""
        return self.moment.mean_rps

    def under(self, settings: Settings) -> Problem:
        """The same candidates, and penalties, under the weights and caps of other settings."""
        caps = caps_at(caps_of(settings, len(self.stages)), self.moment)
        return replace(self, settings=settings, terms=terms_of(settings), caps=caps)

    def columns(self, quantity: str) -> tuple[Floats, ...]:
        """Amounts of one quantity, one array a stage, of a term, a cap or any other quantity."""
        try:
            return tuple([candidates.amounts[quantity] for candidates in self.stages])
        except KeyError:  # no term and no cap counts it
            pass
        amount = over_all_options(quantity)
        found = []
        for candidates in self.stages:
            stage, index = candidates.stage, candidates.option_index
            replicas = candidates.replicas.astype(np.float64)
            columns = StageColumns(stage, StageRules(), self.settings, index).at(replicas)
            found.append(amount(columns, replicas, stage, self.moment))
        return tuple(found)

    def with_penalty(self, columns: Sequence[Floats], alpha: float | None = None) -> Problem:
        """The same with other penalties, one array a stage, and another weight of the accuracy."""
        stages = tuple(
            replace(candidates, penalty=column)
            for candidates, column in zip(self.stages, columns, strict=True)
        )
        settings = self.settings if alpha is None else replace(self.settings, alpha=alpha)
        return replace(self, stages=stages, settings=settings)

    def accuracy_of(self, choice: Sequence[int]) -> float:
        """A of a choice."""
        picked = zip(self.stages, choice, strict=True)
        return self.combined_accuracy([float(each.accuracy[at]) for each, at in picked])

    def worth(self, choice: Sequence[int]) -> float:
        """The objective (6) of a choice."""
        penalty = total_of([candidates.penalty for candidates in self.stages], choice)
        return self.settings.alpha * self.accuracy_of(choice) - penalty

    def combined_accuracy(self, scores: Sequence[float]) -> float:
        """A of equation (6) from one score a stage."""
        return combine_accuracy(scores, self.settings.accuracy_method)

    def is_empty(self) -> bool:
        """True if some stage has no candidate left, so that no solver need be asked."""
        return any(len(candidates) == 0 for candidates in self.stages)


def total_of(columns: Sequence[Floats], choice: Sequence[int]) -> float:
    """What a choice has of an amount, of which there is one array a stage."""
    return sum(float(column[at]) for column, at in zip(columns, choice, strict=True))


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
    found = [
        (stage, each)
        for stage in stages
        for option in stage.options
        for each in (option, *(option.at(figures.replicas) for figures in option.at_once))
        if each.has_energy
    ]
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


def _joined(parts: Sequence[Candidates]) -> Candidates:
    """Candidates of one stage as one, in the order of the profile, then by replicas."""
    first = parts[0]
    both = Candidates(
        stage=first.stage,
        option_index=np.concatenate([part.option_index for part in parts]),
        replicas=np.concatenate([part.replicas for part in parts]),
        accuracy=np.concatenate([part.accuracy for part in parts]),
        amounts={
            name: np.concatenate([part.amounts[name] for part in parts]) for name in first.amounts
        },
        penalty=np.concatenate([part.penalty for part in parts]),
    )
    return both.select(np.lexsort((both.replicas, both.option_index)))


class Program:
    """A pipeline's program with the moment still open; built once, asked at every moment.

    Args:
        stages: the pipeline, first stage first.
        settings: weights, caps and SLAs.
        rules: one a stage; default no rules.

    Raises:
        ConfigError: a decision would need joules, or intervals of them, that the profile does not
            have, or a product of accuracies some of which are negative; or a weight, a cap or a
            price is of nothing known.
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
        require_slices(settings.gpus, self.stages)
        _check_mix(settings)
        _check_prices(settings)
        _check_weights(settings)
        self.terms, self.caps = terms_of(settings), caps_of(settings, len(self.stages))
        counted = ["latency_s", "joules_per_request"]
        counted += [term.quantity for term in self.terms]
        counted += [cap.quantity for cap in self.caps]
        self._amounts = {name: over_all_options(name) for name in dict.fromkeys(counted)}
        if settings.latency_model == "queue":
            self._amounts["latency_s"] = queued_latency_s
        self._columns = tuple(
            StageColumns(stage, rule, settings)
            for stage, rule in zip(self.stages, self.rules, strict=True)
        )

    def under(self, **changed: Any) -> Program:
        """The same under settings of which some are changed; fields of :class:`Settings`."""
        return Program(self.stages, replace(self.settings, **changed), self.rules)

    def at(self, moment: Moment | float) -> Problem:
        """The program at a moment, or at pipeline requests per second.

        Raises:
            ConfigError: a load is not a positive finite number, or a quantity has no figure.
        """
        if not isinstance(moment, Moment):
            moment = Moment.at(moment)
        moment = moment.knowing(self.settings.signals)
        moment.check()
        caps = caps_at(self.caps, moment)
        functions = self._amounts if caps is self.caps else self._amounts_of(caps)
        return Problem(
            stages=tuple(
                self._candidates(*parts, moment, functions)
                for parts in zip(self.stages, self.rules, self._columns, strict=True)
            ),
            moment=moment,
            settings=self.settings,
            rules=self.rules,
            terms=self.terms,
            caps=caps,
        )

    def with_replicas(self, picks: Sequence[tuple[Ints, Ints]]) -> Callable[[Moment], Problem]:
        """The program with given options on given replicas, whether they carry a load or not.

        Args:
            picks: of each stage indices into its options, and the replicas of each.

        Returns:
            the program at a moment, as :meth:`at`, with just these candidates in this order.
        """
        replicas = [count.astype(np.float64) for _, count in picks]
        fixed = [
            columns.of(index).at(count)
            for columns, (index, _), count in zip(self._columns, picks, replicas, strict=True)
        ]

        def at(moment: Moment) -> Problem:
            moment = moment.knowing(self.settings.signals)
            moment.check()
            caps = caps_at(self.caps, moment)
            functions = self._amounts if caps is self.caps else self._amounts_of(caps)
            stages = tuple(
                self._counted(*parts, moment, functions)
                for parts in zip(self.stages, fixed, replicas, strict=True)
            )
            return Problem(stages, moment, self.settings, self.rules, self.terms, caps)

        return at

    def _amounts_of(self, caps: Sequence[Cap]) -> dict[str, Callable[..., Floats]]:
        new = {cap.quantity for cap in caps} - self._amounts.keys()
        return {**self._amounts, **{name: over_all_options(name) for name in new}}

    def _candidates(
        self,
        stage: Stage,
        rule: StageRules,
        columns: StageColumns,
        moment: Moment,
        functions: Mapping[str, Callable[..., Floats]],
    ) -> Candidates:
        load_rps = stage.requests_per_input * moment.peak_rps
        profiled = columns
        if rule.replicas is None:
            limit = self.settings.scaling_cap
            needed = replicas = replicas_needed(load_rps, columns.throughput_rps)
            columns = columns.at(replicas)
        else:
            limit = rule.replicas
            replicas = np.full(len(columns.allowed), float(limit))
            columns = columns.at(replicas)
            needed = replicas_needed(load_rps, columns.throughput_rps)
        found = self._counted(stage, columns, replicas, moment, functions)
        if self.settings.latency_model == "queue" and rule.replicas is None:
            more = self._with_more_replicas(stage, profiled, replicas, moment, functions)
            found = _joined([found, *more])
            needed = found.replicas.astype(np.float64)
        (open_,) = (needed <= limit).nonzero()
        return found if len(open_) == len(needed) else found.select(open_)

    def _with_more_replicas(
        self,
        stage: Stage,
        profiled: StageColumns,
        least: Floats,
        moment: Moment,
        functions: Mapping[str, Callable[..., Floats]],
    ) -> Iterator[Candidates]:
        """The options on more replicas than they need, which shorten the wait for one."""
        load_rps = stage.requests_per_input * moment.peak_rps
        for extra in range(1, EXTRA_REPLICAS + 1):
            replicas = least + extra
            there = profiled.at(replicas)
            carries = load_rps <= replicas * there.throughput_rps * (1 + CONSTRAINT_RTOL)
            found = self._counted(stage, there, replicas, moment, functions)
            yield found.select(np.flatnonzero(carries))

    def _counted(
        self,
        stage: Stage,
        columns: StageColumns,
        replicas: Floats,
        moment: Moment,
        functions: Mapping[str, Callable[..., Floats]],
    ) -> Candidates:
        """The amounts and penalties of options with so many replicas each."""
        amounts = {
            name: amount(columns, replicas, stage, moment) for name, amount in functions.items()
        }
        parts = [term.weight * amounts[term.quantity] for term in self.terms]
        penalty: Floats = sum(parts[1:], start=parts[0])
        return Candidates(
            stage=stage,
            option_index=columns.allowed,
            replicas=replicas.astype(np.int64),
            accuracy=columns.scores,
            amounts=amounts,
            penalty=penalty,
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


LARGEST_WEIGHT = 1e100
"""Larger ones leave no room for what they are multiplied by and added to."""


def _check_weights(settings: Settings) -> None:
    weights = {key: getattr(settings, key) for key in ("alpha", "beta", "gamma", "energy_weight")}
    for key, weight in {**weights, **settings.prices, **settings.weights}.items():
        if abs(weight) > LARGEST_WEIGHT:
            raise ConfigError(f"{weight:g}", where=key, allowed=f"at most {LARGEST_WEIGHT:g}")


def _check_mix(settings: Settings) -> None:
    if settings.latency_model == "queue" and settings.request_classes:
        raise ConfigError(
            "queue with classes of requests: how long requests of several classes take in one queue"
            " is more than the wait's closed form knows",
            where="latency_model",
            allowed="service, or requests that are all alike",
            fix="latency_model: service; throughput_margin: -10 plans with room for queues",
        )
    if settings.mix and settings.accuracy_method == "multiply":
        raise ConfigError(
            "multiply with mix: true: a product of means by share is no linear program",
            where="accuracy_method",
            allowed="sum or average, or mix: false",
        )


def _check_prices(settings: Settings) -> None:
    if "core" in settings.prices:
        raise ConfigError(
            f"core costs {settings.prices['core']:g}",
            where="prices",
            allowed="resources other than cores",
            fix="beta is the price of a core",
        )
