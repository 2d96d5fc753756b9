"""A meter whose joules are scripted, for tests and for trying things out without hardware."""

from __future__ import annotations

import time
from collections.abc import Callable

from ipa_energy.meters.base import CounterMeter, Reading
from ipa_energy.records import Quality

COUNTER = "fake"


class FakeMeter(CounterMeter):
    """A :class:`~ipa_energy.meters.base.Meter` that draws a power you choose.

    Args:
        power_w: constant watts, or a function from seconds since construction to joules so far.
        clock: seconds, increasing; inject one to script windows without waiting.
        quality: what the figures claim to be.
        min_window_s: smallest useful window it claims.
    """

    name = "fake"
    may_rest = True

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
        """Joules since construction, as counter ``fake``."""
        now_s = self._clock()
        elapsed_s = now_s - self._start_s
        power_w = self._power_w
        joules = power_w(elapsed_s) if callable(power_w) else power_w * elapsed_s
        return Reading(now_s, {COUNTER: joules})
