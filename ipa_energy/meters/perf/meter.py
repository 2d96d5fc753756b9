"""Joules from the kernel's power events, as ``perf stat -a`` counts them.

The same counters as :mod:`ipa_energy.meters.rapl`, by another door: the kernel may let a process
count where the files of sysfs may not be read, and it takes care of wraps. :class:`PerfMeter` asks
the kernel itself: ``perf stat`` prints its counts at the end or at fixed intervals only, so that a
window's edges would lie up to an interval aside. :mod:`.command` puts the program around a command.

Events of cores and graphics lie inside the package's and are never added. ``energy-psys`` covers
the platform and stands alone. A listed event proves nothing: one that does not move is dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.meters.fault import MeterFault, require_movement
from ipa_energy.meters.perf.event import (
    EnergyEvent,
    EventOpener,
    counting_cpus,
    event_kind,
    open_event,
)
from ipa_energy.meters.perf.output import ADDED_EVENTS, PLATFORM_EVENTS
from ipa_energy.meters.perf.program import METER, NO_EVENT_FIX
from ipa_energy.meters.rapl.zone_total import FROZEN_AFTER_S
from ipa_energy.meters.status import min_window_for
from ipa_energy.records import Quality

POWER_PMU = Path("/sys/bus/event_source/devices/power")

UPDATE_PERIOD_S = 0.001
CONFIRM_PAUSE_S = 0.0002


class PerfMeter:
    """Measured joules of all processor packages and their memory, or of the platform.

    A :class:`~ipa_energy.meters.base.Meter`.

    Args:
        pmu: the kernel's folder of the power events.
        psys: the platform instead of packages and memory; None for the platform only where there
            is nothing else.
        leave_out: domains not to count, e.g. a ``dram-0`` found dead.
        update_period_s: seconds between two steps of the counters.
        opener: opens an event; another one may be given for tests.
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
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.update_period_s = update_period_s
        self._clock, self._sleep = clock, sleep
        self._events: dict[str, EnergyEvent] = {}
        for event, domain in energy_events(pmu, psys=psys).items():
            kind = event_kind(pmu, event)
            for number, cpu in enumerate(counting_cpus(pmu)):
                if f"{domain}-{number}" not in leave_out:
                    self._events[f"{domain}-{number}"] = EnergyEvent(kind, cpu, opener)
        if not self._events:
            raise ConfigError(f"perf cannot leave out {', '.join(leave_out)}: nothing would remain")

    @property
    def min_window_s(self) -> float:
        """Shortest window good to 1 %: 100 steps of the counters."""
        return min_window_for(self.update_period_s)

    @property
    def domains(self) -> tuple[str, ...]:
        """What is added up: ``package-0``, ``dram-0`` …; or ``psys-0``."""
        return tuple(self._events)

    def read(self) -> Reading:
        """Joules by domain since the meter was made.

        Raises:
            MeterUnavailableError: an event cannot be read, or was not counted all the time.
        """
        begin_s = self._clock()
        counters = {domain: event.read_j() for domain, event in self._events.items()}
        return Reading((begin_s + self._clock()) / 2, counters)

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, by domain.

        Waits for the counters' next step after ``end``, about a millisecond at most, to be sure
        that they were still running then.

        Raises:
            MeterUnavailableError: the window has no length, or a counter did not move.
        """
        duration_s = end.time_s - start.time_s
        if not duration_s > 0:
            raise MeterFault(METER, "dead", f"a window of {duration_s:g} s has no length")
        if not set(self.domains) == set(start.counters) == set(end.counters):
            raise ConfigError("the readings were not taken by this perf meter")
        domains = {name: end.counters[name] - start.counters[name] for name in self.domains}
        require_movement(METER, domains, duration_s, self.min_window_s)
        self._confirm(end)
        return Energy(sum(domains.values()), duration_s, domains, self.name, self.quality)

    def close(self) -> None:
        """Stop counting."""
        for event in self._events.values():
            event.close()

    def __enter__(self) -> PerfMeter:
        """The meter itself, closed at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    def _confirm(self, end: Reading) -> None:
        """Wait until every counter has moved beyond ``end``: it had not stopped before."""
        while True:
            now = self.read()
            still = [name for name in self.domains if now.counters[name] <= end.counters[name]]
            if not still:
                return
            if now.time_s - end.time_s >= FROZEN_AFTER_S:
                raise MeterFault(
                    METER,
                    "dead",
                    f"{still[0]} stands still: it may have stopped in the window",
                    "measure again",
                )
            self._sleep(CONFIRM_PAUSE_S)


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
