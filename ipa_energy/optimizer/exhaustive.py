"""The referee: every combination of candidates, tried one by one.

Written to be obviously right, not fast: plain loops over plain floats, equations (4) to (6) as they
stand, and no code shared with the other solvers. They are tested against it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator

from ipa_energy.errors import ConfigError
from ipa_energy.gpu_partitions import GpuPool
from ipa_energy.optimizer.deadline import Bounded, Deadline, stops_in_time
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.problem import within as fits
from ipa_energy.optimizer.table import Table

_AT_ONCE = 1000

MOST_COMBINATIONS = 2_000_000
"""More would take minutes; the other solvers answer in milliseconds."""


def solve(problem: Problem, top_k: int = 1) -> list[Choice]:
    """The ``top_k`` best choices, best first; empty if infeasible.

    Raises:
        ConfigError: there are more than :data:`MOST_COMBINATIONS` combinations.
    """
    return _best(problem, top_k, every_choice=_every_choice(problem))


def within(problem: Problem, top_k: int, deadline: Deadline) -> Bounded:
    """The best choices among those that were tried until the deadline.

    Nothing is proven but what all stages could gain if no cap stood in the way.

    Raises:
        ConfigError: there are more than :data:`MOST_COMBINATIONS` combinations.
    """
    complete = False

    def until_then() -> Iterator[Choice]:
        nonlocal complete
        for number, choice in enumerate(_every_choice(problem)):
            if number % _AT_ONCE == 0 and deadline.left_s == 0:
                return
            yield choice
        complete = True

    found = _best(problem, top_k, until_then())
    if not complete:
        return Bounded(found, math.inf if problem.is_empty() else Table.of(problem).ceiling())
    return Bounded(found, max(map(problem.worth, found), default=-math.inf))


def _every_choice(problem: Problem) -> Iterator[Choice]:
    """All there are.

    Raises:
        ConfigError: there are more than :data:`MOST_COMBINATIONS`.
    """
    combinations = math.prod(len(candidates) for candidates in problem.stages)
    if combinations > MOST_COMBINATIONS:
        raise ConfigError(
            f"brute-force would have to try {combinations:,} combinations",
            allowed=f"at most {MOST_COMBINATIONS:,}",
            fix="use method pareto, gurobi or highs, which give the same answer",
        )
    return itertools.product(*(range(len(candidates)) for candidates in problem.stages))


def _best(problem: Problem, top_k: int, every_choice: Iterable[Choice]) -> list[Choice]:
    settings = problem.settings
    pools = settings.gpus
    caps = [
        ([column.tolist() for column in problem.columns(cap.quantity)], cap.limit)
        for cap in problem.caps
    ]
    accuracy = [candidates.accuracy.tolist() for candidates in problem.stages]
    penalty = [candidates.penalty.tolist() for candidates in problem.stages]

    def feasible(choice: Choice) -> bool:
        return all(_can_be_cut(pool, _slices(problem, pool, choice)) for pool in pools) and all(
            fits(_total(columns, choice), limit) for columns, limit in caps
        )

    def objective(choice: Choice) -> float:
        scores = [scores[index] for scores, index in zip(accuracy, choice, strict=True)]
        gain = settings.alpha * problem.combined_accuracy(scores)
        return gain - _total(penalty, choice)

    return heapq.nlargest(top_k, filter(feasible, every_choice), key=objective)


def _slices(problem: Problem, pool: GpuPool, choice: Choice) -> list[int]:
    """How many of each kind of slice a choice holds of a pool."""
    counts = []
    for name in pool.slices:
        count = 0
        for candidates, at in zip(problem.stages, choice, strict=True):
            option = candidates.stage.options[candidates.option_index[at]]
            if option.hardware == pool.name:
                count += int(candidates.replicas[at]) * round(option.units(name))
        counts.append(count)
    return counts


def _can_be_cut(pool: GpuPool, counts: list[int]) -> bool:
    """True if so many GPUs have these slices: cut one after the other, every way tried."""
    left = {tuple(counts)}
    for _ in range(pool.gpus):
        if any(not any(rest) for rest in left):
            return True
        left = {
            tuple(max(0, n - part.count(s)) for n, s in zip(rest, pool.slices, strict=True))
            for rest in left
            for part in pool.partitions
        }
    return any(not any(rest) for rest in left)


def _total(columns: list[list[float]], choice: Choice) -> float:
    """Sum over the stages, in their order, of the chosen entries."""
    return sum(column[index] for column, index in zip(columns, choice, strict=True))


stops_in_time(within)(solve)
