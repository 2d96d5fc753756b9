"""What goes on in a cluster besides its API server: controllers, a scheduler, a pretended kubelet.

Deployments make ReplicaSets, these make pods (:mod:`.controllers`), pods are put on nodes, become
ready after a while and go when they are deleted; services get their EndpointSlices, and what
belongs to something that was deleted is deleted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy

from .api_decoding import quantity
from .api_server import ApiServer
from .api_store import Object
from .api_write_rules import Request
from .beside import Beside
from .controllers import Controllers
from .statuses import (
    condition,
    is_ready,
    lacking,
    resized,
    running,
    take,
    with_condition,
    with_status,
)

COALESCE_S = 0.005
IDLE_S = 0.5
NODE: Mapping[str, str] = {"cpu": "64", "memory": "256Gi", "pods": "1000"}

ReadyAfter = Callable[[Object], float | None]


class World(Beside):
    """Runs from its making until :meth:`close`.

    Args:
        server: whose objects these are.
        ready_after_s: from when a pod is put on its node until it is ready; a function of the pod
            gives None for one that never is.
        gone_after_s: from when it is deleted until it is gone.
        nodes: name → what it has; made at once.
        starts_pods: False: something else does, e.g. a NodeAgent.

    Attributes:
        rested_at: the store's version with which nothing was left to be done, as last seen.
    """

    def __init__(
        self,
        server: ApiServer,
        *,
        ready_after_s: float | ReadyAfter = 0.02,
        gone_after_s: float = 0.01,
        nodes: Mapping[str, Mapping[str, str]] | None = None,
        starts_pods: bool = True,
    ) -> None:
        self._server, self._store = server, server.store
        self._ready_after_s, self._gone_after_s = ready_after_s, gone_after_s
        self._starts_pods = starts_pods
        self._due: dict[str, float] = {}
        self._addresses = 0
        self.rested_at = -1
        super().__init__()
        self._controllers = Controllers(server)
        for name, has in (nodes if nodes is not None else {"n1": NODE}).items():
            self._make_node(name, has)
        self._begin(self._run)

    def _wake(self) -> None:
        with self._store.changed:
            self._store.changed.notify_all()

    def _run(self) -> None:
        seen = -1
        while not self.is_closing.is_set():
            with self._store.changed:
                if self._store.version == seen:
                    wait_s = min([IDLE_S, *(due - time.monotonic() for due in self._due.values())])
                    self._store.changed.wait(max(0.001, wait_s))
            time.sleep(COALESCE_S)
            with self._store.changed:
                seen = self._store.version
                try:
                    self._step()
                except Exception as error:  # noqa: BLE001  (raised by close)
                    self.errors.append(error)
                    return
                if self._store.version == seen and not any(map(math.isfinite, self._due.values())):
                    self.rested_at = seen

    def _step(self) -> None:
        """Look at everything once, and do the next thing about each."""
        self._controllers.step()
        self._schedule()
        self._tend_pods()
        self._controllers.tidy()

    def _make_node(self, name: str, has: Mapping[str, str]) -> None:
        request = Request(self._controllers.resource("nodes"), "", name, manager="kubelet")
        status = {"capacity": dict(has), "allocatable": dict(has)}
        made = deepcopy(
            self._server.writes.create(request, {"metadata": {"name": name}, "status": status})
        )
        made["spec"].pop("taints", None)
        made["status"]["conditions"] = [condition("Ready", "True", "KubeletReady", "")]
        self._controllers.put("nodes", made)

    def _schedule(self) -> None:
        """Put what waits on the first node that has room."""
        pods = self._controllers.all("pods")
        waiting = [each for each in pods if not each["spec"].get("nodeName")]
        if not waiting:
            return
        free = {}
        for node in self._controllers.all("nodes"):
            if not node["spec"].get("taints"):
                has = node["status"].get("allocatable", {})
                free[node["metadata"]["name"]] = {name: quantity(n) for name, n in has.items()}
        for each in pods:
            take(free.get(each["spec"].get("nodeName", ""), {}), each)
        for each in waiting:
            lacks = {node: lacking(room, each) for node, room in free.items()}
            fitting = [node for node, why in lacks.items() if not why]
            if not fitting:
                text = f"0/{len(free)} nodes are available: " + ", ".join(
                    f"1 Insufficient {why}" for why in lacks.values()
                )
                text += (
                    f". no new claims to deallocate, preemption: 0/{len(free)} nodes are "
                    f"available: {len(free)} Preemption is not helpful for scheduling."
                )
                said = condition("PodScheduled", "False", "Unschedulable", text, ("Probe",))
                self._controllers.put(
                    "pods", with_status(each, conditions=with_condition(each, said))
                )
                continue
            take(free[fitting[0]], each)
            body = {"target": {"name": fitting[0]}}
            self._server.writes.bind(self._controllers.request("pods", each), body)

    def _tend_pods(self) -> None:
        """The part of a kubelet: start what is on a node, end what is deleted."""
        now = time.monotonic()
        there = set()
        for each in self._controllers.all("pods") if self._starts_pods else ():
            metadata = each["metadata"]
            uid = f"{metadata['uid']} {'deletionTimestamp' in metadata}"
            there.add(uid)
            if "deletionTimestamp" in metadata:
                if now >= self._due.setdefault(uid, now + self._gone_after_s):
                    self._controllers.delete("pods", each, grace_s=0)
            elif each["spec"].get("nodeName") and not is_ready(each):
                after_s = self._ready_after_s
                wait_s = after_s(each) if callable(after_s) else after_s
                if now >= self._due.setdefault(uid, math.inf if wait_s is None else now + wait_s):
                    self._controllers.put("pods", running(each, self._address()))
            elif each["spec"].get("nodeName"):
                self._controllers.put("pods", resized(each))
        self._due = {uid: due for uid, due in self._due.items() if uid in there}
        self._due = {uid: due for uid, due in self._due.items() if due > now}

    def _address(self) -> str:
        self._addresses += 1
        n = self._addresses
        return f"10.{n // 65536 % 200 + 20}.{n // 256 % 256}.{n % 256}"
