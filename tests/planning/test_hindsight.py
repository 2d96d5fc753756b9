"""The best course over a known load, against every course there is and against known answers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from option_maker import make_option
from seeds import seeds

from ipa_energy.arrays import Counts
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning.hindsight import (
    LACKING,
    OVER_CAP,
    Steps,
    Weights,
    best_course,
    course_of,
    plans_of,
    steps_of,
    viterbi,
)
from ipa_energy.planning.switching import switches
from ipa_energy.records import Option, Stage
from ipa_energy.serving.deployment import DeployedStage, Deployment


def option(variant: str, rate_rps: float, accuracy: float, joules: float, batch: int = 1) -> Option:
    return make_option(
        variant,
        batch,
        latency_s=batch / rate_rps,
        throughput_rps=rate_rps,
        accuracy=accuracy,
        dynamic_energy_j=joules,
        idle_power_w=0.5,
        load_s=3.0,
        load_energy_j=5.0,
    )


STAGES = (
    Stage("one", "n1", (option("a", 4.0, 0.5, 1.0), option("b", 2.0, 0.8, 2.0))),
    Stage("two", "n2", (option("c", 10.0, 0.7, 0.3), option("d", 5.0, 0.9, 0.9, batch=2))),
)
SETTINGS = Settings(
    alpha=10.0, beta=0.2, gamma=0.001, energy_weight=2.0, latency_sla_s=4.0,
    scaling_cap=10, batching_cap=8,
)  # fmt: skip
PROGRAM = Program(STAGES, SETTINGS)


def runs(*picks: tuple[int, int]) -> Deployment:
    pairs = zip(STAGES, picks, strict=True)
    return tuple(DeployedStage(stage.name, stage.options[i], n) for stage, (i, n) in pairs)


def weights_of(steps: Steps) -> Weights:
    seconds = float(steps.lengths_s.sum())
    joule = SETTINGS.energy_weight / float(steps.requests.sum())
    return Weights(np.full(len(steps.starts_s), joule), SETTINGS.beta / seconds, 1 / seconds)


@pytest.mark.parametrize("seed", seeds(10))
def test_viterbi_finds_what_trying_all_finds(seed: int) -> None:
    draw = np.random.default_rng(seed)
    gains = draw.normal(size=(5, 4))
    costs = draw.random((5, 4, 4))
    found = viterbi(gains, lambda step: costs[step], 1)

    def total(path: tuple[int, ...]) -> float:
        moves = sum(costs[k][path[k - 1], path[k]] for k in range(1, 5))
        return sum(gains[k][at] for k, at in enumerate(path)) - float(moves)

    best = max(((1, *rest) for rest in itertools.product(range(4), repeat=4)), key=total)
    assert tuple(found) == best


def by_hand(plans: list[Deployment], path: tuple[int, ...], counts: Counts, told_s: float) -> float:
    """The objective of a course from its definition, second by second where a stage changes."""
    seconds, requests, value = len(counts), counts.sum(), 0.0
    for k, at in enumerate(path):
        plan, mine = plans[at], counts[10 * k : 10 * k + 10]
        before = plans[path[k - 1]] if k else plan
        accuracy = sum(run.option.accuracy for run in plan)
        value += len(mine) / seconds * (10 * accuracy - 0.001 * sum(r.option.batch for r in plan))
        joules = core_s = 0.0
        carried_early, carried_late = math.inf, math.inf
        for old, new in zip(before, plan, strict=True):
            same = old.option.variant == new.option.variant
            starting = max(0, new.replicas - old.replicas) if same else new.replicas
            joules += 5.0 * starting + len(mine) * new.replicas * 0.5
            core_s += len(mine) * new.replicas
            early = mine[: int(told_s)]
            late = mine[int(told_s) :]
            if same:
                joules += mine.sum() * new.option.dynamic_energy_j
                rate = min(old.replicas, new.replicas) * new.option.throughput_rps
            else:
                joules += early.sum() * old.option.dynamic_energy_j
                joules += late.sum() * new.option.dynamic_energy_j
                joules += told_s * old.replicas * 0.5
                core_s += told_s * old.replicas
                rate = old.replicas * old.option.throughput_rps
            carried_early = min(carried_early, rate)
            carried_late = min(carried_late, new.replicas * new.option.throughput_rps)
        value -= 2.0 * joules / requests + 0.2 * core_s / seconds
        both = ((early, carried_early), (late, carried_late))
        for part, rate in both if k else both[1:]:
            busiest = max(np.convolve(part, [0.5, 0.5], "valid"))
            value -= LACKING * max(0.0, busiest - rate)
        delay_s = sum(
            run.option.latency_s + (run.option.batch - 1) / max(mine.mean(), 0.1) for run in plan
        )
        value -= LACKING * max(0.0, delay_s - 4.0)
    return value


@pytest.mark.parametrize("seed", seeds(6))
def test_the_best_course_is_the_best_of_all_courses(seed: int) -> None:
    draw = np.random.default_rng(seed)
    counts = draw.poisson(draw.uniform(1, 12, 4).repeat(10))
    plans = [
        runs(*((int(draw.integers(2)), int(draw.integers(1, 5))) for _ in STAGES)) for _ in range(5)
    ]
    steps = steps_of(counts, 10, 4.0, 2.0)
    found = best_course(
        steps,
        plans_of(PROGRAM, plans),
        weights_of(steps),
        switches(STAGES, plans, plans, reconfiguration_s=4.0),
        first=0,
        margin=1.0,
        latency_sla_s=SETTINGS.latency_sla_s,
    )
    paths = [(0, *rest) for rest in itertools.product(range(5), repeat=3)]
    worths = [by_hand(plans, path, counts, 4.0) for path in paths]
    mine = by_hand(plans, tuple(found), counts, 4.0)
    assert mine == pytest.approx(max(worths), rel=1e-9)


@pytest.mark.parametrize("seed", seeds(6))
def test_the_best_course_keeps_a_cap_on_joules_in_as_many_steps_as_any(seed: int) -> None:
    """Changes counted; where the plans carry the load, fewest steps beyond the cap, then worth."""
    draw = np.random.default_rng(100 + seed)
    counts = draw.poisson(draw.uniform(0.1, 3, 4).repeat(10))
    plans = [
        runs(*((int(draw.integers(2)), int(draw.integers(3, 6))) for _ in STAGES)) for _ in range(5)
    ]
    most_j = float(draw.uniform(3, 8))
    steps = steps_of(counts, 10, 4.0, 2.0)
    changes = switches(STAGES, plans, plans, reconfiguration_s=4.0)
    found = best_course(
        steps,
        plans_of(PROGRAM, plans),
        replace(weights_of(steps), most_j=np.full(4, most_j)),
        changes,
        first=0,
        margin=1.0,
        latency_sla_s=SETTINGS.latency_sla_s,
    )

    def broken(path: tuple[int, ...]) -> int:
        over = 0
        for k, at in enumerate(path[1:], 1):
            mine, before = counts[10 * k : 10 * k + 10], path[k - 1]
            early = mine[:4].sum() * changes.meanwhile_j[before, at]
            own_j = sum(run.option.dynamic_energy_j for run in plans[at])
            late = mine[4:].sum() * own_j
            idle = 10 * sum(0.5 * run.replicas for run in plans[at])
            moved = changes.load_j[before, at] + changes.held_j[before, at]
            over += early + late + idle + moved > most_j * max(1, mine.sum())
        return over

    def worth(path: tuple[int, ...]) -> float:
        return by_hand(plans, path, counts, 4.0) - LACKING * OVER_CAP * broken(path)

    best = max(worth((0, *rest)) for rest in itertools.product(range(5), repeat=3))
    assert worth(tuple(found)) == pytest.approx(best, rel=1e-9)


def test_a_steady_load_is_served_by_one_plan() -> None:
    found = course_of(
        PROGRAM, np.full(100, 6), weights_of, runs((0, 1), (0, 1)),
        interval_s=10, reconfiguration_s=4.0,
    )  # fmt: skip
    assert [second for second, _ in found] == [0, 10]


def test_replicas_are_started_before_a_rise_and_kept_through_a_short_lull() -> None:
    counts = np.repeat([2, 2, 2, 12, 12, 2, 12, 12, 12], 10)
    found = dict(
        course_of(
            PROGRAM, counts, weights_of, runs((0, 3), (0, 2)), interval_s=10, reconfiguration_s=4.0
        )
    )

    def capacity_rps(second: int) -> float:
        plan = found[max(begin for begin in found if begin <= second)]
        return min(run.replicas * run.option.throughput_rps for run in plan)

    assert capacity_rps(20) >= 12, "asked for at 20 s, ready before the rise at 30 s"
    assert capacity_rps(50) >= 12, "ready again at 60 s"
