"""Means and intervals of trials, and what is undominated among points."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from scipy import stats
from small_programs import one_stage, small_option

from ipa_energy.as_json import as_json
from ipa_energy.comparing import metrics
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.optimizer.plan_building import plan_of
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.stage_columns import StageRules
from ipa_energy.runlog import read_run
from ipa_energy.serving.deployment import deployment_of
from ipa_energy.tradeoff.conduct import setting_of
from ipa_energy.tradeoff.trials import (
    Configuration,
    Estimate,
    Point,
    constant_load,
    run_points,
    trace_load,
    with_fronts,
)
from ipa_energy.workloads import Workload


def test_the_interval_is_students() -> None:
    found = Estimate.of([1.0, 2.0, 4.5])
    low, high = stats.t.interval(0.95, 2, loc=2.5, scale=stats.sem([1.0, 2.0, 4.5]))
    assert found.value == pytest.approx(2.5)
    assert (found.value - found.ci95, found.value + found.ci95) == pytest.approx((low, high))


def test_equal_trials_have_an_interval_of_nothing() -> None:
    assert Estimate.of([3.0, 3.0]) == Estimate(3.0, 0.0, 2)


def test_one_trial_has_no_interval() -> None:
    found = Estimate.of([3.0])
    assert found.value == 3.0
    assert math.isnan(found.ci95)
    assert found.reason == "one trial has no spread"


def test_a_gap_in_a_trial_is_no_mean() -> None:
    found = Estimate.of([3.0, math.nan], absent="nobody answered")
    assert math.isnan(found.value)
    assert as_json(found) == {
        "value": None,
        "ci95": None,
        "trials": 2,
        "reason": "nobody answered",
    }


def point(accuracy: float, cores: float, latency_s: float, joules: float) -> Point:
    option = small_option("v")
    settings = Settings(alpha=1, beta=0, gamma=0, scaling_cap=9, batching_cap=9)
    plan = plan_of([(one_stage(option)[0], option, 1)], settings, [StageRules()], 10.0)
    nothing = Estimate(math.nan, math.nan, 1, "test")
    return Point(
        configuration=Configuration(key="C1", name="v", origin="test", plan=plan),
        accuracy=accuracy,
        cost_cores=cores,
        latency_s=Estimate(latency_s, 0.0, 3),
        latency_p99_s=nothing,
        sla_attainment=nothing,
        answered=nothing,
        joules_per_request=Estimate(joules, 0.0, 3),
        power_w=nothing,
        meter="fake",
        quality="measured",
    )


def fronts(*points: Point) -> list[tuple[bool | None, bool | None]]:
    found = with_fronts(points)
    return [(each.on_front, each.on_front_without_energy) for each in found]


def test_fronts_with_and_without_energy() -> None:
    found = fronts(
        point(0.9, 2, 1.0, 3.0),
        point(0.8, 2, 1.0, 1.0),  # beaten by the first unless energy counts
        point(0.8, 3, 1.0, 1.0),  # beaten by the second
        point(0.9, 2, 1.0, 3.0),  # equal to the first: neither beats the other
    )
    assert found == [(True, True), (True, False), (False, False), (True, True)]


def test_without_energy_only_the_front_of_three_is_known() -> None:
    found = fronts(point(0.9, 2, 1.0, math.nan), point(0.8, 2, 1.0, math.nan))
    assert found == [(None, True), (None, False)]


def test_a_point_that_answered_nobody_is_on_no_front() -> None:
    found = fronts(point(0.99, 1, math.nan, math.nan), point(0.8, 2, 1.0, 1.0))
    assert found == [(False, False), (True, True)]


def test_the_profiles_interval_adds_up_in_quadrature() -> None:
    parts = [small_option("a", ci95_j=0.3), small_option("b", ci95_j=0.2)]
    stages = [one_stage(part)[0] for part in parts]
    stages[1] = dataclasses.replace(stages[1], requests_per_input=2.0)
    picks = [(stage, part, 1) for stage, part in zip(stages, parts, strict=True)]
    settings = Settings(alpha=1, beta=0, gamma=0, scaling_cap=9, batching_cap=9)
    plan = plan_of(picks, settings, [StageRules()] * 2, 10.0)
    configuration = Configuration(key="C1", name="x", origin="test", plan=plan)
    assert configuration.profile_ci95_j == pytest.approx(0.5)
    assert configuration.meter == "cpu-time"


def test_points_average_whole_runs_of_successive_seeds(
    small_pipeline: Path, tmp_path: Path
) -> None:
    planner = load_experiment(small_pipeline, {"seed": 5}).planner
    load = constant_load(6.0, 40)
    setting = setting_of(planner.program, load, None, count=1, energy_weight=0.0, seed=5)
    (found,) = run_points(planner, load, setting.configurations, trials=2, folder=tmp_path / "kept")
    runs = []
    for seed in (5, 6):
        experiment = load_experiment(small_pipeline, {"seed": seed})
        experiment = dataclasses.replace(experiment, workload=load.workload)
        fixed = deployment_of(setting.configurations[0].plan)
        runs.append(metrics(run_experiment(experiment, tmp_path / f"own{seed}", fixed=fixed)))
    assert runs[0].latency_mean_s != runs[1].latency_mean_s
    for name, of_run in (
        ("latency_s", "latency_mean_s"),
        ("latency_p99_s", "latency_p99_s"),
        ("sla_attainment", "sla_attainment"),
        ("joules_per_request", "joules_per_request"),
        ("power_w", "power_mean_w"),
    ):
        expected = Estimate.of([getattr(run, of_run) for run in runs])
        assert getattr(found, name).value == pytest.approx(expected.value)
        assert getattr(found, name).ci95 == pytest.approx(expected.ci95)
    assert found.quality == "estimated"
    kept = read_run(tmp_path / "kept" / "C1-2")
    assert kept.status == "complete"
    assert len(kept.requests) == 240


def test_a_trace_is_planned_for_its_peak_and_its_mean() -> None:
    load = trace_load(Workload("two steps", [2, 2, 10, 2], "test"))  # type: ignore[arg-type]
    assert (load.loads.lowest_rps, load.loads.mean_rps, load.loads.peak_rps) == (2.0, 4.0, 10.0)
    assert load.folder == "two-steps"


def test_less_than_one_request_a_second_is_planned_as_it_is() -> None:
    load = constant_load(0.25, 40)
    assert load.loads.mean_rps == 0.25
    assert load.workload.requests == 10
