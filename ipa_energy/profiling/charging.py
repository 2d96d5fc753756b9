"""Whose joules a meter counts, and what replicas are charged of them.

A meter of the *replica* (CPU time by process tree) shows that replica alone: what it shows while
the replica waits is its idle power. A meter of something *shared* (RAPL: all cores; NVML: whole
GPUs) shows everything on it, so it is read once more before the replicas start, and n replicas that
reserve c each of its k units (cores, GPUs) are charged ::

    n·p  =  P_empty · n·c / k  +  (P_waiting − P_empty)       their share of the idle machine,
                                                              and what the loaded models add
    dynamic  =  E_window − P_waiting · duration               joules above the waiting machine

A replica on a GPU costs joules of both: its meter has a part for the GPU and one for the CPU, each
charged by its own rule, and every figure is kept by part beside the sum.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.base import Energy, Meter
from ipa_energy.meters.composite import CompositeMeter, SumMeter
from ipa_energy.profiling.replica_group import Replica, ReplicaGroup
from ipa_energy.profiling.replica_meter import Counted, MeterPart
from ipa_energy.profiling.trial_windows import EmptyMachine, Idle, TrialSettings
from ipa_energy.records import Quality


def combined(meters: Sequence[Meter]) -> Meter:
    """One meter of several that count different things; a single one as it is."""
    return meters[0] if len(meters) == 1 else CompositeMeter(meters)


def by_part(energy: Energy, names: Sequence[str]) -> dict[str, float]:
    """Joules of each meter behind a :func:`combined` one."""
    if len(names) == 1:
        return {names[0]: energy.energy_j}
    return {
        name: math.fsum(
            joules for domain, joules in energy.domains.items() if domain.startswith(f"{name}/")
        )
        for name in names
    }


def check_window(window_s: float, meter: Meter, what: str) -> None:
    """Refuse a window whose joules would mean nothing.

    Raises:
        MeterUnavailableError: it is shorter than the meter's smallest useful window.
    """
    if window_s < meter.min_window_s:
        raise MeterUnavailableError(
            f"{what}: a window of {window_s:.3g} s is too short for {meter.name}, which needs "
            f"{meter.min_window_s:.3g} s; fix: a longer window (--window), or another meter"
        )


Watts = Mapping[str, float]
"""Name of a part's meter → watts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEnergy:
    """What one source of joules showed in a trial.

    Attributes:
        counts: whose joules.
        quality: of its figures.
        window_s: length of the window.
        dynamic_energy_j: above idle, of the whole window.
        idle_power_w: of one waiting replica.
        load_energy_j: above idle of loading one replica, mean; NaN if the meter was too coarse.
        waiting_power_w: all that it showed while the replicas waited.
        empty_power_w: all that it showed before they were there; None if it shows one replica.
    """

    counts: Counted
    quality: Quality
    window_s: float
    dynamic_energy_j: float
    idle_power_w: float
    load_energy_j: float
    waiting_power_w: float
    empty_power_w: float | None


class ReplicaCharges:
    """The meters of a group of replicas, and what each replica is charged.

    Args:
        group: the replicas, not loaded yet.
        parts: the sources of joules.
        settings: lengths of idle windows.
        empty: knows the machine without replicas; used with what is shared only.

    Raises:
        MeterUnavailableError: a shared meter cannot be read.
    """

    def __init__(
        self,
        group: ReplicaGroup,
        parts: Sequence[MeterPart],
        settings: TrialSettings,
        empty: EmptyMachine,
    ) -> None:
        self._group = group
        self._parts = tuple(parts)
        self._shared = {
            index: part.meter_for(os.getpid(), part.shared_by)
            for index, part in enumerate(parts)
            if part.shared_by is not None
        }
        self._own: dict[int, list[Meter]] = {
            index: [] for index in range(len(parts)) if index not in self._shared
        }
        self._names: list[str] = []
        self._empty_w: dict[str, float] = {}
        self.loads: list[Energy] = []
        self.empty: Idle | None = None
        if self._shared:
            meter = combined(list(self._shared.values()))
            self.empty = empty.idle(meter, settings, settle=self.settles)
            names = [shared.name for shared in self._shared.values()]
            self._empty_w = self.watts(self.empty.energy, names)

    @property
    def settles(self) -> bool:
        """True if idle power takes time to settle: a GPU's does."""
        return any(part.counts == "GPU" for part in self._parts)

    @property
    def of_machine(self) -> bool:
        """True if a meter shows whatever the machine's processors do."""
        return any(self._parts[index].counts == "CPU" for index in self._shared)

    def load(self) -> Meter:
        """Load every replica; the meter of all of them together.

        Raises:
            ServingError: a replica could not be built, died or hung.
            MeterUnavailableError: a meter cannot be read.
        """
        self._group.load(self._load)
        meters = [self._meter_of_all(index) for index in range(len(self._parts))]
        self._names = [meter.name for meter in meters]
        return combined(meters)

    def _meter_of_all(self, index: int) -> Meter:
        if index in self._shared:
            return self._shared[index]
        own = self._own[index]
        return own[0] if len(own) == 1 else SumMeter(own)

    def _load(self, replica: Replica) -> None:
        meters = []
        for index, part in enumerate(self._parts):
            if index in self._shared:
                meters.append(self._shared[index])
                continue
            own = part.meter_for(replica.pid, float(len(replica.spec.core_ids)))
            self._own[index].append(own)
            meters.append(own)
        meter = combined(meters)
        start = meter.read()
        replica.load()
        self.loads.append(meter.energy_between(start, meter.read()))

    def watts(self, energy: Energy, names: Sequence[str] | None = None) -> dict[str, float]:
        """Mean watts of a window by part."""
        joules = by_part(energy, self._names if names is None else names)
        return {name: joules_j / energy.duration_s for name, joules_j in joules.items()}

    def charge(
        self, window: Energy, waiting_w: Watts, min_window_s: float
    ) -> dict[str, PartEnergy]:
        """What each part showed of a window, and of loading.

        Args:
            window: while the replicas served.
            waiting_w: while they waited.
            min_window_s: shortest load whose joules mean something.
        """
        joules = by_part(window, self._names)
        return {
            name: PartEnergy(
                counts=part.counts,
                quality=self._meter_of_all(index).quality,
                window_s=window.duration_s,
                dynamic_energy_j=joules[name] - waiting_w[name] * window.duration_s,
                idle_power_w=self._idle_power_w(part, name, waiting_w[name]),
                load_energy_j=self._load_energy_j(part, name, waiting_w[name], min_window_s),
                waiting_power_w=waiting_w[name],
                empty_power_w=self._empty_w.get(name),
            )
            for index, (part, name) in enumerate(zip(self._parts, self._names, strict=True))
        }

    def _idle_power_w(self, part: MeterPart, name: str, waiting_w: float) -> float:
        """Watts of one waiting replica, of what the part shows while all wait."""
        count = len(self.loads)
        if part.shared_by is None:
            return waiting_w / count
        reserved = self._group.gpu_shares if part.counts == "GPU" else len(self._group.core_ids)
        empty_w = self._empty_w[name]
        return (empty_w * reserved / part.shared_by + waiting_w - empty_w) / count

    def _load_energy_j(
        self, part: MeterPart, name: str, waiting_w: float, min_window_s: float
    ) -> float:
        """Joules above idle of loading one replica, mean; NaN where the meter is too coarse."""
        if any(load.duration_s < min_window_s for load in self.loads):
            return math.nan
        count = len(self.loads)
        empty_w = self._empty_w.get(name, 0.0)
        # What is shared holds the replicas that are loaded already; a replica's own meter does not.
        base_w = [
            waiting_w / count
            if part.shared_by is None
            else empty_w + number * (waiting_w - empty_w) / count
            for number in range(count)
        ]
        return fmean(
            by_part(load, self._names)[name] - power_w * load.duration_s
            for load, power_w in zip(self.loads, base_w, strict=True)
        )
