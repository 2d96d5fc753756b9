"""The process that replicas are forked from: what the plane sees of it, and what runs in it.

::

    python -m ipa_energy.serving.local.template SOCKET PIPELINE
    python -m ipa_energy.serving.local.template check PIPELINE MODELS

    plane ──socket: a model, CPUs, a pipe──▶ template ──fork, twice──▶ replica
      ▲                                      (libraries imported)        │
      └────────── pipe: its process id, then its port, or what is wrong ─┘

Importing torch, torchvision, ultralytics and mlserver takes 6 to 10 seconds and hundreds of MB; a
fork of a process that has done so takes a tenth of a second and shares them. Forked twice, a
replica is no child of the template but of the plane, which asks the kernel for such orphans
(``PR_SET_CHILD_SUBREAPER``): the plane waits for it as for any process that it started, the kernel
kills it when the plane dies, and a template that dies takes nobody along and is started again.
Nothing is computed there and no GPU looked at: threads and CUDA contexts do not survive a fork.

The second form loads models, a JSON list of :class:`ModelSpec`, and writes what is wrong with the
first that cannot be loaded, or null.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ipa_energy.errors import ServingError
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.pipeline_models import GPU_DEVICE, OPENMP, ModelSpec, load_pipeline, served_pipeline

logger = logging.getLogger(__name__)

MAX_TOLD_BYTES = 2**16
FIRST_RESTART_S, LAST_RESTART_S = 0.1, 10.0

_PR_SET_CHILD_SUBREAPER = 36


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
            module = "ipa_energy.serving.local.template"
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


ADOPTION_TIMEOUT_S = 10.0


def main() -> None:
    """See above."""
    die_with(os.getppid())
    warnings.simplefilter("ignore")  # of the libraries', which no user here can mend
    served_pipeline(load_pipeline(sys.argv[2])).preload()
    if sys.argv[1] == "check":
        from ipa_energy.serving.local.model_server import check_models

        trouble = check_models([ModelSpec(**model) for model in json.loads(sys.argv[3])])
        sys.stdout.write(json.dumps(trouble) + "\n")
    else:
        _fork_for_ever(socket.socket(fileno=int(sys.argv[1])))


def _fork_for_ever(told: socket.socket) -> None:
    """Fork replicas until the other end of the socket closes."""
    import ipa_energy.serving.local.model_server  # noqa: F401 - for the replicas

    gc.collect()
    gc.freeze()  # so that collecting in a replica writes on no shared page
    while True:
        data, descriptors, _, _ = socket.recv_fds(told, MAX_TOLD_BYTES, 1)
        if not data:
            return
        if _forked():
            told.close()
            _be_replica(json.loads(data), descriptors[0])
        os.close(descriptors[0])


def _forked() -> bool:
    """True in a grandchild of this process, which is nobody's child here."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    if os.fork():
        os._exit(0)
    return True


def _be_replica(told: dict[str, Any], report_to: int) -> None:
    """Serve; never returns."""
    status = 1
    try:
        _await_parent(told["plane"])
        os.setsid()
        os.write(report_to, json.dumps({"pid": os.getpid()}).encode() + b"\n")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        model = ModelSpec(**told["model"])
        os.sched_setaffinity(0, told["cpus"] or os.sched_getaffinity(0))
        if model.device != GPU_DEVICE:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        from ipa_energy.serving.local.model_server import serve

        status = serve(model, told["name"], report_to)
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as the template
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _await_parent(plane: int) -> None:
    """Return when the plane is this process's parent."""
    end_s = time.monotonic() + ADOPTION_TIMEOUT_S
    while os.getppid() != plane and time.monotonic() < end_s:
        time.sleep(0.0005)
    die_with(plane)


if __name__ == "__main__":
    main()
