"""Pods of the stand-in cluster as processes of this machine."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("kubernetes")

from kubernetes import client as kubernetes
from standin_cluster.api_server import ApiServer
from standin_cluster.node_agent import NodeAgent, as_command
from standin_cluster.world import World

pytestmark = pytest.mark.measures

WAIT_S = 90.0
NAMESPACE = "default"
APPLY = "application/apply-patch+yaml"

Manifest = dict[str, Any]


def deployment(replicas: int, greeting: str = "hello") -> Manifest:
    """Servers of a folder with one file, from a config map."""
    container = {
        "name": "web",
        "image": "example.invalid/web:1",
        "command": ["python", "-m", "http.server", "8080", "--bind", "0.0.0.0"],
        "args": ["--directory", "/srv"],
        "env": [{"name": "GREETING", "value": greeting}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/greeting", "port": "http"}},
        "volumeMounts": [{"name": "files", "mountPath": "/srv"}],
    }
    pod = {
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
        "volumes": [{"name": "files", "configMap": {"name": "files"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "100%"}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod},
        },
    }


@pytest.fixture
def cluster() -> Iterator[tuple[Any, NodeAgent]]:
    """A client of a cluster with one node that starts processes, and the node."""
    with ExitStack() as stack:
        server = stack.enter_context(ApiServer())
        client = kubernetes.ApiClient(kubernetes.Configuration(host=server.url))
        stack.enter_context(World(server, nodes={}, starts_pods=False))
        core = kubernetes.CoreV1Api(client)
        core.create_namespaced_config_map(
            NAMESPACE, {"metadata": {"name": "files"}, "data": {"greeting": "good day"}}
        )
        ports = [{"name": "http", "port": 80, "targetPort": "http"}]
        service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}}
        service["spec"]["ports"] = ports  # type: ignore[assignment]
        core.create_namespaced_service(NAMESPACE, service)
        yield client, stack.enter_context(NodeAgent(client, "n1", as_command))
        client.close()


def until(condition: Callable[[], Any]) -> Any:
    """Wait until it is true, and hand it over."""
    end_s = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.02)
    return found


def endpoints(client: Any, *, ready: bool = True) -> list[str]:
    """Addresses of the service's pods."""
    slices = kubernetes.DiscoveryV1Api(client).list_namespaced_endpoint_slice(NAMESPACE).items
    return [
        f"{each.addresses[0]}:{one.ports[0].port}"
        for one in slices
        for each in one.endpoints or ()
        if each.conditions.ready == ready
    ]


def read(address: str) -> str:
    """What a pod serves."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/greeting")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def is_serving(address: str) -> bool:
    """Whether a pod serves now."""
    try:
        return read(address) == "good day"
    except OSError:
        return False


def apply(client: Any, replicas: int, greeting: str = "hello") -> None:
    """Server-side apply of the deployment."""
    kubernetes.AppsV1Api(client).patch_namespaced_deployment(
        "web", NAMESPACE, deployment(replicas, greeting), field_manager="a", _content_type=APPLY
    )


def test_pods_are_processes_at_addresses_of_their_own(cluster: tuple[Any, NodeAgent]) -> None:
    """Made ready, found by the slice, replaced by a rollout, started again, and ended."""
    client, node = cluster
    apply(client, 2)
    addresses = until(lambda: len(found := endpoints(client)) == 2 and found)
    assert len(set(addresses)) == 2
    assert {read(each) for each in addresses} == {"good day"}

    victim = next(iter(node.pods.values()))[0]
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: victim.poll() is not None)
    until(lambda: all(is_serving(each) for each in addresses))

    apply(client, 1, "another")
    until(lambda: len(node.pods) == 1 and set(endpoints(client)).isdisjoint(addresses))
    left = next(iter(node.pods.values()))[0]
    kubernetes.AppsV1Api(client).delete_namespaced_deployment("web", NAMESPACE)
    until(lambda: not node.pods)
    assert left.poll() is not None
