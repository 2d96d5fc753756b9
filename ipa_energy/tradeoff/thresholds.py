r"""The upper envelope of all plans' objectives over the energy weight; see :mod:`.plan_map`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ipa_energy.arrays import Floats
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.solution import Choice
from ipa_energy.tradeoff.space import best_of

TOLERANCE = 1e-10
"""Objectives closer than this share of their terms are equal: rounding, not a better plan."""


@dataclass(frozen=True, slots=True)
class Line:
    """A plan's objective over the energy weight w: ``gain − w·energy``.

    Attributes:
        choice: the plan.
        gain: its objective without the energy term.
        energy: its energy term per unit of weight: joules per request, or watts.
    """

    choice: Choice
    gain: float
    energy: float

    def at(self, weight: float) -> float:
        """The objective at a weight."""
        return self.gain - weight * self.energy


def optimal_lines(problem: Problem) -> list[tuple[float, Line]]:
    """Every plan that is optimal in a range of weights, with the weight from which it is.

    By rising weight, the first from 0; a range too narrow for an objective to tell it from a single
    weight is left out. Empty if nothing is feasible.

    Args:
        problem: the program with an energy weight of 0, of a profile with joules.
    """
    first, last = pareto.solve(problem), most_frugal(problem)
    if not first or last is None:
        return []
    left, right = _line(problem, first[0]), _line(problem, last)
    return _without_points([(0.0, left), *_between(problem, left, right)])


def _between(problem: Problem, left: Line, right: Line) -> list[tuple[float, Line]]:
    """(weight from which it is optimal, line) of those right of ``left``, up to ``right``."""
    if left.energy - right.energy <= TOLERANCE * abs(left.energy):
        return []
    # A plan of equal gain and less energy crosses at 0, up to rounding to its left.
    weight = max(0.0, (left.gain - right.gain) / (left.energy - right.energy))
    choice = pareto.solve(_weighted(problem, weight))[0]
    middle = _line(problem, choice)
    room = TOLERANCE * max(1.0, abs(left.gain), weight * abs(left.energy))
    better = middle.at(weight) - max(left.at(weight), right.at(weight)) > room
    if not better or not right.energy < middle.energy < left.energy:
        return [(weight, right)]
    return [*_between(problem, left, middle), *_between(problem, middle, right)]


def most_frugal(problem: Problem) -> Choice | None:
    """The plan of least energy, of those the best without energy; None if nothing is feasible."""
    joules = [candidates.energy_j for candidates in problem.stages]
    least = best_of(problem, joules, alpha=0.0)
    if least is None:
        return None
    penalty = [candidates.penalty for candidates in problem.stages]
    cap_j = _total(joules, least) * (1 + TOLERANCE)
    alpha = problem.settings.alpha
    return best_of(problem, penalty, alpha=alpha, energy_sla_joules=cap_j) or least


def _line(problem: Problem, choice: Choice) -> Line:
    scores = [float(c.accuracy[at]) for c, at in zip(problem.stages, choice, strict=True)]
    penalty = _total([candidates.penalty for candidates in problem.stages], choice)
    energy = _scale(problem) * _total([c.energy_j for c in problem.stages], choice)
    return Line(
        choice, problem.settings.alpha * problem.combined_accuracy(scores) - penalty, energy
    )


def _weighted(problem: Problem, weight: float) -> Problem:
    stages = tuple(
        dataclasses.replace(c, penalty=c.penalty + weight * _scale(problem) * c.energy_j)
        for c in problem.stages
    )
    return dataclasses.replace(problem, stages=stages)


def _scale(problem: Problem) -> float:
    return problem.load_rps if problem.settings.energy_metric == "watts" else 1.0


def _total(columns: list[Floats], choice: Choice) -> float:
    return sum(float(column[at]) for column, at in zip(columns, choice, strict=True))


def _without_points(lines: list[tuple[float, Line]]) -> list[tuple[float, Line]]:
    """Without the lines whose range is a single weight, up to rounding."""
    ends = [weight for weight, _ in lines[1:]] + [math.inf]
    kept: list[tuple[float, Line]] = []
    for (start, line), end in zip(lines, ends, strict=True):
        room = TOLERANCE * max(1.0, abs(line.gain), start * abs(line.energy))
        if (end - start) * max(abs(line.energy), TOLERANCE) > room:
            kept.append((start if kept else 0.0, line))
    return kept
