"""Small seeded programs and everything that can be planned with them, one plan at a time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from option_maker import make_option

from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.records import Option, Stage


def small_option(variant: str, batch: int = 1, **figures: Any) -> Option:
    """An option that waits for nothing, of a profile with three trials that do not differ."""
    plain = {"idle_power_w": 0.0, "throughput_rps": 100.0, "trials": 3, "ci95_j": 0.0}
    return make_option(variant, batch, **({"meter": "cpu-time"} | plain | figures))


def one_stage(*options: Option) -> tuple[Stage, ...]:
    """A pipeline of one stage."""
    return (Stage("only", "only-node", options),)


def program_of(stages: tuple[Stage, ...], **settings: object) -> Program:
    """A program without an energy weight, alpha 1, beta 0 and wide caps unless told."""
    given = {"alpha": 1.0, "beta": 0.0, "gamma": 0.0, "scaling_cap": 50, "batching_cap": 64}
    return Program(stages, Settings(**(given | settings)))  # type: ignore[arg-type]


def random_small_program(seed: int) -> tuple[Program, float]:
    """One to three stages, a few options each, and a load; every third has figures that tie."""
    rng = np.random.default_rng(seed)
    coarse = seed % 3 == 0
    stages = []
    for number in range(int(rng.integers(1, 4))):
        options = [
            small_option(
                f"v{variant}",
                batch,
                cpu_cores=float(rng.choice([1, 2])),
                latency_s=float(rng.choice([0.1, 0.2]) if coarse else rng.uniform(0.02, 0.5)),
                accuracy=[0.25, 0.5, 0.75][variant],
                dynamic_energy_j=float(rng.choice([1, 2]) if coarse else rng.uniform(0.1, 5)),
                idle_power_w=float(rng.choice([0, 1]) if coarse else rng.uniform(0, 8)),
                throughput_rps=float(rng.uniform(2, 30)),
            )
            for variant in range(int(rng.integers(1, 4)))
            for batch in (1, 2, 4)[: int(rng.integers(1, 4))]
        ]
        share = float(rng.choice([1.0, 1.0, 2.0]))
        stages.append(Stage(f"s{number}", f"n{number}", tuple(options), share))
    program = program_of(
        tuple(stages),
        alpha=float(rng.choice([1, 10, 40])),
        beta=float(rng.choice([0, 0.2, 1])),
        gamma=float(rng.choice([0, 1e-6, 0.1])),
        energy_metric=str(rng.choice(["joules_per_request", "watts"])),
        accuracy_method=("sum", "average", "multiply")[seed % 3],
        latency_sla_s=float(rng.uniform(0.3, 2.5)) if rng.random() < 0.6 else None,
        energy_sla_joules=float(rng.uniform(3, 20)) if rng.random() < 0.3 else None,
    )
    return program, float(rng.uniform(1, 25))


def every_plan(problem: Problem) -> list[Plan]:
    """Every feasible plan, from its certificate."""
    choices = itertools.product(*(range(len(candidates)) for candidates in problem.stages))
    plans = [build_plan(problem, choice) for choice in choices]
    return [plan for plan in plans if plan.certificate.holds]
