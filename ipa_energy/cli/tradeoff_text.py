"""A trade-off study on a terminal: the answer, then the tables it rests on."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ipa_energy.cli.output import decimals, text_table
from ipa_energy.tradeoff.sentences import coefficient, sensitivity_sentences

if TYPE_CHECKING:
    from ipa_energy.tradeoff.correlation import Correlation
    from ipa_energy.tradeoff.plan_map import HardwareComparison, MapRow
    from ipa_energy.tradeoff.study import Case, Study
    from ipa_energy.tradeoff.trials import Estimate


WIDTH = 100
"""Columns at which sentences wrap."""


def study_text(study: Study) -> str:
    """The whole study as text."""
    parts = [
        f"{study.pipeline} on {study.profile}, {study.trials} trials of each configuration,"
        f" seed {study.seed}",
        "\n".join(map(_bullet, study.answer)),
    ]
    for case in study.cases:
        parts += _case_parts(case)
    if study.hardware_comparison is not None:
        parts += [_hardware_part(study.hardware_comparison)]
    for name, analysis in study.sensitivity.items():
        parts += [f"sensitivity at {name}\n" + "\n".join(sensitivity_sentences(analysis))]
    if study.warnings:
        parts.append("\n".join(f"note: {warning}" for warning in study.warnings))
    return "\n\n".join(parts)


def _bullet(sentence: str) -> str:
    text = f"{sentence[:1].upper()}{sentence[1:]}"
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _case_parts(case: Case) -> Iterator[str]:
    plans = f"{case.feasible_plans:,} of {case.plans:,} plans keep the SLAs by the profile"
    if not case.is_counted:
        plans = f"about {plans}"
    yield f"{case.name} for {case.duration_s} s: {plans}"
    if case.points:
        yield _points_table(case)
    if case.correlations:
        yield _correlation_table(case)
    if case.optimum is not None and case.optimum.segments:
        yield _optimum_table(case.optimum)


def _points_table(case: Case) -> str:
    rows = [
        [
            f"{point.configuration.key}  {point.configuration.label}",
            decimals(point.accuracy, 4),
            f"{point.cost_cores:g}",
            _estimate(point.latency_s, 3),
            _estimate(point.sla_attainment, 1, 100.0),
            _estimate(point.joules_per_request, 3),
            point.quality or "–",
            _front_mark(point.on_front, point.on_front_without_energy),
        ]
        for point in case.points
    ]
    header = ["configuration", "accuracy", "cores", "latency s", "in SLA %", "J/request"]
    return text_table([*header, "joules are", "undominated"], rows)


def _front_mark(seeing: bool | None, blind: bool | None) -> str:
    if seeing is None:
        return "yes" if blind else "no"
    if not seeing:
        return "no"
    return "yes" if blind else "with energy"


def _estimate(found: Estimate, digits: int, scale: float = 1.0) -> str:
    text = decimals(scale * found.value, digits)
    return text if math.isnan(found.ci95) else f"{text} ±{scale * found.ci95:.{digits}f}"


def _correlation_table(case: Case) -> str:
    pairs = dict.fromkeys((found.x, found.y, found.given) for found in case.correlations)
    found = {(c.x, c.y, c.given, c.over, c.method): c for c in case.correlations}
    columns = dict.fromkeys((c.over, c.method) for c in case.correlations)
    rows = []
    for x, y, given in pairs:
        cells = [found.get((x, y, given, *column)) for column in columns]
        name = f"{x} ~ {y}" + (f" | {given}" if given else "")
        rows.append([name, *("–" if c is None or _is_none(c) else coefficient(c) for c in cells)])
    names = {"points": "as run", "plans": "every plan"}
    header = ["correlation (95 %)"]
    header += [f"{method}, {names[over]}" for over, method in columns]
    reasons = dict.fromkeys(c.reason for c in case.correlations if c.reason and _is_none(c))
    return "\n".join([text_table(header, rows), *(f"– {reason}" for reason in reasons)])


def _is_none(found: Correlation) -> bool:
    return math.isnan(found.value)


def _optimum_table(found: MapRow) -> str:
    rows = []
    for segment in found.segments:
        plan = segment.plan
        end = "∞" if math.isinf(segment.weight_to) else f"{segment.weight_to:.4g}"
        rows.append(
            [
                plan.label,
                f"{segment.weight_from:.4g}",
                end,
                decimals(plan.accuracy_raw, 4),
                f"{plan.cost_cores:g}",
                f"{plan.latency_s:.3f}",
                decimals(plan.joules_per_request, 3),
            ]
        )
    header = ["optimal plan", "energy weight from", "to", "accuracy", "cores", "latency s"]
    return text_table([*header, "J/request"], rows)


def _hardware_part(found: HardwareComparison) -> str:
    rows = []
    for pick in found.picks:
        weight = "energy alone" if math.isinf(pick.energy_weight) else f"{pick.energy_weight:g}"
        plan = pick.plan
        rows.append(
            [
                f"{pick.profile}  {plan.label if plan else pick.reason}",
                f"{pick.load_rps:g}",
                weight,
                decimals(plan.accuracy_raw, 4) if plan else "–",
                f"{plan.cost_cores:g}" if plan else "–",
                decimals(plan.joules_per_request, 3) if plan else "–",
                (plan.quality if plan else None) or "–",
            ]
        )
    header = ["profile and plan", "load rps", "energy weight", "accuracy", "cores", "J/request"]
    return text_table([*header, "joules are"], rows)
