"""A command and everything it starts, run from here and charged as one.

The command keeps the caller's own standard input, output and error, so its output passes through
byte by byte, a terminal stays a terminal, and no pipe can fill up. Its CPU time is complete when it
has ended: that of all processes which were waited for, by whomever in the tree, in microseconds
(the kernel's resource usage), plus that of processes which outlive it (:mod:`.subreaper`).
What a service outside the tree does on its behalf (``docker run``, ``systemd-run``) is not in it,
and neither are children of a program that ignores SIGCHLD: the kernel forgets their time.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.measuring import subreaper
from ipa_energy.meters.cpu_time import CpuTimeMeter, process_tree_cpu_s
from ipa_energy.meters.power_model import PowerModel

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = subreaper.STOP_GRACE_S + 2 * subreaper.TERMINATE_GRACE_S
"""A command that was told to stop has ended by then, unless the kernel itself holds it."""

STDERR_FD = 2


class CommandTree:
    """Runs commands, one after the other; a context manager.

    Args:
        stdout_to_stderr: the commands' standard output goes to this process's standard error.
    """

    def __init__(self, *, stdout_to_stderr: bool = False) -> None:
        requests_fd, self._requests_fd = os.pipe()
        self._answers_fd, answers_fd = os.pipe()
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", subreaper.__file__, str(requests_fd), str(answers_fd)],
            stdout=STDERR_FD if stdout_to_stderr else None,
            pass_fds=[requests_fd, answers_fd, *_inheritable_fds()],
        )
        os.close(requests_fd)
        os.close(answers_fd)
        if not self._hear()["subreaper"]:
            logger.warning(
                "the kernel does not hand over orphaned processes: CPU time of processes that "
                "outlive their parent is missing"
            )

    def __enter__(self) -> CommandTree:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the tree's root."""
        return self._process.pid

    def run(self, command: Sequence[str]) -> int:
        """Run ``command`` to its end: its exit code, or minus the signal that killed it.

        Raises:
            ConfigError: it could not be started.
            KeyboardInterrupt: as it came, after the command was stopped.
        """
        self._say({"do": "run", "command": list(command)})
        try:
            answer = self._hear()
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

    def close(self) -> None:
        """End the tree's root; what commands left running goes on. Safe to call twice."""
        if self._requests_fd < 0:
            return
        os.close(self._requests_fd)
        self._requests_fd = -1
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers_fd)

    def _look(self) -> dict[str, Any]:
        self._say({"do": "look"})
        return self._hear()

    def _stop(self) -> None:
        """Stop the running command; another Ctrl-C meanwhile kills it."""
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        self._say({"do": "stop"})
        while time.monotonic() < deadline_s:
            try:
                if select.select([self._answers_fd], [], [], deadline_s - time.monotonic())[0]:
                    self._hear()
                return
            except KeyboardInterrupt:
                self._say({"do": "stop"})

    def _say(self, request: dict[str, Any]) -> None:
        try:
            os.write(self._requests_fd, json.dumps(request).encode() + b"\n")
        except BrokenPipeError as error:
            raise self._gone() from error

    def _hear(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            chunk = os.read(self._answers_fd, 1 << 16)
            if not chunk:
                raise self._gone()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _gone(self) -> MeterUnavailableError:
        return MeterUnavailableError(
            "the process that runs the command was killed, and with it the account of its CPU time"
        )


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
