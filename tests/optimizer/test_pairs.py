"""Widenings without mixes, each and every pair of them: equal to plain enumeration.

The referee tries every option on every number of replicas and reckons with the formulas of the
pipeline's documentation; it shares nothing with tables, bounds or labels of the solvers. Mixes have
theirs in :mod:`test_mixing` and :mod:`test_mixed_pools`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from mixed_instances import is_close, mixed_problem
from option_maker import make_option
from seeds import seeds

from ipa_energy.gpu_partitions import GpuPool, Partition
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.quantities import LATENCY_SLA, Moment
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import solve
from ipa_energy.planning.stages import mixture
from ipa_energy.records import Allocation, Option, RequestClass, Stage

WIDENINGS = ("classes", "floor", "capacity", "knobs", "partitions", "sla steps")
PAIRS = [*itertools.combinations(WIDENINGS, 1), *itertools.combinations(WIDENINGS, 2)]
METHODS = ("pareto", "highs", "gurobi", "auto")
PARTS = (Partition.of({"a": 3}), Partition.of({"a": 1, "b": 1}), Partition.of({"b": 2}))
MOST = 4

Pick = tuple[Stage, Option, int]


def random_options(
    rng: np.random.Generator, variant: str, widenings: Sequence[str]
) -> list[Option]:
    """A variant: with knobs at three clocks, caps or precisions, with classes by class."""
    accuracy, batch = float(rng.uniform(0.3, 0.95)), int(rng.choice([1, 1, 2]))
    cores, boards = float(rng.integers(1, 3)), {"board": 1.0} if rng.random() < 0.5 else {}
    knobs = [
        {"clock_mhz": 900.0},
        {"clock_mhz": 1400.0, "power_cap_w": 200.0},
        {"precision": "int8"},
    ]
    found = []
    for labels in knobs if "knobs" in widenings else [{}]:
        latency_s = float(rng.uniform(0.05, 0.5)) * batch
        own = make_option(
            variant,
            batch,
            latency_s=latency_s,
            throughput_rps=batch / latency_s,
            accuracy=accuracy - (0.05 if "precision" in labels else 0.0),
            dynamic_energy_j=float(rng.uniform(0.2, 5)),
            idle_power_w=float(rng.choice([0.1, 1, 6])),
        )
        held = {"resources": boards, **labels}
        if "partitions" in widenings:
            held = {"hardware": "cut", "resources": {str(rng.choice(["a", "b"])): 1.0}, **labels}
        own = dataclasses.replace(own, allocation=Allocation.of(cores, **held))  # type: ignore[arg-type]
        found.append(by_class(rng, own) if "classes" in widenings else own)
    return found


CLASSES = (RequestClass("easy", 0.7), RequestClass("hard", 0.3, 1.2))


def by_class(rng: np.random.Generator, option: Option) -> Option:
    """Figures by class; some options do not serve one of them."""
    served = [each.name for each in CLASSES if rng.random() < 0.9] or ["easy"]
    figures = {
        name: dataclasses.replace(
            option,
            latency_s=option.latency_s * float(rng.uniform(0.5, 1.5)),
            throughput_rps=option.throughput_rps * float(rng.uniform(0.6, 1.4)),
            dynamic_energy_j=option.dynamic_energy_j * float(rng.uniform(0.3, 2)),
            accuracy=float(rng.uniform(0.2, 1)),
        )
        for name in served
    }
    return mixture(figures, CLASSES)


def random_problem(seed: int, widenings: Sequence[str]) -> Problem:
    """One or two stages; limits lie where they often bind, and sometimes exclude each other."""
    rng = np.random.default_rng([seed, *(WIDENINGS.index(name) for name in widenings)])
    stages = []
    for number in range(int(rng.integers(1, 3))):
        options = [
            option
            for variant in range(int(rng.integers(1, 4)))
            for option in random_options(rng, f"s{number}v{variant}", widenings)
        ]
        share = float(rng.choice([1.0, 1.0, 0.5]))
        stages.append(Stage(f"s{number}", f"n{number}", tuple(options), share))
    method = ("sum", "average", "multiply")[seed % 3]
    floor = None
    if "floor" in widenings:
        each = float(rng.uniform(0.35, 0.9))
        floor = {"sum": each * len(stages), "average": each, "multiply": each ** len(stages)}[
            method
        ]
    settings = Settings(
        alpha=float(rng.choice([0, 5, 20])),
        beta=float(rng.choice([0, 0.2, 1])),
        gamma=float(rng.choice([0, 0.1])),
        energy_weight=float(rng.choice([0, 0.1, 1])),
        accuracy_method=method,  # type: ignore[arg-type]
        latency_sla_s=float(rng.uniform(0.3, 2.5)) if rng.random() < 0.7 else None,
        accuracy_floor=floor,
        request_classes=CLASSES if "classes" in widenings else (),
        scaling_cap=MOST,
        batching_cap=2,
        prices={"board": 0.5},
        capacity={"board": float(rng.integers(0, 5)), "core": float(rng.integers(1, 12))}
        if "capacity" in widenings
        else {},
        gpus=(GpuPool("cut", int(rng.integers(1, 4)), PARTS),) if "partitions" in widenings else (),
    )
    if "sla steps" in widenings:  # a moment's SLA is in the place of the YAML's tightest
        settings = dataclasses.replace(settings, latency_sla_s=0.3)
    moment = Moment.at(float(rng.uniform(1, 10)))
    if "sla steps" in widenings:
        moment = moment.knowing({LATENCY_SLA: float(rng.uniform(0.3, 2.0))})
    return Program(stages, settings).at(moment)


def limit_s(problem: Problem, own: float | None) -> float:
    """The latency SLA of a class: its own, or that of the moment or the pipeline."""
    of_all = problem.moment.signals.get(LATENCY_SLA, problem.settings.latency_sla_s)
    return min(math.inf if limit is None else limit for limit in [of_all if own is None else own])


def keeps(problem: Problem, picks: Sequence[Pick]) -> bool:
    """Throughput, latency of every class, floor, capacities and cuts, one by one."""
    settings, load_rps = problem.settings, problem.load_rps
    for stage, option, n in picks:
        if n * option.throughput_rps < stage.requests_per_input * load_rps * (1 - 1e-12):
            return False
    for each in settings.request_classes or (RequestClass("", 1.0),):
        total_s = 0.0
        for stage, option, _ in picks:
            one = option.of_class(each.name) if settings.request_classes else option
            if one is None:
                return False
            total_s += one.latency_s + (option.batch - 1) / (stage.requests_per_input * load_rps)
        if total_s > limit_s(problem, each.latency_sla_s) * (1 + 1e-12):
            return False
    if settings.accuracy_floor is not None and accuracy(problem, picks) < settings.accuracy_floor:
        return False
    for resource, most in settings.capacity.items():
        if sum(n * option.allocation.units(resource) for _, option, n in picks) > most:
            return False
    held = Counter[str]()
    for _, option, n in picks:
        held.update({name: n for name in "ab" if option.allocation.units(name)})
    return all(
        any(
            all(sum(part.count(name) for part in cuts) >= held[name] for name in "ab")
            for cuts in itertools.combinations_with_replacement(pool.partitions, pool.gpus)
        )
        for pool in settings.gpus
    )


def accuracy(problem: Problem, picks: Sequence[Pick]) -> float:
    """Of the pipeline."""
    values = [option.accuracy for _, option, _ in picks]
    method = problem.settings.accuracy_method
    if method == "multiply":
        return math.prod(values)
    return sum(values) / (len(values) if method == "average" else 1)


def worth(problem: Problem, picks: Sequence[Pick]) -> float:
    """The objective."""
    settings, total = problem.settings, problem.settings.alpha * accuracy(problem, picks)
    for stage, option, n in picks:
        rps = stage.requests_per_input * problem.load_rps
        joules = option.dynamic_energy_j + n * option.idle_power_w / rps
        total -= settings.energy_weight * stage.requests_per_input * joules
        total -= settings.beta * n * option.cpu_cores + settings.gamma * option.batch
        total -= settings.prices["board"] * n * option.allocation.units("board")
    return total


def referee(problem: Problem) -> float | None:
    """The best objective of everything that keeps every limit; None if nothing does."""
    by_stage = [
        [(c.stage, option, n) for option in c.stage.options for n in range(1, MOST + 1)]
        for c in problem.stages
    ]
    kept = (picks for picks in itertools.product(*by_stage) if keeps(problem, picks))
    return max((worth(problem, picks) for picks in kept), default=None)


@pytest.mark.parametrize("widenings", PAIRS, ids="+".join)
def test_every_solver_equals_enumeration(widenings: tuple[str, ...]) -> None:
    feasible = excluded = 0
    for seed in seeds(24):
        problem = random_problem(seed, widenings)
        best = referee(problem)
        feasible, excluded = feasible + (best is not None), excluded + (best is None)
        for method in METHODS if "partitions" not in widenings else METHODS[1:]:
            result = solve(problem, method)
            assert bool(result.plans) == (best is not None), (seed, method, str(result.conflict))
            if best is None:
                assert result.conflict is not None
                assert result.conflict.constraints, (seed, method)
                continue
            plan = result.best
            assert plan.objective == pytest.approx(best, rel=1e-9, abs=1e-9), (seed, method)
            assert plan.certificate.holds, (seed, method)
    assert feasible > 5
    assert excluded > 0


MIXES = ((), ("classes",), ("queue",), ("floor",), ("capacity", "classes"))


@pytest.mark.parametrize("widenings", MIXES, ids="+".join)
def test_mixes_keep_the_sla_of_a_moment_as_that_of_a_yaml(widenings: tuple[str, ...]) -> None:
    feasible = 0
    for seed in seeds(10):
        problem = mixed_problem(seed, widenings)
        sla_s = problem.settings.latency_sla_s
        if sla_s is None:
            continue
        other = dataclasses.replace(problem.settings, latency_sla_s=sla_s * (0.9, 1.5)[seed % 2])
        stages = [candidates.stage for candidates in problem.stages]
        moment = problem.moment.knowing({LATENCY_SLA: sla_s})
        stepped = Program(stages, other, problem.rules).at(moment)
        told, found = (solve(each, "highs", limit_s=30) for each in (problem, stepped))
        assert bool(told.plans) == bool(found.plans), seed
        if told.plans:
            assert is_close(told.best.objective, found.best.objective), seed
            feasible += 1
    assert feasible
