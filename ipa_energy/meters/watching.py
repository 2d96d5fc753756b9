"""Watching a meter's counters: which of them move, how often, and whether they still run.

What a counter's data sheet promises need not hold on this machine, and on a virtual one a counter
may be listed, readable and still. So the period between two steps is the one that was seen, and a
counter is believed after it moved under load, as far as it moved: memory that stands still is left
out and said so (some processors list a memory counter that they do not have); a package or a
platform that stands still makes the whole meter dead.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import threading
import time
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, TypeVar

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.base import CounterMeter, MeterFault, MeterStatus, Reading, min_window_for

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


BUFFER_BYTES = 1 << 18
"""About 0.2 ms of hashing: long against the lock's cost, short against a counter's step."""

MAX_THREADS = 4


FROZEN_AFTER_S = 0.25
"""Counters step about every millisecond; one that stands for this long has stopped."""

CONFIRM_PAUSE_S = 0.0002


class SteppingMeter(CounterMeter):
    """Counters of the hardware that step every millisecond or so.

    After a window it waits for their next step, about a millisecond at most, to be sure that they
    were still running at its end.

    Args:
        update_period_s: seconds between two steps.
        clock: seconds, increasing.
        sleep: waits for seconds of that clock.
    """

    def __init__(
        self, update_period_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self.update_period_s = update_period_s
        self._clock, self._sleep = clock, sleep

    @property
    def min_window_s(self) -> float:
        """Shortest window good to 1 %: 100 steps of the counters."""
        return min_window_for(self.update_period_s)

    @property
    def still_fix(self) -> str:  # type: ignore[override]
        """A longer window is all there is to try."""
        return (
            f"use a window of {self.min_window_s:g} s or more; a counter that still rests is dead"
        )

    @property
    def domains(self) -> tuple[str, ...]:
        """What is added up, e.g. ``package-0``, ``dram-0``."""
        raise NotImplementedError

    def read(self) -> Reading:
        """Counters by domain; see :class:`~ipa_energy.meters.base.Meter`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give everything back."""
        raise NotImplementedError

    def took(self, start: Reading, end: Reading) -> bool:
        """True if both readings are of this meter's domains."""
        return set(self.domains) == set(start.counters) == set(end.counters)

    def confirm(self, end: Reading) -> None:
        """Wait until every counter has moved beyond ``end``: it had not stopped before.

        Raises:
            MeterFault: one stands still.
        """
        while True:
            now = self.read()
            still = [name for name in self.domains if now.counters[name] <= end.counters[name]]
            if not still:
                return
            if now.time_s - end.time_s >= FROZEN_AFTER_S:
                raise MeterFault(
                    self.name,
                    "dead",
                    f"{still[0]} stands still: it may have stopped in the window",
                    "measure again",
                )
            self._sleep(CONFIRM_PAUSE_S)

    def __enter__(self) -> Self:
        """The meter itself, closed at the end of the block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()


class BusyCores:
    """Keeps up to four of the cores this process may use busy within a ``with`` block.

    One core that it may use is left to the reader, if there is more than one.
    """

    def __init__(self, threads: int | None = None) -> None:
        usable = len(os.sched_getaffinity(0))
        self._count = threads or max(1, min(MAX_THREADS, usable - 1))
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> BusyCores:
        """Start."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._spin, name="busy", daemon=True)
            for _ in range(self._count)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop; returns when every thread has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _spin(self) -> None:
        buffer = bytes(BUFFER_BYTES)
        while not self._stop.is_set():
            hashlib.sha256(buffer).digest()


OPTIONAL = "dram"
LEFT_OUT = "is left out"


M = TypeVar("M", bound=SteppingMeter)


def moving(make: Callable[[Collection[str]], M]) -> tuple[M, MeterStatus]:
    """A meter whose counters moved while it was watched, and what was seen.

    Args:
        make: makes the meter without the domains that it is given. Keep the machine busy meanwhile.

    Raises:
        MeterUnavailableError: it cannot be made or read, or a counter stands still.
    """
    meter = make(())
    try:
        seen = observe(meter.read)
        vital = [name for name in seen.still if not name.startswith(OPTIONAL)]
        if vital or not seen.period_s:
            raise standing_still(meter.name, seen)
        if seen.still:
            meter.close()
            meter = make(seen.still)
    except MeterUnavailableError:
        meter.close()
        raise
    meter.update_period_s = seen.slowest_s
    left_out = f"; {', '.join(seen.still)} stood still and {LEFT_OUT}" if seen.still else ""
    return meter, MeterStatus(
        meter.name,
        "measured",
        f"moved under load: {', '.join(meter.domains)}{left_out}",
        domains=meter.domains,
        update_period_s=seen.slowest_s,
        min_window_s=min_window_for(seen.slowest_s),
    )


def standing_still(name: str, seen: Observation) -> MeterFault:
    """What to say of a meter with a counter that did not move."""
    return MeterFault(
        name,
        "dead",
        f"{', '.join(seen.still)} can be read and stood still under load for "
        f"{seen.watched_s:.2g} s",
        "none: the machine, most likely a virtual one, lists a counter that it does not have",
    )


class KeepAlive:
    """Calls a bound method every ``period_s`` seconds, until stopped or until its object is gone.

    Args:
        method: the bound method; its object is not kept alive by this.
        period_s: seconds between calls.
        name: of the thread.
    """

    def __init__(self, method: Callable[[], Any], period_s: float, *, name: str) -> None:
        self.period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_run, args=(weakref.WeakMethod(method), self._stop, period_s), name=name
        )
        self._thread.daemon = True
        self._thread.start()

    def stop(self) -> None:
        """Call no more; returns when a call in progress has ended."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()


def _run(
    method: weakref.WeakMethod[Callable[[], Any]], stop: threading.Event, period_s: float
) -> None:
    while not stop.wait(period_s):
        call = method()
        if call is None:
            return
        call()
        del call  # or the object would live until the next call
