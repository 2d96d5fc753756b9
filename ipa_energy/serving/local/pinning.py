"""CPUs lent to replicas: whoever comes next gets those with the fewest tenants.

While old and new replicas run side by side there may be more of them than CPUs; then they share.
As soon as one goes, those who share move to what is free, so that nobody goes on sharing beside an
idle CPU.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path


class Pinned:
    """The CPUs of one replica; may become others.

    Attributes:
        cpus: now.
        move: called with them when they become others.
    """

    def __init__(self, cpus: tuple[int, ...]) -> None:
        self.cpus = cpus
        self.move: Callable[[tuple[int, ...]], None] = lambda _: None


class Cpus:
    """The CPUs that may be lent.

    Args:
        numbers: of them; default all that this process may use.
    """

    def __init__(self, numbers: Iterable[int] | None = None) -> None:
        allowed = os.sched_getaffinity(0) if numbers is None else numbers
        self._tenants = Counter(dict.fromkeys(sorted(allowed), 0))
        self._pinned: list[Pinned] = []

    def take(self, count: int) -> Pinned:
        """As many CPUs as that, or all there are."""
        pinned = Pinned(tuple(sorted(self._by_tenants()[: max(1, count)])))
        self._tenants.update(pinned.cpus)
        self._pinned.append(pinned)
        return pinned

    def give_back(self, pinned: Pinned) -> None:
        """They are free again; who shared moves there."""
        self._pinned.remove(pinned)
        self._tenants.subtract(pinned.cpus)
        while self._level():
            pass

    def _by_tenants(self) -> list[int]:
        return sorted(self._tenants, key=lambda cpu: (self._tenants[cpu], cpu))

    def _level(self) -> bool:
        """Move one replica from a CPU to one with at least two tenants less; False if nobody is."""
        for pinned in self._pinned:
            crowded = max(pinned.cpus, key=self._tenants.__getitem__)
            for cpu in self._by_tenants():
                if cpu not in pinned.cpus and self._tenants[cpu] + 2 <= self._tenants[crowded]:
                    self._tenants[crowded] -= 1
                    self._tenants[cpu] += 1
                    pinned.cpus = tuple(sorted({*pinned.cpus, cpu} - {crowded}))
                    pinned.move(pinned.cpus)
                    return True
        return False


def pin_all_threads(pid: int, cpus: Iterable[int]) -> None:
    """Let a process that runs already use these CPUs only; nothing happens if it is gone."""
    wanted = set(cpus)
    try:
        threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return
    for thread in threads:
        try:
            os.sched_setaffinity(thread, wanted)
        except OSError:  # it has just ended
            continue
