"""An IPA profiling folder (``data/results/profiling/nodes/series/N``) as rows of a profile.

What IPA would plan with comes out: the figures its own parser computes from the same files (mean
and 99th percentile of the model's latency, the chosen statistic of the recorded throughput) for the
experiments at one load (its ``profiling_load``), of the variants in its ``accuracies.yaml``.

Experiments that IPA passes over in silence (never finished, torn, every request timed out) are
passed over too, but named. What contradicts itself is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from ipa_energy.config.source import raise_all
from ipa_energy.errors import ConfigError
from ipa_energy.files import write_json
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profile_table.ipa_results import (
    NO_JOULES,
    IpaResult,
    NoEnergyError,
    UnusableError,
    estimated_joules,
    has_joules,
    read_result,
    recorded_joules,
)
from ipa_energy.profile_table.ipa_tables import (
    MAPPER_FILE,
    IpaExperiment,
    Note,
    load_label,
    read_accuracies,
    read_experiments,
    read_notes,
)
from ipa_energy.profile_table.profile_csv import meta_path, write_profile
from ipa_energy.profile_table.profile_row import ProfileRow, rounded

logger = logging.getLogger(__name__)

Statistic = Literal["max", "p99", "avg"]

KEEPS_UP = 0.95
"""A replica whose throughput is this share of its load was not at its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportChoice:
    """How a folder is read.

    Attributes:
        accuracies: IPA's ``accuracies.yaml``.
        pipeline: whose accuracies to take; None for the pipeline the folder names.
        load: the ``profiling_load``; None if all are of one load.
        reference_throughput: which statistic of the recorded throughput is h(o).
        hardware: what the profile says it ran on, where the folder does not.
        power_model: estimate the joules of experiments without; None to leave them empty.
    """

    accuracies: Path
    pipeline: str | None = None
    load: str | None = None
    reference_throughput: Statistic = "max"
    hardware: str = "cpu"
    power_model: PowerModel | None = None


@dataclass(frozen=True, slots=True)
class SeriesImport:
    """What came out of one folder.

    Attributes:
        folder: the series.
        stage: what its node is called in the profile.
        pipeline: whose accuracies were taken.
        rows: the profile's.
        skipped: experiment → why it gave no row.
        remarks: experiment → what is weak about its row.
    """

    folder: Path
    stage: str
    pipeline: str
    rows: list[ProfileRow] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What the meta file and ``--json`` say of it; the folder by its name alone."""
        return {
            "series": self.folder.resolve().name,
            "stage": self.stage,
            "pipeline": self.pipeline,
            "rows": len(self.rows),
            "skipped": self.skipped,
            "remarks": self.remarks,
        }


def import_profile(
    folders: Sequence[Path], stages: Sequence[str], choice: ImportChoice, out: Path
) -> list[SeriesImport]:
    """Write a profile, and its meta file, from one series a stage.

    Raises:
        ConfigError: a folder is unusable, the profile exists, or stages and folders do not match.
    """
    if len(folders) != len(stages) or len(set(stages)) != len(stages):
        raise ConfigError(
            f"{len(folders)} folders for the stages {', '.join(stages) or 'none'}",
            where="--stage",
            allowed="one stage a folder, in their order, none twice",
        )
    if out.exists():
        raise ConfigError("the profile exists already", where=out, fix="choose another output")
    found = [
        read_series(folder, stage, choice) for folder, stage in zip(folders, stages, strict=True)
    ]
    write_profile(out, [row for series in found for row in series.rows])
    write_json(meta_path(out), _meta(found, choice))
    return found


def read_series(folder: Path, stage: str, choice: ImportChoice) -> SeriesImport:
    """The rows of one series.

    Raises:
        ConfigError: with every mistake of the folder's files; or nothing usable is in them.
    """
    experiments = read_experiments(folder)
    notes = read_notes(folder)
    pipeline = choice.pipeline or experiments[0].pipeline
    accuracies = read_accuracies(choice.accuracies, pipeline, stage)
    found = SeriesImport(folder, stage, pipeline)
    _name_strangers(found, experiments, notes)
    problems: list[ConfigError] = []
    for experiment in _chosen(experiments, notes, choice.load, folder):
        if experiment.variant not in accuracies:
            what = f"variant {experiment.variant} is not in {choice.accuracies.name}"
            found.skipped[_name(experiment)] = what
            continue
        try:
            row, remarks = row_of(
                experiment,
                folder,
                notes.get(experiment.number),
                stage=stage,
                accuracy=accuracies[experiment.variant],
                choice=choice,
            )
            found.rows.append(row)
            if remarks:
                found.remarks[_name(experiment)] = remarks
        except UnusableError as reason:
            found.skipped[_name(experiment)] = str(reason)
        except ConfigError as problem:
            problems.append(problem)
    if problems:
        raise_all(problems, folder)
    if not found.rows:
        reasons = [f"{name}: {why}" for name, why in found.skipped.items()]
        raise ConfigError("\n  ".join(["no experiment gave a row", *reasons]), where=folder)
    _log(found)
    return found


def _chosen(
    experiments: Sequence[IpaExperiment], notes: Mapping[int, Note], load: str | None, folder: Path
) -> list[IpaExperiment]:
    """The experiments at the load; all of them if there is but one, or each knows its own."""
    loads = list(dict.fromkeys(experiment.load for experiment in experiments))
    of_each = (notes.get(experiment.number) for experiment in experiments)
    known = all(note is not None and note.load_rps is not None for note in of_each)
    if load is None and len(loads) > 1 and not known:
        raise ConfigError(
            f"experiments at {len(loads)} loads: {', '.join(loads)}",
            where=folder / MAPPER_FILE,
            allowed="those at one load: where it does not saturate a replica, the throughput is"
            " the load",
            fix="choose IPA's profiling_load with --load",
        )
    chosen = [each for each in experiments if load is None or each.load == load_label(load)]
    if not chosen:
        raise ConfigError(
            f"no experiments at load {load}", where=folder / MAPPER_FILE, allowed=", ".join(loads)
        )
    seen: dict[tuple[object, ...], IpaExperiment] = {}
    for experiment in chosen:
        first = seen.setdefault(experiment.entry, experiment)
        if first is not experiment:
            raise ConfigError(
                f"experiment {experiment.number} repeats the entry of {first.number}",
                where=experiment.where,
                allowed="one experiment for each variant, cpu_request, batch, replicas and load",
                fix="copy the folder and keep one of the two lines",
            )
    return chosen


def _name_strangers(
    found: SeriesImport, experiments: Sequence[IpaExperiment], notes: Mapping[int, Note]
) -> None:
    """Results and notes that no line of the mapper knows."""
    known = {experiment.number for experiment in experiments}
    results = {int(path.stem) for path in found.folder.glob("*.json") if path.stem.isdecimal()}
    for number in sorted((results | set(notes)) - known):
        found.skipped[f"experiment {number}"] = f"no line in {MAPPER_FILE}"


def _meta(found: Sequence[SeriesImport], choice: ImportChoice) -> dict[str, Any]:
    model = choice.power_model
    estimate = model and {
        "meter": "cpu-time",
        "from": "cumulative CPU seconds of the series (cpu_usage_count)",
        "power_model": model.to_json(),
        "uncertainty": f"±{model.relative_error:.0%} on every estimated joule and watt",
    }
    return {
        "pipeline": found[0].pipeline,
        "source": "IPA profiling folder",
        "load": choice.load,
        "reference_throughput": choice.reference_throughput,
        "series": [series.to_json() for series in found],
        "estimate": estimate,
    }


def _log(found: SeriesImport) -> None:
    """One warning a reason, however many experiments it holds for."""
    reasons: dict[str, list[str]] = {}
    for name, why in found.skipped.items():
        reasons.setdefault(f"left out: {why}", []).append(name)
    for name, remarks in found.remarks.items():
        for remark in remarks:
            reasons.setdefault(remark, []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        logger.warning("%s: %s%s: %s", found.folder, names[0], more, reason)


def _name(experiment: IpaExperiment) -> str:
    entry = f"{experiment.variant} {experiment.cpu_cores:g}c b{experiment.batch}"
    return f"experiment {experiment.number} ({entry})"


def row_of(
    experiment: IpaExperiment,
    folder: Path,
    note: Note | None,
    *,
    stage: str,
    accuracy: float,
    choice: ImportChoice,
    node: str | None = None,
) -> tuple[ProfileRow, list[str]]:
    """The row of an experiment, and remarks on what is weak about it.

    Args:
        experiment: its line of the mapper.
        folder: its series.
        note: of it, if there is one.
        stage: of the row.
        accuracy: of the row.
        choice: how the folder is read.
        node: whose latencies to take; None for the experiment's own.

    Raises:
        UnusableError: it has no result, or its latencies are no latencies of a profile.
        ConfigError: its result is no result, or its energy contradicts itself.
    """
    where = str(folder / f"{experiment.number}.json")
    result = read_result(Path(where), node or experiment.node)
    note = note or Note(experiment_id=experiment.number)
    # The difference of two times has no more than twelve digits.
    latency_avg_s = rounded(fmean(result.latencies_s), 12)
    latency_p99_s = rounded(float(np.percentile(result.latencies_s, 99)), 12)
    if latency_p99_s < latency_avg_s:
        latency_p99_s = _p99_at_least(latency_avg_s, latency_p99_s)
    throughput_rps, remarks = _throughput(experiment, result, choice.reference_throughput)
    if note.load_rps is None and experiment.replicas * throughput_rps >= (
        KEEPS_UP * experiment.load_rps
    ):
        remarks.append("it kept up with its load: its throughput may be more")
    if result.lost:
        total = result.lost + len(result.latencies_s)
        remarks.append(f"{result.lost} of {total} requests timed out: its latency is the others'")
    load_rps = _served_load(experiment, note, result, throughput_rps)
    try:
        if has_joules(result):
            joules = recorded_joules(
                result, note, replicas=experiment.replicas, load_rps=load_rps, where=where
            )
        elif choice.power_model is not None:
            joules = estimated_joules(experiment, result, choice.power_model, load_rps=load_rps)
        else:
            joules = replace(NO_JOULES, trials=note.trials or 1)
    except NoEnergyError as reason:
        joules = NO_JOULES
        remarks.append(f"no energy: {reason}")
    row = ProfileRow(
        stage=stage,
        variant=experiment.variant,
        hardware=note.hardware or choice.hardware,
        cpu_cores=experiment.cpu_cores,
        gpu_share=0.0,
        batch=experiment.batch,
        replicas=experiment.replicas,
        load_rps=load_rps,
        latency_avg_s=latency_avg_s,
        latency_p99_s=latency_p99_s,
        throughput_rps=throughput_rps,
        accuracy=accuracy,
        **asdict(joules),
    )
    return row, remarks


def _p99_at_least(latency_avg_s: float, latency_p99_s: float) -> float:
    """The mean in place of a p99 that only rounding put below it."""
    if latency_p99_s < latency_avg_s * (1 - 1e-9):
        raise UnusableError(
            f"the p99 of {latency_p99_s:g} s is below the mean of {latency_avg_s:g} s: "
            "less than one request in a hundred took most of the time"
        )
    return latency_avg_s


def _throughput(
    experiment: IpaExperiment, result: IpaResult, statistic: Statistic
) -> tuple[float, list[str]]:
    """One replica's requests per second, and what to say of it."""
    values = result.throughput_rps
    if values and max(values) > 0:
        found = {"max": max(values), "p99": float(np.percentile(values, 99)), "avg": fmean(values)}
        return found[statistic], []
    throughput_rps = experiment.batch / fmean(result.latencies_s)
    return throughput_rps, ["no throughput was recorded: batch / mean latency stands for it"]


def _served_load(
    experiment: IpaExperiment, note: Note, result: IpaResult, throughput_rps: float
) -> float:
    """What the replicas really served: no more than they can, whatever was sent."""
    if note.load_rps is not None:
        return note.load_rps
    if not experiment.load_rps > 0:
        return len(result.latencies_s) / result.duration_s
    return min(experiment.load_rps, experiment.replicas * throughput_rps)
