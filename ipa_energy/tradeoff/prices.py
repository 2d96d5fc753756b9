"""Prices: joules for accuracy, latency or cores given up, and what moving an SLA buys.

Exchange rates. For a reference plan and one of the three, the question is: of all plans that are no
worse than the reference in the other two, and worse in this one by at most a given amount, how many
joules does the most frugal one save? The exact front holds, for each feasible plan, one that is at
least as good in all four, so the answer over the front is the answer over all plans. What a frugal
plan saves without giving up anything is told apart: it is no price of anything. Choices are
discrete, so the amount asked for may buy nothing: the least amount that does, and the largest
saving with its least amount, are therefore given as well.

Shadow prices. The best objective V(s) over the value s of one SLA, all else fixed, is a staircase:
it rises where s lets a better plan in and is level between. Its slope is 0 or infinite, so the
price is given to the next step on either side: where it is, what the objective and the joules
change by, and both per unit of the way there. Steps are found exactly: each question to the solver,
the best plan under an SLA of s, is answered by a plan, and the step that plan makes is where its
own latency or energy lies; a step is the next one when the best plan just below it is no better
than the one before.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats
from ipa_energy.as_json import fields_of
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.front import Front, thin
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Choice
from ipa_energy.optimizer.problem import CONSTRAINT_RTOL, Problem
from ipa_energy.optimizer.settings import Cap
from ipa_energy.tradeoff.correlation import ENERGY
from ipa_energy.tradeoff.plan_space import PlanFigures, amount, figures_of, joules

Given = Literal["accuracy", "latency_s", "cost_cores"]

ACCURACY_SHARE = 0.01
"""Given up of accuracy: this share of the reference's own."""

LATENCY_S = 0.05
CORES = 1.0
POINTS_ALONG = 200
"""Most points of the front that serve as references."""

_EQUAL_RTOL = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A plan that gives something up.

    Attributes:
        given_up: how much, in the unit of what is given up; at most what was offered.
        saved_j: joules per request below the reference.
        label: what the plan runs.
        latency_s: of the plan; above the SLA it needs a looser one.
    """

    given_up: float
    saved_j: float
    label: str
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Joules for one of the three.

    Attributes:
        given: ``accuracy``, ``latency_s`` or ``cost_cores``.
        amount: most that may be given up: accuracy, seconds or cores.
        bought: the most frugal plan for that; None if it saves no more than giving up nothing.
        first: the plan of the least amount, however large, that saves more than giving up nothing;
            None if none does.
        most: the most frugal plan for any amount; None likewise. Latency never rises by more than
            the amount above its SLA.
    """

    given: Given
    amount: float
    bought: Offer | None
    first: Offer | None
    most: Offer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlongFront:
    """The same exchange with points of the front as references.

    Attributes:
        given: what is given up; the amounts are those of :class:`Exchange`.
        points: how many references.
        with_saving: at how many of them it saves anything.
        median_j, most_j: of the joules per request saved at those; NaN for none.
        most_from: label of the reference where it saves most; None for none.
    """

    given: Given
    points: int
    with_saving: int
    median_j: float
    most_j: float
    most_from: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanges:
    """What joules cost in the other objectives.

    Attributes:
        free: the most frugal plan that is worse in nothing; None if the reference is it.
        at_plan: from the reference, one each of accuracy, latency and cores.
        along_front: likewise, from points all over the front.
    """

    free: Offer | None
    at_plan: tuple[Exchange, ...]
    along_front: tuple[AlongFront, ...]


def exchanges_of(front: Front, inside: Front, reference: PlanFigures) -> Exchanges:
    """The exchanges from a plan and along the front.

    Args:
        front: whole front with joules, of a latency SLA looser by :data:`LATENCY_S` than it is;
            accuracies as in ``reference``.
        inside: the points of ``front`` that keep the SLAs as they are.
        reference: the chosen plan.
    """
    prices = _Prices(front)
    at = np.array([-reference.accuracy, reference.latency_s, reference.cost_cores])
    spent = reference.joules_per_request
    nothing = prices.cheapest(prices.worse_by(at) <= prices.room)
    free = prices.offer(nothing, spent, 0.0)
    floor = spent - (free.saved_j if free else 0.0)
    return Exchanges(
        free=free,
        at_plan=tuple(prices.exchange(given, at, spent, floor) for given in _GIVEN),
        along_front=tuple(_along(prices, thin(inside, POINTS_ALONG), given) for given in _GIVEN),
    )


_GIVEN: tuple[Given, ...] = ("accuracy", "latency_s", "cost_cores")


def _amount_of(given: Given, at: Floats) -> float:
    """:data:`ACCURACY_SHARE` of the accuracy, :data:`LATENCY_S` or :data:`CORES`."""
    if given == "accuracy":
        return ACCURACY_SHARE * abs(float(at[0]))
    return LATENCY_S if given == "latency_s" else CORES


def _losses(front: Front) -> Floats:
    """(F, 3) in the order of :data:`_GIVEN`, less is better."""
    return np.stack([-front.accuracy, front.latency_s, front.cost_cores], axis=1)


class _Prices:
    """A front as losses in the order of :data:`_GIVEN`, with the joules that go with them."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._losses = _losses(front)
        self.joules = front.joules_per_request
        self.room = _EQUAL_RTOL * np.maximum(np.abs(self._losses).max(axis=0), 1e-300)
        self.joules_room = _EQUAL_RTOL * float(np.abs(self.joules).max())

    def worse_by(self, at: Floats) -> Floats:
        """(F, 3) how much worse each point is than a reference with these losses."""
        return np.asarray(self._losses - at)

    def cheapest(self, allowed: npt.NDArray[np.bool_]) -> int | None:
        """The point of least joules among those allowed in all three columns."""
        rows = np.flatnonzero(allowed.all(axis=1))
        return int(rows[np.argmin(self.joules[rows])]) if len(rows) else None

    def offer(self, index: int | None, spent: float, given_up: float) -> Offer | None:
        """A point as an offer; None if it saves nothing."""
        if index is None or spent - float(self.joules[index]) <= self.joules_room:
            return None
        return Offer(
            given_up=max(0.0, given_up),
            saved_j=spent - float(self.joules[index]),
            label=self._front.plan(index).label,
            latency_s=float(self._front.latency_s[index]),
        )

    def exchange(self, given: Given, at: Floats, spent: float, floor: float) -> Exchange:
        """From one reference of ``spent`` joules, of which all above ``floor`` are free to save."""
        column = _GIVEN.index(given)
        worse = self.worse_by(at)
        others = worse <= self.room
        others[:, column] = True
        amount = _amount_of(given, at)
        cheaper = np.flatnonzero(others.all(axis=1) & (self.joules < floor - self.joules_room))
        by_amount = cheaper[np.lexsort((self.joules[cheaper], worse[cheaper, column]))]
        by_joules = cheaper[np.lexsort((worse[cheaper, column], self.joules[cheaper]))]
        bought = by_joules[worse[by_joules, column] <= amount + self.room[column]]

        def head(rows: npt.NDArray[np.intp]) -> Offer | None:
            if not len(rows):
                return None
            return self.offer(int(rows[0]), spent, float(worse[rows[0], column]))

        return Exchange(
            given=given,
            amount=amount,
            bought=head(bought),
            first=head(by_amount),
            most=head(by_joules),
        )

    def saved(self, given: Given, at: Floats, spent: float) -> float:
        """Joules saved for the amount from a reference of ``spent`` joules."""
        column = _GIVEN.index(given)
        limit = self.room.copy()
        limit[column] += _amount_of(given, at)
        allowed = (self.worse_by(at) <= limit).all(axis=1)
        least = float(self.joules[allowed].min()) if allowed.any() else spent
        return spent - least if spent - least > self.joules_room else 0.0


def _along(prices: _Prices, references: Front, given: Given) -> AlongFront:
    spent_j = references.joules_per_request.tolist()
    pairs = zip(_losses(references), spent_j, strict=True)
    saved = np.array([prices.saved(given, at, spent) for at, spent in pairs])
    found = saved[saved > 0]
    return AlongFront(
        given=given,
        points=len(references),
        with_saving=len(found),
        median_j=float(np.median(found)) if len(found) else math.nan,
        most_j=float(found.max()) if len(found) else math.nan,
        most_from=references.plan(int(np.argmax(saved))).label if len(found) else None,
    )


SLAS = {"latency_sla_s": ("latency_s", "s"), "energy_sla_joules": (ENERGY, "J")}
"""Caps that have a price whether they are set or not, with quantity and unit."""

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
            **fields_of(self),
            "objective_per_unit": self.objective_per_unit,
            "joules_per_unit": self.joules_per_unit,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPrice:
    """What one SLA costs at the chosen plan.

    Attributes:
        sla: name of the cap: the YAML's key.
        unit: of its quantity.
        limit: its value, as the key has it; None if it is not set.
        used: what the chosen plan has; NaN without energy in the profile.
        relaxed: the next step up; None if the SLA is not binding: no value buys a better plan.
        tightened: the next step down; None without energy in the profile.
        reason: why there is no price at all; None if there is one.
        is_floor: True if more is tighter.
    """

    sla: str
    limit: float | None
    used: float
    relaxed: Move | None
    tightened: Move | None
    reason: str | None = None
    unit: str = ""
    is_floor: bool = False

    @property
    def is_binding(self) -> bool:
        """True if a looser SLA would buy a better objective."""
        return self.relaxed is not None

    def to_json(self) -> dict[str, Any]:
        """The price as ``tradeoff --json`` shows it."""
        return {**fields_of(self), "is_binding": self.is_binding}


def capped(problem: Problem) -> tuple[str, ...]:
    """Everything that has a shadow price: both SLAs, and every other cap that is set."""
    return tuple(dict.fromkeys((*SLAS, *(cap.name for cap in problem.caps))))


def shadow_price(problem: Problem, sla: str, choice: Choice) -> ShadowPrice:
    """The price of one SLA or other cap.

    Args:
        problem: the program at one load.
        sla: its name, one of :func:`capped`.
        choice: an optimal plan of it.
    """
    return _Staircase(problem, sla, choice).price()


class _Staircase:
    """V(s) of one SLA around its value."""

    def __init__(self, problem: Problem, sla: str, choice: Choice) -> None:
        self._problem, self._sla, self._choice = problem, sla, choice
        found = [cap for cap in problem.caps if cap.name == sla]
        self._cap = found[0] if found else Cap(sla, math.inf, *SLAS[sla], noun="an SLA")
        self._limit = found[0].limit if found else None
        self._worth = problem.worth(choice)
        self._room = EQUAL_OBJECTIVE_RTOL * max(1.0, abs(self._worth))

    def price(self) -> ShadowPrice:
        """Both steps."""
        used = self._used(self._choice)
        is_known = not math.isnan(used)
        return ShadowPrice(
            sla=self._sla,
            limit=None if self._limit is None else self._cap.shown(self._limit),
            used=self._cap.shown(used),
            relaxed=self._relaxed() if is_known else None,
            tightened=self._tightened() if is_known else None,
            reason=None if is_known else "the profile has no joules",
            unit=self._cap.unit,
            is_floor=self._cap.floor is not None,
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
        return best if best is not None and self._problem.worth(best) > target else None

    def _best(self, limit: float | None) -> Choice | None:
        others = [cap for cap in self._problem.caps if cap.name != self._sla]
        moved = [] if limit is None else [dataclasses.replace(self._cap, limit=limit)]
        found = pareto.solve(dataclasses.replace(self._problem, caps=(*moved, *others)))
        return found[0] if found else None

    def _used(self, choice: Choice) -> float:
        return amount(self._problem, choice, self._cap.quantity)

    def _move(self, limit: float, choice: Choice | None) -> Move:
        gone, saved = math.nan, math.nan
        if choice is not None:
            gone = self._problem.worth(choice) - self._worth
            saved = joules(self._problem, choice) - joules(self._problem, self._choice)
        shown, told = self._cap.shown(limit), self._limit
        return Move(
            limit=shown,
            plan=None if choice is None else figures_of(self._problem, choice),
            objective_change=gone,
            joules_change=saved,
            distance=math.nan if told is None else abs(shown - self._cap.shown(told)),
        )
