"""A command and everything it starts, run from here and charged as one.

The command keeps the caller's own standard input, output and error, so its output passes through
byte by byte, a terminal stays a terminal, and no pipe can fill up. Its CPU time is complete when it
has ended: that of all processes which were waited for, by whomever in the tree, in microseconds
(the kernel's resource usage), plus that of processes which outlive it (:mod:`.subreaper`).
What a service outside the tree does on its behalf (``docker run``, ``systemd-run``) is not in it,
and neither are children of a program that ignores SIGCHLD: the kernel forgets their time.

Its meter is the best that works here (``auto``), or names joined by ``+``, measured together. A
counter covers the machine; cpu-time charges the tree, or the control group that is named.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.measuring import subreaper
from ipa_energy.measuring.child_process import ChildEndedError, ChildProcess
from ipa_energy.meters.base import Meter
from ipa_energy.meters.cgroup import CgroupMeter, find_cgroup
from ipa_energy.meters.composite import CompositeMeter
from ipa_energy.meters.cpu_time import CpuTimeMeter, process_tree_cpu_s
from ipa_energy.meters.discovery import AUTO, CPU_ESTIMATE, best_here, close_meter, open_meter
from ipa_energy.meters.power_model import PowerModel, power_model_for_this_machine, power_model_in
from ipa_energy.meters.sources import Places
from ipa_energy.records import meters_in

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = subreaper.STOP_GRACE_S + 2 * subreaper.TERMINATE_GRACE_S
"""A command that was told to stop has ended by then, unless the kernel itself holds it."""

STDERR_FD = 2


class CommandTree(ChildProcess):
    """Runs commands, one after the other; a context manager.

    Args:
        stdout_to_stderr: the commands' standard output goes to this process's standard error.
    """

    def __init__(self, *, stdout_to_stderr: bool = False) -> None:
        super().__init__(
            [sys.executable, "-I", "-S", subreaper.__file__],
            stdout=STDERR_FD if stdout_to_stderr else None,
            pass_fds=_inheritable_fds(),
        )
        with _told():
            is_subreaper = self.hear()["subreaper"]
        if not is_subreaper:
            logger.warning(
                "the kernel does not hand over orphaned processes: CPU time of processes that "
                "outlive their parent is missing"
            )

    def run(self, command: Sequence[str]) -> int:
        """Run ``command`` to its end: its exit code, or minus the signal that killed it.

        Raises:
            ConfigError: it could not be started.
            KeyboardInterrupt: as it came, after the command was stopped.
        """
        with _told():
            self.tell({"do": "run", "command": list(command)})
            try:
                answer = self.hear()
            except KeyboardInterrupt:
                self._stop()
                raise
        if "error" in answer:
            raise ConfigError(f"cannot run {command[0]}: {answer['error']}")
        return int(answer["exit_code"])

    def cpu_s(self) -> float:
        """CPU seconds, user and system, of everything run so far.

        Raises:
            MeterUnavailableError: a process that is still running cannot be read.
        """
        seen = self._look()
        try:
            return float(seen["ended_cpu_s"]) + sum(map(process_tree_cpu_s, seen["children"]))
        except (OSError, IndexError, ValueError) as error:
            raise MeterUnavailableError(
                f"cpu-time cannot read a process that the command left behind: {error}"
            ) from error

    def left_running(self) -> list[str]:
        """Processes that outlived their command, as ``name (pid)``."""
        names = []
        for pid in self._look()["children"]:
            try:
                name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
            except OSError:
                continue  # it has ended by now
            names.append(f"{name} ({pid})")
        return names

    def close(self, grace_s: float = STOP_TIMEOUT_S) -> None:
        """End the tree's root; what commands left running goes on. Safe to call twice."""
        super().close(grace_s)

    def _look(self) -> dict[str, Any]:
        with _told():
            self.tell({"do": "look"})
            return self.hear()

    def _stop(self) -> None:
        """Stop the running command; another Ctrl-C meanwhile kills it."""
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        self.tell({"do": "stop"})
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                with suppress(TimeoutError):
                    self.hear(left_s)
                return
            except KeyboardInterrupt:
                self.tell({"do": "stop"})


@contextmanager
def _told() -> Iterator[None]:
    """Says what it means for the figures that the tree's root has ended."""
    try:
        yield
    except ChildEndedError as error:
        raise MeterUnavailableError(
            "the process that runs the command was killed, and with it the account of its CPU time"
        ) from error


def _inheritable_fds() -> list[int]:
    """Descriptors beyond the standard three that the caller's shell opened for the command."""
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - names, not paths
        try:
            if fd > STDERR_FD and os.get_inheritable(fd):
                found.append(fd)
        except OSError:
            continue  # the descriptor of the listing itself
    return found


# ------------------------------------------------------------------ what charges it


class TreeMeter(CpuTimeMeter):
    """The cpu-time meter of a command tree.

    Dynamic joules are the tree's own CPU time; the idle share is the whole machine's, because the
    machine is on for the command's sake while it runs.

    Args:
        model: the machine's power model.
        tree: what to charge.
    """

    def __init__(self, model: PowerModel, tree: CommandTree) -> None:
        super().__init__(model, pid=tree.pid, reserved_cores=model.cores)
        self._tree = tree

    def cpu_s(self) -> float:
        """CPU seconds of the tree so far.

        Raises:
            MeterUnavailableError: the tree cannot be read.
        """
        return self._tree.cpu_s()


TreeMeterFactory = Callable[[CommandTree], Meter]
"""The tree that will run the command → the meter that measures it."""


@dataclass(frozen=True, slots=True)
class CommandMeter:
    """A meter for a command, and what is said beside its figures.

    Attributes:
        meter_for: makes the meter once the command's tree exists.
        meta: for the JSON: ``power_model`` and ``relative_error`` of an estimate, ``cgroup``.
        note: for the text, after the meter's name; empty if there is nothing to add.
        own_cpu_s: CPU seconds of what is charged.
        warnings: what ``auto`` leaves out.
    """

    meter_for: TreeMeterFactory
    meta: Mapping[str, Any]
    note: str
    own_cpu_s: Callable[[CommandTree], float]
    warnings: tuple[str, ...] = ()


@contextmanager
def command_meter(
    name: str, places: Places, power_model: Path | None = None
) -> Iterator[CommandMeter]:
    """The meter for a command; counters are tried under load, and closed with the block.

    Args:
        name: ``auto``, or names of meters joined by ``+``.
        places: where to look.
        power_model: file of the cpu-time meter's model; None for this machine's.

    Raises:
        ConfigError: no such meter or model.
        MeterUnavailableError: a counter is dead, denied or absent.
    """
    warnings: tuple[str, ...] = ()
    if name == AUTO:
        found = best_here(places)
        name, warnings = found.auto or CPU_ESTIMATE, found.notes
    parts = meters_in(name)
    model, group = None, None
    if CPU_ESTIMATE in parts:
        model = power_model_in(power_model) if power_model else power_model_for_this_machine()
        group = _cgroup_meter(model, places)
    counters: dict[str, Meter] = {} if group is None else {CPU_ESTIMATE: group}
    try:
        for part in parts:
            if part != CPU_ESTIMATE:
                counters[part] = open_meter(part, places)
        yield CommandMeter(
            lambda tree: _composed(parts, counters, model, tree),
            _meta(model, group),
            _note(model, group),
            (lambda _: group.cgroup.cpu_s()) if group else (lambda tree: tree.cpu_s()),
            warnings,
        )
    finally:
        for meter in counters.values():
            close_meter(meter)


def _cgroup_meter(model: PowerModel, places: Places) -> CgroupMeter | None:
    if places.cgroup is None:
        return None
    group = find_cgroup(places.cgroup, places.cgroups)
    return CgroupMeter(model, group, reserved_cores=places.reserved_cores)


def _meta(model: PowerModel | None, group: CgroupMeter | None) -> dict[str, Any]:
    if model is None:
        return {}
    meta = {"power_model": model.to_json(), "relative_error": model.relative_error}
    if group is not None:
        meta["cgroup"] = {
            "folder": str(group.cgroup.folder),
            "reserved_cores": group.reserved_cores,
            "idle_power_w": group.reserved_cores * model.idle_w_per_core,
        }
    return meta


def _note(model: PowerModel | None, group: CgroupMeter | None) -> str:
    whose = f" of cgroup {group.cgroup.name}" if group is not None else ""
    return f"{whose}, good to ±{100 * model.relative_error:.0f} %" if model is not None else ""


def _composed(
    parts: Sequence[str],
    counters: Mapping[str, Meter],
    model: PowerModel | None,
    tree: CommandTree,
) -> Meter:
    meters: list[Meter] = [
        TreeMeter(model, tree) if model is not None and part not in counters else counters[part]
        for part in parts
    ]
    return meters[0] if len(meters) == 1 else CompositeMeter(meters)
