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
from typing import Any, Literal

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Meter
from ipa_energy.meters.composite import CompositeMeter
from ipa_energy.meters.cpu_time import CpuTimeMeter, PowerModel
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.settings import TrialSettings

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
        facts: name, quality, power model and the like; the same whenever the same is chosen.
        observed: what was found out about it this time, e.g. how often its counter moves.
    """

    parts: tuple[MeterPart, ...]
    facts: Mapping[str, Any]
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


def machine_choice(meter: Meter, facts: Mapping[str, Any] | None = None) -> MeterChoice:
    """A meter of the whole machine, which must be otherwise idle while it measures.

    Args:
        meter: of all cores, e.g. RAPL's packages.
        facts: more for the meta file than its name and quality.
    """
    described = {"name": meter.name, "quality": meter.quality, "scope": "machine", **(facts or {})}
    part = MeterPart(lambda pid, cores: meter, "CPU", float(os.cpu_count() or 1))
    return MeterChoice((part,), described)


def gpu_choice(meter: Meter, gpus: int, facts: Mapping[str, Any] | None = None) -> MeterChoice:
    """A meter of whole GPUs, on which nothing else may run while it measures.

    Args:
        meter: of these GPUs and no other.
        gpus: how many they are.
        facts: more for the meta file than its name and quality.
    """
    described = {"name": meter.name, "quality": meter.quality, "scope": "GPU", **(facts or {})}
    part = MeterPart(lambda pid, cores: meter, "GPU", float(gpus))
    return MeterChoice((part,), described)


def joined(choices: Sequence[MeterChoice]) -> MeterChoice:
    """Several sources as one choice, each named with its own facts; a single one as it is."""
    if len(choices) == 1:
        return choices[0]
    facts = [choice.facts for choice in choices]
    qualities = {found["quality"] for found in facts}
    weakest = next(q for q in ("estimated", "imported", "measured") if q in qualities)
    return MeterChoice(
        tuple(part for choice in choices for part in choice.parts),
        {
            "name": "+".join(found["name"] for found in facts),
            "quality": weakest,
            "parts": {found["name"]: found for found in facts},
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
                f"{entry.label}: {choice.facts['name']} does not count the joules of GPUs",
                where="--meter",
                allowed=f"a meter of GPUs as well: nvml+{choice.facts['name']}",
            )
        parts = choice.parts_for(entry.gpu_share)
        if not parts:
            raise ConfigError(
                f"{entry.label}: {choice.facts['name']} counts the joules of GPUs, and this entry "
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
