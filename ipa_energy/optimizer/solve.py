"""One door to all solvers: a timed decision, its plans certified, or why there is none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ipa_energy.errors import ConfigError, InfeasibleError, IpaEnergyError
from ipa_energy.optimizer.conflict import Conflict, find_conflict
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Choice, Plan, build_plan
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.ties import Solver, ordered, settled, with_ties
from ipa_energy.registries import SOLVERS, named

Status = Literal["optimal", "feasible", "infeasible"]

DEFAULT_METHOD = "pareto"

ASKED_AGAIN = ("pareto", "brute-force")
"""Methods that look for ties themselves."""

NOT_ASKED_AGAIN = ("gurobi", "highs")
"""Methods whose ties ``pareto`` looks for."""


@dataclass(frozen=True, slots=True)
class Result:
    """A solver's answer.

    Attributes:
        status: ``optimal``; ``feasible`` if a solver stopped before the proof; ``infeasible``.
        method: name of the solver.
        load_rps: the load planned for.
        plans: best first, as many as were asked for and exist; empty if infeasible.
        decision_s: wall time of the decision, problem built to plans checked.
        conflict: why there is no plan; None if there is one.
    """

    status: Status
    method: str
    load_rps: float
    plans: tuple[Plan, ...]
    decision_s: float
    conflict: Conflict | None

    @property
    def best(self) -> Plan:
        """The best plan.

        Raises:
            InfeasibleError: there is none.
        """
        if not self.plans:
            raise InfeasibleError(f"at {self.load_rps:g} rps {self.conflict}")
        return self.plans[0]

    @property
    def equally_good(self) -> tuple[Plan, ...]:
        """The plans of this result whose objective equals the best one's (1e-9 relative)."""
        if not self.plans:
            return ()
        best = self.plans[0].objective
        room = EQUAL_OBJECTIVE_RTOL * max(1.0, abs(best))
        return tuple(plan for plan in self.plans if best - plan.objective <= room)

    def to_json(self) -> dict[str, Any]:
        """The answer as ``optimize --json`` shows it."""
        return {
            "status": self.status,
            "method": self.method,
            "load_rps": self.load_rps,
            "decision_s": self.decision_s,
            "plans": [plan.to_json() for plan in self.plans],
            "conflict": self.conflict.to_json() if self.conflict else None,
        }


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
        return with_ties(problem, found, top_k)
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


def checked_plans(problem: Problem, choices: Sequence[Choice], method: str) -> tuple[Plan, ...]:
    """The plans of a solver's choices, refusing any that breaks a constraint.

    Raises:
        IpaEnergyError: a solver returned an infeasible choice, which is a defect of that solver.
    """
    plans = tuple(build_plan(problem, choice) for choice in choices)
    for plan in plans:
        if not plan.certificate.holds:
            broken = [check for check in plan.certificate.checks if not check.holds]
            raise IpaEnergyError(f"{method} returned a plan that breaks {broken}: {plan.label}")
    return plans
