"""Whether the chosen plan stays the best one when the profile's joules are as uncertain as it says.

Each option's dynamic joules are drawn anew, independently of each other, from Student's t
distribution around their mean, with the trials less one as degrees of freedom, and within their
95 % interval; never below 0. Every draw is a profile of its own, for which the best plan is found
exactly. Idle watts have no interval in a profile and stay.

How the draws are made and decided: :mod:`.resampled`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.problem import Problem, within
from ipa_energy.optimizer.solution import EQUAL_OBJECTIVE_RTOL, Choice, build_plan
from ipa_energy.tradeoff.plan_figures import PlanFigures, figures_of, joules, objective
from ipa_energy.tradeoff.resampled import Resampled, energy_scale

DRAWS = 1000
MOST_REPLACEMENTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A distribution over draws."""

    mean: float
    median: float
    p95: float
    most: float

    @classmethod
    def of(cls, values: Floats) -> Spread | None:
        """Of some values; None of none."""
        if not len(values):
            return None
        median, p95, most = np.quantile(values, [0.5, 0.95, 1.0]).tolist()
        return cls(mean=float(values.mean()), median=median, p95=p95, most=most)

    def to_json(self) -> dict[str, float]:
        """The distribution as ``tradeoff --json`` shows it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A plan that is better than the chosen one in some draws.

    Attributes:
        label: what it runs.
        draws: in how many it is the best plan while the chosen one is not.
    """

    label: str
    draws: int

    def to_json(self) -> dict[str, Any]:
        """The plan as ``tradeoff --json`` shows it."""
        return {"label": self.label, "draws": self.draws}


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """How the chosen plan fares over the draws.

    Attributes:
        draws, seed: how many, and of which generator (numpy's PCG64).
        options: how many options the plan could have been made of at this load.
        unknown_intervals: how many of them have no interval and kept their mean.
        counts_energy: False if no decision depends on joules (weight 0 and no energy SLA).
        stays_optimal: share of draws in which no plan is better.
        breaks_energy_sla: share in which the plan needs more than the energy SLA.
        draws_without_plan: share in which no plan keeps its SLAs.
        replacements: the plans that are best in the other draws, most frequent first.
        joules: the plan's own joules per request.
        regret: what the plan's objective lacks to the best one; over draws where it keeps its SLA.
        regret_j: the same in joules per request: over the energy weight; None if that is 0.
        extra_j: its joules above those of the best plan, which may be more accurate and need more;
            over the same draws.
        upper: the best plan with every option at the upper end of its interval; None if then
            nothing is feasible.
        upper_is_same: whether that is the chosen plan, or one equally good then.
    """

    draws: int
    seed: int
    options: int
    unknown_intervals: int
    counts_energy: bool
    stays_optimal: float
    breaks_energy_sla: float
    draws_without_plan: float
    replacements: tuple[Replacement, ...]
    joules: Spread | None
    regret: Spread | None
    regret_j: Spread | None
    extra_j: Spread | None
    upper: PlanFigures | None
    upper_is_same: bool

    def to_json(self) -> dict[str, Any]:
        """The robustness as ``tradeoff --json`` shows it."""
        spreads = {
            "joules": self.joules,
            "regret": self.regret,
            "regret_j": self.regret_j,
            "extra_j": self.extra_j,
        }
        return {
            "draws": self.draws,
            "seed": self.seed,
            "options": self.options,
            "unknown_intervals": self.unknown_intervals,
            "counts_energy": self.counts_energy,
            "stays_optimal": self.stays_optimal,
            "breaks_energy_sla": self.breaks_energy_sla,
            "draws_without_plan": self.draws_without_plan,
            "replacements": [replacement.to_json() for replacement in self.replacements],
            **{name: spread.to_json() if spread else None for name, spread in spreads.items()},
            "upper": self.upper.to_json() if self.upper else None,
            "upper_is_same": self.upper_is_same,
        }


def robustness_of(
    problem: Problem, choice: Choice, *, draws: int = DRAWS, seed: int = 0
) -> Robustness:
    """How a plan fares when the profile is resampled. Deterministic in ``seed``.

    Args:
        problem: the program at one load, of a profile with joules.
        choice: the chosen plan.
        draws: how often.
        seed: of the draws.
    """
    resampled = Resampled(problem, draws, seed)
    chosen, best = resampled.judged([choice]), resampled.best()
    own, own_j, kept = chosen.worth[:, 0], chosen.joules[:, 0], chosen.keeps_sla[:, 0]
    lacks = best.worth[kept] - own[kept]
    stays = np.zeros(draws, dtype=bool)
    stays[kept] = lacks <= EQUAL_OBJECTIVE_RTOL * np.maximum(1.0, np.abs(best.worth[kept]))
    regret = np.maximum(0.0, lacks)
    price = problem.settings.energy_weight * energy_scale(problem)
    upper = resampled.at_upper_end()
    found = pareto.solve(upper)
    return Robustness(
        draws=draws,
        seed=seed,
        options=sum(len(candidates) for candidates in problem.stages),
        unknown_intervals=resampled.unknown_intervals,
        counts_energy=problem.settings.needs_energy,
        stays_optimal=float(stays.mean()),
        breaks_energy_sla=float((~kept).mean()),
        replacements=_replacements(problem, [best.choices[at] for at in np.flatnonzero(~stays)]),
        draws_without_plan=sum(winner is None for winner in best.choices) / draws,
        joules=Spread.of(own_j),
        regret=Spread.of(regret),
        regret_j=Spread.of(regret / price) if price > 0 else None,
        extra_j=Spread.of(own_j[kept] - best.joules[kept]),
        upper=figures_of(upper, found[0]) if found else None,
        upper_is_same=bool(found) and _is_as_good(upper, choice, found[0]),
    )


def _replacements(problem: Problem, winners: list[Choice | None]) -> tuple[Replacement, ...]:
    """The best plans of the draws in which the chosen one is not."""
    counted = Counter(winner for winner in winners if winner is not None)
    return tuple(
        Replacement(label=build_plan(problem, winner).label, draws=count)
        for winner, count in counted.most_common(MOST_REPLACEMENTS)
    )


def _is_as_good(problem: Problem, choice: Choice, best: Choice) -> bool:
    if not within(joules(problem, choice), problem.settings.energy_sla_joules):
        return False
    top = objective(problem, best)
    return top - objective(problem, choice) <= EQUAL_OBJECTIVE_RTOL * max(1.0, abs(top))
