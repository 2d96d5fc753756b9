"""``accuracy_floor`` without mixes: a hard floor of the accuracy as profiled, in every solver."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
from instances import objective, random_program

from ipa_energy.optimizer import exhaustive
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import (
    Problem,
    Program,
    combine_accuracy,
    within,
)
from ipa_energy.optimizer.solve import solve

SEEDS = range(150)


def raw_accuracy(problem: Problem, choice: tuple[int, ...]) -> float:
    """What the floor is about, straight from the profile."""
    picked = zip(problem.stages, choice, strict=True)
    found = [candidates.option(at).accuracy for candidates, at in picked]
    return combine_accuracy(found, problem.settings.accuracy_method)


@functools.cache
def floored(seed: int) -> tuple[Problem, Problem, float]:
    """A random problem with a floor, without it, and the floor; at times on a plan's accuracy."""
    program, load_rps = random_program(seed, stages=1 + seed % 3)
    rng = np.random.default_rng(seed)
    free = program.at(load_rps)
    floor = 0.4
    if not free.is_empty():
        choice = tuple(int(rng.integers(len(candidates))) for candidates in free.stages)
        floor = max(0.01, raw_accuracy(free, choice) + float(rng.choice([0.0, 0.0, 0.1, -0.05])))
    settings = dataclasses.replace(program.settings, accuracy_floor=floor)
    return Program(program.stages, settings, program.rules).at(load_rps), free, floor


@functools.cache
def kept(seed: int, floor: float) -> list[tuple[int, ...]]:
    """Choices within every cap and at the floor or above, by plain enumeration."""
    free = floored(seed)[1]
    if free.is_empty():
        return []
    columns = [(free.columns(cap.quantity), cap.limit) for cap in free.caps]
    sizes = (range(len(candidates)) for candidates in free.stages)
    return [
        choice
        for choice in itertools.product(*sizes)
        if all(
            within(sum(float(c[at]) for c, at in zip(column, choice, strict=True)), limit)
            for column, limit in columns
        )
        and raw_accuracy(free, choice) >= floor - 1e-12
    ]


@pytest.mark.parametrize("method", ["pareto", "highs", "gurobi", "auto", "brute-force"])
def test_every_solver_finds_the_best_plan_at_the_floor_or_above(method: str) -> None:
    infeasible = bound = 0
    for seed in SEEDS if method != "auto" else SEEDS[:80]:
        problem, free, floor = floored(seed)
        choices = kept(seed, floor)
        result = solve(problem, method)
        assert bool(choices) == bool(result.plans), seed
        infeasible += not choices
        if choices:
            best = max(objective(free, choice) for choice in choices)
            assert result.best.objective == pytest.approx(best, rel=1e-9, abs=1e-9), seed
            assert result.best.accuracy_raw >= floor - 1e-12
            bound += best < max(objective(free, one) for one in exhaustive.solve(free)) - 1e-9
            assert check(result.best).limit == pytest.approx(floor)
    assert infeasible > 3
    assert bound > 3


def check(plan: Plan):  # type: ignore[no-untyped-def]
    return next(each for each in plan.certificate.checks if each.constraint == "accuracy_floor")


def test_a_floor_out_of_reach_is_told_with_the_highest_that_is_not() -> None:
    found = 0
    for seed in SEEDS:
        problem, free, floor = floored(seed)
        if kept(seed, floor) or not kept(seed, -math.inf):
            continue
        conflict = find_conflict(problem)
        assert "accuracy_floor" in conflict.constraints
        way = next(one for one in conflict.relaxations if one.constraint == "accuracy_floor")
        reachable = max(raw_accuracy(free, choice) for choice in kept(seed, -math.inf))
        assert way.current == pytest.approx(floor)
        assert way.needed == pytest.approx(reachable)
        assert "an accuracy floor of at most" in way.text
        found += 1
    assert found > 5
