"""The exact front and the exchange rates of a sensitivity analysis."""

from __future__ import annotations

from ipa_energy.report.figure import Axis, Figure, Points, Scale, key_of
from ipa_energy.tradeoff.plan_space import PlanFigures
from ipa_energy.tradeoff.sensitivity import Sensitivity

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
