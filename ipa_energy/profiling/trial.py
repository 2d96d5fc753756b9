"""One honest measurement of one entry.

A trial, in fresh processes, one a replica, each pinned to cores of its own::

    start      ready         settled                                          done
      │ load     │ warm-up      │ idle before │ window: batches back to │ idle   │
      │          │ until batch  │             │ back, at saturation     │ after  │
      │          │ times stop   │             │ (again if others used   │        │
      │          │ falling      │             │ the cores meanwhile)    │        │

An idle window begins when the replicas' threads have stopped spinning after their last batch, and,
where a GPU is measured, when its power has stopped falling (:mod:`.trial_windows`). A batch is over
when the GPU is done with it, so that every read of a meter finds the work of its window finished.

Idle power is the mean of what the meter shows before and after, and what the window costs above it
is dynamic. Trials of one entry lie apart in time (their rounds are shuffled), so that drift of
the machine ends up in the interval rather than in one variant's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import fmean

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.meters.cpu_time import CoreTimes, load_between, read_core_times
from ipa_energy.profiling.charging import PartEnergy, ReplicaCharges, check_window
from ipa_energy.profiling.replica_group import ReplicaGroup, ReplicaSpec, Served
from ipa_energy.profiling.replica_meter import MeterPart
from ipa_energy.profiling.trial_windows import EmptyMachine, Idle, TrialSettings, idle_window

__all__ = ["Trial", "TrialSettings", "run_trial"]

STALL_S = 0.2
"""Longest that the system may hold up a short batch without ending its window early."""


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
        peak_gpu_memory_bytes: GPU memory of a replica at its highest; None on CPUs alone.
        settle_s: waits for idle power to settle before the idle windows before and after, and of
            the empty machine if it was looked at; empty without a GPU.
        idle_settled: False if one of them ended before the power had stopped falling.
        parts: name of a source of joules → what it showed; empty if there is but one and it shows
            a replica alone.
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
    peak_gpu_memory_bytes: int | None = None
    settle_s: list[float] = field(default_factory=list)
    idle_settled: bool = True
    parts: dict[str, PartEnergy] = field(default_factory=dict)


def run_trial(
    specs: ReplicaSpec | Sequence[ReplicaSpec],
    parts: Sequence[MeterPart],
    settings: TrialSettings,
    *,
    load_rps: float = 0.0,
    empty: EmptyMachine | None = None,
) -> Trial:
    """Measure one entry once.

    Args:
        specs: the replicas that work at once, on disjoint cores.
        parts: the sources of joules.
        settings: lengths and limits.
        load_rps: requests per second for all replicas together; 0 for back to back.
        empty: knows the idle power of the machine without replicas; None to look at it now.

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
        charges = ReplicaCharges(group, parts, settings, empty or EmptyMachine())
        meter = charges.load()
        warm_up = group.warm_up(min_s=settings.warm_up_min_s, max_s=settings.warm_up_max_s)
        found = _window_among_others(_Bench(group, meter, settings, charges), load_rps)
        before_w, after_w = charges.watts(found.before.energy), charges.watts(found.after.energy)
        waiting_w = {name: (before_w[name] + after_w[name]) / 2 for name in before_w}
        charged = charges.charge(found.energy, waiting_w, meter.min_window_s)
        every = tuple(charged.values())
        idles = [found.before, found.after, *([charges.empty] if charges.empty else [])]
        return Trial(
            started_utc=started_utc,
            load_s=fmean(load.duration_s for load in charges.loads),
            load_energy_j=sum(part.load_energy_j for part in every),
            warm_up_s=warm_up.latencies_s,
            settled=warm_up.settled,
            latencies_s=found.served.latencies_s,
            busy_s=found.served.busy_s,
            cpu_s=found.cpu_s,
            dynamic_energy_j=sum(part.dynamic_energy_j for part in every),
            idle_power_w=sum(part.idle_power_w for part in every),
            idle_drift_w=sum(after_w.values()) - sum(before_w.values()),
            foreign_load=found.foreign_load,
            neighbour_load=found.neighbour_load,
            contended=found.foreign_load > settings.max_foreign_load,
            repeats=found.repeats,
            peak_memory_bytes=found.served.peak_memory_bytes,
            meter=meter.name,
            quality=meter.quality,
            peak_gpu_memory_bytes=found.served.peak_gpu_memory_bytes,
            settle_s=[idle.waited_s for idle in idles] if charges.settles else [],
            idle_settled=all(idle.settled for idle in idles),
            parts=charged if charges.empty or len(every) > 1 else {},
        )


@dataclass(frozen=True, slots=True)
class _Bench:
    """What a window is taken with."""

    group: ReplicaGroup
    meter: Meter
    settings: TrialSettings
    charges: ReplicaCharges


@dataclass(frozen=True, slots=True)
class _Window:
    """One window between its two idle windows."""

    served: Served
    energy: Energy
    before: Idle
    after: Idle
    cpu_s: float
    foreign_load: float
    neighbour_load: float
    repeats: int = 0


def _window_among_others(bench: _Bench, load_rps: float) -> _Window:
    """The first window that others left alone, or the last one tried."""
    repeats = 0
    while True:
        window = _one_window(bench, load_rps)
        limit = bench.settings.max_foreign_load
        if window.foreign_load <= limit or repeats >= bench.settings.retries:
            return replace(window, repeats=repeats)
        repeats += 1


def _one_window(bench: _Bench, load_rps: float) -> _Window:
    group, meter, settings = bench.group, bench.meter, bench.settings
    before = _idle(bench)
    cores, cpu_s, start = _snapshot(group, meter)
    min_s = max(settings.min_window_s, meter.min_window_s)
    # What the meter needs must be filled even if a batch takes twice as long as usual, or stalls.
    max_s = max(settings.max_window_s, meter.min_window_s + max(2 * group.batch_s, STALL_S))
    batches = settings.min_batches
    if load_rps:
        served = group.paced(load_rps, min_s=min_s, min_batches=batches, max_s=max_s)
    else:
        served = group.window(min_s=min_s, min_batches=batches, max_s=max_s)
    cores_end, cpu_end_s, end = _snapshot(group, meter)
    check_window(end.time_s - start.time_s, meter, group.replicas[0].spec.label)
    after = _idle(bench)
    watched = tuple(cores.busy_s) if bench.charges.of_machine else group.core_ids
    load = load_between(cores, cores_end, core_ids=watched, own_cpu_s=cpu_end_s - cpu_s)
    return _Window(
        served=served,
        energy=meter.energy_between(start, end),
        before=before,
        after=after,
        cpu_s=cpu_end_s - cpu_s,
        foreign_load=load.foreign,
        neighbour_load=load.neighbour,
    )


def _idle(bench: _Bench) -> Idle:
    bench.group.wait_until_quiet(max_s=bench.settings.quiet_max_s)
    return idle_window(bench.meter, bench.settings, settle=bench.charges.settles)


def _snapshot(group: ReplicaGroup, meter: Meter) -> tuple[CoreTimes, float, Reading]:
    return read_core_times(), group.cpu_s(), meter.read()
