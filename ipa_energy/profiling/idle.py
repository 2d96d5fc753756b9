"""Idle power: what a meter shows while nothing works, once it has stopped falling.

A processor is idle microseconds after its last instruction. A GPU is not: its clocks stay up for
seconds and its chip, warmer, leaks more until it has cooled. So where a GPU is measured the watts
are looked at in slices, until some in a row bring nothing lower; these slices are the idle window::

    W │▙
      │ ▙▖      stop when 3 slices in a row are no lower than the lowest before them
      │  ▝▀▙▄▄▄▄▄▄
      └──────────────
        s s s s s s s        window: the last three

The wait has a limit, and a trial whose power still fell at its end says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.profiling.trial_settings import TrialSettings

FALL_RATIO = 0.98
"""A slice below this share of the lowest before is a lower one; less is a counter's steps."""

CALM_SLICES = 3
"""Slices in a row that bring nothing lower; together they are as long as the meter needs."""


@dataclass(frozen=True, slots=True)
class Idle:
    """An idle window.

    Attributes:
        energy: its joules.
        waited_s: from when it could have begun to when it did.
        settled: False if the power still fell when the longest wait was over.
    """

    energy: Energy
    waited_s: float
    settled: bool


def idle_window(meter: Meter, settings: TrialSettings, *, settle: bool) -> Idle:
    """Watch a meter while nothing works; returns when the window is over.

    Args:
        meter: to read.
        settings: the window's length, and the longest wait before it.
        settle: True to wait until the power has stopped falling.

    Raises:
        MeterUnavailableError: the meter cannot be read.
    """
    idle_s = max(settings.idle_s, meter.min_window_s)
    if not settle:
        start = meter.read()
        time.sleep(idle_s)
        return Idle(meter.energy_between(start, meter.read()), 0.0, settled=True)
    return _settled(
        meter, max(settings.settle_slice_s, idle_s / CALM_SLICES), settings.settle_max_s
    )


def _settled(meter: Meter, slice_s: float, max_s: float) -> Idle:
    edges: list[Reading] = [meter.read()]
    lowest_w, calm = float("inf"), 0
    while True:
        time.sleep(slice_s)
        edges.append(meter.read())
        power_w = meter.energy_between(edges[-2], edges[-1]).power_w
        if power_w < FALL_RATIO * lowest_w:
            # The reference moves by whole steps only: a slow fall adds up until it is one.
            lowest_w, calm = power_w, 0
        else:
            calm += 1
        waited_s = edges[max(0, len(edges) - 1 - CALM_SLICES)].time_s - edges[0].time_s
        if calm >= CALM_SLICES or (waited_s >= max_s and len(edges) > CALM_SLICES):
            window = meter.energy_between(edges[-1 - CALM_SLICES], edges[-1])
            return Idle(window, waited_s, settled=calm >= CALM_SLICES)


class EmptyMachine:
    """Watts of a meter's machine before any replica is there, looked at again when they are old.

    Args:
        max_age_s: seconds after which they are looked at again; 0 for every time.
    """

    def __init__(self, max_age_s: float = 0.0) -> None:
        self._max_age_s = max_age_s
        self._seen: dict[str, tuple[float, Idle]] = {}

    def idle(self, meter: Meter, settings: TrialSettings, *, settle: bool) -> Idle:
        """The idle window of the empty machine, new or not too old.

        Raises:
            MeterUnavailableError: the meter cannot be read.
        """
        now_s = time.perf_counter()
        seen = self._seen.get(meter.name)
        if seen is not None and now_s - seen[0] < self._max_age_s:
            return seen[1]
        idle = idle_window(meter, settings, settle=settle)
        self._seen[meter.name] = time.perf_counter(), idle
        return idle
