"""A meter whose joules are scripted, for tests and for trying things out without hardware."""

from __future__ import annotations

import time
from collections.abc import Callable

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.records import Quality

COUNTER = "fake_j"


class FakeMeter:
    """A :class:`~ipa_energy.meters.base.Meter` that draws a power you choose.

    Args:
        power_w: constant watts, or a function from seconds since construction to joules so far.
        clock: seconds, increasing; inject one to script windows without waiting.
        quality: what the figures claim to be.
        min_window_s: smallest useful window it claims.
    """

    name = "fake"

    def __init__(
        self,
        power_w: float | Callable[[float], float] = 10.0,
        *,
        clock: Callable[[], float] = time.perf_counter,
        quality: Quality = "measured",
        min_window_s: float = 0.01,
    ) -> None:
        self.quality = quality
        self.min_window_s = min_window_s
        self._clock = clock
        self._start_s = clock()
        self._power_w = power_w

    def read(self) -> Reading:
        """Joules since construction, as counter ``fake_j``."""
        now_s = self._clock()
        elapsed_s = now_s - self._start_s
        power_w = self._power_w
        joules = power_w(elapsed_s) if callable(power_w) else power_w * elapsed_s
        return Reading(now_s, {COUNTER: joules})

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window.

        Raises:
            MeterUnavailableError: the window has no length, or the script ran backwards.
        """
        duration_s = end.time_s - start.time_s
        energy_j = end.counters[COUNTER] - start.counters[COUNTER]
        if duration_s <= 0:
            raise MeterUnavailableError(f"fake: a window of {duration_s:g} s has no length")
        if energy_j < 0:
            raise MeterUnavailableError(f"fake: the counter fell by {-energy_j:g} J")
        return Energy(energy_j, duration_s, {"fake": energy_j}, self.name, self.quality)
