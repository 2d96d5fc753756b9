r"""The best prices for the SLAs: the Lagrangian dual, solved exactly.

Give every unit of resource *r* a price :math:`u_r ≥ 0` and let the plan buy what it uses. For any
prices the best plan of that *relaxation*, which has no SLAs, is worth at least what the best
feasible plan is: an upper bound. The dual looks for the prices with the least bound::

    min over u ≥ 0 of   max over choices of  [ value − Σ_r u_r·used_r ] + Σ_r u_r·limit_r

It is the linear program over mixtures of choices ("maximise the mean value within the mean SLAs"),
solved by column generation: a simplex basis of at most three columns, each new column the
relaxation's answer to the current prices (Dantzig and Wolfe, 1960). Every price met on the way
gives a valid bound, so numerical trouble can only make a bound weaker, never wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.optimizer.solution import Choice

_MOST_COLUMNS = 60


@dataclass(frozen=True, slots=True)
class Priced:
    """The relaxation's answer to one set of prices.

    Attributes:
        prices: one a resource.
        bound: no feasible plan is worth more.
        value: objective of ``choice``, which may break SLAs.
        used: what ``choice`` uses of each resource.
        choice: candidate of each stage, in the table.
    """

    prices: tuple[float, ...]
    bound: float
    value: float
    used: tuple[float, ...]
    choice: Choice


class Relaxation(Protocol):
    """Maximises value minus priced use, without SLAs."""

    def priced(self, prices: Sequence[float]) -> Priced:
        """The best choice at these prices."""
        ...


def best_prices(
    relaxation: Relaxation, limits: Sequence[float], least: Sequence[float], floor: float
) -> list[Priced]:
    """Every set of prices met on the way to the least bound, least bound first.

    Args:
        relaxation: answers prices.
        limits: what there is of each resource.
        least: the least that any choice uses of each; at most the limit.
        floor: a value below that of every choice; makes a first, fictitious plan.
    """
    count = len(limits)
    seen = [relaxation.priced([0.0] * count)]
    top = seen[0]
    if count == 0 or all(used <= limit for used, limit in zip(top.used, limits, strict=True)):
        return seen
    simplex = _Simplex(limits, least, worst=floor - 1e4 * (top.value - floor))
    entering = top
    for _ in range(_MOST_COLUMNS):
        if not simplex.enter(entering):
            break
        prices = simplex.prices()
        entering = relaxation.priced(prices)
        seen.append(entering)
        if entering.bound <= simplex.value + 1e-10 * max(1.0, abs(simplex.value)):
            break
    return sorted(seen, key=lambda priced: priced.bound)


class _Simplex:
    """Mixtures of choices, one more than resources at most; the room of a resource counts as 1."""

    def __init__(self, limits: Sequence[float], least: Sequence[float], worst: float) -> None:
        self._least = np.array(least)
        room = np.array(limits) - self._least
        self._scale = np.where(room > 0, room, 1.0)
        size = len(room) + 1
        self._weights = np.append(np.where(room > 0, 1.0, 0.0), 1.0)  # of the basic columns
        self._inverse = np.eye(size)
        self._costs = np.zeros(size)  # slacks, then the fictitious plan
        self._costs[-1] = worst

    @property
    def value(self) -> float:
        """Value of the best mixture so far: the dual cannot be less."""
        return float(self._costs @ self._weights)

    def prices(self) -> list[float]:
        """Duals of the resources, after slacks have entered where a dual was negative."""
        for _ in range(8):
            duals = self._costs @ self._inverse
            slack = int(np.argmin(duals[:-1]))
            if duals[slack] >= -1e-12 * max(1.0, float(np.abs(duals).max())):
                break
            unit = np.zeros(len(duals))
            unit[slack] = 1.0
            if not self._pivot(unit, 0.0):
                break
        prices: list[float] = (np.maximum(duals[:-1], 0.0) / self._scale).tolist()
        return prices

    def enter(self, priced: Priced) -> bool:
        """Let a choice into the mixture; False if no basis can take it."""
        column = np.append((np.array(priced.used) - self._least) / self._scale, 1.0)
        return self._pivot(column, priced.value)

    def _pivot(self, column: Floats, cost: float) -> bool:
        direction = self._inverse @ column
        leaves = np.flatnonzero(direction > 1e-11)
        if not len(leaves):
            return False
        ratios = self._weights[leaves] / direction[leaves]
        row = int(leaves[int(np.argmin(ratios))])
        step = float(ratios.min())
        self._weights = np.maximum(self._weights - step * direction, 0.0)
        self._weights[row] = step
        pivot = self._inverse[row] / direction[row]
        self._inverse -= direction[:, None] * pivot
        self._inverse[row] = pivot
        self._costs[row] = cost
        return True
