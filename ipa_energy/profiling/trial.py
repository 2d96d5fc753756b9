"""One honest measurement of one entry.

A trial, in fresh processes, one a replica, each pinned to cores of its own::

    start      ready         settled                                          done
      │ load     │ warm-up      │ idle before │ window: batches back to │ idle   │
      │          │ until batch  │             │ back, at saturation     │ after  │
      │          │ times stop   │             │ (again if others used   │        │
      │          │ falling      │             │ the cores meanwhile)    │        │

An idle window begins when the replicas' threads have stopped spinning after their last batch.
Idle power is the mean of what the meter shows before and after, and what the window costs above it
is dynamic. Trials of one entry lie apart in time (:mod:`.sweep` shuffles them), so that drift of
the machine ends up in the interval rather than in one variant's mean.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import fmean

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.profiling.account import Account
from ipa_energy.profiling.contention import CoreTimes, load_between, read_core_times
from ipa_energy.profiling.group import ReplicaGroup, Served
from ipa_energy.profiling.metering import MeterFactory, check_window
from ipa_energy.profiling.replica import ReplicaSpec
from ipa_energy.profiling.settings import TrialSettings

__all__ = ["Trial", "TrialSettings", "run_trial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one trial found; joules are the replicas' own, in sum unless it says otherwise.

    Attributes:
        started_utc: ISO time of the start.
        load_s: process start to model ready, mean of the replicas.
        load_energy_j: joules above idle of loading one replica, mean; NaN if the meter was too
            coarse for it.
        warm_up_s: seconds of each warm-up batch, one replica's after the other's.
        settled: False if the warm-up hit its time limit before batch times stopped falling.
        latencies_s: seconds of each batch of the window, in order, one replica's after the other's.
        busy_s: first batch's start to last batch's end, summed over the replicas; under a set
            load the whole window, waiting included.
        cpu_s: CPU seconds of the replicas in the window.
        dynamic_energy_j: joules above idle of the whole window.
        idle_power_w: watts of one waiting replica, mean of before and after.
        idle_drift_w: after minus before, all that the meter shows.
        foreign_load: share of the allocations' time that others used; of all cores' under a
            machine's meter, which charges the replicas with it.
        neighbour_load: share of the other cores' time that was used.
        contended: True if ``foreign_load`` stayed too high after every retry.
        repeats: windows thrown away because they were contended.
        peak_memory_bytes: resident memory of a replica at its highest.
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


def run_trial(
    specs: ReplicaSpec | Sequence[ReplicaSpec],
    meter_for: MeterFactory,
    settings: TrialSettings,
    *,
    load_rps: float = 0.0,
    machine_cores: int | None = None,
) -> Trial:
    """Measure one entry once.

    Args:
        specs: the replicas that work at once, on disjoint cores.
        meter_for: makes a replica's meter, or the machine's.
        settings: lengths and limits.
        load_rps: requests per second for all replicas together; 0 for back to back.
        machine_cores: cores that share what the meter shows, if it is the machine's; None if it
            is a replica's.

    Raises:
        ConfigError: replicas share a core.
        ServingError: a replica could not be built, failed, died or hung, or the load is more
            than they serve.
        MeterUnavailableError: the meter cannot be read, or the window was too short for it.
    """
    specs = (specs,) if isinstance(specs, ReplicaSpec) else tuple(specs)
    started_utc = datetime.now(UTC).isoformat(timespec="seconds")
    with ReplicaGroup(specs, timeout_s=settings.timeout_s) as group:
        if len(set(group.core_ids)) < len(group.core_ids):
            raise ConfigError(f"replicas of {specs[0].label} share a core of {group.core_ids}")
        account = Account(group, meter_for, settings.idle_s, machine_cores)
        meter = account.load()
        warm_up = group.warm_up(min_s=settings.warm_up_min_s, max_s=settings.warm_up_max_s)
        found = _window_among_others(group, meter, settings, account.of_machine, load_rps)
        waiting_w = (found.idle_before_w + found.idle_after_w) / 2
        return Trial(
            started_utc=started_utc,
            load_s=fmean(load.duration_s for load in account.loads),
            load_energy_j=account.load_energy_j(waiting_w),
            warm_up_s=warm_up.latencies_s,
            settled=warm_up.settled,
            latencies_s=found.served.latencies_s,
            busy_s=found.served.busy_s,
            cpu_s=found.cpu_s,
            dynamic_energy_j=found.energy.energy_j - waiting_w * found.energy.duration_s,
            idle_power_w=account.idle_power_w(waiting_w),
            idle_drift_w=found.idle_after_w - found.idle_before_w,
            foreign_load=found.foreign_load,
            neighbour_load=found.neighbour_load,
            contended=found.foreign_load > settings.max_foreign_load,
            repeats=found.repeats,
            peak_memory_bytes=found.served.peak_memory_bytes,
            meter=meter.name,
            quality=meter.quality,
        )


@dataclass(frozen=True, slots=True)
class _Window:
    """One window between its two idle windows."""

    served: Served
    energy: Energy
    idle_before_w: float
    idle_after_w: float
    cpu_s: float
    foreign_load: float
    neighbour_load: float
    repeats: int = 0


def _window_among_others(
    group: ReplicaGroup, meter: Meter, settings: TrialSettings, of_machine: bool, load_rps: float
) -> _Window:
    """The first window that others left alone, or the last one tried."""
    repeats = 0
    while True:
        window = _one_window(group, meter, settings, of_machine, load_rps)
        if window.foreign_load <= settings.max_foreign_load or repeats >= settings.retries:
            return replace(window, repeats=repeats)
        repeats += 1


def _one_window(
    group: ReplicaGroup, meter: Meter, settings: TrialSettings, of_machine: bool, load_rps: float
) -> _Window:
    idle_s = max(settings.idle_s, meter.min_window_s)
    group.wait_until_quiet(max_s=settings.quiet_max_s)
    before = meter.read()
    time.sleep(idle_s)
    cores, cpu_s, start = _snapshot(group, meter)
    min_s = max(settings.min_window_s, meter.min_window_s)
    # What the meter needs must be filled even if the next batch takes twice as long as usual.
    max_s = max(settings.max_window_s, meter.min_window_s + 2 * group.batch_s)
    batches = settings.min_batches
    if load_rps:
        served = group.paced(load_rps, min_s=min_s, min_batches=batches, max_s=max_s)
    else:
        served = group.window(min_s=min_s, min_batches=batches, max_s=max_s)
    cores_end, cpu_end_s, end = _snapshot(group, meter)
    check_window(end.time_s - start.time_s, meter, group.replicas[0].spec.label)
    group.wait_until_quiet(max_s=settings.quiet_max_s)
    idle_start = meter.read()
    time.sleep(idle_s)
    after = meter.read()
    watched = tuple(cores.busy_s) if of_machine else group.core_ids
    load = load_between(cores, cores_end, core_ids=watched, own_cpu_s=cpu_end_s - cpu_s)
    return _Window(
        served=served,
        energy=meter.energy_between(start, end),
        idle_before_w=meter.energy_between(before, start).power_w,
        idle_after_w=meter.energy_between(idle_start, after).power_w,
        cpu_s=cpu_end_s - cpu_s,
        foreign_load=load.foreign,
        neighbour_load=load.neighbour,
    )


def _snapshot(group: ReplicaGroup, meter: Meter) -> tuple[CoreTimes, float, Reading]:
    cpu_s = sum(process_tree_cpu_s(replica.pid) for replica in group.replicas)
    return read_core_times(), cpu_s, meter.read()
