"""What knowing the hour's intensity is worth, on measured boards and five real weeks.

    python experiments/carbon/hours.py        prints the tables, writes experiments/carbon/result.md

One decision an hour of a week, at a load that rises and falls with the day; joules are those that
MLPerf's submitters measured (configs/profiles/mlperf-*.csv), grams follow from the intensities.
Nothing is simulated: what a plan emits is what the program says it does at the hour's load, so the
figures are free of queues, changes and predictions. Compared at equal accuracy, between settings by
sharing time.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linprog

from ipa_energy import energy
from ipa_energy.arrays import Floats, Ints
from ipa_energy.carbon.intensity import IntensitySeries
from ipa_energy.carbon.published import read_intensity
from ipa_energy.carbon.run_carbon import RunCarbon
from ipa_energy.planning.carbon_budget import HOUR_S, CarbonBudget, PriceCurve, price_curve
from ipa_energy.planning.planner import Planner, load_planner

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"
ZONES = ("GB", "NL", "US-CAL-CISO", "US-TEX-ERCO", "AU-SA")
BOARDS = {"all boards": "mlperf-boards", "rpi4": "mlperf-rpi4", "orin": "mlperf-orin"}
HOURS = 168
MEAN_RPS = {"all boards": 25.0, "rpi4": 12.0, "orin": 40.0}
SWING = 0.5
PRICES = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, 160)])
"""Accuracy that a joule is worth, in the sweeps."""


HEAD = """\
# What knowing the hour's intensity is worth

`python experiments/carbon/hours.py`: one decision an hour over five real weeks (Electricity Maps
2023, life cycle; all hours of NL are the provider's estimates), on joules that MLPerf's submitters
measured on edge boards (open division; not verified by MLCommons).

*Saved*: grams, at equal accuracy, of one price of a gram over one price of a joule.
*Below*: accuracy that a budget a day costs over the best mixture of plans (a linear program that
knows the day), with the truth as the forecast and with yesterday. *Over*: the worst day's grams
over its budget, which is 40 % of the way from the least that this day can emit to what it emits
when grams cost nothing.

| boards | zone | g/kWh | saved, mean | most | below, truth | yesterday | over, truth | yesterday |
|---|---|---|---|---|---|---|---|---|
"""
TAIL = """
Where one kind of board is all there is, most watts are idle and there is little to shift: the gain
is small, and a day that turns out other than yesterday costs accuracy. Where boards differ by an
order of magnitude in joules the gain is larger, and yesterday is forecast enough.
"""


@dataclass(frozen=True, slots=True)
class Week:
    """Hours of one pipeline in one zone; arrays of 168.

    Attributes:
        curves: joules and accuracy of the plans at each hour's load.
        g_per_kwh: intensities.
        requests: of each hour.
    """

    curves: list[PriceCurve]
    g_per_kwh: Floats
    requests: Floats

    def outcome(self, prices: Floats) -> tuple[float, float, float]:
        """(grams, joules a request, accuracy) at a price of a joule for each hour."""
        chosen = [c.index(p) for c, p in zip(self.curves, prices, strict=True)]
        joules = np.array([c.joules[k] for c, k in zip(self.curves, chosen, strict=True)])
        worth = np.array([c.worth[k] for c, k in zip(self.curves, chosen, strict=True)])
        grams = energy.grams(joules * self.requests, 1.0) * self.g_per_kwh
        total = self.requests.sum()
        return (
            float(grams.sum()),
            float(joules @ self.requests / total),
            float(worth @ self.requests / total),
        )


def loads_rps(mean_rps: float) -> Floats:
    """Load of each hour: highest in the evening, lowest in the morning."""
    hours = np.arange(HOURS)
    return np.asarray(mean_rps * (1 + SWING * np.cos(2 * np.pi * (hours - 20) / 24)))


def planner_of(board: str) -> Planner:
    """Accuracy alone is won, joules alone are paid for; capacity and SLA as in boards.yaml."""
    profile = CONFIGS / "profiles" / f"{BOARDS[board]}.csv"
    carbon = {"intensity": 1.0, "budget_grams_per_day": 1.0}
    keys = {"alpha": 1.0, "gamma": 0.0, "prices": None, "profile": str(profile), "carbon": carbon}
    return load_planner(CONFIGS / "boards.yaml", keys)


def intensity_of(zone: str) -> IntensitySeries:
    """The week, life cycle."""
    return read_intensity(CONFIGS / "carbon" / f"electricitymaps-{zone}-2023-week16.csv")


def saving(knowing: Floats, constant: Floats) -> Floats:
    """Share of grams saved at the accuracies of ``constant``; rows are (grams, accuracy)."""
    lower = _hull(knowing)
    spent = _hull(constant)
    at = np.linspace(max(lower[0, 1], spent[0, 1]), min(lower[-1, 1], spent[-1, 1]), 41)[1:-1]
    return np.asarray(
        1 - np.interp(at, lower[:, 1], lower[:, 0]) / np.interp(at, spent[:, 1], spent[:, 0])
    )


def _hull(points: Floats) -> Floats:
    """The lower hull of grams over accuracy, by accuracy."""
    kept: list[Floats] = []
    for point in points[np.lexsort((points[:, 0], points[:, 1]))]:
        while kept and kept[-1][0] >= point[0]:
            kept.pop()
        while len(kept) > 1 and _is_above(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return np.array(kept)


def _is_above(left: Floats, middle: Floats, right: Floats) -> bool:
    share = (middle[1] - left[1]) / (right[1] - left[1]) if right[1] > left[1] else 1.0
    return bool(middle[0] >= left[0] + share * (right[0] - left[0]))


def constant_and_knowing(week: Week) -> tuple[Floats, Floats]:
    """(grams, accuracy) of one price of a joule, and of one price of a gram."""
    mean = week.g_per_kwh.mean()
    constant = [week.outcome(np.full(HOURS, price)) for price in PRICES]
    knowing = [week.outcome(price * week.g_per_kwh / mean) for price in PRICES]
    return np.array([[g, a] for g, _, a in constant]), np.array([[g, a] for g, _, a in knowing])


@dataclass(frozen=True, slots=True)
class Kept:
    """How a budget was kept over the week: means over the days."""

    accuracy: float
    bound: float
    overshoot: float


def keep_budget(week: Week, planner: Planner, loads: Floats, share: float, *, knows: bool) -> Kept:
    """A budget a day, hour by hour: with the truth or with yesterday as the forecast.

    Args:
        week: the hours.
        planner: of the pipeline.
        loads: of each hour.
        share: of the way from the least that a day can emit to what it emits at no price.
        knows: True: the forecast is the truth.
    """
    starts_s: Floats = HOUR_S * np.arange(HOURS, dtype=np.float64)
    series = IntensitySeries(time_s=starts_s, g_per_kwh=week.g_per_kwh, end_s=HOURS * HOUR_S)
    seen = series if knows else None  # without a forecast a budget takes yesterday's hours
    known: dict[int, PriceCurve] = {}  # of each load, the same every day
    worth, bounds, over = [], [], []
    for day in range(1, HOURS // 24):  # the first day has no yesterday
        hours = np.arange(24 * day, 24 * (day + 1))
        least, most = (_grams_of_day(week, hours, price) for price in (1e15, 0.0))
        budget_g = least + share * (most - least)
        budget = CarbonBudget(
            budget_g,
            planner.program,
            RunCarbon(series, seen, 0.0, 1.0),
            duration_s=HOURS * HOUR_S,
            interval_s=HOUR_S,
            known_rps=lambda begin_s, _: float(loads[int(begin_s // HOUR_S)]),
            _curves=known,
        )
        won = 0.0
        for hour in hours:
            price = budget.signals(hour * HOUR_S, loads[hour])["price_per_gram"]
            curve = week.curves[hour]
            index = curve.index(price * week.g_per_kwh[hour] / energy.JOULES_PER_KWH)
            grams = energy.grams(curve.joules[index] * week.requests[hour], week.g_per_kwh[hour])
            won += curve.worth[index] * week.requests[hour]
            budget.add(hour * HOUR_S, (hour + 1) * HOUR_S, float(grams), int(week.requests[hour]))
        worth.append(won / week.requests[hours].sum())
        bounds.append(_bound(week, hours, budget_g))
        over.append(budget.spent / budget_g - 1)
    return Kept(float(np.mean(worth)), float(np.mean(bounds)), float(np.max(over)))


def _grams_of_day(week: Week, hours: Ints, price: float) -> float:
    joules = np.array([week.curves[h].joules_at(price) for h in hours])
    return float(energy.grams(joules * week.requests[hours], 1.0) @ week.g_per_kwh[hours])


def _bound(week: Week, hours: Ints, budget_g: float) -> float:
    """The most accuracy of any mixture of plans within the budget (a linear program)."""
    curves = [week.curves[h] for h in hours]
    requests = week.requests[hours]
    worth = np.concatenate([c.worth * n for c, n in zip(curves, requests, strict=True)])
    grams = np.concatenate(
        [
            energy.grams(c.joules * n, float(ci))
            for c, n, ci in zip(curves, requests, week.g_per_kwh[hours], strict=True)
        ]
    )
    row = np.repeat(np.arange(len(curves)), [len(c.joules) for c in curves])
    one_each = (row[None, :] == np.arange(len(curves))[:, None]).astype(float)
    found = linprog(
        -worth, grams[None, :], [budget_g], one_each, np.ones(len(curves)), method="highs"
    )
    return float(-found.fun / requests.sum())


def main() -> None:
    """Print and write the tables."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    lines = []
    for board in BOARDS:
        planner = planner_of(board)
        loads = loads_rps(MEAN_RPS[board])
        curves = {load: price_curve(planner.program, load) for load in np.unique(loads)}
        for zone in ZONES:
            series = intensity_of(zone)
            week = Week([curves[load] for load in loads], series.g_per_kwh, loads * HOUR_S)
            constant, knowing = constant_and_knowing(week)
            saved = saving(knowing, constant)
            kept = [keep_budget(week, planner, loads, 0.4, knows=knows) for knows in (True, False)]
            low, high = series.g_per_kwh.min(), series.g_per_kwh.max()
            cells = [
                board,
                zone,
                f"{low:.0f}–{high:.0f}",
                f"{saved.mean():.1%}",
                f"{saved.max():.1%}",
                *(f"{one.bound - one.accuracy:.4f}" for one in kept),
                *(f"{one.overshoot:+.1%}" for one in kept),
            ]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    (HERE / "result.md").write_text(HEAD + "\n".join(lines) + "\n" + TAIL)


if __name__ == "__main__":
    main()
