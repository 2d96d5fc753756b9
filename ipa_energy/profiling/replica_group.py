"""Replicas of one entry, each in a process of its own, pinned to cores of its own.

A process each keeps the profiler's own work, and whatever an earlier variant left behind, out of
the figures; it can be charged by its process id, and may crash or hang without taking the sweep
along. What replicas that work at once take from each other (caches, memory bandwidth, the package's
power) is in the figures. They load one after the other, as replicas join a running service, so a
load time is that of one replica; they warm up and serve together. ::

    replica 1   load │ wait │ warm-up │ wait │ batch batch batch batch │
    replica 2        │ load │ warm-up │ wait │ batch  batch  batch  batch │
                                             └ one window: until the last one's batch ends

A window of several replicas lasts a set time rather than a number of batches: they end together but
for the batch in progress.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from ipa_energy.errors import ServingError
from ipa_energy.measuring.child_process import ChildEndedError, ModuleProcess
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.pipeline_models import OPENMP
from ipa_energy.profiling.gpus import NO_GPU, REPLICA_MODULE, GpuSlot

logger = logging.getLogger(__name__)

DOING = {
    "warm_up": "warming up",
    "window": "running batches",
    "paced": "running batches at a set pace",
}
"""What a replica can be told to do → how a message names it."""

MAX_UTILISATION = 0.9
"""A load above this share of what the replicas serve is saturation but in name."""

QUIET_SHARE = 0.01
"""Replicas wait once they use less than this share of their cores …"""

QUIET_SLICE_S = 0.05
"""… over this long. Threads of a parallel loop spin for a moment after it, ready for the next."""

HELD = 0.95
"""A load is held if at least this share of it was served in its time."""


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
        serving: True to run the pipeline's handler, as a live replica does, not the bare network.
        precision: of its numbers; empty for the pipeline's own.
    """

    pipeline: str
    stage: str
    variant: str
    batch: int
    core_ids: tuple[int, ...]
    weights: str | None = None
    seed: int = 0
    gpu: GpuSlot | None = None
    serving: bool = False
    precision: str = ""

    @property
    def label(self) -> str:
        """Short name for messages: ``crop/yolov5n 1c b4``, ``crop/yolov5n 1c+1g b4``."""
        gpu = f"+{self.gpu.share:g}g" if self.gpu is not None else ""
        return f"{self.stage}/{self.variant} {len(self.core_ids)}c{gpu} b{self.batch}"


class Replica(ModuleProcess):
    """A running replica; a context manager that ends the process.

    Args:
        spec: what to run.
        timeout_s: longest silence; a replica that does not answer for so long has hung.
    """

    def __init__(self, spec: ReplicaSpec, *, timeout_s: float) -> None:
        super().__init__(REPLICA_MODULE, OPENMP | (spec.gpu.environ if spec.gpu else NO_GPU))
        self.spec = spec
        self._timeout_s = timeout_s
        self._doing = "starting"

    def prepare(self) -> None:
        """Import what the model needs if it is to be served: live replicas are forked with that.

        Raises:
            ServingError: something is not installed, or the process died or hung.
        """
        if self.spec.serving:
            self._begin({"preload": self.spec.pipeline}, "importing")
            self.answer()

    def load(self) -> float:
        """Load the model; seconds from the call to a model that is ready.

        Raises:
            ServingError: the pipeline cannot build the variant, or the process died or hung.
        """
        start_s = time.perf_counter()
        self._begin({"load": asdict(self.spec)}, "loading")
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
        self._begin({"do": do, **numbers}, DOING[do])

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
        label, doing = self.spec.label, self._doing
        try:
            answer = self.hear(self._timeout_s)
        except TimeoutError as error:
            raise ServingError(
                f"{label}: no answer for {self._timeout_s:g} s while {doing}; "
                "it has hung, or needs a longer time limit"
            ) from error
        except ChildEndedError as error:
            raise self._died(error) from error
        if "error" in answer:
            raise ServingError(f"{label}: while {doing}: {answer['error']}")
        return answer

    def _begin(self, message: dict[str, Any], doing: str) -> None:
        self._doing = doing
        try:
            self.tell(message)
        except ChildEndedError as error:
            raise self._died(error) from error

    def _died(self, error: ChildEndedError) -> ServingError:
        return ServingError(
            f"{self.spec.label}: the replica ended {error.how} while {self._doing}: {error.last}"
        )


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a warm-up went.

    Attributes:
        latencies_s: seconds of each batch, one replica's after the other's.
        settled: True if every replica's batch times stopped falling.
    """

    latencies_s: list[float]
    settled: bool


@dataclass(frozen=True, slots=True)
class Served:
    """What the replicas did in a window.

    Attributes:
        latencies_s: seconds of each batch, one replica's after the other's.
        busy_s: first batch's start to last batch's end, summed over the replicas; under a set
            load the whole window, waiting included.
        peak_memory_bytes: resident memory of the largest replica.
        peak_gpu_memory_bytes: GPU memory of the largest replica; None on CPUs alone.
    """

    latencies_s: list[float]
    busy_s: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None = None


class ReplicaGroup(contextlib.ExitStack):
    """Running replicas; a context manager that ends their processes.

    Args:
        specs: one for each replica, on disjoint cores.
        timeout_s: longest silence of a replica before it counts as hung.

    Attributes:
        replicas: those that are loaded.
        batch_s: seconds of a batch as the warm-up left it: the slowest replica's median of its
            last three; 0 before.
    """

    def __init__(self, specs: Sequence[ReplicaSpec], *, timeout_s: float) -> None:
        super().__init__()
        self._specs = tuple(specs)
        self._timeout_s = timeout_s
        self.batch_s = 0.0
        self.replicas: list[Replica] = []

    @property
    def core_ids(self) -> tuple[int, ...]:
        """The CPUs of all replicas."""
        return tuple(core for spec in self._specs for core in spec.core_ids)

    @property
    def gpu_shares(self) -> float:
        """GPUs that all replicas reserve together."""
        return sum(spec.gpu.share for spec in self._specs if spec.gpu is not None)

    def load(self, each: Callable[[Replica], None]) -> None:
        """Start the replicas one after the other.

        Args:
            each: called with each new process; it must load it.

        Raises:
            ServingError: the pipeline cannot build the variant, or a process died or hung.
        """
        for spec in self._specs:
            replica = self.enter_context(Replica(spec, timeout_s=self._timeout_s))
            self.replicas.append(replica)
            replica.prepare()
            each(replica)

    def warm_up(self, *, min_s: float, max_s: float) -> WarmUp:
        """Run batches on all replicas until their times stop falling.

        Raises:
            ServingError: a runner failed, or a process died or hung.
        """
        for replica in self.replicas:
            replica.begin("warm_up", min_s=min_s, max_s=max_s)
        answers = [replica.answer() for replica in self.replicas]
        self.batch_s = max(median(answer["latencies_s"][-3:]) for answer in answers)
        return WarmUp(_joined(answers), all(answer["settled"] for answer in answers))

    def window(self, *, min_s: float, min_batches: int, max_s: float) -> Served:
        """Run batches back to back on all replicas at once, after a warm-up.

        Args:
            min_s: the window's shortest length.
            min_batches: batches each replica should serve, ``max_s`` allowing.
            max_s: no batch is started that would pass it; the first always is.

        Raises:
            ServingError: a runner failed, or a process died or hung.
        """
        if len(self.replicas) > 1:
            wanted_s = max(min_s, min_batches * self.batch_s)
            min_s = max(min_s, min(wanted_s, max_s - self.batch_s))
            min_batches = 1
        for replica in self.replicas:
            replica.begin("window", min_s=min_s, min_batches=min_batches, max_s=max_s)
        return self._served()

    def paced(self, load_rps: float, *, min_s: float, min_batches: int, max_s: float) -> Served:
        """Serve a steady load, a batch on every replica at once, after a warm-up.

        Full batches come at even distances and wait for no request: the load is open, and what is
        looked at is the joules of working and waiting, not a queue.

        Args:
            load_rps: requests per second for all replicas together.
            min_s: the window's shortest length.
            min_batches: batches each replica should serve, ``max_s`` allowing; two at least.
            max_s: longest length, if ``min_s`` and two batches allow it.

        Raises:
            ServingError: the load is more than the replicas serve, or a replica failed.
        """
        count, size = len(self.replicas), self._specs[0].batch
        capacity_rps = count * size / self.batch_s
        if load_rps > MAX_UTILISATION * capacity_rps:
            raise self._beyond(load_rps, capacity_rps)
        period_s = count * size / load_rps
        fewest = max(2, math.ceil(min_s / period_s))
        batches = max(fewest, min(min_batches, int(max_s / period_s)))
        for replica in self.replicas:
            replica.begin("paced", batches=batches, period_s=period_s)
        served = self._served()
        served_rps = count * size * len(served.latencies_s) / served.busy_s
        if served_rps < HELD * load_rps:
            raise self._beyond(load_rps, served_rps)
        return served

    def wait_until_quiet(self, *, max_s: float) -> None:
        """Wait for the replicas' threads to stop spinning after a batch, with a warning if not.

        Raises:
            ServingError: a replica died.
        """
        deadline_s = time.perf_counter() + max_s
        while True:
            start_s, cpu_s = time.perf_counter(), self.cpu_s()
            time.sleep(QUIET_SLICE_S)
            used_s = self.cpu_s() - cpu_s
            elapsed_s = time.perf_counter() - start_s
            if used_s < QUIET_SHARE * elapsed_s * len(self.core_ids):
                return
            if time.perf_counter() > deadline_s:
                logger.warning(
                    "%s: still uses %.0f %% of its cores %g s after its last batch; its idle power"
                    " contains that",
                    self._specs[0].label,
                    100 * used_s / elapsed_s / len(self.core_ids),
                    max_s,
                )
                return

    def cpu_s(self) -> float:
        """CPU seconds of all replicas so far.

        Raises:
            ServingError: a replica died.
        """
        try:
            return sum(process_tree_cpu_s(replica.pid) for replica in self.replicas)
        except OSError as error:
            raise ServingError(f"a replica of {self._specs[0].label} ended: {error}") from error

    def _beyond(self, load_rps: float, capacity_rps: float) -> ServingError:
        return ServingError(
            f"{self._specs[0].label}: a load of {load_rps:g} rps is too much for "
            f"{len(self.replicas)} replicas, which serve {capacity_rps:.3g} rps; "
            f"allowed: up to {MAX_UTILISATION:.0%} of that"
        )

    def _served(self) -> Served:
        answers = [replica.answer() for replica in self.replicas]
        on_gpu = [answer["peak_gpu_memory_bytes"] for answer in answers]
        return Served(
            latencies_s=_joined(answers),
            busy_s=sum(answer["busy_s"] for answer in answers),
            peak_memory_bytes=max(answer["peak_memory_bytes"] for answer in answers),
            peak_gpu_memory_bytes=max((b for b in on_gpu if b is not None), default=None),
        )


def _joined(answers: Sequence[dict[str, Any]]) -> list[float]:
    return [latency_s for answer in answers for latency_s in answer["latencies_s"]]
