"""Where the joules went: watts, joules so far, their parts, and what was traded for them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ipa_energy.compare.comparison import Comparison
from ipa_energy.compare.metrics import RunMetrics
from ipa_energy.report.figure import (
    LEGEND,
    SECONDS,
    Figure,
    Json,
    axis_of,
    line_of,
    name_of,
    qualities,
    rounded,
)
from ipa_energy.report.series import (
    Drawn,
    Series,
    cumulative_energy,
    per_second,
)


def power_figure(runs: list[Drawn]) -> Figure:
    """Watts over time."""
    data = [
        line_of(drawn, per_second(drawn.run.power_w, drawn.run.duration_s), unit="W")
        for drawn in runs
        if drawn.has_energy
    ]
    return Figure(
        "power",
        "Power",
        f"Mean watts of all stages in each second, idle included; {qualities(runs)}.",
        data,
        {"xaxis": axis_of(SECONDS), "yaxis": axis_of("power (W)")},
    )


def energy_figure(runs: list[Drawn]) -> Figure:
    """Cumulative joules."""
    data = []
    for drawn in runs:
        if drawn.has_energy:
            series = cumulative_energy(drawn.run)
            data.append(line_of(drawn, Series(series.x, series.y / 1000), unit="kJ"))
    return Figure(
        "energy",
        "Energy so far",
        f"Kilojoules since the start; the gap between the lines is what was saved;"
        f" {qualities(runs)}.",
        data,
        {"xaxis": axis_of(SECONDS), "yaxis": axis_of("energy (kJ)")},
    )


def split_figure(runs: list[Drawn]) -> Figure:
    """Joules by stage, idle and dynamic."""
    shown = [drawn for drawn in runs if drawn.has_energy]
    stages = shown[0].run.info.stages if shown else ()
    parts: tuple[tuple[str, Callable[[Any], float], str], ...] = (
        ("idle", lambda stage: stage.idle_j, "pale"),
        ("dynamic", lambda stage: stage.dynamic_j, ""),
    )
    data = []
    for index, stage_name in enumerate(stages):
        for part, joules, pale in parts:
            totals = [
                sum(joules(step.stages[index]) for step in drawn.run.steps if step.stages)
                for drawn in shown
            ]
            per_request = [
                total / drawn.metrics.served if drawn.metrics.served else math.nan
                for total, drawn in zip(totals, shown, strict=True)
            ]
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": html.escape(f"{stage_name}, {part}"),
                    "y": [name_of(drawn) for drawn in shown],
                    "x": rounded(per_request),
                    "customdata": rounded(np.array(totals) / 1000),
                    "marker": {"color": f"@stage{index}{pale}", "line": {"width": 0}},
                    "hovertemplate": "<b>%{y}</b>, %{fullData.name}<br><b>%{x:.4~g} J/request</b>"
                    " (%{customdata:.4~g} kJ)<extra></extra>",
                }
            )
    return Figure(
        "split",
        "Where the joules go",
        "Joules per answered request by stage: idle (pale: replicas that hold power while they"
        f" exist) and dynamic (solid: the work itself); {qualities(runs)}.",
        data,
        {
            "barmode": "stack",
            "legend": {**LEGEND, "traceorder": "normal"},
            "xaxis": axis_of("joules per request (J)"),
            "yaxis": {"autorange": "reversed", "automargin": True, "ticksuffix": " "},
            "bargap": 0.45,
        },
        height=130 + 46 * max(1, len(shown)),
    )


def trade_figure(comparison: Comparison) -> Figure:
    """Accuracy against joules per request, baselines included."""
    data = [_point(run, f"@run{index}", "circle", 13) for index, run in enumerate(comparison.runs)]
    colors = {run.name: f"@run{index}" for index, run in enumerate(comparison.runs)}
    for baselines, symbol, size in (
        (comparison.static_best, "diamond-open", 11),
        (comparison.oracle, "star-open", 13),
    ):
        data += [
            _point(run, colors.get(name, "@muted"), symbol, size) for name, run in baselines.items()
        ]
    known = [point for point in data if point["x"][0] is not None and point["y"][0] is not None]
    return Figure(
        "trade",
        "What was traded",
        "Mean accuracy against joules per request: up and to the left is better. Of the"
        " same color, diamonds are the best plan that never changes, stars an adaptation that knew"
        " the load.",
        known,
        {
            "xaxis": axis_of("joules per request (J)", rangemode="normal"),
            "yaxis": axis_of("mean accuracy", rangemode="normal"),
            "hovermode": "closest",
        },
        height=320,
    )


def _point(run: RunMetrics, color: str, symbol: str, size: int) -> Json:
    name = html.escape(run.name)
    detail = f"<br>{html.escape(run.detail)}" if run.detail else ""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rounded([run.joules_per_request]),
        "y": rounded([run.accuracy_mean]),
        "marker": {"color": color, "symbol": symbol, "size": size},
        "hovertemplate": f"<b>{name}</b><br>%{{x:.4~g}} J/request ({run.quality or 'none'})"
        f"<br>accuracy %{{y:.4f}}{detail}<extra></extra>",
    }
