"""Decisions of a patched IPA: Gurobi with energy in it, and our own solver on the same pipeline."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from ipa_checkout import Ipa, whole

pytestmark = pytest.mark.ipa

FEW = ["yolov5n", "yolov5s", "resnet18", "resnet50"]


def cases(count: int, seed: int) -> list[dict[str, Any]]:
    """Random loads, weights, caps and ways to combine accuracies, strict all of them."""
    rng = random.Random(seed)
    made = []
    ways = itertools.cycle(itertools.product(("sum", "average", "multiply"), (True, False)))
    for _, (method, normalize) in zip(range(count), ways, strict=False):
        made.append(
            {
                "methods": ["gurobi", "ipa-energy"],
                "load": rng.choice([0, 1, 2, rng.randint(3, 40)]),
                "accuracy_method": method,
                "normalize_accuracy": normalize,
                "alpha": rng.choice([0, 1, 10, 40]),
                "beta": rng.choice([0, 0.1, 1]),
                "energy_weight": rng.choice([0, 0.001, 0.5, 2, 20]),
                "energy_metric": rng.choice(["joules_per_request", "watts"]),
                "energy_sla_joules": rng.choice([None, rng.uniform(0.4, 3)]),
                "latency_sla_s": rng.choice([None, rng.uniform(0.3, 6)]),
                "strict_latency": True,
                "batching_cap": rng.choice([1, 4, 8]),
                "scaling_cap": rng.choice([3, 100]),
            }
        )
    return made


def test_gurobi_and_our_solver_agree(patched: Ipa) -> None:
    asked = cases(240, seed=20)
    answers = patched.run("decide", config=whole(), cases=asked)
    feasible = 0
    for case, answer in zip(asked, answers, strict=True):
        gurobi, exact = answer["gurobi"], answer["ipa-energy"]
        assert bool(gurobi) == bool(exact), case
        if not gurobi:
            continue
        feasible += 1
        assert gurobi[0]["objective"] == pytest.approx(exact[0]["objective"], rel=1e-9), case
        for states in (gurobi, exact):
            cap_j = case["energy_sla_joules"]
            assert cap_j is None or states[0]["pipeline_joules_per_request"] <= cap_j + 1e-9
            assert states[0]["task_0_batch"] <= case["batching_cap"]
    assert 100 < feasible < len(asked)


def test_gurobi_and_our_solver_agree_on_upper_ends(patched: Ipa) -> None:
    asked = [{**case, "energy_risk": "upper"} for case in cases(16, seed=21)]
    by_mean = [{**case, "energy_risk": "mean"} for case in asked]
    answers = patched.run("decide", config=whole(), cases=[*asked, *by_mean])
    dearer = 0
    for case, answer, mean in zip(asked, answers, answers[len(asked) :], strict=False):
        gurobi, exact = answer["gurobi"], answer["ipa-energy"]
        assert bool(gurobi) == bool(exact), case
        if not gurobi:
            continue
        assert gurobi[0]["objective"] == pytest.approx(exact[0]["objective"], rel=1e-9), case
        assert exact[0]["objective"] <= mean["ipa-energy"][0]["objective"] + 1e-9
        dearer += exact[0]["objective"] < mean["ipa-energy"][0]["objective"] - 1e-9
    assert dearer > 3


def test_a_cap_that_a_plan_just_meets_is_met(patched: Ipa) -> None:
    base = {"methods": ["gurobi"], "load": 20, "energy_weight": 5, "strict_latency": True}
    [free] = patched.run("decide", config=whole(), cases=[base])
    joules = free["gurobi"][0]["pipeline_joules_per_request"]
    at_cap = {**base, "methods": ["gurobi", "ipa-energy"], "energy_sla_joules": joules}
    [capped] = patched.run("decide", config=whole(), cases=[at_cap])
    for states in capped.values():
        if isinstance(states, list):
            assert states[0]["objective"] == pytest.approx(free["gurobi"][0]["objective"])


def test_states_have_the_parts_of_the_objective_and_the_joules(patched: Ipa) -> None:
    case = {"methods": ["gurobi", "ipa-energy"], "load": 12, "energy_weight": 2}
    [answer] = patched.run("decide", config=whole(), cases=[case])
    for method in case["methods"]:
        state = answer[method][0]
        joules = state["task_0_joules_per_request"] + state["task_1_joules_per_request"]
        assert state["pipeline_joules_per_request"] == pytest.approx(joules)
        assert state["energy_objective"] == pytest.approx(2 * joules)
        parts = ("resource_objective", "batch_objective", "energy_objective")
        total = state["accuracy_objective"] - sum(state[part] for part in parts)
        assert state["objective"] == pytest.approx(total)


@pytest.mark.parametrize("more", [{}, {"strict_latency": True}, {"energy_sla_joules": 0.9}])
def test_brute_force_agrees_where_it_used_to_fail(patched: Ipa, more: dict[str, Any]) -> None:
    config = whole(
        variants=FEW,
        scaling_cap=3,
        energy_weight=3,
        num_state_limit=1,
        latency_sla_s=2.5,
        batching_cap=2,
        **{"strict_latency": True, **more},
    )
    answer = patched.run("brute_force", config=config, load=9)
    assert answer["states"][0]["objective"] == pytest.approx(answer["exact"][0]["objective"])


def test_the_unpatched_brute_force_fails(plain: Ipa) -> None:
    config = whole(variants=FEW, scaling_cap=2, num_state_limit=50, latency_sla_s=None)
    assert (
        "not supported between instances of 'dict'"
        in (plain.run("brute_force", config=config, load=6, plain=True)["error"])
    )


def test_all_states_keep_the_energy_sla(patched: Ipa) -> None:
    config = whole(variants=FEW, scaling_cap=2, energy_weight=1)
    free = patched.run("all_states", config=config, load=6)
    joules = sorted(state["pipeline_joules_per_request"] for state in free)
    cap_j = joules[len(joules) // 2]
    config["energy_sla_joules"] = cap_j
    kept = patched.run("all_states", config=config, load=6)
    assert 0 < len(kept) < len(free)
    assert {state["pipeline_joules_per_request"] <= cap_j * (1 + 1e-12) for state in kept} == {True}
    assert len(kept) == sum(each <= cap_j * (1 + 1e-12) for each in joules)


@pytest.mark.parametrize(
    ("mode", "baseline"), [("base", "scale"), ("base", "switch"), ("base", None)]
)
def test_baselines_bind_our_solver_as_they_bind_gurobi(
    patched: Ipa, mode: str, baseline: str | None
) -> None:
    case = {
        "methods": ["gurobi", "ipa-energy"],
        "load": 8,
        "allocation_mode": mode,
        "baseline_mode": baseline,
        "initial_replica": [4, 2],
        "energy_weight": 1,
        "strict_latency": True,
    }
    [answer] = patched.run("decide", config=whole(initial_replica=[4, 2]), cases=[case])
    gurobi, exact = answer["gurobi"][0], answer["ipa-energy"][0]
    assert gurobi["objective"] == pytest.approx(exact["objective"], rel=1e-9)
    if baseline == "switch":
        assert (exact["task_0_replicas"], exact["task_1_replicas"]) == (4, 2)


def test_variants_whose_names_contain_each_other_are_told_apart(patched: Ipa) -> None:
    # IPA finds the binary of a variant by a substring, which resnet1 shares with resnet101.
    cases = [{"methods": ["ipa-energy"], "load": load, "energy_weight": 2} for load in (5, 15, 30)]
    plain = patched.run("decide", config=whole(), cases=cases)
    renamed = patched.run("decide", config=whole(rename={"resnet152": "resnet1"}), cases=cases)
    names = set()
    for answer, other in zip(plain, renamed, strict=True):
        before, after = answer["ipa-energy"][0], other["ipa-energy"][0]
        names.add(after["task_1_variant"])
        expected = before["task_1_variant"].replace("resnet152", "resnet1")
        assert after == {**before, "task_1_variant": expected}
    assert "resnet1" in names
