"""The tables of a trade-off study."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ipa_energy.compare.table import fixed, significant
from ipa_energy.report.plan_map_figures import range_of, weight_words
from ipa_energy.report.table import Cell, Head, Row, Table
from ipa_energy.tradeoff.correlation import Correlation
from ipa_energy.tradeoff.energy_added import Hypervolume, OnlyEnergy
from ipa_energy.tradeoff.plan_map import HardwareComparison, MapRow, PlanMap
from ipa_energy.tradeoff.study import Case
from ipa_energy.tradeoff.trials import Estimate, Point

NAMES = {
    "accuracy": "accuracy",
    "cost_cores": "cost",
    "latency_s": "latency",
    "joules_per_request": "energy",
}
OVER = {"points": "as run", "plans": "every feasible plan"}


def points_table(case: Case) -> Table:
    """The configurations as run."""
    return Table(
        "Configurations",
        "configuration",
        [
            Head("accuracy"),
            Head("cost", "cores"),
            Head("latency", "mean, s"),
            Head("latency", "p99, s"),
            Head("in SLA", "%"),
            Head("energy", "J/request"),
            Head("quality", "of joules"),
            Head("power", "W"),
            Head("undominated", "with energy"),
            Head("undominated", "without"),
        ],
        [_point_row(point) for point in case.points],
        note="Means over the trials with half-widths of their 95 % intervals, which tell how far"
        " the seeds differ and nothing of how good the profile is. Joules are all joules, idle"
        " included, over answered requests. Undominated: among these configurations, in accuracy,"
        " cost and mean latency, with energy and without.",
    )


def _point_row(point: Point) -> Row:
    found = point.configuration
    return Row(
        f"{found.key}  {found.label}",
        [
            Cell(fixed(point.accuracy, 4), key=_key(point.accuracy)),
            point.cost_cores,
            _estimate(point.latency_s),
            _estimate(point.latency_p99_s),
            _estimate(point.sla_attainment, percent=True),
            _estimate(point.joules_per_request),
            Cell(point.quality or "none", quiet=True),
            _estimate(point.power_w),
            _yes(point.on_front),
            _yes(point.on_front_without_energy),
        ],
        detail=found.origin,
    )


def _estimate(found: Estimate, *, percent: bool = False) -> Cell:
    factor = 100.0 if percent else 1.0
    value, ci95 = factor * found.value, factor * found.ci95
    text = fixed(value, 1) if percent else significant(value)
    if math.isnan(value):
        return Cell(text, note=found.reason or "")
    half = fixed(ci95, 1) if percent else significant(ci95, 2)
    return Cell(text, note="" if math.isnan(ci95) else f"±{half}", key=value)


def _key(value: float) -> float | None:
    return None if math.isnan(value) else value


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def correlation_table(found: Sequence[Correlation]) -> Table:
    """Coefficients with their intervals: a row a question, a column a method."""
    columns = list(dict.fromkeys((one.method, one.over) for one in found))
    by_place = {(one.x, one.y, one.given, one.method, one.over): one for one in found}
    questions = dict.fromkeys((one.x, one.y, one.given) for one in found)
    rows = []
    for x, y, given in questions:
        cells = [by_place.get((x, y, given, *column)) for column in columns]
        name = f"{NAMES.get(x, x)} and {NAMES.get(y, y)}"
        held = f"at fixed {NAMES.get(given, given)} (partial)" if given else ""
        rows.append(Row(name, [_coefficient(cell) for cell in cells], detail=held))
    return Table(
        "How far the objectives go together",
        "objectives",
        [Head(method.capitalize(), OVER.get(over, over)) for method, over in columns],
        rows,
        note="Small figures are 95 % intervals (Fisher's) or the reason why there is none. They"
        " read the configurations as if drawn at random; over every plan there is nothing to"
        " infer.",
    )


def _coefficient(found: Correlation | None) -> Cell:
    if found is None:
        return Cell("–")
    if math.isnan(found.value):
        return Cell("undefined", note=found.reason or "")
    text = f"{found.value:+.2f}".replace("-", "−")
    if math.isnan(found.low):
        note = "" if found.over == "plans" else found.reason or ""
    else:
        note = f"{found.low:+.2f} to {found.high:+.2f}".replace("-", "−")
    return Cell(text, note=note, key=found.value)


def front_table(counts: OnlyEnergy, volume: Hypervolume | None) -> Table:
    """What the exact front has with energy and without it."""
    rows = [
        Row("undominated plans", _pair(counts.front, counts.front_without_energy)),
        Row(
            "optimal for some weights",
            [counts.supported, counts.supported_without_energy, counts.only_supported],
            detail="of the objective, all at least 0",
        ),
    ]
    if volume:
        gain = Cell(f"{100 * volume.gain:+.2f} %".replace("-", "−"), key=volume.gain)
        exact = "" if volume.is_exact else "fronts thinned: lower bounds"
        cells: list[Cell | str | float | None] = [volume.with_energy, volume.without_energy, gain]
        rows.append(Row("hypervolume, share of the box", cells, detail=exact))
    return Table(
        "What energy adds to the space of plans",
        "by the profile",
        [Head("energy counts"), Head("energy does not"), Head("only with it")],
        rows,
        note="Over every feasible plan at this load. Plans that no objective tells apart count"
        " once. Both hypervolumes are of accuracy, cost, latency and joules per request in one"
        " box.",
    )


def _pair(with_energy: int, without: int) -> list[Cell | str | float | None]:
    return [with_energy, without, with_energy - without]


def optimum_table(found: MapRow, title: str) -> Table:
    """The optimal plans of one load by rising weight."""
    return Table(
        title,
        "plan",
        [
            Head("energy weight", "from"),
            Head("to"),
            Head("accuracy"),
            Head("cost", "cores"),
            Head("latency", "s"),
            Head("energy", "J/request"),
            Head("quality", "of joules"),
        ],
        [
            Row(
                segment.plan.label,
                [
                    segment.weight_from,
                    Cell("∞", key=math.inf) if math.isinf(segment.weight_to) else segment.weight_to,
                    Cell(fixed(segment.plan.accuracy_raw, 4), key=segment.plan.accuracy_raw),
                    segment.plan.cost_cores,
                    segment.plan.latency_s,
                    segment.plan.joules_per_request,
                    Cell(segment.plan.quality or "none", quiet=True),
                ],
            )
            for segment in found.segments
        ],
        note="Thresholds are exact: they are found where the lines of two plans cross, not on a"
        " grid of weights.",
    )


def map_table(found: PlanMap) -> Table:
    """Where on the map each choice of options is optimal."""
    rows = []
    for row in found.rows:
        if not row.segments:
            rows.append(Row(f"{row.load_rps:g} rps", [row.reason or "no plan", None, None, None]))
        for segment in row.segments:
            plan = segment.plan
            rows.append(
                Row(
                    f"{row.load_rps:g} rps",
                    [
                        Cell(plan.label),
                        Cell(range_of(segment), key=segment.weight_from),
                        plan.joules_per_request,
                        Cell(fixed(plan.accuracy_raw, 4), key=plan.accuracy_raw),
                    ],
                )
            )
    heads = [Head("plan"), Head("energy weight"), Head("energy", "J/request"), Head("accuracy")]
    return Table("Thresholds at every load", "load", heads, rows)


def hardware_table(found: HardwareComparison) -> Table:
    """What each profile picks."""
    quality = {profile.profile: profile for profile in found.profiles}
    rows = []
    for pick in found.picks:
        profile, plan = quality[pick.profile], pick.plan
        cells: list[Cell | str | float | None] = [
            f"{pick.load_rps:g}",
            weight_words(pick.energy_weight),
            plan.label if plan else Cell(pick.reason or "no plan"),
        ]
        if plan:
            cells += [
                plan.joules_per_request,
                Cell(profile.quality or "none", note=profile.meter or "", quiet=True),
                Cell(fixed(plan.accuracy_raw, 4), key=plan.accuracy_raw),
                plan.cost_cores,
                plan.latency_s,
            ]
        else:
            cells += [None] * 5
        rows.append(Row(pick.profile, cells, detail=profile.hardware))
    heads = [Head("load", "rps"), Head("energy weight"), Head("plan"), Head("energy", "J/request")]
    heads += [Head("quality", "of joules"), Head("accuracy")]
    heads += [Head("cost", "cores"), Head("latency", "s")]
    return Table("What each hardware picks", "profile", heads, rows)
