"""What goes on in a cluster besides its API server: controllers, a scheduler, a pretended kubelet.

Deployments make ReplicaSets, these make pods, pods are put on nodes, become ready after a while
and go when they are deleted; services get their EndpointSlices, and what belongs to something
that was deleted is deleted. A rollout goes through the states that a real one went through in the
recording, if not through all of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

from ipa_energy.testing.cluster.api_decoding import quantity
from ipa_energy.testing.cluster.api_server import ApiServer
from ipa_energy.testing.cluster.api_store import Object, key_of
from ipa_energy.testing.cluster.api_types import Resource
from ipa_energy.testing.cluster.api_writes import APPLY, FOREGROUND, Request, stamp
from ipa_energy.testing.cluster.rollout import (
    condition,
    deployment_status,
    replica_counts,
    with_condition,
)
from ipa_energy.testing.cluster.seldon import PLURAL, deployments_of

CONTROLLER = "kube-controller-manager"
HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
SERVICE_NAME = "kubernetes.io/service-name"
COALESCE_S = 0.005
IDLE_S = 0.5
NODE: Mapping[str, str] = {"cpu": "64", "memory": "256Gi", "pods": "1000"}

ReadyAfter = Callable[[Object], float | None]


class World:
    """Runs from its making until :meth:`close`.

    Args:
        server: whose objects these are.
        ready_after_s: from when a pod is put on its node until it is ready; a function of the pod
            gives None for one that never is.
        gone_after_s: from when it is deleted until it is gone.
        nodes: name → what it has; made at once.
        starts_pods: False: something else does, e.g. a NodeAgent.
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
        self._is_closing = False
        self.errors: list[BaseException] = []
        for name, has in (nodes if nodes is not None else {"n1": NODE}).items():
            self._make_node(name, has)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing goes on any more.

        Raises:
            Exception: what went wrong in here meanwhile.
        """
        self._is_closing = True
        with self._store.changed:
            self._store.changed.notify_all()
        self._thread.join()
        for each in self.errors:
            raise each

    def _run(self) -> None:
        seen = -1
        while not self._is_closing:
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

    def _step(self) -> None:
        """Look at everything once, and do the next thing about each."""
        for each in self._customs():
            if each["kind"] == "SeldonDeployment":
                self._operate(each)
        for each in self._all("deployments"):
            if "deletionTimestamp" not in each["metadata"]:
                self._roll(each)
        for each in self._all("replicasets"):
            self._keep_replicas(each)
        self._schedule()
        self._tend_pods()
        for each in self._all("services"):
            self._publish(each)
        self._collect()

    def _resource(self, plural: str) -> Resource:
        return next(each for each in self._server.resources.values() if each.plural == plural)

    def _all(self, plural: str, namespace: str = "") -> list[Object]:
        return self._store.all(self._resource(plural), namespace)

    def _put(self, plural: str, new: Object) -> Object:
        """Write an object as it is, with another generation if its spec changed."""
        resource, metadata = self._resource(plural), new["metadata"]
        old = self._store.get(resource, metadata.get("namespace", ""), metadata["name"])
        if old == new:
            return old
        if old is not None and old.get("spec") != new.get("spec") and resource.generation:
            new = {**new, "metadata": {**metadata, "generation": metadata["generation"] + 1}}
        key = key_of(resource, metadata.get("namespace", ""), metadata["name"])
        return self._store.put(key, new) or new

    def _request(self, plural: str, each: Object, subresource: str = "") -> Request:
        metadata = each["metadata"]
        return Request(
            self._resource(plural),
            metadata.get("namespace", ""),
            metadata["name"],
            subresource,
            manager=CONTROLLER,
        )

    def _delete(self, plural: str, each: Object, grace_s: int | None = None) -> None:
        options = {} if grace_s is None else {"gracePeriodSeconds": str(grace_s)}
        self._server.writes.delete(self._request(plural, each), options)

    def _make_node(self, name: str, has: Mapping[str, str]) -> None:
        request = Request(self._resource("nodes"), "", name, manager="kubelet")
        status = {"capacity": dict(has), "allocatable": dict(has)}
        made = deepcopy(
            self._server.writes.create(request, {"metadata": {"name": name}, "status": status})
        )
        made["spec"].pop("taints", None)
        made["status"]["conditions"] = [condition("Ready", "True", "KubeletReady", "")]
        self._put("nodes", made)

    # Deployments and ReplicaSets

    def _roll(self, deployment: Object) -> None:
        """One step of a rollout, and what the deployment says of it."""
        metadata = deployment["metadata"]
        mine = [
            each
            for each in self._all("replicasets", metadata["namespace"])
            if _is_owned(each, metadata["uid"])
        ]
        digest = _digest(deployment["spec"]["template"])
        new = next((each for each in mine if each["metadata"]["labels"][HASH] == digest), None)
        revision = max((int(each["metadata"]["annotations"][REVISION]) for each in mine), default=0)
        is_created = new is None
        if new is None:
            new = self._make_replica_set(deployment, digest, revision + 1)
            mine.append(new)
        elif int(new["metadata"]["annotations"][REVISION]) < revision:
            new = self._put("replicasets", _annotated(new, REVISION, str(revision + 1)))
            mine = [new if _is_same(each, new) else each for each in mine]
        counts = replica_counts(deployment, new, [each for each in mine if not _is_same(each, new)])
        for each, count in zip(
            [new, *(m for m in mine if not _is_same(m, new))], counts, strict=True
        ):
            if each["spec"]["replicas"] != count:
                self._put("replicasets", {**each, "spec": {**each["spec"], "replicas": count}})
        status = deployment_status(deployment, new, mine, is_created=is_created)
        its_revision = self._store.get(
            self._resource("replicasets"), metadata["namespace"], new["metadata"]["name"]
        )["metadata"]["annotations"][REVISION]  # type: ignore[index]
        wanted = _annotated({**deployment, "status": status}, REVISION, its_revision)
        if wanted != deployment:
            self._server.writes.replace(self._request("deployments", deployment, "status"), wanted)

    def _operate(self, seldon: Object) -> None:
        """What Seldon's controller does."""
        wanted = deployments_of(seldon)
        names = [each["metadata"]["name"] for each in wanted]
        for each in wanted:
            self._server.writes.patch(
                replace(self._request("deployments", each), manager="seldon-controller-manager"),
                each,
                APPLY,
            )
        made = [
            each
            for each in self._all("deployments", seldon["metadata"]["namespace"])
            if _is_owned(each, seldon["metadata"]["uid"])
        ]
        for each in made:
            if each["metadata"]["name"] not in names:
                self._delete_once("deployments", each)
        is_there = all(
            each["status"].get("updatedReplicas", 0)
            == each["status"].get("availableReplicas", 0)
            == each["spec"]["replicas"]
            for each in made
        )
        status = {"state": "Available" if is_there and made else "Creating"}
        if seldon.get("status") != status:
            self._put(PLURAL, {**seldon, "status": status})

    def _make_replica_set(self, deployment: Object, digest: str, revision: int) -> Object:
        metadata, spec = deployment["metadata"], deepcopy(deployment["spec"])
        spec["template"]["metadata"].setdefault("labels", {})[HASH] = digest
        spec["selector"].setdefault("matchLabels", {})[HASH] = digest
        body = {
            "metadata": {
                "name": f"{metadata['name']}-{digest}",
                "labels": dict(spec["template"]["metadata"]["labels"]),
                "annotations": {REVISION: str(revision)},
                "ownerReferences": [_owner("apps/v1", "Deployment", metadata)],
            },
            "spec": {"replicas": 0, "selector": spec["selector"], "template": spec["template"]},
        }
        request = self._request("replicasets", {"metadata": {**metadata, "name": ""}})
        return self._server.writes.create(request, body)

    def _keep_replicas(self, replicas: Object) -> None:
        """As many pods as a ReplicaSet wants."""
        metadata = replicas["metadata"]
        pods = [
            each
            for each in self._all("pods", metadata["namespace"])
            if _is_owned(each, metadata["uid"])
        ]
        alive = [each for each in pods if "deletionTimestamp" not in each["metadata"]]
        wanted = replicas["spec"]["replicas"]
        for _ in range(wanted - len(alive)):
            self._make_pod(replicas)
        newest = alive[::-1]
        surplus = sorted(newest, key=is_ready)
        for each in surplus[: max(0, len(alive) - wanted)]:
            self._delete("pods", each)
        pods = [
            each
            for each in self._all("pods", metadata["namespace"])
            if _is_owned(each, metadata["uid"])
        ]
        alive = [each for each in pods if "deletionTimestamp" not in each["metadata"]]
        ready = sum(map(is_ready, alive))
        status = {
            "replicas": len(alive),
            "fullyLabeledReplicas": len(alive),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        status = {name: n for name, n in status.items() if n or name == "replicas"}
        status |= {
            "terminatingReplicas": len(pods) - len(alive),
            "observedGeneration": metadata["generation"],
        }
        self._put("replicasets", {**replicas, "status": status})

    def _make_pod(self, replicas: Object) -> None:
        metadata, template = replicas["metadata"], replicas["spec"]["template"]
        body = {
            "metadata": {
                **template["metadata"],
                "generateName": f"{metadata['name']}-",
                "ownerReferences": [_owner("apps/v1", "ReplicaSet", metadata)],
            },
            "spec": deepcopy(template["spec"]),
        }
        request = self._request("pods", {"metadata": {**metadata, "name": ""}})
        self._server.writes.create(request, body)

    # Pods

    def _schedule(self) -> None:
        """Put what waits on the first node that has room."""
        pods = self._all("pods")
        waiting = [each for each in pods if not each["spec"].get("nodeName")]
        if not waiting:
            return
        free = {}
        for node in self._all("nodes"):
            if not node["spec"].get("taints"):
                has = node["status"].get("allocatable", {})
                free[node["metadata"]["name"]] = {name: quantity(n) for name, n in has.items()}
        for each in pods:
            _take(free.get(each["spec"].get("nodeName", ""), {}), each)
        for each in waiting:
            lacking = {node: _lacking(room, each) for node, room in free.items()}
            fitting = [node for node, why in lacking.items() if not why]
            if not fitting:
                text = f"0/{len(free)} nodes are available: " + ", ".join(
                    f"1 Insufficient {why}" for why in lacking.values()
                )
                text += (
                    f". no new claims to deallocate, preemption: 0/{len(free)} nodes are "
                    f"available: {len(free)} Preemption is not helpful for scheduling."
                )
                said = condition("PodScheduled", "False", "Unschedulable", text, ("Probe",))
                self._put("pods", _with_status(each, conditions=with_condition(each, said)))
                continue
            _take(free[fitting[0]], each)
            body = {"target": {"name": fitting[0]}}
            self._server.writes.bind(self._request("pods", each), body)

    def _tend_pods(self) -> None:
        """The part of a kubelet: start what is on a node, end what is deleted."""
        now = time.monotonic()
        there = set()
        for each in self._all("pods") if self._starts_pods else ():
            metadata = each["metadata"]
            uid = f"{metadata['uid']} {'deletionTimestamp' in metadata}"
            there.add(uid)
            if "deletionTimestamp" in metadata:
                if now >= self._due.setdefault(uid, now + self._gone_after_s):
                    self._delete("pods", each, grace_s=0)
            elif each["spec"].get("nodeName") and not is_ready(each):
                after_s = self._ready_after_s
                wait_s = after_s(each) if callable(after_s) else after_s
                if now >= self._due.setdefault(uid, math.inf if wait_s is None else now + wait_s):
                    self._put("pods", running(each, self._address()))
            elif each["spec"].get("nodeName"):
                self._put("pods", resized(each))
        self._due = {uid: due for uid, due in self._due.items() if uid in there}
        self._due = {uid: due for uid, due in self._due.items() if due > now}

    def _address(self) -> str:
        self._addresses += 1
        n = self._addresses
        return f"10.{n // 65536 % 200 + 20}.{n // 256 % 256}.{n % 256}"

    # Services

    def _publish(self, service: Object) -> None:
        """A service's EndpointSlice: the addresses of the pods that it selects."""
        metadata, spec = service["metadata"], service["spec"]
        if not spec.get("selector"):
            return
        pods = [
            each
            for each in self._all("pods", metadata["namespace"])
            if spec["selector"].items() <= each["metadata"].get("labels", {}).items()
            and each["status"].get("podIP")
        ]
        made = {
            "addressType": "IPv4",
            "endpoints": [_endpoint(each) for each in pods] or None,
            "ports": _ports(spec, pods),
        }
        old = next(
            (
                each
                for each in self._all("endpointslices", metadata["namespace"])
                if each["metadata"].get("labels", {}).get(SERVICE_NAME) == metadata["name"]
            ),
            None,
        )
        if old is not None:
            self._put("endpointslices", {**old, **made})
            return
        body = {
            "metadata": {
                "generateName": f"{metadata['name']}-",
                "labels": {
                    **metadata.get("labels", {}),
                    SERVICE_NAME: metadata["name"],
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
                "ownerReferences": [_owner("v1", "Service", metadata)],
            },
            "addressType": "IPv4",
            "endpoints": [],
        }
        request = self._request("endpointslices", {"metadata": {**metadata, "name": ""}})
        new = self._server.writes.create(request, body)
        self._put("endpointslices", {**new, **made})

    # What goes with what

    def _collect(self) -> None:
        """Delete what belongs to something that is gone, and what is in a namespace that goes."""
        kinds = ("deployments", "replicasets", "pods", "services", "endpointslices")
        alive = {each["metadata"]["uid"] for kind in kinds for each in self._all(kind)}
        alive |= {each["metadata"]["uid"] for each in self._customs()}
        for kind in kinds:
            for each in self._all(kind):
                owners = each["metadata"].get("ownerReferences", ())
                if owners and not any(owner["uid"] in alive for owner in owners):
                    self._delete_once(kind, each)
        for each in self._all("deployments"):
            if FOREGROUND in each["metadata"].get("finalizers", ()):
                mine = self._all("replicasets", each["metadata"]["namespace"])
                left = [one for one in mine if _is_owned(one, each["metadata"]["uid"])]
                for one in left:
                    self._delete_once("replicasets", one)
                if not left:
                    freed = deepcopy(each)
                    freed["metadata"]["finalizers"].remove(FOREGROUND)
                    self._server.writes.replace(self._request("deployments", each), freed)
        for namespace in self._all("namespaces"):
            if "deletionTimestamp" in namespace["metadata"]:
                self._empty(namespace)

    def _customs(self) -> Iterable[Object]:
        for each in [*self._server.resources.values()]:
            if each.custom:
                yield from self._store.all(each)

    def _delete_once(self, kind: str, each: Object) -> None:
        if "deletionTimestamp" not in each["metadata"]:
            self._delete(kind, each)

    def _empty(self, namespace: Object) -> None:
        name, is_empty = namespace["metadata"]["name"], True
        for resource in [*self._server.resources.values()]:
            for each in self._store.all(resource, name) if resource.namespaced else ():
                is_empty = False
                request = Request(resource, name, each["metadata"]["name"])
                if "deletionTimestamp" not in each["metadata"]:
                    self._server.writes.delete(request, {})
        if is_empty:
            self._store.put(key_of(self._resource("namespaces"), "", name), None)


def is_ready(pod: Object) -> bool:
    """Whether a pod says that it is."""
    return any(
        each["type"] == "Ready" and each["status"] == "True"
        for each in pod["status"].get("conditions", ())
    )


def running(pod: Object, address: str, host: str = "127.0.0.1") -> Object:
    """A pod whose containers run and are ready."""
    now = stamp(datetime.now(UTC))
    conditions = with_condition(pod, condition("PodScheduled", "True", "", "", ("Probe",)))
    for kind in ("Initialized", "ContainersReady", "Ready"):
        conditions.append(condition(kind, "True", "", "", ("Probe",)))
    return resized(
        _with_status(
            pod,
            phase="Running",
            conditions=conditions,
            hostIP=host,
            podIP=address,
            podIPs=[{"ip": address}],
            startTime=now,
            containerStatuses=[
                {
                    "name": each["name"],
                    "state": {"running": {"startedAt": now}},
                    "lastState": {},
                    "ready": True,
                    "restartCount": 0,
                    "image": each["image"],
                    "imageID": "",
                    "started": True,
                }
                for each in pod["spec"]["containers"]
            ],
        )
    )


def resized(pod: Object) -> Object:
    """A pod whose containers have what its spec says."""
    has = {each["name"]: each["resources"] for each in pod["spec"]["containers"]}
    statuses = [
        {**each, "resources": has[each["name"]]} if has.get(each["name"]) else each
        for each in pod["status"].get("containerStatuses", ())
    ]
    return _with_status(pod, containerStatuses=statuses) if statuses else pod


def _with_status(pod: Object, **more: Any) -> Object:
    return {**pod, "status": {**pod["status"], **more}}


def _digest(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _owner(api_version: str, kind: str, metadata: Object) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _is_owned(each: Object, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences", ()))


def _is_same(one: Object, other: Object) -> bool:
    return bool(one["metadata"]["uid"] == other["metadata"]["uid"])


def _annotated(each: Object, name: str, value: str) -> Object:
    metadata = each["metadata"]
    annotations = {**metadata.get("annotations", {}), name: value}
    return {**each, "metadata": {**metadata, "annotations": annotations}}


def _requests(pod: Object) -> dict[str, Decimal]:
    asked: dict[str, Decimal] = {"pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        for name, amount in container["resources"].get("requests", {}).items():
            asked[name] = asked.get(name, Decimal()) + quantity(amount)
    return asked


def _lacking(room: Mapping[str, Decimal], pod: Object) -> str:
    return next((name for name, n in _requests(pod).items() if n > room.get(name, Decimal())), "")


def _take(room: dict[str, Decimal], pod: Object) -> None:
    for name, amount in _requests(pod).items() if room else ():
        room[name] = room.get(name, Decimal()) - amount


def _endpoint(pod: Object) -> Object:
    leaves = "deletionTimestamp" in pod["metadata"]
    ready = is_ready(pod)
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready and not leaves, "serving": ready, "terminating": leaves},
        "nodeName": pod["spec"].get("nodeName"),
        "targetRef": {
            "kind": "Pod",
            "namespace": pod["metadata"]["namespace"],
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        },
    }


def _ports(spec: Object, pods: Sequence[Object]) -> list[Object]:
    """A service's ports with the numbers that its pods have for their names."""
    named = {
        port["name"]: port["containerPort"]
        for pod in pods[:1]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if "name" in port
    }
    return [
        {
            "name": each.get("name", ""),
            "port": named.get(each["targetPort"], each["targetPort"]),
            "protocol": each["protocol"],
        }
        for each in spec.get("ports", ())
        if not isinstance(each["targetPort"], str) or each["targetPort"] in named
    ]
