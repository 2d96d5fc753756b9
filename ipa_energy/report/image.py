"""Figures as PNG and SVG, for papers and slides, with their numbers as CSV beside them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ipa_energy.files import whole_bytes
from ipa_energy.report.figure import (
    POSITIONS,
    Axis,
    Bars,
    Figure,
    Line,
    Mark,
    Numbers,
    Points,
    csv_of,
    label_positions,
    with_ends,
)
from ipa_energy.report.palette import paper_color, scale_stops, value_stops
from ipa_energy.runlog.folder import write_atomically, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure as Canvas

DPI = 160
STILL_DPI, STILL_COLORS = 90, 48
WIDTH_IN = 8.0
PIXELS_PER_INCH = 90.0
"""Of a figure's height in the page, so that files have the same shape."""

PALE = 0.45

_STYLES: dict[str, Any] = {
    **{"solid": "-", "dot": ":", "dash": "--", "dashdot": "-."},
    "longdash": (0, (10, 3)),
}
_SYMBOLS = {"circle": "o", "square": "s", "diamond": "D", "star": "*", "cross": "P"}
_SVG_ID = re.compile(rb"(?<=[\"#])[mp][0-9a-f]{10}\b")
"""As matplotlib names markers and clips."""

_FROM_3D = {"elev": 18.0, "azim": -125.0}


def write_images(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write each figure that has anything to draw as ``KEY.png``, ``KEY.svg`` and ``KEY.csv``.

    Args:
        figures: what to write.
        folder: made if it does not exist; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        ConfigError: they cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in figures:
        if not figure.drawable:
            continue
        canvas = draw(figure)
        for kind in ("png", "svg"):
            path = folder / f"{figure.key}.{kind}"
            image = _encoded(canvas, kind, figure.key)
            with writing(path):
                whole_bytes(path, image)
            paths.append(path)
        path = folder / f"{figure.key}.csv"
        text = csv_of(figure)
        write_atomically(path, lambda file, text=text: file.write(text))  # type: ignore[misc]
        paths.append(path)
    return paths


def still(figure: Figure) -> bytes:
    """``figure`` as a small PNG, without its title: the page has it."""
    from PIL import Image

    canvas = draw(figure)
    canvas.suptitle("")
    picture = Image.open(BytesIO(_encoded(canvas, "png", figure.key, dpi=STILL_DPI)))
    out = BytesIO()
    # So few colours do for a plot, and take a third of the bytes.
    picture.convert("RGB").quantize(STILL_COLORS).save(out, "png", optimize=True)
    return out.getvalue()


def draw(figure: Figure) -> Canvas:
    """``figure`` on white paper."""
    from matplotlib.figure import Figure as Canvas

    figure = with_ends(figure)
    entries = sum(mark.legend for mark in figure.marks)
    rows = -(-entries // _columns(figure)) if entries > 1 else 0
    rows += bool(figure.footnote)
    height_in = figure.height / PIXELS_PER_INCH + 0.35 + 0.2 * rows
    canvas = Canvas(figsize=(WIDTH_IN, height_in), layout="constrained")
    canvas.suptitle(_plain(figure.title), x=0.01, ha="left", fontsize=11, fontweight="bold")
    axes = _axes(canvas, figure)
    stacked: dict[tuple[int, str], float] = {}
    for mark, positions in zip(figure.marks, label_positions(figure), strict=True):
        _draw(axes[mark.panel], figure, mark, stacked)
        if isinstance(mark, Points) and mark.marks:
            _texts(axes[mark.panel], mark, positions)
    for panel, (one, axis) in enumerate(zip(axes, figure.panels, strict=True)):
        _dress(one, figure, axis, is_last=panel == len(axes) - 1)
    if figure.has_scale:
        _color_bar(canvas, axes, figure)
    _legend(canvas, axes, figure)
    return canvas


def _encoded(canvas: Canvas, kind: str, key: str, *, dpi: int = DPI) -> bytes:
    from matplotlib import rc_context

    # Neither the time nor a random id: the same figure twice is the same file.
    metadata = {"Date": None} if kind == "svg" else None
    out = BytesIO()
    with rc_context({"svg.hashsalt": key}), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is seen without a word.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas.savefig(out, format=kind, dpi=dpi, facecolor="white", metadata=metadata)
    return out.getvalue() if kind != "svg" else _numbered(out.getvalue())


def _numbered(svg: bytes) -> bytes:
    """With ids by order: matplotlib hashes places, whose last digit its layout leaves open."""
    found = dict.fromkeys(_SVG_ID.findall(svg))
    names = {name: b"%c%d" % (name[:1], at) for at, name in enumerate(found)}
    return _SVG_ID.sub(lambda match: names[match[0]], svg)


def _axes(canvas: Canvas, figure: Figure) -> list[Any]:
    if figure.z is not None:
        axes = canvas.add_subplot(projection="3d")
        axes.view_init(**_FROM_3D)
        return [axes]
    shares = [axis.share for axis in figure.panels]
    grid = canvas.subplots(len(shares), 1, sharex=True, height_ratios=shares, squeeze=False)
    return [row[0] for row in grid]


def _draw(axes: Any, figure: Figure, mark: Mark, stacked: dict[tuple[int, str], float]) -> None:
    if isinstance(mark, Line):
        _line(axes, mark)
    elif isinstance(mark, Bars):
        _bars(axes, figure, mark, stacked)
    else:
        _points(axes, figure, mark)


def _line(axes: Any, mark: Line) -> None:
    color = paper_color(mark.color)
    x, y = _floats(mark.x), _floats(mark.y)
    label = _plain(mark.name) if mark.legend else None
    if mark.inside:
        axes.fill(x, y, color=paper_color("faint"), linewidth=0, label=label)
        return
    if mark.fill:
        axes.fill_between(x, y, color=paper_color("faint"), linewidth=0, label=label)
        return
    axes.plot(
        x,
        y,
        linestyle=_STYLES[mark.dash],
        color=color,
        linewidth=0.8 * mark.width,
        drawstyle="steps-post" if mark.step else "default",
        label=label,
    )


def _points(axes: Any, figure: Figure, mark: Points) -> None:
    places = [_floats(mark.x), _floats(mark.y)]
    if mark.z is not None:
        places.append(_floats(mark.z))
    colors = [paper_color(name) for name in mark.colors(figure.scale) or [mark.color]]
    if mark.joined:
        style = _STYLES[mark.dash]
        axes.plot(*places, linestyle=style, color=paper_color(mark.color), linewidth=1.1)
    for letter in "xyz"[: len(places)]:
        error = getattr(mark, f"{letter}_error")
        if error is not None and not bool(np.isnan(_floats(error)).all()):
            axes.errorbar(
                *places,
                **{f"{letter}err": np.nan_to_num(_floats(error))},
                fmt="none",
                ecolor="#777777" if mark.values is not None else paper_color(mark.color),
                elinewidth=1,
                capsize=2.5,
            )
    look = {"depthshade": False} if figure.z is not None else {}
    axes.scatter(
        *places,
        **look,
        marker=_SYMBOLS[mark.symbol],
        s=(0.75 * mark.size) ** 2,
        facecolors="none" if mark.hollow else colors,
        edgecolors=colors,
        linewidths=(0.8 if mark.pale else 1.6) if mark.hollow else 0,
        alpha=PALE if mark.pale else 1.0,
        zorder=3,
    )
    # Its own entry, because points that are nowhere lose their colour in a legend.
    axes.plot(
        *([] for _ in places),
        _SYMBOLS[mark.symbol],
        markersize=0.75 * mark.size,
        markerfacecolor="none" if mark.hollow else colors[0],
        markeredgecolor=colors[0],
        markeredgewidth=(0.8 if mark.pale else 1.6) if mark.hollow else 0,
        alpha=PALE if mark.pale else 1.0,
        label=_plain(mark.name) if mark.legend else None,
    )


def _texts(axes: Any, mark: Points, positions: list[str]) -> None:
    from matplotlib.transforms import ScaledTranslation

    places = [_floats(values) for values in (mark.x, mark.y, mark.z) if values is not None]
    for *place, text, position in zip(*places, mark.marks, positions, strict=True):
        right, up = POSITIONS[position]
        off = ScaledTranslation(5.5 / 72 * right, 5.5 / 72 * up, axes.figure.dpi_scale_trans)
        axes.text(
            *place,
            _plain(text),
            transform=axes.transData + off,
            ha=("right", "center", "left")[right + 1],
            va=("top", "center", "bottom")[up + 1],
            fontsize=8.5,
        )


def _bars(axes: Any, figure: Figure, mark: Bars, stacked: dict[tuple[int, str], float]) -> None:
    lengths = _floats(mark.lengths)
    axis = figure.x if mark.upright else figure.panels[mark.panel]
    categories = list(axis.categories)
    at = _floats(mark.at) if len(mark.at) else [categories.index(name) for name in mark.places]
    starts = np.zeros(len(lengths))
    if len(mark.starts):
        starts, lengths = mark.extents(figure)
    elif not figure.overlay and mark.places:
        keys = [(mark.panel, name) for name in mark.places]
        starts = np.array([stacked.get(key, 0.0) for key in keys])
        for key, length in zip(keys, np.nan_to_num(lengths), strict=True):
            stacked[key] = stacked.get(key, 0.0) + length
    look = {
        "color": paper_color(mark.color),
        "alpha": PALE if mark.pale else 1.0,
        "label": _plain(mark.name) if mark.legend else None,
    }
    if len(mark.starts):
        # A white edge parts bars, and would hide those that are narrower than it.
        edge = paper_color(mark.color) if mark.is_dense else "white"
        look |= {"edgecolor": edge, "linewidth": 0.4}
    if mark.upright:
        width = 0.7
        if len(mark.at) > 1:
            width = 0.7 * float(np.diff(_floats(mark.at)).min())
        axes.bar(at, lengths, width=width, bottom=starts, **look)
    else:
        axes.barh(at, lengths, height=0.66, left=starts, **look)


def _dress(axes: Any, figure: Figure, axis: Axis, *, is_last: bool) -> None:
    is_3d = figure.z is not None
    if not is_3d:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#e3e6ea", linewidth=0.7)
        axes.set_axisbelow(True)
    axes.tick_params(labelsize=8 if is_3d else 9)
    _dress_axis(axes, "y", axis)
    if is_last:
        _dress_axis(axes, "x", figure.x)
    if figure.z is not None:
        _dress_axis(axes, "z", figure.z)
        axes.set_box_aspect((1.2, 1.2, 0.85), zoom=1.0)
    if axis.categories:
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")


def _dress_axis(axes: Any, letter: str, axis: Axis) -> None:
    getattr(axes, f"set_{letter}label")(_plain(axis.shown or axis.title), fontsize=9.5)
    set_limits: Callable[..., object] = getattr(axes, f"set_{letter}lim")
    set_ticks: Callable[..., object] = getattr(axes, f"set_{letter}ticks")
    if axis.log:
        _dress_log(axes, letter)
    if axis.categories:
        set_ticks(range(len(axis.categories)), [_plain(name) for name in axis.categories])
    elif axis.ticks:
        set_ticks(
            axis.places([place for place, _ in axis.ticks]),
            [_plain(text) for _, text in axis.ticks],
        )
    if axis.low is not None and axis.high is not None:
        set_limits(*axis.places([axis.low, axis.high]))
    elif axis.from_zero and not axis.log:
        set_limits(0, None)
    if axis.counts:
        from matplotlib.ticker import MaxNLocator

        getattr(axes, f"{letter}axis").set_major_locator(MaxNLocator(4, integer=True))


def _dress_log(axes: Any, letter: str) -> None:
    """1, 2 and 5 of every power of ten, written out."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    getattr(axes, f"set_{letter}scale")("log")
    axis = getattr(axes, f"{letter}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _color_bar(canvas: Canvas, axes: Sequence[Axes], figure: Figure) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = figure.scale
    if scale is None:
        return
    colors = ScalarMappable(
        norm=Normalize(scale.low, scale.high), cmap=_color_map(areas=scale.areas)
    )
    bar = canvas.colorbar(colors, ax=list(axes), pad=0.02, fraction=0.04, aspect=30, shrink=0.8)
    bar.set_label(_plain(scale.title), fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _color_map(*, areas: bool) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    stops = scale_stops() if areas else value_stops(dark=False)
    return LinearSegmentedColormap.from_list("ordered", stops)


def _columns(figure: Figure) -> int:
    """Columns of the legend that its longest entry leaves room for."""
    longest = max((len(mark.name) for mark in figure.marks if mark.legend), default=1)
    return max(1, min(4, 118 // (longest + 6)))


def _legend(canvas: Canvas, axes: Sequence[Axes], figure: Figure) -> None:
    handles, labels = [], []
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    # One series needs no name, but a file has to say where its joules come from.
    if len(labels) > 1 or figure.footnote:
        canvas.legend(
            handles if len(labels) > 1 else [],
            labels if len(labels) > 1 else [],
            title=_plain(figure.footnote) or None,
            title_fontsize=7.5,
            alignment="left",
            loc="outside lower left",
            ncols=_columns(figure),
            fontsize=8.5,
            frameon=False,
        )


def _plain(text: str) -> str:
    """``text`` with no letter that Matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def _floats(values: Numbers) -> Any:
    return np.asarray(values, dtype=np.float64)
