"""One experiment of an IPA profiling series as a row of a profile.

The figures are those IPA's own parser computes from the same file: mean and 99th percentile of the
model's latency, and the chosen statistic of the throughput that was recorded over the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np

from ipa_energy.meters.cpu_time import PowerModel
from ipa_energy.profile_table.ipa_folder.experiments import IpaExperiment
from ipa_energy.profile_table.ipa_folder.joules import (
    NO_JOULES,
    NoEnergyError,
    estimated_joules,
    has_joules,
    recorded_joules,
)
from ipa_energy.profile_table.ipa_folder.notes import Note
from ipa_energy.profile_table.ipa_folder.results import IpaResult, UnusableError
from ipa_energy.profile_table.row import ProfileRow

Statistic = Literal["max", "p99", "avg"]
STATISTICS: tuple[Statistic, ...] = ("max", "p99", "avg")
"""What ``reference_throughput`` may be."""

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


def row_of(
    experiment: IpaExperiment,
    result: IpaResult,
    note: Note,
    *,
    stage: str,
    accuracy: float,
    choice: ImportChoice,
    where: str,
) -> tuple[ProfileRow, list[str]]:
    """The row of an experiment, and remarks on what is weak about it.

    Raises:
        UnusableError: its latencies are no latencies of a profile.
        ConfigError: its energy contradicts itself.
    """
    latency_avg_s = _figure(fmean(result.latencies_s))
    latency_p99_s = _figure(np.percentile(result.latencies_s, 99))
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
        dynamic_energy_j=joules.dynamic_energy_j,
        idle_power_w=joules.idle_power_w,
        joules_per_request=joules.joules_per_request,
        energy_ci95_j=joules.energy_ci95_j,
        trials=joules.trials,
        meter=joules.meter,
        quality=joules.quality,
    )
    return row, remarks


def _figure(value: float) -> float:
    """Seconds at twelve digits: the difference of two times has no more."""
    return float(f"{value:.12g}")


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
