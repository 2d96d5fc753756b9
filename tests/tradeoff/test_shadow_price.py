"""What the SLAs cost: by hand, and against every plan there is."""

from __future__ import annotations

import dataclasses
import math

import pytest
from seeds import seeds
from small_programs import every_plan, one_stage, program_of, random_small_program, small_option

from ipa_energy.as_json import as_json
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.tradeoff.prices import SLAS, ShadowPrice, shadow_price

SEEDS = seeds(20)


def price_of(problem: Problem, sla: str) -> ShadowPrice:
    return shadow_price(problem, sla, pareto.solve(problem)[0])


STAGES = one_stage(
    small_option("fast", accuracy=0.2, latency_s=0.1, dynamic_energy_j=1.0),
    small_option("middle", accuracy=0.5, latency_s=0.3, dynamic_energy_j=2.0),
    small_option("slow", accuracy=0.9, latency_s=0.8, dynamic_energy_j=6.0),
)


def test_both_steps_computed_by_hand() -> None:
    price = price_of(program_of(STAGES, latency_sla_s=0.4).at(10.0), "latency_sla_s")
    assert price.is_binding
    assert price.used == pytest.approx(0.3)
    up, down = price.relaxed, price.tightened
    assert up is not None
    assert up.plan is not None
    assert up.plan.label.startswith("slow")
    assert (up.limit, up.distance) == pytest.approx((0.8, 0.4))
    assert (up.objective_change, up.joules_change) == pytest.approx((0.4, 4.0))
    assert (up.objective_per_unit, up.joules_per_unit) == pytest.approx((1.0, 10.0))
    assert down is not None
    assert down.plan is not None
    assert down.plan.label.startswith("fast")
    assert (down.limit, down.distance) == pytest.approx((0.3, 0.1))
    assert (down.objective_change, down.joules_change) == pytest.approx((-0.3, -1.0))
    assert (down.objective_per_unit, down.joules_per_unit) == pytest.approx((-3.0, -10.0))


def test_an_energy_sla_is_priced_in_joules() -> None:
    price = price_of(program_of(STAGES, energy_sla_joules=1.5).at(10.0), "energy_sla_joules")
    assert price.relaxed is not None
    assert (price.relaxed.limit, price.relaxed.objective_change) == pytest.approx((2.0, 0.3))
    assert price.relaxed.objective_per_unit == pytest.approx(0.6)
    assert price.tightened is not None
    assert price.tightened.plan is None
    assert math.isnan(price.tightened.objective_change)
    assert price.tightened.limit == pytest.approx(1.0)


def test_an_sla_that_costs_nothing_is_not_binding() -> None:
    price = price_of(program_of(STAGES, latency_sla_s=1.0).at(10.0), "latency_sla_s")
    assert not price.is_binding
    assert price.tightened is not None
    assert price.tightened.limit == pytest.approx(0.8)


def test_an_sla_that_is_not_set_has_no_distance() -> None:
    price = price_of(program_of(STAGES).at(10.0), "energy_sla_joules")
    assert (price.limit, price.is_binding) == (None, False)
    assert price.tightened is not None
    assert price.tightened.limit == pytest.approx(6.0)
    assert price.tightened.objective_change == pytest.approx(-0.4)
    assert as_json(price)["tightened"]["objective_per_unit"] is None


def test_an_sla_exactly_at_the_plan_has_no_way_down() -> None:
    price = price_of(program_of(STAGES, latency_sla_s=0.3).at(10.0), "latency_sla_s")
    assert price.tightened is not None
    assert price.tightened.distance == 0.0
    assert math.isnan(price.tightened.objective_per_unit)


def test_equally_good_plans_count_as_one() -> None:
    stages = one_stage(
        small_option("slow", latency_s=0.4), small_option("quick", latency_s=0.2, accuracy=0.5)
    )
    price = price_of(program_of(stages, latency_sla_s=0.5).at(10.0), "latency_sla_s")
    assert price.tightened is not None
    assert price.tightened.limit == pytest.approx(0.2)


def test_without_joules_there_is_no_price_of_energy() -> None:
    stages = one_stage(
        small_option("fast", latency_s=0.1, dynamic_energy_j=math.nan, idle_power_w=math.nan),
        small_option(
            "slow", latency_s=0.9, accuracy=0.9, dynamic_energy_j=math.nan, idle_power_w=math.nan
        ),
    )
    problem = program_of(stages, latency_sla_s=0.5).at(10.0)
    energy = price_of(problem, "energy_sla_joules")
    assert energy.reason is not None
    assert energy.tightened is None
    latency = price_of(problem, "latency_sla_s")
    assert latency.relaxed is not None
    assert latency.relaxed.limit == pytest.approx(0.9)
    assert as_json(latency)["relaxed"]["joules_change"] is None


def used(plan: Plan, sla: str) -> float:
    return plan.latency_s if sla == "latency_sla_s" else plan.joules_per_request


@pytest.mark.parametrize("sla", SLAS)
@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_every_plan_there_is(seed: int, sla: str) -> None:
    program, load_rps = random_small_program(seed)
    problem = program.at(load_rps)
    plans = every_plan(problem)
    if not plans:
        return
    price = price_of(problem, sla)
    best = max(plan.objective for plan in plans)
    room = 1e-9 * max(1.0, abs(best))
    free = Program(
        program.stages, dataclasses.replace(program.settings, **{sla: None}), program.rules
    )
    everything = every_plan(free.at(load_rps))
    better = [used(plan, sla) for plan in everything if plan.objective > best + room]
    assert price.is_binding == bool(better)
    if price.relaxed is not None:
        step = min(better)
        assert price.relaxed.limit == pytest.approx(step, rel=1e-9)
        then = max(p.objective for p in everything if used(p, sla) <= step * (1 + 1e-12))
        assert price.relaxed.objective_change == pytest.approx(then - best, abs=1e-9)
    assert price.tightened is not None
    lowest = min(used(p, sla) for p in everything if p.objective >= best - room)
    assert price.tightened.limit == pytest.approx(lowest, rel=1e-9)
    rest = [plan.objective for plan in everything if used(plan, sla) < lowest * (1 - 1e-9)]
    assert (price.tightened.plan is None) == (not rest)
    if rest:
        assert price.tightened.objective_change == pytest.approx(max(rest) - best, abs=1e-9)
