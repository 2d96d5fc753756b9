"""Figures as words, and the tables that several sections share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from seed_answers import DRAWS, OnFront, Pair
from seed_data import SeedPoint

from ipa_energy.tables import Head, Row, Table
from ipa_energy.tradeoff.correlation import Correlation

NAMES = {"accuracy": "accuracy", "latency_s": "latency", "joules_per_request": "energy"}


def coefficient(
    found: Sequence[Correlation], method: str, x: str, y: str, given: str | None = None
) -> str:
    """One coefficient with its interval: ``0.81 (0.50 to 0.94)``; why not, if there is none."""
    for one in found:
        if (one.method, one.x, one.y, one.given) == (method, x, y, given):
            return _value(one) + _interval(one)
    return "unknown"


def is_clear(
    found: Sequence[Correlation], method: str, x: str, y: str, given: str | None = None
) -> bool:
    """True if the interval of a coefficient leaves out 0; False without an interval."""
    return any(
        one.low > 0 or one.high < 0
        for one in found
        if (one.method, one.x, one.y, one.given) == (method, x, y, given)
    )


def correlation_table(found: Sequence[Correlation]) -> Table:
    """Pearson and Spearman of each pair, side by side."""
    keys = list(dict.fromkeys((one.x, one.y, one.given) for one in found))
    by_key = {(one.method, one.x, one.y, one.given): one for one in found}
    rows = []
    for x, y, given in keys:
        at = f", at equal {NAMES[given]}" if given else ""
        both = [by_key[method, x, y, given] for method in ("pearson", "spearman")]
        cells = [_value(one) + _interval(one) for one in both]
        rows.append(Row(f"{NAMES[x]} and {NAMES[y]}{at}", cells))
    return Table(
        "Correlations of accuracy, latency and joules per image",
        "between",
        [Head("Pearson (95 %)"), Head("Spearman (95 %)")],
        rows,
        note=f"{found[0].n} points; intervals by Fisher's z, as if the points were a random sample "
        "of all detectors, which they are not.",
    )


def front_table(found: Sequence[OnFront], error: str) -> Table:
    """Who is on which front, and how sure that is."""
    rows = [
        Row(
            one.point.label,
            [
                "yes" if one.without else "no",
                "yes" if one.with_energy else "no",
                percent(one.share_without),
                percent(one.share_with),
                percent(one.share_only),
            ],
        )
        for one in found
        if one.share_with > 0 or one.without
    ]
    never = [one.point.label for one in found if one.share_with == 0 and not one.without]
    left_out = f" Never on either: {'; '.join(never)}." if never else ""
    return Table(
        "Pareto-optimal choices without and with energy as an objective",
        "configuration",
        [
            Head("without"),
            Head("with energy"),
            Head("without", "% of draws"),
            Head("with energy", "% of draws"),
            Head("only with energy", "% of draws"),
        ],
        rows,
        note=f"{DRAWS} draws with every figure off by {error}.{left_out}",
    )


def pair_words(pair: Pair) -> str:
    """A pair with its energy ratio and the bounds of it."""
    return (
        f"{pair.dearer.label} takes {change(pair.ratio)} energy than {pair.cheaper.label} "
        f"({change(pair.low)} to {change(pair.high)} with reading errors at their worst): "
        f"{1000 * pair.dearer.latency_s:.4g} ms against {1000 * pair.cheaper.latency_s:.4g} ms"
    )


def change(ratio: float) -> str:
    """A ratio as a change: ``5.9 % more``, ``3.2 % less``."""
    return f"{100 * abs(ratio - 1):.1f} % {'more' if ratio >= 1 else 'less'}"


def percent(share: float) -> str:
    """A share in percent; never 0 or 100 by rounding alone."""
    if 0 < share < 0.01:
        return "<1"
    return ">99" if 0.99 < share < 1 else f"{100 * share:.0f}"


def at(points: Sequence[SeedPoint], weights: str, batch: int) -> SeedPoint:
    """The point of these weights and this batch."""
    return next(p for p in points if (p.weights, p.batch) == (weights, batch))


def _value(one: Correlation) -> str:
    if math.isnan(one.value):
        return f"undefined: {one.reason}"
    return f"{one.value:.{_digits(one)}f}"


def _interval(one: Correlation) -> str:
    digits = _digits(one)
    return "" if math.isnan(one.low) else f" ({one.low:.{digits}f} to {one.high:.{digits}f})"


def _digits(one: Correlation) -> int:
    """A coefficient close to one says how close."""
    return 3 if abs(one.value) >= 0.95 else 2
