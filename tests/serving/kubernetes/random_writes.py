"""Random writes to a few objects, and what two API servers answer to them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NAMES = ("one", "two")
APPLIERS, OTHERS = ("alpha", "beta"), ("gamma", "delta")
"""Who applies, and who writes otherwise: one name for both is a corner that we do not copy."""

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

VARYING = {"uid", "creationTimestamp", "time", "clusterIP", "clusterIPs", "deletionTimestamp"}
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class Write:
    """One request; the version that it names, if any, is filled in when it is sent."""

    method: str
    path: str
    query: Mapping[str, str]
    content_type: str
    body: Any


def writes(namespace: str, seed: int, count: int) -> Iterator[Write]:
    """``count`` writes, most of them good ones."""
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.choice(("deployments", "deployments", "deployments", "services", "configmaps"))
        yield _write(rng, kind, namespace)


def _write(rng: random.Random, kind: str, namespace: str) -> Write:
    base = {"deployments": "/apis/apps/v1"}.get(kind, "/api/v1")
    name = rng.choice(NAMES)
    path = f"{base}/namespaces/{namespace}/{kind}/{name}"
    query = {"fieldManager": rng.choice(OTHERS)}
    if rng.random() < 0.1:
        query["dryRun"] = "All"
    act = rng.choice(("apply",) * 5 + ("merge", "strategic", "delete", "scale", "put"))
    if act == "scale" and kind != "deployments":
        act = "apply"
    body = _object(rng, kind, name)
    if act == "apply":
        query["fieldManager"] = rng.choice(APPLIERS)
        if rng.random() < 0.5:
            query["force"] = "true"
        return Write("PATCH", path, query, APPLY, body)
    if act == "put":
        return Write("PUT", path, query, "application/json", body)
    if act == "delete":
        return Write("DELETE", path, {}, "application/json", None)
    if act == "scale":
        # never what it is already: a real server then forgets who owned it, which we do not copy
        patch: Any = {"spec": {"replicas": rng.choice((-1, 10 + rng.randrange(10_000)))}}
        return Write("PATCH", f"{path}/scale", query, MERGE, patch)
    part = {key: value for key, value in body.items() if key in ("metadata", "spec", "data")}
    return Write("PATCH", path, query, MERGE if act == "merge" else STRATEGIC, part)


def _object(rng: random.Random, kind: str, name: str) -> dict[str, Any]:
    """An object with some of the fields that it may have."""

    def maybe(share: float = 0.5) -> bool:
        return rng.random() < share

    metadata: dict[str, Any] = {"name": name}
    labels = {key: rng.choice("xyz") for key in ("app", "tier") if maybe()}
    if labels:
        metadata["labels"] = labels
    if maybe(0.3):
        metadata["annotations"] = {"note": rng.choice("abc")}
    if kind == "configmaps":
        data = {key: rng.choice("123") for key in ("a", "b", "c") if maybe()}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    if kind == "services":
        ports: list[dict[str, Any]] = [{"name": "grpc", "port": 81, "targetPort": "grpc"}]
        if maybe():
            ports.append({"name": "http", "port": 80})
        spec: dict[str, Any] = {"selector": {"app": rng.choice("xy")}, "ports": ports}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    pod = _pod(rng)
    spec = {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
    }
    if maybe(0.7):
        spec["replicas"] = rng.randint(0, 3)
    if maybe(0.3):
        spec["strategy"] = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": rng.choice((1, 2))}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _pod(rng: random.Random) -> dict[str, Any]:
    """The spec of a Deployment's pods."""

    def maybe(share: float = 0.5) -> bool:
        return rng.random() < share

    container: dict[str, Any] = {"name": "model", "image": f"example.invalid/m:{rng.randint(1, 2)}"}
    if maybe():
        container["env"] = [
            {"name": key, "value": rng.choice("12")} for key in ("A", "B", "C") if maybe()
        ]
    if maybe():
        cores = rng.choice(("1", "500m", "2"))
        held = {"cpu": cores, "memory": rng.choice(("1Gi", "512Mi"))}
        container["resources"] = {"requests": dict(held), "limits": dict(held)}
    if maybe():
        container["ports"] = [{"containerPort": 8081, "name": "grpc"}]
    if maybe(0.3):
        container["readinessProbe"] = {"httpGet": {"path": "/ready", "port": 8080}}
    containers = [container]
    if maybe(0.2):
        containers.append({"name": "side", "image": "example.invalid/side:1"})
    pod: dict[str, Any] = {"containers": containers}
    if maybe(0.3):
        pod["terminationGracePeriodSeconds"] = rng.choice((5, 30))
    if maybe(0.3):
        pod["nodeSelector"] = {"kind": rng.choice("ab")}
    return pod


def comparable(answer: Any, versions: dict[str, int]) -> Any:
    """An answer without what may differ between servers; versions by the order of meeting."""
    if isinstance(answer, dict):
        found = {}
        for name, value in sorted(answer.items()):
            if name in VARYING:
                continue
            if name == "resourceVersion" and isinstance(value, str):
                found[name] = versions.setdefault(value, len(versions))
            elif name == "managedFields":
                mine = [each for each in value if each["manager"] not in CONTROLLERS]
                found[name] = sorted((comparable(each, versions) for each in mine), key=json.dumps)
            elif name == "causes":  # the server has no order for its managers
                found[name] = sorted(value, key=json.dumps)
            else:
                found[name] = comparable(value, versions)
        return found
    if isinstance(answer, list):
        return [comparable(each, versions) for each in answer]
    return answer
