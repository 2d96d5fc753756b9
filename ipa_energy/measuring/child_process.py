"""A process of our own that is told what to do and answers: a line of JSON each way.

The lines go through two pipes beside the standard three, whose numbers are the last two arguments
of the process. So its input, output and error stay free: a measured command has those of the
caller, and what the libraries of a model print is kept for the message when it dies.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

OUTPUT_LINES = 4
"""Last lines of a dead process's output that are told."""


class ChildEndedError(Exception):
    """The process has ended.

    Attributes:
        how: ``by signal 9``, ``with exit status 3``.
        last: the last lines of its output, if it is kept.
    """

    def __init__(self, how: str, last: str) -> None:
        super().__init__(f"it ended {how}: {last}")
        self.how, self.last = how, last


class ChildProcess:
    """A running process; a context manager that ends it.

    Args:
        command: program and arguments; the two pipes' numbers are added.
        stdout: file descriptor of its standard output; None for the caller's.
        environ: its environment; None for the caller's.
        pass_fds: further descriptors that it inherits.
        keeps_output: its output and error go to a file that :class:`ChildEndedError` quotes, and
            its input is empty.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: int | None = None,
        environ: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        keeps_output: bool = False,
    ) -> None:
        requests_fd, self._requests_fd = os.pipe()
        self._answers_fd, answers_fd = os.pipe()
        self._unread = b""
        self._output = tempfile.TemporaryFile() if keeps_output else None  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, str(requests_fd), str(answers_fd)],
            stdin=subprocess.DEVNULL if keeps_output else None,
            stdout=self._output or stdout,
            stderr=self._output,
            env=environ,
            pass_fds=[requests_fd, answers_fd, *pass_fds],
        )
        os.close(requests_fd)
        os.close(answers_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            ChildEndedError: nobody is there to hear it.
        """
        try:
            os.write(self._requests_fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError as error:
            raise self._ended() from error

    def hear(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the next answer.

        Args:
            timeout_s: the longest wait; None for as long as it lives.

        Raises:
            ChildEndedError: it ended instead.
            TimeoutError: it did not answer in time.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers_fd, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
                if not selector.select(left_s):
                    raise TimeoutError
                chunk = os.read(self._answers_fd, 1 << 16)
                if not chunk:
                    raise self._ended()
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self, grace_s: float = 0.0) -> None:
        """End it; safe to call twice.

        Args:
            grace_s: how long it may take to end by itself, now that nobody listens.
        """
        if self._requests_fd < 0:
            return
        os.close(self._requests_fd)
        self._requests_fd = -1
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers_fd)
        if self._output is not None:
            self._output.close()

    def _ended(self) -> ChildEndedError:
        status = self._process.wait()
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        lines: list[str] = []
        if self._output is not None:
            self._output.seek(0)
            lines = self._output.read().decode(errors="replace").strip().splitlines()
        return ChildEndedError(how, " | ".join(lines[-OUTPUT_LINES:]) or "it wrote nothing")


class ModuleProcess(ChildProcess):
    """``python -m MODULE`` of this package, its output kept.

    Args:
        module: dotted name.
        environ: what is added to the caller's environment.
        arguments: further arguments.
    """

    def __init__(self, module: str, environ: dict[str, str], arguments: Sequence[str] = ()) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        super().__init__(
            [sys.executable, "-m", module, *arguments],
            environ=os.environ | {"PYTHONPATH": path} | environ,
            keeps_output=True,
        )
