"""The windows of a trial: how long each is, and the idle ones, which wait until power has settled.

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

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy, Meter, Reading

FALL_RATIO = 0.98
"""A slice below this share of the lowest before is a lower one; less is a counter's steps."""

CALM_SLICES = 3
"""Slices in a row that bring nothing lower; together they are as long as the meter needs."""


GPU_SETTINGS = ("settle_slice_s", "settle_max_s", "empty_max_age_s")
GPU_MAX_WINDOW_S = 20.0
"""Counters of GPUs step every 10 to 100 ms, and a hundred steps are good to 1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings:
    """How long to measure, and when a window is not to be believed.

    Attributes:
        min_window_s: shortest window; 10 ms ticks of the contention guard need about a second.
        max_window_s: no batch is started that would pass it (the first always is).
        min_batches: batches a window should hold, ``max_window_s`` allowing.
        idle_s: length of the idle window before and after.
        quiet_max_s: longest wait for the replicas' threads to stop before an idle window.
        warm_up_min_s, warm_up_max_s: bounds of the warm-up.
        max_foreign_load: share of the cores' time that others may use.
        retries: how often a contended window is repeated before it is kept as it is.
        timeout_s: longest silence of a replica before it counts as hung.
        settle_slice_s: shortest stretch over which idle power is compared with what it was; for
            entries on a GPU.
        settle_max_s: longest wait for idle power to stop falling; for entries on a GPU.
        empty_max_age_s: how long the empty machine's idle power is taken for what it still is; for
            entries on a GPU, which takes seconds to settle.
    """

    min_window_s: float = 1.5
    max_window_s: float = 10.0
    min_batches: int = 10
    idle_s: float = 0.2
    quiet_max_s: float = 2.0
    warm_up_min_s: float = 1.0
    warm_up_max_s: float = 8.0
    max_foreign_load: float = 0.05
    retries: int = 2
    timeout_s: float = 300.0
    settle_slice_s: float = 0.5
    settle_max_s: float = 30.0
    empty_max_age_s: float = 300.0

    def quick(self) -> TrialSettings:
        """Settings for a first look: short windows, few batches, no repeats."""
        return replace(
            self,
            min_window_s=0.3,
            max_window_s=2.0,
            min_batches=3,
            warm_up_min_s=0.0,
            warm_up_max_s=1.0,
            retries=0,
            settle_max_s=min(self.settle_max_s, 5.0),
        )

    def for_gpu(self) -> TrialSettings:
        """The same with room for the windows of a GPU's counter, of which some need 10 s."""
        return replace(self, max_window_s=max(self.max_window_s, GPU_MAX_WINDOW_S))

    def to_json(self, *, gpu: bool) -> dict[str, Any]:
        """What figures depend on: without a GPU, not on how one is waited for."""
        unread = () if gpu else GPU_SETTINGS
        return {name: value for name, value in asdict(self).items() if name not in unread}

    def with_window(self, window_s: float) -> TrialSettings:
        """The same with windows of at least ``window_s`` seconds, and room for twice that.

        Raises:
            ConfigError: ``window_s`` is not above 0.
        """
        if not 0 < window_s < math.inf:
            raise ConfigError(f"window of {window_s:g} s", allowed="more than 0 s")
        return replace(
            self, min_window_s=window_s, max_window_s=max(self.max_window_s, 2 * window_s)
        )


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
