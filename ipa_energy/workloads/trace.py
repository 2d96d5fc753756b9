"""The record every source ends in, and what all sources share: damping, limits, a constant load.

Checked here once, so that no caller meets an empty trace, a negative count, or a run in which
nothing ever arrives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ipa_energy.arrays import Counts
from ipa_energy.errors import ConfigError

LONGEST_DURATION_S = 31 * 24 * 3600
"""Longest trace made or read, seconds. IPA's own trace has 22 days."""

MOST_REQUESTS_IN_A_SECOND = 10**9
"""Largest count accepted: beyond it a file holds something else than requests per second."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests per second of a run.

    Attributes:
        name: short name for tables, e.g. ``bursty``.
        counts: (seconds,) requests that arrive in each second, read-only.
        source: where the counts come from: file or generator, with seed and damping.
        by_class: class of requests → its (seconds,) counts, which add up to ``counts``; empty where
            the trace does not tell them apart.

    Raises:
        ConfigError: no seconds, a negative count, or no request at all.
    """

    name: str
    counts: Counts
    source: str
    by_class: Mapping[str, Counts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = np.array(self.counts, dtype=np.int64)
        if counts.ndim != 1 or not len(counts):
            raise ConfigError("the trace has no seconds", where=self.source)
        if counts.min() < 0:
            raise ConfigError(
                f"{counts.min()} requests in second {counts.argmin()} of the trace",
                where=self.source,
                allowed="integers from 0",
            )
        if not counts.any():
            raise ConfigError(
                f"all {len(counts)} seconds have 0 requests, there is nothing to serve",
                where=self.source,
                fix="take another window, or a smaller damping_factor",
            )
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def duration_s(self) -> int:
        """Length of the trace in seconds."""
        return len(self.counts)

    @property
    def requests(self) -> int:
        """Requests of the whole trace."""
        return int(self.counts.sum())

    @property
    def mean_rps(self) -> float:
        """Mean load over the trace."""
        return self.requests / len(self.counts)

    @property
    def peak_rps(self) -> int:
        """Requests of the busiest second."""
        return int(self.counts.max())


def busiest_rps(counts_rps: Counts, stretch_s: float) -> float:
    """Most requests a second over any stretch of this length, or over all if they are fewer."""
    if not len(counts_rps):
        return 0.0
    width = max(1, min(len(counts_rps), int(stretch_s)))
    sums = np.concatenate([[0], np.cumsum(counts_rps)])
    return float((sums[width:] - sums[:-width]).max()) / width


def damped(counts: Counts, damping_factor: int | None) -> Counts:
    """The counts divided by ``damping_factor`` and rounded down, as IPA scales its trace.

    Raises:
        ConfigError: the factor is below 1.
    """
    if damping_factor is None:
        return counts
    if damping_factor < 1:
        raise ConfigError(
            f"damping_factor is {damping_factor}", allowed="an integer from 1, or null for none"
        )
    return counts // damping_factor


def checked_duration_s(duration_s: int, where: str) -> int:
    """The duration, if a trace of that many seconds can be made.

    Raises:
        ConfigError: it is below 1 s or above :data:`LONGEST_DURATION_S`.
    """
    if not 1 <= duration_s <= LONGEST_DURATION_S:
        raise ConfigError(
            f"the duration of the load is {duration_s} s",
            where=where,
            allowed=f"1 to {LONGEST_DURATION_S} s",
        )
    return duration_s


def static_workload(load_rps: float, duration_s: int) -> Workload:
    """A constant load.

    A fractional load is spread evenly: 0.5 rps is one request every second second, the last one
    included, so that the trace holds ⌊load · duration⌋ requests.

    Raises:
        ConfigError: the load is not a positive number, or the duration is out of range.
    """
    where = f"static load of {load_rps:g} rps for {duration_s} s"
    if not (math.isfinite(load_rps) and 0 < load_rps <= MOST_REQUESTS_IN_A_SECOND):
        raise ConfigError(
            f"the load is {load_rps:g} rps",
            where=where,
            allowed=f"above 0 and at most {MOST_REQUESTS_IN_A_SECOND} rps",
        )
    seconds = np.arange(checked_duration_s(duration_s, where) + 1)
    rounding_room = 1e-9  # 10 · 0.1 must count as 1
    arrived = np.floor(seconds * load_rps + rounding_room).astype(np.int64)
    return Workload("static", np.diff(arrived), where)
