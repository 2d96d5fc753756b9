"""What can be measured here, and by which meter best.

Every source is tried, not looked up: a counter counts as ``measured`` after it moved while the
machine was kept busy for a moment. ``auto`` is the best of those that count *this machine*: a
processor counter (``rapl``, else ``perf``), with the GPUs' (``nvml``) where there are any. Where
one has no counter, an estimate takes its place (CPU time × a power model; ``nvml-power``). What
Prometheus knows may be of other machines as well and is never chosen unasked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Meter, MeterFault, MeterStatus
from ipa_energy.meters.composite import CompositeMeter
from ipa_energy.meters.sources import Places, source
from ipa_energy.meters.watching import BusyCores
from ipa_energy.records import joined_meters, meters_in
from ipa_energy.registries import METERS

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


def discover(places: Places | None = None) -> Discovery:
    """Try every source; takes a second or two and keeps some cores busy meanwhile."""
    where = places or Places()
    with BusyCores():
        statuses = tuple(replace(source(name).status(where), name=name) for name in METERS)
    return Discovery(statuses, auto_of(statuses))


def auto_of(statuses: Sequence[MeterStatus]) -> str | None:
    """The best meter of this machine: ``rapl``, ``nvml+rapl``, ``cpu-time`` …; None if none works.

    The GPU comes first in a composite, because reading it waits for the work to be done.
    """
    states = {status.name: status.state for status in statuses}

    def best(counters: Sequence[str], estimate: str) -> list[str]:
        measured = [name for name in counters if states.get(name) == "measured"]
        estimated = [estimate] if states.get(estimate) == "estimated" else []
        return (measured + estimated)[:1]

    return (
        joined_meters(best(GPU_COUNTERS, GPU_ESTIMATE) + best(CPU_COUNTERS, CPU_ESTIMATE)) or None
    )


def open_meter(name: str = AUTO, places: Places | None = None) -> Meter:
    """A meter by its name, tried under load; a composite by its parts' names joined by ``+``.

    Close it with :func:`close_meter`.

    Raises:
        ConfigError: no such meter.
        MeterUnavailableError: it is dead, denied or absent, with the fix.
    """
    where = places or Places()
    if name == AUTO:
        found = discover(where).auto
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
