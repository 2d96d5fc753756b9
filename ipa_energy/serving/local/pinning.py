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

from ipa_energy.serving.local.cpu_groups import CpuGroup, CpuGroups


class Pinned:
    """The CPUs of one replica; may become others.

    Attributes:
        cpus: now.
        group: that holds it to them; None where there are no groups.
        move: called with them when they become others.
    """

    def __init__(self, cpus: tuple[int, ...], group: CpuGroup | None = None) -> None:
        self.cpus = cpus
        self.group = group
        self.move: Callable[[tuple[int, ...]], None] = lambda _: None


class Cpus:
    """The CPUs that may be lent.

    Args:
        numbers: of them; default all that this process may use.
        groups: that hold replicas to theirs beside their affinity.
    """

    def __init__(
        self, numbers: Iterable[int] | None = None, groups: CpuGroups | None = None
    ) -> None:
        self._groups = groups
        allowed = os.sched_getaffinity(0) if numbers is None else numbers
        self._tenants = Counter(dict.fromkeys(sorted(allowed), 0))
        self._pinned: list[Pinned] = []

    def take(self, count: int, name: str = "") -> Pinned:
        """As many CPUs as that, or all there are, for the replica of a name."""
        cpus = tuple(sorted(self._by_tenants()[: max(1, count)]))
        pinned = Pinned(cpus, self._groups.group(name) if self._groups else None)
        if pinned.group is not None:
            pinned.group.hold(cpus)
        self._tenants.update(pinned.cpus)
        self._pinned.append(pinned)
        return pinned

    def give_back(self, pinned: Pinned) -> None:
        """They are free again; who shared moves there."""
        self._pinned.remove(pinned)
        if pinned.group is not None:
            pinned.group.close()
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
                    if pinned.group is not None:
                        pinned.group.hold(pinned.cpus)
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
