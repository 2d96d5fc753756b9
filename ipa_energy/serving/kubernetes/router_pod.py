"""The router's container: the plane of :mod:`ipa_energy.serving.local`, with pods for processes.

::

    python -m ipa_energy.serving.kubernetes.router_pod

Queues, router, load generator and control are those of one machine; only the replicas are found
instead of started, in the EndpointSlices of the stages' services. What is to be served comes over
the control port, once, from whoever has the token of the environment; an adapter that is killed
finds it there again while the lease lasts. When it is told to end, or the lease is over, the
process ends: a container that is started again knows nothing of the run before.
:class:`RemotePlane` is the router as who decides sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ipa_energy.errors import GiveUpError, ServingError, TryAgainError
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.records import Option
from ipa_energy.serving.base import LiveOptions
from ipa_energy.serving.kubernetes.cluster_api import (
    ClusterApi,
    ExpiredError,
    Object,
    path_of,
)
from ipa_energy.serving.kubernetes.manifests import CONTROL, EXPORTER, GRPC, TOKEN
from ipa_energy.serving.kubernetes.pod_set import BusyPrices, Endpoint, PodSet
from ipa_energy.serving.local import control
from ipa_energy.serving.local.machine_meter import Prices
from ipa_energy.serving.local.plane import ASKS, Job, Lease, Plane, Standing
from ipa_energy.serving.local.plane_process import PlaneControl, PlanePipeline
from ipa_energy.serving.local.replica_set import ReplicaSet
from ipa_energy.serving.local.rpc import run
from ipa_energy.serving.local.stage_queue import StageQueue

logger = logging.getLogger(__name__)

SLICES = ("discovery.k8s.io/v1", "EndpointSlice")
SERVICE = "kubernetes.io/service-name"
HELLO_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
CONNECT_S = 5.0
ANSWER_S = 10.0
CLOCK_LOOKS = 5
TOKEN_FILE = "control.token"


@dataclass(frozen=True, slots=True)
class PodJob:
    """What a router serves.

    Attributes:
        pipeline: the model that clients ask for.
        namespace: where the services are.
        services: stage → its service, first stage first.
        servers: stage → name of a server → an option that it runs.
        power: that busy time is priced by.
        drop_limit_s: see :class:`ipa_energy.serving.local.stage_queue.StageQueue`.
        lease_s: for how long it goes on when nobody decides.
        latency_sla_s, energy_sla_j: limits of a request, for the exporter; None without.
        exports: True to offer figures to Prometheus.
    """

    pipeline: str
    namespace: str
    services: Mapping[str, str]
    servers: Mapping[str, Mapping[str, Option]]
    power: PowerModel
    drop_limit_s: float = math.inf
    lease_s: float = 60.0
    latency_sla_s: float | None = None
    energy_sla_j: float | None = None
    exports: bool = False


POD_ASKS: Mapping[str, tuple[Any, Any]] = {
    **ASKS,
    "hello": (str, None),
    "busy": (None, bool),
    "job": (PodJob, None),
    "clock": (None, float),
}
"""What a router can be asked beside a plane's questions."""


class PodPipeline(PlanePipeline):
    """What is served, once somebody says what.

    Args:
        host: address that it listens at.
        connect: makes a connection to the cluster.
    """

    def __init__(self, host: str, connect: Callable[[], ClusterApi] = ClusterApi) -> None:
        super().__init__(Job("", {}, PowerModel(0.0, 1.0, 1, "none yet")))
        self.listens_at = f"{host}:{GRPC}"
        self._host, self._connect = host, connect
        self._pod_job: PodJob | None = None
        self._watch: SliceWatch | None = None

    async def close(self, *, grace_s: float) -> None:
        """End everything."""
        if self._watch is not None:
            self._watch.close()
        await super().close(grace_s=grace_s)

    async def on_busy(self, _: None) -> bool:
        """Whether something is served already."""
        return self.has_begun

    async def on_clock(self, _: None) -> float:
        """Now, by the clock of all times that are told."""
        return time.perf_counter()

    async def on_job(self, job: PodJob) -> None:
        """Serve this from now on."""
        if self._pod_job is not None:
            raise GiveUpError("the router serves something already")
        self._pod_job = job
        self.job = Job(
            job.pipeline,
            {stage: {} for stage in job.services},
            job.power,
            job.drop_limit_s,
            live=LiveOptions(exporter_port=EXPORTER if job.exports else None),
            lease=Lease(Path("/"), job.lease_s),
            latency_sla_s=job.latency_sla_s,
            energy_sla_j=job.energy_sla_j,
        )

    async def _serve(self) -> str:
        if self._pod_job is None:
            raise GiveUpError("the router has not been told what to serve")
        address = await super()._serve()
        return address.replace("0.0.0.0", "127.0.0.1")

    def _prices_now(self) -> Prices:
        return BusyPrices(self.job.power)

    def _fleets(self, queues: Sequence[StageQueue]) -> dict[str, ReplicaSet]:
        """The pods of each stage, as their services list them from now on."""
        job = self._pod_job
        if job is None:
            raise GiveUpError("the router has not been told what to serve")
        sets = {queue.stage: PodSet(queue, job.servers[queue.stage]) for queue in queues}
        loop = asyncio.get_running_loop()
        stages = {service: stage for stage, service in job.services.items()}

        def changed(found: Mapping[str, tuple[Endpoint, ...]]) -> None:
            for service, stage in stages.items():
                loop.call_soon_threadsafe(sets[stage].update, found.get(service, ()))

        self._watch = SliceWatch(self._connect(), job.namespace, tuple(stages), changed)
        return dict(sets)


class SliceWatch:
    """Follows the EndpointSlices of some services, in a thread, until :meth:`close`.

    Args:
        api: of the cluster; closed with it.
        namespace: of the services.
        services: their names.
        changed: called with the endpoints of every service, whenever any may have changed.
    """

    def __init__(
        self,
        api: ClusterApi,
        namespace: str,
        services: Sequence[str],
        changed: Callable[[Mapping[str, tuple[Endpoint, ...]]], None],
    ) -> None:
        self._api, self._changed = api, changed
        self._path = path_of(SLICES, namespace)
        self._selector = f"{SERVICE} in ({','.join(services)})"
        self._slices: dict[str, Object] = {}
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="slices")
        self._thread.start()

    def close(self) -> None:
        """Stop; a watch that is open ends with the process."""
        self._is_closed.set()

    def _run(self) -> None:
        version, wait_s = "", FIRST_WAIT_S
        while not self._is_closed.is_set():
            try:
                version = version or self._listed()
                version = self._followed(version)
                wait_s = FIRST_WAIT_S
            except ExpiredError:
                version = ""
            except (TryAgainError, GiveUpError) as error:
                logger.warning("%s", error)
                version = ""  # what was missed is seen in a list
                self._is_closed.wait(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _listed(self) -> str:
        found = self._api.get(self._path, {"labelSelector": self._selector})
        self._slices = {one["metadata"]["name"]: one for one in found.get("items", ())}
        self._tell()
        return str(found["metadata"]["resourceVersion"])

    def _followed(self, version: str) -> str:
        """What happened from a version on, until the watch ends; the last version seen."""
        query = {"labelSelector": self._selector, "resourceVersion": version}
        for event in self._api.watch(self._path, query, is_over=self._is_closed.is_set):
            changed = event["object"]
            version = str(changed["metadata"]["resourceVersion"])
            if event["type"] == "BOOKMARK":
                continue
            if event["type"] == "DELETED":
                self._slices.pop(changed["metadata"]["name"], None)
            else:
                self._slices[changed["metadata"]["name"]] = changed
            self._tell()
        return version

    def _tell(self) -> None:
        found: dict[str, dict[str, Endpoint]] = {}
        for one in self._slices.values():
            service = one["metadata"]["labels"][SERVICE]
            for endpoint in endpoints_in(one):
                found.setdefault(service, {})[endpoint.pod] = endpoint
        with contextlib.suppress(RuntimeError):  # the loop is over
            self._changed({name: tuple(ones.values()) for name, ones in found.items()})


def endpoints_in(one: Object) -> list[Endpoint]:
    """The pods of a slice that serve gRPC."""
    ports = [port["port"] for port in one.get("ports") or () if port.get("name") == "grpc"]
    if not ports:
        return []
    found = []
    for endpoint in one.get("endpoints") or ():
        state = endpoint.get("conditions") or {}
        takes = state.get("ready") is not False and not state.get("terminating")
        address = endpoint["addresses"][0]
        host = f"[{address}]" if ":" in address else address
        pod = (endpoint.get("targetRef") or {}).get("name") or address
        found.append(Endpoint(pod, f"{host}:{ports[0]}", takes))
    return found


class PodControl(PlaneControl):
    """The control of a router, over TCP, for whoever knows the token.

    Args:
        pipeline: what is told.
        token: the word.
    """

    asks = POD_ASKS

    def __init__(self, pipeline: PlanePipeline, token: str) -> None:
        super().__init__(pipeline)
        self._token = token
        self._watching: asyncio.Task[None] | None = None

    async def serve_at(self, host: str, port: int) -> None:
        """Answer until told to end, or until the lease does."""
        server = await asyncio.start_server(self._talk, host, port)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._over.set)
        await self._over.wait()
        server.close()
        if self._watching is not None:
            self._watching.cancel()
        await self._pipeline.close(grace_s=0.0)
        for task in self._tasks:
            task.cancel()

    async def _admits(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True if the first word is the token; probes say nothing and are not admitted."""
        try:
            async with asyncio.timeout(HELLO_S):
                said = await control.next_message(reader)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, GiveUpError):
            return False
        if not (self._token and hmac.compare_digest(str(said.get("with")), self._token)):
            told = control.error_in(GiveUpError("the router is another run's"))
            writer.write(control.frame(told))
            return False
        writer.write(control.frame({"answer": None}))
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(has_socket=True))
        return True


class RemotePlane(Plane):
    """A router that was reached.

    Args:
        host, port: of its control.
        token: that it asks for.

    Raises:
        TryAgainError: it does not answer, or is another run's that is about to end.
    """

    asks = POD_ASKS

    def __init__(self, host: str, port: int, token: str) -> None:
        self._lock = threading.Lock()
        self._process, self._folder = None, None
        try:
            made = socket.create_connection((host, port), CONNECT_S)
        except OSError as error:
            raise TryAgainError(
                f"the router's pod at {host} cannot be reached ({error.strerror or error});"
                " fix: run this in the cluster (configs/kubernetes/run.yaml), or where the"
                " pods' network leads"
            ) from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line = control.Line(made)
        try:
            self._ask("hello", token, timeout_s=ANSWER_S)
            self.is_busy = bool(self._ask("busy", timeout_s=ANSWER_S))
            self.clock_ahead_s = self._clock_ahead_s()
        except GiveUpError as error:
            self._line.close()
            raise TryAgainError(f"the router at {host}: {error}") from error

    def serve(self, job: PodJob) -> None:
        """Have it serve this, with no replica yet."""
        self._ask("job", job)
        self.standing: Standing = self._ask("standing")

    def adopt(self, logged_until_s: float) -> None:
        """Go on with what it serves; its log has everything up to then."""
        standing: Standing = self._ask("adopt", logged_until_s)
        zero_s = None if standing.zero_s is None else standing.zero_s - self.clock_ahead_s
        self.standing = replace(standing, zero_s=zero_s)

    def close(self) -> None:
        """Tell it to end; safe to call twice."""
        self._line.tell({"ask": "end", "with": None})
        self._line.close()

    def _clock_ahead_s(self) -> float:
        """The router's clock less ours, by the quickest of some answers."""
        found = []
        for _ in range(CLOCK_LOOKS):
            before_s = time.perf_counter()
            theirs_s = float(self._ask("clock"))
            after_s = time.perf_counter()
            found.append((after_s - before_s, theirs_s - (before_s + after_s) / 2))
        return min(found)[1]

    def _ask(self, what: str, value: object = None, *, timeout_s: float | None = None) -> Any:
        with self._lock:
            return super()._ask(what, value, timeout_s=timeout_s)


def token_of(folder: Path | None) -> str:
    """The word between a run and its router, kept in the run folder for whoever resumes it."""
    path = None if folder is None else folder / TOKEN_FILE
    if path is not None and path.exists():
        return path.read_text(encoding="ascii").strip()
    token = secrets.token_hex(16)
    if path is not None:
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(made, "w", encoding="ascii") as file:
                file.write(token + "\n")
        except OSError as error:
            raise ServingError(f"{path}: cannot be written: {error.strerror}") from error
    return token


async def _main() -> None:
    host = os.environ.get("IPA_ENERGY_HOST", "0.0.0.0")
    token = os.environ.get(TOKEN, "")
    await PodControl(PodPipeline(host), token).serve_at(host, CONTROL)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run(_main())
