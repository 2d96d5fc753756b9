"""Where the short texts beside points go, so that they cover neither points nor each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipa_energy.report.figure import Axis, Figure, Points

WIDTH_PX, LETTER_PX, LINE_PX = 620.0, 7.5, 14.0
POINT_PX = 6.0

POSITIONS = {
    "top center": (0, 1),
    "middle right": (1, 0),
    "bottom center": (0, -1),
    "middle left": (-1, 0),
    "top right": (1, 1),
    "bottom right": (1, -1),
    "top left": (-1, 1),
    "bottom left": (-1, -1),
}
"""Plotly's names, best first, and the direction from the point: right and up."""


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    right: float
    low: float
    high: float

    def overlap(self, other: _Box) -> float:
        """Shared area, square pixels."""
        across = min(self.right, other.right) - max(self.left, other.left)
        up = min(self.high, other.high) - max(self.low, other.low)
        return max(0.0, across) * max(0.0, up)


def label_positions(figure: Figure) -> list[list[str]]:
    """For each mark of ``figure`` the position of each of its texts, empty for marks without.

    Greedy: in order of the marks, each text takes the place that overlaps least with all points,
    the texts before it and the figure's edge.
    """
    marks = [mark for mark in figure.marks if isinstance(mark, Points) and mark.marks]
    if figure.z is not None or not marks:
        return [
            ["top center"] * len(mark.marks) if isinstance(mark, Points) else []
            for mark in figure.marks
        ]
    x = _pixels(figure.x, [mark.x for mark in marks], WIDTH_PX)
    y = _pixels(figure.panels[0], [mark.y for mark in marks], 0.7 * figure.height)
    taken = [
        _Box(across - POINT_PX, across + POINT_PX, up - POINT_PX, up + POINT_PX)
        for xs, ys in zip(x, y, strict=True)
        for across, up in zip(xs, ys, strict=True)
    ]
    found: dict[int, list[str]] = {}
    for mark, xs, ys in zip(marks, x, y, strict=True):
        chosen = []
        for across, up, text in zip(xs, ys, mark.marks, strict=True):
            boxes = {name: _box(across, up, text, way) for name, way in POSITIONS.items()}
            best = min(boxes, key=lambda name: sum(boxes[name].overlap(one) for one in taken))
            taken.append(boxes[best])
            chosen.append(best)
        found[id(mark)] = chosen
    return [found.get(id(mark), []) for mark in figure.marks]


def _box(across: float, up: float, text: str, way: tuple[int, int]) -> _Box:
    width, height = LETTER_PX * max(1, len(text)), LINE_PX
    left = across + way[0] * POINT_PX - width * (1 - way[0]) / 2
    low = up + way[1] * POINT_PX - height * (1 - way[1]) / 2
    return _Box(left, left + width, low, low + height)


def _pixels(axis: Axis, columns: list[object], length: float) -> list[NDArray[np.float64]]:
    """Values of several marks as pixels along an axis; what is unknown far away."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if axis.log:
        arrays = [np.log10(np.where(array > 0, array, np.nan)) for array in arrays]
    values = np.concatenate(arrays)
    known = values[np.isfinite(values)]
    low = known.min() if len(known) else 0.0
    span = float(np.ptp(known)) if len(known) else 0.0
    scaled = [(array - low) / (span or 1.0) * length for array in arrays]
    return [np.where(np.isfinite(array), array, -1e6) for array in scaled]
