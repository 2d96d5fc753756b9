"""The sums of a Deployment's controller: how many replicas of what, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

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
    said = (
        condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            ("Update",),
        )
        if is_enough
        else condition(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            ("Update",),
        )
    )
    held = {**deployment, "status": before}
    held = {**held, "status": {**before, "conditions": with_condition(held, said)}}
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
