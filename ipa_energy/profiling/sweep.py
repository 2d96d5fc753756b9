"""A pipeline's profile: what was asked for, checked, then measured (:mod:`.rounds`).

With a budget only a share of the grid is measured (:mod:`.fit.budget`) and the rest is predicted
(:mod:`.fit.prediction`). Whatever can be refused is refused before anything is written.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.profiling.fit.budget import within_budget
from ipa_energy.profiling.grid import Entry, chosen_variants, grid
from ipa_energy.profiling.inputs import RANDOM_WEIGHTS, inputs_of
from ipa_energy.profiling.machine import describe_machine
from ipa_energy.profiling.metering import (
    MeterChoice,
    check_settings,
    cpu_time_choice,
    machine_choice,
)
from ipa_energy.profiling.output import ProfileFiles
from ipa_energy.profiling.replica import ReplicaSpec
from ipa_energy.profiling.rounds import Failure, Sweep, Work, measure
from ipa_energy.profiling.runtime import Pipeline, check_requirements, load_pipeline
from ipa_energy.profiling.settings import TrialSettings

__all__ = [
    "Failure",
    "MeterChoice",
    "Sweep",
    "cpu_time_choice",
    "machine_choice",
    "profile_pipeline",
]

GUARANTEED_TRIALS = 3
"""Fewer windows than this give no interval worth the name."""


def profile_pipeline(
    pipeline: str,
    *,
    out: Path,
    meter: MeterChoice,
    hardware: str = "cpu",
    stages: Collection[str] | None = None,
    variants: Collection[str] | None = None,
    batches: Sequence[int] = (1, 2, 4, 8),
    allocations: Sequence[int] = (1,),
    replicas: Sequence[int] = (1,),
    loads_rps: Sequence[float] = (),
    core_ids: Sequence[int] | None = None,
    weights: Mapping[str, str] | None = None,
    trials: int = GUARANTEED_TRIALS,
    settings: TrialSettings | None = None,
    quick: bool = False,
    resume: bool = False,
    only_changed: bool = False,
    budget: float | None = None,
    seed: int = 0,
) -> Sweep:
    """Measure a pipeline's entries into a profile table.

    Args:
        pipeline: folder, file or module of the pipeline.
        out: the table; ``OUT.meta.json`` and ``OUT.trials.jsonl`` are written beside it.
        meter: where the joules come from.
        hardware: label for the table's ``hardware`` column.
        stages: only these; None for all.
        variants: only these; None for all.
        batches: batch sizes.
        allocations: cores of one replica.
        replicas: numbers of replicas that work at once.
        loads_rps: loads below saturation to measure besides, for all replicas together.
        core_ids: CPUs to pin replicas to, in order; None for those this process may use.
        weights: variant → weights file; random weights for those not named.
        trials: trials an entry, one each round.
        settings: lengths and limits of a trial.
        quick: one short trial an entry, for a first look.
        resume: go on with an existing table; what it has is kept and not measured again.
        only_changed: go on with an existing table, if there is one, and measure anew what was
            measured with another variant, weights, versions, settings, meter or machine.
        budget: share of the grid to measure, above 0 and at most 1; the rest is predicted, and
            marked so. None for all of it.
        seed: of the order, the input batches, and what a budget picks.

    Raises:
        ConfigError: a filter names nothing, replicas do not fit the cores, windows are shorter
            than the meter needs, or ``out`` exists.
        MeterUnavailableError: the meter cannot be made.
        IpaEnergyError: the output cannot be written.
    """
    settings = settings or TrialSettings()
    if quick:
        settings, trials = settings.quick(), 1
    module = load_pipeline(pipeline)
    check_requirements(module)
    cores = tuple(core_ids if core_ids is not None else sorted(os.sched_getaffinity(0)))
    chosen = chosen_variants(module, stages, variants)
    entries = grid(
        chosen,
        hardware,
        allocations,
        batches,
        available_cores=len(cores),
        replicas=replicas,
        loads_rps=loads_rps,
    )
    if trials < 1:
        raise ConfigError(f"trials is {trials}", allowed="1 or more")
    if budget is not None and (set(replicas) != {1} or loads_rps):
        raise ConfigError(
            f"a budget with {max(replicas)} replicas and {len(loads_rps)} loads",
            allowed="one replica, back to back: the others are measured, not predicted",
        )
    measured = entries if budget is None else within_budget(entries, budget, seed)
    check_settings(meter, settings, measured)
    inputs = inputs_of(module.VARIANTS, weights or {})
    context = _context(pipeline, module, meter, settings, seed)
    files = ProfileFiles(out, context, inputs, resume=resume or only_changed)
    files.begin(entries, renew=only_changed)
    work = Work(
        specs={entry: _specs(entry, pipeline, cores, weights or {}, seed) for entry in measured},
        predicted=tuple(entry for entry in entries if entry not in set(measured)),
        accuracies={(v.stage, v.name): v.accuracy for v in chosen},
        meter=meter,
        settings=settings,
        trials=trials,
        seed=seed,
        session={
            "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "allocations": list(allocations),
            "batches": list(batches),
            "replicas": list(replicas),
            "loads_rps": list(loads_rps),
            "core_ids": list(cores),
            "trials": trials,
            "budget": budget,
        },
    )
    return measure(work, files)


def _context(
    pipeline: str, module: Pipeline, meter: MeterChoice, settings: TrialSettings, seed: int
) -> dict[str, Any]:
    return {
        "pipeline": Path(pipeline).name,
        "machine": describe_machine(),
        "meter": meter.facts,
        "versions": dict(module.versions()),
        "weights": {"default": RANDOM_WEIGHTS},
        "settings": asdict(settings),
        "seed": seed,
    }


def _specs(
    entry: Entry, pipeline: str, cores: Sequence[int], weights: Mapping[str, str], seed: int
) -> tuple[ReplicaSpec, ...]:
    """The entry's replicas, on cores of their own."""
    return tuple(
        ReplicaSpec(
            pipeline=pipeline,
            stage=entry.stage,
            variant=entry.variant,
            batch=entry.batch,
            core_ids=tuple(cores[number * entry.cpu_cores : (number + 1) * entry.cpu_cores]),
            weights=weights.get(entry.variant),
            seed=seed,
        )
        for number in range(entry.replicas)
    )
