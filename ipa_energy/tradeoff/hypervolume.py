"""How much of the trade-off space plans can reach, with and without energy as an objective.

Both fronts are measured in one space, that of accuracy, cost, latency and joules per request: the
exact front of all four, and the part of it that an optimizer blind to energy offers, which is the
exact front of the first three. Where several plans share accuracy, cost and latency the blind one
is given the most frugal of them, so the gain is what energy adds at least.

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
        return {
            "with_energy": self.with_energy,
            "without_energy": self.without_energy,
            "gain": self.gain,
            "points_with_energy": self.points_with_energy,
            "points_without_energy": self.points_without_energy,
            "best": dict(self.best),
            "worst": dict(self.worst),
            "reference": self.reference,
            "is_exact": self.is_exact,
        }


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
    import moocore

    if len(scaled) > MOST_POINTS:
        # Every k-th along the first objective, its two ends among them.
        order = np.lexsort(scaled.T[::-1])
        scaled = scaled[order[np.linspace(0, len(order) - 1, MOST_POINTS).astype(np.intp)]]
    volume = float(moocore.hypervolume(scaled, ref=np.full(scaled.shape[1], REFERENCE)))
    return volume / float(REFERENCE ** scaled.shape[1])
