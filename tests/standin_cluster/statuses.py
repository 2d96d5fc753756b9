"""What Deployments and pods say of themselves, and the sums of a Deployment's controller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from .api_decoding import quantity
from .api_store import Object
from .api_write_rules import stamp


def _share(value: Any, whole: int, rounded: Any) -> int:
    """A number, or a percentage of ``whole``."""
    if isinstance(value, str) and value.endswith("%"):
        return int(rounded(int(value[:-1]) * whole / 100))
    return int(value)


def bounds(deployment: Object) -> tuple[int, int]:
    """Pods that a rollout may have beyond those wanted, and that it may lack."""
    spec = deployment["spec"]
    rolling = spec["strategy"].get("rollingUpdate", {})
    surge = _share(rolling.get("maxSurge", 0), spec["replicas"], math.ceil)
    lack = _share(rolling.get("maxUnavailable", 0), spec["replicas"], math.floor)
    return surge, lack if surge or lack else 1


def replica_counts(deployment: Object, new: Object, old: Sequence[Object]) -> list[int]:
    """What each ReplicaSet is to have next, the new one first.

    A change of the count alone is passed on first: to the new ReplicaSet if it has replicas,
    else to the old one that has, as a real controller does even when the template changed too.
    """
    wanted = deployment["spec"]["replicas"]
    has = [each["spec"]["replicas"] for each in (new, *old)]
    if deployment["spec"]["strategy"]["type"] == "Recreate":
        is_free = not any(has[1:]) and not any(each["status"].get("replicas") for each in old)
        return [wanted if is_free else 0, *(0 for _ in old)]
    observed = deployment.get("status", {}).get("observedGeneration", 0)
    active = [n for n, count in enumerate(has) if count]
    is_new_count = observed < deployment["metadata"]["generation"]
    if is_new_count and len(active) == 1 and has[active[0]] != wanted:
        has[active[0]] = wanted
        return has
    surge, lack = bounds(deployment)
    if has[0] > wanted:
        has[0] = wanted
    else:
        has[0] += max(0, min(wanted + surge - sum(has), wanted - has[0]))
    available = [each["status"].get("availableReplicas", 0) for each in (new, *old)]
    spare = sum(has) - (wanted - lack) - (has[0] - min(available[0], has[0]))
    for n in range(1, len(has)):  # first those that do not serve
        gone = max(0, min(spare, has[n] - available[n]))
        has[n] -= gone
        spare -= gone
    spare = min(
        spare, sum(min(a, h) for a, h in zip(available, has, strict=True)) - (wanted - lack)
    )
    for n in range(1, len(has)):
        gone = max(0, min(spare, has[n]))
        has[n] -= gone
        spare -= gone
    return has


def deployment_status(
    deployment: Object, new: Object, mine: Sequence[Object], *, is_created: bool
) -> Object:
    """What a Deployment says of itself; counts of 0 are left out, as the server does."""
    wanted, before = deployment["spec"]["replicas"], deployment.get("status", {})

    def total(name: str) -> int:
        return sum(int(each["status"].get(name, 0)) for each in mine)

    available = total("availableReplicas")
    updated = int(new["status"].get("replicas", 0))
    counts = {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": total("replicas"),
        "updatedReplicas": updated,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(each["spec"]["replicas"] for each in mine) - available),
    }
    status: Object = {name: n for name, n in counts.items() if n}
    status["terminatingReplicas"] = total("terminatingReplicas")
    is_enough = available >= wanted - bounds(deployment)[1] or (
        bounds(deployment)[1] == 0 and available >= wanted
    )
    word, verb = ("Available", "has") if is_enough else ("Unavailable", "does not have")
    reason, text = f"MinimumReplicas{word}", f"Deployment {verb} minimum availability."
    said = condition("Available", str(is_enough), reason, text, ("Update",))
    held = {"status": {**before, "conditions": with_condition({"status": before}, said)}}
    is_done = updated == total("replicas") == available == wanted
    status["conditions"] = with_condition(
        held, _progress(deployment, new, before, counts, is_created=is_created, is_done=is_done)
    )
    return status


def _progress(
    deployment: Object,
    new: Object,
    before: Object,
    counts: Object,
    *,
    is_created: bool,
    is_done: bool,
) -> Object:
    """The condition ``Progressing``."""
    name = new["metadata"]["name"]
    last = next(
        (each for each in before.get("conditions", ()) if each["type"] == "Progressing"), None
    )
    if is_done:
        text = f'ReplicaSet "{name}" has successfully progressed.'
        return condition("Progressing", "True", "NewReplicaSetAvailable", text, ("Update",))
    if is_created:
        text = f'Created new replica set "{name}"'
        return condition("Progressing", "True", "NewReplicaSetCreated", text, ("Update",))
    moved = any(
        before.get(key, 0) != counts[key]
        for key in ("observedGeneration", "updatedReplicas", "availableReplicas", "replicas")
    )
    if last is None or moved:
        text = f'ReplicaSet "{name}" is progressing.'
        return condition("Progressing", "True", "ReplicaSetUpdated", text, ("Update",))
    then = datetime.fromisoformat(last["lastUpdateTime"])
    waited_s = (datetime.now(UTC) - then).total_seconds()
    if waited_s > deployment["spec"]["progressDeadlineSeconds"] and last["status"] == "True":
        text = f'ReplicaSet "{name}" has timed out progressing.'
        return condition("Progressing", "False", "ProgressDeadlineExceeded", text, ("Update",))
    return dict(last)


def condition(
    kind: str, status: str, reason: str, message: str, times: Sequence[str] = ("Heartbeat",)
) -> Object:
    """One condition, as of now.

    Args:
        kind: its field ``type``.
        status: True, False or Unknown, as text.
        reason: one word; "": none.
        message: for people; "": none.
        times: which times it has beside ``lastTransitionTime``; a probe's is null.
    """
    now = stamp(datetime.now(UTC))
    made: Object = {"type": kind, "status": status}
    for each in times:
        made[f"last{each}Time"] = None if each == "Probe" else now
    made["lastTransitionTime"] = now
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    return made


def with_condition(each: Object, new: Object) -> list[Object]:
    """An object's conditions with one replaced; one that did not change keeps its times."""
    conditions = list(each["status"].get("conditions") or ())
    for n, old in enumerate(conditions):
        if old["type"] != new["type"]:
            continue
        if all(old.get(name) == new.get(name) for name in ("status", "reason", "message")):
            return conditions
        if old["status"] == new["status"]:
            new = {**new, "lastTransitionTime": old["lastTransitionTime"]}
        return [*conditions[:n], *conditions[n + 1 :], new]
    return [*conditions, new]


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
