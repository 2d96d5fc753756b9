"""``auto``: ``pareto`` first, which real profiles suit; what it leaves open goes to a MIP solver.

Both say what they have found and proven, so the better plan and the lower bound are taken. The
solver is Gurobi where a licence takes the program, else HiGHS; products of accuracies, which these
are bad at, stay with ``pareto``, and GPUs to be cut, which it does not know of, with these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import numpy.typing as npt

from ipa_energy.arrays import Ints
from ipa_energy.errors import IpaEnergyError
from ipa_energy.optimizer import gurobi, highs, pareto
from ipa_energy.optimizer.deadline import Bounded, Deadline, prepared_by, stops_in_time
from ipa_energy.optimizer.linear import LinearProgram, Solver, TimedAnswer
from ipa_energy.optimizer.mixing import mixes
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.ties import ordered

Answer = TypeVar("Answer")

PARETO_SHARE = 0.6
"""Of the time to a deadline."""

FIRST_S = 0.5
"""Seconds that ``pareto`` gets where there is no deadline; then each round has twice as many."""


def solve(problem: Problem, top_k: int = 1) -> list[Choice]:
    """The ``top_k`` best choices, best first; empty if infeasible. Exact, however long it takes."""
    for seconds in _doubling(FIRST_S):
        found = within(problem, top_k, Deadline.after(seconds))
        worth = problem.worth(found.choices[0]) if found.choices else -math.inf
        if found.bound == -math.inf or (found.choices and found.is_proven(worth)):
            return ordered(problem, found.choices)[:top_k]
    raise AssertionError  # the rounds never end


def _doubling(seconds: float) -> Iterator[float]:
    while True:
        yield seconds
        seconds *= 2


def within(problem: Problem, top_k: int, deadline: Deadline) -> Bounded:
    """The best choices found until the deadline, and a bound on all."""
    if problem.settings.gpus:
        return _by_a_solver(problem, deadline, None)
    product = problem.settings.accuracy_method == "multiply"
    first = pareto.within(problem, top_k, deadline if product else deadline.share(PARETO_SHARE))
    worth = problem.worth(first.choices[0]) if first.choices else -math.inf
    if product or first.is_proven(worth) or deadline.left_s == 0:
        return first
    second = _by_a_solver(problem, deadline, first.choices[0] if first.choices else None)
    choices = sorted({*first.choices, *second.choices}, key=problem.worth, reverse=True)[:top_k]
    return Bounded(choices, min(first.bound, second.bound))


def _by_a_solver(problem: Problem, deadline: Deadline, start: Choice | None) -> Bounded:
    for solver in (gurobi, highs):
        try:
            found: Bounded = solver.within(problem, 1, deadline, start)
        except IpaEnergyError:  # not installed, no licence, or one that is too small
            continue
        return found
    return Bounded([], math.inf)


class _Either:
    """A linear program in Gurobi, or in HiGHS where that cannot take it (``linear.Solver``)."""

    def __init__(self, program: LinearProgram) -> None:
        self._program = program
        self._solver: Solver | None = None

    def best(self) -> npt.ArrayLike | None:
        """See :class:`~.linear.Solver`."""
        return self._first(lambda solver: solver.best())

    def best_within(self, seconds: float, start: Ints | None) -> TimedAnswer:
        """See :class:`~.linear.Solver`."""
        return self._first(lambda solver: solver.best_within(seconds, start))

    def exclude(self, binaries: Ints) -> None:
        """See :class:`~.linear.Solver`."""
        if self._solver is not None:
            self._solver.exclude(binaries)

    def close(self) -> None:
        """Free the program."""
        if self._solver is not None:
            self._solver.close()

    def _first(self, ask: Callable[[Solver], Answer]) -> Answer:
        if self._solver is None:
            try:
                self._solver = gurobi.GurobiSolver(self._program)
                return ask(self._solver)
            except IpaEnergyError:  # not installed, no licence, or one that is too small
                self.close()
                self._solver = highs.HighsSolver(self._program)
        return ask(self._solver)


def prepare(settings: Settings) -> None:
    """Get the solver ready that mixes and cut GPUs go to at once; others do without one mostly."""
    if not (settings.mix or settings.gpus):
        return
    for solver in (gurobi, highs):
        with suppress(IpaEnergyError):
            solver.prepare(settings)
            return


stops_in_time(within)(solve)
prepared_by(prepare)(solve)
mixes(_Either)(solve)
