"""Joules of processors and memory from the kernel's powercap counters (RAPL).

Intel's and AMD's processors count their own energy; the kernel shows it as files. A read takes
microseconds and costs nothing measurable (Khan et al. 2018, doi:10.1145/3177754). The counters wrap
after minutes, so a background thread looks at them as often as they could go half round
(:mod:`.keep_alive`), and each second in any case, to notice one that stops.

What a window gets no figure for: a counter that stood still, went back, was out of sight for longer
than it takes to go round, or may not be read any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.meters.fault import MeterFault, require_movement
from ipa_energy.meters.rapl.counter_file import METER, CounterFile, Opener, open_for_reading
from ipa_energy.meters.rapl.keep_alive import KeepAlive
from ipa_energy.meters.rapl.mirrors import without_mirrors
from ipa_energy.meters.rapl.powercap import POWERCAP, Kind, find_zones
from ipa_energy.meters.rapl.zone_total import FROZEN_AFTER_S, MAX_POWER_W, ZoneTotal
from ipa_energy.meters.status import min_window_for
from ipa_energy.records import Quality

UPDATE_PERIOD_S = 0.001
"""What Intel documents for its counters; discovery finds the machine's own."""

WATCH_PERIOD_S = 1.0
MIN_LOOK_PERIOD_S = 0.001
CONFIRM_PAUSE_S = 0.0002


class RaplMeter:
    """Measured joules of all processor packages and their memory, or of the platform.

    A :class:`~ipa_energy.meters.base.Meter`. Counters of a :class:`Reading` are totals in µJ,
    wraps already added.

    Args:
        root: the powercap folder.
        psys: the platform counter instead of packages and memory.
        leave_out: domains not to read, e.g. a ``dram-0`` found dead.
        update_period_s: seconds between two steps of the counters.
        max_power_w: kind of zone → watts it can never exceed; None for :data:`MAX_POWER_W`.
        opener: opens a counter's file.
        clock: seconds, increasing.
        sleep: waits for seconds of that clock.
        keep_alive: look at the counters in the background; without it :meth:`look` must be called.

    Raises:
        MeterUnavailableError: no such zones, or they may not be read.
        ConfigError: ``leave_out`` names a domain that is not there, or all of them.
    """

    name = METER
    quality: Quality = "measured"

    def __init__(
        self,
        root: Path = POWERCAP,
        *,
        psys: bool = False,
        leave_out: Collection[str] = (),
        update_period_s: float = UPDATE_PERIOD_S,
        max_power_w: Mapping[Kind, float] | None = None,
        opener: Opener = open_for_reading,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        keep_alive: bool = True,
    ) -> None:
        zones = without_mirrors(find_zones(root, psys=psys), opener=opener, sleep=sleep)
        _check_leave_out(leave_out, [zone.domain for zone in zones])
        chosen = [zone for zone in zones if zone.domain not in leave_out]
        watts = {**MAX_POWER_W, **(max_power_w or {})}
        self.update_period_s = update_period_s
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._files = [CounterFile(zone.energy_path, opener=opener) for zone in chosen]
        self._totals = [
            ZoneTotal(zone, file.read_uj(), clock(), watts[zone.kind])
            for zone, file in zip(chosen, self._files, strict=True)
        ]
        self.look_period_s = max(
            MIN_LOOK_PERIOD_S,
            min(WATCH_PERIOD_S, *(total.look_period_s for total in self._totals)),
        )
        self._keep_alive = (
            KeepAlive(self._watch, self.look_period_s, name="rapl") if keep_alive else None
        )

    @property
    def min_window_s(self) -> float:
        """Shortest window good to 1 %: 100 steps of the counters."""
        return min_window_for(self.update_period_s)

    @property
    def domains(self) -> tuple[str, ...]:
        """What is added up, e.g. ``package-0``, ``dram-0``."""
        return tuple(total.zone.domain for total in self._totals)

    def read(self) -> Reading:
        """Totals of every domain now, in µJ since some time before the meter was made.

        Raises:
            MeterUnavailableError: a counter cannot be read any more.
        """
        with self._lock:
            time_s = self._look()
            return Reading(
                time_s, {total.zone.domain: float(total.total_uj) for total in self._totals}
            )

    def look(self) -> None:
        """Look at the counters, so that none goes round unseen.

        Raises:
            MeterUnavailableError: a counter cannot be read any more.
        """
        with self._lock:
            self._look()

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, by domain.

        Waits for the counters' next step after ``end``, about a millisecond at most, to be sure
        that they were still running then.

        Raises:
            MeterUnavailableError: the window has no length, the readings are of another meter, or a
                counter cannot be believed over this window.
        """
        duration_s = end.time_s - start.time_s
        if not duration_s > 0:
            raise MeterFault(METER, "dead", f"a window of {duration_s:g} s has no length")
        if not set(self.domains) == set(start.counters) == set(end.counters):
            raise ConfigError("the readings were not taken by this rapl meter")
        self._confirm(end.time_s)
        domains = {}
        for total in self._totals:
            domain = total.zone.domain
            doubt = total.doubt_in(start.time_s, end.time_s)
            if doubt is not None:
                raise MeterFault(METER, "dead", doubt.reason, "measure the window again")
            domains[domain] = (end.counters[domain] - start.counters[domain]) / 1e6
        require_movement(METER, domains, duration_s, self.min_window_s)
        return Energy(sum(domains.values()), duration_s, domains, self.name, self.quality)

    def close(self) -> None:
        """Stop looking in the background and give the files back."""
        if self._keep_alive is not None:
            self._keep_alive.stop()
        with self._lock:
            for file in self._files:
                file.close()

    def __enter__(self) -> RaplMeter:
        """The meter itself, closed at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    def _look(self) -> float:
        """Read every counter; returns the middle of the time that took. Holds the lock."""
        begin_s = self._clock()
        raw_uj = [file.read_uj() for file in self._files]
        time_s = (begin_s + self._clock()) / 2
        for total, value_uj in zip(self._totals, raw_uj, strict=True):
            total.look(value_uj, time_s)
        return time_s

    def _watch(self) -> None:
        """A look in the background: what goes wrong is kept for the windows it touches."""
        with self._lock:
            try:
                self._look()
            except MeterUnavailableError as error:
                for total in self._totals:
                    total.lost(self._clock(), f"could not be read: {error}")

    def _confirm(self, end_s: float) -> None:
        """Wait until every counter was seen to move after ``end_s``."""
        while any(total.moved_s <= end_s for total in self._totals):
            self.look()
            standing = [total for total in self._totals if total.moved_s <= end_s]
            if standing and self._clock() - end_s >= FROZEN_AFTER_S:
                raise MeterFault(
                    METER,
                    "dead",
                    f"{standing[0].zone.domain} stands still: it may have stopped in the window",
                    "measure again",
                )
            if standing:
                self._sleep(CONFIRM_PAUSE_S)


def _check_leave_out(leave_out: Collection[str], domains: Collection[str]) -> None:
    unknown = sorted(set(leave_out) - set(domains))
    if unknown or not set(domains) - set(leave_out):
        raise ConfigError(
            f"rapl cannot leave out {', '.join(unknown or leave_out)}",
            allowed=f"some, not all, of {', '.join(domains)}",
        )
