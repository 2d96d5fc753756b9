"""What a figure is: marks on axes, described once and drawn three ways.

The page draws it with Plotly (``plotly_json``), files get it from Matplotlib (``image``), and its
numbers go out as CSV (:func:`csv_of`: one row a point, one column a quantity; the page's button
gives the same table with the digits that the page holds). A colour is a name of the palette
(``run0``, ``stage1``, ``muted``), which the page fills in because it knows whether it is dark, or
``#rrggbb``. Names come from users: they are plain text here and each way of drawing escapes them.
:func:`label_positions` says where the short texts beside points go, so that they cover neither
points nor each other.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ipa_energy.arrays import Floats
from ipa_energy.report.palette import Dash, value_color

Numbers = Sequence[float] | NDArray[np.float64]
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
        shown: what is written at it instead of the title, where ticks are in another unit.
        categories: the axis has these names instead of numbers, in this order from the top (left).
        linear_below: logarithmic, but linear below about this value, so that zero is on it.
        share: of the figure's height, among several y axes above each other.
        counts: its values are whole numbers, and so are its ticks.
    """

    title: str
    from_zero: bool = False
    low: float | None = None
    high: float | None = None
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    shown: str = ""
    categories: tuple[str, ...] = ()
    linear_below: float | None = None
    share: float = 1.0
    counts: bool = False

    def places(self, values: Numbers) -> NDArray[np.float64]:
        """Where values stand on an axis with ``linear_below``; the values themselves elsewhere."""
        array = np.asarray(values, dtype=np.float64)
        return array if self.linear_below is None else np.log10(1.0 + array / self.linear_below)


@dataclass(frozen=True, slots=True)
class Scale:
    """What the colour of points or areas says.

    Attributes:
        title: a quantity with its unit.
        low, high: its ends.
        areas: it is that of :func:`.palette.scale_color`, for areas.
    """

    title: str
    low: float
    high: float
    areas: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """What all marks have.

    Attributes:
        name: in the legend.
        group: marks of one group are shown and hidden together.
        legend: False leaves it out of the legend.
        panel: index of its y axis.
        hover: further text for each point; lines are parted by newlines.
        joules: where its joules come from; "" if it shows none.
    """

    name: str
    color: str = "run0"
    group: str = ""
    legend: bool = True
    panel: int = 0
    hover: Sequence[str] = ()
    joules: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line(_Mark):
    """A line; NaN is a gap.

    Attributes:
        step: each value holds until the next x.
        fill: the area down to zero is filled.
        inside: the area that the line goes around is filled; see :func:`outline`.
        silent: nothing to hover: it only joins what speaks for itself.
        run: a run of the page's ``configurations``: the one in force at each x is in the hover.
    """

    x: Numbers
    y: Numbers
    dash: Dash = "solid"
    width: float = 1.6
    step: bool = False
    fill: bool = False
    inside: bool = False
    silent: bool = False
    run: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Points(_Mark):
    """Marked points, in two dimensions or (with ``z`` on a figure that has a z axis) three.

    Attributes:
        x_error, y_error, z_error: half-widths of intervals; NaN is none.
        values: colours by the figure's scale; None: ``color`` for all.
        hollow: drawn as outlines; hollow points are estimates, filled ones measurements.
        pale: half transparent, for points of which there are many.
        labels: what each point is, in full: in the hover and in the CSV.
        marks: a short text beside each point.
        joined: a line joins them.
        told: the page tells elsewhere what it is: its legend entry is in files alone.
    """

    x: Numbers
    y: Numbers
    z: Numbers | None = None
    x_error: Numbers | None = None
    y_error: Numbers | None = None
    z_error: Numbers | None = None
    values: Numbers | None = None
    symbol: Symbol = "circle"
    hollow: bool = False
    pale: bool = False
    size: float = 10
    labels: Sequence[str] = ()
    marks: Sequence[str] = ()
    joined: bool = False
    dash: Dash = "solid"
    told: bool = False

    def colors(self, scale: Scale | None) -> list[str]:
        """Of each point, by its value where it has one."""
        if self.values is None or scale is None:
            return [self.color] * len(self.x)
        return [value_color(value, scale.low, scale.high) for value in _floats(self.values)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars(_Mark):
    """Horizontal bars on a y axis with categories, or upright ones on an x axis with categories.

    Attributes:
        places: the category of each bar.
        lengths: of each bar, NaN is none.
        starts: where each begins; empty: at zero, or on top of the bars before it.
        labels: what each bar is, in full: in the hover and in the CSV.
        upright: the categories are those of the x axis.
        pale: half transparent.
        at: upright bars at these x instead of at categories.
    """

    places: Sequence[str] = ()
    lengths: Numbers
    starts: Numbers = ()
    labels: Sequence[str] = ()
    pale: bool = False
    upright: bool = False
    at: Numbers = ()

    @property
    def is_dense(self) -> bool:
        """True if some stretch is so short that an edge around it would hide it."""
        if not len(self.starts):
            return False
        lengths = np.asarray(self.lengths, dtype=np.float64)
        return bool(lengths.min() < (np.asarray(self.starts) + lengths).max() / 500)

    def extents(self, figure: Figure) -> tuple[Floats, Floats]:
        """Places on its axis, of bars with ``starts``: where each begins, and how long it is.

        What has no end goes to the axis'.
        """
        axis = figure.panels[self.panel] if self.upright else figure.x
        starts, ends = np.array(spans(self)).reshape(-1, 2).T
        base = axis.places(starts)
        return base, axis.places(np.where(np.isfinite(ends), ends, axis.high or np.nan)) - base


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
    def footnote(self) -> str:
        """Where its joules come from, for those who see the figure without its page."""
        found = dict.fromkeys(mark.joules for mark in self.marks if mark.joules)
        return f"Joules: {', '.join(found)}." if found else ""

    @property
    def has_scale(self) -> bool:
        """True if its colours say a quantity, which a colour bar explains."""
        if self.scale is None:
            return False
        coloured = (isinstance(one, Points) and one.values is not None for one in self.marks)
        return self.scale.areas or any(coloured)

    @property
    def drawable(self) -> bool:
        """True if any mark has a point to show."""
        return any(_has_point(mark) for mark in self.marks)


def with_ends(figure: Figure) -> Figure:
    """The figure, where all values of an axis are one value, with ends that are near it.

    Plotly puts a lone value in the middle of two units, so that half a joule has −0.5 beside it.
    """
    panels = [
        _near(axis, "y", [mark for mark in figure.marks if mark.panel == panel])
        for panel, axis in enumerate(figure.panels)
    ]
    z = None if figure.z is None else _near(figure.z, "z", figure.marks)
    x = _near(figure.x, "x", figure.marks)
    return replace(figure, x=x, y=tuple(panels) if len(panels) > 1 else panels[0], z=z)


def _near(axis: Axis, letter: str, marks: Sequence[Mark]) -> Axis:
    is_set = axis.from_zero or axis.log or axis.linear_below is not None or axis.low is not None
    if is_set or axis.categories or axis.ticks or axis.counts:
        return axis
    values: set[float] = set()
    for mark in marks:
        if isinstance(mark, Bars) or (isinstance(mark, Line) and mark.fill):
            return axis  # it begins at zero
        values |= set(filter(math.isfinite, _floats(getattr(mark, letter))))
        error = getattr(mark, f"{letter}_error", None)
        if error is not None and any(half > 0 for half in _floats(error)):
            return axis
    if len(values) != 1:
        return axis
    (value,) = values
    ends = sorted((0.95 * value, 1.05 * value)) if value else (0.0, 1.0)
    return replace(axis, low=ends[0], high=ends[1])


def key_of(*parts: str) -> str:
    """A key from words: letters, digits, ``-`` and ``_`` only."""
    return "-".join(re.sub(r"[^A-Za-z0-9_-]+", "_", part) for part in parts)


def _has_point(mark: Mark) -> bool:
    if isinstance(mark, Bars):
        return not bool(np.isnan(np.asarray(mark.lengths, dtype=np.float64)).all())
    x = np.asarray(mark.x, dtype=np.float64)
    y = np.asarray(mark.y, dtype=np.float64)
    return bool((~np.isnan(x) & ~np.isnan(y)).any())


def outline(x: Numbers, y: Numbers, *, other_x: Numbers, other_y: Numbers) -> tuple[Floats, Floats]:
    """Around the area between two lines: along the first and back along the other."""
    around = [
        np.concatenate(
            [np.asarray(one, dtype=np.float64), np.asarray(back, dtype=np.float64)[::-1]]
        )
        for one, back in ((x, other_x), (y, other_y))
    ]
    return around[0], around[1]


SERIES = "series"
LABEL = "configuration"
JOULES = "joules"
Column = tuple[str, str]


def columns_of(figure: Figure) -> list[list[Column]]:
    """For each mark, title and place (a path in the Plotly trace) of its columns."""
    return [[(title, path) for title, path, _ in _columns(figure, mark)] for mark in figure.marks]


def csv_of(figure: Figure) -> str:
    """The numbers of ``figure`` as CSV with a header; absent is empty."""
    tables = [_columns(figure, mark) for mark in figure.marks]
    titles = list(dict.fromkeys(title for table in tables for title, _, _ in table))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([SERIES, *titles])
    for mark, table in zip(figure.marks, tables, strict=True):
        columns = {title: values for title, _, values in table}
        for index in range(max((len(values) for values in columns.values()), default=0)):
            cells = [_cell(columns.get(title), index) for title in titles]
            # A mark that only explains the legend has no numbers.
            if any(cell for title, cell in zip(titles, cells, strict=True) if title != JOULES):
                writer.writerow([mark.name, *cells])
    return out.getvalue()


def _cell(values: Sequence[Any] | None, index: int) -> str:
    if values is None:
        return ""
    value = values[index]
    if isinstance(value, str):
        return value.replace("\n", " ")
    return repr(float(value)) if math.isfinite(value) else ""


def _columns(figure: Figure, mark: Mark) -> list[tuple[str, str, Sequence[Any]]]:
    found = _bar_columns(figure, mark) if isinstance(mark, Bars) else _xy_columns(figure, mark)
    if mark.joules:
        count = max(len(values) for _, _, values in found)
        found.append((JOULES, "meta.joules", [mark.joules] * count))
    return found


def _xy_columns(figure: Figure, mark: Line | Points) -> list[tuple[str, str, Sequence[Any]]]:
    y_title = figure.panels[mark.panel].title
    found: list[tuple[str, str, Sequence[Any]]] = [
        (figure.x.title, "x", _floats(mark.x)),
        (y_title, "y", _floats(mark.y)),
    ]
    if isinstance(mark, Line):
        return found
    titles = {"x": figure.x.title, "y": y_title, "z": figure.z.title if figure.z else ""}
    if mark.z is not None:
        found.append((titles["z"], "z", _floats(mark.z)))
    for letter, title in titles.items():
        error = getattr(mark, f"{letter}_error")
        if error is not None:
            found.append((f"± {title}", f"error_{letter}.array", _floats(error)))
    if mark.values is not None and figure.scale:
        found.append((figure.scale.title, "meta.values", _floats(mark.values)))
    if mark.labels:
        found.append((LABEL, "customdata", list(mark.labels)))
    return found


def _bar_columns(figure: Figure, mark: Bars) -> list[tuple[str, str, Sequence[Any]]]:
    panel = figure.panels[mark.panel]
    place, value = (figure.x, panel) if mark.upright else (panel, figure.x)
    where = "x" if mark.upright else "y"
    along = "y" if mark.upright else "x"
    found: list[tuple[str, str, Sequence[Any]]] = [
        (place.title or "of", where, _floats(mark.at) if len(mark.at) else list(mark.places)),
    ]
    if len(mark.starts):
        found += [
            (f"from {value.title}", "meta.starts", [start for start, _ in spans(mark)]),
            (f"to {value.title}", "meta.ends", [end for _, end in spans(mark)]),
        ]
    else:
        found.append((value.title, along, _floats(mark.lengths)))
    if mark.labels:
        found.append((LABEL, "customdata", list(mark.labels)))
    return found


def spans(mark: Bars) -> list[tuple[float, float]]:
    """Start and end of each bar of a mark with ``starts``."""
    ends = np.asarray(mark.starts, dtype=np.float64) + np.asarray(mark.lengths, dtype=np.float64)
    return list(zip(_floats(mark.starts), ends.tolist(), strict=True))


def _floats(values: Numbers) -> list[float]:
    found: list[float] = np.asarray(values, dtype=np.float64).tolist()
    return found


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

EYE_3D, ASPECT_3D = (-1.32, -1.38, 0.66), (1.15, 1.15, 0.85)
"""Where three dimensions are looked at from at first, and how long each axis is drawn."""


def label_positions(figure: Figure) -> list[list[str]]:
    """For each mark of ``figure`` the position of each of its texts, empty for marks without.

    Greedy: in order of the marks, each text takes the place that overlaps least with all points,
    the texts before it and the figure's edge.
    """
    marks = [mark for mark in figure.marks if isinstance(mark, Points) and mark.marks]
    if not marks:
        return [[] for _ in figure.marks]
    x, y = _places(figure, marks)
    points = np.stack([np.concatenate(x), np.concatenate(y)], axis=1)
    taken = [*np.hstack([points - POINT_PX, points + POINT_PX])]
    found: dict[int, list[str]] = {}
    for mark, xs, ys in zip(marks, x, y, strict=True):
        chosen = found[id(mark)] = []
        for across, up, text in zip(xs, ys, mark.marks, strict=True):
            boxes = {name: _box(across, up, text, way) for name, way in POSITIONS.items()}
            best = min(boxes, key=lambda name: _overlap(boxes[name], np.array(taken)))
            taken.append(boxes[best])
            chosen.append(best)
    return [found.get(id(mark), []) for mark in figure.marks]


def _overlap(box: Floats, others: Floats) -> float:
    """Square pixels that a box (its low corner, its high one) shares with (N, 4) others."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    # One by one, as rounding would otherwise decide between positions that are equally good.
    return float(sum(np.maximum(sides, 0.0).prod(axis=1).tolist()))


def _places(figure: Figure, marks: Sequence[Points]) -> tuple[list[Floats], list[Floats]]:
    """Pixels to the right and up of each mark's points; in three dimensions as seen at first."""
    axes = [figure.x, figure.panels[0]]
    if figure.z is None:
        x = _pixels(axes[0], [mark.x for mark in marks], WIDTH_PX)
        return x, _pixels(axes[1], [mark.y for mark in marks], 0.7 * figure.height)
    columns = [
        [mark.x for mark in marks],
        [mark.y for mark in marks],
        [[math.nan] * len(mark.x) if mark.z is None else mark.z for mark in marks],
    ]
    places = [
        _pixels(axis, column, length)
        for axis, column, length in zip([*axes, figure.z], columns, ASPECT_3D, strict=True)
    ]
    ahead = -np.array(EYE_3D) / np.linalg.norm(EYE_3D)
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    pixels = 0.6 * figure.height
    across, above = (
        [pixels * (way @ np.stack(point)) for point in zip(*places, strict=True)]
        for way in (right, up)
    )
    return across, above


def _box(across: float, up: float, text: str, way: tuple[int, int]) -> Floats:
    size = np.array([LETTER_PX * max(1, len(text)), LINE_PX])
    low = np.array([across, up]) + np.array(way) * POINT_PX - size * (1 - np.array(way)) / 2
    return np.concatenate([low, low + size])


def _pixels(axis: Axis, columns: Sequence[Numbers], length: float) -> list[NDArray[np.float64]]:
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
