r"""A budget of grams a day, kept by one price of a gram.

With a price μ on every gram of a request each moment's decision is a decision as ever, and among
the plans that emit no more over the day the most is won, summed over the requests:

.. math::

    \max Σ_t λ_t·T·f(plan_t)  \quad Σ_t λ_t·T·J(plan_t)·CI_t·PUE/3.6e6 ≤ \text{budget}

is separated by μ into max f − μ·g at each t, f being the objective without the price. What is left
is to find μ: grams fall as it rises, so it is bisected over the forecast of what is left of the day
(load and intensity hour by hour) and of the budget. It is found anew every hour, and at every
decision of the day's last one, after which nothing can make good.

The forecast of the intensities is the one that is given; without one it is yesterday's, hour by
hour. Either is held against what is in force now: if that is a tenth above its forecast, the rest
of the day is expected to be. (Weather changes within a day: held against the whole day so far, a
budget was overshot by up to 10.4 % in five real weeks on one kind of board.) What was emitted is
held against what was planned, which has load and queues in it.

At one price the budget is met from below: what the next cheaper plan would need too much of stays
over. Where a forecast is given the hour at hand may have it, so that its price is the least that
leaves the rest of the day what it needs. (With yesterday alone that costs more in the evening than
it wins: up to 0.0009 of accuracy.)

For one load a plan's joules depend on μ·CI alone, by steps. The steps are found once a load by
halving (:func:`price_curve`), so that a day costs milliseconds.

Days begin with second 0 of a run. A run that ends within a day has the budget's share of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ipa_energy import energy
from ipa_energy.arrays import Floats
from ipa_energy.carbon.run_carbon import RunCarbon
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import PRICE_PER_GRAM, Moment, planned_load_rps
from ipa_energy.optimizer.solve import decide

DAY_S, HOUR_S = 86_400.0, 3_600.0
PRICED = "priced_grams"
"""The quantity that a program with a budget weighs, by 1."""

DEAREST = 1e9
"""Weight of a joule at which nothing but joules counts."""

LEAST_LOAD_STEP = 0.001
"""Loads that differ by less, relatively, may share a curve."""

RATIO_LIMITS = (0.5, 2.0)
"""What was over what was expected is believed within these."""


@dataclass(frozen=True, slots=True)
class PriceCurve:
    """What a joule's price makes of the joules of a request, at one load.

    Attributes:
        from_price: (K,) ascending from 0; in [from_price[k], from_price[k + 1]) plan k is optimal.
        joules: (K,) joules a request of plan k, descending; empty if nothing is feasible.
        worth: (K,) its objective without the price.
    """

    from_price: Floats
    joules: Floats
    worth: Floats

    def index(self, price_per_joule: float) -> int:
        """The plan that is optimal at a price; −1 if there is none."""
        return int(np.searchsorted(self.from_price, price_per_joule, side="right")) - 1

    def joules_at(self, price_per_joule: float) -> float:
        """Joules a request; 0 if nothing is feasible, since then nothing can be chosen."""
        return float(self.joules[self.index(price_per_joule)]) if len(self.joules) else 0.0


def price_curve(program: Program, load_rps: float, method: str = "pareto") -> PriceCurve:
    """The steps of :class:`PriceCurve`: the corners of the hull of (joules, worth), by halving."""

    def at(price: float) -> _Corner | None:
        signals = {"g_per_kwh": energy.JOULES_PER_KWH, PRICE_PER_GRAM: price}
        result = decide(program, Moment.at(load_rps, **signals), method)
        if not result.plans:
            return None
        plan = result.plans[0]
        return plan.planned_joules_per_request, plan.objective + plan.terms[PRICED]

    free, least = at(0.0), at(DEAREST)
    if free is None or least is None:
        none = np.array([])
        return PriceCurve(none, none, none)
    corners = [free, *_between(at, free, least), least]
    points = [corners[0]]
    for corner in corners[1:]:
        if corner[0] < points[-1][0] * (1 - 1e-12):
            points.append(corner)
    joules, worth = (np.array(column) for column in zip(*points, strict=True))
    steps = np.diff(worth) / np.diff(joules) if len(joules) > 1 else np.array([])
    return PriceCurve(np.concatenate([[0.0], steps]), joules, worth)


_Corner = tuple[float, float]


def _between(
    at: Callable[[float], _Corner | None], left: _Corner, right: _Corner, depth: int = 40
) -> list[_Corner]:
    """Corners between two, from more joules to fewer."""
    spent, won = left[0] - right[0], left[1] - right[1]
    if depth == 0 or spent <= 1e-9 * left[0] or won <= 0:
        return []
    price = won / spent
    found = at(price)
    if found is None:
        return []
    gain = found[1] - price * found[0] - (left[1] - price * left[0])
    if gain <= 1e-9 * max(1.0, abs(left[1])):
        return []
    return [
        *_between(at, left, found, depth - 1),
        found,
        *_between(at, found, right, depth - 1),
    ]


@dataclass(frozen=True, slots=True)
class Slot:
    """A stretch of the day as it is forecast.

    Attributes:
        seconds: its length.
        load_rps: mean load.
        g_per_kwh: mean intensity.
    """

    seconds: float
    load_rps: float
    g_per_kwh: float

    def grams(self, joules: float, pue: float) -> float:
        """Of its requests at these joules each."""
        return energy.grams(joules * self.load_rps * self.seconds, self.g_per_kwh, pue)


@dataclass(slots=True)
class CarbonBudget:
    """The budget of a run, day by day.

    Args:
        grams_per_day: the budget.
        program: the pipeline's, which weighs :data:`PRICED`.
        carbon: intensities along the run; a forecast, where there is one, is what is planned over.
        duration_s: of the run.
        interval_s: between decisions.
        known_rps: mean load between two seconds of the run, if somebody knows; None: yesterday's
            hours, on the first day those seen so far.

    Attributes:
        price: of a gram, now.
        spent: grams of the day so far.
        forecast: grams that the rest of the day is expected to emit at this price.
    """

    grams_per_day: float
    program: Program
    carbon: RunCarbon
    duration_s: float
    interval_s: float
    known_rps: Callable[[float, float], float] | None = None
    price: float = 0.0
    spent: float = 0.0
    forecast: float = 0.0
    overshoots: list[tuple[int, float, float]] = field(default_factory=list)
    _day: int = -1
    _planned_at_s: float = -math.inf
    _planned: float = 0.0
    _planned_g_per_s: float = 0.0
    _hours: dict[int, tuple[float, int]] = field(default_factory=dict)
    _curves: dict[int, PriceCurve] = field(default_factory=dict)

    def signals(self, now_s: float, load_rps: float) -> Mapping[str, float]:
        """What a decision knows: the price of a gram, and how the budget stands.

        Args:
            now_s: second of the run.
            load_rps: the load that is planned for, where nothing else is known of the day.
        """
        self._begin_day(now_s)
        day_end_s = min((math.floor(now_s / DAY_S) + 1) * DAY_S, self.duration_s)
        is_last_hour = day_end_s - now_s <= HOUR_S
        if is_last_hour or now_s - self._planned_at_s >= HOUR_S:
            self._replan(now_s, day_end_s, load_rps)
        return {
            PRICE_PER_GRAM: self.price,
            "budget_spent_g": self.spent,
            "budget_left_g": self.budget_g - self.spent,
            "budget_forecast_g": self.forecast,
        }

    @property
    def budget_g(self) -> float:
        """Of the day that it is."""
        begin_s = max(0, self._day) * DAY_S
        return self.grams_per_day * min(DAY_S, self.duration_s - begin_s) / DAY_S

    def add(self, start_s: float, end_s: float, grams: float, requests: int) -> None:
        """What a window emitted and served."""
        self._begin_day(start_s)
        self.spent += grams
        self._planned += self._planned_g_per_s * (end_s - start_s)
        seconds, seen = self._hours.get(int(start_s // HOUR_S), (0.0, 0))
        self._hours[int(start_s // HOUR_S)] = (seconds + end_s - start_s, seen + requests)

    def told(self) -> list[str]:
        """A sentence a day that was beyond its budget."""
        days = [*self.overshoots, (self._day, self.spent, self.budget_g)]
        return [
            f"day {day + 1}: {spent:.4g} g were emitted, {100 * (spent / budget - 1):.3g} % more"
            f" than its budget of {budget:.4g} g"
            for day, spent, budget in days
            if 0 < budget < spent
        ]

    def _begin_day(self, now_s: float) -> None:
        day = int(now_s // DAY_S)
        if day == self._day:
            return
        if self._day >= 0:
            self.overshoots.append((self._day, self.spent, self.budget_g))
        self._day, self.spent, self._planned_at_s, self._planned = day, 0.0, -math.inf, 0.0

    def _replan(self, now_s: float, day_end_s: float, load_rps: float) -> None:
        slots = self._slots(now_s, day_end_s, load_rps)
        curves = [self._curve(slot.load_rps) for slot in slots]
        bias, pue = self._bias(now_s), self.carbon.pue
        left_g = (self.budget_g - self.spent) / bias
        price = price_for(slots, curves, left_g, pue=pue)
        rest = expected_grams(slots[1:], curves[1:], price, pue=pue)
        self.price = price
        if self.carbon.seen is not None:
            # The next cheaper plan for all hours of a kind is too much; for this one it may fit.
            own = price_for(slots[:1], curves[:1], left_g - rest, pue=pue)
            self.price = min(price, own)
        now = expected_grams(slots[:1], curves[:1], self.price, pue=pue)
        self.forecast = bias * (now + rest)
        self._planned_g_per_s = now / slots[0].seconds
        self._planned_at_s = now_s

    def _bias(self, now_s: float) -> float:
        """What is emitted for each gram that was planned, going by the day's past hours."""
        if self._planned <= 0 or now_s % DAY_S < HOUR_S:
            return 1.0
        return _believed(self.spent / self._planned)

    def _slots(self, now_s: float, day_end_s: float, load_rps: float) -> list[Slot]:
        """The hours that are left of the day."""
        edges_s = [now_s]
        while edges_s[-1] < day_end_s:
            edges_s.append(min(day_end_s, (math.floor(edges_s[-1] / HOUR_S) + 1) * HOUR_S))
        return [
            Slot(
                end_s - begin_s,
                self._load_rps(begin_s, end_s, load_rps),
                self._g_per_kwh(now_s, begin_s, end_s),
            )
            for begin_s, end_s in pairwise(edges_s)
        ]

    def _g_per_kwh(self, now_s: float, begin_s: float, end_s: float) -> float:
        """Expected of a slot: what is in force until the hour ends, later by the forecast."""
        in_force = self.carbon.series.at(self.carbon.start_s + now_s)
        if begin_s == now_s:
            return in_force
        expected = self._forecast(now_s, now_s, in_force)
        ratio = _believed(in_force / expected) if expected > 0 else 1.0
        return ratio * self._forecast(begin_s, end_s, in_force)

    def _forecast(self, begin_s: float, end_s: float, otherwise: float) -> float:
        """Mean intensity as it was forecast; yesterday's without a forecast."""
        zero_s, seen = self.carbon.start_s, self.carbon.seen
        if seen is not None:
            return seen.mean(zero_s + begin_s, zero_s + end_s)
        series, ago_s = self.carbon.series, zero_s - DAY_S
        if series.is_constant or ago_s + begin_s < series.start_s:
            return otherwise
        return series.mean(ago_s + begin_s, ago_s + end_s)

    def _load_rps(self, begin_s: float, end_s: float, otherwise: float) -> float:
        if self.known_rps is not None:
            return planned_load_rps(self.known_rps(begin_s, end_s), self.interval_s)
        yesterday = self._hours.get(int(begin_s // HOUR_S) - 24)
        if yesterday is None:
            seconds_s = sum(length for length, _ in self._hours.values())
            seen = sum(count for _, count in self._hours.values())
            return planned_load_rps(seen / seconds_s if seconds_s else otherwise, self.interval_s)
        return planned_load_rps(yesterday[1] / yesterday[0], self.interval_s)

    def _curve(self, load_rps: float) -> PriceCurve:
        step = round(math.log(load_rps) / LEAST_LOAD_STEP)
        if step not in self._curves:
            self._curves[step] = price_curve(self.program, load_rps)
        return self._curves[step]


def _believed(ratio: float) -> float:
    low, high = RATIO_LIMITS
    return min(high, max(low, ratio))


def expected_grams(
    slots: Sequence[Slot], curves: Sequence[PriceCurve], price: float, *, pue: float
) -> float:
    """Grams of the slots at a price of a gram."""
    return math.fsum(
        slot.grams(curve.joules_at(energy.grams(price, slot.g_per_kwh, pue)), pue)
        for slot, curve in zip(slots, curves, strict=True)
    )


def price_for(
    slots: Sequence[Slot], curves: Sequence[PriceCurve], grams: float, *, pue: float
) -> float:
    """The least price of a gram at which the slots stay within ``grams``.

    If none does, the least at which they emit the least.

    Args:
        slots: what is left of the day.
        curves: one a slot, at its load.
        grams: what is left of the budget.
        pue: of the site.
    """
    # Grams change at these prices alone, so the least of them that keeps the budget is exact.
    steps = [
        curve.from_price[1:] / energy.grams(1.0, slot.g_per_kwh, pue)
        for slot, curve in zip(slots, curves, strict=True)
        if slot.g_per_kwh > 0 and len(curve.from_price) > 1
    ]
    prices = np.unique(np.concatenate([[0.0], *steps]))
    # At a step both its plans tie; a little above it is the one with fewer joules.
    prices[1:] *= 1 + 1e-9
    low, high = 0, len(prices) - 1
    while low < high:
        middle = (low + high) // 2
        if expected_grams(slots, curves, float(prices[middle]), pue=pue) <= grams:
            high = middle
        else:
            low = middle + 1
    return float(prices[low])
