"""The page of a trade-off study: what it must say, and odd studies that must not break it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_pipeline import write_small_pipeline
from studies_to_draw import study_to_draw

from ipa_energy.report.figure import Points
from ipa_energy.report.image import write_images
from ipa_energy.report.page import write_page
from ipa_energy.report.tradeoff_page import tradeoff_page
from ipa_energy.tables import cell_of
from ipa_energy.tradeoff.sensitivity import Sensitivity
from ipa_energy.tradeoff.study import Study
from ipa_energy.tradeoff.trials import Estimate


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study_to_draw(write_small_pipeline(tmp_path_factory.mktemp("pipeline")))


def test_every_figure_of_every_case_is_there(study: Study) -> None:
    kinds = ["cost-over-accuracy", "cost-accuracy-energy"]
    kinds += [f"energy-against-{other}" for other in ("cost", "accuracy", "latency")]
    expected = [f"{kind}-{case}" for case in ("1-6_rps", "2-12_rps") for kind in kinds]
    expected += ["front-2-12_rps", "plan-map", "hardware"]
    assert [f.key for f in tradeoff_page(study).figures] == expected


def test_front_is_the_analysis_s_and_the_exchange_rates_are_told(study: Study) -> None:
    found = study.sensitivity[study.cases[1].name]
    assert isinstance(found, Sensitivity)
    assert found.front is not None
    assert found.exchanges is not None
    page = tradeoff_page(study)
    (figure,) = (figure for figure in page.figures if figure.key == "front-2-12_rps")
    front, chosen = figure.marks
    assert isinstance(front, Points)
    assert isinstance(chosen, Points)
    assert list(front.y) == [plan.joules_per_request for plan in found.front.plans]
    assert len(front.y) == found.front.size, "a part of the front only"
    assert list(chosen.labels) == [found.plan.label]
    assert front.hollow
    (section,) = (one for one in page.sections if one.title == "Sensitivity at 12 rps")
    saved = [cell_of(row.cells[0]).key for row in section.tables[0].rows]
    bought = [exchange.bought for exchange in found.exchanges.at_plan]
    assert saved == [offer.saved_j if offer else 0.0 for offer in bought]


def test_points_are_the_study_s(study: Study) -> None:
    case = study.cases[0]
    figures = {figure.key: figure for figure in tradeoff_page(study).figures}
    marks = [
        mark
        for mark in figures["energy-against-latency-1-6_rps"].marks
        if isinstance(mark, Points) and mark.labels
    ]
    assert len(marks) == len(case.points) == 8
    for point, mark in zip(case.points, marks, strict=True):
        assert mark.x[0] == point.latency_s.value
        assert mark.y[0] == point.joules_per_request.value
        assert mark.x_error is not None
        assert mark.x_error[0] == point.latency_s.ci95
        assert mark.values is not None
        assert mark.values[0] == 100 * point.sla_attainment.value
        assert mark.hollow == (point.quality == "estimated")
        assert list(mark.labels) == [point.configuration.label]
        assert f"joules {point.quality} by {point.meter}" in mark.hover[0]


def test_map_holds_every_threshold(study: Study, tmp_path: Path) -> None:
    assert study.plan_map is not None
    write_images(tradeoff_page(study).figures, tmp_path)
    text = (tmp_path / "plan-map.csv").read_text()
    thresholds = [weight for row in study.plan_map.rows for weight in row.thresholds]
    assert thresholds
    for weight in thresholds:
        assert repr(weight) in text


@pytest.mark.usefixtures("without_stills")
def test_page_tells_answer_limits_and_provenance(study: Study, tmp_path: Path) -> None:
    page = write_page(tradeoff_page(study), tmp_path / "new" / "study.html").read_text()
    for words in ("The answer", "What limits it", "Sensitivity at 6 rps", "no such variant",
                  "not binding", "Estimated joules were computed from a model",
                  "What each hardware picks"):  # fmt: skip
        assert words in page
    assert "<dd>no</dd>" in page
    assert "False" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for case in study.cases:
        for found in case.correlations:
            if not math.isnan(found.value):
                assert f"{found.value:+.2f}".replace("-", "−") in page


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data = json.loads(found.group(1))
    assert isinstance(data, dict)
    return data


def without_energy(study: Study) -> Study:
    unknown = Estimate(math.nan, math.nan, 3, "not logged")
    case = study.cases[0]
    points = tuple(
        replace(p, joules_per_request=unknown, power_w=unknown, quality=None, meter=None,
                on_front=None)
        for p in case.points
    )  # fmt: skip
    case = replace(case, points=points, only_energy=None, hypervolume=None, optimum=None)
    return replace(study, cases=(case,), plan_map=None, hardware_comparison=None, quality=None)


@pytest.mark.usefixtures("without_stills")
def test_study_without_energy_draws_cost_and_accuracy_alone(study: Study, tmp_path: Path) -> None:
    bare = without_energy(study)
    page = write_page(tradeoff_page(bare), tmp_path / "study.html").read_text()
    assert [figure["key"] for figure in data_of(page)["figures"]] == ["cost-over-accuracy"]
    assert "none in the profile" in page
    assert "hollow:" not in page


def test_infeasible_study_says_so(study: Study, tmp_path: Path) -> None:
    case = replace(
        study.cases[0], points=(), correlations=(), only_energy=None, hypervolume=None,
        optimum=None, feasible_plans=0, conflict="the latency SLA is too short",
    )  # fmt: skip
    bare = replace(study, cases=(case,), plan_map=None, hardware_comparison=None, answer=())
    page = write_page(tradeoff_page(bare), tmp_path / "study.html").read_text()
    assert "No plan is feasible: the latency SLA is too short" in page
    assert data_of(page)["figures"] == []
    assert write_images(tradeoff_page(bare).figures, tmp_path / "figures") == []


@pytest.mark.parametrize("count", [1, 2, 60])
def test_any_number_of_configurations_is_drawn(study: Study, count: int, tmp_path: Path) -> None:
    case = study.cases[0]
    points = tuple(case.points[index % len(case.points)] for index in range(count))
    many = replace(study, cases=(replace(case, points=points),))
    page = write_page(tradeoff_page(many), tmp_path / "study.html").read_text()
    first = data_of(page)["figures"][0]
    labelled = [trace for trace in first["data"] if trace.get("customdata")]
    assert sum(len(trace["x"]) for trace in labelled) == count
    assert len(first["data"]) < 20, "a legend longer than a page"
    assert (tmp_path / "study.html").stat().st_size < 3e6
