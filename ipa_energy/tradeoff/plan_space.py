"""The plans of one load: every feasible one as a point, one plan's figures, and which are run.

Up to :data:`MOST_PLANS` combinations of options are all looked at. Of more, a seeded uniform sample
is, with the exact ends of every objective added, so that neither memory nor time grows with the
product of the stages.

The rule by which N of them are run (:data:`RULE`):

1. the best plan of the objective with the YAML's weights, and with an energy weight of 0;
2. the best in each objective alone: most accurate, fewest cores, fastest, least energy (equal ones
   by the objective);
3. again and again the plan whose nearest chosen neighbour is farthest away (greedy max-min:
   Gonzalez, Theoretical Computer Science 38, 1985), until there are N or nothing new is left.

Distance is Euclidean over accuracy and the logarithms of cores, latency, joules and batch, each
scaled to 0..1 over the feasible plans, so that twice the batch or half the joules is as far at the
light end as at the heavy one. The seed decides between plans that are equally far.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ipa_energy.arrays import Floats, Ints, Mask
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.front import batches, farthest_points
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import CONSTRAINT_RTOL, Candidates, Problem, total_of
from ipa_energy.optimizer.settings import Cap
from ipa_energy.optimizer.ties import TIE_RTOL, ordered

PLAIN = ("cost", "batch", "latency_s", "joules_per_request", "watts")
"""Quantities that every plan has figures of."""

MOST_PLANS = 400_000
SAMPLE = 200_000
"""Combinations drawn where there are more than :data:`MOST_PLANS`; infeasible ones drop out."""


@dataclass(frozen=True, slots=True)
class Space:
    """Feasible plans; arrays of one length P.

    Attributes:
        problem: what they are plans of.
        choices: (P, stages) index into ``problem.stages[s]``.
        accuracy: A of the objective.
        accuracy_raw: the same of the raw accuracies; differs if the objective has ranks.
        cost_cores, latency_s, joules_per_request: as the plan has them; joules are those that
            ``energy_risk`` plans with, NaN without energy in the profile.
        batch: geometric mean of the stages' batches.
        combinations: how many plans there are, feasible or not.
        is_complete: every combination was looked at.
        feasible: how many are feasible; scaled up from the sample unless ``is_complete``.
        further: further quantity → what the plans have of it.
    """

    problem: Problem
    choices: Ints
    accuracy: Floats
    accuracy_raw: Floats
    cost_cores: Floats
    latency_s: Floats
    joules_per_request: Floats
    batch: Floats
    combinations: int
    is_complete: bool
    feasible: int
    further: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.accuracy)

    @property
    def has_energy(self) -> bool:
        """True if joules are known."""
        return len(self) > 0 and not bool(np.isnan(self.joules_per_request).any())

    @property
    def columns(self) -> dict[str, Floats]:
        """The objectives by the names of :mod:`.correlation`, as points have them."""
        return {
            "accuracy": self.accuracy_raw,
            "cost_cores": self.cost_cores,
            "latency_s": self.latency_s,
            "joules_per_request": self.joules_per_request,
            **self.further,
        }

    def choice(self, index: int) -> Choice:
        """The choice of one plan."""
        return tuple(self.choices[index].tolist())


def space_of(problem: Problem, seed: int = 0) -> Space:
    """The feasible plans of a problem, in the order of the profile."""
    shape = [len(candidates) for candidates in problem.stages]
    combinations = math.prod(shape)
    is_complete = combinations <= MOST_PLANS
    if is_complete:
        drawn = np.stack(np.unravel_index(np.arange(combinations), shape), axis=1)
    else:
        random = np.random.default_rng(seed)
        drawn = np.stack([random.integers(length, size=SAMPLE) for length in shape], axis=1)
    kept = drawn[_fits(problem, drawn)]
    feasible = len(kept)
    if not is_complete:
        feasible = round(combinations * feasible / SAMPLE)
        ends = np.array(_ends(problem), dtype=np.intp).reshape(-1, len(shape))
        kept = np.unique(np.concatenate([kept, ends]), axis=0)
        feasible = max(feasible, len(kept))
    cores = problem.columns("cost")
    doublings = [np.log2(batches(candidates)) for candidates in problem.stages]
    return Space(
        problem=problem,
        choices=kept,
        accuracy=_combined([stage.accuracy for stage in problem.stages], problem, kept),
        accuracy_raw=_combined([_raw(stage) for stage in problem.stages], problem, kept),
        cost_cores=_total(cores, kept),
        latency_s=_total([stage.delay_s for stage in problem.stages], kept),
        joules_per_request=_total([stage.energy_j for stage in problem.stages], kept),
        batch=2.0 ** (_total(doublings, kept) / max(1, len(shape))),
        combinations=combinations,
        is_complete=is_complete,
        feasible=feasible,
        further={name: _total(problem.columns(name), kept) for name in further_quantities(problem)},
    )


def further_quantities(problem: Problem) -> list[str]:
    """What the problem weights or caps beyond cores, batches, latency and energy."""
    named = [term.quantity for term in problem.terms] + [cap.quantity for cap in problem.caps]
    return [name for name in dict.fromkeys(named) if name not in PLAIN]


def objectives(problem: Problem, space: Space, energy_weight: float) -> Floats:
    """(P,) objective (6) of every plan; NaN if joules are needed and absent.

    Args:
        problem: whose penalty holds no energy term: it is one of weight 0.
        space: its plans.
        energy_weight: the weight to score them with.
    """
    settings = problem.settings
    penalty = _total([stage.penalty for stage in problem.stages], space.choices)
    worth = settings.alpha * space.accuracy - penalty
    if energy_weight == 0:
        return worth
    return worth - energy_weight * _total(problem.columns(settings.energy_metric), space.choices)


def _fits(problem: Problem, choices: Ints) -> Mask:
    fits = np.ones(len(choices), dtype=bool)
    for cap in problem.caps:
        used = _total(problem.columns(cap.quantity), choices)
        fits &= used <= cap.limit + CONSTRAINT_RTOL * abs(cap.limit)
    return fits


def _total(columns: Sequence[Floats], choices: Ints) -> Floats:
    total = np.zeros(len(choices))
    for stage, column in enumerate(columns):
        total = total + column[choices[:, stage]]
    return total


def _raw(candidates: Candidates) -> Floats:
    options = candidates.stage.options
    return np.array([options[index].accuracy for index in candidates.option_index])


def _combined(columns: list[Floats], problem: Problem, choices: Ints) -> Floats:
    """Pipeline accuracy of every choice from one array of scores a stage."""
    method = problem.settings.accuracy_method
    if method == "multiply":
        product = np.ones(len(choices))
        for stage, column in enumerate(columns):
            product = product * column[choices[:, stage]]
        return product
    total = _total(columns, choices)
    return total / len(columns) if method == "average" else total


def _ends(problem: Problem) -> list[Choice]:
    """The best plan in each objective alone, exactly."""
    wanted: list[Sequence[Floats]] = [
        problem.columns("cost"),
        [candidates.delay_s for candidates in problem.stages],
    ]
    joules = [candidates.energy_j for candidates in problem.stages]
    if not any(np.isnan(column).any() for column in joules):
        wanted.append(joules)
    found = [best_of(problem, [np.zeros(len(c)) for c in problem.stages], alpha=1.0)]
    found += [best_of(problem, columns, alpha=0.0) for columns in wanted]
    return [choice for choice in found if choice is not None]


def best_of(
    problem: Problem,
    penalty: Sequence[Floats],
    *,
    alpha: float,
    caps: tuple[Cap, ...] | None = None,
) -> Choice | None:
    """The choice that maximises ``alpha·A − Σ penalty`` under the problem's limits, exactly.

    Args:
        problem: the program at one load.
        penalty: what to subtract, one array a stage.
        alpha: weight of the accuracy.
        caps: other limits; None for the problem's.
    """
    changed = problem.with_penalty(penalty, alpha)
    found = pareto.solve(changed if caps is None else dataclasses.replace(changed, caps=caps))
    return found[0] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFigures:
    """What a plan runs and what it comes to.

    Attributes:
        label: what it runs.
        accuracy: of the pipeline, raw; see :func:`figures_of`.
        cost_cores: reserved cores.
        latency_s: model latency and batch wait; of a trace at its lowest load.
        joules_per_request: of the end that ``energy_risk`` plans with; NaN without energy in the
            profile.
        objective: equation (6).
        amounts: further quantity → what the plan has of it.
    """

    label: str
    accuracy: float
    cost_cores: float
    latency_s: float
    joules_per_request: float
    objective: float
    amounts: Mapping[str, float] = field(default_factory=dict)


def figures_of(problem: Problem, choice: Choice) -> PlanFigures:
    """The figures of a choice; the accuracies are the raw ones of the profile."""
    plan = build_plan(problem, choice)
    return PlanFigures(
        label=plan.label,
        accuracy=plan.accuracy_raw,
        cost_cores=total_of(problem.columns("cost"), choice),
        latency_s=amount(problem, choice, "latency_s"),
        joules_per_request=joules(problem, choice),
        objective=problem.worth(choice),
        amounts={name: amount(problem, choice, name) for name in further_quantities(problem)},
    )


def amount(problem: Problem, choice: Choice, quantity: str) -> float:
    """What a choice has of a quantity; NaN for joules without energy in the profile."""
    return total_of(problem.columns(quantity), choice)


def joules(problem: Problem, choice: Choice) -> float:
    """Left side of (5); NaN without energy in the profile."""
    return amount(problem, choice, "joules_per_request")


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
    for origin, index in _best_in_each(space, energy_weight):
        chosen[index] = f"{chosen[index]}, {origin}" if index in chosen else origin
    chosen = dict(list(chosen.items())[:count])
    random = np.random.default_rng(seed)
    more = farthest_points(scaled, list(chosen), count - len(chosen), same=_SAME, random=random)
    chosen |= dict.fromkeys(more, FARTHEST)
    return {space.choice(index): origin for index, origin in chosen.items()}


def _best_in_each(space: Space, energy_weight: float) -> list[tuple[str, int]]:
    """(why, index) of the plans of the rule's first two steps."""
    without = objectives(space.problem, space, 0.0)
    worth = without
    found = []
    if energy_weight != 0:
        worth = objectives(space.problem, space, energy_weight)
        found.append((f"best at energy weight {energy_weight:g}", _best(space, worth)))
    found.append(("best without energy", _best(space, without)))
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


def _best(space: Space, worth: Floats) -> int:
    """The plan of most worth; of equally good ones that which :mod:`~.optimizer.ties` takes."""
    most = float(worth.max())
    equal = np.flatnonzero(worth >= most - TIE_RTOL * max(1.0, abs(most)))
    choices = [space.choice(int(index)) for index in equal]
    first = ordered(space.problem, choices)[0]
    return int(equal[choices.index(first)])


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
