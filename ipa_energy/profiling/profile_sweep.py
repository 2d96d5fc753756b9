"""A pipeline's profile: what was asked for, checked, then measured (:mod:`.profile_files`).

With a budget only a share of the grid is measured (:mod:`.grid`) and the rest is predicted
(:mod:`.entry_rows`). Whatever can be refused is refused before anything is written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import (
    OPENMP,
    check_precisions,
    check_requirements,
    gpu_pipeline,
    load_pipeline,
    served_pipeline,
)
from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.profiling.entry_rows import predict
from ipa_energy.profiling.gpus import GpuPool, GpuSlot, check_shares, probe_gpus
from ipa_energy.profiling.grid import Entry, chosen_variants, grid, within_budget
from ipa_energy.profiling.machine import Placement, describe_machine, placements, read_topology
from ipa_energy.profiling.profile_files import ProfileFiles, Rounds, Work
from ipa_energy.profiling.profile_meta import Stability, check_replicas, stability
from ipa_energy.profiling.replica_group import ReplicaSpec
from ipa_energy.profiling.replica_meter import MeterChoice, check_settings
from ipa_energy.profiling.trial_journal import RANDOM_WEIGHTS, inputs_of
from ipa_energy.profiling.trial_windows import EmptyMachine, TrialSettings

logger = logging.getLogger(__name__)

SERVING = "serving: from the bytes of a batch's requests to those of its answers, without gRPC"
"""What a profile's meta file calls its figures where they are not those of the network alone."""

GUARANTEED_TRIALS = 3
"""Fewer windows than this give no interval worth the name."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry that could not be measured or predicted, and why."""

    entry: Entry
    reason: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did.

    Attributes:
        rows: measured rows this call added to the table.
        kept: entries that were already complete.
        failures: entries without a row; the others are not affected.
        predicted: rows that a fit gave, in the place of entries beyond the budget.
        stability: drift and outliers over all windows of the profile.
        fit: stage → quantity → the fit behind the predicted rows and its held-out error.
        replica_check: the model J = e + n·p/λ against measured replicas and loads
            (:mod:`.profile_meta`); None without such entries.
        remaining: trials that the time limit left for another call.
    """

    rows: tuple[ProfileRow, ...]
    kept: tuple[Entry, ...]
    failures: tuple[Failure, ...]
    predicted: tuple[ProfileRow, ...]
    stability: Stability
    fit: dict[str, Any]
    replica_check: dict[str, Any] | None
    remaining: int = 0


def profile_pipeline(
    pipeline: str,
    *,
    out: Path,
    meter: MeterChoice,
    hardware: str = "cpu",
    gpus: GpuPool | None = None,
    gpu_shares: Sequence[float] = (0.0,),
    stages: Collection[str] | None = None,
    variants: Collection[str] | None = None,
    batches: Sequence[int] = (1, 2, 4, 8),
    allocations: Sequence[int] = (1,),
    replicas: Sequence[int] = (1,),
    loads_rps: Sequence[float] = (),
    precisions: Sequence[str] = (),
    core_ids: Sequence[int] | None = None,
    weights: Mapping[str, str] | None = None,
    trials: int | None = None,
    settings: TrialSettings | None = None,
    quick: bool = False,
    resume: bool = False,
    only_changed: bool = False,
    redo_contended: bool = False,
    budget: float | None = None,
    time_limit_s: float | None = None,
    seed: int = 0,
    serving: bool = False,
) -> Sweep:
    """Measure a pipeline's entries into a profile table.

    Args:
        pipeline: folder, file or module of the pipeline.
        out: the table; ``OUT.meta.json`` and ``OUT.trials.jsonl`` are written beside it.
        meter: where the joules come from.
        hardware: label of entries on CPUs alone, for the table's ``hardware`` column; those on a
            GPU carry its model.
        gpus: the GPUs to run on (:func:`.gpus.find_gpus`); None for CPUs alone.
        gpu_shares: of one GPU for each replica; 0 for entries on CPUs alone.
        stages: only these; None for all.
        variants: only these; None for all.
        batches: batch sizes.
        allocations: cores of one replica.
        replicas: numbers of replicas that work at once.
        loads_rps: loads below saturation to measure besides, for all replicas together.
        precisions: of numbers that the pipeline's models are built in (its ``PRECISIONS``), each a
            row of its own; empty for the pipeline's own, which has no label.
        core_ids: CPUs to pin replicas to, in order; None to choose among those this process may
            use, so that replicas share no core (:mod:`.machine`).
        weights: variant → weights file; random weights for those not named.
        trials: trials an entry, one each round; None for three, or one if ``quick``.
        settings: lengths and limits of a trial.
        quick: short trials, for a first look.
        resume: go on with an existing table; what it has is kept and not measured again.
        only_changed: go on with an existing table, if there is one, and measure anew what was
            measured with another variant, weights, versions, settings, meter or machine.
        redo_contended: go on with an existing table, and measure anew the trials during which
            others used the cores; the earlier ones stay in the journal.
        budget: share of the grid to measure, above 0 and at most 1; the rest is predicted, and
            marked so. None for all of it.
        time_limit_s: begin no trial that would likely end later than this; what is left is for
            another call that resumes. None for no limit.
        seed: of the order, the input batches, and what a budget picks.
        serving: measure what a live replica does with a batch, from the bytes of the requests to
            those of the answers, and not the network alone.

    Raises:
        ConfigError: a filter names nothing, replicas do not fit the cores, windows are shorter
            than the meter needs, or ``out`` exists.
        UnavailableError: the meter cannot be made, or the pipeline's library cannot use the GPU.
        IpaEnergyError: the output cannot be written.
    """
    settings = settings or TrialSettings()
    if quick:
        settings = settings.quick()
    if trials is None:
        trials = 1 if quick else GUARANTEED_TRIALS
    module = load_pipeline(pipeline)
    check_requirements(module)
    if gpus is not None:
        gpu_pipeline(module)
    check_precisions(module, precisions)
    if serving:
        served_pipeline(module, where="--serving")
        if precisions:
            raise ConfigError("handlers have one", where="--precision", fix="leave out --serving")
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
        gpu_shares=_labels(gpu_shares, gpus, hardware),
        precisions=precisions or ("",),
    )
    _check(trials, budget, replicas, loads_rps, time_limit_s)
    if seed < 0:
        raise ConfigError(f"a seed of {seed}", where="--seed", allowed="0 or more")
    measured = entries if budget is None else within_budget(entries, budget, seed)
    check_settings(meter, settings, measured)
    inputs = inputs_of(module.VARIANTS, weights or {})
    topology = read_topology(cores)
    placed = placements(topology, core_ids, sorted({(e.replicas, e.cpu_cores) for e in measured}))
    weights = weights or {}
    specs = {
        entry: _specs(
            entry, placed, gpus, pipeline=pipeline, weights=weights, seed=seed, serving=serving
        )
        for entry in measured
    }
    context = {
        "pipeline": Path(pipeline).name,
        "machine": describe_machine(),
        "meter": meter.meta,
        "versions": dict(module.versions()),
        "openmp": dict(OPENMP),
        **({"covers": SERVING} if serving else {}),
        "weights": {"default": RANDOM_WEIGHTS},
        "settings": settings.to_json(gpu=gpus is not None),
        "seed": seed,
    }
    if gpus is not None:
        seen = probe_gpus(gpus, pipeline, gpu_shares)
        context["gpu"] = {**gpus.meta, "as_the_models_see_it": seen}
    files = ProfileFiles(out, context, inputs, resume=resume or only_changed or redo_contended)
    files.begin(entries, renew=only_changed)
    if redo_contended:
        logger.info("%d contended trials are measured again", files.journal.redo_contended())
    work = Work(
        specs=specs,
        predicted=tuple(entry for entry in entries if entry not in set(measured)),
        accuracies={(v.stage, v.name): v.accuracy for v in chosen},
        meter=meter,
        settings=settings,
        trials=trials,
        seed=seed,
        session={
            "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "allocations": list(allocations),
            "gpu_shares": list(gpu_shares),
            "batches": list(batches),
            "replicas": list(replicas),
            "loads_rps": list(loads_rps),
            **({"precisions": list(precisions)} if precisions else {}),
            "core_ids": list(cores),
            "topology": topology.to_json(),
            "placements": {
                f"{cpus}c ×{count}": placement.to_json()
                for (count, cpus), placement in placed.items()
            },
            "meter": dict(meter.observed),
            "trials": trials,
            "budget": budget,
        },
        empty=EmptyMachine(settings.empty_max_age_s),
        time_limit_s=time_limit_s,
    )
    return _measure(work, files)


def _measure(work: Work, files: ProfileFiles) -> Sweep:
    """Measure what ``files`` lack, predict the rest, and keep everything as it comes."""
    rounds = Rounds(work, files)
    remaining = rounds.run()
    # A prediction waits for all that it rests on.
    wanted = [e for e in work.predicted if not remaining and not files.has_row(e)]
    predicted = predict(files.rows, wanted)
    files.set_predicted(predicted)
    files.write_meta()
    failures = rounds.failures
    failures |= {entry: f"{entry.label}: {why}" for entry, why in predicted.failures.items()}
    for reason in failures.values():
        logger.error("no row: %s", reason)
    return Sweep(
        rows=tuple(rounds.rows),
        kept=rounds.kept,
        failures=tuple(Failure(entry, why) for entry, why in failures.items()),
        predicted=predicted.rows,
        stability=stability(files.journal.trials),
        fit=predicted.meta["stages"],
        replica_check=check_replicas(files.rows),
        remaining=remaining,
    )


def _labels(shares: Sequence[float], gpus: GpuPool | None, hardware: str) -> dict[float, str]:
    """Share of a GPU → label of its entries.

    Raises:
        ConfigError: a share is none, or there is no GPU to have it of.
    """
    check_shares(shares)
    labels = {}
    for share in shares:
        if share > 0 and gpus is None:
            raise ConfigError(f"a GPU share of {share:g} and no GPU", allowed="0")
        labels[share] = gpus.hardware if share > 0 and gpus is not None else hardware
    return labels


def _check(
    trials: int,
    budget: float | None,
    replicas: Sequence[int],
    loads_rps: Sequence[float],
    time_limit_s: float | None,
) -> None:
    if trials < 1:
        raise ConfigError(f"trials is {trials}", allowed="1 or more")
    if time_limit_s is not None and not time_limit_s > 0:
        raise ConfigError(f"a time limit of {time_limit_s:g} s", allowed="more than 0 s")
    if budget is not None and (set(replicas) != {1} or loads_rps):
        raise ConfigError(
            f"a budget with {max(replicas)} replicas and {len(loads_rps)} loads",
            allowed="one replica, back to back: the others are measured, not predicted",
        )


def _specs(
    entry: Entry,
    placed: Mapping[tuple[int, int], Placement],
    gpus: GpuPool | None,
    *,
    pipeline: str,
    weights: Mapping[str, str],
    seed: int,
    serving: bool,
) -> tuple[ReplicaSpec, ...]:
    """The entry's replicas, on cores of their own and with their share of a GPU.

    Raises:
        ConfigError: there are not as many GPUs.
    """
    slots: Sequence[GpuSlot | None] = [None] * entry.replicas
    if entry.gpu_share > 0 and gpus is not None:
        slots = gpus.slots(entry.gpu_share, entry.replicas)
    cores = placed[entry.replicas, entry.cpu_cores].replicas
    return tuple(
        ReplicaSpec(
            pipeline=pipeline,
            stage=entry.stage,
            variant=entry.variant,
            batch=entry.batch,
            core_ids=core_ids,
            weights=weights.get(entry.variant),
            seed=seed,
            gpu=slot,
            serving=serving,
            precision=entry.precision,
        )
        for core_ids, slot in zip(cores, slots, strict=True)
    )
