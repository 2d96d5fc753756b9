"""The process between a measurer and the command it measures.

::

    measurer ──lines of JSON── this process ──┬── command ── its children
                                              └── what the command left behind

It is the command's *child subreaper*: a process whose parent ended comes to it and not to the
machine's init, so that no CPU time of the command's tree is lost and whatever outlives the command
is seen. Everything it waits for is the command's own, which would not hold for a measurer that is
part of a larger program.

It is run by its path, isolated and without site-packages: the command finds the environment as its
user left it, and the start takes a few milliseconds. Hence the standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36

STOP_GRACE_S = 2.0
"""From interrupting a command (SIGINT) to asking it to end (SIGTERM)."""

TERMINATE_GRACE_S = 5.0
"""From asking it to end (SIGTERM) to ending it (SIGKILL)."""


class _Requests:
    """Lines of JSON from the measurer."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._unread = b""

    def next(self) -> dict[str, Any] | None:
        """The next request; None when the measurer is gone."""
        while b"\n" not in self._unread:
            chunk = os.read(self.fd, 1 << 16)
            if not chunk:
                return None
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        request: dict[str, Any] = json.loads(line)
        return request


def main() -> None:
    """Serve requests until the measurer closes its end."""
    requests, answers_fd = _Requests(int(sys.argv[1])), int(sys.argv[2])
    for fd in (requests.fd, answers_fd):
        os.set_inheritable(fd, False)
    for number in (signal.SIGINT, signal.SIGQUIT):
        # A handler and not SIG_IGN, which the command would inherit.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    subreaper = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        _answer(answers_fd, {"subreaper": subreaper})
        while (request := requests.next()) is not None:
            if request["do"] == "run":
                _answer(answers_fd, _run(request["command"], requests))
            elif request["do"] == "look":
                _answer(answers_fd, _look())
            # Anything else is a "stop" that crossed the end of its command.
    except BrokenPipeError:
        return  # the measurer is gone, and what it ran has been stopped


def _answer(fd: int, answer: dict[str, Any]) -> None:
    os.write(fd, json.dumps(answer).encode() + b"\n")


def _run(command: list[str], requests: _Requests) -> dict[str, Any]:
    try:
        # Python ignores these two signals; a program expects to die of them.
        pid = os.posix_spawnp(
            command[0], command, os.environ, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]
        )
    except OSError as error:
        return {"error": error.strerror or str(error)}
    _wait(pid, requests)
    _, status, _ = os.wait4(pid, 0)
    return {"exit_code": os.waitstatus_to_exitcode(status)}


def _wait(pid: int, requests: _Requests) -> None:
    """Until ``pid`` has ended. A request meanwhile, or a measurer that is gone, means: stop it."""
    pidfd = os.pidfd_open(pid)
    watched, signals = [pidfd, requests.fd], [signal.SIGTERM, signal.SIGKILL]
    deadline_s: float | None = None
    try:
        while True:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            ready, _, _ = select.select(watched, [], [], left_s)
            if pidfd in ready:
                return
            if requests.fd in ready:
                if requests.next() is None:
                    watched.remove(requests.fd)
                if deadline_s is None:
                    if not _terminal_told():
                        _signal_tree(pid, signal.SIGINT)
                    deadline_s = time.monotonic() + STOP_GRACE_S
                    continue
                signals = [signal.SIGKILL]  # asked twice
            _signal_tree(pid, signals.pop(0))
            deadline_s = time.monotonic() + TERMINATE_GRACE_S
            signals = signals or [signal.SIGKILL]
    finally:
        os.close(pidfd)


def _terminal_told() -> bool:
    """True if Ctrl-C on a terminal reaches the command by itself, being in the foreground."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False  # there is none
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def _signal_tree(pid: int, number: signal.Signals) -> None:
    for one in [pid, *_descendants(pid)]:
        try:
            os.kill(one, number)
        except (ProcessLookupError, PermissionError):
            continue  # it has ended, or belongs to somebody else by now (sudo)


def _look() -> dict[str, Any]:
    """CPU seconds of all that ended, and the processes that are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # nothing is left
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"ended_cpu_s": usage.ru_utime + usage.ru_stime, "children": _children(os.getpid())}


def _descendants(pid: int) -> list[int]:
    found = []
    for child in _children(pid):
        found += [child, *_descendants(child)]
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return children  # it ended while being read
    return children


if __name__ == "__main__":
    main()
