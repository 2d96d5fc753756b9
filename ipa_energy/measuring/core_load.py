"""Who else used the cores: the guard that keeps a neighbour's work out of a window.

The kernel counts every core's busy time and the time the hypervisor took from it (steal). What is
busy beyond the replica's own CPU time is foreign. Both are counted in ticks of 10 ms, so a window
must last seconds before a few per cent mean anything.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

TICK_S = 0.01
"""The kernel's USER_HZ, which is 100 on every Linux this runs on."""


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Cumulative seconds of every core at one moment.

    Attributes:
        time_s: ``time.perf_counter()`` at the read.
        busy_s: core → seconds in user, nice, system and interrupts.
        steal_s: core → seconds the hypervisor gave to someone else.
    """

    time_s: float
    busy_s: dict[int, float]
    steal_s: dict[int, float]


@dataclass(frozen=True, slots=True)
class CoreLoad:
    """What others did in a window, as ratios of the time available.

    Attributes:
        foreign: on the replica's own cores, steal included; negative only by the ticks' rounding.
        neighbour: on the other cores, which share caches, memory bandwidth and power with it.
    """

    foreign: float
    neighbour: float


def read_core_times(stat: Path = Path("/proc/stat")) -> CoreTimes:
    """Cumulative core times now."""
    busy_s, steal_s = {}, {}
    for line in stat.read_text(encoding="utf-8").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy_s[int(name[3:])] = (user + nice + system + irq + softirq) * TICK_S
            steal_s[int(name[3:])] = steal * TICK_S
    return CoreTimes(time.perf_counter(), busy_s, steal_s)


def load_between(
    start: CoreTimes, end: CoreTimes, *, core_ids: Collection[int], own_cpu_s: float
) -> CoreLoad:
    """What others did on ``core_ids``, and on the rest, between two reads.

    Args:
        start: read before the window.
        end: read after it.
        core_ids: cores of the replica.
        own_cpu_s: CPU seconds of the replica in the window.
    """
    duration_s = end.time_s - start.time_s

    def used_s(core: int) -> float:
        busy_s = end.busy_s[core] - start.busy_s[core]
        return busy_s + end.steal_s[core] - start.steal_s[core]

    others = [core for core in end.busy_s if core not in core_ids]
    own_s = sum(used_s(core) for core in core_ids)
    return CoreLoad(
        foreign=(own_s - own_cpu_s) / (duration_s * len(core_ids)),
        neighbour=sum(map(used_s, others)) / (duration_s * len(others)) if others else 0.0,
    )
