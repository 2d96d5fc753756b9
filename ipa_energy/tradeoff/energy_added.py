"""What energy adds to the space of plans: plans that are good only with it, and volume.

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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.as_json import fields_of
from ipa_energy.optimizer.dominance import hypervolume, pareto_points
from ipa_energy.optimizer.front import EQUAL_RTOL, Front
from ipa_energy.optimizer.supported import supported

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
