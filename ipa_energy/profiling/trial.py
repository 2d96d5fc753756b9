"""One honest measurement of one entry.

A trial, in a fresh process pinned to the allocation::

    start      ready         settled                                          done
      │ load     │ warm-up      │ idle before │ window: batches back to │ idle   │
      │          │ until batch  │             │ back, at saturation     │ after  │
      │          │ times stop   │             │ (again if others used   │        │
      │          │ falling      │             │ the cores meanwhile)    │        │

Idle power is the mean of what the meter shows before and after, and what the window costs above it
is dynamic. Trials of one entry lie apart in time (:mod:`.sweep` shuffles them), so that drift of
the machine ends up in the interval rather than in one variant's mean.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.profiling.contention import load_between, read_core_times
from ipa_energy.profiling.replica import Replica, ReplicaSpec

MeterFactory = Callable[[int, float], Meter]
"""(process id of a replica, cores it reserves) → a meter whose joules are that replica's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings:
    """How long to measure, and when a window is not to be believed.

    Attributes:
        min_window_s: shortest window; 10 ms ticks of the contention guard need about a second.
        max_window_s: no batch is started that would pass it (the first always is).
        min_batches: batches a window should hold, ``max_window_s`` allowing.
        idle_s: length of the idle window before and after.
        warm_up_min_s, warm_up_max_s: bounds of the warm-up.
        max_foreign_load: share of the cores' time that others may use.
        retries: how often a contended window is repeated before it is kept as it is.
        timeout_s: longest silence of a replica before it counts as hung.
    """

    min_window_s: float = 1.5
    max_window_s: float = 10.0
    min_batches: int = 10
    idle_s: float = 0.2
    warm_up_min_s: float = 1.0
    warm_up_max_s: float = 8.0
    max_foreign_load: float = 0.05
    retries: int = 2
    timeout_s: float = 300.0

    def quick(self) -> TrialSettings:
        """Settings for a first look: short windows, few batches, no repeats."""
        return TrialSettings(
            min_window_s=0.3,
            max_window_s=2.0,
            min_batches=3,
            idle_s=self.idle_s,
            warm_up_min_s=0.0,
            warm_up_max_s=1.0,
            max_foreign_load=self.max_foreign_load,
            retries=0,
            timeout_s=self.timeout_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one trial found; joules are the replica's own.

    Attributes:
        started_utc: ISO time of the start.
        load_s: process start to model ready.
        load_energy_j: joules above idle of loading; NaN if the meter was too coarse for it.
        warm_up_s: seconds of each warm-up batch.
        settled: False if the warm-up hit its time limit before batch times stopped falling.
        latencies_s: seconds of each batch of the window, in order.
        busy_s: first batch's start to last batch's end.
        cpu_s: CPU seconds of the replica in the window.
        dynamic_energy_j: joules above idle of the whole window.
        idle_power_w: watts of the waiting replica, mean of before and after.
        idle_drift_w: after minus before.
        foreign_load: share of the allocation's time that others used.
        neighbour_load: share of the other cores' time that was used.
        contended: True if ``foreign_load`` stayed too high after every retry.
        repeats: windows thrown away because they were contended.
        peak_memory_bytes: resident memory of the replica at its highest.
        meter, quality: provenance of the joules.
    """

    started_utc: str
    load_s: float
    load_energy_j: float
    warm_up_s: list[float]
    settled: bool
    latencies_s: list[float]
    busy_s: float
    cpu_s: float
    dynamic_energy_j: float
    idle_power_w: float
    idle_drift_w: float
    foreign_load: float
    neighbour_load: float
    contended: bool
    repeats: int
    peak_memory_bytes: int
    meter: str
    quality: str


def run_trial(spec: ReplicaSpec, meter_for: MeterFactory, settings: TrialSettings) -> Trial:
    """Measure one entry once.

    Raises:
        ServingError: the replica could not be built, failed, died or hung.
        MeterUnavailableError: the meter cannot be read.
    """
    started_utc = datetime.now(UTC).isoformat(timespec="seconds")
    with Replica(spec, timeout_s=settings.timeout_s) as replica:
        meter = meter_for(replica.pid, float(len(spec.core_ids)))
        start = meter.read()
        load_s = replica.load()
        load = meter.energy_between(start, meter.read())
        warm_up = replica.warm_up(min_s=settings.warm_up_min_s, max_s=settings.warm_up_max_s)
        found = _window_among_others(replica, meter, settings)
        idle_power_w = (found.idle_before_w + found.idle_after_w) / 2
        coarse = load.duration_s < meter.min_window_s
        return Trial(
            started_utc=started_utc,
            load_s=load_s,
            load_energy_j=math.nan if coarse else load.energy_j - idle_power_w * load.duration_s,
            warm_up_s=warm_up["latencies_s"],
            settled=warm_up["settled"],
            latencies_s=found.answer["latencies_s"],
            busy_s=found.answer["busy_s"],
            cpu_s=found.cpu_s,
            dynamic_energy_j=found.energy.energy_j - idle_power_w * found.energy.duration_s,
            idle_power_w=idle_power_w,
            idle_drift_w=found.idle_after_w - found.idle_before_w,
            foreign_load=found.foreign_load,
            neighbour_load=found.neighbour_load,
            contended=found.foreign_load > settings.max_foreign_load,
            repeats=found.repeats,
            peak_memory_bytes=found.answer["peak_memory_bytes"],
            meter=meter.name,
            quality=meter.quality,
        )


@dataclass(frozen=True, slots=True)
class _Window:
    """One window between its two idle windows."""

    answer: dict[str, Any]
    energy: Energy
    idle_before_w: float
    idle_after_w: float
    cpu_s: float
    foreign_load: float
    neighbour_load: float
    repeats: int


def _window_among_others(replica: Replica, meter: Meter, settings: TrialSettings) -> _Window:
    """The first window that others left alone, or the last one tried."""
    repeats = 0
    while True:
        window = _one_window(replica, meter, settings, repeats)
        if window.foreign_load <= settings.max_foreign_load or repeats >= settings.retries:
            return window
        repeats += 1


def _one_window(replica: Replica, meter: Meter, settings: TrialSettings, repeats: int) -> _Window:
    idle_s = max(settings.idle_s, meter.min_window_s)
    before = meter.read()
    time.sleep(idle_s)
    cores, cpu_s, start = _snapshot(replica.pid, meter)
    answer = replica.window(
        min_s=max(settings.min_window_s, meter.min_window_s),
        min_batches=settings.min_batches,
        max_s=max(settings.max_window_s, meter.min_window_s),
    )
    cores_end, cpu_end_s, end = _snapshot(replica.pid, meter)
    time.sleep(idle_s)
    after = meter.read()
    load = load_between(
        cores, cores_end, core_ids=replica.spec.core_ids, own_cpu_s=cpu_end_s - cpu_s
    )
    return _Window(
        answer=answer,
        energy=meter.energy_between(start, end),
        idle_before_w=meter.energy_between(before, start).power_w,
        idle_after_w=meter.energy_between(end, after).power_w,
        cpu_s=cpu_end_s - cpu_s,
        foreign_load=load.foreign,
        neighbour_load=load.neighbour,
        repeats=repeats,
    )


def _snapshot(pid: int, meter: Meter) -> tuple[Any, float, Reading]:
    return read_core_times(), process_tree_cpu_s(pid), meter.read()
