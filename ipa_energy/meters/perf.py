"""Joules from the kernel's power events, as ``perf stat -a`` counts them.

The same counters as :mod:`ipa_energy.meters.rapl`, by another door: the kernel may let a process
count where the files of sysfs may not be read, and it takes care of wraps. :class:`PerfMeter` asks
the kernel itself (``perf_event_open``, linux/perf_event.h): ``perf stat`` prints its counts at the
end or at fixed intervals only, so that a window's edges would lie up to an interval aside.

A package is counted on one of its CPUs. Some kernels list several for it, one for each die or core
complex that shares the package's counter (AMD, until 6.11): such a package is counted once, by what
the kernel says of where its CPUs are.

Events of cores and graphics lie inside the package's and are never added. ``energy-psys`` covers
the platform and stands alone. A listed event proves nothing: one that does not move is dead.

What sysfs tells of an event::

    /sys/bus/event_source/devices/power/
        type                    number of the PMU
        cpumask                 a CPU of each package, at least: where its event is counted
    /sys/devices/system/cpu/cpu24/topology/
        physical_package_id     1
        die_id                  0
        format/event            config:0-7, the bits that ``event=`` goes to
        events/energy-pkg       event=0x02
        events/energy-pkg.scale 2.3283064365386962890625e-10
        events/energy-pkg.unit  Joules
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy, MeterFault, Reading
from ipa_energy.meters.imports.perf_log import ADDED_EVENTS, ENERGY_UNIT, PLATFORM_EVENTS
from ipa_energy.meters.power_model import first_cpu
from ipa_energy.meters.rapl import MAX_POWER_W
from ipa_energy.meters.sources import CPUS, POWER_PMU, counter_source
from ipa_energy.meters.watching import SteppingMeter
from ipa_energy.records import Quality

METER = "perf"

DENIED_FIX = (
    "run as root, or let everybody count: sudo sysctl kernel.perf_event_paranoid=0 (containers "
    "need CAP_PERFMON as well)"
)
NO_EVENT_FIX = "modprobe rapl (most virtual machines have no such counter)"


SYSCALL = {
    "x86_64": 298,
    "i386": 336,
    "i686": 336,
    "aarch64": 241,
    "riscv64": 241,
    "ppc64le": 319,
    "s390x": 331,
}
"""Number of perf_event_open by architecture (asm/unistd.h)."""

ATTRIBUTE = struct.Struct("=IIQQQQQIIQ")
"""struct perf_event_attr in its first published size, 64 bytes: type, size, config, …"""

READ_TIMES = 1 | 2
CLOSE_ON_EXEC = 8
EVERY_PROCESS = -1
NO_GROUP = -1

COUNTED = struct.Struct("=QQQ")
"""What a read gives: the count, nanoseconds enabled, nanoseconds counted."""

EventOpener = Callable[[int, int, int], int]
"""(type, config, CPU) → file descriptor; raises OSError."""


@dataclass(frozen=True, slots=True)
class EventKind:
    """An energy event as sysfs describes it.

    Attributes:
        name: e.g. ``energy-pkg``.
        pmu_type: number of its PMU.
        config: its number there.
        joules_per_count: its scale.
    """

    name: str
    pmu_type: int
    config: int
    joules_per_count: float


def event_kind(pmu: Path, name: str) -> EventKind:
    """What sysfs tells of an event.

    Raises:
        MeterUnavailableError: the description is incomplete, or the unit is not joules.
    """
    try:
        unit = _text(pmu / "events" / f"{name}.unit")
        scale = float(_text(pmu / "events" / f"{name}.scale"))
        config = _config(pmu, _text(pmu / "events" / name))
        pmu_type = int(_text(pmu / "type"))
    except (OSError, ValueError) as error:
        raise MeterFault(
            METER, "absent", f"{name} is not described under {pmu}: {error}", NO_EVENT_FIX
        ) from error
    if unit != ENERGY_UNIT:
        raise MeterFault(METER, "absent", f"{name} is in {unit}; allowed: {ENERGY_UNIT}")
    return EventKind(name, pmu_type, config, scale)


def counting_cpus(pmu: Path) -> tuple[int, ...]:
    """The CPUs on which events are counted, from a list such as ``0,24`` or ``0-1``.

    Raises:
        MeterUnavailableError: the kernel does not say.
    """
    cpus: list[int] = []
    try:
        for part in _text(pmu / "cpumask").split(","):
            first, _, last = part.partition("-")
            cpus += range(int(first), int(last or first) + 1)
    except (OSError, ValueError) as error:
        raise MeterFault(METER, "absent", f"{pmu}/cpumask: {error}", NO_EVENT_FIX) from error
    return tuple(cpus)


ONE_COUNTER_A_PACKAGE = ("AuthenticAMD", "HygonGenuine")
"""Vendors whose counters cover a package; those of the others cover a die of it."""


def cpu_vendor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """E.g. ``GenuineIntel``; empty if the kernel does not say."""
    try:
        return first_cpu(cpuinfo).get("vendor_id", "")
    except OSError:
        return ""


def counted_packages(pmu: Path, topology: Path = CPUS, vendor: str | None = None) -> dict[str, int]:
    """The CPU on which each counter is read, once: ``0`` and so on, ``0-die-1`` for dies.

    Args:
        pmu: the kernel's folder of the power events.
        topology: its folder of CPUs; a CPU that is not there is taken for a package of its own.
        vendor: of the CPUs; None for this machine's.

    Raises:
        MeterUnavailableError: the kernel does not say where it counts.
    """
    by_die = (cpu_vendor() if vendor is None else vendor) not in ONE_COUNTER_A_PACKAGE
    found: dict[tuple[int, int], int] = {}
    for number, cpu in enumerate(counting_cpus(pmu)):
        place = topology / f"cpu{cpu}" / "topology"
        package = _number(place / "physical_package_id", number)
        found.setdefault((package, _number(place / "die_id", 0) if by_die else 0), cpu)
    packages = [package for package, _ in found]
    return {
        f"{package}-die-{die}" if packages.count(package) > 1 else str(package): cpu
        for (package, die), cpu in found.items()
    }


def _number(path: Path, otherwise: int) -> int:
    try:
        return int(_text(path))
    except (OSError, ValueError):
        return otherwise


def open_event(pmu_type: int, config: int, cpu: int) -> int:
    """A descriptor that counts an event on a CPU, whoever runs there."""
    number = SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"perf_event_open on {platform.machine()} is not known")
    attribute = ATTRIBUTE.pack(pmu_type, ATTRIBUTE.size, config, 0, 0, READ_TIMES, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (number, attribute, EVERY_PROCESS, cpu, NO_GROUP, CLOSE_ON_EXEC)
    fd = int(libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


class EnergyEvent:
    """An energy event that counts on one CPU from when it is made.

    Args:
        kind: what to count.
        cpu: where.
        opener: opens it; another one may be given for tests.

    Raises:
        MeterUnavailableError: the kernel refuses.
    """

    def __init__(self, kind: EventKind, cpu: int, opener: EventOpener = open_event) -> None:
        self.kind = kind
        self._fd = -1
        try:
            self._fd = opener(kind.pmu_type, kind.config, cpu)
        except PermissionError as error:
            told = f"the kernel does not let this process count {kind.name}"
            raise MeterFault(METER, "denied", told, DENIED_FIX) from error
        except OSError as error:
            told = f"the kernel does not count {kind.name} on CPU {cpu}: {error.strerror}"
            raise MeterFault(METER, "absent", told, NO_EVENT_FIX) from error

    def read_j(self) -> float:
        """Joules since it was made; the kernel takes care of wraps.

        Raises:
            MeterUnavailableError: it cannot be read, or was not counted all the time.
        """
        try:
            count, enabled_ns, counted_ns = COUNTED.unpack(os.read(self._fd, COUNTED.size))
        except (OSError, struct.error) as error:
            raise MeterFault(METER, "dead", f"{self.kind.name} cannot be read: {error}") from error
        if counted_ns < enabled_ns or not enabled_ns:
            share = counted_ns / enabled_ns if enabled_ns else 0.0
            raise MeterFault(METER, "dead", f"{self.kind.name} counted {share:.1%} of the time")
        return float(count) * self.kind.joules_per_count

    def close(self) -> None:
        """Stop counting; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """A meter that nobody closed holds no event for ever."""
        self.close()


def _config(pmu: Path, description: str) -> int:
    """The event's number from ``event=0x02`` and the bits that ``format`` gives each field."""
    config = 0
    for field in description.split(","):
        name, _, value = field.partition("=")
        bits = re.fullmatch(r"config:(\d+)(?:-\d+)?", _text(pmu / "format" / name))
        if bits is None:
            raise ValueError(f"field {name} of {description!r} is not in config")
        config |= int(value or "1", 0) << int(bits[1])
    return config


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


UPDATE_PERIOD_S = 0.001


class PerfMeter(SteppingMeter):
    """Measured joules of all processor packages and their memory, or of the platform.

    A :class:`~ipa_energy.meters.base.Meter`.

    Args:
        pmu: the kernel's folder of the power events.
        psys: the platform instead of packages and memory; None for the platform only where there
            is nothing else.
        leave_out: domains not to count, e.g. a ``dram-0`` found dead.
        update_period_s: seconds between two steps of the counters.
        opener: opens an event; another one may be given for tests.
        topology: the kernel's folder of CPUs.
        clock: seconds, increasing.
        sleep: waits for seconds of that clock.

    Raises:
        MeterUnavailableError: no such events, or no right to count.
        ConfigError: ``leave_out`` leaves nothing.
    """

    name = METER
    quality: Quality = "measured"

    def __init__(
        self,
        pmu: Path = POWER_PMU,
        *,
        psys: bool | None = None,
        leave_out: Collection[str] = (),
        update_period_s: float = UPDATE_PERIOD_S,
        opener: EventOpener = open_event,
        topology: Path = CPUS,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(update_period_s, clock, sleep)
        self._events: dict[str, EnergyEvent] = {}
        for event, domain in energy_events(pmu, psys=psys).items():
            kind = event_kind(pmu, event)
            packages = counted_packages(pmu, topology)
            if event in PLATFORM_EVENTS:  # one counter, whichever package shows it
                packages = {"0": next(iter(packages.values()))}
            for package, cpu in packages.items():
                if f"{domain}-{package}" not in leave_out:
                    self._events[f"{domain}-{package}"] = EnergyEvent(kind, cpu, opener)
        if not self._events:
            raise ConfigError(f"perf cannot leave out {', '.join(leave_out)}: nothing would remain")

    @property
    def domains(self) -> tuple[str, ...]:
        """What is added up: ``package-0``, ``dram-0`` …; or ``psys-0``."""
        return tuple(self._events)

    def most_w(self, domain: str) -> float:
        """More watts than a package, its memory or the platform draws."""
        return next(watts for kind, watts in MAX_POWER_W.items() if domain.startswith(kind))

    def read(self) -> Reading:
        """Joules by domain since the meter was made.

        Raises:
            MeterUnavailableError: an event cannot be read, or was not counted all the time.
        """
        begin_s = self._clock()
        counters = {domain: event.read_j() for domain, event in self._events.items()}
        return Reading((begin_s + self._clock()) / 2, counters)

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, by domain; waits for the counters' next step after ``end``.

        Raises:
            MeterUnavailableError: the window has no length, or a counter did not move.
        """
        energy = super().energy_between(start, end)
        self.confirm(end)
        return energy

    def close(self) -> None:
        """Stop counting."""
        for event in self._events.values():
            event.close()


def energy_events(pmu: Path = POWER_PMU, *, psys: bool | None = None) -> dict[str, str]:
    """Event → domain of the power events that the kernel lists and that may be added up.

    Args:
        pmu: the kernel's folder of the power events.
        psys: the platform instead of packages and memory; None for it only where they are missing.

    Raises:
        MeterUnavailableError: the kernel lists none.
    """
    found = {path.name for path in (pmu / "events").glob("energy-*")}
    added = {event: domain for event, domain in ADDED_EVENTS.items() if event in found}
    platform = {event: domain for event, domain in PLATFORM_EVENTS.items() if event in found}
    chosen = platform if psys or (psys is None and "energy-pkg" not in added) else added
    if not chosen or (chosen is added and "energy-pkg" not in added):
        names = sorted(name for name in found if "." not in name)
        listed = f"lists only {', '.join(names)}" if names else "lists no energy event"
        raise MeterFault(METER, "absent", f"the kernel {listed} under {pmu}", NO_EVENT_FIX)
    return chosen


PERF = counter_source(lambda places, leave_out: PerfMeter(places.pmu, leave_out=leave_out))
