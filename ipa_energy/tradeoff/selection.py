"""Which plans a study runs: the ends of the space first, then the farthest from those chosen.

The rule (:data:`RULE`), for N configurations out of the feasible plans at a load:

1. the best plan of the objective with the YAML's weights, and with an energy weight of 0;
2. the best in each objective alone: most accurate, fewest cores, fastest, least energy (equal ones
   by the objective);
3. again and again the plan whose nearest chosen neighbour is farthest away (greedy max-min:
   Gonzalez, Theoretical Computer Science 38, 1985), until there are N or nothing new is left.

Distance is Euclidean over accuracy and the logarithms of cores, latency, joules and batch, each
scaled to 0..1 over the feasible plans, so that twice the batch or half the joules is as far at the
light end as at the heavy one. The seed decides between plans that are equally far, and which plans
are looked at where there are too many to look at all (:mod:`.space`).
"""

from __future__ import annotations

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.optimizer.solution import Choice
from ipa_energy.tradeoff.space import Space, objectives

RULE = (
    "best plans of the objective (with the weights given, and without energy), best plan in each"
    " of accuracy, cores, latency and energy alone, then greedily the plan farthest from those"
    " chosen, over scaled accuracy and log cores, latency, joules and batch"
)

FARTHEST = "farthest from the others"
_SAME = 1e-9
"""Distances nearer than this are equal; a plan this near to a chosen one is the same point."""


def selected(space: Space, count: int, *, energy_weight: float, seed: int) -> dict[Choice, str]:
    """At most ``count`` choices, each with why it is in, in the order in which they were chosen.

    Args:
        space: the feasible plans, of a problem whose energy weight is 0.
        count: how many to choose; fewer come back if no more differ in any objective or batch.
        energy_weight: the YAML's.
        seed: of the choice between equally far plans.
    """
    chosen: dict[int, str] = {}
    if len(space) == 0:
        return {}
    scaled = _scaled(space)
    for origin, index in _ends(space, energy_weight):
        chosen[index] = f"{chosen[index]}, {origin}" if index in chosen else origin
    chosen = dict(list(chosen.items())[:count])
    random = np.random.default_rng(seed)
    nearest = np.full(len(space), np.inf)
    for index in chosen:
        nearest = np.minimum(nearest, _distances(scaled, index))
    while len(chosen) < count:
        farthest = float(nearest.max())
        if farthest <= _SAME:
            break
        index = int(random.choice(np.flatnonzero(nearest >= farthest - _SAME)))
        chosen[index] = FARTHEST
        nearest = np.minimum(nearest, _distances(scaled, index))
    return {space.choice(index): origin for index, origin in chosen.items()}


def _ends(space: Space, energy_weight: float) -> list[tuple[str, int]]:
    """(why, index) of the plans of the rule's first two steps."""
    without = objectives(space.problem, space, 0.0)
    worth = without
    found = []
    if energy_weight != 0:
        worth = objectives(space.problem, space, energy_weight)
        found.append((f"best at energy weight {energy_weight:g}", int(np.argmax(worth))))
    found.append(("best without energy", int(np.argmax(without))))
    columns = {
        "most accurate": -space.accuracy,
        "fewest cores": space.cost_cores,
        "fastest": space.latency_s,
    }
    if space.has_energy:
        columns["least energy"] = space.joules_per_request
    for origin, column in columns.items():
        found.append((origin, int(np.lexsort((-worth, column))[0])))
    return found


def _scaled(space: Space) -> Floats:
    """(P, objectives) 0..1; an objective that does not vary is 0 everywhere."""
    ratios = [space.cost_cores, space.latency_s, space.batch]
    if space.has_energy:
        ratios.append(space.joules_per_request)
    scaled = []
    for column in (space.accuracy, *(_logarithm(ratio) for ratio in ratios)):
        span = float(np.ptp(column))
        scaled.append((column - column.min()) / span if span > _SAME else np.zeros(len(column)))
    return np.stack(scaled, axis=1)


def _logarithm(values: Floats) -> Floats:
    """Logarithms; the values themselves if one of them is 0, whose logarithm is −∞."""
    return np.log(values) if values.min() > 0 else values


def _distances(scaled: Floats, index: int) -> Floats:
    found: Floats = np.linalg.norm(scaled - scaled[index], axis=1)
    return found
