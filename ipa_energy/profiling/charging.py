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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Meter
from ipa_energy.meters.composite import CompositeMeter, SumMeter
from ipa_energy.meters.cpu_time import CpuTimeMeter
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.idle import EmptyMachine, Idle
from ipa_energy.profiling.replicas import Replica, ReplicaGroup
from ipa_energy.profiling.trial_settings import TrialSettings
from ipa_energy.records import Quality, joined_meters, weakest_quality

MeterFactory = Callable[[int, float], Meter]
"""(process id, cores it reserves) → a meter; the same for all if its part is shared."""

Counted = Literal["CPU", "GPU"]


@dataclass(frozen=True, slots=True)
class MeterPart:
    """A source of joules, and how replicas are charged with them.

    Attributes:
        meter_for: makes the meter of one replica, or gives that of what they share.
        counts: whose joules.
        shared_by: units that share what the meter shows: cores, or GPUs; None if it shows one
            replica.
    """

    meter_for: MeterFactory
    counts: Counted = "CPU"
    shared_by: float | None = None


@dataclass(frozen=True, slots=True)
class MeterChoice:
    """A meter for replicas, and what the meta file says about it.

    Attributes:
        parts: one for each source; that of the GPU first, if there is one.
        meta: name, quality, power model and the like; the same whenever the same is chosen.
        observed: what was found out about it this time, e.g. how often its counter moves.
    """

    parts: tuple[MeterPart, ...]
    meta: Mapping[str, Any]
    observed: Mapping[str, Any] = field(default_factory=dict)

    def parts_for(self, gpu_share: float) -> tuple[MeterPart, ...]:
        """The parts that an entry with this share of a GPU is charged with."""
        return tuple(part for part in self.parts if part.counts == "CPU" or gpu_share > 0)

    @property
    def counts(self) -> frozenset[Counted]:
        """Whose joules its parts count."""
        return frozenset(part.counts for part in self.parts)


def cpu_time_choice(model: PowerModel) -> MeterChoice:
    """CPU time × ``model``, charged to each replica by its process tree."""
    percent = f"±{100 * model.relative_error:g} %"
    return MeterChoice(
        (MeterPart(lambda pid, cores: CpuTimeMeter(model, pid=pid, reserved_cores=cores)),),
        {
            "name": CpuTimeMeter.name,
            "quality": CpuTimeMeter.quality,
            "power_model": model.to_json(),
            "uncertainty": f"{percent} on every joule and watt, from the power model; "
            "energy_ci95_j is the spread of the trials only",
        },
    )


def machine_choice(meter: Meter, meta: Mapping[str, Any] | None = None) -> MeterChoice:
    """A meter of the whole machine, which must be otherwise idle while it measures.

    Args:
        meter: of all cores, e.g. RAPL's packages.
        meta: more for the meta file than its name and quality.
    """
    return _shared(meter, "CPU", os.cpu_count() or 1, {"scope": "machine", **(meta or {})})


def gpu_choice(meter: Meter, gpus: int, meta: Mapping[str, Any] | None = None) -> MeterChoice:
    """A meter of whole GPUs, on which nothing else may run while it measures.

    Args:
        meter: of these GPUs and no other.
        gpus: how many they are.
        meta: more for the meta file than its name and quality.
    """
    return _shared(meter, "GPU", gpus, {"scope": "GPU", **(meta or {})})


def _shared(meter: Meter, counts: Counted, units: int, meta: Mapping[str, Any]) -> MeterChoice:
    part = MeterPart(lambda pid, cores: meter, counts, float(units))
    return MeterChoice((part,), {"name": meter.name, "quality": meter.quality, **meta})


def joined(choices: Sequence[MeterChoice]) -> MeterChoice:
    """Several sources as one choice, what is said of each under its name; a single one as it is."""
    if len(choices) == 1:
        return choices[0]
    meta = [choice.meta for choice in choices]
    return MeterChoice(
        tuple(part for choice in choices for part in choice.parts),
        {
            "name": joined_meters(found["name"] for found in meta),
            "quality": weakest_quality([found["quality"] for found in meta]),
            "parts": {found["name"]: found for found in meta},
        },
        {name: value for choice in choices for name, value in choice.observed.items()},
    )


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


def check_settings(choice: MeterChoice, settings: TrialSettings, entries: Sequence[Entry]) -> None:
    """Refuse windows that no trial of these entries could make long enough, before any begins.

    Raises:
        ConfigError: the longest window allowed is shorter than the meter needs, or nothing counts
            the joules of an entry's GPU.
        MeterUnavailableError: the meter cannot be made.
    """
    firsts = {(entry.cpu_cores, entry.gpu_share > 0): entry for entry in reversed(entries)}
    for (cores, on_gpu), entry in firsts.items():
        if on_gpu and "GPU" not in choice.counts:
            raise ConfigError(
                f"{entry.label}: {choice.meta['name']} does not count the joules of GPUs",
                where="--meter",
                allowed=f"a meter of GPUs as well: nvml+{choice.meta['name']}",
            )
        parts = choice.parts_for(entry.gpu_share)
        if not parts:
            raise ConfigError(
                f"{entry.label}: {choice.meta['name']} counts the joules of GPUs, and this entry "
                "uses none",
                where="--meter",
                allowed="a meter of processors as well, or entries on a GPU (--gpu)",
            )
        for part in parts:
            meter = part.meter_for(os.getpid(), float(cores))
            if settings.max_window_s < meter.min_window_s:
                needed_s = math.ceil(meter.min_window_s)
                raise ConfigError(
                    f"{entry.label}: windows of at most {settings.max_window_s:g} s are too short "
                    f"for {meter.name}, which needs {meter.min_window_s:g} s",
                    fix=f"--window {needed_s:g}, and no --quick; or another meter",
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


class Account:
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
