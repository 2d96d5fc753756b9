"""What can be measured here, and by which meter best.

Every source is tried, not looked up: a counter counts as ``measured`` after it moved while the
machine was kept busy for a moment. ``auto`` is the best of those that count *this machine*: a
processor counter (``rapl``, else ``perf``), with the GPUs' (``nvml``) where there are any. Where
one has no counter, an estimate takes its place (CPU time × a power model; ``nvml-power``). What
Prometheus knows may be of other machines as well and is never chosen unasked. What is there and
cannot be counted is said, and so is a processor whose joules are in a GPU's counter already.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Meter, MeterFault, MeterStatus
from ipa_energy.meters.composite import CompositeMeter
from ipa_energy.meters.sources import POWERCAP, Places, source
from ipa_energy.meters.watching import BusyCores
from ipa_energy.records import joined_meters, meters_in
from ipa_energy.registries import METERS

logger = logging.getLogger(__name__)

AUTO = "auto"
CPU_COUNTERS = ("rapl", "perf")
"""Processor counters, best first: files take microseconds to read, asking perf takes longer."""

GPU_COUNTERS = ("nvml",)
CPU_ESTIMATE = "cpu-time"
GPU_ESTIMATE = "nvml-power"


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found.

    Attributes:
        statuses: one of each source.
        auto: the meter to take, a name for :func:`open_meter`; None if nothing gives figures.
    """

    statuses: tuple[MeterStatus, ...]
    auto: str | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What ``auto`` leaves out, in words."""
        return left_out_of(self.auto, self.statuses)


def discover(places: Places | None = None) -> Discovery:
    """Try every source; takes a second or two and keeps some cores busy meanwhile."""
    where = places or Places()
    with BusyCores():
        statuses = tuple(replace(source(name).status(where), name=name) for name in METERS)
    return Discovery(statuses, auto_of(statuses))


def best_here(places: Places) -> Discovery:
    """As :func:`discover`, for who takes ``auto``; what was named must work.

    Raises:
        MeterUnavailableError: the powercap folder was named, and gives no figure.
    """
    found = discover(places)
    if places.powercap != POWERCAP:
        for status in found.statuses:
            if status.name == CPU_COUNTERS[0] and not status.usable:
                raise MeterFault(status.name, status.state, status.reason, status.fix)
    return found


def left_out_of(auto: str | None, statuses: Sequence[MeterStatus]) -> tuple[str, ...]:
    """What is there and not in the figures of ``auto``, or not added because it is in already."""
    parts = set(meters_in(auto or ""))
    gpu = [status for status in statuses if status.name in (*GPU_COUNTERS, GPU_ESTIMATE)]
    notes = []
    if not parts & {status.name for status in gpu}:
        there = [status for status in gpu if status.there]
        told = "; ".join(dict.fromkeys(f"{_named(s, gpu)}{s.reason}" for s in there))
        fix = f"; fix: {there[-1].fix}" if there and there[-1].fix else ""
        notes += [f"a GPU is there and is not counted: {told}{fix}"] if there else []
    if any(status.includes_cpu and status.name in parts for status in gpu):
        notes.append("the processor is not added: its joules are in the GPU's counter (one module)")
    elif not parts & set(CPU_COUNTERS):
        denied = [s for s in statuses if s.name in CPU_COUNTERS and s.state == "denied"][:1]
        notes += [f"a counter of the processors may not be read: {s.told}" for s in denied]
    return tuple(notes)


def _named(status: MeterStatus, others: Sequence[MeterStatus]) -> str:
    """The meter's name in front of its reason, if not all have the same."""
    return "" if {other.reason for other in others} == {status.reason} else f"{status.name}: "


def auto_of(statuses: Sequence[MeterStatus]) -> str | None:
    """The best meter of this machine: ``rapl``, ``nvml+rapl``, ``cpu-time`` …; None if none works.

    The GPU comes first in a composite, because reading it waits for the work to be done.
    """
    states = {status.name: status.state for status in statuses}

    def best(counters: Sequence[str], estimate: str) -> list[str]:
        measured = [name for name in counters if states.get(name) == "measured"]
        estimated = [estimate] if states.get(estimate) == "estimated" else []
        return (measured + estimated)[:1]

    gpu = best(GPU_COUNTERS, GPU_ESTIMATE)
    in_gpus = any(status.includes_cpu for status in statuses if status.name in gpu)
    return joined_meters(gpu + ([] if in_gpus else best(CPU_COUNTERS, CPU_ESTIMATE))) or None


def open_meter(name: str = AUTO, places: Places | None = None) -> Meter:
    """A meter by its name, tried under load; a composite by its parts' names joined by ``+``.

    Close it with :func:`close_meter`.

    Raises:
        ConfigError: no such meter.
        MeterUnavailableError: it is dead, denied or absent, with the fix.
    """
    where = places or Places()
    if name == AUTO:
        discovered = best_here(where)
        found = discovered.auto
        for note in discovered.notes:
            logger.warning("%s", note)
        if found is None:
            raise MeterFault(
                AUTO, "absent", "nothing can be measured here", "see ipa-energy meters"
            )
        name = found
    parts = meters_in(name)
    for part in parts:
        if part not in METERS:
            raise ConfigError(f"no meter {part!r}", allowed=", ".join((AUTO, *METERS)))
    opened: list[Meter] = []
    try:
        for part in parts:
            opened.append(source(part).open(where))
        return opened[0] if len(opened) == 1 else CompositeMeter(opened)
    except (ConfigError, MeterUnavailableError):
        for meter in opened:
            close_meter(meter)
        raise


def close_meter(meter: Meter) -> None:
    """End what a meter holds: a thread, a process, files."""
    for part in getattr(meter, "parts", (meter,)):
        close = getattr(part, "close", None)
        if close is not None:
            close()
