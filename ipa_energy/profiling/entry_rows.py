"""The row of an entry, from what its trials say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import cast

import numpy as np

from ipa_energy.energy import joules_per_request
from ipa_energy.errors import MeterUnavailableError, ServingError
from ipa_energy.interval import half_width_95
from ipa_energy.profile_table.profile_row import SATURATED, ProfileRow
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.trial import Trial
from ipa_energy.records import Quality

METER_PRECISION = 0.01
"""What the shortest useful window of a counter is good to (:func:`~.status.min_window_for`)."""


def rounded(value: float) -> float:
    """A figure at the six digits that are more than any of these measurements is good to."""
    return float(f"{value:.6g}")


def profile_row(entry: Entry, trials: Sequence[Trial], accuracy: float) -> ProfileRow:
    """The row of a finished entry: saturated replicas, so the load is their throughput.

    Latencies are over every batch of every trial (p99 interpolated linearly), the throughput is
    that of all windows over their busy time. Joules and watts are means over the trials, with the
    95 % t-interval of the joules; NaN for a single trial.

    Raises:
        MeterUnavailableError: the meter did not rise above idle under full load: it is dead, and
            its figures are no joules; or only the GPU's did not, and then the model did not run
            on it.
    """
    _require_busy_gpu(trials)
    latencies_s = np.concatenate([trial.latencies_s for trial in trials])
    joules = [trial.dynamic_energy_j / (entry.batch * len(trial.latencies_s)) for trial in trials]
    if not np.mean(joules) > 0:
        raise MeterUnavailableError(
            f"{trials[0].meter} shows {np.mean(joules):g} J per request above idle under full "
            "load: the counter is dead, or too coarse for these windows"
        )
    latency_avg_s = float(latencies_s.mean())
    busy_s = sum(trial.busy_s for trial in trials)
    throughput_rps = rounded(entry.batch * len(latencies_s) / busy_s)
    load_rps = rounded(entry.replicas * throughput_rps)
    dynamic_energy_j = rounded(float(np.mean(joules)))
    idle_power_w = rounded(float(np.mean([trial.idle_power_w for trial in trials])))
    whole_j = joules_per_request(dynamic_energy_j, idle_power_w, entry.replicas, load_rps)
    return ProfileRow(
        stage=entry.stage,
        variant=entry.variant,
        hardware=entry.hardware,
        cpu_cores=float(entry.cpu_cores),
        gpu_share=entry.gpu_share,
        batch=entry.batch,
        replicas=entry.replicas,
        load_rps=load_rps,
        latency_avg_s=rounded(latency_avg_s),
        # One long stall among hundreds of batches lifts their mean above their p99; to plan with
        # less than the mean would be to plan with less than was seen.
        latency_p99_s=rounded(max(float(np.percentile(latencies_s, 99)), latency_avg_s)),
        throughput_rps=throughput_rps,
        accuracy=accuracy,
        dynamic_energy_j=dynamic_energy_j,
        idle_power_w=idle_power_w,
        joules_per_request=rounded(whole_j),
        energy_ci95_j=rounded(half_width_95(joules)),
        trials=len(trials),
        meter=trials[0].meter,
        quality=cast(Quality, trials[0].quality),
    )


def at_load(row: ProfileRow, load_rps: float, throughput_rps: float) -> ProfileRow:
    """The row of trials under a set load: J at that load, and what a replica serves saturated.

    Raises:
        ServingError: the load is saturation, or near it.
    """
    if load_rps >= SATURATED * row.replicas * throughput_rps:
        raise ServingError(
            f"a load of {load_rps:g} rps saturates {row.replicas} replicas, which serve "
            f"{row.replicas * throughput_rps:g} rps"
        )
    whole_j = joules_per_request(row.dynamic_energy_j, row.idle_power_w, row.replicas, load_rps)
    return replace(
        row, load_rps=load_rps, throughput_rps=throughput_rps, joules_per_request=rounded(whole_j)
    )


def _require_busy_gpu(trials: Sequence[Trial]) -> None:
    """The processor's joules must not hide that a GPU did nothing."""
    for name in {name for t in trials for name, part in t.parts.items() if part.counts == "GPU"}:
        found = [trial.parts[name] for trial in trials if name in trial.parts]
        above = fmean(part.dynamic_energy_j / part.window_s for part in found)
        waiting_w = fmean(part.waiting_power_w for part in found)
        if not above > METER_PRECISION * waiting_w:
            raise MeterUnavailableError(
                f"{name} shows {above:.3g} W above the {waiting_w:.3g} W of waiting, within its "
                "precision, in windows of an entry on a GPU: the model did not run on the GPU that "
                "is measured, or hardly worked, or the counter is dead"
            )
