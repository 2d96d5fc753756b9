"""The configurations of a trade-off study at one load: cost, accuracy, latency and energy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ipa_energy.records import joules_from
from ipa_energy.report.figure import Axis, Figure, Line, Mark, Points, Scale, key_of
from ipa_energy.tables import significant
from ipa_energy.tradeoff.study import Case
from ipa_energy.tradeoff.trials import Estimate, Point

MOST_ENTRIES = 14
"""So many configurations have a legend entry each; more share one, and the hover tells them."""

LOG_RATIO = 8.0
"""Values that differ by more than this factor are drawn on a logarithmic axis."""

INSIDE = "inside the SLA (%)"
ACCURACY = "accuracy"
COST = "cost (cores)"
LATENCY = "mean latency (s)"
ENERGY = "energy (J/request)"

OBJECTIVES: dict[str, tuple[Callable[[Point], float], Callable[[Point], float]]] = {
    ACCURACY: (lambda point: point.accuracy, lambda _: math.nan),
    COST: (lambda point: point.cost_cores, lambda _: math.nan),
    LATENCY: (lambda point: point.latency_s.value, lambda point: point.latency_s.ci95),
    ENERGY: (
        lambda point: point.joules_per_request.value,
        lambda point: point.joules_per_request.ci95,
    ),
}
"""Axis title → value and half-width of its interval."""


def case_figures(case: Case, suffix: str) -> list[Figure]:
    """The figures of one case, their keys ending in ``suffix`` if it is not empty."""
    trials = max((point.latency_s.trials for point in case.points), default=0)
    times = "trial" if trials == 1 else "trials"
    shared = (
        "Each point is a configuration, named in its hover and in the table of configurations; its"
        " colour is the share of requests answered inside the end-to-end SLA of"
        f" {case.latency_sla_s:.3g} s. Means of {trials} {times}, with 95 % intervals over the"
        " trials. Circles are undominated among these points in accuracy, cost, latency and energy,"
        " squares are not."
        f" {_fill_words(case)}"
    )
    return [
        _flat(case, (ACCURACY, COST), "Cost over accuracy", shared, suffix),
        _space(case, shared, suffix),
        _flat(case, (COST, ENERGY), "Energy against cost", shared, suffix),
        _flat(case, (ACCURACY, ENERGY), "Energy against accuracy", shared, suffix),
        _flat(case, (LATENCY, ENERGY), "Energy against latency", shared, suffix),
    ]


def _fill_words(case: Case) -> str:
    qualities = {point.quality for point in case.points if point.quality}
    if not qualities:
        return "The profile has no energy."
    return "Hollow points are estimated joules, filled ones measured or imported; these are " + (
        f"{' and '.join(sorted(qualities))}."
    )


def _flat(case: Case, titles: tuple[str, str], title: str, shared: str, suffix: str) -> Figure:
    """One objective over another, with the front of these two alone."""
    along, up = titles
    direction = "left" if along != ACCURACY else "right"
    front = _front_line(case.points, along, up)
    return Figure(
        key=key_of(*title.lower().split(), *([suffix] if suffix else [])),
        title=title + (f", {case.name}" if suffix else ""),
        caption=f"Down and to the {direction} is better. {shared}"
        + (" The dotted line joins those undominated in these two alone." if front else ""),
        marks=[*front, *_marks(case, along, up), *_keys(case)],
        x=_axis(case.points, along),
        y=_axis(case.points, up),
        scale=_scale(case.points),
        height=380,
    )


def _space(case: Case, shared: str, suffix: str) -> Figure:
    """Accuracy, cost and energy in three dimensions."""
    return Figure(
        key=key_of("cost", "accuracy", "energy", *([suffix] if suffix else [])),
        title="Cost, accuracy and energy" + (f", {case.name}" if suffix else ""),
        caption="In three dimensions; drag to turn, scroll to come closer. Down, to high accuracy"
        f" and to low cost is better; axes are logarithmic where values are far apart. {shared}",
        marks=[*_marks(case, ACCURACY, COST, ENERGY), *_keys(case, is_3d=True)],
        x=_axis(case.points, ACCURACY),
        y=_axis(case.points, COST),
        z=_axis(case.points, ENERGY),
        scale=_scale(case.points),
        height=560,
    )


def _marks(case: Case, *titles: str) -> list[Mark]:
    """The points, one mark each as long as a legend can name them."""
    shown = [
        point
        for point in case.points
        if not any(math.isnan(OBJECTIVES[title][0](point)) for title in titles)
    ]
    if len(shown) <= MOST_ENTRIES:
        return [
            _mark([point], f"{point.configuration.key}  {point.configuration.label}", titles)
            for point in shown
        ]
    groups: dict[tuple[bool, bool], list[Point]] = {}
    for point in shown:
        groups.setdefault((bool(_is_front(point)), point.quality == "estimated"), []).append(point)
    return [
        _mark(points, f"{'undominated' if front else 'dominated'} ({points[0].quality})", titles)
        for (front, _), points in groups.items()
    ]


def _mark(points: list[Point], name: str, titles: Sequence[str]) -> Points:
    columns: dict[str, Any] = {}
    for letter, title in zip("xyz", titles, strict=False):
        value, half_width = OBJECTIVES[title]
        columns[letter] = [value(point) for point in points]
        half_widths = [half_width(point) for point in points]
        # Three dimensions are crowded enough: there the hover has the intervals.
        if len(titles) == 2 and not all(map(math.isnan, half_widths)):
            columns[f"{letter}_error"] = half_widths
    return Points(
        name=name,
        **columns,
        color="muted",
        values=[100 * point.sla_attainment.value for point in points],
        symbol="circle" if _is_front(points[0]) else "square",
        hollow=points[0].quality == "estimated",
        size=12,
        labels=[point.configuration.label for point in points],
        marks=[point.configuration.key for point in points],
        hover=[_hover(point) for point in points],
        # The page has a table of the configurations and their short names.
        told=len(points) == 1,
        joules=joules_from(points[0].quality, points[0].meter) if ENERGY in titles else "",
    )


def _is_front(point: Point) -> bool | None:
    return point.on_front_without_energy if point.on_front is None else point.on_front


def _hover(point: Point) -> str:
    found = point.configuration
    lines = [
        found.origin if found.name in ("", found.label) else f"{found.name}; {found.origin}",
        f"accuracy {point.accuracy:.4f}, {point.cost_cores:g} cores",
        f"latency mean {_shown(point.latency_s, 's')}, p99 {_shown(point.latency_p99_s, 's')}",
        f"{_shown(point.joules_per_request, 'J/request')}, {_shown(point.power_w, 'W')}",
    ]
    if point.quality:
        lines.append(f"joules {joules_from(point.quality, point.meter)}")
    if not math.isnan(found.profile_ci95_j):
        lines.append(f"interval of the profile ±{significant(found.profile_ci95_j, 2)} J")
    return "\n".join(lines)


def _shown(found: Estimate, unit: str) -> str:
    text = significant(found.value)
    interval = "" if math.isnan(found.ci95) else f" ±{significant(found.ci95, 2)}"
    return f"{text}{interval} {unit}"


def _keys(case: Case, *, is_3d: bool = False) -> list[Mark]:
    """Legend entries that say what a hollow and a filled point is."""
    nowhere: dict[str, Any] = {letter: [math.nan] for letter in ("xyz" if is_3d else "xy")}
    return [
        Points(
            name=f"{'hollow' if quality == 'estimated' else 'filled'}: {quality} joules",
            **nowhere,
            color="muted",
            hollow=quality == "estimated",
        )
        for quality in sorted({point.quality for point in case.points if point.quality})
    ]


def _axis(points: Sequence[Point], title: str) -> Axis:
    values = np.array([OBJECTIVES[title][0](point) for point in points])
    known = values[~np.isnan(values)]
    wide = len(known) > 0 and known.min() > 0 and known.max() / known.min() > LOG_RATIO
    return Axis(f"{title}, log scale" if wide else title, log=bool(wide))


def _scale(points: Sequence[Point]) -> Scale:
    """From a round figure below the least share to all."""
    shares = [100 * point.sla_attainment.value for point in points]
    known = [share for share in shares if not math.isnan(share)]
    least = min(known, default=0.0)
    step = 1 if least >= 95 else 10
    return Scale(INSIDE, min(math.floor(least / step) * step, 100.0 - step), 100.0)


def _front_line(points: Sequence[Point], along: str, up: str) -> list[Mark]:
    """The staircase of points undominated in these two objectives; empty below two."""
    sign = -1.0 if along == ACCURACY else 1.0
    pairs = sorted(
        (sign * x, y)
        for x, y in ((OBJECTIVES[along][0](one), OBJECTIVES[up][0](one)) for one in points)
        if not math.isnan(x + y)
    )
    front: list[tuple[float, float]] = []
    for x, y in pairs:
        if not front or y < front[-1][1]:
            front.append((x, y))
    if len(front) < 2:
        return []
    return [
        Line(
            name="undominated in these two",
            x=[sign * x for x, _ in front],
            y=[y for _, y in front],
            color="muted",
            dash="dot",
            width=1.2,
            silent=True,
        )
    ]
