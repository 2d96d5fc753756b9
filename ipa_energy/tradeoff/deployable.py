"""From a configuration that was asked for to a plan at one load, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ipa_energy.optimizer.problem import CONSTRAINT_RTOL, Loads, Program
from ipa_energy.optimizer.solution import Plan, plan_of
from ipa_energy.records import Option, Stage
from ipa_energy.tradeoff.configuration import Configuration
from ipa_energy.tradeoff.study import Skipped
from ipa_energy.tradeoff.wanted import Wanted


def deployable(
    wanted: Sequence[Wanted], program: Program, loads: Loads
) -> tuple[list[Configuration], list[Skipped]]:
    """Those configurations that carry the load, each with its replicas; and the others.

    One that breaks an SLA by the profile stays in: the user asked for it, and the share of requests
    inside the SLA will tell.
    """
    found: list[Configuration] = []
    skipped: list[Skipped] = []
    for one in wanted:
        plan = _plan(one, program, loads)
        if isinstance(plan, Skipped):
            skipped.append(plan)
            continue
        key = f"C{len(found) + 1}"
        found.append(Configuration(key=key, name=one.name, origin=one.origin, plan=plan))
    return found, skipped


def _plan(wanted: Wanted, program: Program, loads: Loads) -> Plan | Skipped:
    picks = []
    for stage, option, given in zip(program.stages, wanted.options, wanted.replicas, strict=True):
        needed = replicas_needed(stage, option, loads.peak_rps)
        replicas = needed if given is None else given
        if replicas < needed:
            capacity_rps = replicas * option.throughput_rps / stage.requests_per_input
            return Skipped(
                wanted.name,
                f"{replicas} of {option.label} in stage {stage.name} carry"
                f" {capacity_rps:.3g} rps, not {loads.peak_rps:g}: it takes {needed}",
            )
        if given is None and needed > program.settings.scaling_cap:
            return Skipped(
                wanted.name,
                f"stage {stage.name} needs {needed} replicas of {option.label}, and scaling_cap is"
                f" {program.settings.scaling_cap}",
            )
        picks.append((stage, option, replicas))
    return plan_of(picks, program.settings, program.rules, loads.mean_rps)


def replicas_needed(stage: Stage, option: Option, load_rps: float) -> int:
    """n* of equation (2) for pipeline requests at ``load_rps``."""
    share = stage.requests_per_input * load_rps / option.throughput_rps
    return max(1, math.ceil(share * (1 - CONSTRAINT_RTOL)))
