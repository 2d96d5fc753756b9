r"""Upper bounds: at fixed prices every stage's best candidate is found on its own.

A sum of accuracies separates by stage as it is. A product does after its logarithm: on a stretch of
values of ``y = log(product)`` a straight :class:`Line` lies above ``scale·exp(y)``, the chord if
the scale is positive and a tangent if it is negative, and ``y`` is a sum.

The best prices for the caps are those of the Lagrangian dual, solved exactly. Give every unit of
resource *r* a price :math:`u_r ≥ 0` and let the plan buy what it uses. For any prices the best plan
of that *relaxation*, which has no caps, is worth at least what the best feasible plan is: an upper
bound. The dual looks for the prices with the least bound::

    min over u ≥ 0 of   max over choices of  [ value − Σ_r u_r·used_r ] + Σ_r u_r·limit_r

It is the linear program over mixtures of choices ("maximise the mean value within the mean caps"),
solved by column generation: a simplex basis of at most one column more than there are caps, each
new column the relaxation's answer to the current prices (Dantzig and Wolfe, 1960). Every price met
on the way gives a valid bound, so numerical trouble can only make a bound weaker, never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.search import Labels
from ipa_energy.optimizer.table import Table, suffix_factors, suffix_sums

_MOST_COLUMNS = 60
_MOST_CHANGES = 30
_ALL_PRICES = (0.006, -0.006, 0.02, -0.02)
_ONE_PRICE = (0.006, -0.006)
_OVERLAP = 1e-9
"""How far stretches reach into each other, so that rounding loses no plan between them."""


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


@dataclass(frozen=True, slots=True)
class Line:
    """``slope·y + constant``, nowhere below ``scale·exp(y)`` for ``low ≤ y ≤ high``."""

    slope: float
    constant: float
    low: float
    high: float
    highest: float
    """The largest ``scale·exp(y)`` there."""

    @classmethod
    def above(cls, scale: float, low: float, high: float) -> Line:
        """The line for one stretch of y."""
        low, high = low - _OVERLAP, high + _OVERLAP
        if scale > 0:
            slope = scale * math.exp(low) * math.expm1(high - low) / (high - low)
            return cls(
                slope, scale * math.exp(low) - slope * low, low, high, scale * math.exp(high)
            )
        slope = scale * math.exp((low + high) / 2)
        constant = slope * (1 - (low + high) / 2)
        return cls(slope, constant, low, high, scale * math.exp(low))

    @property
    def error(self) -> float:
        """About how far above the curve the line can lie, as a share of the curve."""
        return (self.high - self.low) ** 2 / 8


class Relaxation:
    """Answers prices for a table whose objective is a sum; arrays padded to (S, widest stage)."""

    def __init__(self, table: Table) -> None:
        self._limits = [resource.loose_limit for resource in table.resources]
        self._gain = _padded(table.gain, -np.inf)
        self._use = [_padded(resource.use, 0.0) for resource in table.resources]
        self._stages = np.arange(len(table))

    def reduced(self, prices: Sequence[float]) -> Floats:
        """(S, widest) gain less priced use; −inf where there is no candidate."""
        reduced = self._gain
        for price, use in zip(prices, self._use, strict=True):
            if price:
                reduced = reduced - price * use
        return reduced

    def priced(self, prices: Sequence[float]) -> Priced:
        """The best choice at these prices."""
        reduced = self.reduced(prices)
        best = reduced.argmax(axis=1)
        at = (self._stages, best)
        room = sum(price * limit for price, limit in zip(prices, self._limits, strict=True))
        return Priced(
            prices=tuple(prices),
            bound=float(reduced[at].sum()) + room,
            value=float(self._gain[at].sum()),
            used=tuple(float(use[at].sum()) for use in self._use),
            choice=tuple(best.tolist()),
        )

    def around(self, best: Priced) -> list[Priced]:
        """The best prices, and some that are a little higher or lower, all of them or one.

        No one set of prices is the best for every label: what a label leaves to the rest is dearer
        or cheaper.
        """
        scales = [np.full(len(best.prices), 1.0 + share) for share in _ALL_PRICES]
        for at in range(len(best.prices)):
            for share in _ONE_PRICE:
                scales.append(np.ones(len(best.prices)))
                scales[-1][at] += share
        prices = np.array(best.prices)
        return [best, *(self.priced((prices * scale).tolist()) for scale in scales)]

    def improved(self, choice: Choice) -> Choice:
        """A feasible choice after the best single changes that keep it feasible, one by one."""
        at = np.array(choice)
        for _ in range(_MOST_CHANGES):
            now = (self._stages, at)
            better = self._gain - self._gain[now][:, None]
            for use, limit in zip(self._use, self._limits, strict=True):
                mine = use[now]
                better = np.where(use - mine[:, None] <= limit - mine.sum(), better, -np.inf)
            stage, option = divmod(int(better.argmax()), better.shape[1])
            if better[stage, option] <= 0:
                break
            at[stage] = option
        return tuple(at.tolist())

    def contenders(self, priced: Sequence[Priced], threshold: float) -> list[Ints]:
        """Per stage, the candidates that some plan above ``threshold`` may have."""
        alive = self._gain > -np.inf
        for answer in priced:
            reduced = self.reduced(answer.prices)
            alive &= reduced > threshold - answer.bound + reduced.max(axis=1, keepdims=True)
        return [np.flatnonzero(row) for row in alive]


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


class GainBound:
    """What the rest can gain if no cap stood in the way (protocol ``search.Bound``).

    It costs next to nothing and cuts a lot where the threshold is nearly the best objective.
    """

    def __init__(self, table: Table) -> None:
        self._most = suffix_sums([float(gain.max()) for gain in table.gain])
        self._factors = None if table.factor is None else suffix_factors(table.factor)

    def refine(self, stage: int, labels: Labels, threshold: float) -> tuple[Ints, Floats]:
        """See :class:`~.search.Bound`."""
        upper = labels.value + self._most[stage]
        if labels.product is not None and self._factors is not None:
            low, high = self._factors[stage]
            upper = upper + np.maximum(labels.product * low, labels.product * high)
        index = np.flatnonzero(upper > threshold)
        return index, upper[index]


class LabelBound:
    """Bounds for labels: the least over several sets of prices (protocol ``search.Bound``)."""

    def __init__(self, table: Table, line: Line | None, priced: Sequence[Priced]) -> None:
        self._line, self._scale = line, table.scale
        linear = table if line is None else table.linear(line.slope)
        relaxation = Relaxation(linear)
        self._prices = [answer.prices for answer in priced]
        self._limits = [resource.loose_limit for resource in table.resources]
        self._suffix = [
            suffix_sums(relaxation.reduced(prices).max(axis=1).tolist()) for prices in self._prices
        ]
        if table.factor is not None:
            logs = [np.log(factor) for factor in table.factor]
            self._least_log = suffix_sums([float(log.min()) for log in logs])
            self._most_log = suffix_sums([float(log.max()) for log in logs])

    def refine(self, stage: int, labels: Labels, threshold: float) -> tuple[Ints, Floats]:
        """See :class:`~.search.Bound`."""
        index = np.arange(len(labels))
        value, used = labels.value, labels.used
        if self._line is not None and labels.product is not None:
            with np.errstate(divide="ignore"):  # a product may underflow to 0
                y = np.log(labels.product / self._scale)
            reaches = (y + self._most_log[stage] >= self._line.low) & (
                y + self._least_log[stage] <= self._line.high
            )
            value = value + self._line.slope * y + self._line.constant
            if not reaches.all():
                index, value = index[reaches], value[reaches]
                used = tuple(use[reaches] for use in used)
        upper = np.full(len(index), np.inf)
        for prices, suffix in zip(self._prices, self._suffix, strict=True):
            bound = value + suffix[stage]
            for price, limit, use in zip(prices, self._limits, used, strict=True):
                if price:
                    bound += price * (limit - use)
            upper = np.minimum(upper, bound)
            stay = upper > threshold
            if not stay.all():
                index, upper, value = index[stay], upper[stay], value[stay]
                used = tuple(use[stay] for use in used)
        return index, upper


def _padded(columns: Sequence[Floats], fill: float) -> Floats:
    padded = np.full((len(columns), max(len(column) for column in columns)), fill)
    for row, column in zip(padded, columns, strict=True):
        row[: len(column)] = column
    return padded
