"""The controllers of a cluster: what Deployments, ReplicaSets, Services and deletions bring about.

A rollout goes through the states that a real one went through in the recording, if not through
all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace

from .api_patches import APPLY
from .api_server import ApiServer
from .api_store import Object, key_of
from .api_types import Resource
from .api_write_rules import Request
from .seldon import PLURAL, deployments_of
from .statuses import deployment_status, endpoint, endpoint_ports, is_ready, replica_counts

CONTROLLER = "kube-controller-manager"
HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
SERVICE_NAME = "kubernetes.io/service-name"


class Controllers:
    """They write to the objects of a server as it is, and keep nothing themselves.

    Args:
        server: whose objects these are.
    """

    def __init__(self, server: ApiServer) -> None:
        self._server, self._store = server, server.store

    def step(self) -> None:
        """Look at everything once, and do the next thing about each, but for pods."""
        for each in self._customs():
            if each["kind"] == "SeldonDeployment":
                self._operate(each)
        for each in self.all("deployments"):
            self._roll(each)
        for each in self.all("replicasets"):
            self._keep_replicas(each)

    def tidy(self) -> None:
        """Publish the endpoints of services, and collect what belongs to nothing any more."""
        for each in self.all("services"):
            self._publish(each)
        self._collect()

    def resource(self, plural: str) -> Resource:
        """A kind of object."""
        return next(each for each in self._server.resources.values() if each.plural == plural)

    def all(self, plural: str, namespace: str = "") -> list[Object]:
        """The objects of a kind."""
        return self._store.all(self.resource(plural), namespace)

    def _owned(self, plural: str, owner: Object) -> list[Object]:
        """The objects of a kind that belong to what has this metadata."""
        return [
            each
            for each in self.all(plural, owner["namespace"])
            for its in each["metadata"].get("ownerReferences", ())
            if its["uid"] == owner["uid"]
        ]

    def put(self, plural: str, new: Object) -> Object:
        """Write an object as it is, with another generation if its spec changed."""
        resource, metadata = self.resource(plural), new["metadata"]
        old = self._store.get(resource, metadata.get("namespace", ""), metadata["name"])
        if old == new:
            return old
        if old is not None and old.get("spec") != new.get("spec") and resource.generation:
            new = {**new, "metadata": {**metadata, "generation": metadata["generation"] + 1}}
        key = key_of(resource, metadata.get("namespace", ""), metadata["name"])
        return self._store.put(key, new) or new

    def request(self, plural: str, each: Object, subresource: str = "") -> Request:
        """A write of the controllers to an object."""
        metadata = each["metadata"]
        return Request(
            self.resource(plural),
            metadata.get("namespace", ""),
            metadata["name"],
            subresource,
            manager=CONTROLLER,
        )

    def delete(self, plural: str, each: Object, grace_s: int | None = None) -> None:
        """Delete an object."""
        options = {} if grace_s is None else {"gracePeriodSeconds": str(grace_s)}
        self._server.writes.delete(self.request(plural, each), options)

    def _roll(self, deployment: Object) -> None:
        """One step of a rollout, and what the deployment says of it."""
        metadata = deployment["metadata"]
        mine = self._owned("replicasets", metadata)
        digest = _digest(deployment["spec"]["template"])
        new = next((each for each in mine if each["metadata"]["labels"][HASH] == digest), None)
        revision = max((int(each["metadata"]["annotations"][REVISION]) for each in mine), default=0)
        is_created = new is None
        if new is None:
            name = f"{metadata['name']}-{digest}"
            if self._store.get(self.resource("replicasets"), metadata["namespace"], name):
                return  # of a deployment of this name that is gone: it is collected first
            new = self._make_replica_set(deployment, digest, revision + 1)
            mine.append(new)
        elif int(new["metadata"]["annotations"][REVISION]) < revision:
            new = self.put("replicasets", _annotated(new, REVISION, str(revision + 1)))
            mine = [new if _is_same(each, new) else each for each in mine]
        others = [each for each in mine if not _is_same(each, new)]
        counts = replica_counts(deployment, new, others)
        for each, count in zip([new, *others], counts, strict=True):
            if each["spec"]["replicas"] != count:
                self.put("replicasets", {**each, "spec": {**each["spec"], "replicas": count}})
        status = deployment_status(deployment, new, mine, is_created=is_created)
        its_revision = self._store.get(
            self.resource("replicasets"), metadata["namespace"], new["metadata"]["name"]
        )["metadata"]["annotations"][REVISION]  # type: ignore[index]
        wanted = _annotated({**deployment, "status": status}, REVISION, its_revision)
        if wanted != deployment:
            self._server.writes.replace(self.request("deployments", deployment, "status"), wanted)

    def _operate(self, seldon: Object) -> None:
        """What Seldon's controller does."""
        wanted = deployments_of(seldon)
        names = [each["metadata"]["name"] for each in wanted]
        for each in wanted:
            self._server.writes.patch(
                replace(self.request("deployments", each), manager="seldon-controller-manager"),
                each,
                APPLY,
            )
        made = self._owned("deployments", seldon["metadata"])
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
            self.put(PLURAL, {**seldon, "status": status})

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
        request = self.request("replicasets", {"metadata": {**metadata, "name": ""}})
        return self._server.writes.create(request, body)

    def _keep_replicas(self, replicas: Object) -> None:
        """As many pods as a ReplicaSet wants."""
        metadata = replicas["metadata"]
        pods = self._owned("pods", metadata)
        alive = [each for each in pods if "deletionTimestamp" not in each["metadata"]]
        wanted = replicas["spec"]["replicas"]
        for _ in range(wanted - len(alive)):
            self._make_pod(replicas)
        newest = alive[::-1]
        surplus = sorted(newest, key=is_ready)
        for each in surplus[: max(0, len(alive) - wanted)]:
            self.delete("pods", each)
        pods = self._owned("pods", metadata)
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
        self.put("replicasets", {**replicas, "status": status})

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
        request = self.request("pods", {"metadata": {**metadata, "name": ""}})
        self._server.writes.create(request, body)

    def _publish(self, service: Object) -> None:
        """A service's EndpointSlice: the addresses of the pods that it selects."""
        metadata, spec = service["metadata"], service["spec"]
        if not spec.get("selector"):
            return
        pods = [
            each
            for each in self.all("pods", metadata["namespace"])
            if spec["selector"].items() <= each["metadata"].get("labels", {}).items()
            and each["status"].get("podIP")
        ]
        made = {
            "addressType": "IPv4",
            "endpoints": [endpoint(each) for each in pods] or None,
            "ports": endpoint_ports(spec, pods),
        }
        old = next(
            (
                each
                for each in self.all("endpointslices", metadata["namespace"])
                if each["metadata"].get("labels", {}).get(SERVICE_NAME) == metadata["name"]
            ),
            None,
        )
        if old is not None:
            self.put("endpointslices", {**old, **made})
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
        request = self.request("endpointslices", {"metadata": {**metadata, "name": ""}})
        new = self._server.writes.create(request, body)
        self.put("endpointslices", {**new, **made})

    def _collect(self) -> None:
        """Delete what belongs to something that is gone, and what is in a namespace that goes."""
        kinds = ("deployments", "replicasets", "pods", "services", "endpointslices")
        alive = {each["metadata"]["uid"] for kind in kinds for each in self.all(kind)}
        alive |= {each["metadata"]["uid"] for each in self._customs()}
        for kind in kinds:
            for each in self.all(kind):
                owners = each["metadata"].get("ownerReferences", ())
                if owners and not any(owner["uid"] in alive for owner in owners):
                    self._delete_once(kind, each)
        for namespace in self.all("namespaces"):
            if "deletionTimestamp" in namespace["metadata"]:
                self._empty(namespace)

    def _customs(self) -> Iterable[Object]:
        for each in [*self._server.resources.values()]:
            if each.custom:
                yield from self._store.all(each)

    def _delete_once(self, kind: str, each: Object) -> None:
        if "deletionTimestamp" not in each["metadata"]:
            self.delete(kind, each)

    def _empty(self, namespace: Object) -> None:
        name, is_empty = namespace["metadata"]["name"], True
        for resource in [*self._server.resources.values()]:
            for each in self._store.all(resource, name) if resource.namespaced else ():
                is_empty = False
                request = Request(resource, name, each["metadata"]["name"])
                if "deletionTimestamp" not in each["metadata"]:
                    self._server.writes.delete(request, {})
        if is_empty:
            self._store.put(key_of(self.resource("namespaces"), "", name), None)


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


def _is_same(one: Object, other: Object) -> bool:
    return bool(one["metadata"]["uid"] == other["metadata"]["uid"])


def _annotated(each: Object, name: str, value: str) -> Object:
    metadata = each["metadata"]
    annotations = {**metadata.get("annotations", {}), name: value}
    return {**each, "metadata": {**metadata, "annotations": annotations}}
