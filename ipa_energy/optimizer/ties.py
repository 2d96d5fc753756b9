"""Which of equally good plans is taken: one order for all solvers and all studies.

The order is that of :mod:`.problem`: the objective, equal up to rounding (1e-12); then least joules
per request, where they are known; then least latency; then the first in the profile. A running
system puts the fewest changes before the joules (:mod:`ipa_energy.adaptation.loop`).

A solver that returns its K best returns any of those that tie with the last of them, so it is asked
for one more, and for more again while that one ties.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ipa_energy.energy import joules_per_request
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Choice
from ipa_energy.optimizer.problem import Candidates, Problem

Solver = Callable[[Problem, int], list[Choice]]

_MOST_ASKED = 512
"""Beyond so many, ties are settled among those that are known."""

TIE_RTOL = 1e-12
"""Objectives that differ by less are equal but for the rounding of their sums."""

_DIGITS = 10
"""Of joules and seconds that count: rounding must not choose."""


def settled(problem: Problem, solver: Solver, top_k: int = 1) -> list[Choice]:
    """The ``top_k`` best choices of a solver, by the one order."""
    tied = None
    if solver is pareto.solve:
        tied = pareto.solve_with_ties(problem, top_k, _MOST_ASKED)
    if tied is None:
        tied = _by_and_by(problem, solver, top_k)
    return tied if len(tied) == 1 else ordered(problem, tied)[:top_k]


def with_ties(problem: Problem, found: Sequence[Choice], top_k: int = 1) -> list[Choice]:
    """The ``top_k`` best of ``found`` and of what ties with them by ``pareto``, which is quick."""
    if not found:
        return []
    if problem.settings.gpus:  # which pareto does not know of
        return ordered(problem, found)[:top_k]
    count, reached = len(found), min(problem.worth(choice) for choice in found)
    others = pareto.solve_with_ties(problem, count, _MOST_ASKED, reached)
    if others is None:
        others = _by_and_by(problem, pareto.solve, count)
    if others == found and count == 1:
        return others
    near = EQUAL_OBJECTIVE_RTOL  # a solver's tolerance
    tied = [one for one in others if any(_ties(problem, one, known, near) for known in found)]
    return ordered(problem, list(dict.fromkeys([*found, *tied])))[:top_k]


def _by_and_by(problem: Problem, solver: Solver, top_k: int) -> list[Choice]:
    """The ``top_k`` best choices and what ties with the last of them: more, while that one ties."""
    asked = top_k + 1
    while True:
        if solver is pareto.solve:  # those after top_k matter only where they tie
            found = pareto.solve(problem, asked, top_k)
        else:
            found = solver(problem, asked)
        full = len(found) == asked < _MOST_ASKED
        if not (full and _ties(problem, found[top_k - 1], found[-1])):
            return found
        asked *= 4


def ordered(problem: Problem, choices: Sequence[Choice]) -> list[Choice]:
    """Choices by the one order, best first."""
    left = sorted(choices, key=problem.worth, reverse=True)
    found: list[Choice] = []
    while left:
        count = next((n for n, one in enumerate(left) if not _ties(problem, left[0], one)), None)
        found += sorted(left[:count], key=lambda choice: _preference(problem, choice))
        left = [] if count is None else left[count:]
    return found


def _ties(problem: Problem, one: Choice, other: Choice, rtol: float = TIE_RTOL) -> bool:
    mine, theirs = problem.worth(one), problem.worth(other)
    return abs(mine - theirs) <= rtol * max(1.0, abs(mine))


def _preference(problem: Problem, choice: Choice) -> tuple[float, float, Choice]:
    picked = list(zip(problem.stages, choice, strict=True))
    joules = sum(_mean_j(candidates, at, problem.moment.mean_rps) for candidates, at in picked)
    delay_s = sum(float(candidates.delay_s[at]) for candidates, at in picked)
    # The place in the profile, whatever was left out before it.
    places = tuple(int(candidates.option_index[at]) for candidates, at in picked)
    return (0.0 if math.isnan(joules) else _rounded(joules), _rounded(delay_s), places)


def _mean_j(candidates: Candidates, at: int, load_rps: float) -> float:
    """m·J by the mean of the trials, also where decisions plan with the upper end."""
    stage = candidates.stage
    option = candidates.option(at)
    share, replicas = stage.requests_per_input, float(candidates.replicas[at])
    dynamic_j, idle_w = option.dynamic_energy_j, option.idle_power_w
    return float(share * joules_per_request(dynamic_j, idle_w, replicas, share * load_rps))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
