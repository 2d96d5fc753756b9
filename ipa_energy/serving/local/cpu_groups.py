"""A control group for each replica, where the kernel lets this process have some.

::

    our group ─┬─ the plane, its template, the generator …
               └─ ipa-energy-PID ─┬─ crop-1            cpuset.cpus 0    cpu.max 1 core
                                  └─ classification-2  cpuset.cpus 1    cpu.max 1 core

An affinity (:mod:`.pinning`) is a thread's own to change; a group holds whatever its replica starts
or asks for. The groups are threaded ones of cgroup version 2: ``cpu`` and ``cpuset`` are
controllers of threads, so ours may go on holding processes beside groups. Where the group that we
are in cannot be written or has none of the two, replicas are pinned by affinity alone, and
:attr:`CpuGroups.told` says why.

They are taken away with their replicas; what a killed plane left, by whoever it served, or makes
groups beside it next.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

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
        with contextlib.suppress(OSError):  # affinity holds all the same
            if "cpuset" in self._controllers:
                _write(self._folder / "cpuset.cpus", ",".join(map(str, cpus)))
            if "cpu" in self._controllers:
                _write(self._folder / "cpu.max", f"{len(cpus) * PERIOD_US} {PERIOD_US}")

    def add(self, pid: int) -> None:
        """A process and all its threads belong to it."""
        with contextlib.suppress(OSError):
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
            with contextlib.suppress(OSError):  # another plane's groups may need it
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
