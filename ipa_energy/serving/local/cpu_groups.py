"""What fits this machine; CPUs lent to replicas; a control group for each where we may have some.

Whoever comes next gets the CPUs with the fewest tenants. While old and new replicas run side by
side there may be more of them than CPUs; then they share. As soon as one goes, those who share move
to what is free, so that nobody goes on sharing beside an idle CPU.

::

    our group ─┬─ the plane, its template, the generator …
               └─ ipa-energy-PID ─┬─ crop-1            cpuset.cpus 0    cpu.max 1 core
                                  └─ classification-2  cpuset.cpus 1    cpu.max 1 core

An affinity is a thread's own to change; a group holds whatever its replica starts
or asks for. The groups are threaded ones of cgroup version 2: ``cpu`` and ``cpuset`` are
controllers of threads, so ours may go on holding processes beside groups. Where the group that we
are in cannot be written or has none of the two, replicas are pinned by affinity alone, and
:attr:`CpuGroups.told` says why.

They are taken away with their replicas; what a killed plane left, by whoever it served, or makes
groups beside it next.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.serving.deployment import Deployment

PREFIX = "ipa-energy-"
PERIOD_US = 100_000
GONE_TIMEOUT_S = 0.2
"""Until a group is empty whose last process has been waited for."""

PROC = Path("/proc")


class CpuGroup:
    """The group of one replica.

    Args:
        folder: of the group.
        controllers: those of ``cpu`` and ``cpuset`` that hold in it.
    """

    def __init__(self, folder: Path, controllers: Sequence[str]) -> None:
        self._folder, self._controllers = folder, controllers

    def hold(self, cpus: Sequence[int]) -> None:
        """From now on these CPUs, and no more time than they have."""
        with suppress(OSError):  # affinity holds all the same
            if "cpuset" in self._controllers:
                _write(self._folder / "cpuset.cpus", ",".join(map(str, cpus)))
            if "cpu" in self._controllers:
                _write(self._folder / "cpu.max", f"{len(cpus) * PERIOD_US} {PERIOD_US}")

    def add(self, pid: int) -> None:
        """A process and all its threads belong to it."""
        with suppress(OSError):
            _write(self._folder / "cgroup.procs", str(pid))

    def close(self) -> None:
        """Take it away; its processes have ended."""
        _removed(self._folder)


class CpuGroups:
    """The groups of a plane's replicas.

    Args:
        proc: the kernel's, for tests.
        mount: where cgroup version 2 is mounted; default where the kernel says.

    Attributes:
        told: what replicas are held by, in words.
    """

    def __init__(self, proc: Path = PROC, mount: Path | None = None) -> None:
        self._folder: Path | None = None
        self._controllers: tuple[str, ...] = ()
        self._enabled: list[str] = []
        self.told = self._made(proc, mount)

    def group(self, name: str) -> CpuGroup | None:
        """A group for a replica; None where there are none."""
        if self._folder is None:
            return None
        folder = self._folder / name.replace("/", "_")
        try:
            _make(folder)
            _write(folder / "cgroup.type", "threaded")
        except OSError:
            _removed(folder)
            return None
        return CpuGroup(folder, self._controllers)

    def close(self) -> None:
        """Take all of them away, and undo what was asked of the group that we are in."""
        if self._folder is None:
            return
        _sweep(self._folder)
        for controller in self._enabled:
            with suppress(OSError):  # another plane's groups may need it
                _write(self._folder.parent / "cgroup.subtree_control", f"-{controller}")
        self._folder = None

    def _made(self, proc: Path, mount: Path | None) -> str:
        ours = _own_group(proc, mount)
        if ours is None:
            return "affinity (no cgroup version 2)"
        try:
            has = _words(ours / "cgroup.controllers")
            self._controllers = tuple(name for name in ("cpuset", "cpu") if name in has)
            if not self._controllers:
                return f"affinity (cgroup {ours} has neither cpu nor cpuset)"
            _sweep_left(ours, proc)
            self._folder = ours / f"{PREFIX}{os.getpid()}"
            _make(self._folder)
            _write(self._folder / "cgroup.type", "threaded")
            self._enable(ours)
            self._enable(self._folder)
        except OSError as error:
            self.close()
            return f"affinity (cgroup {ours}: {(error.strerror or str(error)).lower()})"
        return f"affinity and cgroup ({', '.join(self._controllers)})"

    def _enable(self, folder: Path) -> None:
        control = folder / "cgroup.subtree_control"
        for name in self._controllers:
            if name not in _words(control):
                _write(control, f"+{name}")
                if self._folder is not None and folder == self._folder.parent:
                    self._enabled.append(name)


def _own_group(proc: Path, mount: Path | None) -> Path | None:
    """The folder of the version 2 group that this process is in."""
    try:
        if mount is None:
            mounts = [line.split() for line in (proc / "self/mounts").read_text().splitlines()]
            mount = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    return None if mount is None or own is None else mount / own


def sweep_left(proc: Path = PROC, mount: Path | None = None) -> None:
    """Take away what planes left that were killed."""
    ours = _own_group(proc, mount)
    if ours is not None:
        _sweep_left(ours, proc)


def _sweep_left(ours: Path, proc: Path) -> None:
    for left in ours.glob(f"{PREFIX}*/"):
        if not (proc / left.name.removeprefix(PREFIX)).exists():
            _sweep(left)


def _sweep(folder: Path) -> None:
    """Take a plane's group away, and those in it."""
    end_s = time.monotonic() + GONE_TIMEOUT_S
    for inner in (*folder.glob("*/"), folder):
        while not _removed(inner) and time.monotonic() < end_s:
            time.sleep(0.005)


def _make(folder: Path) -> None:
    folder.mkdir()


def _removed(folder: Path) -> bool:
    """False while somebody is in it."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _words(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").split()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")


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


# ------------------------------------------------------------------ what fits

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")

LEAST_REPLICA_BYTES = 64 * 2**20
"""What a model server takes before it has a model; more than that nobody knows beforehand."""

ROUNDING = 1e-9


def machine_cores(root: Path = CGROUP) -> float:
    """Cores that this process may use: the CPUs it is allowed, or its cgroup's quota if less."""
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _own_cgroups(root):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (folder / "cpu.max").read_text().split()
            cores = min(cores, math.inf if quota == "max" else float(quota) / float(period))
    return cores


def free_bytes(root: Path = CGROUP, meminfo: Path = MEMINFO) -> float:
    """Bytes of memory that nobody uses, or what our cgroup has left; infinity if unknown."""
    free = math.inf
    with suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = float(line.split()[1]) * 1024
    for folder in _own_cgroups(root):
        with suppress(OSError, ValueError):
            limit = float((folder / "memory.max").read_text())
            free = min(free, limit - float((folder / "memory.current").read_text()))
    return free


def check_fits(
    wanted: Deployment, *, cores: float, memory_bytes: float, what: str, instead: str | None = None
) -> None:
    """Refuse what this machine has no room for.

    Args:
        wanted: what is to run.
        cores: of the machine.
        memory_bytes: that it has free.
        what: where it comes from, for the message.
        instead: what would fit; None if that is not known.

    Raises:
        ConfigError: it does not fit.
    """
    needed = sum(one.replicas * one.option.cpu_cores for stage in wanted for one in stage.lanes)
    replicas = sum(stage.replicas for stage in wanted)
    label = " | ".join(stage.label for stage in wanted)
    fix = "--overcommit, which lets replicas share cores"
    if instead is not None:
        fix = f"{instead}, which fits; or {fix}"
    if needed > cores + ROUNDING:
        raise ConfigError(
            f"{label} holds {needed:g} cores, and this machine has {cores:g}", where=what, fix=fix
        )
    if replicas * LEAST_REPLICA_BYTES > memory_bytes:
        raise ConfigError(
            f"{label}: {replicas} replicas need {replicas * LEAST_REPLICA_BYTES / 2**20:.0f} MiB"
            f" and more, and this machine has {memory_bytes / 2**20:.0f} MiB free",
            where=what,
            fix=fix,
        )


def _own_cgroups(root: Path) -> list[Path]:
    """Our cgroup and all above it, as far as they can be seen from here."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    folder = root / own.lstrip("/")
    return [folder, *(f for f in folder.parents if f.is_relative_to(root))]
