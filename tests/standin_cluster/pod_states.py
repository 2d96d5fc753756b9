"""What pods say of themselves, and what is said of them: conditions, resources, endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from .api_decoding import quantity
from .api_store import Object
from .api_write_rules import stamp
from .rollout import condition, with_condition


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
        with_status(
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
    return with_status(pod, containerStatuses=statuses) if statuses else pod


def with_status(pod: Object, **more: Any) -> Object:
    """A pod that says this as well."""
    return {**pod, "status": {**pod["status"], **more}}


def _requests(pod: Object) -> dict[str, Decimal]:
    asked: dict[str, Decimal] = {"pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        for name, amount in container["resources"].get("requests", {}).items():
            asked[name] = asked.get(name, Decimal()) + quantity(amount)
    return asked


def lacking(room: Mapping[str, Decimal], pod: Object) -> str:
    """The first resource of which there is no room for a pod; "" if it fits."""
    return next((name for name, n in _requests(pod).items() if n > room.get(name, Decimal())), "")


def take(room: dict[str, Decimal], pod: Object) -> None:
    """Take what a pod requests out of a node's room."""
    for name, amount in _requests(pod).items() if room else ():
        room[name] = room.get(name, Decimal()) - amount


def endpoint(pod: Object) -> Object:
    """A pod in its service's EndpointSlice."""
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


def endpoint_ports(spec: Object, pods: Sequence[Object]) -> list[Object]:
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
