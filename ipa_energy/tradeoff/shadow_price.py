"""What an SLA costs: where moving it changes the plan, and what that is worth.

The best objective V(s) over the value s of one SLA, all else fixed, is a staircase: it rises where
s lets a better plan in and is level between. Its slope is 0 or infinite, so the price is given to
the next step on either side: where it is, what the objective and the joules change by, and both
per unit of the way there. Steps are found exactly: each question to the solver, the best plan under
an SLA of s, is answered by a plan, and the step that plan makes is where its own latency or energy
lies; a step is the next one when the best plan just below it is no better than the one before.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from ipa_energy.as_json import or_none
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.problem import CONSTRAINT_RTOL, Problem
from ipa_energy.optimizer.solution import EQUAL_OBJECTIVE_RTOL, Choice
from ipa_energy.tradeoff.plan_figures import PlanFigures, figures_of, joules, latency_s, objective

Sla = Literal["latency_sla_s", "energy_sla_joules"]
SLAS: tuple[Sla, ...] = ("latency_sla_s", "energy_sla_joules")

_BELOW = 1 - 10 * CONSTRAINT_RTOL
"""Times a plan's figure: an SLA that the plan just breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The next step of an SLA on one side.

    Attributes:
        limit: where it is. Relaxed, the plan changes at this value; tightened, below it.
        plan: the best plan then; None if nothing is feasible any more.
        objective_change: of the best objective; NaN if nothing is feasible.
        joules_change: of the joules per request; NaN if unknown or nothing is feasible.
        distance: from the SLA's value to ``limit``; NaN if the SLA is not set.
    """

    limit: float
    plan: PlanFigures | None
    objective_change: float
    joules_change: float
    distance: float

    @property
    def objective_per_unit(self) -> float:
        """Objective per second or joule of the way; NaN if there is no way to go."""
        return self.objective_change / self.distance if self.distance > 0 else math.nan

    @property
    def joules_per_unit(self) -> float:
        """Joules per request likewise."""
        return self.joules_change / self.distance if self.distance > 0 else math.nan

    def to_json(self) -> dict[str, Any]:
        """The step as ``tradeoff --json`` shows it."""
        return {
            "limit": self.limit,
            "plan": self.plan.to_json() if self.plan else None,
            "objective_change": or_none(self.objective_change),
            "joules_change": or_none(self.joules_change),
            "distance": or_none(self.distance),
            "objective_per_unit": or_none(self.objective_per_unit),
            "joules_per_unit": or_none(self.joules_per_unit),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPrice:
    """What one SLA costs at the chosen plan.

    Attributes:
        sla: its YAML key.
        limit: its value; None if it is not set.
        used: what the chosen plan has; NaN without energy in the profile.
        relaxed: the next step up; None if the SLA is not binding: no value buys a better plan.
        tightened: the next step down; None without energy in the profile.
        reason: why there is no price at all; None if there is one.
    """

    sla: Sla
    limit: float | None
    used: float
    relaxed: Move | None
    tightened: Move | None
    reason: str | None = None

    @property
    def is_binding(self) -> bool:
        """True if a looser SLA would buy a better objective."""
        return self.relaxed is not None

    def to_json(self) -> dict[str, Any]:
        """The price as ``tradeoff --json`` shows it."""
        return {
            "sla": self.sla,
            "limit": self.limit,
            "used": or_none(self.used),
            "is_binding": self.is_binding,
            "relaxed": self.relaxed.to_json() if self.relaxed else None,
            "tightened": self.tightened.to_json() if self.tightened else None,
            "reason": self.reason,
        }


def shadow_price(problem: Problem, sla: Sla, choice: Choice) -> ShadowPrice:
    """The price of one SLA.

    Args:
        problem: the program at one load.
        sla: which of the two.
        choice: an optimal plan of it.
    """
    return _Staircase(problem, sla, choice).price()


class _Staircase:
    """V(s) of one SLA around its value."""

    def __init__(self, problem: Problem, sla: Sla, choice: Choice) -> None:
        self._problem, self._sla, self._choice = problem, sla, choice
        self._limit: float | None = getattr(problem.settings, sla)
        self._worth = objective(problem, choice)
        self._room = EQUAL_OBJECTIVE_RTOL * max(1.0, abs(self._worth))

    def price(self) -> ShadowPrice:
        """Both steps."""
        used = self._used(self._choice)
        if math.isnan(used):
            return ShadowPrice(
                sla=self._sla,
                limit=self._limit,
                used=used,
                relaxed=None,
                tightened=None,
                reason="the profile has no joules",
            )
        return ShadowPrice(
            sla=self._sla,
            limit=self._limit,
            used=used,
            relaxed=self._relaxed(),
            tightened=self._tightened(),
        )

    def _relaxed(self) -> Move | None:
        if self._limit is None:
            return None
        better = self._least_use(self._worth + self._room, self._limit)
        return None if better is None else self._move(self._used(better), better)

    def _tightened(self) -> Move:
        last = self._least_use(self._worth - self._room, 0.0) or self._choice
        step = self._used(last)
        return self._move(step, self._best(step * _BELOW))

    def _least_use(self, target: float, low: float) -> Choice | None:
        """A plan worth more than ``target`` that uses least; None if there is none.

        Args:
            target: an objective.
            low: a value of the SLA under which no plan is worth more, or 0.
        """
        choice = self._above(target, None)
        if choice is None:
            return None
        high = self._used(choice)
        while True:
            below = self._above(target, high * _BELOW)
            if below is None or self._used(below) >= high:
                return choice
            choice, high = below, self._used(below)
            middle = (low + high) / 2
            halfway = self._above(target, middle)
            if halfway is None:
                low = middle
            else:
                choice, high = halfway, self._used(halfway)

    def _above(self, target: float, limit: float | None) -> Choice | None:
        best = self._best(limit)
        return best if best is not None and objective(self._problem, best) > target else None

    def _best(self, limit: float | None) -> Choice | None:
        settings = dataclasses.replace(
            self._problem.settings,
            **{self._sla: limit},  # type: ignore[arg-type]
        )
        found = pareto.solve(dataclasses.replace(self._problem, settings=settings))
        return found[0] if found else None

    def _used(self, choice: Choice) -> float:
        measure = latency_s if self._sla == "latency_sla_s" else joules
        return measure(self._problem, choice)

    def _move(self, limit: float, choice: Choice | None) -> Move:
        gone, saved = math.nan, math.nan
        if choice is not None:
            gone = objective(self._problem, choice) - self._worth
            saved = joules(self._problem, choice) - joules(self._problem, self._choice)
        return Move(
            limit=limit,
            plan=None if choice is None else figures_of(self._problem, choice),
            objective_change=gone,
            joules_change=saved,
            distance=math.nan if self._limit is None else max(0.0, abs(limit - self._limit)),
        )
