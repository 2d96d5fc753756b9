"""What a figure of the page is, and the lines that most of them are made of.

Figures are plain Plotly JSON. A colour is written ``@run0`` or ``@muted`` and filled in by the
page, which knows whether it is dark. Names come from users: they are escaped, because Plotly reads
markup in text.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipa_energy.report.series import Drawn, Series

Json = dict[str, Any]
LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
SECONDS = "time since the start (s)"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the page.

    Attributes:
        key: its id in the page.
        title: what it shows, in a few words.
        caption: how to read it; also what a screen reader says.
        data, layout: Plotly's.
        height: pixels.
    """

    key: str
    title: str
    caption: str
    data: list[Json]
    layout: Json
    height: int = 300


def rounded(values: Any, digits: int = 4) -> list[float | None]:
    """Numbers with so many significant digits, NaN as null: keeps the page small."""
    array = np.asarray(values, dtype=np.float64)
    return [None if math.isnan(value) else float(f"{value:.{digits}g}") for value in array.tolist()]


def times(values: Any) -> list[float]:
    """Times, to the millisecond."""
    return [float(value) for value in np.round(np.asarray(values, dtype=np.float64), 3)]


def name_of(drawn: Drawn) -> str:
    """The run's name, escaped."""
    return html.escape(drawn.name)


def axis_of(title: str, **further: Any) -> Json:
    """An axis with a title, from zero unless it says otherwise."""
    return {"title": {"text": title}, "rangemode": "tozero", **further}


def line_of(
    drawn: Drawn, series: Series, *, unit: str, name: str = "", dash: str = "solid", **further: Any
) -> Json:
    """A line of one run; the page adds the configuration at each point to the hover."""
    label = name_of(drawn)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{label} {name}".strip(),
        "legendgroup": f"run{drawn.index}",
        "x": times(series.x),
        "y": rounded(series.y),
        "line": {"color": f"@run{drawn.index}", "width": 1.6, "dash": dash},
        "meta": {"run": drawn.index},
        "hovertemplate": f"<b>{label}</b> {name}<br>%{{x:.0f}} s: <b>%{{y:.4~g}} {unit}</b>"
        "<br>%{text}<extra></extra>",
        **further,
    }


def slas(runs: list[Drawn]) -> list[float]:
    """The latency SLAs of the runs, seconds, each once."""
    found = {drawn.metrics.latency_sla_s for drawn in runs}
    return sorted(sla_s for sla_s in found if sla_s is not None)


def qualities(runs: list[Drawn]) -> str:
    """Where the joules of the runs come from, for captions."""
    found = {
        (drawn.metrics.quality, drawn.metrics.meter) for drawn in runs if drawn.metrics.quality
    }
    if not found:
        return "no energy in these logs"
    return ", ".join(sorted(f"{quality} by {meter}" for quality, meter in found))
