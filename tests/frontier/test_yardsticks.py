"""Yardsticks that are yardsticks: nothing beats them that is not allowed to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from seeds import seeds

from ipa_energy.cli import main
from ipa_energy.comparing import metrics
from ipa_energy.comparing.hull import HindsightShare
from ipa_energy.experiment import Experiment, load_experiment, run_experiment
from ipa_energy.frontier.courses import Course, outturn
from ipa_energy.frontier.worth import bound_of, course_of_run, outturn_of_run, worth
from ipa_energy.frontier.yardsticks import (
    PUNCTUAL,
    Judge,
    Yardsticks,
    best_in_hindsight,
    best_static,
    yardsticks_of,
)
from ipa_energy.planning.planner import planner_of
from ipa_energy.runner import initial_configuration
from ipa_energy.serving.deployment import DeployedStage, Deployment
from ipa_energy.workloads import Workload


def experiment_of(path: Path, **changes: object) -> Experiment:
    return load_experiment(path, changes)


def neighbours_by_hand(experiment: Experiment, plan: Deployment) -> list[Deployment]:
    """Every plan with one replica more or less, another batch, variant or allocation in a stage."""
    found = []
    for at, (stage, run) in enumerate(zip(experiment.planner.stages, plan, strict=True)):
        option, others = run.option, []
        for other in stage.options:
            differs = (
                other.variant != option.variant,
                other.cpu_cores != option.cpu_cores,
                other.batch != option.batch,
            )
            if sum(differs) == 1:
                others.append(DeployedStage(stage.name, other, run.replicas))
        for replicas in (run.replicas - 1, run.replicas + 1):
            if replicas >= 1:
                others.append(DeployedStage(stage.name, option, replicas))
        found += [(*plan[:at], one, *plan[at + 1 :]) for one in others]
    return found


@pytest.mark.parametrize("weight", [0.0, 20.0])
def test_no_neighbour_beats_the_best_static_plan(small_pipeline: Path, weight: float) -> None:
    experiment = experiment_of(small_pipeline, energy_weight=weight)
    best = best_static(Judge(experiment))
    assert best is not None
    assert best.outturn.attainment >= PUNCTUAL
    near = neighbours_by_hand(experiment, best.course.deployments[0][1])
    assert len(near) > 10
    for plan in near:
        course = Course(((0, plan),), math.nan)
        found = outturn(experiment, course, experiment.planner.config.seed)
        if found.attainment >= PUNCTUAL:
            assert worth(experiment, course, found) <= best.worth


def test_yardsticks_keep_the_floor_and_the_capacity(small_pipeline: Path) -> None:
    """Both bind: without either the best static plan breaks it."""
    free = best_static(Judge(experiment_of(small_pipeline, alpha=0.0)))
    assert free is not None
    (_, plan), *_ = free.course.deployments
    least = sum(run.option.accuracy for run in plan)
    held = sum(run.replicas * run.option.cpu_cores for run in plan)
    limits = {"accuracy_floor": least + 0.05, "capacity": {"core": held + 1}}
    experiment = experiment_of(small_pipeline, alpha=0.0, **limits)
    judge = Judge(experiment)
    found = best_static(judge)
    assert found is not None
    hindsight = best_in_hindsight(judge, found)
    first = initial_configuration(experiment.planner)
    assert sum(run.option.accuracy for run in first) < least + 0.05
    (_, begins), (decided_s, _), *_ = hindsight.course.deployments
    assert (begins, decided_s) == (first, experiment.planner.config.adaptation_interval)
    for one in (found, hindsight):
        for second, runs in one.course.deployments:
            if one is found or second > 0:
                assert sum(run.option.accuracy for run in runs) >= least + 0.05
                assert sum(run.replicas * run.option.cpu_cores for run in runs) <= held + 1


def test_yardsticks_keep_the_energy_sla_in_every_interval(small_pipeline: Path) -> None:
    """Without a look at it the best course broke this one in half of the intervals."""
    keys = {"alpha": 40.0, "energy_weight": 0.0}
    free = Judge(experiment_of(small_pipeline, **keys))
    loose = Judge(experiment_of(small_pipeline, **keys, energy_sla_joules=1000.0))
    courses = [best_in_hindsight(judge, best_static(judge)) for judge in (free, loose)]
    assert courses[0].course == courses[1].course
    tight = experiment_of(small_pipeline, **keys, energy_sla_joules=1.4)
    judge = Judge(tight)
    static = best_static(judge)
    assert static is not None
    for found in (static, best_in_hindsight(judge, static)):
        run = run_experiment(tight, course=found.course.deployments)
        assert metrics(run).energy_sla_attainment == 1.0
        assert (found.outturn.over, found.outturn.attainment >= PUNCTUAL) == (0, True)
        assert found.worth < courses[0].worth
    broken = outturn(tight, courses[0].course, 0, np.full(12, 1.4)).over
    told = metrics(run_experiment(tight, course=courses[0].course.deployments))
    assert told.energy_sla_attainment == pytest.approx(1 - broken / 12)
    assert broken > 1


def random_experiment(path: Path, seed: int) -> Experiment:
    """Other weights, loads, starts and parts of requests; figures of the profile with them."""
    draw = np.random.default_rng(seed)
    changes = {
        "energy_weight": float(draw.choice([0.0, 1.0, 10.0, 50.0])),
        "energy_metric": str(draw.choice(["joules_per_request", "watts"])),
        "alpha": float(draw.choice([0.0, 5.0, 40.0])),
        "beta": float(draw.choice([0.0, 0.5])),
        "accuracy_method": str(draw.choice(["sum", "average", "multiply"])),
        "normalize_accuracy": bool(draw.integers(2)),
        "reconfiguration_s": [0.0, 2.0, 8.0, 25.0, None][draw.integers(5)],
        "requests_per_input": [1.0, float(draw.choice([0.5, 1.0, 2.0, 2.6]))],
        "seed": seed,
    }
    experiment = experiment_of(path, **{k: v for k, v in changes.items() if v is not None})
    planner = experiment.planner
    stages = tuple(
        replace(
            stage,
            options=tuple(
                replace(
                    option,
                    latency_p99_s=option.latency_avg_s * draw.uniform(1.0, 2.0),
                    load_s=float(draw.uniform(0.0, 12.0)),
                    load_energy_j=float(draw.uniform(0.0, 20.0)),
                )
                for option in stage.options
            ),
        )
        for stage in planner.stages
    )
    planner = planner_of(planner.config, stages, planner.profile_path, None)
    rates = draw.uniform(0, draw.choice([2.0, 12.0]), 12).repeat(10)
    return Experiment(planner, Workload("drawn", draw.poisson(rates), "a test"))


def random_course(experiment: Experiment, seed: int) -> Course:
    """Whatever a controller might do, sense or nonsense: it may flip at every interval."""
    draw = np.random.default_rng(seed)

    def plan() -> Deployment:
        return tuple(
            DeployedStage(stage.name, stage.options[draw.integers(len(stage.options))].at(n), n)
            for stage in experiment.planner.stages
            for n in [int(draw.integers(1, 5))]
        )

    few = [plan() for _ in range(int(draw.integers(1, 4)))]
    changes = [
        (second, few[draw.integers(len(few))])
        for second in range(10, 120, 10)
        if draw.random() < draw.choice([0.2, 1.0])
    ]
    return Course(((0, initial_configuration(experiment.planner)), *changes), math.nan)


@pytest.mark.parametrize("seed", seeds(30))
def test_no_run_crosses_the_bound(small_pipeline: Path, seed: int) -> None:
    experiment = random_experiment(small_pipeline, seed)
    for other in range(3):
        course = random_course(experiment, 1000 * seed + other)
        found = outturn(experiment, course, seed)
        if found.answered:
            assert worth(experiment, course, found) <= bound_of(experiment, found)


@pytest.mark.parametrize("seed", seeds(3))
def test_neither_controllers_nor_yardsticks_cross_the_bound(
    small_pipeline: Path, seed: int
) -> None:
    experiment = random_experiment(small_pipeline, seed)
    run = run_experiment(experiment)
    found = outturn_of_run(metrics(run))
    assert worth(experiment, course_of_run(experiment, run), found) <= bound_of(experiment, found)
    judge = Judge(experiment)
    static = best_static(judge)
    hindsight = best_in_hindsight(judge, static)
    for one in (static, hindsight):
        if one is not None and one.outturn.answered:
            assert one.worth <= bound_of(experiment, one.outturn)
    if static is not None:
        planner = experiment.planner
        ((_, plan),) = static.course.deployments
        late = judge(
            ((0, initial_configuration(planner)), (planner.config.adaptation_interval, plan))
        )
        assert hindsight.rank >= late.rank  # a static plan that begins as the run did


def test_the_bound_is_that_of_one_server_by_hand(small_pipeline: Path) -> None:
    """With one server a stage all that is left to relax is that replicas are whole."""
    experiment = experiment_of(small_pipeline, energy_weight=10.0, beta=0.0)
    planner = experiment.planner
    stages = tuple(
        replace(stage, options=tuple(o for o in stage.options if o.label == label))
        for stage, label in zip(planner.stages, ("find-s 1c b1", "name-s 1c b1"), strict=True)
    )
    planner = planner_of(planner.config, stages, planner.profile_path, None)
    counts = np.full(1000, 10)
    experiment = Experiment(planner, Workload("even", counts, "a test"))
    plan = tuple(DeployedStage(stage.name, stage.options[0], 2) for stage in stages)
    course = Course(((0, plan),), math.nan)
    found = outturn(experiment, course, 0)
    # J = Σ e + p·l: 0.16 + 0.6·0.08 and 0.06 + max(0.6·0.03, 0.6/10).
    least_j = 0.16 + max(0.6 * 0.08, 0.06) + 0.06 + max(0.6 * 0.03, 0.06)
    expected = 20 * (0.45 + 0.7) - 10 * least_j - 1e-6 * 2
    assert bound_of(experiment, found) == pytest.approx(expected, rel=0.005)


def test_hindsight_is_as_punctual_and_better_than_what_never_changes(small_pipeline: Path) -> None:
    experiment = experiment_of(small_pipeline, energy_weight=20.0)
    judge = Judge(experiment)
    static = best_static(judge)
    hindsight = best_in_hindsight(judge, static)
    assert static is not None
    assert min(static.outturn.attainment, hindsight.outturn.attainment) >= PUNCTUAL
    first = judge(
        ((0, initial_configuration(experiment.planner)), (10, static.course.deployments[0][1]))
    )
    assert hindsight.worth >= first.worth - 1e-9 * abs(first.worth)


def test_what_a_run_got_is_told_and_kept(
    small_pipeline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = [tmp_path / "ipa", tmp_path / "energy"]
    for folder, weight in zip(folders, (0.0, 20.0), strict=True):
        run_experiment(experiment_of(small_pipeline, energy_weight=weight), folder)
    capsys.readouterr()
    words = ["compare", *map(str, folders), "--no-yardstick"]
    assert main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    told = data["hindsight_share"]["energy"]
    gained = told["objective"] - told["first_objective"]
    assert told["of_hindsight"] == pytest.approx(
        gained / (told["hindsight_objective"] - told["first_objective"])
    )
    assert told["bound"] >= max(told["objective"], told["hindsight_objective"])
    figures = {name: told[name] for name in HindsightShare.__dataclass_fields__}
    unbounded = HindsightShare(**{**figures, "bound": math.nan}).sentence()
    assert unbounded == told["sentence"].partition(", and ")[0]
    assert told["first"] == "ipa"
    assert data["hindsight_share"]["ipa"]["first"] is None
    assert set(data["hindsight_per_run"]) == set(data["static_best_per_run"]) == {"ipa", "energy"}
    kept = sorted((tmp_path / "cache/ipa-energy").glob("hindsight-*.json"))
    assert len(kept) == 2
    assert main(words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert told["sentence"] in text
    assert "What knowing the load would have gained" in text
    assert sorted((tmp_path / "cache/ipa-energy").glob("hindsight-*.json")) == kept


def test_of_a_run_that_answered_nothing_no_share_is_told(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(experiment_of(small_pipeline, drop_limit=1e-3), tmp_path / "silent")
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "silent"), "--no-yardstick"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "that knew the load" not in text
    assert "–, that" not in text


def test_a_run_without_its_inputs_has_no_yardsticks(small_pipeline: Path, tmp_path: Path) -> None:
    assert yardsticks_of(run_experiment(experiment_of(small_pipeline))) is None
    run = run_experiment(experiment_of(small_pipeline), tmp_path / "run")
    (tmp_path / "run" / "profile.csv").unlink()
    assert yardsticks_of(run) is None


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"mix": True, "optimization_method": "highs"}, "plans over time run one option a stage"),
        ({"carbon": {"intensity": 300, "budget_grams_per_day": 10}}, "a gram of a budget has"),
    ],
)
def test_what_has_no_hindsight_is_told_why(
    small_pipeline: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    keys: dict[str, object],
    why: str,
) -> None:
    run = run_experiment(experiment_of(small_pipeline, **keys), tmp_path / "run")
    assert yardsticks_of(run) == Yardsticks()
    (told,) = [each for each in caplog.messages if "no hindsight" in each]
    assert why in told


def test_a_trace_that_ends_before_the_first_decision_has_its_yardsticks(
    small_pipeline: Path,
) -> None:
    experiment = experiment_of(small_pipeline, energy_weight=20.0)
    experiment = replace(experiment, workload=Workload("short", np.full(6, 3), "a test"))
    judge = Judge(experiment)
    hindsight = best_in_hindsight(judge, best_static(judge))
    assert [second for second, _ in hindsight.course.deployments] == [0]
