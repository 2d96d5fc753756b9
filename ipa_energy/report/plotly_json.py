"""A figure as Plotly draws it in the page.

Colours stay names (``@run0``); the page fills them in. Plotly reads markup in text and ``%{…}`` in
hover templates, so text of users is escaped for both. ``meta.columns`` of a trace says where the
page finds the columns of the figure's CSV.
"""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np

from ipa_energy.report.figure import (
    ASPECT_3D,
    EYE_3D,
    POSITIONS,
    Axis,
    Bars,
    Column,
    Figure,
    Line,
    Mark,
    Numbers,
    Points,
    Scale,
    columns_of,
    label_positions,
    spans,
    with_ends,
)
from ipa_energy.report.palette import scale_stops

Json = dict[str, Any]
DIGITS = 6
"""Significant digits in the page: what an eye can see, at a third of the size."""

_GAP = 0.1
_SYMBOLS_3D = {"star": "diamond", "cross": "cross", "circle": "circle"}


def plotly_json(figure: Figure) -> Json:
    """``key``, ``name``, ``data`` and ``layout`` of a figure."""
    figure = with_ends(figure)
    columns: list[list[Column]] = columns_of(figure)
    data = [
        _trace(figure, mark, positions)
        for mark, positions in zip(figure.marks, label_positions(figure), strict=True)
    ]
    if figure.has_scale:
        columns.append([])
        data.append(_color_bar(figure))
    layout = _scene(figure) if figure.z else _layout(figure)
    if figure.scale:
        layout["coloraxis"] = _color_axis(figure.scale)
    return {
        "key": figure.key,
        "columns": columns,
        "data": data,
        "layout": layout,
        "footnote": _text(figure.footnote),
    }


def _color_bar(figure: Figure) -> Json:
    """A trace without points, there to carry the colour bar.

    Plotly cannot colour outlines by numbers, so points have their colours already.
    """
    place: Json = {"x": [None], "y": [None]} | ({"z": [None]} if figure.z else {})
    return place | {
        "type": "scatter3d" if figure.z else "scatter",
        "mode": "markers",
        "showlegend": False,
        "hoverinfo": "skip",
        "name": "",
        "marker": {"color": [figure.scale.low if figure.scale else 0], "coloraxis": "coloraxis"},
    }


def rounded(values: Numbers, digits: int = DIGITS) -> list[float | None]:
    """Numbers with so many significant digits, what is not finite as null."""
    array = np.asarray(values, dtype=np.float64).tolist()
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in array]


def _text(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def _in_template(text: str) -> str:
    """Text that a hover template shows as it is."""
    return html.escape(text).replace("%", "&#37;")


def _color(name: str) -> str:
    return name if name.startswith("#") else f"@{name}"


def _axis_name(letter: str, panel: int) -> str:
    return letter if panel == 0 else f"{letter}{panel + 1}"


def _trace(figure: Figure, mark: Mark, positions: list[str]) -> Json:
    if isinstance(mark, Line):
        trace = _line(figure, mark)
    elif isinstance(mark, Points):
        trace = _points(figure, mark, positions)
    else:
        trace = _bars(figure, mark)
    trace["name"] = _text(mark.name)
    if mark.group:
        trace["legendgroup"] = mark.group
    told = isinstance(mark, Points) and mark.told
    if told or not mark.legend:
        trace["showlegend"] = False
    if told:
        trace["meta"] = trace.get("meta", {}) | {"told": True}
    if mark.joules:
        trace["meta"] = trace.get("meta", {}) | {"joules": _text(mark.joules)}
    if mark.panel:
        trace["yaxis"] = _axis_name("y", mark.panel)
    return trace


def _line(figure: Figure, mark: Line) -> Json:
    trace: Json = {
        "type": "scatter",
        "mode": "lines",
        "x": rounded(mark.x),
        "y": rounded(mark.y),
        "line": {"color": _color(mark.color), "width": mark.width, "dash": mark.dash},
        "hovertemplate": _hover(figure, mark, "x", "y"),
    }
    if mark.silent:
        del trace["hovertemplate"]
        trace["hoverinfo"] = "skip"
    if mark.step:
        trace["line"]["shape"] = "hv"
    if mark.fill:
        trace |= {"fill": "tozeroy", "fillcolor": "@faint"}
    if mark.inside:
        trace |= {"fill": "toself", "fillcolor": "@faint"}
        trace["line"]["width"] = 0
    if mark.run is not None:
        trace["meta"] = {"run": mark.run}
    if mark.hover:
        trace["text"] = [_text(text) for text in mark.hover]
    return trace


def _points(figure: Figure, mark: Points, positions: list[str]) -> Json:
    three = figure.z is not None
    has_texts = bool(mark.marks) and not three
    symbol: str = _SYMBOLS_3D.get(mark.symbol, mark.symbol) if three else mark.symbol
    marker: Json = {
        "size": mark.size * (0.7 if three else 1),
        "symbol": f"{symbol}-open" if mark.hollow and symbol != "cross" else symbol,
        "line": {"width": (1 if mark.pale else 2) if mark.hollow else 0},
    }
    if mark.pale:
        marker["opacity"] = 0.45
    colors = [_color(name) for name in mark.colors(figure.scale)]
    is_one = mark.values is None or figure.scale is None
    marker["color"] = _color(mark.color) if is_one else colors
    trace: Json = {
        "type": "scatter3d" if three else "scatter",
        "mode": "markers" + "+text" * has_texts + "+lines" * mark.joined,
        "x": rounded(mark.x),
        "y": rounded(mark.y),
        "marker": marker,
        "hovertemplate": _hover(figure, mark, *("xyz" if three else "xy")),
    }
    if mark.z is not None:
        trace["z"] = rounded(mark.z)
    else:
        trace["cliponaxis"] = False
    if mark.joined:
        trace["line"] = {"color": _color(mark.color), "width": 1.4, "dash": mark.dash}
    if has_texts:
        trace |= {"text": [_text(text) for text in mark.marks], "textposition": positions}
    if mark.labels:
        trace["customdata"] = [_text(text) for text in mark.labels]
    if mark.values is not None:
        trace["meta"] = {"values": rounded(mark.values)}
    further = _point_hover(figure, mark)
    if further:
        trace["hovertext"] = [_text(text) for text in further]
    for letter in "xyz":
        error = getattr(mark, f"{letter}_error")
        if error is not None and not bool(np.isnan(np.asarray(error, dtype=np.float64)).all()):
            color = _color(mark.color) if mark.values is None else "@muted"
            trace[f"error_{letter}"] = {
                "type": "data",
                "array": rounded(error),
                "color": color,
                "thickness": 1.2,
                "width": 3,
            }
    return trace


def _bars(figure: Figure, mark: Bars) -> Json:
    places = rounded(mark.at) if len(mark.at) else [_text(text) for text in mark.places]
    along, across = ("y", "x") if mark.upright else ("x", "y")
    trace: Json = {
        "type": "bar",
        "orientation": "v" if mark.upright else "h",
        across: places,
        along: rounded(mark.lengths),
        "marker": {
            "color": _color(mark.color) + ("-pale" if mark.pale else ""),
            "line": {"width": 0},
        },
        "hovertemplate": _hover(figure, mark, along),
    }
    if mark.is_dense:
        trace["marker"]["line"] = {"width": 0.5, "color": _color(mark.color)}
    further = list(mark.hover)
    if len(mark.starts):
        trace |= _span(figure, mark, along)
        further = further or [f"{start:.5g} to {end:.5g}" for start, end in spans(mark)]
    if mark.labels:
        trace["customdata"] = [_text(text) for text in mark.labels]
    if further:
        trace["hovertext"] = [_text(text) for text in further]
    return trace


def _span(figure: Figure, mark: Bars, along: str) -> Json:
    """Where bars that do not begin at zero lie; their real ends, which a reader saves, in meta."""
    starts, ends = np.array(spans(mark)).reshape(-1, 2).T
    base, lengths = mark.extents(figure)
    return {
        "base": rounded(base),
        along: rounded(lengths),
        "meta": {"starts": rounded(starts), "ends": rounded(ends)},
        "marker": {
            "color": _color(mark.color),
            "line": {"width": 0.5, "color": "@page"},
        },
    }


def _hover(figure: Figure, mark: Mark, *letters: str) -> str:
    """Names in bold, each value with its axis' title, then what is known of the point."""
    axes = {"x": figure.x, "y": figure.panels[mark.panel], "z": figure.z}
    lines = [f"<b>{_in_template(mark.name)}</b>"]
    if not isinstance(mark, Line) and mark.labels:
        lines.append("<b>%{customdata}</b>")
    if isinstance(mark, Bars) and not len(mark.at):
        lines[0] = f"<b>%{{{'x' if mark.upright else 'y'}}}</b>, {_in_template(mark.name)}"
    for letter in letters:
        axis = axes[letter]
        title = _in_template(axis.title) if axis else letter
        if not (isinstance(mark, Bars) and len(mark.starts)):
            interval = isinstance(mark, Points) and getattr(mark, f"{letter}_error") is not None
            both = f" ± %{{error_{letter}.array:.3~r}}" if interval else ""
            lines.append(f"{title}: <b>%{{{letter}:.5~r}}</b>{both}")
    if isinstance(mark, Line):
        if mark.run is not None or mark.hover:
            lines.append("%{text}")
    elif _has_hover(mark):
        lines.append("%{hovertext}")
    return "<br>".join(lines) + "<extra></extra>"


def _has_hover(mark: Points | Bars) -> bool:
    if mark.hover:
        return True
    return len(mark.starts) > 0 if isinstance(mark, Bars) else mark.values is not None


def _point_hover(figure: Figure, mark: Points) -> list[str]:
    """What the colour of each point says, then the mark's own words."""
    if mark.values is None or figure.scale is None:
        return list(mark.hover)
    own = mark.hover or [""] * len(mark.x)
    title = figure.scale.title
    said = [f"{title}: {value:.4g}" for value in np.asarray(mark.values, dtype=np.float64)]
    return [f"{colour}\n{words}".rstrip() for colour, words in zip(said, own, strict=True)]


def _layout(figure: Figure) -> Json:
    layout: Json = {"xaxis": _axis(figure.x)}
    axes = figure.panels
    whole = sum(axis.share for axis in axes)
    room = 1 - _GAP * (len(axes) - 1)
    top = 1.0
    for panel, axis in enumerate(axes):
        given = _axis(axis)
        if axis.counts:
            given["dtick"] = _step(figure, panel)
        if len(axes) > 1:
            bottom = max(0.0, top - room * axis.share / whole)
            given["domain"] = [round(bottom, 4), round(top, 4)]
            top = bottom - _GAP
            given["nticks"] = 4 if not axis.counts else 0
        if axis.categories:
            given |= {"autorange": "reversed", "ticksuffix": " ", "showgrid": False}
        layout["yaxis" if panel == 0 else f"yaxis{panel + 1}"] = given
    if len(axes) > 1:
        layout["xaxis"]["anchor"] = _axis_name("y", len(axes) - 1)
    if any(isinstance(mark, Bars) for mark in figure.marks):
        layout |= {"barmode": "overlay" if figure.overlay else "stack", "bargap": 0.3}
    return layout


def _step(figure: Figure, panel: int) -> int:
    """Between the ticks of an axis of counts: 1, 2 or 5 of a power of ten, at most five ticks."""
    values = [
        np.asarray(mark.lengths if isinstance(mark, Bars) else mark.y, dtype=np.float64)
        for mark in figure.marks
        if mark.panel == panel
    ]
    most = max((float(np.nanmax(one)) for one in values if np.isfinite(one).any()), default=1.0)
    steps: list[int] = [factor * 10**power for power in range(12) for factor in (1, 2, 5)]
    return next(step for step in steps if most / step <= 4)


def _scene(figure: Figure) -> Json:
    axes = {"x": figure.x, "y": figure.panels[0], "z": figure.z or Axis("")}
    layout: Json = {
        "scene": {f"{letter}axis": _axis(axis) for letter, axis in axes.items()}
        | {
            "camera": {
                "eye": dict(zip("xyz", EYE_3D, strict=True)),
                "center": {"x": 0, "y": 0, "z": -0.22},
            },
            "aspectmode": "manual",
            "aspectratio": dict(zip("xyz", ASPECT_3D, strict=True)),
        }
    }
    # Texts of points would lie on the points; these stand beside them.
    layout["scene"]["annotations"] = [
        {
            **dict(zip("xyz", place, strict=True)),
            "text": _text(text),
            "showarrow": False,
            "font": {"size": 12},
            **_beside(position),
        }
        for mark, positions in zip(figure.marks, label_positions(figure), strict=True)
        if isinstance(mark, Points) and mark.z is not None and mark.marks
        for *place, text, position in zip(
            *(_on_axis(axes[letter], rounded(getattr(mark, letter))) for letter in "xyz"),
            mark.marks,
            positions,
            strict=True,
        )
    ]
    return layout


def _beside(position: str) -> Json:
    """How an annotation stands where a text of a point would."""
    right, up = POSITIONS[position]
    return {
        "xanchor": ("right", "center", "left")[right + 1],
        "yanchor": ("top", "middle", "bottom")[up + 1],
        "xshift": 6 * right,
        "yshift": 6 * up,
    }


def _on_axis(axis: Axis, values: list[float | None]) -> list[float | None]:
    """Where annotations stand: on a logarithmic axis they are placed by the logarithm."""
    if not axis.log:
        return values
    return [math.log10(value) if value else None for value in values]


def _axis(axis: Axis) -> Json:
    given: Json = {"title": {"text": _text(axis.shown or axis.title)}}
    if axis.from_zero:
        given["rangemode"] = "tozero"
    if axis.low is not None and axis.high is not None:
        ends = np.log10([axis.low, axis.high]) if axis.log else axis.places([axis.low, axis.high])
        given["range"] = rounded(ends)
    if axis.log:
        decades = [factor * 10.0**power for power in range(-9, 10) for factor in (1, 2, 5)]
        texts = [f"{value:.6g}" for value in decades]
        given |= {"type": "log", "tickmode": "array", "tickvals": decades, "ticktext": texts}
    if axis.ticks:
        given |= {
            "tickmode": "array",
            "tickvals": rounded(axis.places([place for place, _ in axis.ticks])),
            "ticktext": [_text(text) for _, text in axis.ticks],
        }
    if axis.categories:
        names = [_text(name) for name in axis.categories]
        given |= {"type": "category", "categoryorder": "array", "categoryarray": names}
    return given


def _color_axis(scale: Scale) -> Json:
    return {
        "cmin": scale.low,
        "cmax": scale.high,
        # The page knows which of the two: its palettes are in its data.
        "colorscale": scale_stops() if scale.areas else "@value",
        "colorbar": {"title": {"text": _text(scale.title)}},
    }
