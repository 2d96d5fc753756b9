"""Several options of a stage on slices of GPUs: against brute force, and Clover's program."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from experiment_scripts import script
from option_maker import make_option
from scipy.optimize import linprog
from seeds import seeds

from ipa_energy.gpu_partitions import GpuPool, Partition, partitions_of
from ipa_energy.optimizer.mix_solving import what_mixing_does
from ipa_energy.optimizer.pools import cut
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import solve
from ipa_energy.records import Allocation, Option, Stage

PARTS = (Partition.of({"a": 3}), Partition.of({"a": 1, "b": 1}), Partition.of({"b": 2}))
LOAD_RPS = 10.0


def sliced(seed: int) -> tuple[Problem, GpuPool]:
    """One stage of two or three options on slices of one to three GPUs, sometimes with a floor."""
    rng = np.random.default_rng(seed)
    options = tuple(
        dataclasses.replace(
            make_option(
                f"v{number}",
                latency_s=float(rng.choice([0.1, 0.2, 0.4])),
                throughput_rps=float(rng.uniform(1.5, 9)),
                accuracy=float(rng.uniform(0.3, 0.95)),
                dynamic_energy_j=float(rng.uniform(0.5, 5)),
                idle_power_w=float(rng.uniform(0, 6)),
            ),
            allocation=Allocation.of(1, 0, "cut", resources={str(rng.choice(["a", "b"])): 1}),
        )
        for number in range(int(rng.integers(2, 4)))
    )
    pool = GpuPool("cut", int(rng.integers(1, 4)), PARTS)
    settings = Settings(
        alpha=float(rng.choice([0, 5, 20])),
        beta=float(rng.choice([0, 0.2])),
        gamma=0.0,
        energy_weight=float(rng.choice([0.2, 1.0])),
        latency_sla_s=float(rng.choice([0.2, 1.0])),
        accuracy_floor=float(rng.uniform(0.4, 0.8)) if seed % 4 == 0 else None,
        scaling_cap=9,
        batching_cap=1,
        mix=True,
        gpus=(pool,),
    )
    return Program([Stage("s", "n", options)], settings).at(LOAD_RPS), pool


def referee(problem: Problem, pool: GpuPool) -> float | None:
    """All replicas that the pool has slices for; shares by filling the best first, or by an LP."""
    settings, options = problem.settings, problem.stages[0].stage.options
    assert settings.latency_sla_s is not None
    best = None
    usable = [o for o in options if o.latency_s <= settings.latency_sla_s]
    for counts in itertools.product(range(10), repeat=len(usable)):
        if sum(counts) > settings.scaling_cap or not _fits(pool, usable, counts):
            continue
        room = np.array([n * o.throughput_rps / LOAD_RPS for n, o in zip(counts, usable)])  # noqa: B905
        if room.sum() < 1:
            continue
        worth = np.array(
            [
                settings.alpha * o.accuracy - settings.energy_weight * o.dynamic_energy_j
                for o in usable
            ]
        )
        fixed = sum(
            n * (settings.energy_weight * o.idle_power_w / LOAD_RPS + settings.beta)
            for n, o in zip(counts, usable)  # noqa: B905
        )
        gain = _shares(worth, room, np.array([o.accuracy for o in usable]), settings.accuracy_floor)
        if gain is not None:
            best = gain - fixed if best is None else max(best, gain - fixed)
    return best


def _fits(pool: GpuPool, options: list[Option], counts: tuple[int, ...]) -> bool:
    held = dict.fromkeys("ab", 0)
    for option, count in zip(options, counts, strict=True):
        held["a" if option.units("a") else "b"] += count
    return cut(pool, held) is not None


def _shares(worth, room, accuracy, floor):  # type: ignore[no-untyped-def]
    if floor is None:
        left, total = 1.0, 0.0
        for at in np.argsort(-worth):
            taken = min(left, room[at])
            left, total = left - taken, total + taken * worth[at]
        return total
    found = linprog(
        -worth,
        A_ub=[-accuracy],
        b_ub=[-floor],
        A_eq=[np.ones(len(worth))],
        b_eq=[1.0],
        bounds=[(0, most) for most in room],
    )
    return -found.fun if found.success else None


@pytest.mark.parametrize("floored", [False, True])
def test_mixes_on_a_pool_equal_brute_force(floored: bool) -> None:
    feasible = mixed = excluded = 0
    for seed in [each for each in seeds(160) if (each % 4 == 0) == floored]:
        problem, pool = sliced(seed)
        best = referee(problem, pool)
        result = solve(problem, "highs")
        assert bool(result.plans) == (best is not None), seed
        if best is None:
            excluded += 1
            continue
        assert math.isclose(result.best.objective, best, rel_tol=1e-7, abs_tol=1e-7), seed
        assert result.best.certificate.holds
        feasible += 1
        mixed += len(result.best.stages[0].parts) > 1
    assert feasible > 10
    assert mixed > 2
    assert excluded > 3


def test_clovers_program_is_ours_with_mix_and_a_pool() -> None:
    clover = script("clover/clover")
    case, sla_s = clover.Case(2), 0.06
    names = {1: "1g.10gb", 2: "2g.20gb", 3: "3g.40gb", 4: "4g.40gb", 7: "7g.80gb"}
    options = tuple(
        dataclasses.replace(
            make_option(
                variant,
                latency_s=each.service_s,
                throughput_rps=1 / each.service_s,
                accuracy=each.accuracy / 100,
                dynamic_energy_j=each.energy_j,
                idle_power_w=0.0,
            ),
            allocation=Allocation.of(0, 0, "A100-80GB", resources={f"mig-{names[size]}": 1}),
        )
        for (variant, size), each in case.figures.items()
    )
    settings = Settings(
        alpha=(1 - clover.LAMBDA) / case.figures[case.best].accuracy * 100,
        beta=0.0,
        gamma=0.0,
        energy_weight=clover.LAMBDA / case.base_j,
        latency_sla_s=sla_s,
        scaling_cap=14,
        batching_cap=1,
        mix=True,
        gpus=(GpuPool("A100-80GB", 2, partitions_of("A100-80GB")),),
    )
    ours = solve(Program([Stage("s", "n", options)], settings).at(case.load_rps), "highs").best
    theirs = clover.exact(case, sla_s, late=0.0, off=False)
    idle_j = 2 * clover.IDLE_W / case.load_rps
    worth = settings.alpha * theirs.accuracy / 100
    worth -= settings.energy_weight * (theirs.energy_j - idle_j)
    assert ours.objective == pytest.approx(worth, rel=1e-7)


def test_what_mixing_does_is_said_of_cut_gpus_too() -> None:
    said = set()
    for seed in range(12):
        problem, _ = sliced(seed)
        result = solve(problem, "highs")
        if result.plans:
            said.add(" ".join(what_mixing_does(problem, result.best).split()[:2]))
    assert len(said & {"mixing saves", "mixing makes", "no plan"}) > 0
    assert said & {"mixing cannot", "mixing does"}
