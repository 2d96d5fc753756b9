"""What fits this machine: its cores and memory, and a deployment held against them."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.serving.deployment import Deployment

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
