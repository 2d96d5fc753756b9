"""What a figure is: marks on axes, described once and drawn three ways.

The page draws it with Plotly (``plotly_json``), files get it from Matplotlib (``image``), and its
numbers go out as CSV (``figure_csv``). A colour is a name of the palette (``run0``, ``stage1``,
``muted``), which the page fills in because it knows whether it is dark, or ``#rrggbb``. Names come
from users: they are plain text here and each way of drawing escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[np.float64]
Dash = Literal["solid", "dot", "dash"]
Symbol = Literal["circle", "square", "diamond", "star", "cross"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        title: the quantity with its unit in brackets: ``energy (J/request)``.
        from_zero: begins at zero even if the values do not.
        low, high: ends; None: from the values.
        log: logarithmic.
        ticks: places and their text, instead of computed ones.
        categories: the axis has these names instead of numbers, in this order from the top (left).
        linear_below: logarithmic, but linear below about this value, so that zero is on it.
        share: of the figure's height, among several y axes above each other.
    """

    title: str
    from_zero: bool = False
    low: float | None = None
    high: float | None = None
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    categories: tuple[str, ...] = ()
    linear_below: float | None = None
    share: float = 1.0

    def places(self, values: Numbers) -> NDArray[np.float64]:
        """Where values stand on an axis with ``linear_below``; the values themselves elsewhere."""
        array = np.asarray(values, dtype=np.float64)
        return array if self.linear_below is None else np.log10(1.0 + array / self.linear_below)


@dataclass(frozen=True, slots=True)
class Scale:
    """What the colour of points says: a quantity with its unit, and its ends."""

    title: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line; NaN is a gap.

    Attributes:
        name: in the legend.
        step: each value holds until the next x.
        fill: the area down to zero is filled.
        group: lines of one group are shown and hidden together.
        legend: False leaves it out of the legend.
        panel: index of its y axis.
        silent: nothing to hover: it only joins what speaks for itself.
        run: a run of the page's ``configurations``: the one in force at each x is in the hover.
        hover: further text for each point; lines are parted by newlines.
    """

    name: str
    x: Numbers
    y: Numbers
    color: str = "run0"
    dash: Dash = "solid"
    width: float = 1.6
    step: bool = False
    fill: bool = False
    group: str = ""
    legend: bool = True
    panel: int = 0
    silent: bool = False
    run: int | None = None
    hover: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Marked points, in two dimensions or (with ``z`` on a figure that has a z axis) three.

    Attributes:
        name: in the legend.
        x_error, y_error, z_error: half-widths of intervals; NaN is none.
        values: colours by the figure's scale; None: ``color`` for all.
        hollow: drawn as outlines; hollow points are estimates, filled ones measurements.
        labels: what each point is, in full: in the hover and in the CSV.
        marks: a short text beside each point.
        joined: a line joins them.
        hover: further text for each point; lines are parted by newlines.
        group: points of one group are shown and hidden together.
    """

    name: str
    x: Numbers
    y: Numbers
    z: Numbers | None = None
    x_error: Numbers | None = None
    y_error: Numbers | None = None
    z_error: Numbers | None = None
    color: str = "run0"
    values: Numbers | None = None
    symbol: Symbol = "circle"
    hollow: bool = False
    size: float = 10
    labels: Sequence[str] = ()
    marks: Sequence[str] = ()
    joined: bool = False
    dash: Dash = "solid"
    hover: Sequence[str] = ()
    group: str = ""
    legend: bool = True
    panel: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Horizontal bars on a y axis with categories, or upright ones on an x axis with categories.

    Attributes:
        name: in the legend.
        places: the category of each bar.
        lengths: of each bar, NaN is none.
        starts: where each begins; empty: at zero, or on top of the bars before it.
        labels: what each bar is, in full: in the hover and in the CSV.
        upright: the categories are those of the x axis.
        pale: half transparent.
        at: upright bars at these x instead of at categories.
    """

    name: str
    places: Sequence[str] = ()
    lengths: Numbers
    starts: Numbers = ()
    labels: Sequence[str] = ()
    color: str = "run0"
    pale: bool = False
    upright: bool = False
    at: Numbers = ()
    hover: Sequence[str] = ()
    group: str = ""
    legend: bool = True
    panel: int = 0


Mark = Line | Points | Bars


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure.

    Attributes:
        key: name of its files and its id in the page; unique in a page.
        title: what it shows, in a few words.
        caption: how to read it, in whole sentences; also what a screen reader says.
        marks: what is drawn, first beneath.
        x, y: axes; several y axes stand above each other and share x, the first on top.
        z: the third dimension; then every mark is points.
        scale: what colours of points with ``values`` say.
        overlay: bars of one place lie over each other instead of on top of each other.
        height: pixels of the plot without its legend.
    """

    key: str
    title: str
    caption: str
    marks: Sequence[Mark]
    x: Axis
    y: Axis | tuple[Axis, ...]
    z: Axis | None = None
    scale: Scale | None = None
    overlay: bool = False
    height: int = 300

    @property
    def panels(self) -> tuple[Axis, ...]:
        """The y axes from top to bottom."""
        return self.y if isinstance(self.y, tuple) else (self.y,)

    @property
    def drawable(self) -> bool:
        """True if any mark has a point to show."""
        return any(_has_point(mark) for mark in self.marks)


def key_of(*parts: str) -> str:
    """A key from words: letters, digits, ``-`` and ``_`` only."""
    return "-".join(re.sub(r"[^A-Za-z0-9_-]+", "_", part) for part in parts)


def _has_point(mark: Mark) -> bool:
    if isinstance(mark, Bars):
        return not bool(np.isnan(np.asarray(mark.lengths, dtype=np.float64)).all())
    x = np.asarray(mark.x, dtype=np.float64)
    y = np.asarray(mark.y, dtype=np.float64)
    return bool((~np.isnan(x) & ~np.isnan(y)).any())
