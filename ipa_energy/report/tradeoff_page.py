"""A trade-off study to look at; :func:`~.page.write_page` and ``write_images`` make files of it.

Its figures of optimal plans over energy weight and load, of several profiles, and along the exact
front are here; those of the configurations are :mod:`.case_figures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ipa_energy.records import joules_from
from ipa_energy.report.case_figures import case_figures
from ipa_energy.report.figure import Axis, Bars, Figure, Mark, Points, Scale, Symbol, key_of
from ipa_energy.report.page import (
    Facts,
    Page,
    Section,
    as_title,
    meanings,
    notices,
    setting_text,
)
from ipa_energy.report.palette import Dash, scale_color
from ipa_energy.tradeoff.plan_map import HardwareComparison, PlanMap, Segment
from ipa_energy.tradeoff.plan_space import PlanFigures
from ipa_energy.tradeoff.sensitivity import Sensitivity
from ipa_energy.tradeoff.sentences import feasible_words, sensitivity_sentences
from ipa_energy.tradeoff.study import Case, Study
from ipa_energy.tradeoff.study_tables import (
    case_tables,
    exchange_table,
    hardware_table,
    map_table,
    range_of,
    weight_words,
)


def tradeoff_page(study: Study) -> Page:
    """The page of a study."""
    first, *others = study.answer or ("A trade-off study.",)
    sections = [Section(title="The answer", points=others)] if others else []
    if study.warnings:
        sections.append(Section(title="What limits it", points=study.warnings, kind="warning"))
    several = len(study.cases) > 1
    for index, case in enumerate(study.cases, start=1):
        suffix = key_of(f"{index}", case.name) if several else ""
        sections += [*_case_sections(case, suffix), *_sensitivity(case, study, suffix)]
    sections += _map_sections(study)
    sections.append(_provenance(study))
    return Page(
        kind=f"Trade-off study: {study.pipeline}",
        title=as_title(first[:1].upper() + first[1:]),
        name=f"Trade-off study: {study.pipeline}",
        sections=sections,
    )


def _case_sections(case: Case, suffix: str) -> list[Section]:
    """What was run, as a table of the configurations that the pictures after it name."""
    load = f"{case.load_rps:g} requests per second"
    if case.peak_rps != case.lowest_rps:
        load = f"{case.lowest_rps:g} to {case.peak_rps:g}, on average {load}"
    text = [
        f"{load} for {case.duration_s} s, end-to-end latency SLA {case.latency_sla_s:.3g} s."
        f" By the profile {feasible_words(case)}.",
    ]
    if case.conflict is not None:
        text.append(f"No plan is feasible: {case.conflict}")
    tables = case_tables(case)
    first = tables[: bool(case.points)]
    return [
        Section(
            title=f"At {case.name}",
            text=text,
            points=[f"Not run: {one.name}: {one.reason}" for one in case.skipped],
            tables=first,
        ),
        Section(
            title=f"Pictures and numbers at {case.name}",
            figures=case_figures(case, suffix) if case.points else (),
            tables=tables[len(first) :],
        ),
    ]


def _sensitivity(case: Case, study: Study, suffix: str) -> list[Section]:
    analysis = study.sensitivity.get(case.name)
    if analysis is None:
        return []
    joules = joules_from(study.quality, study.meter)
    figure, table = front_figure(analysis, case.name, suffix, joules), exchange_table(analysis)
    return [
        Section(
            title=f"Sensitivity at {case.name}",
            points=sensitivity_sentences(analysis),
            tables=[table] if table else (),
            figures=[figure] if figure else (),
        )
    ]


def _map_sections(study: Study) -> list[Section]:
    sections = []
    if study.plan_map is not None:
        sections.append(
            Section(
                title="Plan map",
                figures=[plan_map_figure(study.plan_map, joules_from(study.quality, study.meter))],
                tables=[map_table(study.plan_map)],
            )
        )
    if study.hardware_comparison is not None:
        sections.append(
            Section(
                title="Hardware",
                figures=[hardware_figure(study.hardware_comparison)],
                tables=[hardware_table(study.hardware_comparison)],
            )
        )
    return sections


def _provenance(study: Study) -> Section:
    return Section(
        title="Provenance",
        text=[*meanings([study.quality]), *notices([study.meter]), study.selection],
        facts=[
            Facts("Study", _study_facts(study)),
            Facts("Objective", {key: setting_text(value) for key, value in study.settings.items()}),
            *(
                Facts(
                    f"Profile {profile.profile}",
                    {
                        "hardware": profile.hardware,
                        "joules": joules_from(profile.quality, profile.meter) or "none",
                        "options": str(profile.options),
                        "latency SLA": f"{profile.latency_sla_s:.3g} s",
                    },
                )
                for profile in (
                    study.hardware_comparison.profiles if study.hardware_comparison else ()
                )
            ),
        ],
    )


def _study_facts(study: Study) -> Mapping[str, str]:
    return {
        "joules": joules_from(study.quality, study.meter) or "none in the profile",
        "profile": study.profile,
        "hardware": study.hardware or "not recorded",
        "backend": study.backend,
        "trials": f"{study.trials} of each configuration, seeds from {study.seed}",
        "versions": ", ".join(f"{name} {version}" for name, version in study.versions.items()),
    }


MOST_ENTRIES = 12
"""More plans than this are told by hover and table, not by a legend."""

ROW_PX = 17
BEYOND = 2.5
"""The map ends at this multiple of its largest threshold: nothing changes beyond."""

_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")
_SYMBOLS: tuple[Symbol, ...] = ("circle", "square", "diamond")


def plan_map_figure(found: PlanMap, joules: str) -> Figure:
    """Strips of optimal plans over the weight, one a load.

    Args:
        found: the map.
        joules: where the joules of the profile come from.
    """
    thresholds = sorted(weight for row in found.rows for weight in row.thresholds if weight > 0)
    end = BEYOND * thresholds[-1] if thresholds else 1.0
    middle = float(np.median(thresholds)) if thresholds else 1.0
    linear_below = max(middle / 10, end / 1e4)
    unit = "W" if found.energy_metric == "watts" else "J/request"
    few = len(found.options) <= MOST_ENTRIES
    told = (
        ""
        if few
        else (" Which plan it is stands in each strip's hover, in the table below and in the CSV.")
    )
    return Figure(
        key="plan-map",
        title="The optimal plan over energy weight and load",
        caption="Each strip is a load, each change of colour a threshold at which the optimal plan"
        " changes, found exactly; the colour is the plan's place by joules per request among all"
        f" {len(found.options)}, held against the most frugal one of each load: dark ones need few."
        f" The last plan of a strip stays optimal for every larger weight.{told}",
        marks=[
            _strips(found, options, color, legend=few, joules=joules)
            for options, color in enumerate(_colors(found))
        ],
        x=Axis(
            f"energy weight (objective per {unit})",
            low=0.0,
            high=end,
            ticks=_ticks(linear_below, end),
            linear_below=linear_below,
        ),
        y=Axis("load (requests/s)", categories=tuple(f"{row.load_rps:g}" for row in found.rows)),
        scale=Scale("plans by joules, 1: fewest", 1, max(2, len(found.options)), areas=True),
        overlay=True,
        height=90 + ROW_PX * max(4, len(found.rows)),
    )


def _strips(found: PlanMap, options: int, color: str, *, legend: bool, joules: str) -> Bars:
    here = [
        (row, segment)
        for row in found.rows
        for segment in row.segments
        if segment.options == options
    ]
    return Bars(
        name=found.options[options],
        places=[f"{row.load_rps:g}" for row, _ in here],
        starts=[segment.weight_from for _, segment in here],
        lengths=[segment.weight_to - segment.weight_from for _, segment in here],
        labels=[segment.plan.label for _, segment in here],
        hover=[_hover(segment) for _, segment in here],
        color=color,
        legend=legend,
        joules=joules,
    )


def _hover(segment: Segment) -> str:
    plan = segment.plan
    return (
        f"weight {range_of(segment)}\n{plan.joules_per_request:.4g} J/request ({plan.quality}),"
        f" accuracy {plan.accuracy_raw:.4f}\n{plan.cost_cores:g} cores, latency"
        f" {plan.latency_s:.3f} s"
    )


def _colors(found: PlanMap) -> list[str]:
    """Of each plan by its joules relative to the most frugal of its load, fewest dark."""
    relative: list[list[float]] = [[] for _ in found.options]
    for row in found.rows:
        joules = [segment.plan.joules_per_request for segment in row.segments]
        for segment, own_j in zip(row.segments, joules, strict=True):
            relative[segment.options].append(own_j / min(joules))
    order = np.argsort([np.mean(ratios) for ratios in relative], kind="stable").tolist()
    last = max(1, len(order) - 1)
    rank = {options: place for place, options in enumerate(order)}
    return [scale_color(rank[options] / last) for options in range(len(order))]


def _ticks(linear_below: float, end: float) -> tuple[tuple[float, str], ...]:
    """Zero, then 1, 2 and 5 of every power of ten, as many as stand clear of each other."""
    axis = Axis("", linear_below=linear_below)
    whole = float(axis.places([end])[0])
    powers = range(math.floor(math.log10(linear_below)) - 1, math.ceil(math.log10(end)) + 1)
    kept = [0.0]
    for value in (factor * 10.0**power for power in powers for factor in (1, 2, 5)):
        here, before = axis.places([value, kept[-1]])
        if value <= end and (here - before) / whole > 0.055:
            kept.append(value)
    return tuple((value, f"{value:.6g}") for value in kept)


def hardware_figure(found: HardwareComparison) -> Figure:
    """Joules per request that each profile's optimum needs, over load."""
    quality = {profile.profile: profile.quality for profile in found.profiles}
    weights = sorted({pick.energy_weight for pick in found.picks})
    marks: list[Mark] = []
    for index, profile in enumerate(found.profiles):
        for place, weight in enumerate(weights):
            picks = [
                (pick.load_rps, pick.plan)
                for pick in found.picks
                if (pick.profile, pick.energy_weight) == (profile.profile, weight) and pick.plan
            ]
            kind = quality[profile.profile]
            marks.append(
                Points(
                    name=f"{profile.profile} ({kind}), {weight_words(weight)}",
                    x=[load_rps for load_rps, _ in picks],
                    y=[plan.joules_per_request for _, plan in picks],
                    labels=[plan.label for _, plan in picks],
                    hover=[
                        f"accuracy {plan.accuracy_raw:.4f}, {plan.cost_cores:g} cores, latency"
                        f" {plan.latency_s:.3f} s"
                        for _, plan in picks
                    ],
                    color=f"run{index}",
                    hollow=kind == "estimated",
                    joules=joules_from(kind, profile.meter),
                    symbol=_SYMBOLS[place % 3],
                    joined=True,
                    dash=_DASHES[place % 3],
                    size=9,
                )
            )
    return Figure(
        key="hardware",
        title="Joules per request by hardware",
        caption="What the optimal plan of each profile needs, by the profile, over load; one line a"
        " profile and energy weight. Hollow points are estimated joules, filled ones measured or"
        " imported: two meters are not one scale.",
        marks=marks,
        x=Axis("load (requests/s)"),
        y=Axis("energy (J/request)", from_zero=True),
        height=340,
    )


LATENCY = "latency of the plan (s)"


def front_figure(found: Sensitivity, case_name: str, suffix: str, joules: str) -> Figure | None:
    """Joules over accuracy along the exact front; None without a front or joules.

    Args:
        found: the analysis.
        case_name: of its load.
        suffix: of the figure's key; "" if there is one load.
        joules: where the joules of the profile come from.
    """
    front = found.front
    if front is None or not front.has_energy:
        return None
    latencies_s = [plan.latency_s for plan in (*front.plans, found.plan)]
    part = "" if len(front.plans) == front.size else f"{len(front.plans):,} of "
    return Figure(
        key=key_of("front", *([suffix] if suffix else [])),
        title="The exact Pareto front"
        + (f", {case_name}" if suffix else "")
        + (f" ({part}{front.size:,} plans)" if part else ""),
        caption=f"The {part}{front.size:,} plans that no other plan beats in accuracy, cost,"
        " latency and energy together, by the profile; the star is the chosen plan. Down and to the"
        " right is better; a plan above the others is faster or cheaper, as its hover tells. Joules"
        f" are {found.quality}.",
        marks=[
            _plans(f"{part}{front.size:,} undominated plans", list(front.plans), found, joules),
            _plans("the chosen plan", [found.plan], found, joules, chosen=True),
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
    joules: str,
    *,
    chosen: bool = False,
) -> Points:
    return Points(
        name=name,
        x=[plan.accuracy for plan in plans],
        y=[plan.joules_per_request for plan in plans],
        values=[plan.latency_s for plan in plans],
        labels=[plan.label for plan in plans],
        hover=[f"{plan.cost_cores:g} cores\njoules {found.quality}" for plan in plans],
        hollow=found.quality == "estimated",
        symbol="star" if chosen else "circle",
        size=17 if chosen else 9,
        color="muted",
        joules=joules,
    )
