"""The referee: every combination of candidates, tried one by one.

Written to be obviously right, not fast: plain loops over plain floats, equations (4) to (6) as they
stand, and no code shared with the other solvers. They are tested against it.
"""

from __future__ import annotations

import heapq
import itertools
import math

from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem, within

MOST_COMBINATIONS = 2_000_000
"""More would take minutes; the other solvers answer in milliseconds."""


def solve(problem: Problem, top_k: int = 1) -> list[Choice]:
    """The ``top_k`` best choices, best first; empty if infeasible.

    Raises:
        ConfigError: there are more than :data:`MOST_COMBINATIONS` combinations.
    """
    combinations = math.prod(len(candidates) for candidates in problem.stages)
    if combinations > MOST_COMBINATIONS:
        raise ConfigError(
            f"brute-force would have to try {combinations:,} combinations",
            allowed=f"at most {MOST_COMBINATIONS:,}",
            fix="use method pareto, gurobi or highs, which give the same answer",
        )
    settings = problem.settings
    caps = [
        ([column.tolist() for column in problem.columns(cap.quantity)], cap.limit)
        for cap in problem.caps
    ]
    accuracy = [candidates.accuracy.tolist() for candidates in problem.stages]
    penalty = [candidates.penalty.tolist() for candidates in problem.stages]

    def feasible(choice: Choice) -> bool:
        return all(within(_total(columns, choice), limit) for columns, limit in caps)

    def objective(choice: Choice) -> float:
        scores = [scores[index] for scores, index in zip(accuracy, choice, strict=True)]
        gain = settings.alpha * problem.combined_accuracy(scores)
        return gain - _total(penalty, choice)

    every_choice = itertools.product(*(range(len(candidates)) for candidates in problem.stages))
    return heapq.nlargest(top_k, filter(feasible, every_choice), key=objective)


def _total(columns: list[list[float]], choice: Choice) -> float:
    """Sum over the stages, in their order, of the chosen entries."""
    return sum(column[index] for column, index in zip(columns, choice, strict=True))
