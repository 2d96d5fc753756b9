"""The best static plan against exhaustive search over all plans that never change."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from option_maker import make_option

from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning.hindsight import best_static_plan
from ipa_energy.records import Option, Stage

COUNTS = np.array([2, 5, 9, 4, 3])


def option(variant: str, batch: int, rate_rps: float, accuracy: float, joules: float) -> Option:
    return make_option(
        variant,
        batch,
        latency_s=batch / rate_rps,
        throughput_rps=rate_rps,
        accuracy=accuracy,
        dynamic_energy_j=joules,
        idle_power_w=0.5,
        trials=3,
        ci95_j=0.0,
    )


STAGES = [
    Stage(
        "one",
        "n1",
        (
            option("a", 1, 4.0, 0.5, 1.0),
            option("a", 4, 6.0, 0.5, 0.7),
            option("b", 1, 2.0, 0.8, 2.0),
            option("b", 4, 2.5, 0.8, 1.6),
        ),
    ),
    Stage("two", "n2", (option("c", 1, 10.0, 0.7, 0.3), option("d", 2, 5.0, 0.9, 0.9))),
]


def settings(**changes: object) -> Settings:
    values: dict[str, object] = {
        "alpha": 10.0,
        "beta": 0.5,
        "gamma": 0.001,
        "energy_weight": 1.0,
        "latency_sla_s": 3.5,
        "scaling_cap": 10,
        "batching_cap": 8,
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


def by_hand(given: Settings) -> float:
    """Best objective over all pairs of options, from the definitions alone."""
    lowest, mean, peak = 2.0, float(COUNTS.mean()), 9.0
    best = -math.inf
    for pair in itertools.product(STAGES[0].options, STAGES[1].options):
        replicas = [math.ceil(peak / o.throughput_rps) for o in pair]
        latency_s = sum(o.latency_s + (o.batch - 1) / lowest for o in pair)
        joules = sum(
            o.dynamic_energy_j + n * o.idle_power_w / mean
            for o, n in zip(pair, replicas, strict=True)
        )
        if given.latency_sla_s is not None and latency_s > given.latency_sla_s:
            continue
        if max(replicas) > given.scaling_cap:
            continue
        value = (
            given.alpha * sum(o.accuracy for o in pair)
            - given.beta * sum(replicas)
            - given.gamma * sum(o.batch for o in pair)
            - given.energy_weight * joules
        )
        best = max(best, value)
    return best


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("sla_s", [1.1, 3.5, None])
def test_static_plan_is_the_best_of_all_that_last(weight: float, sla_s: float | None) -> None:
    given = settings(energy_weight=weight, latency_sla_s=sla_s)
    plan, conflict = best_static_plan(Program(STAGES, given), COUNTS)
    assert conflict is None
    assert plan is not None
    assert plan.objective == pytest.approx(by_hand(given), rel=1e-12)


def test_static_plan_carries_the_busiest_second() -> None:
    plan, _ = best_static_plan(Program(STAGES, settings()), COUNTS)
    assert plan is not None
    assert all(stage.capacity_rps >= COUNTS.max() for stage in plan.stages)


def test_trace_that_no_plan_lasts_through_has_a_conflict() -> None:
    plan, conflict = best_static_plan(Program(STAGES, settings(scaling_cap=1)), COUNTS)
    assert plan is None
    assert conflict is not None
    assert "scaling_cap" in str(conflict)


def test_loads_of_a_quiet_trace_are_planned_as_they_are() -> None:
    """Its lowest load is that of the quietest interval; one without requests counts as one."""
    counts = np.array([0, 1, 0, 1, 1, 2])
    loads = Moment.of(counts, interval_s=3)
    assert (loads.lowest_rps, loads.mean_rps, loads.peak_rps) == (1 / 3, 5 / 6, 2.0)
    silent = Moment.of(np.array([0, 0, 0, 6]), interval_s=2)
    assert (silent.lowest_rps, silent.mean_rps, silent.peak_rps) == (0.5, 1.5, 6.0)
