"""The stand-in API server answers as a real one did: each recorded exchange is sent to it again."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from transcript import Answer, Bindings, exchanges, sent

pytest.importorskip("kubernetes")

from standin_cluster.api_server import ApiServer
from standin_cluster.world import World

ELSEWHERE = {
    "pages, and lists of the past": (*range(210, 213), *range(214, 219), *range(224, 228)),
    "the same after a restart": (*range(233, 238),),
    "another representation, and a watch that begins with a list": (36, 203),
    "JSON patches": (*range(124, 130), 169, 284, 285, 332, 335),
    "YAML": (70, 71, 72, 112, 113),
    "unknown fields refused, or passed over without a word": (143, *range(145, 149), 289),
    "deletes in the foreground, and of collections": (*range(60, 67),),
    "roles: here a user may do everything or nothing": (*range(244, 249), 266, 268, 269),
}
"""What nobody here asks a server for, so that the stand-in lacks it → exchanges."""

NOT_REPLAYED = {each: why for why, numbers in ELSEWHERE.items() for each in numbers} | {
    202: "that storage could not do what was asked; a current cluster and the stand-in can",
    319: "one pod's status, under a name that nothing else in the recording has",
    348: "which pods there are on the way: a matter of timing",
    349: "which ReplicaSets there are on the way: a matter of timing",
    372: "pods just after their deletion: a matter of timing",
}
"""Exchange → why it is not sent again. Lines without a method are no exchanges."""

CONTROLLED = 341
"""From this exchange on controllers are at work, and answers are cut to what a client reads."""

ON_THE_WAY = (
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deployment.kubernetes.io/revision-history",
)
"""What a real controller notes in its ReplicaSets; ours need no notes."""

LOOSE = {
    1: ("gitVersion", "platform"),  # the recording leaves the build's stamp out
    2: ("serverAddress",),  # another address
    3: ("groups",),  # trimmed in the recording; looked at by test_discovery
    5: ("resources",),
    6: ("resources",),
    263: ("resources",),
    264: ("gitVersion", "platform"),
    103: ("causes",),  # one cause, which the server says twice
    200: ("",),  # the server sends two bookmarks of one version, with an empty spec
    271: ("versions",),  # schemas are left out of the recording
    272: ("versions",),
    286: ("message",),  # the server takes JSON patches as well
    314: ("message",),  # the server's goes on with the lines that differ
    338: ("message",),
    336: ("f:image",),  # the server lets a resize own the image that it did not take
    352: ("generation", "observedGeneration", *ON_THE_WAY),
    357: ("generation",),
    359: ("generation",),
    369: ("generation", "observedGeneration", *ON_THE_WAY),
}
"""Exchange → parts of the paths at which the answer may differ."""

DEPLOYMENTS = "/apis/apps/v1/namespaces/golden/deployments"
ENVIRONMENT = [{"name": "A"}, {"name": "Z", "value": "z"}]
THREE = {"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}
YOLO = "/apis/machinelearning.seldon.io/v1/namespaces/golden/seldondeployments/yolo"
REQUESTED = {"cpu": "1", "memory": "1Gi"}
LARGE = {
    "name": "yolo",
    "graph": {"children": [], "name": "yolo", "type": "MODEL"},
    "componentSpecs": [
        {
            "replicas": 3,
            "spec": {
                "containers": [
                    {
                        "name": "yolo",
                        "image": "example.invalid/x:1",
                        "env": [
                            {"name": "MODEL_VARIANT", "value": "large"},
                            {"name": "MLSERVER_MODEL_MAX_BATCH_SIZE", "value": "1"},
                        ],
                        "resources": {"limits": REQUESTED, "requests": REQUESTED},
                    }
                ],
                "terminationGracePeriodSeconds": 30,
            },
        }
    ],
}

HIDDEN = {
    67: [("DELETE", f"{DEPLOYMENTS}/{name}", None) for name in ("cls", "gen-$gen1")],
    130: [
        ("PATCH", f"{DEPLOYMENTS}/crop", {"spec": {"replicas": 5}}),
        (
            "PATCH",
            f"{DEPLOYMENTS}/crop",
            {
                "metadata": {"labels": {"managed-by": None}},
                "spec": {
                    "template": {"spec": {"containers": [{"name": "model", "env": ENVIRONMENT}]}}
                },
            },
        ),
    ],
    170: [("PATCH", f"{DEPLOYMENTS}/crop/scale", {"spec": {"replicas": 0}})],
    212: [("POST", "/api/v1/namespaces/golden/configmaps", {"metadata": {"name": "c"}})],
    219: [
        (
            "PATCH",
            f"{DEPLOYMENTS}/w1",
            {"metadata": {"annotations": {"i": str(n)}}},
        )
        for n in range(3)
    ],
    286: [("PATCH", f"{YOLO}?fieldManager=adapter", {"spec": {"predictors": [LARGE]}})],
    336: [
        (
            "PATCH",
            "/api/v1/namespaces/golden/pods/rz/resize",
            {"spec": {"containers": [{"name": "model", "resources": THREE}]}},
        )
    ],
    341: [
        ("DELETE", f"{DEPLOYMENTS}/{name}", None)
        for name in ("a-first", "crop", "new", "ssa", "w2")
    ]
    + [("DELETE", "/api/v1/namespaces/golden/pods/rz?gracePeriodSeconds=0", None)],
    228: [("POST", "/api/v1/namespaces/golden/configmaps", {"metadata": {"name": "d"}})],
}
"""Writes before an exchange that are not in the recording, or there in a form not served here."""

PARTIAL = "PartialObjectMetadataList"
CONTENT = {"POST": "application/json", "PATCH": "application/strategic-merge-patch+json"}
MERGE = "application/merge-patch+json"
WATCH_S = 0.1
SETTLED_S = 60.0
CLUSTER_IP = "10.96.7.7"
TOKENS = {"admin": "admin", "limited": "limited"}
NEVER = "example.invalid/never-ready:1"
DEADLINE = '"progressDeadlineSeconds": 5'


def _replayed() -> dict[int, list[str]]:
    """What differed, by exchange."""
    found: dict[int, list[str]] = {}
    bindings = Bindings({"$ip4": CLUSTER_IP})
    with ApiServer(TOKENS) as server, ExitStack() as stack:
        port = int(server.url.rsplit(":", 1)[1])
        for number, recorded in enumerate(exchanges(), 1):
            exchange = _as_cut(recorded) if number >= CONTROLLED else recorded
            if number == CONTROLLED:
                found[0] = bindings.disorder()
                world = stack.enter_context(_world(server))
            if "delete the namespace" in exchange["step"]:
                stack.close()  # so that it stays in the middle of it
            for method, path, body in HIDDEN.get(number, ()):
                content = MERGE if path.startswith(YOLO) else CONTENT.get(method)
                hidden = {"query": {}, "content_type": content, "as": "admin"}
                sent(port, {"method": method, "path": path, "body": body, **hidden}, bindings)
            if exchange["method"] is None and "restarted" in exchange["step"]:
                server.store.forget()
            if exchange["method"] is None or number in NOT_REPLAYED:
                continue
            if number >= CONTROLLED and not world.is_closing.is_set():
                _settle(server, world)
            if "watch" in exchange["query"]:
                exchange["query"]["timeoutSeconds"] = str(WATCH_S)
            answer = sent(port, exchange, bindings)
            if answer.status == 200 and PARTIAL in (exchange.get("accept") or ""):
                answer = replace(answer, body=_metadata_of(answer.body))
            if number >= CONTROLLED and isinstance(answer.body, list):
                exchange["response"] = exchange["response"][-1:]
                answer.body[:-1] = []
            loose = LOOSE.get(number, ())
            found[number] = _differences(
                exchange, answer, bindings, loose, is_part=number >= CONTROLLED
            )
    return found


def _world(server: ApiServer) -> World:
    """Controllers, and the node that the recording made."""

    def ready_after_s(pod: dict[str, Any]) -> float | None:
        return None if pod["spec"]["containers"][0]["image"] == NEVER else 0.01

    return World(server, nodes={}, ready_after_s=ready_after_s)


def _as_cut(exchange: dict[str, Any]) -> dict[str, Any]:
    """An exchange with controllers as we can have it: a short deadline, no marks of the cutter."""
    text = json.dumps(exchange).replace(DEADLINE, DEADLINE[:-1] + "1")
    cut: dict[str, Any] = json.loads(text)
    items = cut["response"].get("items", []) if isinstance(cut["response"], dict) else []
    for each in items:
        each.pop("kind", None)
        each.get("spec", {}).pop("image", None)
        if each.get("status", {}).get("podIP", "") is None:
            del each["status"]["podIP"]
    return cut


def _settle(server: ApiServer, world: World) -> None:
    """Wait until the controllers have nothing more to do; a deadline may still be to come."""
    deployments = server.resources["apps", "v1", "deployments"]

    def is_over() -> bool:
        return world.rested_at == server.store.version and not any(
            each["type"] == "Progressing" and each["reason"] == "ReplicaSetUpdated"
            for deployment in server.store.all(deployments)
            if deployment["spec"]["progressDeadlineSeconds"] == 1
            for each in deployment["status"].get("conditions", ())
        )

    end_s = time.monotonic() + SETTLED_S
    while not is_over():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def _metadata_of(full: dict[str, Any]) -> dict[str, Any]:
    """A list as the recording has it, which asked for metadata alone."""
    meta = {"apiVersion": "meta.k8s.io/v1"}
    items = [
        {"kind": "PartialObjectMetadata", **meta, "metadata": each["metadata"]}
        for each in full["items"]
    ]
    metadata = {name: value for name, value in full["metadata"].items() if value}
    return {"kind": PARTIAL, **meta, "metadata": metadata, "items": items or None}


def _differences(
    exchange: dict[str, Any],
    answer: Answer,
    bindings: Bindings,
    loose: tuple[str, ...],
    *,
    is_part: bool,
) -> list[str]:
    if answer.status != exchange["status"]:
        return [f"{answer.status} instead of {exchange['status']}: {str(answer.body)[:200]}"]
    found = [
        each
        for each in bindings.differences(exchange["response"], answer.body, is_part=is_part)
        if not any(name in each.partition(": ")[0] for name in loose)
    ]
    if sorted(answer.warnings) != sorted(exchange.get("warnings") or []):
        found.append(f"warnings: {answer.warnings}")
    for name, value in (exchange.get("headers") or {}).items():
        if answer.headers.get(name) != value:
            found.append(f"header {name}: {answer.headers.get(name)}")
    return found


def test_each_recorded_exchange_is_answered_as_it_was() -> None:
    """Status, shape, values, warnings and headers; versions in the same order."""
    found = _replayed()
    replayed = len(found) - 1
    assert {number: each for number, each in found.items() if each} == {}
    assert replayed == 373 - len(NOT_REPLAYED)


@pytest.mark.parametrize("number", [3, 5, 6])
def test_discovery_lists_what_was_recorded(number: int) -> None:
    """Of what the stand-in has, each entry is as recorded."""
    recorded = exchanges()[number - 1]
    with ApiServer() as server:
        answer = sent(int(server.url.rsplit(":", 1)[1]), recorded, Bindings())
    key = "groups" if number == 3 else "resources"
    there = {each["name"]: each for each in answer.body[key]}
    common = [each for each in recorded["response"][key] if each["name"] in there]
    assert [there[each["name"]] for each in common] == common
    missing = {each["name"] for each in recorded["response"][key]} - there.keys()
    assert missing <= {"endpoints", "pods/eviction"}


def test_a_recording_that_differs_is_noticed() -> None:
    """The comparison can fail: a value, a key, a list's length, a placeholder met again."""
    bindings = Bindings()
    assert not list(bindings.differences({"a": "$uid1"}, {"a": "0" * 8 + "-" + "0" * 27}))
    for expected, found in (
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {}),
        ({}, {"a": 1}),
        ([1], [1, 2]),
        ("$uid1", "1" * 36),
        ("x $rv1", "x one"),
    ):
        assert list(bindings.differences(expected, found))
    assert not list(bindings.differences({}, {"a": 1}, is_part=True))
    later = Bindings({"$rv1": "7", "$rv2": "6"})
    assert later.disorder()
