"""Small seeded random programs of every kind, for tests of the solvers against each other."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from option_maker import make_option

from ipa_energy.optimizer.problem import Candidates, Problem, Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.settings import Settings, caps_of, terms_of
from ipa_energy.optimizer.stage_columns import StageRules
from ipa_energy.records import Stage

METHODS = ("sum", "average", "multiply")


def without_energy(stage: Stage) -> Stage:
    """The same stage from a profile that has no joules."""
    return dataclasses.replace(
        stage,
        options=tuple(
            dataclasses.replace(
                each, dynamic_energy_j=math.nan, idle_power_w=math.nan, provenance=None
            )
            for each in stage.options
        ),
    )


def random_stage(rng: np.random.Generator, name: str, *, variants: int, coarse: bool) -> Stage:
    """A stage; ``coarse`` figures come from a few values, so that many plans tie."""
    options = []
    for number in range(variants):
        accuracy = float(rng.choice([0.0, 0.25, 0.5, 0.75])) if coarse else float(rng.random())
        for cores in (1.0, 2.0)[: int(rng.integers(1, 3))]:
            for batch in (1, 2, 4, 8)[: int(rng.integers(1, 5))]:
                latency_s = float(rng.uniform(0.02, 0.6)) * (1 + 0.2 * batch)
                if coarse:
                    latency_s = float(rng.choice([0.1, 0.2, 0.3]))
                options.append(
                    make_option(
                        f"{name}{number}",
                        batch,
                        latency_s=latency_s,
                        throughput_rps=batch / latency_s,
                        accuracy=accuracy,
                        dynamic_energy_j=float(rng.choice([1, 2]) if coarse else rng.uniform(0, 5)),
                        idle_power_w=float(rng.choice([0, 1]) if coarse else rng.uniform(0, 8)),
                        cpu_cores=cores,
                    )
                )
    requests_per_input = float(rng.choice([1.0, 1.0, 0.5, 2.0]))
    return Stage(name, f"{name}-node", tuple(options), requests_per_input)


def random_program(
    seed: int, *, stages: int | None = None, variants: int = 3
) -> tuple[Program, float]:
    """A program and a load. SLAs lie where they bind, and sometimes where nothing is feasible."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5)) if stages is None else stages
    coarse = bool(rng.random() < 0.25)
    pipeline = [
        random_stage(rng, f"s{number}", variants=int(rng.integers(1, variants + 1)), coarse=coarse)
        for number in range(count)
    ]
    load_rps = float(rng.choice([1, 2, 5, 10, 20])) if coarse else float(rng.uniform(1, 25))
    settings = Settings(
        alpha=float(rng.choice([0, 0.5, 2, 10, 40, -3])),
        beta=float(rng.choice([0, 0.2, 1])),
        gamma=float(rng.choice([0, 1e-6, 0.1])),
        energy_weight=float(rng.choice([0, 0.01, 0.3])),
        energy_metric=str(rng.choice(["joules_per_request", "watts"])),  # type: ignore[arg-type]
        accuracy_method=METHODS[seed % 3],  # type: ignore[arg-type]
        normalize_accuracy=bool(rng.random() < 0.4),
        scaling_cap=int(rng.choice([2, 4, 20, 50])),
        batching_cap=int(rng.choice([1, 4, 8])),
    )
    rules = [
        StageRules(replicas=int(rng.integers(1, 8)) if rng.random() < 0.1 else None)
        for _ in pipeline
    ]
    free = Program(pipeline, settings, rules).at(load_rps)
    if not free.is_empty():
        if rng.random() < 0.65:
            cap = _between(rng, [stage.delay_s for stage in free.stages], coarse)
            settings = dataclasses.replace(settings, latency_sla_s=cap)
        if rng.random() < 0.65:
            cap = _between(rng, [stage.energy_j for stage in free.stages], coarse)
            settings = dataclasses.replace(settings, energy_sla_joules=cap)
    return Program(pipeline, settings, rules), load_rps


def random_problem(seed: int, **size: int) -> Problem:
    """:func:`random_program` at its load."""
    program, load_rps = random_program(seed, **size)
    return program.at(load_rps)


def _between(rng: np.random.Generator, columns: list[np.ndarray], coarse: bool) -> float:
    """A cap between just infeasible and loose; exactly on a plan's total if ``coarse``."""
    if coarse:
        return float(sum(float(rng.choice(column)) for column in columns))
    least = sum(float(column.min()) for column in columns)
    most = sum(float(column.max()) for column in columns)
    return least + float(rng.uniform(-0.08, 0.6)) * (most - least) + 1e-6


def objective(problem: Problem, choice: tuple[int, ...]) -> float:
    """Equation (6) of a choice, straight from the table."""
    picked = list(zip(problem.stages, choice, strict=True))
    scores = [float(stage.accuracy[index]) for stage, index in picked]
    penalty = sum(float(stage.penalty[index]) for stage, index in picked)
    return problem.settings.alpha * problem.combined_accuracy(scores) - penalty


def table_problem(
    stages: list[list[tuple[float, float, float, float]]],
    *,
    method: str = "sum",
    alpha: float = 1.0,
    latency_sla_s: float | None = None,
    energy_sla_joules: float | None = None,
) -> Problem:
    """A problem straight from rows of (accuracy, delay_s, energy_j, penalty)."""
    settings = Settings(
        alpha=alpha,
        beta=0.0,
        gamma=0.0,
        accuracy_method=method,  # type: ignore[arg-type]
        latency_sla_s=latency_sla_s,
        energy_sla_joules=energy_sla_joules,
        scaling_cap=1,
        batching_cap=1,
    )
    candidates = []
    for number, rows in enumerate(stages):
        table = np.array(rows)
        stage = Stage(f"s{number}", f"n{number}", tuple(make_option() for _ in rows))
        candidates.append(
            Candidates(
                stage=stage,
                option_index=np.arange(len(rows)),
                replicas=np.ones(len(rows), dtype=np.int64),
                accuracy=table[:, 0],
                amounts={"latency_s": table[:, 1], "joules_per_request": table[:, 2]},
                penalty=table[:, 3],
            )
        )
    return Problem(
        tuple(candidates),
        Moment.at(1.0),
        settings,
        tuple(StageRules() for _ in stages),
        terms_of(settings),
        caps_of(settings),
    )
