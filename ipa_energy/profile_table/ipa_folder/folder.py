"""An IPA profiling folder (``data/results/profiling/nodes/series/N``) as rows of a profile.

What IPA would plan with comes out: the same latencies and throughput its own parser computes, for
the experiments at one load (its ``profiling_load``), of the variants in its ``accuracies.yaml``.
Joules come from the lists that were recorded with them; a profile without may be given estimates
from its CPU seconds, when asked for (:mod:`ipa_energy.profile_table.ipa_folder.joules`).

Experiments that IPA passes over in silence (never finished, torn, every request timed out) are
passed over too, but named. What contradicts itself is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipa_energy.config.problems import raise_all
from ipa_energy.errors import ConfigError
from ipa_energy.files import write_json
from ipa_energy.profile_table.ipa_folder.accuracies import read_accuracies
from ipa_energy.profile_table.ipa_folder.experiments import (
    MAPPER_FILE,
    IpaExperiment,
    load_label,
    read_experiments,
)
from ipa_energy.profile_table.ipa_folder.notes import Note, read_notes
from ipa_energy.profile_table.ipa_folder.results import UnusableError, read_result
from ipa_energy.profile_table.ipa_folder.row import ImportChoice, row_of
from ipa_energy.profile_table.row import ProfileRow
from ipa_energy.profile_table.table import meta_path, write_profile

logger = logging.getLogger(__name__)


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
            _add_row(found, experiment, notes, accuracies[experiment.variant], choice)
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


def _add_row(
    found: SeriesImport,
    experiment: IpaExperiment,
    notes: Mapping[int, Note],
    accuracy: float,
    choice: ImportChoice,
) -> None:
    path = found.folder / f"{experiment.number}.json"
    row, remarks = row_of(
        experiment,
        read_result(path, experiment.node),
        _note(notes, experiment),
        stage=found.stage,
        accuracy=accuracy,
        choice=choice,
        where=str(path),
    )
    found.rows.append(row)
    if remarks:
        found.remarks[_name(experiment)] = remarks


def _chosen(
    experiments: Sequence[IpaExperiment], notes: Mapping[int, Note], load: str | None, folder: Path
) -> list[IpaExperiment]:
    """The experiments at the load; all of them if there is but one, or each knows its own."""
    loads = list(dict.fromkeys(experiment.load for experiment in experiments))
    known = all(_note(notes, experiment).load_rps is not None for experiment in experiments)
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


def _note(notes: Mapping[int, Note], experiment: IpaExperiment) -> Note:
    return notes.get(experiment.number) or Note(experiment_id=experiment.number)


def _name(experiment: IpaExperiment) -> str:
    entry = f"{experiment.variant} {experiment.cpu_cores:g}c b{experiment.batch}"
    return f"experiment {experiment.number} ({entry})"
