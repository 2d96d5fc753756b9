"""The machine: what it is, and which of its CPUs the replicas of an entry are pinned to.

Whole cores of one's own, close together.
Two hardware threads of a core share its units and its first caches; replicas that were given one
each would measure each other. So every replica gets cores of its own, one thread of each as long as
there are enough of them, and the second threads of its own cores when there are not::

    4 cores, 2 threads each (0 4 | 1 5 | 2 6 | 3 7)

    2 replicas × 2 CPUs      0 1      | 2 3             a core each, second threads stay idle
    2 replicas × 3 CPUs      0 1 4    | 2 3 6           its own second threads
    1 replica  × 8 CPUs      0 1 2 3 4 5 6 7

and lies within one NUMA node where one has room.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.meters.power_model import first_cpu

SYSTEM = Path("/sys/devices/system")


@dataclass(frozen=True, slots=True)
class Core:
    """One physical core.

    Attributes:
        node: NUMA node; 0 where the machine has none.
        threads: its CPUs that may be used, as the system numbers them, in order.
    """

    node: int
    threads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """The CPUs of the replicas of one entry.

    Attributes:
        replicas: CPUs of each.
        shares_cores: True if two replicas had to be given threads of one core.
        spans_nodes: True if a replica's CPUs lie in several NUMA nodes.
    """

    replicas: tuple[tuple[int, ...], ...]
    shares_cores: bool
    spans_nodes: bool

    def to_json(self) -> dict[str, Any]:
        """For the meta file."""
        return {
            "core_ids": [list(cores) for cores in self.replicas],
            "shares_cores": self.shares_cores,
            "spans_nodes": self.spans_nodes,
        }


class Topology:
    """The cores that this process may use.

    Args:
        cores: each with at least one thread.
    """

    def __init__(self, cores: Sequence[Core]) -> None:
        self.cores = tuple(sorted(cores, key=lambda core: (core.node, core.threads)))

    @property
    def cpus(self) -> int:
        """Hardware threads in all."""
        return sum(len(core.threads) for core in self.cores)

    def to_json(self) -> dict[str, int]:
        """For the meta file."""
        return {
            "cpus": self.cpus,
            "cores": len(self.cores),
            "threads_per_core": max((len(core.threads) for core in self.cores), default=0),
            "numa_nodes": len({core.node for core in self.cores}),
        }

    def place(self, replicas: int, cpus: int) -> Placement:
        """CPUs for ``replicas`` of ``cpus`` each; together there must be that many.

        Replicas share a physical core only where whole cores do not suffice.
        """
        cores_each = self._cores_each(replicas, cpus)
        if cores_each:
            found = [tuple(_threads(own)[:cpus]) for own in self._groups(replicas, cores_each)]
        else:
            line = [thread for core in self.cores for thread in core.threads]
            found = [tuple(line[n * cpus : (n + 1) * cpus]) for n in range(replicas)]
        return self._placement(found)

    def in_order(self, cpu_ids: Sequence[int], replicas: int, cpus: int) -> Placement:
        """The CPUs that somebody named, in the order in which they are named."""
        found = [tuple(cpu_ids[n * cpus : (n + 1) * cpus]) for n in range(replicas)]
        return self._placement(found)

    def _cores_each(self, replicas: int, cpus: int) -> int:
        """Physical cores for each replica; 0 if that leaves one without enough threads."""
        most = min(cpus, len(self.cores) // replicas)
        for cores in range(most, 0, -1):
            if all(len(_threads(own)) >= cpus for own in self._groups(replicas, cores)):
                return cores
        return 0

    def _groups(self, replicas: int, size: int) -> list[list[Core]]:
        """``size`` cores for each replica, of one node where one has as many left."""
        left = list(self.cores)
        groups = []
        for _ in range(replicas):
            nodes = dict.fromkeys(core.node for core in left)
            roomy = (node for node in nodes if sum(core.node == node for core in left) >= size)
            node = next(roomy, None)
            fitting = [core for core in left if node is None or core.node == node]
            groups.append(fitting[:size])
            left = [core for core in left if core not in fitting[:size]]
        return groups

    def _placement(self, replicas: Sequence[tuple[int, ...]]) -> Placement:
        home = {thread: core for core in self.cores for thread in core.threads}
        used = [{home[cpu] for cpu in cpus if cpu in home} for cpus in replicas]
        return Placement(
            replicas=tuple(replicas),
            shares_cores=sum(map(len, used)) > len(set().union(*used)),
            spans_nodes=any(len({core.node for core in cores}) > 1 for cores in used),
        )


def _threads(cores: Sequence[Core]) -> list[int]:
    """First threads of all, then second threads, and so on."""
    most = max((len(core.threads) for core in cores), default=0)
    return [core.threads[n] for n in range(most) for core in cores if n < len(core.threads)]


def read_topology(cpu_ids: Sequence[int], system: Path = SYSTEM) -> Topology:
    """The cores behind ``cpu_ids``; where the kernel does not say, each CPU is one.

    Args:
        cpu_ids: CPUs that may be used.
        system: the kernel's folder.
    """
    nodes = dict(_nodes(system))
    threads: dict[tuple[int, ...], list[int]] = {}
    for cpu in sorted(cpu_ids):
        threads.setdefault(_siblings(cpu, system), []).append(cpu)
    return Topology([Core(nodes.get(cpus[0], 0), tuple(cpus)) for cpus in threads.values()])


def _siblings(cpu: int, system: Path) -> tuple[int, ...]:
    folder = system / f"cpu/cpu{cpu}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is the older name
        try:
            return parse_cpu_list((folder / name).read_text())
        except (OSError, ValueError):
            continue
    return (cpu,)


def _nodes(system: Path) -> Iterator[tuple[int, int]]:
    """(CPU, its NUMA node)."""
    for folder in sorted(system.glob("node/node[0-9]*")):
        try:
            cpus = parse_cpu_list((folder / "cpulist").read_text())
        except (OSError, ValueError):
            continue
        yield from ((cpu, int(folder.name.removeprefix("node"))) for cpu in cpus)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The CPUs of the kernel's list format: ``0-3,8`` is 0, 1, 2, 3, 8.

    Raises:
        ValueError: it is no such list.
    """
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def placements(
    topology: Topology,
    cpu_ids: Sequence[int] | None,
    sizes: Sequence[tuple[int, int]],
) -> Mapping[tuple[int, int], Placement]:
    """(replicas, CPUs of each) → where they are.

    Args:
        topology: what may be used.
        cpu_ids: CPUs in an order that somebody chose; None to choose by the topology.
        sizes: those that are needed.
    """
    return {
        (replicas, cpus): topology.place(replicas, cpus)
        if cpu_ids is None
        else topology.in_order(cpu_ids, replicas, cpus)
        for replicas, cpus in sizes
    }


PROC = Path("/proc")


def describe_machine(proc: Path = PROC) -> dict[str, Any]:
    """CPU, cores, memory, kernel, and whether a hypervisor is in between."""
    cpu = first_cpu(proc / "cpuinfo")
    memory_kib = next(
        (
            int(line.split()[1])
            for line in (proc / "meminfo").read_text().splitlines()
            if line.startswith("MemTotal:")
        ),
        0,
    )
    return {
        "cpu": cpu.get("model name", platform.processor() or "unknown"),
        "cpu_family": cpu.get("cpu family"),
        "cpu_model": cpu.get("model"),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "architecture": platform.machine(),
        "virtualised": "hypervisor" in cpu.get("flags", "").split(),
        "python": platform.python_version(),
    }
