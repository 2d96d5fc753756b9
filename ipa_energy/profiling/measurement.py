"""What the trials of one entry say together: the figures of a profile's row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.interval import half_width_95
from ipa_energy.profiling.trial import Trial

METER_PRECISION = 0.01
"""What the shortest useful window of a counter is good to (:func:`~.status.min_window_for`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the trials of one entry say together.

    Attributes:
        latency_avg_s, latency_p99_s: over every batch of every trial (p99 interpolated linearly).
        throughput_rps: requests of all windows over their busy time, one replica saturated.
        dynamic_energy_j: joules above idle per request, mean over trials.
        energy_ci95_j: half width of its 95 % t-interval over trials; NaN for a single trial.
        idle_power_w: mean over trials.
        trials: number of trials.
        batches: batches behind the latency figures.
    """

    latency_avg_s: float
    latency_p99_s: float
    throughput_rps: float
    dynamic_energy_j: float
    energy_ci95_j: float
    idle_power_w: float
    trials: int
    batches: int


def summarise(trials: Sequence[Trial], batch: int) -> Measurement:
    """What the trials of one entry say together; at least one trial.

    Raises:
        MeterUnavailableError: the meter did not rise above idle under full load: it is dead, and
            its figures are no joules; or only the GPU's did not, and then the model did not run
            on it.
    """
    _require_busy_gpu(trials)
    latencies_s = np.concatenate([trial.latencies_s for trial in trials])
    joules = [trial.dynamic_energy_j / (batch * len(trial.latencies_s)) for trial in trials]
    if not np.mean(joules) > 0:
        raise MeterUnavailableError(
            f"{trials[0].meter} shows {np.mean(joules):g} J per request above idle under full "
            "load: the counter is dead, or too coarse for these windows"
        )
    return Measurement(
        latency_avg_s=float(latencies_s.mean()),
        latency_p99_s=float(np.percentile(latencies_s, 99)),
        throughput_rps=batch * len(latencies_s) / sum(trial.busy_s for trial in trials),
        dynamic_energy_j=float(np.mean(joules)),
        energy_ci95_j=half_width_95(joules),
        idle_power_w=float(np.mean([trial.idle_power_w for trial in trials])),
        trials=len(trials),
        batches=len(latencies_s),
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
