"""A problem in many draws of its options' joules, and the best plan of each draw, exactly.

Few plans can be best in any draw. One decision with every option at its least joules of all draws
ranks the plans by what they could be worth at best; the first of them are judged in all draws at
once. A draw whose best plan among these is worth at least what the last of them could be has been
decided by that; the others go to the solver, one at a time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats
from ipa_energy.interval import t_quantile_95
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.problem import CONSTRAINT_RTOL, Candidates, Problem
from ipa_energy.optimizer.solution import EQUAL_OBJECTIVE_RTOL, Choice
from ipa_energy.records import Option
from ipa_energy.tradeoff.plan_figures import objective

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
            last = objective(hoped, ranked[-1])
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
    """What the energy weight multiplies, per joule of a pipeline request."""
    return problem.load_rps if problem.settings.energy_metric == "watts" else 1.0


def _intervals(candidates: Candidates) -> tuple[Floats, Floats]:
    options = candidates.stage.options
    found = [interval_of(options[index]) for index in candidates.option_index]
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
    options = [candidates.stage.options[index] for index in candidates.option_index]
    dynamic_j = np.array([option.dynamic_energy_j for option in options])
    idle_power_w = np.array([option.idle_power_w for option in options])
    dynamic_j = np.maximum(0.0, dynamic_j + above_mean_j)
    waiting_j = candidates.replicas * idle_power_w / problem.load_rps
    return np.asarray(candidates.stage.requests_per_input * dynamic_j + waiting_j)


def _gain(problem: Problem, choice: Choice) -> float:
    """The objective without its energy term."""
    weight = problem.settings.energy_weight * energy_scale(problem)
    if weight == 0:
        return objective(problem, choice)
    joules = sum(float(c.energy_j[at]) for c, at in zip(problem.stages, choice, strict=True))
    return objective(problem, choice) + weight * joules


def _with_energy(problem: Problem, energy_j: Sequence[Floats]) -> Problem:
    """The same problem with other joules."""
    weight = problem.settings.energy_weight * energy_scale(problem)
    stages = tuple(
        dataclasses.replace(
            candidates,
            energy_j=joules,
            penalty=candidates.penalty + weight * (joules - candidates.energy_j),
        )
        for candidates, joules in zip(problem.stages, energy_j, strict=True)
    )
    return dataclasses.replace(problem, stages=stages)
