"""Equally good plans: every solver, and every study, takes the same one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from option_maker import make_option

from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import solve
from ipa_energy.planning.planner import load_planner
from ipa_energy.records import Option, Stage
from ipa_energy.tradeoff.plan_space import _best_in_each, space_of

METHODS = ("pareto", "brute-force", "highs", "gurobi")
ROOT = Path(__file__).parents[2]


def settings(**given: object) -> Settings:
    plain = {"alpha": 10.0, "beta": 1.0, "gamma": 0.0, "scaling_cap": 20, "batching_cap": 8}
    return Settings(**(plain | given))  # type: ignore[arg-type]


def stage_of(*options: Option, name: str = "only") -> Stage:
    return Stage(name, f"{name}-node", options)


def best(method: str, *stages: Stage, top_k: int = 1, **given: object) -> list[str]:
    problem = Program(stages, settings(**given)).at(10.0)
    return [plan.label for plan in solve(problem, method, top_k).plans]


@pytest.mark.parametrize("method", METHODS)
def test_least_joules_then_least_latency_then_first_in_the_profile(method: str) -> None:
    hungry = make_option("hungry", dynamic_energy_j=3.0, latency_s=0.01)
    late = make_option("late", dynamic_energy_j=1.0, latency_s=0.3)
    first, second = (make_option(name, dynamic_energy_j=1.0) for name in ("first", "second"))
    order = [f"{name} 1c b1 x1" for name in ("first", "second", "late", "hungry")]
    stage = stage_of(hungry, late, first, second)
    for count in range(1, 5):
        assert best(method, stage, top_k=count) == order[:count]
    # A better objective comes before everything else.
    better = make_option("better", accuracy=0.6, dynamic_energy_j=9.0, latency_s=1.0)
    assert best(method, stage_of(hungry, better)) == ["better 1c b1 x1"]


@pytest.mark.parametrize("method", METHODS)
def test_without_joules_latency_decides(method: str) -> None:
    nan = float("nan")
    slow, fast = (
        make_option(name, latency_s=wait_s, dynamic_energy_j=nan, idle_power_w=nan)
        for name, wait_s in (("slow", 0.2), ("fast", 0.1))
    )
    assert best(method, stage_of(slow, fast)) == ["fast 1c b1 x1"]


@pytest.mark.parametrize("method", METHODS)
def test_ties_between_stages_are_found_however_many_there_are(method: str) -> None:
    """Two replicas of one core or one of two: 2⁴ plans cost the same, and differ in joules."""
    stages = [
        stage_of(
            make_option("v", throughput_rps=5.0, idle_power_w=3.0),
            make_option("v", throughput_rps=10.0, cpu_cores=2.0, idle_power_w=5.0),
            name=f"s{number}",
        )
        for number in range(4)
    ]
    assert best(method, *stages) == [" | ".join(["v 2c b1 x1"] * 4)]


@pytest.mark.parametrize("seed", range(12))
def test_methods_agree_on_random_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stages = [
        stage_of(
            *(
                make_option(
                    f"v{number}",
                    int(rng.choice([1, 2])),
                    accuracy=float(rng.choice([0.5, 0.6])),
                    cpu_cores=float(rng.choice([1.0, 2.0])),
                    throughput_rps=float(rng.choice([5.0, 10.0])),
                    dynamic_energy_j=float(rng.choice([1.0, 2.0])),
                    latency_s=float(rng.choice([0.1, 0.2])),
                )
                for number in range(8)
            ),
            name=name,
        )
        for name in ("a", "b")
    ]
    found = {method: best(method, *stages, top_k=5, latency_sla_s=0.5) for method in METHODS}
    assert len({tuple(labels) for labels in found.values()}) == 1


def test_the_study_and_every_method_name_one_best_plan_without_energy() -> None:
    planner = load_planner(ROOT / "configs" / "video.yaml")
    problem = planner.program.at(10.0)
    labels = {method: solve(problem, method).best.label for method in METHODS}
    assert set(labels.values()) == {"yolov5m 1c b1 x5 | resnet152 2c b1 x1"}
    space = space_of(problem)
    index = dict(_best_in_each(space, 0.0))["best without energy"]
    plan = solve(problem).best
    chosen = [
        candidates.option(at)
        for candidates, at in zip(problem.stages, space.choice(index), strict=True)
    ]
    assert chosen == [stage.option for stage in plan.stages]
