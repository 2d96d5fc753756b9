"""Several profiles of one pipeline side by side: which plan each picks, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.problem import Loads, Program
from ipa_energy.optimizer.solution import Plan, build_plan
from ipa_energy.optimizer.solve import solve
from ipa_energy.planning.planner import Planner
from ipa_energy.records import Quality
from ipa_energy.tradeoff.provenance import has_energy, meter_of, quality_of
from ipa_energy.tradeoff.thresholds import most_frugal


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """One of the profiles that are compared.

    Attributes:
        profile: its file name, unique in the comparison.
        hardware: what it was taken on, by its rows.
        meter: meters behind its joules; None without energy.
        quality: weakest quality of them; None without energy.
        options: profiled options of all stages.
        latency_sla_s: the SLA it is planned with; IPA's own rule makes it depend on the profile.
    """

    profile: str
    hardware: str
    meter: str | None
    quality: Quality | None
    options: int
    latency_sla_s: float

    def to_json(self) -> dict[str, Any]:
        """The record as ``tradeoff --json`` shows it."""
        return {
            "profile": self.profile,
            "hardware": self.hardware,
            "meter": self.meter,
            "quality": self.quality,
            "options": self.options,
            "latency_sla_s": self.latency_sla_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """What one profile's optimum is at one load and weight.

    Attributes:
        profile: of :attr:`HardwareComparison.profiles`.
        load_rps: the load.
        energy_weight: the weight; infinity for the least joules that any plan needs (null in JSON).
        plan: the optimal plan; None if there is none.
        reason: why there is none; None if there is one.
    """

    profile: str
    load_rps: float
    energy_weight: float
    plan: Plan | None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The pick as ``tradeoff --json`` shows it."""
        weight = self.energy_weight
        return {
            "profile": self.profile,
            "load_rps": self.load_rps,
            "energy_weight": None if math.isinf(weight) else weight,
            "label": self.plan.label if self.plan else None,
            "plan": self.plan.to_json() if self.plan else None,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class HardwareComparison:
    """The profiles and their picks.

    Attributes:
        profiles: two or more, in the order of the command line.
        picks: by load, then by weight, then in the order of the profiles.
    """

    profiles: tuple[Profiled, ...]
    picks: tuple[Pick, ...]

    def to_json(self) -> dict[str, Any]:
        """The comparison as ``tradeoff --json`` shows it."""
        return {
            "profiles": [profile.to_json() for profile in self.profiles],
            "picks": [pick.to_json() for pick in self.picks],
        }


def compare_hardware(
    planners: Sequence[Planner], loads: Sequence[Loads], energy_weight: float
) -> HardwareComparison:
    """What each planner picks at each load without energy, with the weight, and for energy alone.

    Args:
        planners: of one pipeline, each with its own profile; two or more.
        loads: the loads of the study.
        energy_weight: the YAML's; left out if it is 0.
    """
    names = profile_names([planner.profile_path for planner in planners])
    weights = sorted({0.0, energy_weight, math.inf})
    return HardwareComparison(
        profiles=tuple(
            _profiled(name, planner) for name, planner in zip(names, planners, strict=True)
        ),
        picks=tuple(
            _pick(name, planner, load, weight)
            for load in loads
            for weight in weights
            for name, planner in zip(names, planners, strict=True)
        ),
    )


def profile_names(paths: Sequence[Path]) -> list[str]:
    """File names, with as many folders before them as it takes to tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(paths):
            return names
    return [str(path) for path in paths]


def _profiled(name: str, planner: Planner) -> Profiled:
    options = [option for stage in planner.stages for option in stage.options]
    return Profiled(
        profile=name,
        hardware="+".join(sorted({option.hardware for option in options})),
        meter=meter_of(planner.stages),
        quality=quality_of(planner.stages),
        options=len(options),
        latency_sla_s=planner.planned.latency_sla_s,
    )


def _pick(name: str, planner: Planner, loads: Loads, weight: float) -> Pick:
    def picked(plan: Plan | None, reason: str | None = None) -> Pick:
        return Pick(
            profile=name,
            load_rps=loads.mean_rps,
            energy_weight=weight,
            plan=plan,
            reason=reason,
        )

    if weight > 0 and not has_energy(planner.stages):
        return picked(None, "no energy in the profile")
    program = planner.program
    weighted = replace(program.settings, energy_weight=weight if math.isfinite(weight) else 0.0)
    problem = Program(program.stages, weighted, program.rules).over(loads)
    if math.isfinite(weight):
        result = solve(problem)
        return picked(result.best) if result.plans else picked(None, str(result.conflict))
    choice = most_frugal(problem)
    if choice is None:
        return picked(None, str(find_conflict(problem)))
    return picked(build_plan(problem, choice))
