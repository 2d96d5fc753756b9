"""Several pipelines on one pool: the best of all pairs of plans that fit side by side."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from instances import objective, random_program
from seeds import seeds

from ipa_energy.errors import ConfigError, InfeasibleError
from ipa_energy.gpu_partitions import GpuPool, Partition
from ipa_energy.optimizer.pools import cuts_of
from ipa_energy.optimizer.problem import Problem, Program, within
from ipa_energy.optimizer.together import plan_together
from ipa_energy.records import Allocation, Stage

PARTS = (Partition.of({"a": 4}), Partition.of({"a": 1, "b": 1}), Partition.of({"b": 2}))


def pipeline(seed: int, stages: int) -> Problem:
    """A small random pipeline on slices."""
    program, load_rps = random_program(seed, stages=stages, variants=2)
    rng = np.random.default_rng(seed)
    cut = [
        Stage(
            stage.name,
            stage.node_name,
            tuple(
                dataclasses.replace(
                    option,
                    allocation=Allocation.of(
                        option.cpu_cores, 0, "cut", resources={str(rng.choice(["a", "b"])): 1}
                    ),
                )
                for option in stage.options[:5]
            ),
            stage.requests_per_input,
        )
        for stage in program.stages
    ]
    method = "average" if seed % 2 else "sum"
    settings = dataclasses.replace(program.settings, accuracy_method=method)
    return Program(cut, settings, program.rules).at(load_rps)


def feasible(problem: Problem) -> list[tuple[int, ...]]:
    columns = [(problem.columns(cap.quantity), cap.limit) for cap in problem.caps]
    return [
        choice
        for choice in itertools.product(*(range(len(stage)) for stage in problem.stages))
        if all(
            within(sum(float(c[at]) for c, at in zip(column, choice, strict=True)), limit)
            for column, limit in columns
        )
    ]


def running(problem: Problem, choice: tuple[int, ...]) -> list:
    picked = zip(problem.stages, choice, strict=True)
    return [(stage.option(at), int(stage.replicas[at])) for stage, at in picked]


def cores_of(runs: list) -> float:
    return sum(option.cpu_cores * replicas for option, replicas in runs)


@pytest.mark.parametrize("method", ["highs", "brute-force"])
def test_the_best_plans_that_fit_side_by_side(method: str) -> None:
    fitted = apart = 0
    for seed in seeds(60):
        problems = [pipeline(seed, 1 + seed % 2), pipeline(seed + 1000, 1)]
        pairs = []
        for one, other in itertools.product(*map(feasible, problems)):
            runs = [*running(problems[0], one), *running(problems[1], other)]
            pairs.append((objective(problems[0], one) + objective(problems[1], other), runs))
        pairs.sort(key=lambda pair: -pair[0])
        alone = pairs[0][0] if pairs else -np.inf
        needed = cuts_of([GpuPool("cut", 500, PARTS)], pairs[0][1] if pairs else [])["cut"]
        pool = GpuPool("cut", max(1, sum((needed or {}).values()) - seed % 3), PARTS)
        some = pairs[min(3, len(pairs) - 1)][1] if pairs else []
        capacity = {"core": cores_of(some)} if seed % 2 and some else {}
        best = next(
            (
                worth
                for worth, runs in pairs
                if cuts_of([pool], runs)["cut"] is not None
                and cores_of(runs) <= capacity.get("core", np.inf)
            ),
            -np.inf,
        )
        if best == -np.inf:
            with pytest.raises(InfeasibleError):
                plan_together(problems, [pool], capacity, method)
            continue
        found = plan_together(problems, [pool], capacity, method)
        assert found.objective == pytest.approx(best, rel=1e-9, abs=1e-9), seed
        assert sum(found.cuts["cut"].values()) <= pool.gpus
        assert all(plan.certificate.holds for plan in found.plans)
        assert [len(plan.stages) for plan in found.plans] == [1 + seed % 2, 1]
        fitted += 1
        apart += best < alone - 1e-9
    assert fitted > 8
    assert apart > 2


def test_a_product_of_several_stages_is_refused() -> None:
    one = pipeline(0, 2)
    settings = dataclasses.replace(one.settings, accuracy_method="multiply")
    with pytest.raises(ConfigError, match="does not add up"):
        plan_together([dataclasses.replace(one, settings=settings), pipeline(1, 1)])
