"""What a trade-off study found: the records that the table, the JSON and the report are made of.

::

    Study
    ├── cases: Case …            one a load or trace
    │   ├── points: Point …          the configurations as run, each with its Configuration
    │   ├── correlations             over the points, and over every plan
    │   ├── only_energy              how many plans are good only because energy counts
    │   └── hypervolume              of the fronts with and without energy
    ├── plan_map                 the optimal plan over energy_weight and load
    ├── hardware                 several profiles side by side
    ├── sensitivity              exchange rates, one a case, if asked for
    └── answer                   the same in words

What could not be had is None, NaN or an empty tuple, with a reason beside it; NaN and infinity are
null in the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ipa_energy.records import Quality
from ipa_energy.tradeoff.configuration import Configuration
from ipa_energy.tradeoff.correlation import Correlation
from ipa_energy.tradeoff.hardware import HardwareComparison
from ipa_energy.tradeoff.hypervolume import Hypervolume
from ipa_energy.tradeoff.only_energy import OnlyEnergy
from ipa_energy.tradeoff.plan_map import MapRow, PlanMap
from ipa_energy.tradeoff.point import Estimate, Point

__all__ = [
    "Analysis",
    "Case",
    "Configuration",
    "Correlation",
    "Estimate",
    "HardwareComparison",
    "Hypervolume",
    "MapRow",
    "OnlyEnergy",
    "PlanMap",
    "Point",
    "Skipped",
    "Study",
]


class Analysis(Protocol):
    """A sensitivity analysis, as :mod:`.sensitivity` makes it."""

    def to_json(self) -> dict[str, Any]:
        """The analysis as ``tradeoff --json`` shows it."""
        ...

    def lines(self) -> Sequence[str]:
        """The analysis in words, one finding a line."""
        ...


@dataclass(frozen=True, slots=True)
class Skipped:
    """A configuration that was asked for and not run.

    Attributes:
        name: what the list calls it, or its label.
        reason: why, in a sentence.
    """

    name: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The record as ``tradeoff --json`` shows it."""
        return {"name": self.name, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The study at one load.

    Attributes:
        name: ``10 rps``, or the name of the trace.
        load_rps: the load, the mean one of a trace; joules of plans are those of this load.
        lowest_rps, peak_rps: least and most requests of a second; equal at a constant load.
        duration_s: length of each trial's load.
        latency_sla_s: end-to-end latency SLA.
        plans: how many plans there are whose replicas carry the load, inside their SLAs or not.
        feasible_plans: how many of them keep the SLAs by the profile; exact if ``is_counted``,
            else scaled up from a seeded sample.
        is_counted: every plan was looked at.
        points: one a configuration, in the order of their keys.
        skipped: configurations that could not be run here.
        correlations: see :mod:`.correlation`.
        only_energy: None without energy in the profile, or with no feasible plan.
        hypervolume: None likewise.
        optimum: the optimal plan over the energy weight under this very load, a trace's extremes
            included (:attr:`Study.plan_map` is of constant loads); None without energy.
        conflict: why no plan is feasible; None if one is.
    """

    name: str
    load_rps: float
    lowest_rps: float
    peak_rps: float
    duration_s: int
    latency_sla_s: float
    plans: int
    feasible_plans: int
    is_counted: bool
    points: tuple[Point, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    correlations: tuple[Correlation, ...] = ()
    only_energy: OnlyEnergy | None = None
    hypervolume: Hypervolume | None = None
    optimum: MapRow | None = None
    conflict: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The case as ``tradeoff --json`` shows it."""
        return {
            "name": self.name,
            "load_rps": self.load_rps,
            "lowest_rps": self.lowest_rps,
            "peak_rps": self.peak_rps,
            "duration_s": self.duration_s,
            "latency_sla_s": self.latency_sla_s,
            "plans": self.plans,
            "feasible_plans": self.feasible_plans,
            "is_counted": self.is_counted,
            "points": [point.to_json() for point in self.points],
            "skipped": [skipped.to_json() for skipped in self.skipped],
            "correlations": [correlation.to_json() for correlation in self.correlations],
            "only_energy": self.only_energy.to_json() if self.only_energy else None,
            "hypervolume": self.hypervolume.to_json() if self.hypervolume else None,
            "optimum": self.optimum.to_json() if self.optimum else None,
            "conflict": self.conflict,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A whole study of one pipeline.

    Attributes:
        pipeline: its name.
        profile: file name of the profile that the study is about (the first, of several).
        hardware: what that was profiled on.
        backend: what served: ``simulate`` …
        seed: of the selection; trial k of a configuration runs with ``seed + k``.
        trials: of each configuration.
        selection: the rule by which the configurations were picked, a sentence.
        settings: weights and caps of the objective, by their YAML keys.
        meter: meters behind the profile's joules; None if it has none.
        quality: weakest quality of the profile's joules; None if it has none.
        cases: one a load.
        plan_map: None without energy in the profile.
        hardware_comparison: None for a single profile.
        sensitivity: one a case with a feasible plan, if it was asked for; case name → analysis.
        answer: what was found, in sentences, most important first.
        warnings: what keeps the study from saying more.
        versions: program → version.
    """

    pipeline: str
    profile: str
    hardware: str
    backend: str
    seed: int
    trials: int
    selection: str
    settings: Mapping[str, Any]
    meter: str | None
    quality: Quality | None
    cases: tuple[Case, ...]
    plan_map: PlanMap | None = None
    hardware_comparison: HardwareComparison | None = None
    sensitivity: Mapping[str, Analysis] = field(default_factory=dict)
    answer: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The study as ``tradeoff --json`` shows it."""
        compared = self.hardware_comparison
        return {
            "pipeline": self.pipeline,
            "profile": self.profile,
            "hardware": self.hardware,
            "backend": self.backend,
            "seed": self.seed,
            "trials": self.trials,
            "selection": self.selection,
            "settings": dict(self.settings),
            "meter": self.meter,
            "quality": self.quality,
            "cases": [case.to_json() for case in self.cases],
            "plan_map": self.plan_map.to_json() if self.plan_map else None,
            "hardware_comparison": compared.to_json() if compared else None,
            "sensitivity": {name: found.to_json() for name, found in self.sensitivity.items()},
            "answer": list(self.answer),
            "warnings": list(self.warnings),
            "versions": dict(self.versions),
        }
