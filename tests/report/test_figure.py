"""One description of a figure, three ways of drawing it: the same points in each."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.report.figure import (
    Axis,
    Bars,
    Figure,
    Line,
    Mark,
    Points,
    Scale,
    csv_of,
    key_of,
    label_positions,
)
from ipa_energy.report.image import _encoded, draw, write_images
from ipa_energy.report.page import Page, Section, write_page
from ipa_energy.report.palette import (
    RUNS_LIGHT,
    named_colors,
    paper_color,
    run_dash,
    scale_color,
    value_color,
    value_stops,
)
from ipa_energy.report.plotly_json import plotly_json, rounded
from ipa_energy.tables import Cell, Head, Row, Table, cell_of, table_text

HOSTILE = '</script><b onclick="x">%{y} $a^2'


def figure_of(*marks: Mark, **further: object) -> Figure:
    given = {"x": Axis("time (s)"), "y": Axis("power (W)")} | further
    return Figure(key="k", title="t", caption="c", marks=marks, **given)  # type: ignore[arg-type]


def rows_of(figure: Figure) -> list[list[str]]:
    return list(csv.reader(io.StringIO(csv_of(figure))))


@pytest.mark.parametrize(
    ("value", "ends"), [(0.5, [0.475, 0.525]), (0.0, [0.0, 1.0]), (-2.0, [-2.1, -1.9])]
)
def test_an_axis_with_one_value_ends_near_it_in_both_drawings(
    value: float, ends: list[float]
) -> None:
    one, none = Points(name="a", x=[value], y=[7.0]), Points(name="key", x=[math.nan], y=[math.nan])
    figure = figure_of(one, none)
    assert plotly_json(figure)["layout"]["xaxis"]["range"] == ends
    assert draw(figure).axes[0].get_xlim() == pytest.approx(ends)
    for other in (
        Points(name="b", x=[value + 1], y=[7.0]),
        Points(name="b", x=[value], y=[7.0], x_error=[0.1]),
    ):
        assert "range" not in plotly_json(figure_of(one, other))["layout"]["xaxis"]
    axis = plotly_json(figure_of(one, x=Axis("energy (J)", from_zero=True)))["layout"]["xaxis"]
    assert (axis.get("range"), axis["rangemode"]) == (None, "tozero")


def test_a_constant_line_is_on_an_axis_near_it_and_a_filled_one_from_zero() -> None:
    line = Line(name="a", x=[0.0, 1.0], y=[0.5, 0.5])
    assert plotly_json(figure_of(line))["layout"]["yaxis"]["range"] == [0.475, 0.525]
    assert "range" not in plotly_json(figure_of(replace(line, fill=True)))["layout"]["yaxis"]


def test_digits_are_significant_and_what_is_not_finite_is_null() -> None:
    assert rounded([1 / 3, 123456.789, math.nan, math.inf, 0.0]) == [
        0.333333,
        123457.0,
        None,
        None,
        0.0,
    ]


def test_csv_has_every_digit_and_leaves_the_unknown_empty() -> None:
    line = Line(name="a", x=[0, 1], y=[1 / 3, math.nan])
    points = Points(
        name="b", x=[2], y=[4.0], y_error=[0.5], values=[97.5], labels=["v, b2"], marks=["A"]
    )
    figure = figure_of(line, points, scale=Scale("inside (%)", 0, 100))
    assert rows_of(figure) == [
        ["series", "time (s)", "power (W)", "± power (W)", "inside (%)", "configuration"],
        ["a", "0.0", "0.3333333333333333", "", "", ""],
        ["a", "1.0", "", "", "", ""],
        ["b", "2.0", "4.0", "0.5", "97.5", "v, b2"],
    ]


def test_bars_with_a_start_tell_both_ends() -> None:
    bars = Bars(name="v", places=["r1", "r2"], starts=[0, 5], lengths=[5, math.inf])
    figure = figure_of(
        bars,
        x=Axis("weight", low=0.0, high=20.0, linear_below=1.0),
        y=Axis("load", categories=("r1", "r2")),
    )
    assert rows_of(figure)[1:] == [["v", "r1", "0.0", "5.0"], ["v", "r2", "5.0", ""]]
    (trace,) = plotly_json(figure)["data"]
    assert trace["base"] == [0.0, rounded([math.log10(6)])[0]]
    assert trace["x"][0] == pytest.approx(math.log10(6), rel=1e-5)
    assert trace["x"][1] == pytest.approx(math.log10(21) - math.log10(6), rel=1e-5)
    assert trace["meta"] == {"starts": [0, 5], "ends": [5, None]}


def test_stacked_bars_begin_where_the_ones_before_end() -> None:
    marks = [Bars(name=n, places=["r1", "r2"], lengths=lengths) for n, lengths in
             (("idle", [1.0, 2.0]), ("dynamic", [3.0, math.nan]))]  # fmt: skip
    figure = figure_of(*marks, y=Axis("", categories=("r1", "r2")))
    lefts = [patch.get_x() for patch in draw(figure).axes[0].patches]
    assert lefts == [0.0, 0.0, 1.0, 2.0]
    assert plotly_json(figure)["layout"]["barmode"] == "stack"


def test_axes_above_each_other_share_the_height_without_touching() -> None:
    line = Line(name="a", x=[0], y=[1], panel=1)
    figure = figure_of(line, y=(Axis("up", share=3), Axis("down", share=1)))
    found = plotly_json(figure)
    (low_1, high_1), (low_2, high_2) = (
        found["layout"][axis]["domain"] for axis in ("yaxis", "yaxis2")
    )
    assert (high_1, low_2) == (1.0, 0.0)
    assert low_1 > high_2
    assert (high_1 - low_1) / (high_2 - low_2) == pytest.approx(3, rel=1e-3)
    assert found["data"][0]["yaxis"] == "y2"
    assert len(draw(figure).axes) == 2


def test_names_of_users_are_never_markup_nor_templates() -> None:
    figure = figure_of(
        Points(name=HOSTILE, x=[1], y=[2], labels=[HOSTILE], marks=[HOSTILE], hover=[HOSTILE]),
        Bars(name=HOSTILE, at=[1.0], lengths=[1.0], upright=True),
        Line(name=HOSTILE, x=[1], y=[2], hover=[HOSTILE]),
        x=Axis(HOSTILE),
    )
    found = plotly_json(figure)
    text = json.dumps(found["data"]) + json.dumps(found["layout"])
    assert "<b onclick" not in text
    assert all("%{y} $a^2" not in trace["hovertemplate"] for trace in found["data"])


def test_estimates_are_hollow_and_measurements_filled() -> None:
    marks = [Points(name=str(hollow), x=[1], y=[2], hollow=hollow) for hollow in (True, False)]
    symbols = [trace["marker"]["symbol"] for trace in plotly_json(figure_of(*marks))["data"]]
    assert symbols == ["circle-open", "circle"]
    hollow, filled = draw(figure_of(*marks)).axes[0].collections
    assert len(hollow.get_facecolor()) == 0
    assert len(filled.get_facecolor()) == 1


def test_three_dimensions_have_points_in_all_three() -> None:
    figure = figure_of(Points(name="a", x=[1], y=[2], z=[3]), z=Axis("energy (J)", log=True))
    found = plotly_json(figure)
    assert found["data"][0]["type"] == "scatter3d"
    assert (found["data"][0]["x"], found["data"][0]["z"]) == ([1], [3])
    assert found["layout"]["scene"]["zaxis"]["title"]["text"] == "energy (J)"
    assert draw(figure).axes[0].name == "3d"


def test_values_of_points_are_coloured_by_the_scale() -> None:
    figure = figure_of(
        Points(name="a", x=[1, 2, 3], y=[2, 3, 4], values=[90, math.nan, 100]),
        scale=Scale("inside (%)", 90, 100),
    )
    points, bar = plotly_json(figure)["data"]
    assert points["marker"]["color"] == ["@value0", "@muted", "@value40"]
    assert bar["marker"]["coloraxis"] == "coloraxis"
    assert bar["x"] == [None]
    assert len(draw(figure).axes) == 2, "no colour bar"


def test_texts_beside_crowded_points_do_not_lie_on_each_other() -> None:
    marks = [
        Points(name=f"C{n}", x=[x], y=[1.0], marks=[f"C{n}"]) for n, x in enumerate((0, 0.005, 1))
    ]
    (first,), (second,), _ = label_positions(figure_of(*marks))
    assert first != second
    assert label_positions(figure_of(Line(name="a", x=[0], y=[0]), marks[0])) == [
        [],
        ["top center"],
    ]


def test_texts_of_points_that_nearly_coincide_in_three_dimensions_stand_apart() -> None:
    crowd = [(1.0, 4.0, 0.50), (1.001, 4.0, 0.501), (1.0, 4.01, 0.50), (0.6, 1.0, 0.2)]
    marks = [
        Points(name=f"C{n}", x=[x], y=[y], z=[z], marks=[f"C{n}"])
        for n, (x, y, z) in enumerate(crowd)
    ]
    figure = figure_of(*marks, z=Axis("energy (J)"))
    positions = [one for (one,) in label_positions(figure)]
    assert len(set(positions[:3])) == 3
    found = plotly_json(figure)["layout"]["scene"]["annotations"]
    sides = [(one["xanchor"], one["yanchor"]) for one in found]
    assert len(set(sides[:3])) == 3
    shown = [text for text in draw(figure).axes[0].texts if text.get_text().startswith("C")]
    assert len({(text.get_ha(), text.get_va()) for text in shown[:3]}) == 3


def test_colours_are_the_same_names_in_both_themes_and_on_paper() -> None:
    light, dark = named_colors(dark=False), named_colors(dark=True)
    assert light.keys() == dark.keys()
    assert paper_color("run1") == light["run1"] == RUNS_LIGHT[1]
    assert paper_color("#123456") == "#123456"
    assert value_color(0.5, 0, 1) == "value20"
    assert value_color(7, 7, 7) == "value0"
    assert [place for place, _ in value_stops(dark=True)][:: len(value_stops(dark=True)) - 1] == [
        0,
        1,
    ]
    assert scale_color(-1) == scale_color(0) != scale_color(1) == scale_color(2)


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize(("dark", "page"), [(False, "#ffffff"), (True, "#14171b")])
def test_lines_and_outlines_stand_out_from_the_page(dark: bool, page: str) -> None:
    behind = luminance(page)
    for name, color in named_colors(dark=dark).items():
        high, low = sorted((luminance(color), behind), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 3, f"{name} {color}"


def test_thirty_runs_look_different() -> None:
    looks = {(named_colors(dark=False)[f"run{at}"], run_dash(at)) for at in range(30)}
    assert len(looks) == 30


def test_idle_and_dynamic_have_swatches_of_their_own() -> None:
    marks = [Bars(name=n, places=["r"], lengths=[1.0], pale=n == "idle") for n in ("idle", "work")]
    figure = figure_of(*marks, y=Axis("", categories=("r",)))
    colors = [trace["marker"]["color"] for trace in plotly_json(figure)["data"]]
    assert colors == ["@run0-pale", "@run0"]


def test_colours_of_areas_are_explained_in_files_too() -> None:
    bars = Bars(name="v", places=["r"], lengths=[1.0], color=scale_color(0.5), legend=False)
    figure = figure_of(bars, y=Axis("", categories=("r",)), scale=Scale("rank", 1, 9, areas=True))
    assert len(draw(figure).axes) == 2, "no colour bar"
    assert plotly_json(figure)["layout"]["coloraxis"]["colorscale"][0] == (0.0, scale_color(0))


def test_what_the_page_tells_elsewhere_is_in_the_legend_of_files_alone() -> None:
    figure = figure_of(
        Points(name="C1 plan", x=[1], y=[2], told=True), Points(name="key", x=[1], y=[2])
    )
    (legend,) = draw(figure).legends
    assert [text.get_text() for text in legend.get_texts()] == ["C1 plan", "key"]
    assert [trace.get("showlegend") for trace in plotly_json(figure)["data"]] == [False, None]


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    heads = [Head("J"), Head("word"), Head("span")]
    rows = [Row("a", [2.5, "pear", "5 to 9"]), Row("b", [None, None, "−1 to 2"])]
    table = Table("", "row", heads, rows)
    assert [table.is_words(at) for at in range(3)] == [False, True, False]
    assert table_text(table).splitlines()[2:] == [
        "a    2.500  pear   5 to 9",
        "b        –  –     −1 to 2",
    ]


def test_keys_are_safe_names_of_files() -> None:
    assert key_of("stage-0", "a/b c") == "stage-0-a_b_c"


def page_of(*figures: Figure) -> Page:
    return Page(title="t", sections=[Section(title="s", figures=figures)])


def test_figures_of_one_key_are_refused(tmp_path: Path) -> None:
    figure = figure_of(Line(name="a", x=[0], y=[1]))
    with pytest.raises(ConfigError, match="share a key"):
        write_page(page_of(figure, figure), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_figure_without_points_is_left_out_everywhere(tmp_path: Path) -> None:
    empty = figure_of(Line(name="a", x=[0], y=[math.nan]), Points(name="b", x=[], y=[]))
    page = write_page(page_of(empty), tmp_path / "p.html")
    assert "plot-k" not in page.read_text()
    assert len(page.read_bytes()) < 100_000, "Plotly for nothing"
    assert write_images(page_of(empty).figures, tmp_path) == []


def test_a_name_that_the_font_lacks_is_drawn_without_a_warning(tmp_path: Path) -> None:
    figure = figure_of(Line(name="视频", x=[0, 1], y=[1, 2]), x=Axis("视频"))
    assert len(write_images([figure], tmp_path)) == 3


def test_ids_of_an_svg_do_not_hang_on_the_last_digit_of_a_place() -> None:
    """The constrained layout leaves it open, and matplotlib's ids are hashes of places."""
    lines = [Line(name=name, x=[0, 1, 2], y=[1, 3, 2]) for name in "ab"]
    canvas = draw(figure_of(*lines))
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")
    once = _encoded(canvas, "svg", "k")
    axes = canvas.axes[0]
    x0, y0, width, height = axes.get_position().bounds
    axes.set_position((x0, y0, width * (1 + 1e-12), height))
    assert _encoded(canvas, "svg", "k") == once
    ids = re.findall(rb' id="([^"]*)"', once)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(rb'(?:href="|url\()#([^")]*)', once)) <= set(ids)


def test_cells_show_what_is_known() -> None:
    shown = [cell_of(value).text for value in (None, math.nan, 3, 11.0, 0.12345, -2.5, "word")]
    assert shown == ["–", "–", "3", "11", "0.1235", "−2.500", "word"]
    assert cell_of(0.12345).key == 0.12345
    assert cell_of(Cell("x")) == Cell("x")
