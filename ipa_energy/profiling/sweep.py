"""All entries of a pipeline, measured in shuffled rounds, kept as they come.

Every round visits every entry once, in an order of its own drawn from the seed: an entry's trials
lie far apart, and drift of the machine does not pass for a difference between variants. A trial is
on disk when it ends (:mod:`.journal`), an entry's row joins the table when its last trial is in,
and a sweep that was killed goes on where it stopped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError, ServingError
from ipa_energy.meters.cpu_time import CpuTimeMeter, PowerModel
from ipa_energy.profiling.grid import Entry, chosen_variants, grid, visits
from ipa_energy.profiling.machine import describe_machine
from ipa_energy.profiling.output import ProfileFiles
from ipa_energy.profiling.replica import ReplicaSpec
from ipa_energy.profiling.row import ProfileRow
from ipa_energy.profiling.runtime import load_pipeline
from ipa_energy.profiling.trial import MeterFactory, TrialSettings, run_trial

logger = logging.getLogger(__name__)

GUARANTEED_TRIALS = 3
"""Fewer windows than this give no interval worth the name."""


@dataclass(frozen=True, slots=True)
class MeterChoice:
    """A meter for each replica, and what the meta file says about it.

    Attributes:
        meter_for: makes the meter of one replica.
        facts: name, quality, power model and the like.
    """

    meter_for: MeterFactory
    facts: Mapping[str, Any]


def cpu_time_choice(model: PowerModel) -> MeterChoice:
    """CPU time × ``model``, charged to each replica by its process tree."""
    percent = f"±{100 * model.relative_error:g} %"
    return MeterChoice(
        lambda pid, cores: CpuTimeMeter(model, pid=pid, reserved_cores=cores),
        {
            "name": CpuTimeMeter.name,
            "quality": CpuTimeMeter.quality,
            "power_model": model.to_json(),
            "uncertainty": f"{percent} on every joule and watt, from the power model; "
            "energy_ci95_j is the spread of the trials only",
        },
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry that could not be measured, and why."""

    entry: Entry
    reason: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did.

    Attributes:
        rows: rows this call added to the table.
        kept: entries that were already complete.
        failures: entries without a row; the others are not affected.
    """

    rows: tuple[ProfileRow, ...]
    kept: tuple[Entry, ...]
    failures: tuple[Failure, ...]


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
    core_ids: Sequence[int] | None = None,
    weights: Mapping[str, str] | None = None,
    trials: int = GUARANTEED_TRIALS,
    settings: TrialSettings | None = None,
    quick: bool = False,
    resume: bool = False,
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
        core_ids: CPUs to pin replicas to, in order; None for those this process may use.
        weights: variant → weights file; random weights for those not named.
        trials: trials an entry, one each round.
        settings: lengths and limits of a trial.
        quick: one short trial an entry, for a first look.
        resume: go on with an existing table; what it has is kept and not measured again.
        seed: of the order and the input batches.

    Raises:
        ConfigError: a filter names nothing, an allocation does not fit, or ``out`` exists.
        IpaEnergyError: the output cannot be written.
    """
    settings = settings or TrialSettings()
    if quick:
        settings, trials = settings.quick(), 1
    module = load_pipeline(pipeline)
    cores = tuple(core_ids if core_ids is not None else sorted(os.sched_getaffinity(0)))
    chosen = chosen_variants(module, stages, variants)
    entries = grid(chosen, hardware, allocations, batches, len(cores))
    if trials < 1:
        raise ConfigError(f"trials is {trials}", allowed="1 or more")
    context = {
        "pipeline": Path(pipeline).name,
        "machine": describe_machine(),
        "meter": meter.facts,
        "versions": dict(module.versions()),
        "weights": {"default": "random"} | {n: Path(w).name for n, w in (weights or {}).items()},
        "settings": asdict(settings),
        "seed": seed,
    }
    files = ProfileFiles(out, context, resume=resume)
    session = {
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "allocations": list(allocations),
        "batches": list(batches),
        "core_ids": list(cores),
        "trials": trials,
    }
    specs = {
        entry: ReplicaSpec(
            pipeline=pipeline,
            stage=entry.stage,
            variant=entry.variant,
            batch=entry.batch,
            core_ids=cores[: entry.cpu_cores],
            weights=(weights or {}).get(entry.variant),
            seed=seed,
        )
        for entry in entries
    }
    accuracies = {(v.stage, v.name): v.accuracy for v in chosen}
    return _measure(
        _Work(specs, accuracies, meter.meter_for, settings, trials, seed, session), files
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """What to measure and how."""

    specs: dict[Entry, ReplicaSpec]
    accuracies: dict[tuple[str, str], float]
    meter_for: MeterFactory
    settings: TrialSettings
    trials: int
    seed: int
    session: dict[str, Any]


def _measure(work: _Work, files: ProfileFiles) -> Sweep:
    from tqdm import tqdm

    done = files.trial_counts()
    kept = tuple(entry for entry in work.specs if files.has_row(entry))
    rows: list[ProfileRow] = []
    failures: dict[Entry, str] = {}

    def finish(entry: Entry) -> None:
        try:
            rows.append(files.add_row(entry, work.accuracies[entry.stage, entry.variant]))
        except MeterUnavailableError as error:
            failures[entry] = f"{entry.label}: {error}"

    for entry in work.specs:  # those that a kill left between their last trial and their row
        if entry not in kept and done.get(entry, 0) >= work.trials:
            finish(entry)
    plan = [
        (number, entry)
        for number, entry in visits(list(work.specs), work.trials, work.seed)
        if entry not in kept and done.get(entry, 0) <= number
    ]
    if plan:
        files.journal.add_session(work.session)
    with tqdm(plan, unit="trial", disable=None) as progress:
        for number, entry in progress:
            if entry in failures:
                continue
            progress.set_postfix_str(entry.label)
            try:
                trial = run_trial(work.specs[entry], work.meter_for, work.settings)
            except (ServingError, MeterUnavailableError) as error:
                failures[entry] = f"{entry.label}: {error}"
                continue
            files.journal.add_trial(entry, trial)
            logger.info("round %d: %s", number + 1, entry.label)
            if len(files.journal.trials[entry]) == work.trials:
                finish(entry)
            files.write_meta()
    files.write_meta()
    for reason in failures.values():
        logger.error("not measured: %s", reason)
    return Sweep(tuple(rows), kept, tuple(Failure(e, why) for e, why in failures.items()))
