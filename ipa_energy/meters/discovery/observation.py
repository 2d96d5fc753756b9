"""Watching a meter's counters: which of them move, and how often.

What a counter's data sheet promises need not hold on this machine, and on a virtual one a counter
may be listed, readable and still. So the period between two steps is the one that was seen.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from ipa_energy.meters.base import Reading

WATCH_S = 0.25
"""Long enough for two hundred steps of a 1 ms counter."""

PATIENCE_S = 1.0
"""How long a counter that has not moved yet is waited for."""

MIN_STEPS = 5


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen.

    Attributes:
        period_s: domain → median seconds between two steps, for those that moved.
        still: domains that were read and did not move.
        watched_s: for how long.
    """

    period_s: dict[str, float]
    still: tuple[str, ...]
    watched_s: float

    @property
    def slowest_s(self) -> float:
        """Period of the slowest domain that moved; at least one must have."""
        return max(self.period_s.values())


def observe(
    read: Callable[[], Reading],
    *,
    watch_s: float = WATCH_S,
    patience_s: float = PATIENCE_S,
    clock: Callable[[], float] = time.perf_counter,
) -> Observation:
    """Read again and again, and note when each counter steps.

    Args:
        read: the meter's read; what it raises goes through.
        watch_s: at least this long.
        patience_s: at most this long, while a counter has stepped fewer than a handful of times.
        clock: seconds, increasing.
    """
    first = read()
    begin_s = clock()
    last = dict(first.counters)
    steps_s: dict[str, list[float]] = {name: [] for name in last}
    while True:
        reading = read()
        for name, value in reading.counters.items():
            if value != last[name]:
                last[name] = value
                steps_s[name].append(reading.time_s)
        watched_s = clock() - begin_s
        settled = all(len(times_s) > MIN_STEPS for times_s in steps_s.values())
        if watched_s >= patience_s or (watched_s >= watch_s and settled):
            break
    period_s = {
        name: _median_gap_s(times_s, watched_s) for name, times_s in steps_s.items() if times_s
    }
    return Observation(
        period_s, tuple(name for name, times_s in steps_s.items() if not times_s), watched_s
    )


def _median_gap_s(times_s: list[float], watched_s: float) -> float:
    """Median time between steps; the whole time watched where there was but one."""
    if len(times_s) < 2:
        return watched_s
    return statistics.median(b - a for a, b in pairwise(times_s))
