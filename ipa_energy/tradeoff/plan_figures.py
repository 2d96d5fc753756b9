"""A plan and its four objectives, straight from a problem's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ipa_energy.as_json import or_none
from ipa_energy.optimizer.front import reserved_cores
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.solution import Choice, build_plan


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
    """

    label: str
    accuracy: float
    cost_cores: float
    latency_s: float
    joules_per_request: float
    objective: float

    def to_json(self) -> dict[str, Any]:
        """The plan as ``tradeoff --json`` shows it."""
        return {
            "label": self.label,
            "accuracy": self.accuracy,
            "cost_cores": self.cost_cores,
            "latency_s": self.latency_s,
            "joules_per_request": or_none(self.joules_per_request),
            "objective": self.objective,
        }


def figures_of(problem: Problem, choice: Choice) -> PlanFigures:
    """The figures of a choice; the accuracies are the raw ones of the profile."""
    parts = list(zip(problem.stages, choice, strict=True))
    cores = sum(float(reserved_cores(candidates)[at]) for candidates, at in parts)
    plan = build_plan(problem, choice)
    return PlanFigures(
        label=plan.label,
        accuracy=plan.accuracy_raw,
        cost_cores=cores,
        latency_s=latency_s(problem, choice),
        joules_per_request=joules(problem, choice),
        objective=objective(problem, choice),
    )


def objective(problem: Problem, choice: Choice) -> float:
    """Equation (6) of a choice."""
    parts = list(zip(problem.stages, choice, strict=True))
    scores = [float(candidates.accuracy[at]) for candidates, at in parts]
    penalty = sum(float(candidates.penalty[at]) for candidates, at in parts)
    return problem.settings.alpha * problem.combined_accuracy(scores) - penalty


def latency_s(problem: Problem, choice: Choice) -> float:
    """Left side of (4)."""
    return sum(float(c.delay_s[at]) for c, at in zip(problem.stages, choice, strict=True))


def joules(problem: Problem, choice: Choice) -> float:
    """Left side of (5); NaN without energy in the profile."""
    return sum(float(c.energy_j[at]) for c, at in zip(problem.stages, choice, strict=True))
