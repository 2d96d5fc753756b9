"""Whose joules a meter counts, and what replicas are charged of them.

A meter of the *replica* (CPU time by process tree) shows that replica alone: what it shows while
the replica waits is its idle power. A meter of the *machine* (RAPL, perf) shows everything, so it
is read once more before the replicas start, and n replicas with c of the machine's k cores each
are charged ::

    n·p  =  P_empty · n·c / k  +  (P_waiting − P_empty)       their share of the idle machine,
                                                              and what the loaded models add
    dynamic  =  E_window − P_waiting · duration               joules above the waiting machine
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.meters.cpu_time import CpuTimeMeter, PowerModel
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.settings import TrialSettings
from ipa_energy.records import Quality

MeterFactory = Callable[[int, float], Meter]
"""(process id, cores it reserves) → a meter; of the machine if :class:`MeterChoice` says so."""


@dataclass(frozen=True, slots=True)
class MeterChoice:
    """A meter for replicas, and what the meta file says about it.

    Attributes:
        meter_for: makes the meter of one replica, or the machine's.
        facts: name, quality, power model and the like.
        machine_cores: cores that share what the meter shows, if it shows the whole machine; None
            if it shows one replica.
    """

    meter_for: MeterFactory
    facts: Mapping[str, Any]
    machine_cores: int | None = None


def cpu_time_choice(model: PowerModel) -> MeterChoice:
    """CPU time × ``model``, charged to each replica by its process tree."""
    percent = f"±{100 * model.relative_error:g} %"
    return MeterChoice(
        lambda pid, cores: CpuTimeMeter(model, pid=pid, reserved_cores=cores),
        {
            "name": CpuTimeMeter.name,
            "quality": CpuTimeMeter.quality,
            "power_model": model.to_json(),
            "uncertainty": f"{percent} on every joule and watt, from the power model; "
            "energy_ci95_j is the spread of the trials only",
        },
    )


def machine_choice(meter: Meter, facts: Mapping[str, Any] | None = None) -> MeterChoice:
    """A meter of the whole machine, which must be otherwise idle while it measures.

    Args:
        meter: of all cores, e.g. RAPL's packages.
        facts: more for the meta file than its name and quality.
    """
    described = {"name": meter.name, "quality": meter.quality, "scope": "machine", **(facts or {})}
    return MeterChoice(lambda pid, cores: meter, described, os.cpu_count() or 1)


class SumMeter:
    """Several meters of one kind read together; a :class:`~ipa_energy.meters.base.Meter`.

    Args:
        meters: at least one, all of the same name and quality.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = tuple(meters)
        self.name: str = meters[0].name
        self.quality: Quality = meters[0].quality
        self.min_window_s: float = max(meter.min_window_s for meter in meters)

    def read(self) -> Reading:
        """All counters now, named ``INDEX:COUNTER``, at the time of the first.

        Raises:
            MeterUnavailableError: one of them cannot be read.
        """
        readings = [meter.read() for meter in self._meters]
        counters = {
            f"{index}:{name}": value
            for index, reading in enumerate(readings)
            for name, value in reading.counters.items()
        }
        return Reading(readings[0].time_s, counters)

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, summed over the meters by domain.

        Raises:
            MeterUnavailableError: one of them cannot tell.
        """
        domains: dict[str, float] = {}
        duration_s = 0.0
        for index, meter in enumerate(self._meters):
            part = meter.energy_between(_part(start, index), _part(end, index))
            duration_s = part.duration_s
            for name, energy_j in part.domains.items():
                domains[name] = domains.get(name, 0.0) + energy_j
        return Energy(sum(domains.values()), duration_s, domains, self.name, self.quality)


def _part(reading: Reading, index: int) -> Reading:
    prefix = f"{index}:"
    return Reading(
        reading.time_s,
        {
            name.removeprefix(prefix): value
            for name, value in reading.counters.items()
            if name.startswith(prefix)
        },
    )


def empty_power_w(meter: Meter, idle_s: float) -> float:
    """Watts that a meter of the machine shows before any replica is there.

    Raises:
        MeterUnavailableError: it cannot be read.
    """
    start = meter.read()
    time.sleep(max(idle_s, meter.min_window_s))
    return meter.energy_between(start, meter.read()).power_w


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
        ConfigError: the longest window allowed is shorter than the meter needs.
        MeterUnavailableError: the meter cannot be made.
    """
    for cores in dict.fromkeys(entry.cpu_cores for entry in entries):
        meter = choice.meter_for(os.getpid(), float(cores))
        if settings.max_window_s < meter.min_window_s:
            entry = next(entry for entry in entries if entry.cpu_cores == cores)
            raise ConfigError(
                f"{entry.label}: windows of at most {settings.max_window_s:g} s are too short for "
                f"{meter.name}, which needs {meter.min_window_s:g} s",
                fix=f"--window {meter.min_window_s:g}, and no --quick; or another meter",
            )
