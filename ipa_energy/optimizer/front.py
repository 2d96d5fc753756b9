"""The exact Pareto front over all plans at one load: accuracy, cost, latency, energy, or others.

A plan is *on the front* if no other feasible plan is at least as good in pipeline accuracy (up),
reserved cores, latency and joules per request (down) and better in one. Plans are put together
stage by stage; every one of the four is monotone in the same figure of a plan's first stages (a
sum, an average, or a product of factors none of which is negative), so first stages that others
beat can be dropped with everything that starts with them. What is left at the end is the whole
front: nothing is sampled and nothing cut off.

Only plans that respect every limit and cap count; caps are summed as certificates sum them.
Figures that differ by less than ``EQUAL_RTOL`` of the largest possible one are equal. Of plans
equal in all four the front has one: that with the smallest sum of batches (IPA's own tie-break,
gamma), then the first in the order of the profile, first stage first; both among plans whose
first stages are not beaten either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.dominance import pareto_points
from ipa_energy.optimizer.plan import Choice, Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.pools import require_no_pools
from ipa_energy.optimizer.problem import Candidates, Problem
from ipa_energy.optimizer.table import Resource

OBJECTIVES = ("cost", "latency_s", "joules_per_request")
"""What the front trades accuracy for, unless it is told otherwise: quantities, less is better."""

EQUAL_RTOL = 1e-10
"""Figures closer than this share of the largest possible one are equal."""

MOST_POINTS = 50_000
"""Default limit on points of the front, and on first stages of plans kept on the way to it."""

_CHUNK = 1_000_000
"""Most partial plans made at once: bounds the memory (about 100 bytes each)."""


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
        amounts: objective → total, less being better; NaN joules if the profile has no energy, and
            the front is then that of the others.
        full_size: points of the whole front; more than F after :func:`thin`.
        combinations: plans there are, feasible or not.
    """

    problem: Problem
    choices: Ints
    accuracy: Floats
    amounts: Mapping[str, Floats]
    full_size: int
    combinations: int

    def __len__(self) -> int:
        return len(self.accuracy)

    @property
    def cost_cores(self) -> Floats:
        """Reserved cores, Σ n·c."""
        return self.amounts["cost"]

    @property
    def latency_s(self) -> Floats:
        """Left side of (4)."""
        return self.amounts["latency_s"]

    @property
    def joules_per_request(self) -> Floats:
        """Left side of (5), of the end that ``energy_risk`` plans with."""
        return self.amounts["joules_per_request"]

    @property
    def has_energy(self) -> bool:
        """True if joules took part."""
        joules = self.amounts.get("joules_per_request")
        return joules is not None and not bool(np.isnan(joules).any())

    def losses(self, *, with_energy: bool = True) -> list[Floats]:
        """−accuracy, then the objectives (those wanted and known): less is better in each."""
        left_out = set() if with_energy and self.has_energy else {"joules_per_request"}
        kept = [column for name, column in self.amounts.items() if name not in left_out]
        return [-self.accuracy, *kept]

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
            {name: column[index] for name, column in self.amounts.items()},
            self.full_size,
            self.combinations,
        )


def pareto_front(
    problem: Problem, most: int = MOST_POINTS, objectives: Sequence[str] = OBJECTIVES
) -> Front:
    """Every distinct point of accuracy and ``objectives`` that no feasible plan beats. Exact.

    Empty (F = 0) if nothing is feasible. Deterministic.

    Args:
        problem: the program at one load.
        most: limit on the points held at once, on the way as well.
        objectives: quantities (:mod:`.quantities`) of which less is better.

    Raises:
        FrontTooLargeError: there are more.
    """
    require_no_pools(problem.settings.gpus, "a Pareto front")
    combinations = math.prod(len(candidates) for candidates in problem.stages)
    if combinations == 0:
        none = np.empty(0)
        no_choice = np.empty((0, len(problem.stages)), dtype=np.intp)
        return Front(problem, no_choice, none, dict.fromkeys(objectives, none), 0, combinations)
    growth = _Growth(problem, objectives, most)
    steps = [growth.nothing_decided()]
    for stage in range(len(problem.stages)):
        extended = growth.extended(steps[-1], stage)
        if extended is None:
            raise FrontTooLargeError(
                f"the Pareto front has more than {most:,} points at stage {stage + 1} of"
                f" {len(problem.stages)} ({combinations:,} plans in all)",
                fix="narrow the program: allocation_mode: base, a smaller batching_cap or tighter"
                " SLAs",
            )
        steps.append(extended)
    return _front(problem, objectives, steps, combinations)


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
    columns = front.losses()
    if front.has_energy:
        at = 1 + list(front.amounts).index("joules_per_request")
        columns.insert(1, columns.pop(at))
    chosen = list(dict.fromkeys(int(np.argmin(column)) for column in columns))[:count]
    spans = [float(np.ptp(column)) or 1.0 for column in columns]
    points = np.stack([column / span for column, span in zip(columns, spans, strict=True)], axis=1)
    chosen += farthest_points(points, chosen, count - len(chosen))
    return front.select(np.sort(np.array(chosen, dtype=np.intp)))


def farthest_points(
    points: Floats,
    chosen: Sequence[int],
    count: int,
    *,
    same: float = 0.0,
    random: np.random.Generator | None = None,
) -> list[int]:
    """Again and again the point whose nearest chosen neighbour is farthest away (greedy max-min).

    Args:
        points: (N, d), scaled so that Euclidean distances mean something.
        chosen: indices that are in already.
        count: how many more; fewer come back once all others are as close as ``same``.
        same: distances that differ by no more than this are equal.
        random: decides between points that are equally far; None: the first.
    """
    nearest = np.full(len(points), np.inf)
    for index in chosen:
        nearest = np.minimum(nearest, np.linalg.norm(points - points[index], axis=1))
    found: list[int] = []
    while len(found) < count:
        farthest = float(nearest.max())
        if farthest <= same:
            break
        ties = np.flatnonzero(nearest >= farthest - same)
        index = int(ties[0] if random is None else random.choice(ties))
        found.append(index)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[index], axis=1))
    return found


@dataclass(frozen=True, slots=True)
class _Partial:
    """Plans of the first stages, one entry each, in the order of their choices.

    Attributes:
        accuracy: sum or product so far.
        used: (quantities, N) totals so far of the objectives, then of the other caps.
        batch: sum so far.
        parent: entry of the step before that each one extends.
        option: candidate that it was extended by.
    """

    accuracy: Floats
    used: Floats
    batch: Floats
    parent: Ints
    option: Ints

    def __len__(self) -> int:
        return len(self.accuracy)

    def take(self, index: Ints) -> _Partial:
        """Some of them, in the order of ``index``."""
        return _Partial(*(getattr(self, name)[..., index] for name in self.__slots__))

    def followed_by(self, other: _Partial) -> _Partial:
        """These and then the others."""
        return _Partial(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)], axis=-1)
                for name in self.__slots__
            )
        )


class _Growth:
    """How plans of one problem grow by a stage, and which of them are worth keeping.

    Args:
        problem: no stage of it is empty.
        objectives: quantities of which less is better.
        most: partial plans held at once.
    """

    def __init__(self, problem: Problem, objectives: Sequence[str], most: int) -> None:
        self._most = most
        self._product = problem.settings.accuracy_method == "multiply"
        self._objectives = len(objectives)
        limits = {cap.quantity: cap.limit for cap in problem.caps}
        counted = dict.fromkeys([*objectives, *limits])
        columns = {name: _known(problem.columns(name)) for name in counted}
        self._caps = [
            Resource.of(columns[name], limits[name]) if name in limits else None for name in counted
        ]
        self._stages = [
            _Partial(
                accuracy=candidates.accuracy,
                used=np.stack([columns[name][number] for name in counted]),
                batch=batches(candidates),
                parent=np.arange(0),
                option=np.arange(len(candidates)),
            )
            for number, candidates in enumerate(problem.stages)
        ]
        self._units = self._rounding_units()

    def _rounding_units(self) -> list[float]:
        """Of accuracy, then of each quantity: what is less than this apart is equal."""
        greatest = [float(np.abs(stage.accuracy).max()) for stage in self._stages]
        most = [math.prod(greatest) if self._product else sum(greatest)]
        most += sum(np.abs(stage.used).max(axis=1) for stage in self._stages).tolist()
        return [EQUAL_RTOL * largest or 1.0 for largest in most]

    def nothing_decided(self) -> _Partial:
        """The one plan of no stage."""
        zero, first = np.zeros(1), np.zeros(1, dtype=np.intp)
        accuracy = np.ones(1) if self._product else zero
        return _Partial(accuracy, np.zeros((len(self._caps), 1)), zero, first, first)

    def extended(self, before: _Partial, stage: int) -> _Partial | None:
        """Plans one stage longer, feasible and not beaten; None if there are too many."""
        rows = max(1, _CHUNK // len(self._stages[stage]))
        found: _Partial | None = None
        for start in range(0, max(1, len(before)), rows):
            grown = self._grown(before, start, start + rows, stage)
            found = self._best(grown if found is None else found.followed_by(grown), stage)
            if found is None:
                break
        return found

    def _grown(self, before: _Partial, start: int, stop: int, stage: int) -> _Partial:
        part, options = before.take(np.arange(start, min(stop, len(before)))), self._stages[stage]
        combine = np.multiply if self._product else np.add
        flat = np.arange(len(part) * len(options))
        used = (part.used[:, :, None] + options.used[:, None, :]).reshape(len(self._caps), -1)
        grown = _Partial(
            combine.outer(part.accuracy, options.accuracy).ravel(),
            used,
            np.add.outer(part.batch, options.batch).ravel(),
            parent=flat // len(options) + start,
            option=flat % len(options),
        )
        fits = np.ones(len(flat), dtype=bool)
        last = stage == len(self._stages) - 1
        for column, cap in zip(used, self._caps, strict=True):
            if cap is not None:
                rest = cap.suffix(np.minimum)[stage + 1]
                fits &= column <= (cap.limit if last else cap.loose_limit - rest)
        return grown.take(np.flatnonzero(fits))

    def _best(self, partial: _Partial, stage: int) -> _Partial | None:
        last = stage == len(self._stages) - 1
        # What is used of a cap counts to the last bit: rounded, a plan that fits could fall.
        columns = [np.round(-partial.accuracy / self._units[0])]
        for column, unit, cap in zip(partial.used, self._units[1:], self._caps, strict=True):
            columns.append(np.round(column / unit) if last or cap is None else column)
        if last:  # nothing follows that a cap could forbid
            columns = columns[: 1 + self._objectives]
        kept = pareto_points(columns, partial.batch, self._most)
        return None if kept is None else partial.take(kept)


def _known(columns: Sequence[Floats]) -> Sequence[Floats]:
    """The columns, or zeros if some figure in them is unknown."""
    if any(np.isnan(column).any() for column in columns):
        return [np.zeros(len(column)) for column in columns]
    return columns


def batches(candidates: Candidates) -> Floats:
    """Batch size of each candidate of a stage."""
    options = candidates.stage.options
    return np.array([options[index].batch for index in candidates.option_index], dtype=np.float64)


def _front(
    problem: Problem, objectives: Sequence[str], steps: Sequence[_Partial], combinations: int
) -> Front:
    """The last step as a front, with its choices traced back through the others."""
    count = len(problem.stages)
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
    amounts = dict(zip(objectives, last.used, strict=False))
    first = ("joules_per_request", "cost", "latency_s")
    order = [amounts[name] for name in (*first, *amounts) if name in amounts]
    for name in objectives:
        if any(np.isnan(column).any() for column in problem.columns(name)):
            amounts[name] = np.full(len(last), np.nan)
    front = Front(problem, choices, accuracy, amounts, len(last), combinations)
    return front.select(np.lexsort((*reversed(order), -accuracy)))
