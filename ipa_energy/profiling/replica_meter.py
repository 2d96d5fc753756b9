"""``--meter NAME`` → what charges replicas: a source for the processors, one for the GPUs.

Processors: a counter of the machine (``rapl``, ``perf``, a node's ``kepler``), or the ``cpu-time``
estimate, which tells one replica from the other. GPUs: their own counters (``nvml``), power samples
where they have none (``nvml-power``, an estimate), or their counters as Prometheus has scraped them
(``dcgm``). ``auto`` takes the best of each that works here, and a GPU's only where one is used.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters import discovery
from ipa_energy.meters.base import Meter
from ipa_energy.meters.composite import SumMeter
from ipa_energy.meters.cpu_time import CpuTimeMeter
from ipa_energy.meters.discovery import (
    AUTO,
    CPU_COUNTERS,
    CPU_ESTIMATE,
    GPU_COUNTERS,
    GPU_ESTIMATE,
    close_meter,
)
from ipa_energy.meters.power_model import (
    PowerModel,
    power_model_for_this_machine,
    power_model_in,
)
from ipa_energy.meters.sources import Places, sources_of
from ipa_energy.profiling.gpus import GpuPool
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.trial_windows import TrialSettings
from ipa_energy.records import joined_meters, meters_in, weakest_quality
from ipa_energy.registries import METERS

logger = logging.getLogger(__name__)

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


DCGM = "dcgm"
TWICE = "the processor's joules are in it and must not be added; measure with --meter nvml alone"


@contextmanager
def replica_meter(
    name: str,
    *,
    gpus: GpuPool | None = None,
    power_model: Path | None = None,
    places: Places | None = None,
) -> Iterator[MeterChoice]:
    """The meter for replicas; counters are tried under load, and closed with the block.

    Args:
        name: ``auto``, or one source of processors and one of GPUs joined by ``+``, or one alone.
        gpus: those that entries run on; None for CPUs alone.
        power_model: file of the cpu-time estimate's model; None for this machine's.
        places: where to look; None for the usual places.

    Raises:
        ConfigError: no such meter, or it does not count what the entries use.
        MeterUnavailableError: a counter is dead, denied or absent.
    """
    where = places or Places()
    parts = _best(where, gpus, power_model) if name == AUTO else _named(name, gpus)
    if power_model is not None and CPU_ESTIMATE not in parts:
        raise ConfigError(f"a power model for {name}", where="--power-model", allowed=CPU_ESTIMATE)
    if not set(parts) & set(sources_of("CPU")):
        logger.warning("%s counts GPUs alone: the processors' joules will be missing", name)
    with contextlib.ExitStack() as opened:
        yield joined([_opened(part, where, gpus, power_model, opened) for part in parts])


def _named(name: str, gpus: GpuPool | None) -> list[str]:
    """The parts of a name, the GPUs' first: reading it waits for the work to be done.

    Raises:
        ConfigError: one is no meter for replicas, or two count the same.
    """
    parts = meters_in(name)
    of_processors, of_gpus = sources_of("CPU"), sources_of("GPU")
    for part in parts:
        if part not in (*of_gpus, *of_processors):
            known = "has no joules to charge replicas with" if part in METERS else "is no meter"
            raise ConfigError(
                f"{part!r} {known}",
                where="--meter",
                allowed=f"auto, or one of {', '.join(of_processors)}, with + one of "
                f"{', '.join(of_gpus)} for entries on a GPU",
            )
    for kind, what in ((of_gpus, "GPUs"), (of_processors, "processors")):
        twice = [part for part in parts if part in kind]
        if len(twice) > 1:
            raise ConfigError(
                f"{' + '.join(twice)} count the joules of the {what} twice",
                where="--meter",
                allowed="one meter for the processors and one for the GPUs",
            )
    if gpus is None and set(parts) & set(of_gpus):
        raise ConfigError(
            f"{name} counts the joules of GPUs, and no entry runs on one",
            where="--meter",
            allowed=", ".join(of_processors),
            fix="run the entries on a GPU (--gpu)",
        )
    return sorted(parts, key=lambda part: part in of_processors)


def _best(places: Places, gpus: GpuPool | None, power_model: Path | None) -> list[str]:
    """What works best here.

    Raises:
        MeterUnavailableError: entries run on GPUs whose joules nothing counts.
    """
    if gpus is None and power_model is not None:
        return [CPU_ESTIMATE]
    statuses = {status.name: status for status in discovery.best_here(places).statuses}

    def usable(names: tuple[str, ...], state: str) -> list[str]:
        return [name for name in names if name in statuses and statuses[name].state == state]

    counters = [] if power_model is not None else usable(CPU_COUNTERS, "measured")
    processors = [*counters, CPU_ESTIMATE][:1]
    if gpus is None:
        return processors
    of_gpus = [*usable(GPU_COUNTERS, "measured"), *usable((GPU_ESTIMATE,), "estimated")]
    if not of_gpus:
        raise MeterUnavailableError(
            "nothing counts the joules of the GPUs here: "
            + "; ".join(statuses[name].told for name in GPU_COUNTERS if name in statuses)
        )
    if statuses[of_gpus[0]].includes_cpu:
        logger.warning("%s counts a module of GPU and processor: %s", of_gpus[0], TWICE)
    return [of_gpus[0], *processors]


def _opened(
    part: str,
    places: Places,
    gpus: GpuPool | None,
    power_model: Path | None,
    opened: contextlib.ExitStack,
) -> MeterChoice:
    if part == CPU_ESTIMATE:
        model = power_model_in(power_model) if power_model else power_model_for_this_machine()
        return cpu_time_choice(model)
    if gpus is None or part not in sources_of("GPU"):
        meter = discovery.open_meter(part, places)
        opened.callback(close_meter, meter)
        return machine_choice(meter)
    meter = _gpu_meter(part, places, gpus, opened)
    choice = gpu_choice(meter, len(gpus.uuids), {"gpus": f"{len(gpus.uuids)} × {gpus.name}"})
    return replace(choice, observed={part: {"min_window_s": meter.min_window_s}})


def _gpu_meter(part: str, places: Places, gpus: GpuPool, opened: contextlib.ExitStack) -> Meter:
    """A meter of these GPUs and no other.

    Raises:
        MeterUnavailableError: it cannot be read, or its counters do not move.
    """
    if part == DCGM:
        own = [replace(places, dcgm_gpu=uuid) for uuid in gpus.uuids]
        meters = [discovery.open_meter(DCGM, place) for place in own]
        return meters[0] if len(meters) == 1 else SumMeter(meters)
    meter: Meter
    if part == GPU_ESTIMATE:
        from ipa_energy.meters.nvml import NvmlPowerMeter

        meter = NvmlPowerMeter(gpus.uuids)
        meter.read()  # raises where there is no power sensor
    elif part in GPU_COUNTERS:
        from ipa_energy.meters.nvml import NvmlMeter

        meter = NvmlMeter(gpus.uuids)
    else:
        meter = discovery.open_meter(part, places)
    opened.callback(close_meter, meter)
    return meter
