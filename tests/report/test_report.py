"""The page of a comparison holds everything and escapes everything; the figures get written."""

from __future__ import annotations

import base64
import csv
import gzip
import importlib.util
import io
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipa_energy.cli import main
from ipa_energy.comparing import Comparison, compare, comparison_table, metrics
from ipa_energy.errors import ConfigError
from ipa_energy.report import write_figures, write_html
from ipa_energy.report.compare_page import compare_figures, compare_page, drawn_runs
from ipa_energy.report.figure import Line, csv_of
from ipa_energy.report.image import draw
from ipa_energy.report.plotly_json import plotly_json
from ipa_energy.runlog import Run, read_run
from ipa_energy.testing import write_fake_run

HOSTILE = "<script>alert('x')</script> & </script> $a^2 %{x}"
KEYS = ["trade", "load", "power", "energy", "split", "accuracy", "cores", "latency"]
KEYS += ["distribution", "stage-0-crop", "stage-1-classification"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    names = ("plain", HOSTILE)
    return [
        read_run(
            write_fake_run(folder / str(index), seconds=60, energy_weight=float(index), name=name)
        )
        for index, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def comparison(runs: list[Run]) -> Comparison:
    best = replace(metrics(runs[0]), name="best static plan", detail="<b>v 1c b1 x2</b>")
    return compare(runs, static_best=best, hindsight=replace(best, name="hindsight", detail=None))


@pytest.fixture(scope="module")
def page(comparison: Comparison, runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return write_html(comparison, runs, path).read_text()


@pytest.fixture(scope="module")
def figures(
    comparison: Comparison, runs: list[Run], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    return write_figures(comparison, runs, tmp_path_factory.mktemp("figures") / "new" / "folder")


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data = json.loads(found.group(1))
    assert isinstance(data, dict)
    return data


def test_page_loads_nothing(page: str) -> None:
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)=(?!\"data:image/png;base64,)|url\(|@import|https?://", ours)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert len(page.encode()) < 3e6


def test_plotly_is_inside_and_unpacks(page: str) -> None:
    found = re.search(r'<script type="text/plain" id="plotly">(.*?)</script>', page, re.DOTALL)
    assert found
    script = gzip.decompress(base64.b64decode(found.group(1))).decode()
    assert "plotly.js v" in script[:200]
    assert len(script) > 3e6


def test_one_comparison_is_one_file_to_the_byte(
    page: str, comparison: Comparison, runs: list[Run], tmp_path: Path
) -> None:
    assert write_html(comparison, runs, tmp_path / "again.html").read_text() == page


def test_names_from_users_are_escaped(page: str) -> None:
    assert "<script>alert" not in page
    assert "<b>v 1c" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &lt;/script&gt;" in page
    assert page.count("</script>") == page.count("<script")
    templates = re.findall(r'"hovertemplate": ?"(.*?)"', page)
    assert templates
    assert not any("a^2 %{x}" in template for template in templates)


def test_every_figure_has_a_text_alternative_and_data(page: str) -> None:
    data = data_of(page)
    figures = data["figures"]
    assert isinstance(figures, list)
    assert [figure["key"] for figure in figures] == KEYS
    labels = re.findall(r'id="plot-([\w-]+)"[^>]*role="img" aria-label="([^"]+)"', page)
    assert [key for key, _ in labels] == KEYS
    assert all(len(label) > 40 for _, label in labels)
    assert page.count("<figcaption>") == len(KEYS)
    assert page.count('<details class="numbers"') == len(KEYS)


def test_colours_are_names_that_the_theme_has(page: str) -> None:
    data = data_of(page)
    named = set(re.findall(r'"@(\w+)"', json.dumps(data["figures"])))
    assert named
    colors = data["colors"]
    assert isinstance(colors, dict)
    own = {"page", "text", "muted", "faint", "line"}
    for theme in ("light", "dark"):
        assert named <= set(colors[theme]) | own


def test_estimates_are_called_estimates(page: str) -> None:
    assert page.count("estimated by fake") >= 3
    assert "Estimated joules were computed from a model" in page
    assert "Measured joules" not in page


def test_without_scripts_every_figure_is_a_picture(page: str) -> None:
    pictures = re.findall(r'<noscript><img src="data:image/png;base64,([^"]+)" alt=', page)
    assert len(pictures) == len(KEYS)
    for picture in pictures:
        data = base64.b64decode(picture)
        assert data.startswith(b"\x89PNG")
        assert len(data) < 60_000


def test_joules_say_where_they_are_from_in_every_file(
    comparison: Comparison, runs: list[Run]
) -> None:
    figures = {one.key: one for one in compare_figures(comparison, drawn_runs(comparison, runs))}
    for key in ("trade", "power", "energy", "split"):
        assert figures[key].footnote == "Joules: estimated by fake."
        rows = list(csv.DictReader(io.StringIO(csv_of(figures[key]))))
        assert {row["joules"] for row in rows} == {"estimated by fake"}
        (legend,) = draw(figures[key]).legends
        assert legend.get_title().get_text() == figures[key].footnote
    assert "joules" not in csv_of(figures["latency"])


def test_figures_over_time_end_together_and_count_in_whole_numbers(
    comparison: Comparison, runs: list[Run]
) -> None:
    figures = compare_figures(comparison, drawn_runs(comparison, runs))
    over_time = [one for one in figures if one.x.title.startswith("time")]
    assert {(one.x.low, one.x.high) for one in over_time} == {(0.0, 60.0)}
    (stage, _) = (one for one in figures if one.key.startswith("stage"))
    layout = plotly_json(stage)["layout"]
    assert all(layout[axis]["dtick"] >= 1 for axis in ("yaxis2", "yaxis3"))
    for axes in draw(stage).axes[1:]:
        assert all(float(tick).is_integer() for tick in axes.get_yticks())
    legend = [mark.name for mark in stage.marks if mark.legend]
    assert legend[-2:] == ["plain", HOSTILE], "lines without a name"
    widths = [mark.width for mark in stage.marks if isinstance(mark, Line)]
    assert widths[0] > 2 * widths[2], "a line in the same place would hide the first"


def test_mlperf_joules_are_never_shown_without_their_notice(
    runs: list[Run], tmp_path: Path
) -> None:
    notice = "not verified by MLCommons Association"
    run = replace(
        runs[0], steps=tuple(replace(step, meter="mlperf-wall") for step in runs[0].steps)
    )
    comparison = compare([run])
    page = compare_page(comparison, drawn_runs(comparison, [run]))
    assert any(notice in text for section in page.sections for text in section.notes)
    assert notice in comparison_table(comparison)
    for figure in page.figures:
        if figure.key in ("trade", "power", "energy", "split"):
            assert notice in figure.footnote
            assert notice in csv_of(figure).splitlines()[1]


@pytest.mark.usefixtures("without_stills")
def test_logs_without_energy_have_no_energy_figures(runs: list[Run], tmp_path: Path) -> None:
    silent = replace(
        runs[0],
        power_w=np.empty(0),
        steps=tuple(
            replace(
                step,
                energy_j=math.nan,
                quality=None,
                meter=None,
                stages=tuple(
                    replace(stage, idle_j=math.nan, dynamic_j=math.nan) for stage in step.stages
                ),
            )
            for step in runs[0].steps
        ),
    )
    page = write_html(compare([silent]), [silent], tmp_path / "r.html").read_text()
    figures = data_of(page)["figures"]
    assert isinstance(figures, list)
    keys = {figure["key"] for figure in figures}
    assert not keys & {"power", "energy", "split", "trade"}
    assert "no joules" in page
    names = {path.name for path in write_figures(compare([silent]), [silent], tmp_path / "figures")}
    assert "power.png" not in names
    assert "latency.png" in names


def test_figures_are_written_as_png_svg_and_csv(figures: list[Path]) -> None:
    assert {path.name for path in figures} == {
        f"{key}.{kind}" for key in KEYS for kind in ("png", "svg", "csv")
    }
    assert set(figures[0].parent.iterdir()) == set(figures)
    for path in figures:
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data.startswith(b"\x89PNG")
            assert len(data) > 5000
        elif path.suffix == ".svg":
            assert b"<svg" in data[:1000]
            assert b"<dc:date>" not in data


def test_csv_of_a_figure_is_what_the_run_logged(figures: list[Path], runs: list[Run]) -> None:
    with (figures[0].parent / "power.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for run in runs:
        mine = [row for row in rows if row["series"] == run.name]
        found = [float(row["power (W)"]) for row in mine]
        assert found == pytest.approx(run.power_w[: len(mine)].tolist())
        assert [float(row["time since the start (s)"]) for row in mine] == list(range(60))


def test_page_of_other_runs_is_refused(comparison: Comparison, runs: list[Run]) -> None:
    with pytest.raises(ConfigError, match="2 runs with 1"):
        drawn_runs(comparison, runs[:1])


@pytest.mark.usefixtures("without_stills")
def test_unwritable_place_is_refused_with_its_reason(
    comparison: Comparison, runs: list[Run], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_html(comparison, runs, tmp_path / "file" / "report.html")
    with pytest.raises(ConfigError, match="cannot write"):
        write_figures(comparison, runs, tmp_path / "file")


@pytest.mark.parametrize(
    ("option", "package"), [("--html", "plotly"), ("--html", "jinja2"), ("--png", "matplotlib")]
)
def test_report_without_its_packages_is_refused_before_any_work(
    option: str,
    package: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else installed(name)
    )
    monkeypatch.delitem(sys.modules, package, raising=False)
    # The folders are not there: had any work begun, the refusal would be about them.
    status = main(["compare", str(tmp_path / "no-run"), option, str(tmp_path / "out")])
    found = capsys.readouterr()
    assert (status, found.out) == (4, "")
    assert f"{option} needs {package}" in found.err
    assert "pip install 'ipa-energy[report]'" in found.err
    assert list(tmp_path.iterdir()) == []
