"""What a trade-off study found: the records that the table, the JSON and the report are made of.

::

    Study
    ├── cases: Case …            one a load or trace
    │   ├── points: Point …          the configurations as run, each with its Configuration
    │   ├── correlations             over the points, and over every plan
    │   ├── only_energy              how many plans are good only because energy counts
    │   ├── hypervolume              of the fronts with and without energy
    │   └── yardstick                joules against the best plans of other weights without energy
    ├── plan_map                 the optimal plan over energy_weight and load
    ├── hardware                 several profiles side by side
    ├── sensitivity              exchange rates, one a case, if asked for
    └── answer                   the same in words

What could not be had is None, NaN or an empty tuple, with a reason beside it; NaN and infinity are
null in the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipa_energy.records import Quality
from ipa_energy.tradeoff.correlation import Correlation
from ipa_energy.tradeoff.energy_added import Hypervolume, OnlyEnergy, Yardstick
from ipa_energy.tradeoff.named_configurations import Skipped
from ipa_energy.tradeoff.plan_map import HardwareComparison, MapRow, PlanMap
from ipa_energy.tradeoff.sensitivity import Sensitivity
from ipa_energy.tradeoff.trials import Point


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
        optima: further quantity with a weight → the optimal plan over that weight.
        yardstick: what energy saves against the best other weights; None without energy, or with no
            feasible plan.
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
    optima: Mapping[str, MapRow] = field(default_factory=dict)
    yardstick: Yardstick | None = None
    conflict: str | None = None


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
    sensitivity: Mapping[str, Sensitivity] = field(default_factory=dict)
    answer: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
