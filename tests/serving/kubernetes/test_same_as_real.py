"""The stand-in beside a real API server: the same random writes, the same answers."""

from __future__ import annotations

import json
import os
import re
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from random_writes import Write, comparable, writes
from seeds import seeds

pytest.importorskip("kubernetes")

from kubernetes import client as kubernetes
from kubernetes import config
from standin_cluster.api_server import ApiServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

WRITES = 60


@pytest.fixture(scope="module")
def real() -> Iterator[Any]:
    """A client of the cluster that ``KUBECONFIG`` names."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("no KUBECONFIG")
    client = config.new_client_from_config(os.environ["KUBECONFIG"])
    yield client
    client.close()


def answer(client: Any, write: Write) -> tuple[int, Any]:
    """What a server says to a write: code, and what of the answer is the same on both."""
    path = write.path
    if write.query:
        path += "?" + urllib.parse.urlencode(write.query)
    headers = {"Content-Type": write.content_type, "Accept": "application/json"}
    for each in client.configuration.auth_settings().values():
        headers[each["key"]] = each["value"]
    response = client.rest_client.pool_manager.request(
        write.method,
        client.configuration.host + path,
        body=None if write.body is None else json.dumps(write.body),
        headers=headers,
        retries=False,
    )
    return response.status, _looked_at(json.loads(response.data))


def _looked_at(body: Any) -> Any:
    """Fields, labels and who owns what, or what is wrong; versions and controllers' part are not.

    A refused apply lists its conflicts in no order of managers.
    """
    if body.get("kind") == "Status":
        found = comparable(body, {})
        found["message"] = sorted(re.split(r"\n|: (?=conflict)", str(body.get("message", ""))))
        return found
    metadata = {name: body["metadata"].get(name) for name in ("name", "labels", "managedFields")}
    own = {name: body.get(name) for name in ("kind", "spec", "data")}
    return comparable(
        {"metadata": {**metadata, "managedFields": metadata["managedFields"] or []}} | own, {}
    )


def test_random_writes_are_answered_as_by_a_real_server(real: Any) -> None:
    """Creates, applies with and without force, patches of all kinds, scales, deletes, dry runs.

    Codes, messages, spec, data, labels and managed fields are compared; versions and generations
    are not. A sequence ends with the first write that is answered otherwise.
    """
    different = [
        (seed, write) for seed in seeds(20) for same, write in _compared(real, seed) if not same
    ]
    assert not different


def _compared(real: Any, seed: int) -> Iterator[tuple[bool, Write]]:
    """Whether both servers said the same to each write, until they did not."""
    namespace = f"ipa-energy-{uuid.uuid4().hex[:8]}"
    path, body = "/api/v1/namespaces", {"metadata": {"name": namespace}}
    made = Write("POST", path, {}, "application/json", body)
    gone = Write("DELETE", f"{path}/{namespace}", {}, "application/json", None)
    with ApiServer() as server:
        client = kubernetes.ApiClient(kubernetes.Configuration(host=server.url))
        for each in (client, real):
            assert answer(each, made)[0] == 201
        try:
            for write in writes(namespace, seed, WRITES):
                same = answer(client, write) == answer(real, write)
                yield same, write
                if not same:
                    return
        finally:
            answer(real, gone)
            client.close()
