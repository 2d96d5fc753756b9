"""One replica of a variant in a process of its own, pinned to the cores it reserves.

A process per replica keeps the profiler's own work, and whatever an earlier variant left behind,
out of the figures; it can be charged by its process id, and may crash or hang without taking the
sweep along.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ipa_energy.errors import ServingError
from ipa_energy.pipeline_models import OPENMP
from ipa_energy.profiling.gpus import NO_GPU, GpuSlot

DOING = {
    "warm_up": "warming up",
    "window": "running batches",
    "paced": "running batches at a set pace",
}
"""What a replica can be told to do → how a message names it."""

STDERR_LINES = 4
"""Last lines of a dead replica's standard error that go into the message."""


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """What a replica runs and where.

    Attributes:
        pipeline: folder, file or module of the pipeline.
        stage, variant: one of the pipeline's variants.
        batch: batch size of every call.
        core_ids: the CPUs it is pinned to, as the system numbers them; also its thread count.
        weights: weights file, None for random weights.
        seed: of the input batch.
        gpu: what it has of a GPU; None to run on CPUs alone.
    """

    pipeline: str
    stage: str
    variant: str
    batch: int
    core_ids: tuple[int, ...]
    weights: str | None = None
    seed: int = 0
    gpu: GpuSlot | None = None

    @property
    def label(self) -> str:
        """Short name for messages: ``crop/yolov5n 1c b4``, ``crop/yolov5n 1c+1g b4``."""
        gpu = f"+{self.gpu.share:g}g" if self.gpu is not None else ""
        return f"{self.stage}/{self.variant} {len(self.core_ids)}c{gpu} b{self.batch}"


class Replica:
    """A running replica; a context manager that ends the process.

    Args:
        spec: what to run.
        timeout_s: longest silence; a replica that does not answer for so long has hung.
    """

    def __init__(self, spec: ReplicaSpec, *, timeout_s: float) -> None:
        self.spec = spec
        self._timeout_s = timeout_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        gpu = spec.gpu.environ if spec.gpu else NO_GPU
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ipa_energy.profiling.replica_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | {"PYTHONPATH": path} | OPENMP | gpu,
        )
        self._unread = b""
        self._doing = "starting"

    def __enter__(self) -> Replica:
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
        """Process id of the replica."""
        return self._process.pid

    def load(self) -> float:
        """Load the model; seconds from the call to a model that is ready.

        Raises:
            ServingError: the pipeline cannot build the variant, or the process died or hung.
        """
        start_s = time.perf_counter()
        self._tell(asdict(self.spec), "loading")
        self.answer()
        return time.perf_counter() - start_s

    def begin(self, do: str, **numbers: float) -> None:
        """Begin what :mod:`.replica_main` can do; :meth:`answer` waits for its end.

        Args:
            do: a key of :data:`DOING`.
            numbers: its arguments.

        Raises:
            ServingError: the process died.
        """
        self._tell({"do": do, **numbers}, DOING[do])

    def run(self, do: str, **numbers: float) -> dict[str, Any]:
        """:meth:`begin` and wait for the answer.

        Raises:
            ServingError: the runner failed, or the process died or hung.
        """
        self.begin(do, **numbers)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """What was begun last came to.

        Raises:
            ServingError: the runner failed, or the process died or hung.
        """
        line = self._read_line(self._doing)
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise ServingError(
                f"{self.spec.label}: while {self._doing} it answered {line[:80]!r}, "
                "which is no JSON"
            ) from error
        if "error" in answer:
            raise ServingError(f"{self.spec.label}: while {self._doing}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                # What a dead process left unread in its pipe is of no interest to anyone.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _tell(self, message: dict[str, Any], doing: str) -> None:
        self._doing = doing
        stdin = self._process.stdin
        if stdin is None:  # pragma: no cover - it was opened as a pipe
            raise ServingError(f"{self.spec.label}: no way to talk to the replica")
        try:
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise self._died(doing) from error

    def _read_line(self, doing: str) -> bytes:
        stdout = self._process.stdout
        if stdout is None:  # pragma: no cover - it was opened as a pipe
            raise ServingError(f"{self.spec.label}: no way to hear from the replica")
        deadline_s = time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline_s - time.monotonic())):
                    raise ServingError(
                        f"{self.spec.label}: no answer for {self._timeout_s:g} s while {doing}; "
                        "it has hung, or needs a longer time limit"
                    )
                chunk = os.read(stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._died(doing)
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _died(self, doing: str) -> ServingError:
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = " | ".join(lines[-STDERR_LINES:]) or "it wrote nothing"
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        return ServingError(f"{self.spec.label}: the replica ended {how} while {doing}: {last}")
