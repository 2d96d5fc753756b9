"""Upper bounds: at fixed prices every stage's best candidate is found on its own.

A sum of accuracies separates by stage as it is. A product does after its logarithm: on a stretch of
values of ``y = log(product)`` a straight :class:`Line` lies above ``scale·exp(y)``, the chord if
the scale is positive and a tangent if it is negative, and ``y`` is a sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.optimizer.dual import Priced
from ipa_energy.optimizer.search import Labels
from ipa_energy.optimizer.solution import Choice
from ipa_energy.optimizer.table import Table, suffix_sums

_MOST_CHANGES = 30
_OVERLAP = 1e-9
"""How far stretches reach into each other, so that rounding loses no plan between them."""


@dataclass(frozen=True, slots=True)
class Line:
    """``slope·y + constant``, nowhere below ``scale·exp(y)`` for ``low ≤ y ≤ high``."""

    slope: float
    constant: float
    low: float
    high: float

    @classmethod
    def above(cls, scale: float, low: float, high: float) -> Line:
        """The line for one stretch of y."""
        low, high = low - _OVERLAP, high + _OVERLAP
        if scale > 0:
            slope = scale * math.exp(low) * math.expm1(high - low) / (high - low)
            return cls(slope, scale * math.exp(low) - slope * low, low, high)
        slope = scale * math.exp((low + high) / 2)
        return cls(slope, slope * (1 - (low + high) / 2), low, high)

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
