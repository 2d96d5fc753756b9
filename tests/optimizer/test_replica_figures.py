"""Options whose figures depend on how many replicas work at once: plans use those of their n."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from instances import random_program
from option_maker import make_option
from seeds import seeds

from ipa_energy.energy import replicas_needed
from ipa_energy.optimizer import exhaustive, gurobi, highs, pareto
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.solve import checked_plans, decide
from ipa_energy.optimizer.stage_columns import throughputs
from ipa_energy.optimizer.table import Table
from ipa_energy.planning.planner import load_planner
from ipa_energy.records import Option, Provenance, ReplicaFigures, Stage

ROOT = Path(__file__).parent.parent.parent
INSTANCES = len(seeds(150))
PART = 50


def figures(replicas: int, option: Option, slower: float, more_j: float) -> ReplicaFigures:
    assert option.provenance is not None
    return ReplicaFigures(
        replicas,
        option.latency_s * slower,
        option.latency_avg_s * slower,
        option.latency_p99_s * slower,
        option.throughput_rps / slower,
        option.dynamic_energy_j * more_j,
        option.idle_power_w * more_j,
        option.provenance,
    )


def crowded(option: Option, *numbers: tuple[int, float, float]) -> Option:
    """The option with figures for numbers of replicas: (n, times slower, times the joules)."""
    found = tuple(figures(count, option, slower, more_j) for count, slower, more_j in numbers)
    return dataclasses.replace(option, at_once=found).at(numbers[0][0])


def test_between_measured_numbers_figures_lie_on_a_line_and_beyond_they_stay() -> None:
    option = crowded(make_option(throughput_rps=10.0), (2, 1.0, 1.0), (4, 2.0, 3.0))
    assert [option.at(n).throughput_rps for n in range(1, 7)] == [10, 10, 7.5, 5, 5, 5]
    assert [option.at(n).latency_s for n in (1, 3, 9)] == pytest.approx([0.1, 0.15, 0.2])
    assert [option.at(n).dynamic_energy_j for n in (1, 3, 9)] == pytest.approx([1, 2, 3])
    assert [option.at(n).idle_power_w for n in (2, 3, 4)] == pytest.approx([2, 4, 6])
    assert option.at(3).at(4) == option.at(4)
    assert option.most_measured == 4


def test_a_figure_between_two_is_as_good_as_the_weaker() -> None:
    option = crowded(make_option(quality="measured", meter="rapl", trials=3), (1, 1, 1), (3, 1, 1))
    weak = dataclasses.replace(
        option.at_once[1], provenance=Provenance("cpu-time", "estimated", 1, 0.3)
    )
    strong = dataclasses.replace(
        option.at_once[0], provenance=Provenance("rapl", "measured", 3, 0.1)
    )
    between = dataclasses.replace(option, at_once=(strong, weak)).at(2).provenance
    assert between is not None
    assert (between.meter, between.quality, between.trials) == ("rapl+cpu-time", "estimated", 1)
    assert between.ci95_j == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("load_rps", "expected"),
    [(10, 1), (10.001, 2), (14, 2), (14.5, 3), (15, 3), (15.5, 4), (16, 4), (21, 6)],
)
def test_replicas_are_the_fewest_that_carry_the_load(load_rps: float, expected: int) -> None:
    # 10, 7, 5, 4 requests a second each while 1, 2, 3, 4 work at once: 10, 14, 15, 16, 20, 24.
    option = make_option(throughput_rps=10.0)
    option = crowded(option, (1, 1, 1), (2, 10 / 7, 1), (3, 2, 1), (4, 2.5, 1))
    rates_rps = throughputs([option, make_option(throughput_rps=100.0)])
    assert replicas_needed(load_rps, rates_rps).tolist() == [expected, 1]


def test_more_replicas_that_carry_less_are_passed_over() -> None:
    option = crowded(make_option(throughput_rps=10.0), (1, 1, 1), (2, 4.0, 1), (3, 1.25, 1))
    # 1 carries 10, 2 carry 5, 3 carry 24.
    assert replicas_needed(8.0, throughputs([option])).tolist() == [1]
    assert replicas_needed(12.0, throughputs([option])).tolist() == [3]


def with_neighbours(program: Program, rng: np.random.Generator) -> Program:
    """The program on a profile with figures for several numbers of replicas."""
    stages = []
    for stage in program.stages:
        options = [_some_neighbours(option, rng) for option in stage.options]
        stages.append(dataclasses.replace(stage, options=tuple(options)))
    return Program(stages, program.settings, program.rules)


def _some_neighbours(option: Option, rng: np.random.Generator) -> Option:
    if rng.random() >= 0.7:
        return option
    numbers = sorted(rng.choice(np.arange(1, 7), int(rng.integers(2, 4)), False).tolist())
    each = [(n, float(rng.uniform(0.8, 1.6)), float(rng.uniform(0.7, 1.5))) for n in numbers]
    return crowded(option, *each)


def best_by_hand(program: Program, load_rps: float) -> float | None:
    """The best objective, from the options alone: no table, no problem."""
    settings = program.settings
    open_ = []
    for stage, rules in zip(program.stages, program.rules, strict=True):
        stage_rps = stage.requests_per_input * load_rps
        found = []
        for score, option in zip(scores(stage, settings.normalize_accuracy), stage.options,
                                 strict=True):  # fmt: skip
            numbers = range(1, settings.scaling_cap + 1)
            numbers = (
                numbers if rules.replicas is None else range(rules.replicas, rules.replicas + 1)
            )
            enough = (n for n in numbers if n * option.at(n).throughput_rps >= stage_rps)
            count = next(enough, None)
            if count is None or option.batch > settings.batching_cap:
                continue
            runs = option.at(count)
            joules = runs.dynamic_energy_j + count * runs.idle_power_w / stage_rps
            seconds = runs.latency_s + (option.batch - 1) / stage_rps
            share_j = stage.requests_per_input * joules
            found.append((score, count * option.cpu_cores, option.batch, share_j, seconds))
        open_.append(found)
    best = None
    for picked in itertools.product(*open_):
        accuracy, cores, batches, joules, seconds = zip(*picked, strict=True)
        if sum(joules) > (settings.energy_sla_joules or math.inf) * (1 + 1e-12):
            continue
        if sum(seconds) > (settings.latency_sla_s or math.inf) * (1 + 1e-12):
            continue
        total = {"sum": sum, "multiply": math.prod}.get(
            settings.accuracy_method, lambda each: sum(each) / len(each)
        )(accuracy)
        watts = load_rps if settings.energy_metric == "watts" else 1.0
        objective = (
            settings.alpha * total
            - settings.beta * sum(cores)
            - settings.gamma * sum(batches)
            - settings.energy_weight * watts * sum(joules)
        )
        best = objective if best is None else max(best, objective)
    return best


def scores(stage: Stage, normalize: bool) -> list[float]:
    raw = {option.variant: option.accuracy for option in stage.options}
    if not normalize:
        return [option.accuracy for option in stage.options]
    ranked = sorted(raw, key=lambda variant: (raw[variant], variant))
    steps = max(1, len(ranked) - 1)
    rank = {v: 1.0 if len(ranked) == 1 else at / steps for at, v in enumerate(ranked)}
    return [rank[option.variant] for option in stage.options]


def bounded(problem: Problem, top_k: int) -> list[Choice]:
    if problem.is_empty() or Table.of(problem).is_hopeless:
        return []
    return pareto.solve_bounded(Table.of(problem), top_k, 2)


SOLVERS = {
    "pareto": pareto.solve,
    "bounded": bounded,
    "brute-force": exhaustive.solve,
    "gurobi": gurobi.solve,
    "highs": highs.solve,
}


@pytest.mark.parametrize("first", range(0, INSTANCES, PART))
def test_every_solver_agrees_with_plain_loops(first: int) -> None:
    feasible = differs = 0
    for seed in range(first, first + PART):
        plain, load_rps = random_program(seed, stages=1 + seed % 3)
        program = with_neighbours(plain, np.random.default_rng(seed))
        problem = program.at(load_rps)
        expected = best_by_hand(program, load_rps)
        for name, solver in SOLVERS.items():
            plans = checked_plans(problem, solver(problem, 1), name)
            assert (expected is None) == (not plans), (seed, name)
            if expected is not None:
                assert plans[0].objective == pytest.approx(expected, rel=1e-9, abs=1e-9), seed
        feasible += expected is not None
        differs += expected != best_by_hand(plain, load_rps)
    assert feasible > PART / 3
    assert differs > PART / 4


@pytest.mark.parametrize("first", range(0, INSTANCES, PART))
def test_ways_out_of_a_conflict_are_ways_out_and_the_nearest(first: int) -> None:
    for seed in range(first, first + PART):
        plain, load_rps = random_program(seed, stages=1 + seed % 3)
        program = with_neighbours(plain, np.random.default_rng(seed))
        problem = program.at(load_rps)
        if exhaustive.solve(problem, 1):
            continue
        for way in find_conflict(problem).relaxations:
            assert _feasible(program, load_rps, way.constraint, way.needed), (seed, way)
            nearer = way.needed - 1 if way.constraint.endswith("_cap") else way.needed * (1 - 1e-6)
            if not way.constraint.startswith("replicas:"):
                assert not _feasible(program, load_rps, way.constraint, nearer), (seed, way)


def _feasible(program: Program, load_rps: float, constraint: str, value: float) -> bool:
    settings, rules = program.settings, list(program.rules)
    if constraint.startswith("replicas:"):
        names = [stage.name for stage in program.stages]
        at = names.index(constraint.removeprefix("replicas:"))
        rules[at] = dataclasses.replace(rules[at], replicas=int(value))
    else:
        settings = dataclasses.replace(settings, **{constraint: value})
    return best_by_hand(Program(program.stages, settings, rules), load_rps) is not None


def test_a_plan_says_what_its_replicas_do_together() -> None:
    planner = load_planner(ROOT / "configs" / "video.yaml", {"initial_active_model": None})
    crop = planner.stages[0]
    alone = next(o for o in crop.options if o.label == "yolov5s 1c b1")
    assert (alone.throughput_rps, alone.at(2).throughput_rps) == (5.8175, 5.62179)
    problem = planner.program.at(11.4)  # two alone would carry 11.64, two at once carry 11.24
    plan = next(
        build_plan(problem, (at, 0))
        for at in range(len(problem.stages[0]))
        if problem.stages[0].option(at).label == "yolov5s 1c b1"
    )
    assert plan.stages[0].replicas == 3
    assert plan.stages[0].capacity_rps == pytest.approx(3 * 5.62179)
    assert plan.stages[0].option.latency_s == 0.207907
    assert plan.stages[0].to_json()["throughput_rps"] == 5.62179


def test_the_decision_of_a_whole_pipeline_is_the_same_by_every_method() -> None:
    planner = load_planner(ROOT / "configs" / "video.yaml", {"energy_weight": 2.0})
    for load_rps in (3.0, 11.4, 24.0):
        labels = {
            decide(planner.program, load_rps, method).best.label
            for method in ("pareto", "gurobi", "highs", "brute-force")
        }
        assert len(labels) == 1
