"""Every feasible plan as points, whole and sampled."""

from __future__ import annotations

import numpy as np
import pytest
from seeds import seeds
from small_programs import every_plan, one_stage, program_of, random_small_program, small_option

from ipa_energy.tradeoff import plan_space
from ipa_energy.tradeoff.plan_space import objectives, space_of

FIGURES = ("accuracy", "accuracy_raw", "cost_cores", "latency_s", "joules_per_request")


@pytest.mark.parametrize("seed", seeds(15))
def test_the_space_is_every_feasible_plan(seed: int) -> None:
    program, load_rps = random_small_program(seed)
    found = space_of(program.at(load_rps))
    plans = every_plan(found.problem)
    assert len(found) == found.feasible == len(plans)
    assert found.is_complete
    for name in FIGURES:
        expected = np.array([getattr(plan, name) for plan in plans])
        assert getattr(found, name) == pytest.approx(expected, rel=1e-12)
    worth = [plan.objective - 0.7 * plan.joules_per_request for plan in plans]
    if program.settings.energy_metric == "joules_per_request":
        assert objectives(found.problem, found, 0.7) == pytest.approx(np.array(worth))


def test_ranks_are_for_the_objective_and_raw_accuracies_for_people() -> None:
    stages = one_stage(small_option("a", accuracy=0.3), small_option("b", accuracy=0.4))
    found = space_of(program_of(stages, normalize_accuracy=True).at(10.0))
    assert found.accuracy == pytest.approx([0.0, 1.0])
    assert found.columns["accuracy"] == pytest.approx([0.3, 0.4])


def test_batch_is_the_geometric_mean_of_the_stages() -> None:
    stages = one_stage(small_option("a", 4)) + one_stage(small_option("b", 1))
    assert space_of(program_of(stages).at(10.0)).batch == pytest.approx([2.0])


@pytest.mark.parametrize("seed", [1, 5, 8, 14])
def test_a_sample_holds_the_exact_ends(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program, load_rps = random_small_program(seed)
    problem = program.at(load_rps)
    whole = space_of(problem)
    monkeypatch.setattr(plan_space, "MOST_PLANS", 0)
    monkeypatch.setattr(plan_space, "SAMPLE", 5)
    sampled = space_of(problem, seed=3)
    assert not sampled.is_complete
    assert len(sampled) <= 5 + 4
    if len(whole) == 0:
        assert len(sampled) == 0
        return
    assert sampled.accuracy.max() == pytest.approx(whole.accuracy.max())
    for name in FIGURES[2:]:
        assert getattr(sampled, name).min() == pytest.approx(getattr(whole, name).min())
    rows = {tuple(row) for row in whole.choices.tolist()}
    assert {tuple(row) for row in sampled.choices.tolist()} <= rows


def test_one_seed_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    program, load_rps = random_small_program(4)
    monkeypatch.setattr(plan_space, "MOST_PLANS", 0)
    monkeypatch.setattr(plan_space, "SAMPLE", 8)
    first, second = (space_of(program.at(load_rps), seed=7) for _ in range(2))
    assert first.choices.tolist() == second.choices.tolist()


def test_no_joules_leave_the_rest() -> None:
    stages = one_stage(small_option("a", dynamic_energy_j=float("nan")))
    found = space_of(program_of(stages).at(10.0))
    assert not found.has_energy
    assert found.cost_cores == pytest.approx([1.0])


def test_a_stage_without_candidates_leaves_no_plan() -> None:
    stages = one_stage(small_option("a", throughput_rps=0.01))
    found = space_of(program_of(stages, scaling_cap=1).at(10.0))
    assert (len(found), found.combinations, found.feasible) == (0, 0, 0)
    assert not found.has_energy
