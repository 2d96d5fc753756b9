"""A quantity registered from outside is in every part of a study that has a place for it."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest

from ipa_energy.as_json import as_json
from ipa_energy.comparing import compare, metrics
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.optimizer.front import pareto_front
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.planning.planner import load_planner
from ipa_energy.records import Option, Stage
from ipa_energy.registries import QUANTITIES, Quantity
from ipa_energy.report.compare_page import compare_page, drawn_runs
from ipa_energy.report.page import render
from ipa_energy.report.tradeoff_page import tradeoff_page
from ipa_energy.tables import table_text
from ipa_energy.tradeoff.conduct import Question, conduct
from ipa_energy.tradeoff.correlation import correlations
from ipa_energy.tradeoff.sentences import answer_of
from ipa_energy.tradeoff.study import Study
from ipa_energy.tradeoff.study_tables import points_table, study_text, write_points
from ipa_energy.tradeoff.trials import Estimate, columns_of, constant_load, point_of


@pytest.fixture
def study(small_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Four configurations; the first costs 0 cents a request, the next 1, and so on."""
    monkeypatch.setitem(QUANTITIES, "money", Quantity("rent", lambda *_: 1.0, "ct/request"))
    planner = load_experiment(small_pipeline).planner
    found = conduct(Question(planners=[planner], loads=[constant_load(6.0, 20)], count=4, trials=1))
    points = tuple(
        dataclasses.replace(point, amounts={"money": Estimate(float(at), 0.1, 3)})
        for at, point in enumerate(found.cases[0].points)
    )
    over_points = correlations(columns_of(points), "points")
    case = dataclasses.replace(found.cases[0], points=points, correlations=over_points)
    return dataclasses.replace(found, cases=(case,))


def test_points_average_it_over_the_trials(small_pipeline: Path, study: Study) -> None:
    run = metrics(run_experiment(load_experiment(small_pipeline)))
    trials = [dataclasses.replace(run, amounts={"money": value}) for value in (1.0, 2.0, 4.5)]
    found = point_of(study.cases[0].points[0].configuration, trials)
    assert found.amounts == {"money": Estimate.of([1.0, 2.0, 4.5])}


def test_it_is_correlated_with_the_objectives(study: Study) -> None:
    pairs = {(found.x, found.y, found.given) for found in study.cases[0].correlations}
    others = ("accuracy", "cost_cores", "latency_s", "joules_per_request")
    assert {(name, "money", None) for name in others} <= pairs
    assert any("with money" in sentence for sentence in answer_of(study))


def test_it_has_a_column_on_page_and_terminal(study: Study) -> None:
    table = points_table(study.cases[0])
    assert (table.heads[-1].title, table.heads[-1].unit) == ("money", "ct/request")
    lines = table_text(table).splitlines()
    assert [line.split()[-2:] for line in lines[4:7]] == [[f"{at}.00", "±0.10"] for at in (1, 2, 3)]


def test_it_is_in_json_and_csv(study: Study, tmp_path: Path) -> None:
    shown = as_json(study)["cases"][0]["points"]
    assert [point["amounts"]["money"]["value"] for point in shown] == [0.0, 1.0, 2.0, 3.0]
    write_points(study, tmp_path / "points.csv")
    with (tmp_path / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["money"]) for row in rows] == [0.0, 1.0, 2.0, 3.0]
    assert {row["money_ci95"] for row in rows} == {"0.1"}


def rent(option: Option, replicas: int, stage: Stage, moment: Moment) -> float:
    """Cents a second for every core, per pipeline request."""
    del stage
    return replicas * option.cpu_cores * 2.0 / moment.mean_rps


def asked(pipeline: Path, **keys: float) -> Study:
    planner = load_planner(pipeline, {"energy_weight": 1.0, **keys}, policy=None)
    return conduct(
        Question(
            planners=[planner],
            loads=[constant_load(6.0, 20)],
            count=6,
            trials=2,
            mapped_loads_rps=[6.0],
            sensitivity=True,
        )
    )


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"weight_key": "money_weight", "cap_key": "money_cap"}
    monkeypatch.setitem(QUANTITIES, "money", Quantity("rent", rent, "ct/request", **keys))


@pytest.mark.usefixtures("registered")
def test_weighted_by_the_yaml_it_is_in_plans_points_thresholds_and_words(
    small_pipeline: Path,
) -> None:
    found = asked(small_pipeline, money_weight=0.5)
    (case,) = found.cases
    for point in case.points:
        expected = 2.0 * point.configuration.plan.cost_cores / 6.0
        assert point.amounts["money"].value == pytest.approx(expected)
    assert found.settings["money_weight"] == 0.5
    row = case.optima["money"]
    spent = [segment.plan.amounts["money"] for segment in row.segments]
    assert len(spent) > 1
    assert spent == sorted(spent, reverse=True)
    assert "The optimal plan over the money weight" in study_text(found)
    assert {"money"} <= {one.y for one in case.correlations if one.over == "plans"}
    page = render(tradeoff_page(found))
    assert "money" in page
    assert "ct/request" in page


@pytest.mark.usefixtures("registered")
def test_capped_by_the_yaml_it_has_a_shadow_price(small_pipeline: Path) -> None:
    free = asked(small_pipeline, money_weight=1e-9)
    (analysis,) = free.sensitivity.values()
    cap = 0.8 * analysis.plan.amounts["money"]
    found = asked(small_pipeline, money_cap=cap)
    (analysis,) = found.sensitivity.values()
    assert analysis.plan.amounts["money"] <= cap
    (price,) = (price for price in analysis.shadow_prices if price.sla == "money_cap")
    assert (price.limit, price.unit) == (cap, "ct/request")
    assert price.used == pytest.approx(analysis.plan.amounts["money"])
    assert price.relaxed is not None
    assert price.relaxed.limit > cap
    assert price.relaxed.objective_change > 0
    assert "money_cap of" in study_text(found)
    assert "front" not in analysis.reasons
    assert found.warnings == ()
    (before,) = free.sensitivity.values()
    assert before.front is not None
    assert analysis.front is not None
    assert 0 < analysis.front.size < before.front.size
    assert all(plan.amounts["money"] <= cap * (1 + 1e-9) for plan in analysis.front.shown)
    (case,) = found.cases
    assert case.only_energy is not None
    assert case.hypervolume is not None
    assert case.hypervolume.points_with_energy == len(
        pareto_front(
            load_planner(
                small_pipeline, {"energy_weight": 1.0, "money_cap": cap}, policy=None
            ).program.at(Moment.at(6.0))
        )
    )
    for point in found.cases[0].points:
        assert point.amounts["money"].value <= cap * (1 + 1e-9)


@pytest.mark.usefixtures("registered")
def test_run_that_weights_it_has_it_in_the_comparison(small_pipeline: Path, tmp_path: Path) -> None:
    runs = [
        run_experiment(load_experiment(small_pipeline, keys), tmp_path / str(index))
        for index, keys in enumerate(({"money_weight": 1e-9}, {"money_weight": 3.0}))
    ]
    found = compare(runs)
    plain, thrifty = (run.amounts["money"] for run in found.runs)
    assert 0 < thrifty < plain
    assert as_json(found)["difference"][0]["money_ratio"] == pytest.approx(thrifty / plain - 1)
    page = render(compare_page(found, drawn_runs(found, runs)))
    assert "money" in page
    assert "ct/request" in page
