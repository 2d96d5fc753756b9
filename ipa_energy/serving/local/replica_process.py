"""A model server in a process of its own: started, asked whether it is ready, stopped, charged.

The process is told to listen at a port that the kernel chooses and writes ``{"port": …}`` as its
first line. It ends by itself when this process does (:func:`.stub_model.end_with_parent`). It is
waited for here and nowhere else, so that the kernel's own account of its CPU time, exact even after
``kill -9``, is not lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ipa_energy.errors import ServingError
from ipa_energy.meters.cpu_time import process_tree_cpu_s

START_TIMEOUT_S = 60.0
STOP_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a model server.

    Attributes:
        command: program and arguments.
        model: name that it answers to.
        environment: variables beside ours.
    """

    command: tuple[str, ...]
    model: str
    environment: Mapping[str, str] = field(default_factory=dict)


class ReplicaProcess:
    """One running model server; starts at once.

    Args:
        launch: how.
        cpus: the CPUs it may use; empty: all of ours.
        on_exit: called once when it has ended.

    Attributes:
        pid: its process id.
        started_s, ended_s: by ``perf_counter``; ``ended_s`` is None while it runs.
        status: exit status, minus the signal's number if one killed it; None while it runs.
    """

    def __init__(
        self, launch: Launch, cpus: Sequence[int] = (), on_exit: Callable[[], None] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.started_s = time.perf_counter()
        self.ended_s: float | None = None
        self.status: int | None = None
        try:
            self._process = subprocess.Popen(
                launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **launch.environment},
                start_new_session=True,  # Ctrl-C is for whoever started all this
            )
        except OSError as error:
            raise ServingError(f"cannot start {launch.command[0]}: {error.strerror}") from error
        self.pid = self._process.pid
        if cpus:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self.pid, cpus)
        self._first_line, self._ended = asyncio.Event(), asyncio.Event()
        self._on_exit = on_exit
        self._cpu_s = 0.0
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self.status is None

    async def port(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """The port that it listens at, once it does.

        Raises:
            ServingError: it ended before, said something else, or took too long.
        """
        output = self._process.stdout
        if output is None:
            raise ServingError("the server has no standard output")
        line = self._first_line
        if not output.closed:
            self._loop.add_reader(output.fileno(), line.set)
        try:
            async with asyncio.timeout(timeout_s):
                await line.wait()
            return int(json.loads(output.readline())["port"])
        except TimeoutError as error:
            raise ServingError(f"a server was not ready after {timeout_s:g} s") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServingError("a server ended, or wrote something else than its port") from error
        finally:
            if not output.closed:
                self._loop.remove_reader(output.fileno())

    def cpu_s(self) -> float:
        """CPU seconds that it and its descendants have used so far, or until they ended."""
        if self.is_running:
            with contextlib.suppress(OSError, IndexError, ValueError):
                self._cpu_s = max(self._cpu_s, process_tree_cpu_s(self.pid))
        return self._cpu_s

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to end, and kill it if it has not after ``grace_s``."""
        if self.is_running:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._ended.wait()
        self.kill()
        await self._ended.wait()

    def kill(self) -> None:
        """End it now, even if it is stopped."""
        if self.is_running:
            self._signal(signal.SIGKILL)

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
        self.ended_s = time.perf_counter()
        self.status = os.waitstatus_to_exitcode(status)
        self._process.returncode = self.status
        self._cpu_s = max(self._cpu_s, usage.ru_utime + usage.ru_stime)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    self._loop.remove_reader(pipe.fileno())
                    pipe.close()
        self._first_line.set()
        self._ended.set()
        if self._on_exit is not None:
            self._on_exit()
