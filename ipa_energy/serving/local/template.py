"""The process that replicas are forked from, as the plane sees it.

::

    plane ──socket: a model, CPUs, a pipe──▶ template ──fork, twice──▶ replica
      ▲                                      (libraries imported)        │
      └────────── pipe: its process id, then its port, or what is wrong ─┘

Importing torch, torchvision, ultralytics and mlserver takes 6 to 10 seconds and hundreds of MB; a
fork of a process that has done so takes a tenth of a second and shares them. Forked twice, a
replica is no child of the template but of the plane, which asks the kernel for such orphans
(``PR_SET_CHILD_SUBREAPER``): the plane waits for it as for any process that it started, the kernel
kills it when the plane dies, and a template that dies takes nobody along and is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ipa_energy.errors import ServingError
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.pipeline_models import OPENMP

logger = logging.getLogger(__name__)

MAX_TOLD_BYTES = 2**16
FIRST_RESTART_S, LAST_RESTART_S = 0.1, 10.0

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a forked replica serves.

    Attributes:
        pipeline: folder, file or module of the pipeline (:func:`.runtime.load_pipeline`).
        stage, variant: one of the pipeline's variants.
        weights: weights file, None for random weights.
        threads: of one operation: the cores that it reserves.
        device: ``cpu``, or ``cuda`` for the GPU that the template's process may use.
        yields: elements that it is to make of one, in the mean.
    """

    pipeline: str
    stage: str
    variant: str
    weights: str | None = None
    threads: int = 1
    device: str = "cpu"
    yields: float = 1.0


class Template:
    """A process with a pipeline's libraries imported, kept running; inside a running event loop.

    Args:
        pipeline: see :class:`ModelSpec`; its ``preload`` is called there.
        on_died: told, in words, whenever it has.

    Attributes:
        restarts: how often it was started again.
    """

    def __init__(self, pipeline: str, on_died: Callable[[str], None] = logger.warning) -> None:
        adopt_orphans()
        self._on_died = on_died
        self.restarts = 0
        self._pipeline = pipeline
        self._ended_cpu_s = 0.0
        self._is_closed = False
        self._failures = 0
        self._start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fork(self, model: ModelSpec, name: str, cpus: Sequence[int]) -> int:
        """Ask for a replica; returns at once.

        Args:
            model: what it serves.
            name: of model and server.
            cpus: that it is pinned to.

        Returns:
            a descriptor to read from: a line ``{"pid"}`` when it is forked, another one,
            ``{"port"}`` or ``{"error"}``, when it serves or cannot; the end if it died before. A
            template that is not up yet comes to it when it is.

        Raises:
            ServingError: the template has just died; it is being started again.
        """
        told = {"model": asdict(model), "name": name, "cpus": list(cpus), "plane": os.getpid()}
        mine, its = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(self._socket, [json.dumps(told).encode()], [its])
        except OSError as error:
            os.close(mine)
            raise ServingError("the process that replicas are forked from has died") from error
        finally:
            os.close(its)
        os.set_blocking(mine, False)
        return mine

    def cpu_s(self) -> float:
        """CPU seconds that it has used, without its replicas."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            return self._ended_cpu_s + process_tree_cpu_s(self.pid)
        return self._ended_cpu_s

    def close(self) -> None:
        """End it; replicas go on."""
        if self._is_closed:
            return
        self._is_closed = True
        self._process.kill()
        self._reap()

    def _start(self) -> None:
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            module = "ipa_energy.serving.local.template_process"
            self._process = subprocess.Popen(
                (sys.executable, "-m", module, str(its.fileno()), self._pipeline),
                pass_fds=(its.fileno(),),
                stdin=subprocess.DEVNULL,
                env=os.environ | OPENMP,
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._died)

    def _died(self) -> None:
        self._reap()
        self.restarts += 1
        self._failures += 1
        wait_s = min(FIRST_RESTART_S * 2 ** (self._failures - 1), LAST_RESTART_S)
        self._on_died(
            "the process that replicas are forked from ended with status"
            f" {self._process.returncode}; another is started"
        )
        asyncio.get_running_loop().call_later(wait_s, self._start_again)

    def _start_again(self) -> None:
        if not self._is_closed:
            self._start()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._socket.close()
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._ended_cpu_s += usage.ru_utime + usage.ru_stime


def adopt_orphans() -> None:
    """Make this process the parent of whoever descends from it and loses his own."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, its parent, dies; at once if it has."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
