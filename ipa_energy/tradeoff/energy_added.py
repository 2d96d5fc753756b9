"""What energy adds at one load: plans that are good only with it, volume, and joules saved.

Two questions, each with and without energy:

* *undominated*: no other plan is at least as good in every objective and better in one;
* *optimal for some weights*: some weights of the objective, all above 0, make it the best of all
  (:mod:`ipa_energy.optimizer.supported`). Every such plan can be had by setting the YAML's weights;
  an undominated one that is not can be had through an SLA alone.

Both are counted over distinct vectors of objectives, not over plans: plans that no objective tells
apart count once. Doubt speaks against energy: of plans that agree in accuracy, cost and latency the
most frugal one counts as undominated without energy, and of plans that agree in accuracy and cost
each counts as optimal without energy.

The hypervolumes are those of the exact front of accuracy, cost, latency and joules per request, and
of the part of it that an optimizer blind to energy offers (most frugal ones again), in one space.
Each objective is scaled to 0 (the best of the four-objective front) .. 1 (its worst), and the
reference point is 1.1 everywhere, so that the ends of the front count too. The figures are shares
of the box between best and reference. A front of all four always covers at least as much; what
tells something is by how much.

Joules are held against the best plans of other weights (:func:`yardstick_of`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.as_json import fields_of
from ipa_energy.comparing.hull import Hull, Outcome, common_reach, hull_of
from ipa_energy.errors import ConfigError
from ipa_energy.frontier.weightings import OWN_PRICES, kinds_without_energy, reweighted
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.dominance import hypervolume, pareto_points
from ipa_energy.optimizer.front import EQUAL_RTOL, Front
from ipa_energy.optimizer.plan import Choice, Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem, total_of
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.supported import supported
from ipa_energy.optimizer.ties import settled
from ipa_energy.planning.planner import Planner
from ipa_energy.tradeoff.plan_map import MapRow

REFERENCE = 1.1
"""Scaled coordinate of the reference point in every objective."""

MOST_POINTS = 20_000
"""A larger front is thinned before it is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervolume:
    """Two hypervolumes and what they were measured with.

    Attributes:
        with_energy: of the four-objective front, 0..1 of the box.
        without_energy: of the front of accuracy, cost and latency in the same box.
        points_with_energy, points_without_energy: sizes of the two fronts.
        best, worst: objective → the value that is scaled to 0 and to 1.
        reference: scaled coordinate of the reference point.
        is_exact: False if a front was thinned first; then its figure is a lower bound.
    """

    with_energy: float
    without_energy: float
    points_with_energy: int
    points_without_energy: int
    best: dict[str, float]
    worst: dict[str, float]
    reference: float = REFERENCE
    is_exact: bool = True

    @property
    def gain(self) -> float:
        """Share by which energy enlarges the volume: ``with/without − 1``."""
        return self.with_energy / self.without_energy - 1.0

    def to_json(self) -> dict[str, Any]:
        """The record as ``tradeoff --json`` shows it."""
        return {**fields_of(self), "gain": self.gain}


def hypervolumes(objectives: dict[str, Floats], blind: Ints) -> Hypervolume:
    """Both hypervolumes of one front.

    Args:
        objectives: name → (n,) values of the four-objective front, at least one point. Accuracy is
            better when larger, all others when smaller.
        blind: (m,) indices of the points that are on the front of accuracy, cost and latency.
    """
    names = list(objectives)
    sign = {name: -1.0 if name == "accuracy" else 1.0 for name in names}
    costs = np.stack([sign[name] * objectives[name] for name in names], axis=1)
    best, worst = costs.min(axis=0), costs.max(axis=0)
    span = np.where(worst > best, worst - best, 1.0)
    scaled = (costs - best) / span
    part = scaled[blind]
    return Hypervolume(
        with_energy=share_of_box(scaled),
        without_energy=share_of_box(part),
        points_with_energy=len(scaled),
        points_without_energy=len(part),
        best={name: float(sign[name] * value) for name, value in zip(names, best, strict=True)},
        worst={name: float(sign[name] * value) for name, value in zip(names, worst, strict=True)},
        is_exact=len(scaled) <= MOST_POINTS,
    )


def share_of_box(scaled: Floats) -> float:
    """Hypervolume of (n, d) points to minimise over that of the box from 0 to the reference."""
    if len(scaled) > MOST_POINTS:
        # Every k-th along the first objective, its two ends among them.
        order = np.lexsort(scaled.T[::-1])
        scaled = scaled[order[np.linspace(0, len(order) - 1, MOST_POINTS).astype(np.intp)]]
    return hypervolume(scaled, REFERENCE) / float(REFERENCE ** scaled.shape[1])


MOST_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A plan that is optimal for some weights only because energy counts.

    Attributes:
        label: what it runs.
        accuracy: A of the objective.
        cost_cores, joules_per_request: of the plan.
        weights: YAML key → such a weight, scaled to the YAML's own alpha; gamma at 0.
    """

    label: str
    accuracy: float
    cost_cores: float
    joules_per_request: float
    weights: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlyEnergy:
    """Counts over the exact front of accuracy, cost, latency and joules per request.

    Attributes:
        front: undominated in all four.
        front_without_energy: of these, undominated in accuracy, cost and latency already.
        supported: optimal for some weights of accuracy, cores and energy.
        only_supported: of these, optimal for no weights of accuracy and cores alone.
        examples: a few of these, the most frugal first: what they run, and weights that choose it.
    """

    front: int
    front_without_energy: int
    supported: int
    only_supported: int
    examples: tuple[Example, ...] = ()

    @property
    def only_front(self) -> int:
        """How many are undominated only because energy counts."""
        return self.front - self.front_without_energy

    @property
    def supported_without_energy(self) -> int:
        """How many plans that are optimal for some weights are so without energy as well."""
        return self.supported - self.only_supported

    def to_json(self) -> dict[str, Any]:
        """The counts as ``tradeoff --json`` shows them."""
        return {
            **fields_of(self),
            "only_front": self.only_front,
            "supported_without_energy": self.supported_without_energy,
        }


def count_only_energy(front: Front) -> OnlyEnergy:
    """The counts of a whole front that is not empty and has joules."""
    seeing = supported(front)
    blind = supported(front, ("cost",))
    only = np.flatnonzero(seeing.mask & ~blind.mask)
    frugal = only[np.argsort(front.joules_per_request[only], kind="stable")][:MOST_EXAMPLES]
    examples = [_example(front, int(at), seeing.witness(int(at)) or {}) for at in frugal]
    return OnlyEnergy(
        front=len(front),
        front_without_energy=len(blind_front(front)),
        supported=int(seeing.mask.sum()),
        only_supported=len(only),
        examples=tuple(examples),
    )


def _example(front: Front, index: int, weights: dict[str, float]) -> Example:
    plan = front.plan(index)
    scale = front.problem.settings.alpha or 1.0
    unit = weights.get("alpha", 0.0) or 1.0
    return Example(
        label=plan.label,
        accuracy=plan.accuracy,
        cost_cores=plan.cost_cores,
        joules_per_request=plan.joules_per_request,
        weights={name: weight * scale / unit for name, weight in weights.items()},
    )


def blind_front(front: Front) -> Ints:
    """Indices of the points that are undominated in accuracy, cost and latency alone.

    Of points equal in these three it is the one of least joules, so each is on the whole front: a
    plan that beat it in all four would have to be equal in the three and need fewer joules.
    """
    columns = front.losses(with_energy=False)
    units = [EQUAL_RTOL * float(np.abs(column).max()) or 1.0 for column in columns]
    rounded = [np.round(column / unit) for column, unit in zip(columns, units, strict=True)]
    found = pareto_points(rounded, front.joules_per_request, len(front))
    return np.arange(len(front)) if found is None else found


def hypervolume_of(front: Front) -> Hypervolume:
    """How much the front covers with and without energy; of a whole front that has joules."""
    return hypervolumes(
        {
            "accuracy": front.accuracy,
            "cost_cores": front.cost_cores,
            "latency_s": front.latency_s,
            "joules_per_request": front.joules_per_request,
        },
        blind_front(front),
    )


PLACES = 12
"""Accuracies at which the hulls are read."""

NOTHING = 0.0005
"""Savings that print as 0.0 % are none."""

_EXTREME = 1e6
"""Times an alpha: nothing else counts, but decides between equals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPlan:
    """A plan with energy in its objective, held against plans without.

    Attributes:
        weight_from, weight_to: energy weights at which it is optimal.
        label: what it runs.
        accuracy, joules_per_request: of the plan, by the profile.
        without_j: least joules per request at its accuracy without energy; NaN if nothing without
            energy is as accurate.
    """

    weight_from: float
    weight_to: float
    label: str
    accuracy: float
    joules_per_request: float
    without_j: float

    @property
    def saving(self) -> float:
        """Share of these joules that it does without."""
        return 1.0 - self.joules_per_request / self.without_j

    def to_json(self) -> dict[str, Any]:
        """The plan as ``tradeoff --json`` shows it."""
        return {**fields_of(self), "saving": self.saving}


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """Both hulls at one load, and the plans of one alpha between them.

    Attributes:
        energy_weight: the YAML's.
        plans: those with energy that are optimal at the YAML's other weights, by rising weight.
        without: corners of the hull without energy, by rising accuracy.
        added: the same with energy.
    """

    energy_weight: float
    plans: tuple[HeldPlan, ...]
    without: Hull
    added: Hull

    @property
    def chosen(self) -> HeldPlan | None:
        """The plan at the YAML's weight; None if that has no energy."""
        weight = self.energy_weight
        held = (one for one in self.plans if one.weight_from <= weight < one.weight_to)
        return next(held, None) if weight > 0 else None

    def least_j(self, accuracy: float) -> float:
        """Least joules per request without energy at an accuracy; NaN above what is reached."""
        return self.without.joules_at(accuracy)

    @property
    def savings(self) -> list[float]:
        """Shares that energy saves, evenly over the accuracies that both hulls reach."""
        low, high = common_reach((self.without, self.added))
        places = np.linspace(low, high, PLACES).tolist() if low <= high else []
        return [1.0 - self.added.joules_at(at) / self.without.joules_at(at) for at in places]

    @property
    def mean_saving(self) -> float:
        """Of :attr:`savings`; NaN of none."""
        return sum(self.savings) / len(self.savings) if self.savings else math.nan

    @property
    def adds_nothing(self) -> bool:
        """No accuracy is reached with fewer joules because energy counts."""
        return not any(saving >= NOTHING for saving in self.savings)

    def to_json(self) -> dict[str, Any]:
        """The yardstick as ``tradeoff --json`` shows it."""
        return {
            "energy_weight": self.energy_weight,
            "mean_saving": self.mean_saving,
            "most_saving": max(self.savings, default=math.nan),
            "adds_nothing": self.adds_nothing,
            "plans": self.plans,
            "without_energy": self.without.corners,
            "with_energy": self.added.corners,
        }


def yardstick_of(planner: Planner, moment: Moment, row: MapRow) -> Yardstick:
    """Hold the optimal plans over the energy weight against those of every other weight.

    At one load nothing has to be simulated: every plan that IPA may choose, at any ratio of alpha
    to its prices, maximises ``alpha·A − P`` for some alpha, with A the accuracy and P what cores,
    other resources and batches cost. These are the corners of the hull of (P, A), and all of them
    are found by the exact solver alone: between two known ones, ask at the alpha at which both are
    worth the same. The same with joules for P gives all that energy can reach.

    Prices as the YAML has them, other prices and IPA's baselines are tried
    (:func:`~ipa_energy.frontier.weightings.kinds_without_energy`). What they reach is held against
    energy as in :mod:`ipa_energy.comparing.hull`: joules at equal accuracy, every plan within the
    SLAs.

    Args:
        planner: of a profile with joules.
        moment: the load.
        row: the optimal plans at it over the energy weight, at the YAML's other weights.
    """
    without = hull_of(_without_energy(planner, moment), 1.0)
    own = next(kind for kind in kinds_without_energy(planner) if kind.label == OWN_PRICES)
    problem = reweighted(planner, own).program.at(moment)
    frugal = corners(problem, [stage.energy_j for stage in problem.stages])
    added = [_outcome(plan, "energy") for plan in frugal]
    plans = [
        HeldPlan(
            weight_from=segment.weight_from,
            weight_to=segment.weight_to,
            label=segment.plan.label,
            accuracy=segment.plan.accuracy_raw,
            joules_per_request=segment.plan.joules_per_request,
            without_j=without.joules_at(segment.plan.accuracy_raw),
        )
        for segment in row.segments
    ]
    return Yardstick(
        energy_weight=planner.config.energy_weight,
        plans=tuple(plans),
        without=without,
        added=hull_of([*without.corners, *added], 1.0),
    )


def _without_energy(planner: Planner, moment: Moment) -> Iterator[Outcome]:
    for kind in kinds_without_energy(planner):
        try:
            problem = reweighted(planner, kind).program.at(moment)
        except ConfigError:  # a baseline that this profile has no option for
            continue
        penalty = [stage.penalty for stage in problem.stages]
        for plan in corners(problem, penalty):
            yield _outcome(plan, kind.label)


def _outcome(plan: Plan, kind: str) -> Outcome:
    return Outcome(
        label=f"{plan.label} ({kind})",
        accuracy=plan.accuracy_raw,
        joules_per_request=plan.joules_per_request,
        sla_attainment=1.0,
    )


def corners(problem: Problem, penalty: Sequence[Floats]) -> list[Plan]:
    """Every plan that maximises ``alpha·A − P`` for some alpha, by rising accuracy."""
    if not all(map(len, penalty)):  # some stage has nothing that carries the load
        return []

    def best(alpha: float) -> Choice | None:
        found = settled(problem.with_penalty(penalty, alpha), pareto.solve)
        return found[0] if found else None

    def worth(choice: Choice) -> tuple[float, float]:
        return problem.accuracy_of(choice), total_of(penalty, choice)

    def between(left: Choice, right: Choice) -> list[Choice]:
        (low, cheap), (high, dear) = worth(left), worth(right)
        if high <= low or dear <= cheap:
            return []
        alpha = (dear - cheap) / (high - low)
        middle = best(alpha)
        if middle is None or not low < worth(middle)[0] < high:
            return []
        return [*between(left, middle), middle, *between(middle, right)]

    scale = max(float(np.ptp(column)) for column in penalty) or 1.0
    ends = [best(scale / _EXTREME), best(scale * _EXTREME)]
    if ends[0] is None or ends[1] is None:
        return []
    choices = [ends[0], *between(ends[0], ends[1]), ends[1]]
    return [build_plan(problem, choice) for choice in dict.fromkeys(choices)]
