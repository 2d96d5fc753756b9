"""The exact front and the exchange rates of a sensitivity analysis."""

from __future__ import annotations

import math

from ipa_energy.compare.table import significant
from ipa_energy.report.figure import Axis, Figure, Points, Scale, key_of
from ipa_energy.report.table import Cell, Head, Row, Table
from ipa_energy.tradeoff.plan_space import PlanFigures
from ipa_energy.tradeoff.prices import Exchange, Offer
from ipa_energy.tradeoff.sensitivity import Sensitivity

GIVEN = {
    "accuracy": ("accuracy", "points"),
    "latency_s": ("latency", "s"),
    "cost_cores": ("cost", "cores"),
}
"""Name and unit of what is given up; accuracy is shown in points, a hundredth of it each."""

LATENCY = "latency of the plan (s)"


def front_figure(found: Sensitivity, case_name: str, suffix: str) -> Figure | None:
    """Joules over accuracy along the exact front; None without a front or joules."""
    front = found.front
    if front is None or not front.has_energy:
        return None
    latencies_s = [plan.latency_s for plan in (*front.shown, found.plan)]
    return Figure(
        key=key_of("front", *([suffix] if suffix else [])),
        title="The exact Pareto front" + (f", {case_name}" if suffix else ""),
        caption=f"{len(front.shown)} of the {front.size} plans that no other plan beats in"
        " accuracy, cost, latency and energy together, by the profile; the star is the chosen plan."
        " Down and to the right is better; a plan above the others is faster or cheaper, as its"
        f" hover tells. Joules are {found.quality}.",
        marks=[
            _plans("undominated plans", list(front.shown), found),
            _plans("the chosen plan", [found.plan], found, chosen=True),
        ],
        x=Axis("accuracy"),
        y=Axis("energy (J/request)", from_zero=True),
        scale=Scale(LATENCY, min(latencies_s), max(latencies_s)),
        height=360,
    )


def _plans(
    name: str,
    plans: list[PlanFigures],
    found: Sensitivity,
    *,
    chosen: bool = False,
) -> Points:
    return Points(
        name=f"{name} ({found.quality})",
        x=[plan.accuracy for plan in plans],
        y=[plan.joules_per_request for plan in plans],
        values=[plan.latency_s for plan in plans],
        labels=[plan.label for plan in plans],
        hover=[f"{plan.cost_cores:g} cores\njoules {found.quality}" for plan in plans],
        hollow=found.quality == "estimated",
        symbol="star" if chosen else "circle",
        size=17 if chosen else 10,
        color="muted",
    )


def exchange_table(found: Sensitivity) -> Table | None:
    """What joules cost in accuracy, latency and cores at the chosen plan; None if not analysed."""
    if found.exchanges is None:
        return None
    return Table(
        "Exchange rates at the chosen plan",
        "give up at most",
        [
            Head("saves", "J/request"),
            Head("with the plan"),
            Head("the least that saves"),
            Head("saves", "J/request"),
            Head("the most it can save", "J/request"),
        ],
        [_row(exchange) for exchange in found.exchanges.at_plan],
        note=f"From {found.plan.label}"
        f" ({significant(found.plan.joules_per_request)} J per request, {found.quality}), each of"
        " the three given up alone. Exact: over every plan of the profile.",
    )


def _row(exchange: Exchange) -> Row:
    name, _ = GIVEN[exchange.given]
    first = exchange.first
    return Row(
        f"{_amount(exchange, exchange.amount)} ({name})",
        [
            _saved(exchange.bought),
            exchange.bought.label if exchange.bought else None,
            Cell(_amount(exchange, first.given_up), key=first.given_up) if first else None,
            _saved(first),
            _saved(exchange.most),
        ],
    )


def _amount(exchange: Exchange, amount: float) -> str:
    _, unit = GIVEN[exchange.given]
    value = 100 * amount if exchange.given == "accuracy" else amount
    return f"{value:.3g} {unit}"


def _saved(offer: Offer | None) -> Cell:
    if offer is None or math.isnan(offer.saved_j):
        return Cell("nothing", key=0.0)
    return Cell(significant(offer.saved_j), key=offer.saved_j)
