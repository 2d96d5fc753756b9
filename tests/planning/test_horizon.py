"""The best course: against every course of toy traces, and where the answer is known."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from option_maker import make_option

from ipa_energy.energy import replicas_needed
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import decide
from ipa_energy.planning.horizon import LATE, Prices, Start, best_course
from ipa_energy.planning.lateness import (
    PATIENCES,
    Loads,
    carrying_rps,
    dispersion_of,
    late_seconds,
    late_share,
)
from ipa_energy.records import Option, RequestClass, Stage
from ipa_energy.serving.deployment import StageState

STEP_S, LOAD_S, LOAD_J = 10.0, 4.0, 20.0


def option(variant: str, rate_rps: float, accuracy: float, joules: float, batch: int = 1) -> Option:
    return make_option(
        variant,
        batch,
        latency_s=batch / rate_rps,
        throughput_rps=rate_rps,
        accuracy=accuracy,
        dynamic_energy_j=joules,
        idle_power_w=0.5,
        ci95_j=0.0,
        load_s=LOAD_S,
        load_energy_j=LOAD_J,
    )


ONE = Stage(
    "one",
    "n1",
    (option("a", 4.0, 0.5, 1.0), option("b", 2.0, 0.8, 2.0), option("b", 3.0, 0.8, 1.5, 2)),
)
TWO = Stage("two", "n2", (option("c", 6.0, 0.7, 0.3), option("d", 3.0, 0.9, 0.9)), 1.5)


def program(*stages: Stage, **changes: object) -> Program:
    values: dict[str, object] = {
        "alpha": 10.0,
        "beta": 0.3,
        "gamma": 0.001,
        "energy_weight": 0.5,
        "latency_sla_s": 3.0,
        "scaling_cap": 10,
        "batching_cap": 8,
    }
    return Program(stages, Settings(**{**values, **changes}))  # type: ignore[arg-type]


def prices(switching: float = 1.0, lateness: float = 10.0) -> Prices:
    return Prices(
        interval_s=STEP_S,
        switching=switching,
        lateness=lateness,
        patience_s=0.5,
        reconfiguration_s=None,
    )


def moment(load_rps: float, spread: float = 1.0) -> Moment:
    return Moment(load_rps, load_rps, load_rps * spread)


def runs(*picked: tuple[Stage, int, int]) -> list[list[StageState]]:
    return [[StageState(stage.name, stage.options[at], ready=count)] for stage, at, count in picked]


Picked = tuple[Option, int]


def change(
    before: Picked,
    after: Picked,
    *,
    given: Settings,
    at: Moment,
    may_be: Loads | None,
    share: float,
    waiting: float,
    left_s: float,
) -> float:
    """What a change of one stage weighs, from the words of the module alone."""
    (old, n), (new, m) = before, after
    same = old.variant == new.variant
    starting = max(0, m - n) if same else m
    ready_s = LOAD_S if starting else 0.0
    joules = LOAD_J * starting + (0.0 if same else n * old.idle_power_w * ready_s)
    meanwhile = min(n, m) * new.throughput_rps if same else n * old.throughput_rps

    def late(load_rps: float, first_rps: float, for_s: float, queue: float) -> float:
        return late_seconds(
            load_rps * share,
            np.array([[first_rps]]),
            np.array([m * new.throughput_rps]),
            np.array([[for_s]]),
            waiting=queue * share,
            patience_s=0.5,
            most_s=left_s,
        ).item()

    if may_be is None:
        late_s = late(at.peak_rps, meanwhile, ready_s, waiting)
    else:
        late_s = sum(
            weight * max(0.0, late(load, meanwhile, ready_s, waiting) - late(load, 1.0, 0.0, 0.0))
            for load, weight in zip(may_be.rps, may_be.weights, strict=True)
        )
    overlap = 0.0 if same else given.beta * n * ready_s / STEP_S
    return given.energy_weight * joules / (at.mean_rps * STEP_S) + overlap + 10.0 * late_s / STEP_S


def best_by_hand(
    built: Program,
    moments: list[Moment],
    running: list[list[StageState]],
    waiting: float,
    loads: list[Loads],
) -> float:
    """The best worth of all courses, one after the other."""
    given = built.settings
    peaks = [each.peak_rps for each in moments]
    if loads:
        rps = {*loads[0].rps, *np.max([each.rps for each in loads], axis=0)}
        wanted = [
            one for each in rps for one in (float(each), carrying_rps(float(each), 0.5, LATE))
        ]
        peaks = [max(moments[0].mean_rps, one) for one in wanted]
    sides = []
    for stage, states in zip(built.stages, running, strict=True):
        there = (states[0].option, states[0].ready)
        counts = {
            (
                index,
                int(
                    replicas_needed(stage.requests_per_input * load, np.array([o.throughput_rps]))[
                        0
                    ]
                ),
            )
            for index, o in enumerate(stage.options)
            for load in [
                *peaks,
                *([moments[0].peak_rps + waiting / s for s in (10, 5)] if waiting else []),
            ]
        }
        counts |= {
            (index, there[1])
            for index, o in enumerate(stage.options)
            if o.variant == there[0].variant
        }
        sides.append([(stage.options[index], n) for index, n in counts])
    worths: dict[Any, float] = {}
    costs: dict[Any, float] = {}

    def worth_at(index: int, plan: tuple[Picked, ...]) -> float:
        key = (index, *((o.variant, o.batch, n) for o, n in plan))
        if key not in worths:
            worths[key] = worth(built, plan, moments[index], loads[index] if loads else None)
        return worths[key]

    def cost(index: int, stage: Stage, old: Picked, new: Picked) -> float:
        key = (index, stage.name, *((o.variant, o.batch, n) for o, n in (old, new)))
        if key not in costs:
            costs[key] = change(
                old,
                new,
                given=given,
                at=moments[index],
                may_be=loads[index] if loads else None,
                share=stage.requests_per_input,
                waiting=0.0 if index else waiting,
                left_s=STEP_S * (len(moments) - index),
            )
        return costs[key]

    best = -math.inf
    start = tuple((states[0].option, states[0].ready) for states in running)
    for course in itertools.product(list(itertools.product(*sides)), repeat=len(moments)):
        total, before = 0.0, start
        for index, plan in enumerate(course):
            total += worth_at(index, plan)
            if total == -math.inf:
                break
            for stage, old, new in zip(built.stages, before, plan, strict=True):
                total -= cost(index, stage, old, new)
            before = plan
        best = max(best, total)
    return best


def worth(
    built: Program, plan: tuple[Picked, ...], at: Moment, may_be: Loads | None = None
) -> float:
    given, total, latency_s = built.settings, 0.0, 0.0
    for stage, (o, _) in zip(built.stages, plan, strict=True):
        latency_s += o.latency_s + (o.batch - 1) / (stage.requests_per_input * at.mean_rps)
    sla_s = given.latency_sla_s
    patience_s = PATIENCES * (sla_s or 1.0)
    left_s = max(
        patience_s[0], max((x for x in patience_s if x <= (sla_s or 1.0) - latency_s), default=0.0)
    )
    late = 0.0
    for stage, (o, n) in zip(built.stages, plan, strict=True):
        share, rate_rps = stage.requests_per_input, n * o.throughput_rps
        if rate_rps * (1 + 1e-9) < share * (at.peak_rps if may_be is None else at.mean_rps):
            return -math.inf
        if may_be is not None:
            late += late_share(
                dataclasses.replace(may_be, rps=share * may_be.rps),
                np.array([rate_rps]),
                patience_s=left_s,
                step_s=STEP_S,
                in_time_first=True,
            ).item()
        joules = share * o.dynamic_energy_j + n * o.idle_power_w / at.mean_rps
        total += given.alpha * o.accuracy - given.beta * n - given.gamma * o.batch
        total -= given.energy_weight * joules
    total -= 10.0 * min(1.0, late)
    return total if sla_s is None or latency_s <= sla_s + 1e-9 else -math.inf


@pytest.mark.parametrize("seed", range(12))
def test_course_is_the_best_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    stages = (ONE,) if seed % 3 else (ONE, TWO)
    built = program(*stages, energy_weight=float(random.uniform(0, 2)))
    loads = random.uniform(0.5, 9, 3 if seed % 3 else 2)
    moments = [moment(float(load), float(random.uniform(1, 1.5))) for load in loads]
    running = runs(
        *((stage, int(random.integers(2)), int(random.integers(1, 4))) for stage in stages)
    )
    waiting = float(random.choice([0.0, 25.0]))
    spread = np.sort(random.uniform(1, 2, (len(moments), 2)), axis=1)
    weights = np.array([0.7, 0.2, 0.1])
    uncertain = [
        Loads(at.mean_rps * np.array([1.0, *beyond]), weights, dispersion=1.3)
        for at, beyond in zip(moments, spread, strict=True)
    ]
    price = dataclasses.replace(prices(), in_time_first=True)
    for met in ([], uncertain):
        found = best_course(built, moments, Start(running, waiting), price, loads=met)
        assert found is not None
        best = best_by_hand(built, moments, running, waiting, met)
        assert found.value == pytest.approx(best, rel=1e-9)


def test_the_class_that_a_plan_leaves_least_is_the_one_that_is_late() -> None:
    """An SLA is as good as one of a class that all requests are of, whatever the pipeline's is."""
    moments, start = [moment(4.0, 1.5)] * 2, Start(runs((ONE, 0, 2)))
    loads = [Loads(np.array([4.0, 6.0, 9.0]), np.array([0.6, 0.3, 0.1]))] * 2

    def value(built: Program) -> float:
        price = dataclasses.replace(prices(), patience_s=1.5)
        found = best_course(built, moments, start, price, loads=loads)
        assert found is not None
        return found.value

    own = (RequestClass("all", 1.0, 1.0),)
    tight = value(program(ONE, latency_sla_s=1.0))
    assert value(program(ONE, latency_sla_s=3.0, request_classes=own)) == pytest.approx(tight)
    assert value(program(ONE, latency_sla_s=3.0)) > tight


@pytest.mark.parametrize("capacity_rps", [4.0, 5.2, 6.0, 8.0])
def test_late_share_is_that_of_random_arrivals_in_a_queue_that_is_empty_at_first(
    capacity_rps: float,
) -> None:
    """5 a second for 10 s, served steadily; a Brownian motion has no jumps, so only about."""
    random = np.random.default_rng(2)
    dt, runs_ = 0.05, 4000
    arrive = random.poisson(5.0 * dt, (int(STEP_S / dt), runs_))
    queue, late = np.zeros(runs_), 0.0
    for came in arrive:
        late += float((came * (queue > capacity_rps)).sum())
        queue = np.maximum(0.0, queue + came - capacity_rps * dt)
    loads = Loads(np.array([5.0]), np.array([1.0]))
    found = late_share(loads, np.array([capacity_rps]), patience_s=1.0, step_s=STEP_S).item()
    assert found == pytest.approx(late / arrive.sum(), rel=0.2, abs=0.01)


@pytest.mark.parametrize("load_rps", [5.0, 20.0])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 0.999999, 1.0, 1.1, 1.5])
def test_late_share_of_who_is_passed_is_that_of_a_queue_that_turns_away(
    load_rps: float, ratio: float
) -> None:
    """The same, but nobody enters who would wait longer than a second: 10 s, and a minute."""
    random = np.random.default_rng(4)
    dt, runs_, capacity_rps = 0.05, 1500, load_rps * ratio
    arrive = random.poisson(load_rps * dt, (int(60 / dt), runs_))
    queue, late = np.zeros(runs_), np.zeros(len(arrive))
    for step, came in enumerate(arrive):
        enters = np.minimum(came, np.maximum(0.0, np.ceil(capacity_rps - queue)))
        late[step] = float((came - enters).sum())
        queue = np.maximum(0.0, queue + enters - capacity_rps * dt)
    for length_s in (STEP_S, 60.0):
        end = int(length_s / dt)
        found = late_share(
            Loads(np.array([load_rps]), np.array([1.0])),
            np.array([capacity_rps]),
            patience_s=1.0,
            step_s=length_s,
            in_time_first=True,
        ).item()
        assert found == pytest.approx(late[:end].sum() / arrive[:end].sum(), rel=0.25, abs=0.006)


@pytest.mark.parametrize("in_time_first", [False, True])
@pytest.mark.parametrize("patience_s", [0.05, 1.0, 20.0])
def test_late_share_has_no_overflow_and_falls_with_the_capacity(
    patience_s: float,
    in_time_first: bool,
) -> None:
    loads = Loads(np.array([1e-3, 1.0, 50.0, 5e4]), np.array([0.4, 0.3, 0.2, 0.1]))
    found = late_share(
        loads,
        np.geomspace(1e-4, 1e6, 2000),
        patience_s=patience_s,
        step_s=60.0,
        in_time_first=in_time_first,
    )
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(1.0, abs=0.1)
    assert found[-1] == pytest.approx(0.0, abs=1e-9)
    assert (np.diff(found) <= 1e-3).all()


@pytest.mark.parametrize("load_rps", [5.0, 28.0])
def test_random_arrivals_seldom_wait_longer_than_they_have_patience(load_rps: float) -> None:
    """One server of steady services, by Lindley's recursion."""
    random = np.random.default_rng(3)
    service_s = 1 / carrying_rps(load_rps, 1.0, LATE)
    gaps_s = random.exponential(1 / load_rps, 200_000)
    walk = np.cumsum(np.concatenate([[0.0], service_s - gaps_s]))
    waits_s = walk - np.minimum.accumulate(walk)
    assert 0.005 < (waits_s > 1.0).mean() < 1.6 * LATE


def test_what_hardly_ever_comes_is_not_started_for_and_what_often_comes_is() -> None:
    """What serves 4 a second well serves nearly nothing of 12 a second in time."""
    built = program(ONE, beta=0.5, energy_weight=0.01)
    moments, start = [moment(4.0)] * 2, Start(runs((ONE, 1, 3)))
    capacities_rps = []
    for weight in (1e-4, 0.02, 0.3):
        loads = [Loads(np.array([4.0, 12.0]), np.array([1 - weight, weight]))] * 2
        found = best_course(built, moments, start, prices(lateness=40.0), loads=loads)
        assert found is not None
        stage = found.plans[0].stages[0]
        capacities_rps.append(stage.replicas * stage.option.throughput_rps)
    assert capacities_rps[0] < 12.0 <= capacities_rps[2]
    assert capacities_rps == sorted(capacities_rps)


@pytest.mark.parametrize("in_time_first", [False, True])
def test_late_share_by_patience_is_that_of_each_patience(in_time_first: bool) -> None:
    loads = Loads(np.array([3.0, 5.0, 9.0]), np.array([0.5, 0.3, 0.2]), dispersion=0.7)
    capacity_rps, all_s = np.linspace(1, 12, 23), np.array([0.1, 0.7, 2.0])
    together, *alone = (
        late_share(loads, capacity_rps, patience_s=each, step_s=STEP_S, in_time_first=in_time_first)
        for each in (all_s, *all_s.tolist())
    )
    assert together == pytest.approx(np.array(alone))
    assert (np.diff(together, axis=0) <= 1e-9).all()


def test_dispersion_is_that_of_the_arrivals_and_not_of_a_trend() -> None:
    random = np.random.default_rng(0)
    assert dispersion_of(random.poisson(9.0, 5000)) == pytest.approx(1.0, abs=0.35)
    rising = np.arange(100) + random.poisson(40.0, 100) * 3
    assert dispersion_of(rising) == pytest.approx(9 * 40 / rising.mean(), rel=0.35)
    assert dispersion_of(np.full(100, 7)) == 0.5
    assert dispersion_of(np.array([5, 9] * 9)) == 1.0  # too few
    assert dispersion_of(np.zeros(100, dtype=np.int64)) == 1.0
    assert dispersion_of(np.array([0, 50] * 60)) == 4.0


@pytest.mark.slow
def test_late_seconds_are_those_of_a_queue_step_by_step() -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        load, first, then, ready_s, waiting, patience_s = random.uniform(0.2, 8, 6)
        waiting = random.choice([0.0, waiting])
        found = late_seconds(
            load, np.array([[first]]), np.array([then]), np.array([[ready_s]]),
            waiting=waiting, patience_s=patience_s, most_s=30.0,
        ).item()  # fmt: skip
        queue, late, dt = waiting, 0.0, 1e-3
        for time_s in np.arange(0, 30, dt):
            served = first if time_s < ready_s else then
            late += dt * (queue > served * patience_s)
            queue = max(0.0, queue + (load - served) * dt)
        assert found == pytest.approx(late, abs=0.02)


@pytest.mark.parametrize("load_rps", [0.7, 3.0, 6.5])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_without_a_price_plans_are_those_of_each_load_alone(load_rps: float, weight: float) -> None:
    built = program(ONE, TWO, energy_weight=weight)
    moments = [moment(load_rps, 1.3), moment(8.0), moment(1.0)]
    found = best_course(built, moments, Start(runs((ONE, 1, 3), (TWO, 1, 2))), prices(0.0))
    assert found is not None
    alone = [decide(built, each).best for each in moments]
    assert [plan.label for plan in found.plans] == [plan.label for plan in alone]


def test_at_an_infinite_price_the_best_static_plan_replaces_what_cannot_go_on() -> None:
    built = program(ONE, TWO)
    moments = [moment(load) for load in (2.0, 7.0, 1.0, 4.0)]
    found = best_course(built, moments, Start(runs((ONE, 1, 1), (TWO, 1, 1))), prices(math.inf))
    assert found is not None
    assert len({plan.label for plan in found.plans}) == 1
    best = max(
        sum(worth(built, plan, at) for at in moments)
        for plan in itertools.product(
            *([(o, n) for o in stage.options for n in range(1, 6)] for stage in (ONE, TWO))
        )
    )
    assert found.value == pytest.approx(best, rel=1e-9)
    stays = best_course(built, moments, Start(runs((ONE, 0, 4), (TWO, 0, 9))), prices(math.inf))
    assert stays is not None
    assert {plan.label.split(" x")[-1] for plan in stays.plans} == {"9"}


def test_a_load_that_jumps_for_one_interval_does_not_restart_everything() -> None:
    """Alone, each load has a variant of its own; a jump of one step is not worth the way."""
    built = program(ONE, alpha=2.0, beta=0.5)
    quiet, jump = moment(2.0), moment(8.0)
    variants = [decide(built, each).best.stages[0].option.variant for each in (quiet, jump)]
    assert variants == ["b", "a"]
    moments = [quiet, quiet, jump, quiet, quiet]
    found = best_course(built, moments, Start(runs((ONE, 1, 1))), prices(lateness=1.0))
    assert found is not None
    assert {plan.stages[0].option.variant for plan in found.plans} == {"b"}
    free = best_course(built, moments, Start(runs((ONE, 1, 1))), prices(0.0))
    assert free is not None
    assert {plan.stages[0].option.variant for plan in free.plans} == {"a", "b"}


def test_a_load_that_is_seen_coming_is_met_before_it_comes_and_lulls_are_sat_out() -> None:
    built = program(ONE, beta=0.05, energy_weight=0.01)
    start = Start(runs((ONE, 1, 1)))
    found = best_course(
        built, [moment(2.0), moment(8.0), moment(2.0), moment(8.0)], start, prices()
    )
    assert found is not None
    capacities = [plan.stages[0].capacity_rps for plan in found.plans]
    assert min(capacities) >= 8.0  # from the step before the rise on, and through the lull
    late = best_course(
        built, [moment(2.0), moment(8.0), moment(2.0), moment(8.0)], start, prices(lateness=0.0)
    )
    assert late is not None
    assert late.plans[0].stages[0].capacity_rps < 8.0


def test_a_backlog_is_worked_off_by_more_replicas_than_the_load_needs() -> None:
    built = program(ONE, beta=0.05)
    start = runs((ONE, 0, 1))
    with_queue = best_course(built, [moment(3.0)] * 3, Start(start, 60.0), prices())
    without = best_course(built, [moment(3.0)] * 3, Start(start), prices())
    assert with_queue is not None and without is not None
    more, usual = (each.plans[0].stages[0].capacity_rps for each in (with_queue, without))
    assert more >= 9.0 > usual >= 3.0
    assert with_queue.late_s > without.late_s


def test_replicas_that_start_already_are_not_paid_for_again() -> None:
    built = program(ONE, alpha=0.5)
    old, new = ONE.options[1], ONE.options[0]
    start = [[StageState("one", old, ready=1), StageState("one", new, starting=3)]]
    moments = [moment(8.0)] * 2
    found = best_course(built, moments, Start(start), prices())
    assert found is not None
    assert found.plans[0].stages[0].option.variant == "a"
    assert found.loading_j == 0.0
    anew = best_course(built, moments, Start([start[0][:1]]), prices())
    assert anew is not None
    assert anew.loading_j >= LOAD_J
    assert anew.value < found.value


def test_replicas_that_start_serve_after_what_is_left_of_their_start() -> None:
    """Load 8, of which 2 are served until three replicas of 4 each have started."""
    built = program(ONE, alpha=0.5)
    old, new = ONE.options[1], ONE.options[0]

    def late_s(*starting_for_s: float) -> float:
        begun = StageState("one", new, starting=3, starting_for_s=starting_for_s)
        start = Start([[StageState("one", old, ready=1), begun]])
        found = best_course(built, [moment(8.0)] * 2, start, prices(lateness=1.0))
        assert found is not None
        (stage,) = found.plans[0].stages
        assert stage.option.variant == "a"
        return found.late_s

    assert late_s(3.0, 3.0, 3.0) == pytest.approx(5 / 6)  # a queue of 1 after 1/6 s, done at 1 s
    assert late_s() == pytest.approx(25 / 6 + 25 / 6)  # 24 wait after 4 s, 6 of them after 4.5 more
    assert late_s(4.0, 4.0, 4.0) == late_s(9.0, 9.0, 9.0) == 0.0  # slow ones are about to serve


def test_a_replica_that_starts_beside_others_of_its_kind_does_not_serve_yet() -> None:
    built = program(ONE, alpha=0.5, scaling_cap=3)
    own = ONE.options[0]
    late_s = []
    for starting_for_s in ((), (2.0,), (4.0,)):
        state = StageState("one", own, ready=2, starting=1, starting_for_s=starting_for_s)
        found = best_course(built, [moment(11.0)], Start([[state]]), prices(lateness=1.0))
        assert found is not None and found.loading_j == 0.0
        late_s.append(found.late_s)
    # 3 a second more than 8 arrive: late from a queue of 4 on until one of 6 is left, at 12.
    assert late_s == pytest.approx([4 - 4 / 3 + 6.0, 2 - 4 / 3, 0.0])


def test_no_course_where_nothing_carries_the_load() -> None:
    built = program(ONE, scaling_cap=2)
    assert best_course(built, [moment(20.0)], Start(runs((ONE, 0, 1))), prices()) is None
    cut = best_course(built, [moment(2.0), moment(20.0)], Start(runs((ONE, 0, 1))), prices())
    assert cut is not None and len(cut.plans) == 1
