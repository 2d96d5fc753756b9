"""What energy saves at one load against the best plans that other weights reach without it.

At one load nothing has to be simulated: every plan that IPA may choose, at any ratio of alpha to
its prices, maximises ``alpha·A − P`` for some alpha, with A the accuracy and P what cores, other
resources and batches cost. These are the corners of the hull of (P, A), and all of them are found
by the exact solver alone: between two known ones, ask at the alpha at which both are worth the
same. The same with joules for P gives all that energy can reach.

Prices as the YAML has them, other prices and IPA's baselines are tried
(:func:`~ipa_energy.frontier.weightings.kinds_without_energy`). What they reach is held against
energy as in :mod:`ipa_energy.comparing.hull`: joules at equal accuracy, every plan within the SLAs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.as_json import fields_of
from ipa_energy.comparing.hull import Hull, Outcome, hull_of
from ipa_energy.errors import ConfigError
from ipa_energy.frontier.weightings import OWN_PRICES, kinds_without_energy, reweighted
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.plan import Choice, Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.ties import settled
from ipa_energy.planning.planner import Planner
from ipa_energy.tradeoff.plan_map import MapRow

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
        if not (self.without.corners and self.added.corners):
            return []
        low = max(hull.corners[0].accuracy for hull in (self.without, self.added))
        high = min(hull.corners[-1].accuracy for hull in (self.without, self.added))
        return [
            1.0 - self.added.joules_at(at) / self.without.joules_at(at)
            for at in np.linspace(low, high, PLACES).tolist()
            if low <= high
        ]

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
    stages = tuple(
        replace(stage, penalty=column)
        for stage, column in zip(problem.stages, penalty, strict=True)
    )

    def best(alpha: float) -> Choice | None:
        settings = replace(problem.settings, alpha=alpha)
        found = settled(replace(problem, stages=stages, settings=settings), pareto.solve)
        return found[0] if found else None

    def worth(choice: Choice) -> tuple[float, float]:
        parts = list(zip(stages, choice, strict=True))
        accuracy = problem.combined_accuracy([float(s.accuracy[at]) for s, at in parts])
        return accuracy, sum(float(s.penalty[at]) for s, at in parts)

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
