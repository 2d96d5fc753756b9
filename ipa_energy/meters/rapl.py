"""Joules of processors and memory from the kernel's powercap counters (RAPL).

Intel's and AMD's processors count their own energy; the kernel shows it as files. A read takes
microseconds and costs nothing measurable (Khan et al. 2018, doi:10.1145/3177754). The counters wrap
after minutes, so a background thread looks at them as often as they could go half round, and each
second in any case, to notice one that stops.

At each look a counter has moved by ``(now − last) mod (range + 1)``. This is its true movement if
it was looked at before it could wrap twice, and if no more energy went through than the hardware
can draw. Where either does not hold, or where it stood still or could not be read, the time since
the last good look is a :class:`Doubt`, and no window that touches it gets a figure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import MeterFault, Reading
from ipa_energy.meters.powercap import (
    METER,
    CounterFile,
    Kind,
    Opener,
    Zone,
    find_zones,
    open_for_reading,
    without_mirrors,
    zone_names,
)
from ipa_energy.meters.sources import POWERCAP, Places, counter_source
from ipa_energy.meters.watching import FROZEN_AFTER_S, KeepAlive, SteppingMeter
from ipa_energy.records import Quality

MAX_POWER_W: dict[Kind, float] = {"package": 1000.0, "dram": 500.0, "psys": 5000.0}
"""More than any such zone draws: twice the largest processors (500 W), and a machine of eight."""

STEP_ALLOWANCE_S = 0.1
"""A look may see a value this old, when a step was late."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A stretch of time over which a counter cannot be believed.

    Attributes:
        start_s, end_s: on the meter's clock.
        reason: what happened, naming the zone.
    """

    start_s: float
    end_s: float
    reason: str


class ZoneTotal:
    """The total of one zone.

    Args:
        zone: whose counter it is.
        raw_uj: its value at ``time_s``.
        time_s: the first look, on the meter's clock.
        max_power_w: watts that the zone can never exceed.
    """

    def __init__(self, zone: Zone, raw_uj: int, time_s: float, max_power_w: float) -> None:
        self.zone = zone
        self.total_uj = raw_uj
        self.moved_s = time_s
        self.doubts: list[Doubt] = []
        self._modulus_uj = zone.range_uj + 1
        self._max_power_uw = max_power_w * 1e6
        self._allowance_uj = min(self._max_power_uw * STEP_ALLOWANCE_S, self._modulus_uj / 4)
        self._raw_uj = raw_uj
        self._looked_s = time_s

    @property
    def look_period_s(self) -> float:
        """Looks at least this often cannot miss a wrap: half of the time to go round once."""
        return self._modulus_uj / (2 * self._max_power_uw)

    def look(self, raw_uj: int, time_s: float) -> None:
        """Take in the counter's value at ``time_s``."""
        last_uj, last_s = self._raw_uj, self._looked_s
        step_uj = (raw_uj - last_uj) % self._modulus_uj
        most_uj = self._max_power_uw * (time_s - last_s)
        if most_uj > self._modulus_uj:
            self._doubt(
                last_s,
                time_s,
                f"was not looked at for {time_s - last_s:.3g} s, in which it may have gone round "
                "more than once",
            )
        elif step_uj > most_uj + self._allowance_uj:
            went = "back" if raw_uj < last_uj else "forward"
            self._doubt(
                last_s,
                time_s,
                f"went {went} from {last_uj} to {raw_uj} µJ in {time_s - last_s:.3g} s, which no "
                "power explains",
            )
        self.total_uj += step_uj
        self._raw_uj, self._looked_s = raw_uj, time_s
        if step_uj:
            self.moved_s = time_s
        elif time_s - self.moved_s >= FROZEN_AFTER_S:
            self._doubt(self.moved_s, time_s, f"stood still for {time_s - self.moved_s:.3g} s")

    def lost(self, time_s: float, reason: str) -> None:
        """Believe nothing between the last look and this time."""
        self._doubt(self._looked_s, time_s, reason)

    def doubt_in(self, start_s: float, end_s: float) -> Doubt | None:
        """The first doubt that touches a window."""
        return next((d for d in self.doubts if d.start_s < end_s and d.end_s > start_s), None)

    def _doubt(self, start_s: float, end_s: float, reason: str) -> None:
        if self.doubts and start_s <= self.doubts[-1].end_s:  # what lasts stays one entry
            start_s = min(start_s, self.doubts.pop().start_s)
        self.doubts.append(Doubt(start_s, end_s, f"{self.zone.domain} {reason}"))


UPDATE_PERIOD_S = 0.001
"""What Intel documents for its counters; discovery finds the machine's own."""

WATCH_PERIOD_S = 1.0
MIN_LOOK_PERIOD_S = 0.001


class RaplMeter(SteppingMeter):
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
    joules_per_count = 1e-6
    unit = "µJ"

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
        super().__init__(update_period_s, clock, sleep)
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

    def believe(self, start: Reading, end: Reading) -> None:
        """See that the counters ran on after the window, and that none was in doubt within it.

        Raises:
            MeterUnavailableError: one cannot be believed over this window.
        """
        self.confirm(end)
        for total in self._totals:
            doubt = total.doubt_in(start.time_s, end.time_s)
            if doubt is not None:
                raise MeterFault(METER, "dead", doubt.reason, "measure the window again")

    def close(self) -> None:
        """Stop looking in the background and give the files back."""
        if self._keep_alive is not None:
            self._keep_alive.stop()
        with self._lock:
            for file in self._files:
                file.close()

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


def _check_leave_out(leave_out: Collection[str], domains: Collection[str]) -> None:
    unknown = sorted(set(leave_out) - set(domains))
    if unknown or not set(domains) - set(leave_out):
        raise ConfigError(
            f"rapl cannot leave out {', '.join(unknown or leave_out)}",
            allowed=f"some, not all, of {', '.join(domains)}",
        )


def _make(places: Places, leave_out: Collection[str]) -> RaplMeter:
    names = zone_names(places.powercap)
    platform_only = "psys" in names and not any(name.startswith("package") for name in names)
    return RaplMeter(places.powercap, psys=platform_only, leave_out=leave_out)


RAPL = counter_source(_make)
