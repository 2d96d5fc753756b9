"""The stand-in API server answers as a real one did: each recorded exchange is sent to it again."""

from __future__ import annotations

import base64
import json
import time
from contextlib import ExitStack
from typing import Any

import pytest
from transcript import Answer, Bindings, exchanges, sent

pytest.importorskip("kubernetes")

from ipa_energy.testing.cluster.api_server import ApiServer
from ipa_energy.testing.cluster.world import World

NOT_REPLAYED = {
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
    148: ("message",),  # the server's has the whole object in it
    200: ("",),  # the server sends two bookmarks of one version, with an empty spec
    271: ("versions",),  # schemas are left out of the recording
    272: ("versions",),
    314: ("message",),  # the server's goes on with the lines that differ
    338: ("message",),
    336: ("f:image",),  # the server lets a resize own the image that it did not take
    352: ("generation", "observedGeneration", *ON_THE_WAY),
    357: ("generation",),
    359: ("generation",),
    369: ("generation", "observedGeneration", *ON_THE_WAY),
}
"""Exchange → parts of the paths at which the answer may differ."""

HIDDEN = {
    212: [("POST", "/api/v1/namespaces/golden/configmaps", {"metadata": {"name": "c"}})],
    219: [
        (
            "PATCH",
            "/apis/apps/v1/namespaces/golden/deployments/w1",
            {"metadata": {"annotations": {"i": str(n)}}},
        )
        for n in range(3)
    ],
    341: [
        ("DELETE", f"/apis/apps/v1/namespaces/golden/deployments/{name}", None)
        for name in ("a-first", "crop", "new", "ssa", "w2")
    ]
    + [("DELETE", "/api/v1/namespaces/golden/pods/rz?gracePeriodSeconds=0", None)],
    228: [("POST", "/api/v1/namespaces/golden/configmaps", {"metadata": {"name": "d"}})],
}
"""Writes that were made before an exchange and are not in the recording."""

CONTENT = {"POST": "application/json", "PATCH": "application/merge-patch+json"}
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
                hidden = {"query": {}, "content_type": CONTENT.get(method), "as": "admin"}
                sent(port, {"method": method, "path": path, "body": body, **hidden}, bindings)
            if exchange["method"] is None and "restarted" in exchange["step"]:
                server.store.forget()
            if exchange["method"] is None or number in NOT_REPLAYED:
                continue
            if "$continue4" in str(exchange["query"]):
                bindings.values["$continue4"] = _from_version_2(bindings.values["$continue1"])
            if number >= CONTROLLED and not world.is_closing.is_set():
                _settle(server, world)
            if "watch" in exchange["query"]:
                exchange["query"]["timeoutSeconds"] = str(WATCH_S)
            answer = sent(port, exchange, bindings)
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


def _from_version_2(token: str) -> str:
    """A token of ours, from another version, as the recording's script made one."""
    _, after = json.loads(base64.urlsafe_b64decode(token))
    return base64.urlsafe_b64encode(json.dumps([2, after]).encode()).decode()


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
