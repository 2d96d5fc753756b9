"""One door to all solvers: a timed decision, its plans certified, or why there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ipa_energy.errors import ConfigError, InfeasibleError, IpaEnergyError
from ipa_energy.optimizer.conflict import Conflict, find_conflict
from ipa_energy.optimizer.deadline import Bounded, Deadline, gap_of
from ipa_energy.optimizer.mix_conflict import find_mix_conflict
from ipa_energy.optimizer.mix_solving import solve_mixed
from ipa_energy.optimizer.mixing import mixer_of
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Choice, Plan
from ipa_energy.optimizer.plan_building import build_mix, build_plan
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.ties import Solver, ordered, settled, with_ties
from ipa_energy.registries import SOLVERS, named

Status = Literal["optimal", "feasible", "infeasible", "unknown"]

DEFAULT_METHOD = "pareto"

ASKED_AGAIN = ("pareto", "brute-force")
"""Methods that look for ties themselves."""

NOT_ASKED_AGAIN = ("gurobi", "highs")
"""Methods whose ties ``pareto`` looks for."""

TIES_COMBINATIONS = 10**7
"""Up to so many, ``pareto`` also looks for ties of what another method found before a deadline."""


@dataclass(frozen=True, slots=True)
class Result:
    """A solver's answer.

    Attributes:
        status: ``optimal``; ``feasible`` if the solver stopped before the proof; ``infeasible``;
            ``unknown`` if it stopped before it had found a plan, or that there is none.
        method: name of the solver.
        load_rps: the load planned for.
        plans: best first, as many as were asked for and exist; empty if infeasible.
        decision_s: wall time of the decision, problem built to plans checked.
        conflict: why there is no plan; None if there is one.
        limit_s: the time that the decision had; None: as much as it took.
        bound: no plan has a better objective: that of the best plan if it is proven; NaN without a
            plan.
    """

    status: Status
    method: str
    load_rps: float
    plans: tuple[Plan, ...]
    decision_s: float
    conflict: Conflict | None
    limit_s: float | None = None
    bound: float = math.nan

    @property
    def gap(self) -> float:
        """How much better the best plan may be, as a share of the objective; NaN without a plan."""
        return gap_of(self.bound, self.plans[0].objective) if self.plans else math.nan

    @property
    def best(self) -> Plan:
        """The best plan.

        Raises:
            InfeasibleError: there is none.
        """
        if not self.plans:
            why = self.conflict or "no plan was found in time, nor that there is none"
            raise InfeasibleError(f"at {self.load_rps:g} rps {why}")
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
        limited: dict[str, Any] = {}
        if self.limit_s is not None:
            limited = {"decision_limit_s": self.limit_s, "bound": self.bound, "gap": self.gap}
        return {
            "status": self.status,
            "method": self.method,
            "load_rps": self.load_rps,
            "decision_s": self.decision_s,
            **limited,
            "plans": self.plans,
            "conflict": self.conflict,
        }


def solve(
    problem: Problem,
    method: str = DEFAULT_METHOD,
    top_k: int = 1,
    limit_s: float | None = None,
) -> Result:
    """The ``top_k`` best plans of ``problem``, or the conflict that leaves none.

    ``decision_s`` of the result runs from here to the checked plans; the search for a conflict is
    not counted in it. With ``limit_s`` the solver stops after so many seconds with the best it has,
    and the search for a conflict after as many again.

    Raises:
        ConfigError: unknown method, ``top_k`` below 1, or a program too large for brute-force.
        UnavailableError: the method's library is missing.
        LicenceError: the method's licence is missing or too small.
    """
    solver = prepared(method, problem.settings)
    start = time.perf_counter()
    return _timed(problem, solver, method, top_k, limit_s=limit_s, start=start)


def decide(
    program: Program,
    load_rps: Moment | float,
    method: str = DEFAULT_METHOD,
    top_k: int = 1,
    limit_s: float | None = None,
    *,
    only_equal: bool = False,
) -> Result:
    """:func:`solve` at a load or moment; building the problem counts as part of the decision.

    With ``only_equal`` the plans are those of :attr:`Result.equally_good`.

    Raises:
        ConfigError: as :func:`solve`, or a load that is not a positive finite number.
    """
    solver = prepared(method, program.settings)
    start = time.perf_counter()
    problem = program.at(load_rps)
    asked = (method, top_k, only_equal)
    return _timed(problem, solver, *asked, limit_s=limit_s, start=start)


def prepared(method: str, settings: Settings) -> Solver:
    """The solver of a name, with all imported that its first decision needs.

    Imports are no part of a decision: whoever times one calls this before.

    Raises:
        ConfigError: unknown method.
        UnavailableError: its library is missing.
        LicenceError: its licence is missing.
    """
    solver: Solver = named(SOLVERS, method, kind="method", where="method")
    prepare = getattr(solver, "prepare", None)
    if prepare is not None:
        prepare(settings)
    if settings.gpus:  # which :mod:`.pools` cuts by scipy
        import scipy.optimize  # noqa: F401
    return solver


def _settled(problem: Problem, solver: Solver, method: str, top_k: int) -> list[Choice]:
    """The choices by the order of :mod:`.ties`, whatever the method."""
    if method in ASKED_AGAIN:
        return settled(problem, solver, top_k)
    found = solver(problem, top_k)
    if method in NOT_ASKED_AGAIN:  # each further plan is a program to solve
        return with_ties(problem, found, top_k)
    return ordered(problem, found)


def _timed(
    problem: Problem,
    solver: Solver,
    method: str,
    top_k: int,
    only_equal: bool = False,
    *,
    limit_s: float | None,
    start: float,
) -> Result:
    if top_k < 1:
        raise ConfigError(f"{top_k} plans asked for", where="top_k", allowed="1 or more")
    if problem.settings.mix:  # the next best mixes differ from the best as little as one likes
        plans, bound = _mix_of(problem, solver, method, limit_s=limit_s, start=start)
    else:
        asked = (method, top_k, only_equal)
        plans, bound = _plans_of(problem, solver, *asked, limit_s=limit_s, start=start)
    decision_s = time.perf_counter() - start
    status = _status(plans, bound)
    conflict = None
    if status == "infeasible":
        why = find_mix_conflict if problem.settings.mix else find_conflict
        conflict = why(problem, None if limit_s is None else Deadline.after(limit_s))
    if bound is None and plans:
        bound = plans[0].objective
    return Result(
        status=status,
        method=method,
        load_rps=problem.load_rps,
        plans=plans,
        decision_s=decision_s,
        conflict=conflict,
        limit_s=limit_s,
        bound=math.nan if bound is None or not plans else bound,
    )


Found = tuple[tuple[Plan, ...], float | None]
"""Checked plans, and what no plan is better than; None: nothing was left open."""


def _plans_of(
    problem: Problem,
    solver: Solver,
    method: str,
    top_k: int,
    only_equal: bool,
    *,
    limit_s: float | None,
    start: float,
) -> Found:
    """The best plans of one option a stage."""
    within = getattr(solver, "within", None)
    bound = None
    if limit_s is None or within is None:
        choices = _settled(problem, solver, method, top_k)
    else:
        bounded = within(problem, top_k, Deadline(start + limit_s))
        choices, bound = _ordered_in_time(problem, bounded, method, top_k), bounded.bound
    if only_equal:  # a plan takes longer to build than to find
        choices = _equal(problem, choices)
    return checked_plans(problem, choices, method), bound


def _equal(problem: Problem, choices: Sequence[Choice]) -> list[Choice]:
    """Those that may be as good as the first; their plans say to the last bit which are."""
    if not choices:
        return []
    best = problem.worth(choices[0])
    room = 2 * EQUAL_OBJECTIVE_RTOL * max(1.0, abs(best))
    return [choice for choice in choices if best - problem.worth(choice) <= room]


def _mix_of(
    problem: Problem, solver: Solver, method: str, *, limit_s: float | None, start: float
) -> Found:
    """The best mix."""
    make = mixer_of(solver, method)
    found = solve_mixed(make, problem, None if limit_s is None else Deadline(start + limit_s))
    plans = () if found.parts is None else _checked([build_mix(problem, found.parts)], method)
    if found.finished:
        return plans, None
    return plans, max(found.bound, plans[0].objective) if plans else found.bound


def _status(plans: Sequence[Plan], bound: float | None) -> Status:
    """What these plans are, given a bound on all; None: nothing was left open."""
    if not plans:
        return "infeasible" if bound in (None, -math.inf) else "unknown"
    return "optimal" if bound is None or gap_of(bound, plans[0].objective) == 0 else "feasible"


def _ordered_in_time(problem: Problem, bounded: Bounded, method: str, top_k: int) -> list[Choice]:
    """What was found by the order of :mod:`.ties`, with the ties that take no time to find."""
    found = bounded.choices
    combinations = math.prod(len(candidates) for candidates in problem.stages)
    if found and method in NOT_ASKED_AGAIN and combinations <= TIES_COMBINATIONS:
        return with_ties(problem, found, top_k)
    return ordered(problem, found)[:top_k]


def checked_plans(problem: Problem, choices: Sequence[Choice], method: str) -> tuple[Plan, ...]:
    """The plans of a solver's choices, refusing any that breaks a constraint.

    Raises:
        IpaEnergyError: a solver returned an infeasible choice, which is a defect of that solver.
    """
    return _checked([build_plan(problem, choice) for choice in choices], method)


def _checked(plans: Sequence[Plan], method: str) -> tuple[Plan, ...]:
    for plan in plans:
        if not plan.certificate.holds:
            broken = [check for check in plan.certificate.checks if not check.holds]
            raise IpaEnergyError(f"{method} returned a plan that breaks {broken}: {plan.label}")
    return tuple(plans)
