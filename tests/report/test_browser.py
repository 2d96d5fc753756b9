"""The pages as a reader meets them, in a real browser without a network."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from installed import require_installed
from small_pipeline import write_small_pipeline
from studies_to_draw import HOSTILE, study_to_draw

from ipa_energy.comparing import compare
from ipa_energy.report import write_html
from ipa_energy.report.figure import Axis, Figure, Line, Points, csv_of
from ipa_energy.report.page import Facts, Page, Section, write_page
from ipa_energy.report.tradeoff_page import tradeoff_page
from ipa_energy.runlog import read_run
from ipa_energy.tables import Head, Row, Table
from ipa_energy.testing import write_fake_run
from ipa_energy.tradeoff.study import Study

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)
require_installed("playwright")

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
KINDS = ("compare", "tradeoff", "experiment")
LAYOUTS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
HARMLESS = "willReadFrequently"
"""Plotly's text on WebGL reads a canvas back; the browser finds that slow and says so."""

CURVE = Figure(
    key="curve",
    title=f"Energy of {HOSTILE}",
    caption="A curve with a gap, an interval and a name that wants to be markup.",
    marks=[
        Points(
            name=HOSTILE,
            x=[1.0, 2.0, 4.0],
            y=[51.2, float("nan"), 65.8],
            y_error=[0.5, float("nan"), 1.5],
            labels=["=one", "two\nlines", HOSTILE],
            hollow=True,
            joined=True,
        ),
        Line(name="limit", x=[1.0, 4.0], y=[60.0, 60.0], color="text", dash="dash"),
    ],
    x=Axis("batch (images)", log=True),
    y=Axis("energy (J/image)", from_zero=True),
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, study: Study) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    runs = [
        read_run(write_fake_run(folder / f"run{n}", seconds=60, energy_weight=float(n), name=name))
        for n, name in enumerate(("plain", HOSTILE))
    ]
    section = Section(
        title=HOSTILE,
        text=[HOSTILE],
        tables=[
            Table("Numbers", "row", [Head("x", "J"), Head("word")], [
                Row("b", [2.5, "pear"]), Row("a", [10.0, "apple"]), Row(HOSTILE, [None, "fig"]),
            ]),
        ],
        figures=[CURVE],
        facts=[Facts("Provenance", {"meter": HOSTILE})],
    )  # fmt: skip
    return {
        "compare": write_html(compare(runs), runs, folder / "compare.html"),
        "tradeoff": write_page(tradeoff_page(study), folder / "tradeoff.html"),
        "experiment": write_page(
            Page(title=HOSTILE, sections=[section]), folder / "experiment.html"
        ),
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = study_to_draw(write_small_pipeline(tmp_path_factory.mktemp("pipeline")))
    return replace(study, cases=study.cases[:1])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Opens a page in a layout; at the end nothing may have gone wrong or out."""
    contexts: list[Any] = []
    troubles: list[str] = []

    def said(message: Any) -> None:
        if message.type in ("error", "warning") and HARMLESS not in message.text:
            troubles.append(message.text)

    def requested(request: Any) -> None:
        if not request.url.startswith(("file:", "blob:", "data:")):
            troubles.append(f"a request to {request.url}")

    def open_page(kind: str, layout: str = "light") -> Any:
        context = browser.new_context(**LAYOUTS[layout], accept_downloads=True)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", said)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", requested)
        page.on("dialog", lambda dialog: troubles.append(f"a dialog: {dialog.message}"))
        page.goto(pages[kind].as_uri())
        count = page.locator(".plot").count()
        page.wait_for_selector(f"html[data-drawn='{count}']", state="attached", timeout=120_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_drawn_and_nothing_overflows(
    kind: str, layout: str, opened: Callable[..., Any]
) -> None:
    page = opened(kind, layout)
    undrawn = page.evaluate(
        "Array.from(document.querySelectorAll('.plot')).filter((at) =>"
        " !at.querySelector('.main-svg') || at.clientHeight < 80).map((at) => at.id)"
    )
    assert undrawn == []
    beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(beyond) <= 0
    cut = page.evaluate(
        "Array.from(document.querySelectorAll('.legendtext')).filter((text) =>"
        " text.getBoundingClientRect().right > window.innerWidth).map((text) => text.textContent)"
    )
    if layout != "phone":
        assert cut == []
    # Names of users are text and never markup.
    assert page.locator("img").count() == 0
    texts = [*page.locator("svg text").all_text_contents(), page.locator("main").inner_text()]
    assert any("<img src=x onerror=alert(1)>" in text for text in texts)


@pytest.mark.parametrize("kind", KINDS)
def test_print_is_black_on_white_and_within_the_paper(
    kind: str, opened: Callable[..., Any]
) -> None:
    page = opened(kind, "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")
    page.set_viewport_size({"width": 720, "height": 1000})
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    fill = "getComputedStyle(document.querySelector('.plot .xtitle, .plot .legendtext')).fill"
    assert page.evaluate(fill) in ("rgb(0, 0, 0)", "rgb(85, 85, 85)")
    beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(beyond) <= 0


def test_theme_button_turns_the_page(opened: Callable[..., Any]) -> None:
    page = opened("compare", "light")
    ink = "getComputedStyle(document.querySelector('.plot .xtitle')).fill"
    before = page.evaluate(ink)
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert page.evaluate(ink) != before
    page.click("#theme")
    assert page.evaluate(ink) == before


def camera(page: Any, key: str) -> dict[str, Any]:
    script = "(id) => document.getElementById(id)._fullLayout.scene._scene.getCamera().eye"
    found = page.evaluate(script, f"plot-{key}")
    assert isinstance(found, dict)
    return found


def test_third_dimension_is_drawn_and_turns(opened: Callable[..., Any]) -> None:
    page = opened("tradeoff")
    key = page.locator(".plot:has(canvas)").first.get_attribute("id").removeprefix("plot-")
    plot = page.locator(f"#plot-{key}")
    plot.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    seen = colors_of(plot.screenshot())
    assert len(seen) > 20, "an empty canvas has one colour"
    before = camera(page, key)
    box = plot.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + 0.6 * box["height"])
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 150, middle[1] + 20, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    after = camera(page, key)
    assert max(abs(after[axis] - before[axis]) for axis in "xyz") > 0.1
    assert colors_of(plot.screenshot()) != seen


def colors_of(screenshot: bytes) -> dict[tuple[int, ...], int]:
    """How often each colour is in a picture."""
    from PIL import Image

    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    return {color: count for count, color in picture.getcolors(picture.width * picture.height)}


@pytest.mark.parametrize("kind", ["compare", "tradeoff"])
def test_click_on_a_legend_entry_hides_what_it_names(kind: str, opened: Callable[..., Any]) -> None:
    page = opened(kind)
    plot = page.locator(".plot:not(:has(canvas)):has(.legendtoggle)").first
    hidden = f"document.getElementById('{plot.get_attribute('id')}').data" + (
        ".filter((trace) => trace.visible === 'legendonly').length"
    )
    assert page.evaluate(hidden) == 0
    plot.locator(".legendtoggle").first.click()
    page.wait_for_timeout(700)
    assert page.evaluate(hidden) == 1
    page.click("#theme")
    page.wait_for_timeout(300)
    assert page.evaluate(hidden) == 1, "a change of colours brought it back"
    plot.locator(".legendtoggle").first.click()
    page.wait_for_timeout(700)
    assert page.evaluate(hidden) == 0


def test_hover_tells_configuration_and_provenance(opened: Callable[..., Any]) -> None:
    page = opened("tradeoff")
    plot = page.locator(".plot:not(:has(canvas))").first
    plot.scroll_into_view_if_needed()
    plot.locator(".scatterlayer .trace .point").first.hover(force=True)
    page.wait_for_selector(".hoverlayer .hovertext", timeout=5000)
    text = plot.locator(".hoverlayer").first.text_content()
    for word in ("find-", "name-", "cores", "accuracy", "J/request", " by "):
        assert word in text


def names_in(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("tbody .name").all_text_contents()]


def test_table_sorts_by_click_and_by_keyboard(opened: Callable[..., Any]) -> None:
    page = opened("experiment")
    assert names_in(page) == ["b", "a", HOSTILE]
    head = page.locator("thead th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert names_in(page) == ["b", "a", HOSTILE], "2.5 before 10: numbers, not words"
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert names_in(page) == ["a", "b", HOSTILE], "what is not known stays last"
    words = page.locator("thead th").nth(2)
    words.locator("button").focus()
    page.keyboard.press("Space")
    assert words.get_attribute("aria-sort") == "ascending"
    assert head.get_attribute("aria-sort") == "none"
    assert names_in(page) == ["a", HOSTILE, "b"]


def test_table_copies_as_tsv(opened: Callable[..., Any]) -> None:
    page = opened("experiment")
    page.click(".copy")
    page.wait_for_selector(".copy:has-text('Copied')")
    page.evaluate("document.body.append(Object.assign(document.createElement('textarea'),"
                  " { id: 'paste' }))")  # fmt: skip
    page.focus("#paste")
    page.keyboard.press("Control+V")
    rows = [line.split("\t") for line in page.input_value("#paste").strip().split("\n")]
    assert rows[0] == ["row", "x (J)", "word"]
    assert rows[1:] == [["b", "2.500", "pear"], ["a", "10", "apple"], [HOSTILE, "–", "fig"]]


def saved(page: Any, key: str, kind: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click(f"button.save[data-figure='{key}'][data-format='{kind}']")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def table_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def assert_same_numbers(from_page: str, from_package: str) -> None:
    """The page's CSV is the package's, to the digits that the page holds."""
    found, expected = table_of(from_page), table_of(from_package)
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert found[0] == expected[0]
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        for one, other in zip(mine, theirs, strict=True):
            try:
                assert float(one) == pytest.approx(float(other), rel=1e-5)
            except ValueError:
                assert one == other


def test_csv_button_gives_the_right_numbers(opened: Callable[..., Any]) -> None:
    name, data = saved(opened("experiment"), "curve", "csv")
    assert name == "curve.csv"
    assert table_of(data.decode()) == [
        ["series", "batch (images)", "energy (J/image)", "± energy (J/image)", "configuration"],
        [HOSTILE, "1", "51.2", "0.5", "=one"],
        [HOSTILE, "2", "", "", "two lines"],
        [HOSTILE, "4", "65.8", "1.5", HOSTILE],
        ["limit", "1", "60", "", ""],
        ["limit", "4", "60", "", ""],
    ]
    assert_same_numbers(data.decode(), csv_of(CURVE))


def test_every_csv_of_the_page_is_the_packages(opened: Callable[..., Any], study: Study) -> None:
    figures = tradeoff_page(study).figures
    assert len(figures) == 7
    page = opened("tradeoff")
    for figure in figures:
        name, data = saved(page, figure.key, "csv")
        assert name == f"{figure.key}.csv"
        assert_same_numbers(data.decode(), csv_of(figure))


def test_figure_saves_as_png_and_svg(opened: Callable[..., Any]) -> None:
    page = opened("tradeoff", "dark")
    keys = page.locator(".plot").evaluate_all("(all) => all.map((one) => one.id.slice(5))")
    name, data = saved(page, keys[0], "svg")
    assert name == f"{keys[0]}.svg"
    assert b"<svg" in data[:300]
    for key in keys[:2]:
        name, data = saved(page, key, "png")
        assert name == f"{key}.png"
        assert data.startswith(b"\x89PNG")
        assert colors_of(data)[255, 255, 255] > 10_000, "not on white"


def test_numbers_of_a_figure_unfold(opened: Callable[..., Any]) -> None:
    page = opened("experiment")
    page.click("summary")
    page.wait_for_selector("details table")
    rows = page.locator("details tbody tr").all_inner_texts()
    assert len(rows) == 5
    assert "65.8" in rows[2]


def test_without_scripts_pictures_stand_for_figures(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["compare"].as_uri())
    shown = page.locator("figure noscript img")
    assert shown.count() == page.locator("figure").count() > 5
    box = shown.first.bounding_box()
    assert box["width"] > 300 and box["height"] > 100
    assert not page.locator(".plot").first.is_visible()
    assert not page.locator(".save").first.is_visible()
    context.close()


def test_a_phone_is_told_that_a_table_scrolls(opened: Callable[..., Any]) -> None:
    page = opened("compare", "phone")
    assert page.locator(".hint").first.is_visible()
    assert not page.locator(".copy").first.is_visible()
    page.evaluate("document.querySelector('.table .scroll').scrollLeft = 10000")
    page.wait_for_timeout(200)
    assert not page.locator(".hint").first.is_visible(), "all was seen"
    wide = opened("compare", "light")
    assert not wide.locator(".hint").first.is_visible()
