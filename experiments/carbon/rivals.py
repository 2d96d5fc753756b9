"""A budget of grams a day against what else could keep it, on measured boards and five real weeks.

    python experiments/carbon/rivals.py      prints the table, writes experiments/carbon/rivals.md

Decisions, loads, joules and budgets are those of hours.py. All rivals but *yesterday* know the day;
each gets its best setting that stays within the budget, or the least grams that it can reach.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hours import (
    BOARDS,
    HOURS,
    MEAN_RPS,
    ZONES,
    Week,
    _bound,
    _grams_of_day,
    intensity_of,
    keep_budget,
    loads_rps,
    planner_of,
)

from ipa_energy import energy
from ipa_energy.arrays import Floats, Ints
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.solve import solve
from ipa_energy.planning.carbon_budget import HOUR_S, PRICED, price_curve
from ipa_energy.planning.planner import Planner

HERE = Path(__file__).resolve().parent
SHARE = 0.4
PRICES = np.concatenate([[0.0], np.geomspace(1e-3, 1e5, 120)])

HEAD = """\
# A budget of grams a day against what else could keep it

`python experiments/carbon/rivals.py`: mean accuracy below the best mixture of plans (a linear
program that knows the day) at the same budget, days and boards as in `result.md`. *Gram*: one price
of a gram, knowing the day, and with yesterday as the forecast. *Joule*: one price of a joule, the
least that keeps the budget. *Even*: the same grams for every request. *Static*: one plan all day.
Where a rival cannot keep the budget, in brackets the worst day's excess.

| boards | zone | gram | yesterday | joule | even | static |
|---|---|---|---|---|---|---|
"""

Outcome = tuple[float, float]
"""(accuracy, grams) of a day."""


def by_price(week: Week, hours: Ints, prices: Floats) -> Outcome:
    """The day at a price of a joule for each hour."""
    worth = grams = 0.0
    for hour, price in zip(hours, prices, strict=True):
        curve, count = week.curves[hour], week.requests[hour]
        at = curve.index(price)
        worth += curve.worth[at] * count
        grams += energy.grams(curve.joules[at] * count, week.g_per_kwh[hour])
    return worth / week.requests[hours].sum(), grams


def even(week: Week, hours: Ints, budget_g: float) -> Outcome:
    """The most accurate plan of each hour whose requests keep the mean request's grams."""
    each = budget_g / week.requests[hours].sum()
    worth = grams = 0.0
    for hour in hours:
        curve, count = week.curves[hour], week.requests[hour]
        per_request = energy.grams(curve.joules, float(week.g_per_kwh[hour]))
        fits = np.flatnonzero(per_request <= each)
        at = int(fits[0]) if len(fits) else len(curve.joules) - 1
        worth += curve.worth[at] * count
        grams += per_request[at] * count
    return worth / week.requests[hours].sum(), grams


def static(planner: Planner, week: Week, hours: Ints, loads: Floats, price: float) -> Outcome:
    """One plan all day, chosen at a price of a joule."""
    counts = np.ceil(loads[hours]).astype(np.int64)
    signals = {"g_per_kwh": energy.JOULES_PER_KWH, "price_per_gram": price}
    moment = Moment.of(counts, 1.0, **signals)
    plan = solve(planner.program.at(moment), method="pareto", top_k=1).plans[0]
    power_w = sum(stage.replicas * stage.option.idle_power_w for stage in plan.stages)
    dynamic_j = sum(stage.option.dynamic_energy_j for stage in plan.stages)
    joules = dynamic_j * week.requests[hours] + power_w * HOUR_S
    grams = float(energy.grams(joules, 1.0) @ week.g_per_kwh[hours])
    return plan.objective + plan.terms[PRICED], grams


def within(outcome: Callable[[float], Outcome], budget_g: float) -> Outcome:
    """The best of the prices that keep the budget; the least grams if none does."""
    found = [outcome(price) for price in PRICES]
    keeping = [one for one in found if one[1] <= budget_g * (1 + 1e-9)]
    return max(keeping) if keeping else min(found, key=lambda one: one[1])


def row(board: str, zone: str, planner: Planner, week: Week, loads: Floats) -> list[str]:
    """A line of the table."""
    kept = [keep_budget(week, planner, loads, SHARE, knows=knows) for knows in (True, False)]
    cells = [f"{one.bound - one.accuracy:.4f}" for one in kept]
    losses: dict[str, list[float]] = {"joule": [], "even": [], "static": []}
    excess = dict.fromkeys(losses, 0.0)
    for day in range(1, HOURS // 24):
        hours = np.arange(24 * day, 24 * (day + 1))
        least, most = (_grams_of_day(week, hours, price) for price in (1e15, 0.0))
        budget_g = least + SHARE * (most - least)
        bound = _bound(week, hours, budget_g)
        came_to = {
            "joule": within(lambda p: by_price(week, hours, np.full(24, p)), budget_g),  # noqa: B023
            "even": even(week, hours, budget_g),
            "static": within(lambda p: static(planner, week, hours, loads, p), budget_g),  # noqa: B023
        }
        for name, (accuracy, grams) in came_to.items():
            losses[name].append(bound - accuracy)
            excess[name] = max(excess[name], grams / budget_g - 1)
    for name, found in losses.items():
        over = f" ({excess[name]:+.0%})" if excess[name] > 0.001 else ""
        cells.append(f"{np.mean(found):.4f}{over}")
    return [board, zone, *cells]


def main() -> None:
    """Print and write the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    lines = []
    for board in BOARDS:
        planner, loads = planner_of(board), np.round(loads_rps(MEAN_RPS[board]), 9)
        known = {float(load): price_curve(planner.program, float(load)) for load in set(loads)}
        for zone in ZONES:
            series = intensity_of(zone)
            week = Week([known[load] for load in loads], series.g_per_kwh, loads * HOUR_S)
            lines.append(f"| {' | '.join(row(board, zone, planner, week, loads))} |")
            print(lines[-1], flush=True)
    (HERE / "rivals.md").write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
