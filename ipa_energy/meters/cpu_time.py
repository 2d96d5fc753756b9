"""Joules where no counter can be read: CPU time times an affine power model.

The model is ``P = P_idle + (P_max − P_idle)·utilisation``. A process tree that used *c* CPU seconds
in a window of *d* seconds, on *r* reserved cores of a machine with *k* cores, is charged ::

    dynamic   c · (P_max − P_idle) / k          joules above idle
    idle      d · P_idle · r / k                its share of the idle machine

so that one replica can be told from the rest of the machine. This is an estimate: published models
of this kind err by 9 to 46 % on average. The figures are always labelled ``estimated``, and
without a calibration against a real counter the model carries ±50 %.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, MeterFault, Reading, window_s
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.records import Quality

MIN_WINDOW_S = 0.1
"""The scheduler's clock has nanosecond steps; what remains is the microseconds a read takes."""

CLOCK_TICK_S = 0.01
"""Step of the CPU time of *reaped* children, the only part the kernel counts in ticks."""

COUNTER = "cpu_s"


class ModelledMeter:
    """CPU seconds of somebody × a power model. A :class:`~ipa_energy.meters.base.Meter`.

    Args:
        model: the machine's power model.
        reserved_cores: cores whose idle power whoever is charged stands for.

    Attributes:
        fall_tolerance_s: by so much the CPU seconds may seem to fall.

    Raises:
        ConfigError: ``reserved_cores`` is not within the model's cores.
    """

    name = "cpu-time"
    quality: Quality = "estimated"
    min_window_s = MIN_WINDOW_S
    fall_tolerance_s = CLOCK_TICK_S

    def __init__(self, model: PowerModel, reserved_cores: float) -> None:
        if not 0 < reserved_cores <= model.cores:
            raise ConfigError(
                f"{reserved_cores:g} reserved cores do not fit the power model",
                allowed=f"more than 0, at most {model.cores}",
            )
        self.model = model
        self.reserved_cores = reserved_cores

    def cpu_s(self) -> float:
        """CPU seconds so far of whoever is charged."""
        raise NotImplementedError

    def fell(self, fall_s: float) -> str:
        """What to say when they fell in a window."""
        raise NotImplementedError

    def read(self) -> Reading:
        """CPU seconds so far, as counter ``cpu_s``.

        Raises:
            MeterUnavailableError: they cannot be read.
        """
        cpu_s = self.cpu_s()
        return Reading(time.perf_counter(), {COUNTER: cpu_s})

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window: ``cpu-dynamic`` plus the reserved share of ``cpu-idle``.

        Raises:
            MeterUnavailableError: the window has no length, or the CPU time fell in it.
        """
        used_s = end.counters[COUNTER] - start.counters[COUNTER]
        if used_s < -self.fall_tolerance_s:
            raise MeterFault(self.name, "dead", self.fell(-used_s))
        duration_s = window_s(self.name, start, end)
        domains = {
            "cpu-dynamic": max(0.0, used_s) * self.model.dynamic_w_per_core,
            "cpu-idle": duration_s * self.reserved_cores * self.model.idle_w_per_core,
        }
        return Energy(sum(domains.values()), duration_s, domains, self.name, self.quality)


class CpuTimeMeter(ModelledMeter):
    """Estimated joules of one process and its descendants (Linux).

    Processes that are alive are read from the scheduler's per-process clock (nanoseconds);
    descendants that ended and were waited for are added by the kernel in steps of a clock tick.

    Args:
        model: the machine's power model.
        pid: root of the process tree to charge.
        reserved_cores: cores reserved for the tree: its share of the machine's idle power.

    Raises:
        ConfigError: ``reserved_cores`` is not within the model's cores.
    """

    def __init__(self, model: PowerModel, *, pid: int, reserved_cores: float) -> None:
        super().__init__(model, reserved_cores)
        self.pid = pid

    def cpu_s(self) -> float:
        """CPU seconds of the tree so far.

        Raises:
            MeterUnavailableError: the root process is gone, or /proc cannot be read.
        """
        try:
            return process_tree_cpu_s(self.pid)
        except (OSError, IndexError, ValueError) as error:
            raise MeterUnavailableError(
                f"cpu-time cannot read process {self.pid}: {error}; it has ended, or /proc hides it"
            ) from error

    def fell(self, fall_s: float) -> str:
        """A descendant ended, and its time is lost."""
        told = f"the CPU time of process {self.pid} fell by {fall_s:g} s"
        return f"{told}; a descendant ended without being waited for"


def process_tree_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of ``pid``, its descendants and those it has waited for.

    Raises:
        OSError: ``pid`` does not exist (a descendant that ends meanwhile is passed over: its time
            is already, or is about to be, in that of the process that waits for it).
    """
    total_s = _own_cpu_s(pid)
    for child in _children(pid):
        try:
            total_s += process_tree_cpu_s(child)
        except (OSError, IndexError):
            continue
    return total_s


def process_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of one process, without those of its children.

    Raises:
        OSError: it does not exist.
    """
    # The clock id of another process's CPU clock, as clock_getcpuclockid(3) makes it:
    # the complement of the pid above three bits that say "scheduler clock, whole process".
    return time.clock_gettime((~pid << 3) | 2)


def _own_cpu_s(pid: int) -> float:
    live_s = process_cpu_s(pid)
    # /proc/PID/stat: the name in parentheses may hold spaces; cutime and cstime are fields 16, 17.
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    after_name = stat.rpartition(")")[2].split()
    return live_s + (int(after_name[13]) + int(after_name[14])) * CLOCK_TICK_S


def _children(pid: int) -> list[int]:
    # A child hangs on the thread that started it, so every thread's list is read.
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children += [int(word) for word in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue  # the thread ended between the listing and the read
    return children


# ------------------------------------------------------------------ what others did

# The guard that keeps a neighbour's work out of a window. The kernel counts every core's busy time
# and the time the hypervisor took from it (steal) in ticks, so a window must last seconds before a
# few per cent mean anything.


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
            busy_s[int(name[3:])] = (user + nice + system + irq + softirq) * CLOCK_TICK_S
            steal_s[int(name[3:])] = steal * CLOCK_TICK_S
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
