"""What giving something up saves: joules per request for accuracy, latency or cores.

For a reference plan and one of the three, the question is: of all plans that are no worse than the
reference in the other two, and worse in this one by at most a given amount, how many joules does
the most frugal one save? The exact front holds, for each feasible plan, one that is at least as
good in all four, so the answer over the front is the answer over all plans.

What a frugal plan saves without giving up anything is told apart: it is no price of anything.
Choices are discrete, so the amount asked for may buy nothing. The least amount that does buy
something, and the largest saving with its least amount, are therefore given as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats
from ipa_energy.optimizer.front import Front, thin
from ipa_energy.tradeoff.plan_figures import PlanFigures

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

    def to_json(self) -> dict[str, Any]:
        """The offer as ``tradeoff --json`` shows it."""
        return {
            "given_up": self.given_up,
            "saved_j": self.saved_j,
            "label": self.label,
            "latency_s": self.latency_s,
        }


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

    def to_json(self) -> dict[str, Any]:
        """The exchange as ``tradeoff --json`` shows it."""
        return {
            "given": self.given,
            "amount": self.amount,
            "bought": self.bought.to_json() if self.bought else None,
            "first": self.first.to_json() if self.first else None,
            "most": self.most.to_json() if self.most else None,
        }


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

    def to_json(self) -> dict[str, Any]:
        """The summary as ``tradeoff --json`` shows it."""
        return {
            "given": self.given,
            "points": self.points,
            "with_saving": self.with_saving,
            "median_j": None if math.isnan(self.median_j) else self.median_j,
            "most_j": None if math.isnan(self.most_j) else self.most_j,
            "most_from": self.most_from,
        }


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

    def to_json(self) -> dict[str, Any]:
        """The exchanges as ``tradeoff --json`` shows them."""
        return {
            "free": self.free.to_json() if self.free else None,
            "at_plan": [exchange.to_json() for exchange in self.at_plan],
            "along_front": [summary.to_json() for summary in self.along_front],
        }


def exchanges_of(front: Front, inside: Front, reference: PlanFigures) -> Exchanges:
    """The exchanges from a plan and along the front.

    Args:
        front: whole front with joules, of a latency SLA looser by :data:`LATENCY_S` than it is;
            accuracies as in ``reference``.
        inside: the points of ``front`` that keep the SLAs as they are.
        reference: the chosen plan.
    """
    prices = _Prices(front)
    at = {
        "accuracy": reference.accuracy,
        "latency_s": reference.latency_s,
        "cost_cores": reference.cost_cores,
    }
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


def amount_of(given: Given, at: dict[str, float]) -> float:
    """:data:`ACCURACY_SHARE` of the accuracy, :data:`LATENCY_S` or :data:`CORES`."""
    if given == "accuracy":
        return ACCURACY_SHARE * abs(at["accuracy"])
    return LATENCY_S if given == "latency_s" else CORES


class _Prices:
    """A front as losses in the order of :data:`_GIVEN`, with the joules that go with them."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._losses = np.stack([-front.accuracy, front.latency_s, front.cost_cores], axis=1)
        self.joules = front.joules_per_request
        self.room = _EQUAL_RTOL * np.maximum(np.abs(self._losses).max(axis=0), 1e-300)
        self.joules_room = _EQUAL_RTOL * float(np.abs(self.joules).max())

    def worse_by(self, at: dict[str, float]) -> Floats:
        """(F, 3) how much worse each point is than a reference."""
        reference = np.array([-at["accuracy"], at["latency_s"], at["cost_cores"]])
        return np.asarray(self._losses - reference)

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

    def exchange(self, given: Given, at: dict[str, float], spent: float, floor: float) -> Exchange:
        """From one reference of ``spent`` joules, of which all above ``floor`` are free to save."""
        column = _GIVEN.index(given)
        worse = self.worse_by(at)
        others = worse <= self.room
        others[:, column] = True
        amount = amount_of(given, at)
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

    def saved(self, given: Given, at: dict[str, float], spent: float) -> float:
        """Joules saved for the amount from a reference of ``spent`` joules."""
        column = _GIVEN.index(given)
        limit = self.room.copy()
        limit[column] += amount_of(given, at)
        allowed = (self.worse_by(at) <= limit).all(axis=1)
        least = float(self.joules[allowed].min()) if allowed.any() else spent
        return spent - least if spent - least > self.joules_room else 0.0


def _along(prices: _Prices, references: Front, given: Given) -> AlongFront:
    saved = np.array(
        [
            prices.saved(
                given,
                {"accuracy": accuracy, "latency_s": latency_s, "cost_cores": cores},
                spent,
            )
            for accuracy, latency_s, cores, spent in zip(
                references.accuracy.tolist(),
                references.latency_s.tolist(),
                references.cost_cores.tolist(),
                references.joules_per_request.tolist(),
                strict=True,
            )
        ]
    )
    found = saved[saved > 0]
    return AlongFront(
        given=given,
        points=len(references),
        with_saving=len(found),
        median_j=float(np.median(found)) if len(found) else math.nan,
        most_j=float(found.max()) if len(found) else math.nan,
        most_from=references.plan(int(np.argmax(saved))).label if len(found) else None,
    )
