"""The page holds everything, escapes everything, and both kinds of figures get written."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipa_energy.compare import Comparison, compare, metrics
from ipa_energy.errors import ConfigError
from ipa_energy.report import series, write_html, write_png
from ipa_energy.report.page import drawn_runs
from ipa_energy.runlog import Run, read_run
from ipa_energy.runlog.fake import write_fake_run

HOSTILE = "<script>alert('x')</script> & </script> $a^2"


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
    return compare(runs, static_best=best, oracle=replace(best, name="oracle", detail=None))


@pytest.fixture(scope="module")
def page(comparison: Comparison, runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return write_html(comparison, runs, path).read_text()


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data = json.loads(found.group(1))
    assert isinstance(data, dict)
    return data


def test_page_loads_nothing(page: str) -> None:
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)=|url\(|@import|https?://", ours)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert len(page.encode()) < 6e6


def test_names_from_users_are_escaped(page: str) -> None:
    assert "<script>alert" not in page
    assert "<b>v 1c" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &lt;/script&gt;" in page
    assert page.count("</script>") == page.count("<script")


def test_every_figure_has_a_text_alternative_and_data(page: str) -> None:
    data = data_of(page)
    figures = data["figures"]
    assert isinstance(figures, list)
    keys = [figure["key"] for figure in figures]
    assert keys == [
        "trade",
        "load",
        "power",
        "energy",
        "split",
        "accuracy",
        "cores",
        "latency",
        "distribution",
        "stage0",
        "stage1",
    ]
    labels = re.findall(r'id="plot-(\w+)"[^>]*role="img" aria-label="([^"]+)"', page)
    assert [key for key, _ in labels] == keys
    assert all(len(label) > 40 for _, label in labels)
    assert page.count("<figcaption>") == len(keys)


def test_colours_are_names_that_the_theme_has(page: str) -> None:
    data = data_of(page)
    named = set(re.findall(r'"@(\w+)"', json.dumps(data["figures"])))
    colors = data["colors"]
    assert isinstance(colors, dict)
    own = {"page", "text", "muted", "faint", "line"}
    for theme in ("light", "dark"):
        assert named <= set(colors[theme]) | own


def test_estimates_are_called_estimates(page: str) -> None:
    assert page.count("estimated by fake") >= 3
    assert "<strong>Estimated</strong> joules are computed from a model" in page
    assert "<strong>Measured</strong>" not in page


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
    names = {path.name for path in write_png(compare([silent]), [silent], tmp_path / "png")}
    assert "power.png" not in names
    assert "latency.png" in names


def test_png_figures_are_written(comparison: Comparison, runs: list[Run], tmp_path: Path) -> None:
    paths = write_png(comparison, runs, tmp_path / "png")
    main = {"load", "power", "energy", "split", "accuracy", "cores", "latency", "distribution"}
    assert {path.stem for path in paths} == main | {
        "trade",
        "stage-0-crop",
        "stage-1-classification",
    }
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000


def test_page_of_other_runs_is_refused(comparison: Comparison, runs: list[Run]) -> None:
    with pytest.raises(ConfigError, match="2 runs with 1"):
        drawn_runs(comparison, runs[:1])


def test_thinning_keeps_the_mean_and_the_length() -> None:
    values = np.arange(9999.0)
    thinned = series.per_second(values, 9999.0)
    assert len(thinned) == 2000
    assert thinned.x[1] == 5.0
    assert thinned.y[0] == 2.0
    assert thinned.y[-1] == pytest.approx(np.mean([9995.0, 9996.0, 9997.0, 9998.0]))


def test_latency_windows_by_hand(runs: list[Run]) -> None:
    requests = runs[0].requests
    drops, (p50,) = series.latency_percentiles(runs[0], (50,))
    assert drops.sum() == np.sum(requests.dropped_at >= 0)
    first = (requests.sending_s < 10) & (requests.dropped_at < 0)
    expected = np.median((requests.done_s - requests.sending_s)[first])
    assert p50.y[0] == pytest.approx(expected)
    assert p50.x.tolist() == [0, 10, 20, 30, 40, 50]


def test_distribution_ends_at_the_share_that_was_answered(runs: list[Run]) -> None:
    answered = np.mean(runs[0].requests.dropped_at < 0)
    assert series.latency_distribution(runs[0]).y[-1] == pytest.approx(answered)


def test_segments_cover_the_run_without_overlap(runs: list[Run]) -> None:
    found = series.segments(runs[0], 0)
    assert found[0].start_s == 0
    assert found[-1].end_s == 60
    for before, after in itertools.pairwise(found):
        assert before.end_s == after.start_s
        assert before.label != after.label
