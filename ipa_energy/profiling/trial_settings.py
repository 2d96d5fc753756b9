"""How long a trial measures, and when its window is not to be believed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from ipa_energy.errors import ConfigError

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
