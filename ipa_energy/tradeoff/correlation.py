"""How far the objectives go together: Pearson, Spearman, and both with latency held fixed.

Intervals are Fisher's: ``tanh(atanh(r) ± 1.96·se)`` with ``se = 1/√(n − 3 − k)`` for Pearson and
``√((1 + r²/2)/(n − 3 − k))`` for Spearman (Bonett and Wright, Psychometrika 65, 2000), k the number
of variables held fixed (Fisher 1924). They read the configurations as if drawn at random from the
space; those of a study are spread over it on purpose, so an interval says how little n points can
tell, not more. Over every plan there is nothing to infer and no interval.

The partial correlation is the first-order formula on the three plain ones; ranks for Spearman.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Literal

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.tables import counted

Method = Literal["pearson", "spearman"]
Over = Literal["points", "plans"]

METHODS: tuple[Method, ...] = ("pearson", "spearman")
OBJECTIVES = ("accuracy", "cost_cores", "latency_s", "joules_per_request")
"""The columns that are always correlated, pair by pair; further quantities come after them."""

ENERGY = "joules_per_request"
HELD_FIXED = "latency_s"

FEWEST = 3
"""Two points always lie on a line."""

_ROUNDING = 1e-12
_RANKED_DIGITS = 10
"""Digits of the largest figure of a column that ranks see."""
"""Relative spread under which a column is one value, and room to 1 under which |r| is 1."""

_QUANTILE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """One coefficient.

    Attributes:
        over: ``points``, the configurations as run (means over trials), or ``plans``, every
            feasible plan by the profile.
        method: ``pearson`` or ``spearman``.
        x, y: the two columns.
        given: the column held fixed; None for a plain correlation.
        value: −1..1; NaN if it is undefined.
        low, high: ends of the 95 % interval; NaN without one.
        n: number of points or plans.
        reason: why there is no value, or else why there is no interval; None if both are there.
    """

    over: Over
    method: Method
    x: str
    y: str
    given: str | None
    value: float
    low: float
    high: float
    n: int
    reason: str | None


def correlations(columns: Mapping[str, Floats], over: Over) -> tuple[Correlation, ...]:
    """Every pair of columns, then energy with each of the others at fixed latency.

    Args:
        columns: arrays of one length by names of :data:`OBJECTIVES` and of further quantities; a
            column that is absent or all NaN is left out, and so are rows with a NaN in any other.
        over: what the rows are.
    """
    known = {
        name: np.asarray(columns[name], dtype=np.float64)
        for name in dict.fromkeys((*OBJECTIVES, *columns))
        if name in columns and not np.isnan(columns[name]).all()
    }
    if len(known) < 2:
        return ()
    whole = ~np.isnan(np.stack(list(known.values()))).any(axis=0)
    kept = {name: column[whole] for name, column in known.items()}
    found = []
    for method in METHODS:
        ranked = {name: _scored(column, method) for name, column in kept.items()}
        found += [
            _coefficient(ranked, over, method, question=question) for question in _questions(ranked)
        ]
    return tuple(found)


def _questions(names: Mapping[str, Floats]) -> Iterator[tuple[str, str, str | None]]:
    """(x, y, held fixed), energy second to the other objectives: it is what is explained."""
    for x, y in combinations(names, 2):
        yield x, y, None
    if ENERGY in names and HELD_FIXED in names:
        for x in names:
            if x not in (ENERGY, HELD_FIXED):
                yield x, ENERGY, HELD_FIXED


def _scored(column: Floats, method: Method) -> Floats:
    if method == "pearson" or len(column) == 0:
        return column
    from scipy.stats import rankdata

    scale = float(np.abs(column).max()) or 1.0
    # Figures that are equal but for the rounding of their sums share a rank.
    ranks: Floats = rankdata(np.round(column / scale, _RANKED_DIGITS))
    return ranks


def _coefficient(
    columns: Mapping[str, Floats],
    over: Over,
    method: Method,
    *,
    question: tuple[str, str, str | None],
) -> Correlation:
    x, y, given = question
    names = [name for name in (x, y, given) if name is not None]
    n = len(columns[x])
    value, reason = math.nan, _undefined(columns, names, over)
    if reason is None:
        value = _pearson(columns[x], columns[y])
        if given is not None:
            value, reason = _partial(value, columns, x, y, given)
    low = high = math.nan
    if reason is None:
        low, high, reason = _interval(value, n, method, len(names) - 2, over)
    return Correlation(
        over=over,
        method=method,
        x=x,
        y=y,
        given=given,
        value=value,
        low=low,
        high=high,
        n=n,
        reason=reason,
    )


def _undefined(columns: Mapping[str, Floats], names: list[str], over: Over) -> str | None:
    n = len(columns[names[0]])
    if n < FEWEST:
        return f"{counted(n, over[:-1])} cannot be correlated: it takes {FEWEST}"
    for name in names:
        column = columns[name]
        if np.ptp(column) <= _ROUNDING * np.abs(column).max():
            return f"{name} is the same in all {n} {over}"
    return None


def _pearson(x: Floats, y: Floats) -> float:
    """Of two columns neither of which is constant."""
    from scipy.stats import pearsonr

    return float(pearsonr(x, y).statistic)


def _partial(
    value: float, columns: Mapping[str, Floats], x: str, y: str, given: str
) -> tuple[float, str | None]:
    with_x = _pearson(columns[x], columns[given])
    with_y = _pearson(columns[y], columns[given])
    for name, other in ((x, with_x), (y, with_y)):
        if 1 - abs(other) <= _ROUNDING:
            return math.nan, f"{given} determines {name}: nothing is left of it at fixed {given}"
    left = math.sqrt((1 - with_x**2) * (1 - with_y**2))
    return max(-1.0, min(1.0, (value - with_x * with_y) / left)), None


def _interval(
    value: float, n: int, method: Method, fixed: int, over: Over
) -> tuple[float, float, str | None]:
    if over == "plans":
        return math.nan, math.nan, "over every plan there is nothing to infer"
    if n - 3 - fixed < 1:
        return math.nan, math.nan, f"an interval takes {4 + fixed} points, there are {n}"
    if 1 - abs(value) <= _ROUNDING:
        return math.nan, math.nan, "a perfect correlation has no interval of Fisher's kind"
    excess = value**2 / 2 if method == "spearman" else 0.0
    reach = _QUANTILE * math.sqrt((1 + excess) / (n - 3 - fixed))
    middle = math.atanh(value)
    return math.tanh(middle - reach), math.tanh(middle + reach), None
