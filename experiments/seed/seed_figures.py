"""The published figures again, the corrected fourth, and those of a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from seed_data import SeedPoint

from ipa_energy.report.figure import Axis, Figure, Line, Points
from ipa_energy.report.palette import scale_color

Value = Callable[[SeedPoint], float]

LATENCY = Axis("inference time (ms/image)")
IMPORTED = "Joules are imported: RAPL package energy, read off the published figure to about ±1 %."
WEIGHTS = {"yolov7": "v7"}
CROWDED = frozenset({150, 300, 400, 500})
"""Batches of experiment 2 whose labels would lie on their neighbours'."""


def figures_1(one: Sequence[SeedPoint]) -> list[Figure]:
    """Experiment 1's two figures: energy over F1 and over latency."""
    energy = Axis("energy of the run (kJ)", from_zero=True)
    return [
        Figure(
            key="figure-1",
            title="Figure 1: energy over accuracy (496 images)",
            caption="Run energy over F1 for seven YOLOv7 weights; a line joins batch 10 and batch "
            "32 of one, v7 is the plain YOLOv7. Energy rises with F1, but D6 and E6E take more "
            "than X at a lower F1. " + IMPORTED,
            marks=_by_batch(one, lambda point: point.accuracy, labelled=32),
            x=Axis("F1"),
            y=energy,
            height=380,
        ),
        Figure(
            key="figure-2",
            title="Figure 2: energy over latency (496 images)",
            caption="Run energy over inference time for the same runs: all lie near one rising "
            "line. " + IMPORTED,
            marks=_by_batch(one, _milliseconds, labelled=10),
            x=LATENCY,
            y=energy,
            height=380,
        ),
    ]


def figures_2(two: Sequence[SeedPoint]) -> list[Figure]:
    """Experiment 2's two figures, the second with joules per image beside what was published."""
    energy = Points(
        name="YOLOv7-E6E, imported",
        x=_all(two, _milliseconds),
        y=_all(two, _kilojoules),
        labels=[hover(point) for point in two],
        marks=_batch_marks(two),
        joined=True,
    )
    figure_3 = Figure(
        key="figure-3",
        title="Figure 3: energy over latency by batch (E6E, 5000 images)",
        caption="Run energy over inference time, labelled by batch size: both are smallest at "
        "batch 5 and level off from batch 32 on. " + IMPORTED,
        marks=[energy],
        x=LATENCY,
        y=Axis("energy of the run (kJ)", low=250.0, high=345.0),
    )
    return [figure_3, _figure_4(two)]


def _figure_4(two: Sequence[SeedPoint]) -> Figure:
    def curve(name: str, value: Value, panel: int, color: str) -> Points:
        return Points(
            name=name,
            x=_all(two, _milliseconds),
            y=_all(two, value),
            labels=[hover(point) for point in two],
            marks=_batch_marks(two),
            joined=True,
            color=color,
            panel=panel,
        )

    return Figure(
        key="figure-4",
        title="Figure 4 as published, and joules per image (E6E, 5000 images)",
        caption="Above, as published: the energy of the run divided by the batch size falls from "
        "51 kJ at batch 5 to 329 J at batch 1000. Below: the same energy divided by the number of "
        "images rises from 51.2 J to 65.8 J. " + IMPORTED,
        marks=[
            curve(
                "as published: run ÷ batch size",
                lambda p: p.published_per_input_j / 1000,
                0,
                "run5",
            ),
            curve("corrected: run ÷ images", lambda p: p.joules_per_image, 1, "run1"),
        ],
        x=LATENCY,
        y=(
            Axis("published per input (kJ)", low=0.0, high=58.0),
            Axis("energy (J/image)", low=50.0, high=68.0),
        ),
        height=520,
    )


def sweep_figures(points: Sequence[SeedPoint]) -> list[Figure]:
    """Joules per image over batch, latency and accuracy, whole process and steady state."""
    figures = [_over_batch(points)]
    if all(not math.isnan(point.steady_joules_per_image) for point in points):
        figures.append(_steady_over_latency(points))
        if all(not math.isnan(point.accuracy) for point in points):
            figures.append(_steady_over_accuracy(points))
    return figures


def _over_batch(points: Sequence[SeedPoint]) -> Figure:
    """The whole process dashed, the steady state in full lines, on one scale."""
    ways: list[tuple[str, Value, Value]] = [
        ("steady state", _steady, lambda p: p.steady_ci95_j),
        ("whole process", lambda p: p.joules_per_image, lambda p: p.ci95_j),
    ]
    ways = [way for way in ways if not all(math.isnan(way[1](point)) for point in points)]
    colors = _colors(points)
    marks = [
        Points(
            name=f"{name}, {way}",
            x=_all(found, lambda point: point.batch),
            y=_all(found, value),
            y_error=_all(found, error),
            labels=[hover(point) for point in found],
            joined=True,
            dash="dash" if way == "whole process" else "solid",
            symbol="square" if way == "whole process" else "circle",
            color=colors[name],
            hollow=_estimated(points),
        )
        for way, value, error in ways
        for name, found in _by_weights(points).items()
    ]
    values = [value(point) for _, value, _ in ways for point in points]
    return Figure(
        key="live-batch",
        title=f"Energy per image over batch size ({points[0].quality})",
        caption="Squares, dashed: the whole process, as the seed measured, over its images. "
        "Circles: from the first image to the last, loading left out. Bars are 95 % intervals over "
        "trials. " + _hollow_note(points),
        marks=marks,
        x=Axis("batch size", log=True, ticks=_ticks({float(p.batch) for p in points})),
        y=_joules_axis("energy (J/image)", values),
        height=440,
    )


def _steady_over_latency(points: Sequence[SeedPoint]) -> Figure:
    colors = _colors(points)
    marks = [
        Points(
            name=name,
            x=_all(found, _milliseconds),
            y=_all(found, _steady),
            y_error=_all(found, lambda point: point.steady_ci95_j),
            labels=[hover(point) for point in found],
            color=colors[name],
            hollow=_estimated(points),
        )
        for name, found in _by_weights(points).items()
    ]
    latencies = [_milliseconds(point) for point in points]
    return Figure(
        key="live-latency",
        title=f"Energy per image over latency, steady state ({points[0].quality})",
        caption="One point a batch size. Both axes are logarithmic. " + _hollow_note(points),
        marks=marks,
        x=Axis(LATENCY.title, log=True, ticks=_one_two_five(latencies)),
        y=_joules_axis("energy (J/image)", _all(points, _steady)),
        height=380,
    )


def _steady_over_accuracy(points: Sequence[SeedPoint]) -> Figure:
    ends = sorted({min(p.batch for p in points), max(p.batch for p in points)})
    shown = [point for point in points if point.batch in ends]
    dearest = {name: max(found, key=_steady) for name, found in _by_weights(shown).items()}
    marks = [
        Points(
            name=f"batch {batch}",
            x=_all(found, lambda point: point.accuracy),
            y=_all(found, _steady),
            y_error=_all(found, lambda point: point.steady_ci95_j),
            labels=[hover(point) for point in found],
            marks=[short(p.weights) if dearest[p.weights] is p else "" for p in found],
            joined=True,
            color=f"run{index}",
            symbol="circle" if index == 0 else "square",
            hollow=_estimated(points),
        )
        for index, batch in enumerate(ends)
        for found in [[point for point in points if point.batch == batch]]
    ]
    return Figure(
        key="live-accuracy",
        title=f"Energy per image over accuracy, steady state ({points[0].quality})",
        caption="The accuracy is the published mAP@.5 of each network, not measured here. "
        + _hollow_note(points),
        marks=marks,
        x=Axis("mAP@.5, as published"),
        y=_joules_axis("energy (J/image)", _all(points, _steady)),
        height=340,
    )


def hover(point: SeedPoint) -> str:
    """Everything known of a point, in one text."""
    interval = "" if math.isnan(point.ci95_j) else f" ± {point.ci95_j:.2g}"
    parts = [
        point.label,
        f"{point.joules_per_image:.4g}{interval} J per image, whole process",
        f"{_milliseconds(point):.4g} ms per image",
        f"{point.images:g} images, {point.trials} run" + ("s" if point.trials > 1 else ""),
        f"{point.quality}, {point.meter}",
    ]
    if not math.isnan(point.steady_joules_per_image):
        parts.insert(2, f"{point.steady_joules_per_image:.4g} J per image, steady state")
    return "; ".join(parts)


def short(weights: str) -> str:
    """``yolov7-e6e`` → ``E6E``, ``yolov7-tiny`` → ``tiny``, ``yolov7`` → ``v7``, else the name."""
    if weights in WEIGHTS:
        return WEIGHTS[weights]
    name = weights.removeprefix("yolov7-")
    return name.upper() if len(name) <= 3 else name


def _by_batch(points: Sequence[SeedPoint], x: Value, *, labelled: int) -> list[Line | Points]:
    """Points of one batch a series, and a faint line between the batches of one weights."""
    lines: list[Line | Points] = [
        Line(
            name=name,
            x=_all(found, x),
            y=_all(found, _kilojoules),
            color="muted",
            width=1,
            legend=False,
        )
        for name, found in _by_weights(points).items()
    ]
    batches = sorted({point.batch for point in points})
    for index, batch in enumerate(batches):
        found = [point for point in points if point.batch == batch]
        lines.append(
            Points(
                name=f"batch {batch}, imported",
                x=_all(found, x),
                y=_all(found, _kilojoules),
                labels=[hover(point) for point in found],
                marks=[short(point.weights) if batch == labelled else "" for point in found],
                color=f"run{index}",
                symbol="circle" if index == 0 else "square",
            )
        )
    return lines


def _by_weights(points: Iterable[SeedPoint]) -> dict[str, list[SeedPoint]]:
    found: dict[str, list[SeedPoint]] = {}
    for point in points:
        found.setdefault(point.weights, []).append(point)
    return {name: sorted(some, key=lambda point: point.batch) for name, some in found.items()}


def _colors(points: Sequence[SeedPoint]) -> dict[str, str]:
    """Weights have an order, so they take the ordered scale."""
    names = list(_by_weights(points))
    return {name: scale_color(i / max(1, len(names) - 1)) for i, name in enumerate(names)}


def _batch_marks(points: Sequence[SeedPoint]) -> list[str]:
    return ["" if point.batch in CROWDED else str(point.batch) for point in points]


def _joules_axis(title: str, values: Iterable[float]) -> Axis:
    known = [value for value in values if not math.isnan(value)]
    return Axis(title, log=True, ticks=_one_two_five(known))


def _one_two_five(values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """1, 2, 5, 10 … around the values: a short logarithmic axis has few powers of ten."""
    first, last = (math.floor(math.log10(end)) for end in (min(values), max(values)))
    steps = [digit * 10.0**power for power in range(first, last + 2) for digit in (1, 2, 5)]
    low, high = min(values) / 1.3, max(values) * 1.3
    return _ticks({step for step in steps if low <= step <= high})


def _ticks(values: Iterable[float]) -> tuple[tuple[float, str], ...]:
    return tuple((value, f"{value:g}") for value in sorted(values))


def _estimated(points: Sequence[SeedPoint]) -> bool:
    return any(point.quality == "estimated" for point in points)


def _hollow_note(points: Sequence[SeedPoint]) -> str:
    if not _estimated(points):
        return ""
    return "Hollow points: joules are estimated from CPU time, not measured."


def _all(points: Iterable[SeedPoint], value: Value) -> list[float]:
    return [value(point) for point in points]


def _milliseconds(point: SeedPoint) -> float:
    return 1000 * point.latency_s


def _kilojoules(point: SeedPoint) -> float:
    return point.run_energy_j / 1000


def _steady(point: SeedPoint) -> float:
    return point.steady_joules_per_image
