"""A pipeline ready to be planned for: its YAML, its profile, and the program the two make."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.carbon.run_carbon import RunCarbon, carbon_of
from ipa_energy.config import PipelineConfig, load_config
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.plan_building import one_part, plan_of_parts
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import LATENCY_SLA, Moment, planned_load_rps
from ipa_energy.optimizer.solve import Result, decide
from ipa_energy.planning.policies import PlannedProgram, apply_baseline, program_for
from ipa_energy.planning.sites import at_sites
from ipa_energy.planning.stages import stages_from_rows
from ipa_energy.profile_table.profile_csv import check_joules, read_profile
from ipa_energy.records import Option, Quality, Stage, joined_meters, weakest_quality
from ipa_energy.serving.deployment import Deployment

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Planner:
    """Everything a decision needs.

    Attributes:
        config: the YAML with the command line's options laid over it.
        stages: the profile as stages, first stage first.
        planned: the program, its SLA and base allocations, and the variants that are left out.
        profile_path: the profile table.
        carbon: intensities along a run; None if the YAML says nothing of carbon.
    """

    config: PipelineConfig
    stages: tuple[Stage, ...]
    planned: PlannedProgram
    profile_path: Path
    carbon: RunCarbon | None = None

    @property
    def program(self) -> Program:
        """The integer program, load still open."""
        return self.planned.program

    @property
    def options(self) -> list[Option]:
        """Every option of every stage."""
        return [option for stage in self.stages for option in stage.options]

    @property
    def has_energy(self) -> bool:
        """True if every option has joules."""
        return all(option.has_energy for option in self.options)

    @property
    def meter(self) -> str | None:
        """Meters behind the profile's joules, joined by ``+``; None without energy."""
        meters = {option.provenance.meter for option in self.options if option.provenance}
        return joined_meters(sorted(meters)) or None

    @property
    def quality(self) -> Quality | None:
        """The weakest quality of the joules; None if any option has none."""
        qualities = [option.provenance.quality for option in self.options if option.provenance]
        return weakest_quality(qualities) if self.has_energy else None

    @property
    def hardware(self) -> str:
        """What the profile was measured on, joined by ``+``."""
        return "+".join(sorted({option.hardware for option in self.options}))

    def program_of(self, stages: Sequence[Stage]) -> Program:
        """The same program of the same options with other joules."""
        return Program(stages, self.program.settings, self.program.rules)

    def warn_of_excluded(self) -> None:
        """Log which variants the rules leave out, and why."""
        for stage, variants in self.planned.excluded.items():
            for variant, reason in variants.items():
                logger.warning("stage %s goes on without %s: %s", stage, variant, reason)

    def signals(self, now_s: float = 0.0) -> Mapping[str, float]:
        """What a decision at a second of the run knows beside the load."""
        interval_s = self.config.adaptation_interval
        found = {} if self.carbon is None else dict(self.carbon.signals(now_s, interval_s))
        steps = self.config.sla_steps
        if steps is not None:  # the plan must keep what comes before the next decision, too
            found[LATENCY_SLA] = steps.tightest(now_s, now_s + interval_s)
        return found

    def moment(self, load_rps: float, now_s: float = 0.0) -> Moment:
        """A load at a second of the run; none is planned for as one request an interval."""
        planned_rps = planned_load_rps(load_rps, self.config.adaptation_interval)
        return Moment.at(planned_rps, **self.signals(now_s))

    def decide(self, load_rps: float, *, top_k: int = 1, limit_s: float | None = None) -> Result:
        """The best plans at a load, at second 0, by the YAML's solver.

        Raises:
            ConfigError: as :func:`~ipa_energy.optimizer.solve.solve`.
            UnavailableError: the solver or its licence is missing.
        """
        method = self.config.optimization_method
        return decide(self.program, self.moment(load_rps), method, top_k, limit_s)

    def plan_running(self, running: Deployment, load: Moment | float) -> Plan:
        """What a configuration, one entry a stage, means at a load, whether or not it is good."""
        settings = self.program.settings
        picks = [
            (stage, runs.parts or (one_part(runs.option, runs.replicas, settings),))
            for stage, runs in zip(self.stages, running, strict=True)
        ]
        return plan_of_parts(picks, settings, self.program.rules, load)


def load_planner(
    path: Path, overrides: Mapping[str, object] | None = None, *, policy: str | None = None
) -> Planner:
    """Read a pipeline YAML and its profile.

    Args:
        path: the YAML.
        overrides: YAML key → value, from the command line.
        policy: one of IPA's baselines laid over the YAML; None leaves it as it is.

    Raises:
        ConfigError: anything wrong with the YAML, the options or the profile.
    """
    config = load_config(path, overrides)
    profile_path = config.profile
    if profile_path is None:
        raise ConfigError(
            "no profile is named",
            where=path,
            fix="set the key profile, or give --profile CSV; ipa-energy profile measures one",
        )
    rows = read_profile(profile_path)
    check_joules(rows, profile_path)
    stages = stages_from_rows(rows, config, where=profile_path)
    if policy is not None:
        config = apply_baseline(config, policy, stages)
    if config.sites:
        stages = at_sites(stages, config.sites)
    return planner_of(config, stages, profile_path, carbon_of(config))


def planner_of(
    config: PipelineConfig, stages: tuple[Stage, ...], profile_path: Path, carbon: RunCarbon | None
) -> Planner:
    """A planner of what was read: its program knows what a joule emits at the run's start.

    Raises:
        ConfigError: as :func:`~ipa_energy.planning.policies.program_for`.
    """
    signals = carbon.signals(0.0, config.adaptation_interval) if carbon else None
    program = program_for(config, stages, signals)
    return Planner(config, stages, program, profile_path, carbon)
