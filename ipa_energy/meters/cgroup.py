"""Estimated joules of one control group: a container, a pod, a service, one replica.

The kernel keeps the CPU time of each group with all that is below it ::

    version 2    cpu.stat        usage_usec       microseconds
    version 1    cpuacct.usage                    nanoseconds

whoever started its processes, and of those that have ended too. So what a service does on
somebody's behalf (``docker run``, a pod) is in the figure, which a process tree does not have. The
joules are those of :mod:`.cpu_time`: CPU time × the machine's power model, plus the group's share
of the idle machine, by default that of its CPU limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import MeterFault, MeterStatus, min_window_for
from ipa_energy.meters.cpu_time import CpuTimeMeter, ModelledMeter
from ipa_energy.meters.power_model import (
    UNCALIBRATED_RELATIVE_ERROR,
    PowerModel,
    power_model_for_this_machine,
)
from ipa_energy.meters.sources import CGROUPS, Places, Source

PROC = Path("/proc")

UPDATE_PERIOD_S = 0.01
"""The time of a group that runs is brought up to date at the scheduler's tick: 1 to 10 ms."""

Version = Literal[1, 2]

_PID = "pid:"
_V1_FOLDERS = ("cpuacct", "cpu,cpuacct", "cpuacct,cpu")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A control group whose CPU time the kernel keeps.

    Attributes:
        folder: its folder in a mounted hierarchy.
        top: the hierarchy's own folder; ``folder`` itself where it is not known.
        version: of the hierarchy.
    """

    folder: Path
    top: Path
    version: Version

    @property
    def name(self) -> str:
        """Its path within the hierarchy, as ``/proc/PID/cgroup`` writes it."""
        return "/" + self.folder.relative_to(self.top).as_posix().removeprefix(".")

    def cpu_s(self) -> float:
        """CPU seconds, user and system, of the group and all below it so far.

        Raises:
            MeterFault: the group is gone, may not be read, or holds no CPU time.
        """
        file = self.folder / ("cpuacct.usage" if self.version == 1 else "cpu.stat")
        try:
            text = file.read_text(encoding="ascii")
            if self.version == 1:
                return int(text) / 1e9
            fields = dict(line.split() for line in text.splitlines())
            return int(fields["usage_usec"]) / 1e6
        except PermissionError as error:
            raise MeterFault(
                CpuTimeMeter.name, "denied", f"cgroup {file} may not be read", "run as root"
            ) from error
        except OSError as error:
            raise MeterFault(
                CpuTimeMeter.name,
                "absent",
                f"cgroup {self.folder} cannot be read any more: {error.strerror or error}",
                "its container or service has ended: name the one that runs now",
            ) from error
        except (ValueError, KeyError) as error:
            raise MeterFault(
                CpuTimeMeter.name, "dead", f"{file} holds no CPU time", "use a kernel since 4.15"
            ) from error

    def limit_cores(self) -> float | None:
        """Cores that the group may use at most, its parents' limits included; None for all."""
        folders = [self.folder, *self.folder.parents]
        if self.top in folders:
            folders = folders[: folders.index(self.top) + 1]
        limits = [self._own_limit_cores(folder) for folder in folders]
        return min((one for one in limits if one is not None), default=None)

    def _own_limit_cores(self, folder: Path) -> float | None:
        """The limit of one level; None if it has none."""
        if self.version == 1 and not (folder / "cpu.cfs_quota_us").exists():
            # Version 1 may keep limits in a hierarchy of their own, with the same paths.
            folder = self.top.parent / "cpu" / folder.relative_to(self.top)
        return _limit_cores(folder, self.version)


class CgroupMeter(ModelledMeter):
    """Estimated joules of one control group. A :class:`~ipa_energy.meters.base.Meter`.

    Args:
        model: the machine's power model.
        cgroup: whom to charge.
        reserved_cores: cores whose idle power it is charged with; None for its CPU limit, or the
            whole machine where it has none.

    Raises:
        ConfigError: ``reserved_cores`` is not within the model's cores.
    """

    min_window_s = min_window_for(UPDATE_PERIOD_S)
    fall_tolerance_s = 0.0

    def __init__(
        self, model: PowerModel, cgroup: Cgroup, *, reserved_cores: float | None = None
    ) -> None:
        limit = cgroup.limit_cores()
        cores = min(limit or model.cores, float(model.cores))
        super().__init__(model, cores if reserved_cores is None else reserved_cores)
        self.cgroup = cgroup

    def cpu_s(self) -> float:
        """CPU seconds of the group so far.

        Raises:
            MeterUnavailableError: the group is gone, or may not be read.
        """
        return self.cgroup.cpu_s()

    def fell(self, fall_s: float) -> str:
        """Another group of that name took its place, or somebody reset it."""
        name = self.cgroup.name
        return f"the CPU time of cgroup {name} fell by {fall_s:g} s: it was reset, or made anew"


def find_cgroup(which: str, root: Path = CGROUPS, proc: Path = PROC) -> Cgroup:
    """The group that is meant.

    Args:
        which: its folder, its path within the hierarchy (``/kubepods.slice/…``), or ``pid:N`` for
            the group of process N.
        root: where the hierarchies are mounted.
        proc: the kernel's folder of processes.

    Raises:
        ConfigError: there is no such group or process.
        MeterFault: this machine keeps no CPU time of groups.
    """
    if not which.strip():
        raise ConfigError("an empty name of a cgroup", where="--cgroup")
    found = hierarchies(root)
    if which.startswith(_PID):
        return _of_process(which, found, proc)
    given = Path(which)
    if given.is_absolute() and (version := _version(given)) is not None:
        tops = [top for top, _ in found if given.is_relative_to(top)]
        return Cgroup(given, tops[0] if tops else given, version)
    if not found:
        raise no_accounting(root)
    for top, version in found:
        folder = top / which.lstrip("/")
        if _version(folder) == version:
            return Cgroup(folder, top, version)
    raise ConfigError(
        f"no cgroup {which!r} under {', '.join(str(top) for top, _ in found)}",
        where="--cgroup",
        allowed="its folder, its path as /proc/PID/cgroup has it, or pid:N",
        fix="pid:$(docker inspect -f '{{.State.Pid}}' NAME) names a container's; systemd-cgls "
        "lists them all",
    )


def hierarchies(root: Path = CGROUPS) -> list[tuple[Path, Version]]:
    """Mounted hierarchies that keep CPU time, the one that container engines use first."""
    if (root / "cgroup.controllers").exists():
        return [(root, 2)]
    found: list[tuple[Path, Version]] = []
    for name in _V1_FOLDERS:
        if _version(root / name) == 1:
            found.append((root / name, 1))
            break
    if (root / "unified" / "cgroup.controllers").exists():
        found.append((root / "unified", 2))
    return found


def no_accounting(root: Path) -> MeterFault:
    """What to say where no hierarchy keeps CPU time."""
    return MeterFault(
        CpuTimeMeter.name,
        "absent",
        f"no cgroup hierarchy with CPU time under {root}",
        "in a container mount the host's /sys/fs/cgroup and give the group's folder in it",
    )


def _of_process(which: str, found: list[tuple[Path, Version]], proc: Path) -> Cgroup:
    number = which.removeprefix(_PID)
    if not (number.isascii() and number.isdecimal()):
        raise ConfigError(f"{which!r}", where="--cgroup", allowed="pid:N with a process's number")
    try:
        text = (proc / number / "cgroup").read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"no process {number}: {error.strerror}", where="--cgroup") from error
    paths: dict[Version, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths[2] = path
        elif "cpuacct" in controllers.split(","):
            paths[1] = path
    for top, version in found:
        folder = top / paths.get(version, "").lstrip("/")
        if version in paths and _version(folder) == version:
            return Cgroup(folder, top, version)
    named = ", ".join(paths.values()) or "none"
    raise ConfigError(
        f"the cgroup of process {number} is not mounted here: {named}",
        where="--cgroup",
        fix="in a container mount the host's /sys/fs/cgroup and give the group's folder in it",
    )


def _version(folder: Path) -> Version | None:
    """Of a group's folder; None if it keeps no CPU time."""
    if (folder / "cpuacct.usage").exists():
        return 1
    return 2 if (folder / "cgroup.procs").exists() and (folder / "cpu.stat").exists() else None


def _limit_cores(folder: Path, version: Version) -> float | None:
    """Cores from a folder's quota; None if it has none."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            return None if quota == "max" else int(quota) / int(period)
        quota_us = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _probe_cpu_time(places: Places) -> MeterStatus:
    name, min_window_s = CpuTimeMeter.name, CpuTimeMeter.min_window_s
    try:
        model = power_model_for_this_machine()
        if places.cgroup is not None:
            group = find_cgroup(places.cgroup, places.cgroups)
            meter = CgroupMeter(model, group, reserved_cores=places.reserved_cores)
            meter.read()
            min_window_s = meter.min_window_s
            whose = f"of cgroup {group.name}, idle power of {meter.reserved_cores:g} cores, "
        else:
            whose = _charged(places)
    except MeterFault as fault:
        return fault.status()
    except ConfigError as error:
        return MeterStatus(name, "absent", str(error))
    prior = model.relative_error >= UNCALIBRATED_RELATIVE_ERROR
    return MeterStatus(
        name,
        "estimated",
        f"CPU time {whose}× a power model, good to ±{100 * model.relative_error:.0f} %. "
        f"{model.source}",
        "calibrate it against a counter where one can be read: ipa-energy calibrate"
        if prior
        else None,
        domains=("cpu-dynamic", "cpu-idle"),
        min_window_s=min_window_s,
    )


def _charged(places: Places) -> str:
    """What CPU time can be told apart here, in words."""
    found = hierarchies(places.cgroups)
    if not found:
        return f"of a process tree (no cgroups with CPU time under {places.cgroups}) "
    where = ", ".join(f"version {version} at {top}" for top, version in found)
    return f"of a process tree, or of a cgroup by --cgroup ({where}), "


def _open_cpu_time(places: Places) -> ModelledMeter:
    model = power_model_for_this_machine()
    if places.cgroup is not None:
        group = find_cgroup(places.cgroup, places.cgroups)
        return CgroupMeter(model, group, reserved_cores=places.reserved_cores)
    return CpuTimeMeter(
        model, pid=places.pid, reserved_cores=places.reserved_cores or float(model.cores)
    )


CPU_TIME = Source(_open_cpu_time, _probe_cpu_time)
