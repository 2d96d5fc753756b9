"""Colours that people with any colour vision can tell apart, on white and on black.

Runs take Okabe and Ito's set (jfly.uni-koeln.de/color), lightened for a dark page. What has an
order (variants of one stage by accuracy, shares) takes one dark-to-light scale instead of separate
hues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

RUNS_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#a8588a", "#b07d00", "#4a4a4a")
Dash = Literal["solid", "dot", "dash", "dashdot", "longdash"]
DASHES: tuple[Dash, ...] = ("solid", "dash", "dot", "dashdot", "longdash")
RUNS_DARK = ("#56b4e9", "#ff8c42", "#2fc79a", "#e39ac6", "#f0c24b", "#c8c8c8")

_SCALE = ((84, 48, 128), (59, 90, 150), (33, 145, 140), (94, 201, 98), (229, 213, 60))
"""Near viridis at five places, its ends moved inwards to show on black and on white."""

_VALUES_LIGHT = ((74, 32, 122), (40, 90, 165), (0, 125, 115), (95, 135, 20), (178, 130, 0))
_VALUES_DARK = ((176, 136, 232), (104, 164, 236), (60, 192, 172), (146, 212, 100), (242, 226, 96))
"""The same order for outlines and points, which need more contrast to the page than areas do."""

_PAPER = {"text": "#000000", "muted": "#555555", "faint": "#d5d9df", "line": "#e3e6ea"}
_NAMED = 36
_STEPS = 40


def run_dash(index: int) -> Dash:
    """The dash of a run's lines: another one each time the colours begin again."""
    return DASHES[index // len(RUNS_LIGHT) % len(DASHES)]


def scale_color(position: float) -> str:
    """A place on the ordered scale of areas, 0 (dark) to 1 (light), as ``#rrggbb``."""
    return _mixed(_SCALE, position)


def scale_stops() -> list[tuple[float, str]]:
    """The ordered scale of areas as places 0 to 1 with ``#rrggbb``."""
    return [(step / 10, scale_color(step / 10)) for step in range(11)]


def value_color(value: float, low: float, high: float) -> str:
    """The name of the colour of a value between ``low`` and ``high``; NaN is ``muted``."""
    if math.isnan(value):
        return "muted"
    share = (value - low) / ((high - low) or 1.0)
    return f"value{round(_STEPS * min(max(share, 0.0), 1.0))}"


def value_stops(*, dark: bool) -> list[tuple[float, str]]:
    """The colours of values as places 0 to 1 with ``#rrggbb``."""
    scale = _VALUES_DARK if dark else _VALUES_LIGHT
    return [(step / _STEPS, _mixed(scale, step / _STEPS)) for step in range(_STEPS + 1)]


def _mixed(scale: Sequence[tuple[int, int, int]], position: float) -> str:
    place = min(max(position, 0.0), 1.0) * (len(scale) - 1)
    low = min(int(place), len(scale) - 2)
    share = place - low
    mixed = (round(a + share * (b - a)) for a, b in zip(scale[low], scale[low + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def named_colors(*, dark: bool) -> dict[str, str]:
    """Colours by the names that figures use.

    ``run0`` … and ``stage0`` … (the runs' from another start), ``value0`` … ``value40`` in order.
    """
    runs: Sequence[str] = RUNS_DARK if dark else RUNS_LIGHT
    colors = {f"value{round(_STEPS * at)}": color for at, color in value_stops(dark=dark)}
    for index in range(_NAMED):
        colors[f"run{index}"] = runs[index % len(runs)]
        colors[f"stage{index}"] = runs[(2 + index) % len(runs)]
    return colors


def paper_color(name: str) -> str:
    """A colour for white paper: of a name that figures use, or ``#rrggbb`` as it is."""
    return _PAPER.get(name) or named_colors(dark=False).get(name, name)
