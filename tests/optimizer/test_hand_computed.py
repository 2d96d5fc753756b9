"""Programs small enough to work out on paper, through the whole decision."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from option_maker import make_option as option

from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import decide
from ipa_energy.optimizer.stage_columns import StageRules, accuracy_ranks, accuracy_scores
from ipa_energy.records import Allocation, Option, Stage
from ipa_energy.registries import SOLVERS

EVERY = pytest.mark.parametrize("method", SOLVERS)


def program(
    *options: Option,
    requests_per_input: float = 1.0,
    rules: StageRules | None = None,
    **settings: object,
) -> Program:
    given = {"alpha": 1.0, "beta": 0.0, "gamma": 0.0, "scaling_cap": 10, "batching_cap": 8}
    return Program(
        [Stage("crop", "yolo", options, requests_per_input)],
        Settings(**{**given, **settings}),  # type: ignore[arg-type]
        [rules or StageRules()],
    )


@EVERY
def test_joules_count_replicas_and_idle_power(method: str) -> None:
    """25 rps at 10 rps a replica: n = 3, J = 4 + 3·2/25 = 4.24 J, 106 W."""
    plan = decide(program(option(dynamic_energy_j=4.0, idle_power_w=2.0)), 25.0, method).best
    assert plan.stages[0].replicas == 3
    assert plan.joules_per_request == pytest.approx(4.24)
    assert plan.power_w == pytest.approx(106.0)


@EVERY
def test_joules_per_pipeline_request_count_requests_per_input(method: str) -> None:
    """2 of them for each input: λ_s = 20, n = 2, J_s = 4 + 2·2/20 = 4.2 J, 8.4 J an input."""
    one = program(option(dynamic_energy_j=4.0, idle_power_w=2.0), requests_per_input=2.0)
    plan = decide(one, 10.0, method).best
    assert plan.stages[0].replicas == 2
    assert plan.stages[0].joules_per_request == pytest.approx(4.2)
    assert plan.joules_per_request == pytest.approx(8.4)
    assert plan.power_w == pytest.approx(84.0)


@EVERY
@pytest.mark.parametrize(
    ("load_rps", "replicas"), [(1.0, 1), (9.99, 1), (10.0, 1), (10.01, 2), (30.0, 3), (30.3, 4)]
)
def test_replicas_are_the_fewest_that_carry_the_load(
    method: str, load_rps: float, replicas: int
) -> None:
    assert decide(program(option()), load_rps, method).best.stages[0].replicas == replicas


@EVERY
def test_thirds_of_a_load_need_no_extra_replica(method: str) -> None:
    """3 replicas of 0.1 rps carry 0.1·3 = 0.30000000000000004 rps."""
    plan = decide(program(option(throughput_rps=0.1)), 0.1 * 3, method).best
    assert plan.stages[0].replicas == 3
    assert plan.certificate.holds


@EVERY
def test_waiting_for_a_batch_counts_against_the_latency_sla(method: str) -> None:
    """At 7 rps a batch of 8 waits 7/7 = 1 s and is served in 0.5 s; at 14 rps it waits 0.5 s."""
    options = (
        option("small", 1, latency_s=0.2, accuracy=0.4),
        option("large", 8, latency_s=0.5, accuracy=0.8, throughput_rps=20.0),
    )
    with_sla = program(*options, latency_sla_s=1.2)
    assert decide(with_sla, 7.0, method).best.stages[0].option.variant == "small"
    plan = decide(with_sla, 14.0, method).best
    assert plan.stages[0].option.variant == "large"
    assert plan.stages[0].wait_s == pytest.approx(0.5)
    assert plan.latency_s == pytest.approx(1.0)


@EVERY
def test_scaling_cap_excludes_slow_options(method: str) -> None:
    options = (
        option("slow", throughput_rps=3.0, accuracy=0.9),
        option("fast", throughput_rps=10.0, accuracy=0.5),
    )
    assert decide(program(*options, scaling_cap=4), 12.0, method).best.label.startswith("slow")
    assert decide(program(*options, scaling_cap=3), 12.0, method).best.label.startswith("fast")
    assert decide(program(*options, scaling_cap=1), 12.0, method).status == "infeasible"


@EVERY
def test_batching_cap_excludes_large_batches(method: str) -> None:
    """Batch 4 is four times as cheap in joules and free of any other cost."""
    options = (option("v", 1, dynamic_energy_j=4.0), option("v", 4, dynamic_energy_j=1.0))
    for cap, batch in ((8, 4), (4, 4), (3, 1)):
        plan = decide(program(*options, batching_cap=cap, energy_weight=1.0), 10.0, method).best
        assert plan.stages[0].option.batch == batch


@EVERY
def test_fixed_replicas_are_used_and_paid_for(method: str) -> None:
    """5 replicas where 2 would do: J = 1 + 5·2/20 = 1.5 J, cost 5 cores."""
    fixed = program(option(), rules=StageRules(replicas=5), beta=1.0)
    plan = decide(fixed, 20.0, method).best
    assert (plan.stages[0].replicas, plan.cost_cores) == (5, 5.0)
    assert plan.joules_per_request == pytest.approx(1.5)
    assert decide(fixed, 51.0, method).status == "infeasible"


@EVERY
def test_objective_adds_up(method: str) -> None:
    """3·0.5 − 0.1·(2·1) − 0.01·1 − 0.2·J with J = 1 + 2·2/20 = 1.2 J: 1.05; in watts J·20 = 24."""
    weights: dict[str, Any] = {"alpha": 3.0, "beta": 0.1, "gamma": 0.01, "energy_weight": 0.2}
    plan = decide(program(option(), **weights), 20.0, method).best
    assert plan.objective == pytest.approx(1.5 - 0.2 - 0.01 - 0.24)
    watts = decide(program(option(), **weights, energy_metric="watts"), 20.0, method).best
    assert watts.objective == pytest.approx(1.5 - 0.2 - 0.01 - 4.8)


@EVERY
def test_energy_weight_turns_the_choice(method: str) -> None:
    """Accuracy is worth 1·(0.9 − 0.5) = 0.4; the better variant costs 3 J more."""
    options = (
        option("small", accuracy=0.5, dynamic_energy_j=1.0),
        option("large", accuracy=0.9, dynamic_energy_j=4.0),
    )
    for weight, variant in ((0.0, "large"), (0.13, "large"), (0.14, "small")):
        plan = decide(program(*options, energy_weight=weight), 10.0, method).best
        assert plan.stages[0].option.variant == variant


@EVERY
def test_energy_sla_is_a_hard_cap(method: str) -> None:
    options = (
        option("small", accuracy=0.5, dynamic_energy_j=1.0, idle_power_w=0.0),
        option("large", accuracy=0.9, dynamic_energy_j=4.0, idle_power_w=0.0),
    )
    for cap, variant in ((4.0, "large"), (3.99, "small"), (1.0, "small")):
        plan = decide(program(*options, energy_sla_joules=cap), 10.0, method).best
        assert plan.stages[0].option.variant == variant
    assert decide(program(*options, energy_sla_joules=0.99), 10.0, method).status == "infeasible"


def test_equal_accuracies_are_ranked_by_name_not_by_the_order_of_the_profile() -> None:
    options = (option("z", accuracy=0.5), option("m", accuracy=0.9), option("a", accuracy=0.5))
    stage = Stage("crop", "yolo", options)
    assert accuracy_ranks(stage) == {"a": 0.0, "z": 0.5, "m": 1.0}
    assert accuracy_scores(stage, normalize=True) == [0.5, 1.0, 0.0]


def test_a_variant_keeps_the_accuracy_that_it_has_on_each_kind_of_hardware() -> None:
    """Quantised kernels differ: 0.70 on one board, 0.71 on the other, which is the one to take."""
    options = tuple(
        dataclasses.replace(
            option("net", accuracy=accuracy), allocation=Allocation.of(1, hardware=board)
        )
        for board, accuracy in (("slow", 0.71), ("fast", 0.70))
    )
    plan = decide(program(*options), 1.0).best
    assert (plan.accuracy, plan.stages[0].option.hardware) == (0.71, "slow")
