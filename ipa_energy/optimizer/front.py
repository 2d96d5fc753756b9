"""The exact Pareto front of accuracy, cost, latency and energy over all plans at one load.

A plan is *on the front* if no other feasible plan is at least as good in pipeline accuracy (up),
reserved cores, latency and joules per request (down) and better in one. Plans are put together
stage by stage; every one of the four is monotone in the same figure of a plan's beginning (a sum,
an average, or a product of factors none of which is negative), so a beginning that another one
beats can be dropped with everything that starts with it. What is left at the end is the whole
front: nothing is sampled and nothing cut off.

Only plans that respect the caps and both SLAs count; SLAs are summed as certificates sum them.
Figures that differ by less than ``EQUAL_RTOL`` of the largest possible one are equal. Of plans
equal in all four the front has one: that with the smallest sum of batches (IPA's own tie-break,
gamma), then the first in the order of the profile, first stage first; both among plans whose
beginnings are not beaten either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.beginnings import EQUAL_RTOL, Beginnings, Growth, reserved_cores
from ipa_energy.optimizer.plan import Choice, Plan, build_plan
from ipa_energy.optimizer.problem import Problem

__all__ = [
    "EQUAL_RTOL",
    "Front",
    "FrontTooLargeError",
    "pareto_front",
    "reserved_cores",
    "thin",
]

MOST_POINTS = 50_000
"""Default limit on points of the front, and on beginnings kept on the way to it."""


class FrontTooLargeError(ConfigError):
    """The front has more points than anyone asked to hold in memory."""


@dataclass(frozen=True, slots=True)
class Front:
    """Plans that no feasible plan beats; arrays of one length F, by falling accuracy.

    Equal accuracies are ordered by rising joules, then cost, then latency.

    Attributes:
        problem: what they are plans of.
        choices: (F, stages) index into ``problem.stages[s]``.
        accuracy: pipeline accuracy A as in the objective (ranks if normalised).
        cost_cores: reserved cores, Σ n·c.
        latency_s: left side of (4).
        joules_per_request: left side of (5), of the end that ``energy_risk`` plans with; NaN if
            the profile has no energy, and the front is then that of the other three.
        full_size: points of the whole front; more than F after :func:`thin`.
        combinations: plans there are, feasible or not.
    """

    problem: Problem
    choices: Ints
    accuracy: Floats
    cost_cores: Floats
    latency_s: Floats
    joules_per_request: Floats
    full_size: int
    combinations: int

    def __len__(self) -> int:
        return len(self.accuracy)

    @property
    def has_energy(self) -> bool:
        """True if joules took part."""
        return not bool(np.isnan(self.joules_per_request).any())

    def losses(self, *, with_energy: bool = True, with_latency: bool = True) -> list[Floats]:
        """−accuracy, cost, latency, joules (those wanted and known): less is better in each."""
        found = [-self.accuracy, self.cost_cores]
        if with_latency:
            found.append(self.latency_s)
        if with_energy and self.has_energy:
            found.append(self.joules_per_request)
        return found

    def choice(self, index: int) -> Choice:
        """The choice of one point."""
        return tuple(self.choices[index].tolist())

    def plan(self, index: int) -> Plan:
        """The plan of one point, with its certificate."""
        return build_plan(self.problem, self.choice(index))

    def select(self, index: Ints) -> Front:
        """Some of the points, in the order of ``index``."""
        return Front(
            self.problem,
            self.choices[index],
            self.accuracy[index],
            self.cost_cores[index],
            self.latency_s[index],
            self.joules_per_request[index],
            self.full_size,
            self.combinations,
        )


def pareto_front(problem: Problem, most: int = MOST_POINTS) -> Front:
    """Every distinct (accuracy, cost, latency, joules) that no feasible plan beats. Exact.

    Empty (F = 0) if nothing is feasible. Deterministic.

    Args:
        problem: the program at one load.
        most: limit on the points held at once, on the way as well.

    Raises:
        FrontTooLargeError: there are more.
    """
    combinations = math.prod(len(candidates) for candidates in problem.stages)
    if combinations == 0:
        return _front(problem, [], combinations)
    rules = Growth(problem, most)
    steps = [rules.beginnings()]
    for stage in range(len(problem.stages)):
        extended = rules.extended(steps[-1], stage)
        if extended is None:
            raise FrontTooLargeError(
                f"the Pareto front has more than {most:,} points at stage {stage + 1} of"
                f" {len(problem.stages)} ({combinations:,} plans in all)",
                fix="narrow the program: allocation_mode: base, a smaller batching_cap or tighter"
                " SLAs",
            )
        steps.append(extended)
    return _front(problem, steps, combinations)


def thin(front: Front, count: int) -> Front:
    """At most ``count`` points that cover the front, for display; ``full_size`` stays.

    The first best point of each objective stays (as many as ``count`` allows, in the order
    accuracy, joules, cost, latency). Then the point farthest from those chosen is added, again and
    again; distance is Euclidean, each objective divided by its range. Deterministic.
    """
    if count < 1:
        raise ConfigError(f"{count} points of the front asked for", allowed="1 or more")
    if len(front) <= count:
        return front
    columns = [*front.losses()]
    if front.has_energy:
        columns.insert(1, columns.pop())
    chosen = list(dict.fromkeys(int(np.argmin(column)) for column in columns))[:count]
    spans = [float(np.ptp(column)) or 1.0 for column in columns]
    points = np.stack([column / span for column, span in zip(columns, spans, strict=True)], axis=1)
    nearest = np.full(len(front), np.inf)
    for index in chosen:
        nearest = np.minimum(nearest, np.sum((points - points[index]) ** 2, axis=1))
    while len(chosen) < count:
        index = int(np.argmax(nearest))
        chosen.append(index)
        nearest = np.minimum(nearest, np.sum((points - points[index]) ** 2, axis=1))
    return front.select(np.sort(np.array(chosen, dtype=np.intp)))


def _front(problem: Problem, steps: Sequence[Beginnings], combinations: int) -> Front:
    """The last step as a front, with its choices traced back through the others."""
    count = len(problem.stages)
    if not steps:
        none = np.empty(0)
        no_choice = np.empty((0, count), dtype=np.intp)
        return Front(problem, no_choice, none, none, none, none, 0, combinations)
    last = steps[-1]
    choices = np.empty((len(last), count), dtype=np.intp)
    at = np.arange(len(last))
    for stage in range(count - 1, -1, -1):
        step = steps[stage + 1]
        choices[:, stage] = step.option[at]
        at = step.parent[at]
    accuracy = last.accuracy
    if problem.settings.accuracy_method == "average":
        accuracy = accuracy / count
    has_energy = not any(np.isnan(stage.energy_j).any() for stage in problem.stages)
    joules = last.energy_j if has_energy else np.full(len(last), np.nan)
    order = np.lexsort((last.delay_s, last.cost_cores, last.energy_j, -accuracy))
    front = Front(
        problem, choices, accuracy, last.cost_cores, last.delay_s, joules, len(last), combinations
    )
    return front.select(order)
