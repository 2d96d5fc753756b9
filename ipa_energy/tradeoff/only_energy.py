"""How many plans are good only because energy counts.

Two questions, each with and without energy:

* *undominated*: no other plan is at least as good in every objective and better in one;
* *optimal for some weights*: some weights of the objective, all above 0, make it the best of all
  (:mod:`ipa_energy.optimizer.supported`). Every such plan can be had by setting the YAML's weights;
  an undominated one that is not can be had through an SLA alone.

Both are counted over distinct vectors of objectives, not over plans: plans that no objective tells
apart count once. Doubt speaks against energy: of plans that agree in accuracy, cost and latency the
most frugal one counts as undominated without energy, and of plans that agree in accuracy and cost
each counts as optimal without energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ipa_energy.arrays import Ints
from ipa_energy.optimizer.front import EQUAL_RTOL, Front
from ipa_energy.optimizer.supported import supported
from ipa_energy.optimizer.sweep import pareto_points
from ipa_energy.tradeoff.hypervolume import Hypervolume, hypervolumes

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

    def to_json(self) -> dict[str, Any]:
        """The example as ``tradeoff --json`` shows it."""
        return {
            "label": self.label,
            "accuracy": self.accuracy,
            "cost_cores": self.cost_cores,
            "joules_per_request": self.joules_per_request,
            "weights": dict(self.weights),
        }


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
            "front": self.front,
            "front_without_energy": self.front_without_energy,
            "only_front": self.only_front,
            "supported": self.supported,
            "supported_without_energy": self.supported_without_energy,
            "only_supported": self.only_supported,
            "examples": [example.to_json() for example in self.examples],
        }


def count_only_energy(front: Front) -> OnlyEnergy:
    """The counts of a whole front that is not empty and has joules."""
    seeing = supported(front, with_energy=True)
    blind = supported(front, with_energy=False)
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
