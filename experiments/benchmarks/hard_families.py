"""Seeded programs that are hard for exact solvers, where real profiles are easy.

Multiple-choice knapsacks of the families of the knapsack literature (Kellerer, Pferschy and
Pisinger, Knapsack Problems, 2004, chapter 5): what makes them hard is that many choices are nearly
as good as the best one, so that no bound tells them apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.records import Allocation, Option, Provenance, Stage

Columns = tuple[Floats, Floats, Floats]
"""Accuracy, seconds and joules of a stage's options."""

LOAD_RPS = 1.0


def lattice(rng: np.random.Generator, count: int) -> Columns:
    """Two-decimal figures; accuracy goes with use: plenty of equal sums."""
    seconds = rng.integers(1, 100, count) / 100
    joules = rng.integers(1, 100, count) / 100
    noise = rng.integers(-5, 6, count) / 100
    accuracy = np.clip(np.round(0.2 + 0.3 * seconds + 0.3 * joules + noise, 2), 0.01, 1.0)
    return accuracy, seconds, joules


def correlated(rng: np.random.Generator, count: int) -> Columns:
    """Accuracy is use plus a constant (strongly correlated)."""
    seconds, joules = rng.uniform(0.01, 1.0, count), rng.uniform(0.01, 1.0, count)
    return 0.1 + 0.4 * seconds + 0.4 * joules, seconds, joules


def subset_sum(rng: np.random.Generator, count: int) -> Columns:
    """Accuracy is use: the question is which sums come nearest to the limit."""
    seconds = rng.integers(1, 10**6, count) / 10**6
    return 0.9 * seconds, seconds, np.full(count, 0.5)


def near_equal(rng: np.random.Generator, count: int) -> Columns:
    """Every option is almost every other one."""
    seconds, joules = (0.5 + 1e-4 * rng.random(count) for _ in range(2))
    return (
        0.5 + 0.3 * (seconds - 0.5) + 0.3 * (joules - 0.5) + 1e-5 * rng.random(count),
        (seconds),
        joules,
    )


FAMILIES: dict[str, tuple[Callable[[np.random.Generator, int], Columns], str]] = {
    "lattice": (lattice, "sum"),
    "correlated": (correlated, "sum"),
    "subset-sum": (subset_sum, "sum"),
    "near-equal": (near_equal, "sum"),
    "product": (correlated, "multiply"),
    "product lattice": (lattice, "multiply"),
}


def hard_program(family: str, seed: int, stages: int, options: int) -> Program:
    """A program of a family, both SLAs half way between the least and the mean of the greediest."""
    make, method = FAMILIES[family]
    rng = np.random.default_rng(seed)
    columns = [make(rng, options) for _ in range(stages)]
    if method == "multiply":  # as accuracies of a pipeline are: a product of 20 is not nothing
        columns = [(np.round(0.5 + 0.5 * a, 3), seconds, joules) for a, seconds, joules in columns]
    pipeline = [_stage(f"s{number}", *each) for number, each in enumerate(columns)]
    settings = Settings(
        alpha=1.0 if method == "sum" else 1000.0,
        beta=0.0,
        gamma=0.0,
        accuracy_method=method,  # type: ignore[arg-type]
        latency_sla_s=_middle([seconds for _, seconds, _ in columns]),
        energy_sla_joules=_middle([joules for _, _, joules in columns]),
        scaling_cap=1,
        batching_cap=1,
    )
    return Program(pipeline, settings)


def _middle(columns: list[Floats]) -> float:
    least = sum(float(column.min()) for column in columns)
    mean = sum(float(column.mean()) for column in columns)
    return least + 0.6 * (mean - least)


def _stage(name: str, accuracy: Floats, seconds: Floats, joules: Floats) -> Stage:
    plain = Option(
        variant="v",
        allocation=Allocation.of(1.0),
        batch=1,
        latency_s=1.0,
        latency_avg_s=1.0,
        latency_p99_s=1.0,
        throughput_rps=1e6,
        accuracy=0.5,
        dynamic_energy_j=1.0,
        idle_power_w=0.0,
        provenance=Provenance("synthetic", "estimated", 1, float("nan")),
    )
    options = tuple(
        dataclasses.replace(
            plain,
            variant=f"v{number}",
            latency_s=float(second),
            accuracy=float(score),
            dynamic_energy_j=float(joule),
        )
        for number, (score, second, joule) in enumerate(zip(accuracy, seconds, joules, strict=True))
    )
    return Stage(name, name, options)
