"""The tables of a study, for page, terminal and files alike, and the study as text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file
from ipa_energy.records import NOTATION, notice_of
from ipa_energy.registries import QUANTITIES
from ipa_energy.tables import (
    Cell,
    Head,
    Row,
    Table,
    Value,
    counted,
    fixed,
    percent,
    signed,
    significant,
    table_csv,
    table_text,
    wrapped,
)
from ipa_energy.tradeoff.correlation import Correlation
from ipa_energy.tradeoff.energy_added import HeldPlan, Hypervolume, OnlyEnergy, Yardstick
from ipa_energy.tradeoff.plan_map import HardwareComparison, MapRow, PlanMap, Segment
from ipa_energy.tradeoff.prices import Exchange, Offer
from ipa_energy.tradeoff.sensitivity import Sensitivity
from ipa_energy.tradeoff.sentences import TRADE_OFF_BOX, feasible_words, sensitivity_sentences
from ipa_energy.tradeoff.study import Case, Study
from ipa_energy.tradeoff.trials import Estimate, Point

WIDTH = 100
"""Columns at which sentences wrap on a terminal."""

NAMES = {
    "accuracy": "accuracy",
    "cost_cores": "cost",
    "latency_s": "latency",
    "joules_per_request": "energy",
}
OVER = {"points": "as run", "plans": "every feasible plan"}

GIVEN = {
    "accuracy": ("accuracy", "points"),
    "latency_s": ("latency", "s"),
    "cost_cores": ("cost", "cores"),
}
"""Name and unit of what is given up; accuracy is shown in points, a hundredth of it each."""

ESTIMATES = (
    "latency_s",
    "latency_p99_s",
    "sla_attainment",
    "answered",
    "joules_per_request",
    "power_w",
)
"""Figures of a point that have an interval: a column each in the CSV, and one named ``…_ci95``."""

CSV_COLUMNS = (
    *("case", "load_rps", "key", "name", "configuration", "origin", "trials"),
    *("accuracy", "cost_cores"),
    *(column for name in ESTIMATES for column in (name, f"{name}_ci95")),
    *("profile_ci95_j", "meter", "quality", "on_front", "on_front_without_energy"),
    *("planned_joules_per_request", "least_joules_without_energy", "notice"),
)

_PLAN = (
    Head("accuracy", digits=4),
    Head("cost", "cores"),
    Head("latency", "s"),
    Head("energy", "J/request"),
    Head("quality", "of joules"),
)
"""Columns of a plan's own figures."""


def points_table(case: Case) -> Table:
    """The configurations as run."""
    return Table(
        "Configurations",
        "configuration",
        [
            Head("accuracy", digits=4),
            Head("cost", "cores"),
            Head("latency", "mean, s"),
            Head("latency", "p99, s", wide=True),
            Head("in SLA", "%"),
            Head("energy", "J/request"),
            Head("quality", "of joules"),
            Head("power", "W", wide=True),
            Head("undominated", "with energy"),
            Head("undominated", "without"),
            *(Head(name, unit_of(name)) for name in _further(case)),
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
            point.accuracy,
            point.cost_cores,
            _estimate(point.latency_s),
            _estimate(point.latency_p99_s),
            _estimate(point.sla_attainment, percent=True),
            _estimate(point.joules_per_request),
            _quality(point.quality),
            _estimate(point.power_w),
            point.on_front,
            point.on_front_without_energy,
            *map(_estimate, point.amounts.values()),
        ],
        detail=found.origin,
    )


def _further(case: Case) -> Sequence[str]:
    """Quantities that the points have beyond the four objectives."""
    return tuple(case.points[0].amounts) if case.points else ()


def unit_of(quantity: str) -> str:
    """The unit of a registered quantity; "" if it is not known."""
    return QUANTITIES[quantity].unit if quantity in QUANTITIES else ""


def _quality(quality: str | None, meter: str | None = None) -> Cell:
    return Cell(quality or "none", note=meter or "", quiet=True)


def _estimate(found: Estimate, *, percent: bool = False) -> Cell:
    factor = 100.0 if percent else 1.0
    value, ci95 = factor * found.value, factor * found.ci95
    text = fixed(value, 1) if percent else significant(value)
    if math.isnan(value):
        return Cell(text, reason=found.reason or "")
    half = fixed(ci95, 1) if percent else significant(ci95, 2)
    return Cell(text, note="" if math.isnan(ci95) else f"±{half}", key=value)


def correlation_table(found: Sequence[Correlation]) -> Table:
    """Coefficients with their intervals: a row a question, a column a method."""
    columns = list(dict.fromkeys((one.method, one.over) for one in found))
    by_place = {(one.x, one.y, one.given, one.method, one.over): one for one in found}
    rows = []
    for x, y, given in dict.fromkeys((one.x, one.y, one.given) for one in found):
        cells = [by_place.get((x, y, given, *column)) for column in columns]
        held = f" at fixed {NAMES.get(given, given)}" if given else ""
        name = f"{NAMES.get(x, x)} and {NAMES.get(y, y)}{held}"
        rows.append(Row(name, [_coefficient(cell) for cell in cells]))
    return Table(
        "How far the objectives go together",
        "correlation (95 %)",
        [Head(method.capitalize(), OVER.get(over, over)) for method, over in columns],
        rows,
        note="Small figures are 95 % intervals (Fisher's) or the reason why there is none. They"
        " read the configurations as if drawn at random; over every plan there is nothing to"
        " infer. Correlations at fixed latency are partial ones.",
    )


def _coefficient(found: Correlation | None) -> Cell | None:
    if found is None:
        return None
    if math.isnan(found.value):
        return Cell("undefined", reason=found.reason or "")
    text = signed(found.value, "+.2f")
    if math.isnan(found.low):
        reason = "" if found.over == "plans" else found.reason or ""
        return Cell(text, key=found.value, reason=reason)
    interval = f"{signed(found.low, '+.2f')} to {signed(found.high, '+.2f')}"
    return Cell(text, note=interval, key=found.value)


def front_table(counts: OnlyEnergy, volume: Hypervolume | None) -> Table:
    """What the exact front has with energy and without it."""
    rows = [
        Row(
            "undominated plans",
            [counts.front, counts.front_without_energy, counts.only_front],
        ),
        Row(
            "optimal for some weights",
            [counts.supported, counts.supported_without_energy, counts.only_supported],
            detail="of the objective, all at least 0",
        ),
    ]
    if volume:
        gain = Cell(f"{signed(100 * volume.gain, '+.2f')} %", key=volume.gain)
        exact = "" if volume.is_exact else "fronts thinned: lower bounds"
        cells: list[Cell | Value] = [volume.with_energy, volume.without_energy, gain]
        rows.append(Row("hypervolume, share of the trade-off box", cells, detail=exact))
    return Table(
        "What energy adds to the space of plans",
        "by the profile",
        [Head("energy counts"), Head("energy does not"), Head("only with it")],
        rows,
        note="Over every feasible plan at this load. Plans that no objective tells apart count"
        f" once. Both hypervolumes are shares of one box. {TRADE_OFF_BOX}",
    )


def optimum_table(found: MapRow, quantity: str) -> Table:
    """The optimal plans of one load by rising weight on energy or a further quantity."""
    further = tuple(found.segments[0].plan.amounts)
    return Table(
        f"The optimal plan over the {quantity} weight",
        "plan",
        [
            Head(f"{quantity} weight", "from"),
            Head("to"),
            *_PLAN,
            *(Head(name, unit_of(name)) for name in further),
        ],
        [
            Row(
                segment.plan.label,
                [
                    segment.weight_from,
                    segment.weight_to,
                    *_figures(segment),
                    *(segment.plan.amounts.get(name) for name in further),
                ],
            )
            for segment in found.segments
        ],
        note="Thresholds are exact: they are found where the lines of two plans cross, not on a"
        " grid of weights.",
    )


def _figures(segment: Segment) -> list[Cell | Value]:
    plan = segment.plan
    return [
        plan.accuracy_raw,
        plan.cost_cores,
        plan.latency_s,
        plan.joules_per_request,
        _quality(plan.quality),
    ]


def yardstick_table(found: Yardstick) -> Table:
    """The optimal plans with energy against the best without it at the same accuracy."""
    return Table(
        "Against the best plans of other weights",
        "plan with energy",
        [
            Head("energy weight"),
            Head("accuracy", digits=4),
            Head("energy", "J/request"),
            Head("without", "J/request"),
            Head("difference"),
        ],
        [
            Row(
                plan.label,
                [
                    Cell(range_of(plan), key=plan.weight_from),
                    plan.accuracy,
                    plan.joules_per_request,
                    plan.without_j,
                    percent(-plan.saving),
                ],
            )
            for plan in found.plans
        ],
        note="Without: least joules at the same accuracy that plans without energy in the objective"
        " reach at this load, at any ratio of alpha to the prices, with other prices, or by IPA's"
        " baselines; time is shared between"
        f" {counted(len(found.without.corners), 'plan')} of theirs.",
    )


def map_table(found: PlanMap) -> Table:
    """Where on the map each choice of options is optimal."""
    rows = []
    for row in found.rows:
        name = f"{row.load_rps:g} rps"
        if not row.segments:
            rows.append(Row(name, [row.reason or "no plan", None, None, None]))
        rows += [
            Row(
                name,
                [
                    segment.plan.label,
                    Cell(range_of(segment), key=segment.weight_from),
                    segment.plan.joules_per_request,
                    segment.plan.accuracy_raw,
                ],
            )
            for segment in row.segments
        ]
    heads = [Head("plan"), Head("energy weight")]
    heads += [Head("energy", "J/request"), Head("accuracy", digits=4)]
    return Table("Thresholds at every load", "load", heads, rows)


def range_of(segment: Segment | HeldPlan) -> str:
    """``0 to 2.8``, ``19.5 and more``."""
    if math.isinf(segment.weight_to):
        return f"{segment.weight_from:.4g} and more"
    return f"{segment.weight_from:.4g} to {segment.weight_to:.4g}"


def weight_words(weight: float) -> str:
    """``weight 2``; what an infinite one means."""
    return "fewest joules possible" if math.isinf(weight) else f"weight {weight:g}"


def hardware_table(found: HardwareComparison) -> Table:
    """What each profile picks."""
    profiles = {profile.profile: profile for profile in found.profiles}
    rows = []
    for pick in found.picks:
        profile, plan = profiles[pick.profile], pick.plan
        cells: list[Cell | Value] = [f"{pick.load_rps:g}", weight_words(pick.energy_weight)]
        if plan is None:
            cells += [pick.reason or "no plan", *[None] * 5]
        else:
            cells += [plan.label, plan.accuracy_raw, plan.cost_cores, plan.latency_s]
            cells += [plan.joules_per_request, _quality(profile.quality, profile.meter)]
        rows.append(Row(pick.profile, cells, detail=profile.hardware))
    heads = [Head("load", "rps"), Head("energy weight"), Head("plan"), *_PLAN]
    return Table("What each hardware picks", "profile", heads, rows)


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
        [_exchange_row(exchange) for exchange in found.exchanges.at_plan],
        note=f"From {found.plan.label}"
        f" ({significant(found.plan.joules_per_request)} J per request, {found.quality}), each of"
        " the three given up alone. Exact: over every plan of the profile.",
    )


def _exchange_row(exchange: Exchange) -> Row:
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
    return f"{value:.3g} {unit.removesuffix('s') if value == 1 and len(unit) > 1 else unit}"


def _saved(offer: Offer | None) -> Cell:
    if offer is None or math.isnan(offer.saved_j):
        return Cell("nothing", key=0.0)
    return Cell(significant(offer.saved_j), key=offer.saved_j)


def case_tables(case: Case) -> list[Table]:
    """The tables of one load that have anything in them."""
    tables: list[Table] = []
    if case.points:
        tables.append(points_table(case))
    if case.yardstick is not None:
        tables.append(yardstick_table(case.yardstick))
    if case.correlations:
        tables.append(correlation_table(case.correlations))
    if case.only_energy is not None:
        tables.append(front_table(case.only_energy, case.hypervolume))
    if case.optimum is not None and case.optimum.segments:
        tables.append(optimum_table(case.optimum, "energy"))
    for name, row in case.optima.items():
        if row.segments:
            tables.append(optimum_table(row, name))
    return tables


def study_text(study: Study, *, width: int | None = None) -> str:
    """The whole study for a terminal: the answer, then the tables it rests on.

    Args:
        study: what to show.
        width: characters of a line; None: sentences wrap at 100, tables not at all.
    """

    def titled(table: Table) -> str:
        return f"{table.title}\n\n{table_text(table, width=width)}"

    def bullet(sentence: str) -> str:
        is_key = "_" in sentence.partition(" ")[0]  # of the YAML: stays as it is
        return textwrap.fill(
            sentence if is_key else f"{sentence[:1].upper()}{sentence[1:]}",
            min(WIDTH, width or WIDTH),
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )

    parts = [
        f"{study.pipeline} on {study.profile}, {counted(study.trials, 'trial')} of each"
        f" configuration, seed {study.seed}\nplans: {NOTATION}",
        "\n".join(map(bullet, study.answer)),
    ]
    for case in study.cases:
        parts.append(f"{case.name} for {case.duration_s} s: {feasible_words(case)} by the profile")
        parts += [titled(table) for table in case_tables(case)]
    if study.hardware_comparison is not None:
        parts.append(titled(hardware_table(study.hardware_comparison)))
    for name, analysis in study.sensitivity.items():
        found = "\n".join(map(bullet, sensitivity_sentences(analysis)))
        parts.append(f"Sensitivity at {name}\n\n{found}")
    if study.warnings:
        parts.append("\n".join(wrapped(f"note: {one}", width) for one in study.warnings))
    if notice := notice_of(study.meter):
        parts.append(wrapped(f"The joules of the profile are {notice}.", width))
    return "\n\n".join(parts)


def write_points(study: Study, path: Path) -> None:
    """Write the points as CSV, a row a load and configuration; nothing where nothing is known.

    Raises:
        ConfigError: it cannot be written there.
    """
    further = tuple(dict.fromkeys(name for case in study.cases for name in _further(case)))
    corner, *titles = CSV_COLUMNS
    titles += [column for name in further for column in (name, f"{name}_ci95")]
    rows = [
        Row(case.name, list(_csv_row(case, point, further)))
        for case in study.cases
        for point in case.points
    ]
    try:
        with whole_file(path) as file:
            file.write(table_csv(Table("points", corner, [Head(title) for title in titles], rows)))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=path) from error


def _csv_row(case: Case, point: Point, further: Sequence[str]) -> Iterator[Value]:
    found = point.configuration
    estimates: list[Estimate] = [getattr(point, name) for name in ESTIMATES]
    yield from (case.load_rps, found.key, found.name, found.label, found.origin)
    yield from (estimates[0].trials, point.accuracy, point.cost_cores)
    for estimate in estimates:
        yield from (estimate.value, estimate.ci95)
    yield from (found.profile_ci95_j, point.meter, point.quality)
    yield from (point.on_front, point.on_front_without_energy)
    plan, held = found.plan, case.yardstick
    yield plan.joules_per_request
    yield held.least_j(plan.accuracy_raw) if held else math.nan
    yield notice_of(point.meter)
    for name in further:
        estimate = point.amounts[name]
        yield from (estimate.value, estimate.ci95)
