"""What giving something up saves: by hand, and against every plan there is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from seeds import seeds
from small_programs import every_plan, one_stage, program_of, random_small_program, small_option

from ipa_energy.as_json import as_json
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Program
from ipa_energy.tradeoff.prices import LATENCY_S, Exchange, Exchanges
from ipa_energy.tradeoff.sensitivity import analyse_program

SEEDS = seeds(20)
ROOM = 1e-7


def exchanges_at(program: Program, load_rps: float = 10.0) -> Exchanges:
    found = analyse_program(program, load_rps, draws=2).exchanges
    assert found is not None
    return found


def by_given(found: Exchanges) -> dict[str, Exchange]:
    return {exchange.given: exchange for exchange in found.at_plan}


STAGES = one_stage(
    small_option("large", accuracy=0.8, dynamic_energy_j=10.0, latency_s=0.2, cpu_cores=2),
    small_option("almost", accuracy=0.795, dynamic_energy_j=9.0, latency_s=0.2, cpu_cores=2),
    small_option("small", accuracy=0.4, dynamic_energy_j=1.0, latency_s=0.2, cpu_cores=2),
    small_option("slow", accuracy=0.8, dynamic_energy_j=7.0, latency_s=0.24, cpu_cores=2),
    small_option("broad", accuracy=0.8, dynamic_energy_j=6.0, latency_s=0.2, cpu_cores=4),
)


def test_exchange_rates_computed_by_hand() -> None:
    # beta 0.1 makes two cores worth more than any joule; gamma plays no part at batch 1
    found = exchanges_at(program_of(STAGES, beta=0.1, latency_sla_s=0.2))
    assert found.free is None
    rates = by_given(found)
    # 1 % of 0.8 is 0.008: "almost" is 0.005 less accurate and saves 1 J
    accuracy = rates["accuracy"]
    assert accuracy.amount == pytest.approx(0.008)
    assert accuracy.bought is not None
    assert accuracy.bought.label.startswith("almost")
    assert accuracy.bought.saved_j == pytest.approx(1.0)
    assert accuracy.bought.given_up == pytest.approx(0.005)
    assert accuracy.first == accuracy.bought
    assert accuracy.most is not None
    assert (accuracy.most.saved_j, accuracy.most.given_up) == pytest.approx((9.0, 0.4))
    # "slow" takes 40 ms more, beyond the SLA
    latency = rates["latency_s"].bought
    assert latency is not None
    assert (latency.saved_j, latency.given_up) == pytest.approx((3.0, 0.04))
    assert latency.latency_s == pytest.approx(0.24)
    # one core buys nothing, two buy 4 J
    cores = rates["cost_cores"]
    assert cores.bought is None
    assert cores.first is not None
    assert (cores.first.saved_j, cores.first.given_up) == pytest.approx((4.0, 2.0))


def test_what_costs_nothing_is_told_apart() -> None:
    stages = one_stage(
        small_option("first", batch=1, dynamic_energy_j=5.0),
        small_option("frugal", batch=2, dynamic_energy_j=3.0, latency_s=0.0),
        small_option("worse", batch=1, dynamic_energy_j=4.0, accuracy=0.499),
    )
    # gamma prefers the batch of 1; at 10 rps the batch of 2 waits 0.1 s, no later than "first"
    found = exchanges_at(program_of(stages, gamma=0.1))
    assert found.free is not None
    assert found.free.saved_j == pytest.approx(2.0)
    assert by_given(found)["accuracy"].bought is None


def test_nothing_to_give_up_where_there_is_one_plan() -> None:
    found = exchanges_at(program_of(one_stage(small_option("only"))))
    assert found.free is None
    for exchange in found.at_plan:
        assert exchange.bought is None
        assert exchange.first is None
        assert exchange.most is None
    assert [summary.with_saving for summary in found.along_front] == [0, 0, 0]
    assert all(value is None for value in (as_json(found)["along_front"][0]["median_j"],))


def losses(plan: Plan) -> dict[str, float]:
    return {
        "accuracy": -plan.accuracy_raw,
        "latency_s": plan.latency_s,
        "cost_cores": plan.cost_cores,
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_every_plan_there_is(seed: int) -> None:
    program, load_rps = random_small_program(seed)
    if not every_plan(program.at(load_rps)):
        return
    analysis = analyse_program(program, load_rps, draws=2)
    found, chosen = analysis.exchanges, analysis.plan
    assert found is not None
    sla_s = program.settings.latency_sla_s
    looser = dataclasses.replace(
        program.settings, latency_sla_s=None if sla_s is None else sla_s + LATENCY_S
    )
    plans = every_plan(Program(program.stages, looser, program.rules).at(load_rps))
    at = {
        "accuracy": -chosen.accuracy,
        "latency_s": chosen.latency_s,
        "cost_cores": chosen.cost_cores,
    }
    spent = chosen.joules_per_request

    def least(allowed: dict[str, float]) -> float:
        joules = [
            plan.joules_per_request
            for plan in plans
            if all(losses(plan)[name] <= at[name] + allowed.get(name, 0.0) + ROOM for name in at)
        ]
        return min([*joules, spent])

    floor = least({})
    assert (found.free.saved_j if found.free else 0.0) == pytest.approx(spent - floor, abs=ROOM)
    for exchange in found.at_plan:
        expected = least({exchange.given: exchange.amount})
        if exchange.bought is None:
            assert expected == pytest.approx(floor, abs=ROOM)
        else:
            assert exchange.bought.saved_j == pytest.approx(spent - expected, abs=ROOM)
        most = least({exchange.given: np.inf})
        if exchange.most is None:
            assert most == pytest.approx(floor, abs=ROOM)
        else:
            assert exchange.most.saved_j == pytest.approx(spent - most, abs=ROOM)
            assert exchange.first is not None
            assert least({exchange.given: exchange.first.given_up - 3 * ROOM}) >= floor - ROOM
            assert least({exchange.given: exchange.first.given_up}) < floor


def test_along_the_front_each_point_is_a_reference() -> None:
    found = exchanges_at(program_of(STAGES, beta=0.1, latency_sla_s=0.2))
    along = {summary.given: summary for summary in found.along_front}
    # inside the SLA: large, almost, small, broad. From "large" and "broad" 1 % buys something:
    # "almost" (1 J) and nothing ("almost" needs 9 J); "slow" is a looser SLA's.
    assert along["accuracy"].points == 4
    assert along["accuracy"].with_saving == 1
    assert along["accuracy"].most_j == pytest.approx(1.0)
    assert along["latency_s"].with_saving == 2
    assert along["latency_s"].most_j == pytest.approx(3.0)
    assert along["latency_s"].median_j == pytest.approx(2.5)
    assert along["cost_cores"].with_saving == 0
