"""GPUs that are cut into slices: which cuts there are, and plans that are the best under them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from instances import objective, random_program
from seeds import seeds

from ipa_energy.as_json import as_json
from ipa_energy.errors import ConfigError
from ipa_energy.gpu_partitions import KINDS, GpuPool, Partition, partitions_of
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.pools import cut, cuts_of
from ipa_energy.optimizer.problem import Problem, Program, within
from ipa_energy.optimizer.solve import solve
from ipa_energy.records import Allocation, Stage

INSTANCES = {"1g.": 7, "2g.": 3, "3g.": 2, "4g.": 1, "7g.": 1}
"""NVIDIA's "Number of Instances Available" of a GPU, by the beginning of a slice's name."""

CLOVER = [
    [7], [3, 4], [2, 1, 4], [1, 1, 1, 4], [3, 3], [2, 1, 3], [1, 1, 1, 3], [3, 2, 2], [3, 2, 1, 1],
    [3, 1, 1, 1, 1], [2, 2, 2, 1], [2, 2, 1, 1, 1], [2, 1, 1, 1, 1, 1], [1] * 7,
]  # fmt: skip
"""The partitions of an A100 that Clover publishes, order aside, which NVIDIA's guide draws."""


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_as_many_instances_as_nvidia_lists(kind: str) -> None:
    most = {name: max(p.count(f"mig-{name}") for p in partitions_of(kind)) for name in KINDS[kind]}
    by_size: dict[str, list[int]] = {}
    for name, count in most.items():
        by_size.setdefault(name[:3], []).append(count)
    single, double = by_size.pop("1g.")
    assert (single, double) == (7, 4)
    assert {size: counts[0] for size, counts in by_size.items()} == {
        size: count for size, count in INSTANCES.items() if size != "1g."
    }


def test_the_cuts_of_an_a100_without_double_memory_are_those_that_are_published() -> None:
    ours = {
        tuple(sorted(int(name[4]) for name, count in part.slices for _ in range(count)))
        for part in partitions_of("A100-40GB")
        if part.label != "whole" and not part.count("mig-1g.10gb")
    }
    theirs = [Counter(sizes) for sizes in CLOVER]
    fullest = {
        tuple(sorted(one.elements()))
        for one in theirs
        if not any(one != other and one <= other for other in theirs)
    }
    assert ours == fullest


def test_a_slice_begins_where_the_list_says() -> None:
    # 3g at place 0 leaves 4 to 7, where two 2g do not fit; at 4 it leaves 0 to 3, where they do.
    parts = partitions_of("H200-141GB")
    assert Partition.of({"mig-3g.71gb": 1, "mig-2g.35gb": 2}) in parts
    assert not any(part.count("mig-2g.35gb") == 2 and part.count("mig-4g.71gb") for part in parts)
    assert Partition.of({"gpu": 1}) in parts


def _sliced(seed: int) -> tuple[Problem, Problem, GpuPool]:
    """A random problem on a pool of slices, the same without the pool, and the pool."""
    program, load_rps = random_program(seed, stages=1 + seed % 3)
    rng = np.random.default_rng(seed + 10_000)
    parts = [
        Partition.of({"a": int(rng.integers(0, 5)), "b": int(rng.integers(0, 3)), "c": extra})
        for extra in (0, 1, int(rng.integers(0, 2)))
    ]
    pool = GpuPool("cut", 100, (Partition.of({"gpu": 1}), *parts))
    kinds = [name for name in pool.slices if any(part.count(name) for part in parts)] + ["gpu"]
    stages = []
    for stage in program.stages:
        options = []
        for option in stage.options:
            sliced = Allocation.of(
                option.cpu_cores, 0.0, "cut", resources={str(rng.choice(kinds)): 1.0}
            )
            allocation = sliced if rng.random() < 0.8 else option.allocation
            options.append(dataclasses.replace(option, allocation=allocation))
        stages.append(Stage(stage.name, stage.node_name, tuple(options), stage.requests_per_input))
    free = Program(stages, program.settings, program.rules).at(load_rps)
    pool = dataclasses.replace(pool, gpus=_about_enough(free, pool, rng))
    settings = dataclasses.replace(program.settings, gpus=(pool,))
    if rng.random() < 0.4 and not free.is_empty():  # together with the other widenings
        settings = dataclasses.replace(settings, accuracy_floor=float(rng.uniform(0.05, 0.6)))
    if rng.random() < 0.4:
        settings = dataclasses.replace(settings, capacity={"core": float(rng.integers(2, 40))})
    return Program(stages, settings, program.rules).at(load_rps), free, pool


def _about_enough(free: Problem, pool: GpuPool, rng: np.random.Generator) -> int:
    """About the GPUs that the best plan needs if nobody counts them."""
    plans = solve(free, "pareto").plans if not free.is_empty() else ()
    running = [(stage.option, stage.replicas) for plan in plans for stage in plan.stages]
    needed = cuts_of([pool], running)["cut"]
    enough = sum(needed.values()) if needed else 3
    return max(1, min(enough + int(rng.integers(-3, 2)), 9))


@functools.cache
def _made(pool: GpuPool) -> np.ndarray:
    """Slices of every multiset of partitions, one a row."""
    chosen = itertools.combinations_with_replacement(pool.partitions, pool.gpus)
    return np.array([[sum(p.count(n) for p in each) for n in pool.slices] for each in chosen])


def _hosted(pool: GpuPool, counts: dict[str, int]) -> bool:
    """True if some multiset of partitions has these slices."""
    needed = np.array([counts.get(name, 0) for name in pool.slices])
    return bool((_made(pool) >= needed).all(axis=1).any())


def _feasible(problem: Problem, pool: GpuPool) -> list[tuple[int, ...]]:
    columns = [(problem.columns(cap.quantity), cap.limit) for cap in problem.caps]
    found = []
    for choice in itertools.product(*(range(len(stage)) for stage in problem.stages)):
        if not all(
            within(sum(float(c[at]) for c, at in zip(column, choice, strict=True)), limit)
            for column, limit in columns
        ):
            continue
        counts: Counter[str] = Counter()
        for stage, at in zip(problem.stages, choice, strict=True):
            option = stage.option(at)
            for name, units in option.allocation.resources:
                if option.hardware == pool.name and name != "core":
                    counts[name] += int(stage.replicas[at]) * int(units)
        if _hosted(pool, counts):
            found.append(choice)
    return found


@functools.cache
def _best(seed: int) -> float | None:
    problem, _, pool = _sliced(seed)
    if problem.is_empty():
        return None
    choices = _feasible(problem, pool)
    return max((objective(problem, choice) for choice in choices), default=None)


@functools.cache
def _unbound(seed: int) -> float:
    """The best objective if nobody counts the GPUs."""
    plans = solve(_sliced(seed)[1], "pareto").plans
    return plans[0].objective if plans else -math.inf


@pytest.mark.parametrize("method", ["highs", "gurobi", "brute-force"])
def test_every_solver_finds_the_best_plan_that_the_gpus_can_be_cut_for(method: str) -> None:
    infeasible = bound = 0
    for seed in seeds(110):
        problem, free, pool = _sliced(seed)
        best = _best(seed)
        result = solve(problem, method)
        assert bool(result.plans) == (best is not None), seed
        infeasible += best is None and not free.is_empty()
        if best is not None:
            assert result.best.objective == pytest.approx(best, rel=1e-9, abs=1e-9), seed
            assert sum(result.best.cuts["cut"].values()) <= pool.gpus  # type: ignore[union-attr]
            bound += best < _unbound(seed) - 1e-9
    assert infeasible > 3
    assert bound > 5


def test_pareto_says_which_methods_can() -> None:
    problem, _, _ = _sliced(0)
    with pytest.raises(ConfigError, match="highs, gurobi"):
        solve(problem, "pareto")
    assert solve(problem, "auto").plans[0].objective == solve(problem, "highs").plans[0].objective


def test_too_few_gpus_are_a_conflict_with_the_number_that_is_enough() -> None:
    found = 0
    for seed in range(200):
        problem, free, pool = _sliced(seed)
        if problem.is_empty() or _feasible(problem, pool) or solve(free, "pareto").plans == ():
            continue
        larger = [dataclasses.replace(pool, gpus=pool.gpus + more) for more in range(1, 4)]
        helps = next((each for each in larger if _feasible(problem, each)), None)
        if helps is None:
            continue
        conflict = find_conflict(problem)
        assert "gpus:cut" in conflict.constraints, seed
        way = next(one for one in conflict.relaxations if one.constraint == "gpus:cut")
        assert (way.current, way.needed) == (pool.gpus, helps.gpus), seed
        assert json.dumps(as_json(conflict))
        found += 1
    assert found > 3


def test_as_many_gpus_as_possible_stay_cut_as_they_are() -> None:
    pool = GpuPool("A100-80GB", 4, partitions_of("A100-80GB"))
    half = Partition.of({"mig-3g.40gb": 2})
    small = Partition.of({"mig-1g.10gb": 7})
    # Two halves fit the GPU that is cut so already; the others are left alone.
    assert cut(pool, {"mig-3g.40gb": 2}, {half: 1, small: 3}) == {half: 1, small: 3}
    # Three do not: one of the three others is cut anew.
    three = cut(pool, {"mig-3g.40gb": 3}, {half: 1, small: 3})
    assert three is not None
    assert (three[half], three[small]) >= (1, 2)
    assert sum(three.values()) == 4
    assert cut(pool, {"mig-1g.10gb": 29}) is None


def test_a_part_of_a_slice_and_what_no_partition_has_are_refused() -> None:
    program, _ = random_program(1, stages=1)
    stage = program.stages[0]
    pool = GpuPool("A100-80GB", 1, partitions_of("A100-80GB"))
    settings = dataclasses.replace(program.settings, gpus=(pool,))
    for resources in ({"mig-5g.40gb": 1.0}, {"mig-1g.10gb": 0.5}, {"gpu": 0.5}):
        allocation = Allocation.of(1, 0.0, "A100-80GB", resources=resources)
        option = dataclasses.replace(stage.options[0], allocation=allocation)
        with pytest.raises(ConfigError, match="are not cut so"):
            Program([dataclasses.replace(stage, options=(option,))], settings)
