"""Colours that people with any colour vision can tell apart, on white and on black.

Runs take Okabe and Ito's set (jfly.uni-koeln.de/color), lightened for a dark page. Variants of one
stage are ordered by accuracy, so they take one dark-to-light scale instead of separate hues.
"""

from __future__ import annotations

RUNS_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#a8588a", "#b07d00", "#4a4a4a")
RUNS_DARK = ("#56b4e9", "#ff8c42", "#2fc79a", "#e39ac6", "#f0c24b", "#c8c8c8")

_SCALE = ((84, 48, 128), (59, 90, 150), (33, 145, 140), (94, 201, 98), (229, 213, 60))
"""Near viridis at five places, its ends moved inwards to show on black and on white."""


def run_color(index: int, *, dark: bool = False) -> str:
    """The colour of a run; a seventh run repeats the first's."""
    colors = RUNS_DARK if dark else RUNS_LIGHT
    return colors[index % len(colors)]


def scale_color(position: float) -> str:
    """A place on the variants' scale, 0 (least accurate) to 1, as ``#rrggbb``."""
    place = min(max(position, 0.0), 1.0) * (len(_SCALE) - 1)
    low = min(int(place), len(_SCALE) - 2)
    share = place - low
    mixed = (round(a + share * (b - a)) for a, b in zip(_SCALE[low], _SCALE[low + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)
