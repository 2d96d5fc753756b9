"""Random pipelines that look like measured ones, for benchmarks of the solvers.

Larger variants are more accurate, slower and hungrier; latency grows with the batch, less than in
proportion; throughput rises with the batch and flattens; joules per request fall with the batch
and flatten; more cores are faster with an exponent around 0.6 (IPA's measured range). The SLAs are
set where they bind: the best plan without them breaks both, and many plans meet them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.records import Allocation, Option, Provenance, Stage


def realistic_stage(
    rng: np.random.Generator, name: str, variants: int, batches: int, allocations: int = 1
) -> Stage:
    """A stage of ``variants`` × ``allocations`` × ``batches`` options (batches 1, 2, 4, …)."""
    size = np.sort(rng.uniform(0, 1, variants))
    base_s = float(rng.uniform(0.02, 0.08))
    top = float(rng.uniform(0.6, 0.95))
    options = []
    for number, relative in enumerate(size):
        work_s = base_s * (1 + 9 * relative**1.5) * float(rng.uniform(0.9, 1.1))
        accuracy = top * (0.6 + 0.4 * relative**0.6) * float(rng.uniform(0.97, 1.0))
        first_cores = 1.0 if relative < 0.5 else 2.0
        fixed = float(rng.uniform(0.2, 0.5))
        for cores in first_cores * 2.0 ** np.arange(allocations):
            for batch in 2 ** np.arange(batches):
                latency_s = work_s * (fixed + (1 - fixed) * batch) / cores**0.6
                latency_s *= float(rng.uniform(0.95, 1.05))
                watts = 4.0 * cores
                joules = watts * work_s * (1 - fixed + fixed / batch) * cores**-0.4
                options.append(
                    Option(
                        variant=f"{name}-v{number}",
                        allocation=Allocation.of(float(cores)),
                        batch=int(batch),
                        latency_s=latency_s,
                        latency_avg_s=latency_s,
                        latency_p99_s=latency_s,
                        throughput_rps=float(batch) / latency_s,
                        accuracy=accuracy,
                        dynamic_energy_j=joules * float(rng.uniform(0.95, 1.05)),
                        idle_power_w=0.7 * float(cores) + 0.3 * float(relative),
                        provenance=Provenance("synthetic", "estimated", 1, float("nan")),
                    )
                )
    return Stage(name, f"{name}-node", tuple(options))


def realistic_program(
    seed: int,
    stages: int,
    variants: int,
    batches: int,
    *,
    allocations: int = 1,
    accuracy_method: str = "sum",
    load_rps: float = 20.0,
    tightness: float = 0.35,
    energy_sla: bool = True,
) -> Program:
    """A program whose SLAs lie ``tightness`` of the way from the least to what is wanted most."""
    rng = np.random.default_rng(seed)
    pipeline = [
        realistic_stage(rng, f"s{number}", variants, batches, allocations)
        for number in range(stages)
    ]
    settings = Settings(
        alpha=weight_of_accuracy(accuracy_method, stages),
        beta=0.1,
        gamma=1e-6,
        energy_weight=0.02,
        accuracy_method=accuracy_method,  # type: ignore[arg-type]
        scaling_cap=64,
        batching_cap=2 ** (batches - 1),
    )
    free = Program(pipeline, settings).at(load_rps)
    wanted = pareto.solve(free)[0]
    settings = dataclasses.replace(
        settings,
        latency_sla_s=_between(free, "delay_s", wanted, tightness),
        energy_sla_joules=(
            _between(free, "energy_j", wanted, max(tightness, 0.5)) if energy_sla else None
        ),
    )
    return Program(pipeline, settings)


def weight_of_accuracy(method: str, stages: int) -> float:
    """An alpha with which accuracy is worth about as much as cores: a product shrinks by stage."""
    return 10.0 * stages * 1.7**stages if method == "multiply" else 10.0


def _between(problem: Problem, column: str, choice: tuple[int, ...], share: float) -> float:
    columns = [getattr(candidates, column) for candidates in problem.stages]
    least = sum(float(values.min()) for values in columns)
    wanted = sum(float(values[index]) for values, index in zip(columns, choice, strict=True))
    return least + share * (wanted - least)
