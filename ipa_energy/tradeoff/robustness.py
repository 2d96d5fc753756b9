"""Whether the chosen plan stays the best one when the profile's joules are as uncertain as it says.

Each option's dynamic joules are drawn anew, independently of each other, from Student's t
distribution around their mean, with the trials less one as degrees of freedom, and within their
95 % interval; never below 0. Every draw is a profile of its own, for which the best plan is found
exactly. Idle watts have no interval in a profile and stay.

Few plans can be best in any draw. One decision with every option at its least joules of all draws
ranks the plans by what they could be worth at best; the first of them are judged in all draws at
once. A draw whose best plan among these is worth at least what the last of them could be has been
decided by that; the others go to the solver, one at a time.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats
from ipa_energy.errors import ConfigError
from ipa_energy.interval import t_quantile_95
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Choice
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import (
    CONSTRAINT_RTOL,
    Candidates,
    Problem,
    total_of,
    within,
)
from ipa_energy.records import Option
from ipa_energy.tradeoff.plan_space import PlanFigures, figures_of, joules

RANKED = 100
"""Plans judged in all draws at once."""

_TAIL = 0.025
"""Of a distribution, on either side of its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Some plans in every draw; arrays (draws, plans).

    Attributes:
        worth: objective (6); −∞ if the plan breaks its energy SLA in the draw.
        joules: per pipeline request.
        keeps_sla: whether it keeps the energy SLA.
    """

    worth: Floats
    joules: Floats
    keeps_sla: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Best:
    """The best plan of every draw; arrays (draws,).

    Attributes:
        worth: its objective; −∞ if no plan is feasible.
        joules: per pipeline request; NaN likewise.
        choices: what it chooses; None likewise.
    """

    worth: Floats
    joules: Floats
    choices: list[Choice | None]


class Resampled:
    """A problem in many draws.

    Args:
        problem: of a profile with joules.
        draws: how many.
        seed: of numpy's PCG64.

    Attributes:
        unknown_intervals: how many candidates have no interval; they keep their mean.
    """

    def __init__(self, problem: Problem, draws: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        intervals = [_intervals(candidates) for candidates in problem.stages]
        self.unknown_intervals = sum(int(np.isnan(half_j).sum()) for half_j, _ in intervals)
        self._problem, self._draws = problem, draws
        self._half_j = [np.nan_to_num(half_j) for half_j, _ in intervals]
        self._drawn = [
            _energy_j(problem, candidates, half_j * _units(random, draws, freedom))
            for candidates, half_j, (_, freedom) in zip(
                problem.stages, self._half_j, intervals, strict=True
            )
        ]

    def judged(self, choices: Sequence[Choice]) -> Judged:
        """Plans in every draw."""
        settings = self._problem.settings
        weight = settings.energy_weight * energy_scale(self._problem)
        index = np.array(choices, dtype=np.intp)
        joules = np.zeros((self._draws, len(choices)))
        for stage, drawn in enumerate(self._drawn):
            joules = joules + drawn[:, index[:, stage]]
        keeps_sla = np.ones(joules.shape, dtype=bool)
        cap = settings.energy_sla_joules
        if cap is not None:
            keeps_sla = joules <= cap + CONSTRAINT_RTOL * abs(cap)
        gain = np.array([_gain(self._problem, choice) for choice in choices])
        return Judged(np.where(keeps_sla, gain - weight * joules, -np.inf), joules, keeps_sla)

    def best(self) -> Best:
        """The best plan of every draw."""
        hoped = _with_energy(self._problem, [drawn.min(axis=0) for drawn in self._drawn])
        ranked = pareto.solve(hoped, RANKED)
        if not ranked:
            nothing: list[Choice | None] = [None] * self._draws
            return Best(np.full(self._draws, -np.inf), np.full(self._draws, np.nan), nothing)
        judged = self.judged(ranked)
        first, rows = judged.worth.argmax(axis=1), np.arange(self._draws)
        worth, joules = judged.worth[rows, first], judged.joules[rows, first]
        choices: list[Choice | None] = [ranked[at] for at in first.tolist()]
        rest = -math.inf
        if len(ranked) == RANKED:
            last = hoped.worth(ranked[-1])
            rest = last + EQUAL_OBJECTIVE_RTOL * max(1.0, abs(last))
        for draw in np.flatnonzero((worth < rest) | np.isneginf(worth)).tolist():
            found = pareto.solve(_with_energy(self._problem, [d[draw] for d in self._drawn]))
            choices[draw], worth[draw], joules[draw] = None, -np.inf, np.nan
            if found:
                one = self.judged(found)
                choices[draw] = found[0]
                worth[draw], joules[draw] = one.worth[draw, 0], one.joules[draw, 0]
        return Best(worth, joules, choices)

    def at_upper_end(self) -> Problem:
        """The problem with every option at the upper end of its interval."""
        parts = zip(self._problem.stages, self._half_j, strict=True)
        upper = [_energy_j(self._problem, candidates, half_j) for candidates, half_j in parts]
        return _with_energy(self._problem, upper)


def interval_of(option: Option) -> tuple[float, int]:
    """Half width of the 95 % interval of an option's joules, and its degrees of freedom.

    The half width is NaN if the profile does not know it.
    """
    trials = 1 if option.provenance is None else option.provenance.trials
    return option.energy_ci95_j, max(1, trials - 1)


def energy_scale(problem: Problem) -> float:
    """What the energy weight multiplies, per joule of a pipeline request.

    Raises:
        ConfigError: the metric is no multiple of joules.
    """
    scales = {"joules_per_request": 1.0, "watts": problem.load_rps}
    metric = problem.settings.energy_metric
    if metric not in scales:
        raise ConfigError(
            f"{metric} does not follow from joules",
            where="energy_metric",
            allowed=" | ".join(scales),
        )
    return scales[metric]


def _intervals(candidates: Candidates) -> tuple[Floats, Floats]:
    found = [interval_of(candidates.option(at)) for at in range(len(candidates))]
    pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _units(random: np.random.Generator, draws: int, freedom: Floats) -> Floats:
    """(draws, options) of t within its 95 % interval, in half widths of it: −1..1."""
    from scipy.special import stdtrit

    below = random.uniform(_TAIL, 1 - _TAIL, size=(draws, len(freedom)))
    ends = np.array([t_quantile_95(each) for each in freedom])
    return np.asarray(stdtrit(freedom, below) / ends, dtype=np.float64)


def _energy_j(problem: Problem, candidates: Candidates, above_mean_j: Floats) -> Floats:
    """m·J of (5) for dynamic joules that lie so much above their mean; dynamic joules ≥ 0."""
    options = [candidates.option(at) for at in range(len(candidates))]
    dynamic_j = np.array([option.dynamic_energy_j for option in options])
    idle_power_w = np.array([option.idle_power_w for option in options])
    dynamic_j = np.maximum(0.0, dynamic_j + above_mean_j)
    waiting_j = candidates.replicas * idle_power_w / problem.load_rps
    return np.asarray(candidates.stage.requests_per_input * dynamic_j + waiting_j)


def _gain(problem: Problem, choice: Choice) -> float:
    """The objective without its energy term."""
    weight = problem.settings.energy_weight * energy_scale(problem)
    if weight == 0:
        return problem.worth(choice)
    spent_j = total_of([candidates.energy_j for candidates in problem.stages], choice)
    return problem.worth(choice) + weight * spent_j


def _with_energy(problem: Problem, energy_j: Sequence[Floats]) -> Problem:
    """The same problem with other joules."""
    weight = problem.settings.energy_weight * energy_scale(problem)
    stages = tuple(
        dataclasses.replace(
            candidates,
            amounts={**candidates.amounts, "joules_per_request": joules},
            penalty=candidates.penalty + weight * (joules - candidates.energy_j),
        )
        for candidates, joules in zip(problem.stages, energy_j, strict=True)
    )
    return dataclasses.replace(problem, stages=stages)


DRAWS = 1000
MOST_REPLACEMENTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A distribution over draws."""

    mean: float
    median: float
    p95: float
    most: float

    @classmethod
    def of(cls, values: Floats) -> Spread | None:
        """Of some values; None of none."""
        if not len(values):
            return None
        median, p95, most = np.quantile(values, [0.5, 0.95, 1.0]).tolist()
        return cls(mean=float(values.mean()), median=median, p95=p95, most=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A plan that is better than the chosen one in some draws.

    Attributes:
        label: what it runs.
        draws: in how many it is the best plan while the chosen one is not.
    """

    label: str
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """How the chosen plan fares over the draws.

    Attributes:
        draws, seed: how many, and of which generator (numpy's PCG64).
        options: how many options the plan could have been made of at this load.
        unknown_intervals: how many of them have no interval and kept their mean.
        counts_energy: False if no decision depends on joules (weight 0 and no energy SLA).
        stays_optimal: share of draws in which no plan is better.
        breaks_energy_sla: share in which the plan needs more than the energy SLA.
        draws_without_plan: share in which no plan keeps its SLAs.
        replacements: the plans that are best in the other draws, most frequent first.
        joules: the plan's own joules per request.
        regret: what the plan's objective lacks to the best one; over draws where it keeps its SLA.
        regret_j: the same in joules per request: over the energy weight; None if that is 0.
        extra_j: its joules above those of the best plan, which may be more accurate and need more;
            over the same draws.
        upper: the best plan with every option at the upper end of its interval; None if then
            nothing is feasible.
        upper_is_same: whether that is the chosen plan, or one equally good then.
    """

    draws: int
    seed: int
    options: int
    unknown_intervals: int
    counts_energy: bool
    stays_optimal: float
    breaks_energy_sla: float
    draws_without_plan: float
    replacements: tuple[Replacement, ...]
    joules: Spread | None
    regret: Spread | None
    regret_j: Spread | None
    extra_j: Spread | None
    upper: PlanFigures | None
    upper_is_same: bool


def robustness_of(
    problem: Problem, choice: Choice, *, draws: int = DRAWS, seed: int = 0
) -> Robustness:
    """How a plan fares when the profile is resampled. Deterministic in ``seed``.

    Args:
        problem: the program at one load, of a profile with joules.
        choice: the chosen plan.
        draws: how often.
        seed: of the draws.
    """
    resampled = Resampled(problem, draws, seed)
    chosen, best = resampled.judged([choice]), resampled.best()
    own, own_j, kept = chosen.worth[:, 0], chosen.joules[:, 0], chosen.keeps_sla[:, 0]
    lacks = best.worth[kept] - own[kept]
    stays = np.zeros(draws, dtype=bool)
    stays[kept] = lacks <= EQUAL_OBJECTIVE_RTOL * np.maximum(1.0, np.abs(best.worth[kept]))
    regret = np.maximum(0.0, lacks)
    price = problem.settings.energy_weight * energy_scale(problem)
    upper = resampled.at_upper_end()
    found = pareto.solve(upper)
    return Robustness(
        draws=draws,
        seed=seed,
        options=sum(len(candidates) for candidates in problem.stages),
        unknown_intervals=resampled.unknown_intervals,
        counts_energy=problem.settings.needs_energy,
        stays_optimal=float(stays.mean()),
        breaks_energy_sla=float((~kept).mean()),
        replacements=_replacements(problem, [best.choices[at] for at in np.flatnonzero(~stays)]),
        draws_without_plan=sum(winner is None for winner in best.choices) / draws,
        joules=Spread.of(own_j),
        regret=Spread.of(regret),
        regret_j=Spread.of(regret / price) if price > 0 else None,
        extra_j=Spread.of(own_j[kept] - best.joules[kept]),
        upper=figures_of(upper, found[0]) if found else None,
        upper_is_same=bool(found) and _is_as_good(upper, choice, found[0]),
    )


def _replacements(problem: Problem, winners: list[Choice | None]) -> tuple[Replacement, ...]:
    """The best plans of the draws in which the chosen one is not."""
    counted = Counter(winner for winner in winners if winner is not None)
    return tuple(
        Replacement(label=build_plan(problem, winner).label, draws=count)
        for winner, count in counted.most_common(MOST_REPLACEMENTS)
    )


def _is_as_good(problem: Problem, choice: Choice, best: Choice) -> bool:
    if not within(joules(problem, choice), problem.settings.energy_sla_joules):
        return False
    top = problem.worth(best)
    return top - problem.worth(choice) <= EQUAL_OBJECTIVE_RTOL * max(1.0, abs(top))
