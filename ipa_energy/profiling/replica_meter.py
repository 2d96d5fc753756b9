"""``--meter NAME`` → what charges replicas: a source for the processors, one for the GPUs.

Processors: a counter of the machine (``rapl``, ``perf``, a node's ``kepler``), or the ``cpu-time``
estimate, which tells one replica from the other. GPUs: their own counters (``nvml``), power samples
where they have none (``nvml-power``, an estimate), or their counters as Prometheus has scraped them
(``dcgm``). ``auto`` takes the best of each that works here, and a GPU's only where one is used.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters import discovery
from ipa_energy.meters.base import Meter, MeterStatus
from ipa_energy.meters.composite import SumMeter
from ipa_energy.meters.discovery import (
    AUTO,
    CPU_COUNTERS,
    CPU_ESTIMATE,
    GPU_COUNTERS,
    GPU_ESTIMATE,
    close_meter,
)
from ipa_energy.meters.power_model import power_model_for_this_machine, power_model_in
from ipa_energy.meters.sources import Places, sources_of
from ipa_energy.profiling.charging import (
    MeterChoice,
    cpu_time_choice,
    gpu_choice,
    joined,
    machine_choice,
)
from ipa_energy.profiling.gpus import GpuPool
from ipa_energy.records import meters_in
from ipa_energy.registries import METERS

logger = logging.getLogger(__name__)

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
            + "; ".join(_why(statuses[name]) for name in GPU_COUNTERS if name in statuses)
        )
    if statuses[of_gpus[0]].includes_cpu:
        logger.warning("%s counts a module of GPU and processor: %s", of_gpus[0], TWICE)
    return [of_gpus[0], *processors]


def _why(status: MeterStatus) -> str:
    fix = f"; fix: {status.fix}" if status.fix is not None else ""
    return f"{status.name}: {status.reason}{fix}"


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
        from ipa_energy.meters.nvml.nvml_meter import NvmlPowerMeter

        meter = NvmlPowerMeter(gpus.uuids)
        meter.read()  # raises where there is no power sensor
    elif part in GPU_COUNTERS:
        from ipa_energy.meters.nvml.nvml_meter import NvmlMeter

        meter = NvmlMeter(gpus.uuids)
    else:
        meter = discovery.open_meter(part, places)
    opened.callback(close_meter, meter)
    return meter
