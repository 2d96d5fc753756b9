"""A model server in a process of its own: started, asked whether it is ready, stopped, charged.

A program of its own (a stub) is told to listen at a port that the kernel chooses and writes
``{"port": …}`` as its first line; a model of a pipeline is forked from the :mod:`.template` and
writes ``{"pid": …}`` before it. Both end by themselves when this process does. They are waited for
here and nowhere else, so that the kernel's own account of their CPU time, exact even after
``kill -9``, is not lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipa_energy.errors import ServingError
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.pipeline_models import ModelSpec
from ipa_energy.serving.local.cpu_groups import CpuGroup, pin_all_threads
from ipa_energy.serving.local.template import Template

START_TIMEOUT_S = 60.0
"""From its process's begin until it serves."""

TEMPLATE_TIMEOUT_S = 180.0
"""Until it is forked: a template that was just started imports for 6 to 60 s."""

STOP_GRACE_S = 5.0
READ_BYTES = 2**16
NEVER_BEGAN = 1
"""Status of a replica that its template did not come to fork."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a model server.

    Attributes:
        command: program and arguments; none where it is forked.
        model: name that it answers to; where it is forked the beginning of one that nobody shares.
        environment: variables beside ours.
        forked: what a fork of the template serves; None for a program of its own.
    """

    command: tuple[str, ...]
    model: str
    environment: Mapping[str, str] = field(default_factory=dict)
    forked: ModelSpec | None = None


class ReplicaProcess:
    """One model server; starts at once.

    Args:
        launch: how.
        cpus: the CPUs it may use; empty: all of ours.
        on_exit: called once when it has ended.
        template: what it is forked from, where ``launch`` says so.
        group: that it belongs to.

    Attributes:
        model: the name that it answers to.
        pid: its process id; 0 while it is not forked yet.
        started_s, ended_s: by ``perf_counter``; ``ended_s`` is None while it runs.
        status: exit status, minus the signal's number if one killed it; None while it runs.
    """

    def __init__(
        self,
        launch: Launch,
        cpus: Sequence[int] = (),
        on_exit: Callable[[], None] | None = None,
        template: Template | None = None,
        *,
        group: CpuGroup | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.started_s = time.perf_counter()
        self.ended_s: float | None = None
        self.status: int | None = None
        self.pid = 0
        self.model = launch.model
        self._on_exit, self._group = on_exit, group
        self._cpu_s = 0.0
        self._is_doomed = False
        self._pinned_to: tuple[int, ...] | None = None
        self._stdin: int | None = None
        self._told: dict[str, Any] = {}
        self._begun, self._heard, self._ended = (asyncio.Event() for _ in range(3))
        if launch.forked is None:
            self._output = self._spawn(launch)
            self._begin(self._process.pid)
            if cpus:
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(self.pid, cpus)
        elif template is None:
            raise ServingError("a replica is to be forked, and there is nothing to fork it from")
        else:
            self.model = f"{launch.model}-{secrets.token_hex(4)}"
            self._output = template.fork(launch.forked, self.model, cpus)
        self._unread = b""
        self._loop.add_reader(self._output, self._hear)

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self.status is None

    async def port(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """The port that it listens at, once it does, at most ``timeout_s`` after it is forked.

        Raises:
            ServingError: it ended before, said what is wrong or something else, or took too long.
        """
        try:
            async with asyncio.timeout(TEMPLATE_TIMEOUT_S):
                await self._begun.wait()
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        except TimeoutError as error:
            raise ServingError(f"a server was not ready after {timeout_s:g} s") from error
        if "error" in self._told:
            raise ServingError(str(self._told["error"]))
        port = self._told.get("port")
        if not isinstance(port, int):
            raise ServingError("a server ended, or wrote something else than its port")
        return port

    def cpu_s(self) -> float:
        """CPU seconds that it and its descendants have used so far, or until they ended."""
        if self.is_running and self.pid:
            with contextlib.suppress(OSError, IndexError, ValueError):
                self._cpu_s = max(self._cpu_s, process_tree_cpu_s(self.pid))
        return self._cpu_s

    def pin(self, cpus: Sequence[int]) -> None:
        """From now on it may use these CPUs only."""
        self._pinned_to = tuple(cpus)
        if self.is_running and self.pid:
            pin_all_threads(self.pid, cpus)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to end, and kill it if it has not after ``grace_s``."""
        if self.is_running and self.pid:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._ended.wait()
        self.kill()
        await self._ended.wait()

    def kill(self) -> None:
        """End it now, even if it is stopped."""
        self._is_doomed = True
        if self.is_running and self.pid:
            self._signal(signal.SIGKILL)

    def _spawn(self, launch: Launch) -> int:
        """Start a program of its own; the descriptor that it writes to."""
        its_input, self._stdin = os.pipe2(os.O_CLOEXEC)
        output, its_output = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                launch.command,
                stdin=its_input,
                stdout=its_output,
                env={**os.environ, **launch.environment},
                start_new_session=True,  # Ctrl-C is for whoever started all this
            )
        except OSError as error:
            os.close(self._stdin)
            os.close(output)
            raise ServingError(f"cannot start {launch.command[0]}: {error.strerror}") from error
        finally:
            os.close(its_input)
            os.close(its_output)
        os.set_blocking(output, False)
        return output

    def _begin(self, pid: int) -> None:
        """It exists: watch for its end."""
        self.pid = pid
        self._begun.set()
        self._pidfd = os.pidfd_open(pid)
        if self._group is not None:
            self._group.add(pid)
        self._loop.add_reader(self._pidfd, self._reap)
        if self._is_doomed:
            self.kill()
        elif self._pinned_to:  # moved while it was not forked yet
            pin_all_threads(pid, self._pinned_to)

    def _hear(self) -> None:
        """It has written something, or nobody can write any more."""
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return
        self._take(data)
        if not data:
            self._loop.remove_reader(self._output)
            self._heard.set()
            if not self.pid:
                self._end(NEVER_BEGAN)

    def _take(self, data: bytes) -> None:
        """Lines that it wrote: its process id if it was forked, then the one that says it all."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            try:
                told = json.loads(line)
            except ValueError:
                told = None
            told = told if isinstance(told, dict) else {}
            if not self.pid and isinstance(told.get("pid"), int):
                self._begin(told["pid"])
            elif not self._heard.is_set():
                self._told = told
                self._heard.set()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        """It has ended: take its status and the kernel's account of its CPU time."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._cpu_s = max(self._cpu_s, usage.ru_utime + usage.ru_stime)
        self._end(os.waitstatus_to_exitcode(status))

    def _end(self, status: int) -> None:
        self.ended_s = time.perf_counter()
        self.status = status
        if self._stdin is not None:
            self._process.returncode = status
            os.close(self._stdin)
        self._loop.remove_reader(self._output)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._output, READ_BYTES):
                self._take(data)
        os.close(self._output)
        self._begun.set()
        self._heard.set()
        self._ended.set()
        if self._on_exit is not None:
            self._on_exit()
