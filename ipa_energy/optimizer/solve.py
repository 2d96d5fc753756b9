"""One door to all solvers: a timed decision, its plans certified, or why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable

from ipa_energy.errors import ConfigError
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.plan import Choice, Result, checked_plans
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.ties import ordered, settled, with_ties
from ipa_energy.registries import SOLVERS, named

Solver = Callable[[Problem, int], list[Choice]]

DEFAULT_METHOD = "pareto"

ASKED_AGAIN = ("pareto", "brute-force")
"""Methods that look for ties themselves."""

NOT_ASKED_AGAIN = ("gurobi", "highs")
"""Methods whose ties ``pareto`` looks for."""


def solve(problem: Problem, method: str = DEFAULT_METHOD, top_k: int = 1) -> Result:
    """The ``top_k`` best plans of ``problem``, or the conflict that leaves none.

    ``decision_s`` of the result runs from here to the checked plans; the search for a conflict is
    not counted in it.

    Raises:
        ConfigError: unknown method, ``top_k`` below 1, or a program too large for brute-force.
        UnavailableError: the method's library is missing.
        LicenceError: the method's licence is missing or too small.
    """
    solver = _solver(method)
    return _timed(problem, solver, method, top_k, time.perf_counter())


def decide(
    program: Program, load_rps: Moment | float, method: str = DEFAULT_METHOD, top_k: int = 1
) -> Result:
    """:func:`solve` at a load or moment; building the problem counts as part of the decision.

    Raises:
        ConfigError: as :func:`solve`, or a load that is not a positive finite number.
    """
    solver = _solver(method)  # its import is no part of a decision
    start = time.perf_counter()
    return _timed(program.at(load_rps), solver, method, top_k, start)


def _solver(method: str) -> Solver:
    solver: Solver = named(SOLVERS, method, kind="method", where="method")
    return solver


def _settled(problem: Problem, solver: Solver, method: str, top_k: int) -> list[Choice]:
    """The choices by the order of :mod:`.ties`, whatever the method."""
    if method in ASKED_AGAIN:
        return settled(problem, solver, top_k)
    found = solver(problem, top_k)
    if method in NOT_ASKED_AGAIN:  # each further plan is a program to solve
        return with_ties(problem, found, pareto.solve, top_k)
    return ordered(problem, found)


def _timed(problem: Problem, solver: Solver, method: str, top_k: int, start: float) -> Result:
    if top_k < 1:
        raise ConfigError(f"{top_k} plans asked for", where="top_k", allowed="1 or more")
    plans = checked_plans(problem, _settled(problem, solver, method, top_k), method)
    decision_s = time.perf_counter() - start
    return Result(
        status="optimal" if plans else "infeasible",
        method=method,
        load_rps=problem.load_rps,
        plans=plans,
        decision_s=decision_s,
        conflict=None if plans else find_conflict(problem),
    )
