"""A cluster for a test: the stand-in, or the one that ``KUBECONFIG`` names."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from cluster_plans import rendering
from kubernetes import client as kubernetes
from kubernetes import config
from standin_cluster.api_server import ApiServer
from standin_cluster.node_agent import NodeAgent
from standin_cluster.seldon import DEFINITION
from standin_cluster.world import World

from ipa_energy.errors import TryAgainError
from ipa_energy.serving.deployment import Deployment
from ipa_energy.serving.kubernetes.changes import diff, look, quantity, slots_of
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi
from ipa_energy.serving.kubernetes.manifests import Rendering, desired
from ipa_energy.serving.kubernetes.reconciler import Reconciler

LONGEST_WAIT_S = 0.005
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Cluster:
    """Where a test works.

    Attributes:
        api: our door to it.
        rendering: how plans are rendered in its namespace.
        server: the stand-in, whose faults can be scripted; None: a real one.
    """

    api: ClusterApi
    rendering: Rendering
    server: ApiServer | None = None

    def reconciler(self) -> Reconciler:
        """One that knows nothing yet."""
        return Reconciler(self.api, self.rendering)

    def request(self, method: str, path: str, body: Any = None, kind: str = "") -> Any:
        """What somebody else does; ``path`` is below the namespace."""
        root, _, rest = path.partition("/")
        base = {"apps": "/apis/apps/v1", "core": "/api/v1"}[root]
        whole = f"{base}/namespaces/{self.rendering.namespace}/{rest}"
        query = {"fieldManager": "somebody"} if body is not None else {}
        return self.api._asked(method, whole, query, body, kind or "application/json")


def quickly(seconds: float) -> None:
    """Waits of the retry policy, cut short."""
    time.sleep(min(seconds, LONGEST_WAIT_S))


@contextmanager
def stand_in(folder: Path, *, kind: str = "deployments", **world: Any) -> Iterator[Cluster]:
    """The stand-in with its controllers."""
    with ApiServer() as server:
        path = server.kubeconfig(folder / "kubeconfig", namespace="lab")
        api = ClusterApi(path, sleep=quickly, seed=1)
        api._asked("POST", "/api/v1/namespaces", None, {"metadata": {"name": "lab"}})
        if kind == "seldon":
            path_to = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            api._asked("POST", path_to, None, DEFINITION)
        with World(server, **world):
            yield Cluster(api, rendering(rendering=kind), server)
        api.close()


@contextmanager
def real() -> Iterator[Cluster]:
    """The cluster of ``KUBECONFIG``: a namespace of our own, and a node that only says it works."""
    name = f"ipa-energy-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        client = config.new_client_from_config(os.environ["KUBECONFIG"])
        core = kubernetes.CoreV1Api(client)
        core.create_namespace({"metadata": {"name": name}})
        stack.callback(core.delete_namespace, name)
        stack.callback(core.delete_node, name)
        stack.enter_context(NodeAgent(client, name))
        api = ClusterApi(Path(os.environ["KUBECONFIG"]), seed=1)
        selector = {"ipa-energy/node": name}
        ours = replace(rendering(node_selector=selector), namespace=name)
        yield Cluster(api, ours)
        api.close()


def step(reconciler: Reconciler, plan: Deployment) -> int:
    """One round; what is to be tried again is left for the next."""
    try:
        return reconciler.step(plan)
    except TryAgainError:
        return 1


def settle(reconciler: Reconciler, plan: Deployment) -> None:
    """Rounds until nothing is written and everything serves."""
    end_s = time.monotonic() + TIMEOUT_S
    while step(reconciler, plan) or (unsettled := reconciler.unsettled(plan)):
        assert time.monotonic() < end_s, f"{unsettled} {missing(reconciler, plan)}"
        time.sleep(0.01)


def missing(reconciler: Reconciler, plan: Deployment) -> Sequence[str]:
    """What would be written now."""
    actions, _ = reconciler.differences(plan)
    return [action.told for action in actions]


def assert_is(cluster: Cluster, plan: Deployment) -> None:
    """The cluster is what the plan says, by a look of its own."""
    fresh = cluster.reconciler()
    assert not missing(fresh, plan)
    live = look(cluster.api, cluster.rendering)
    wanted = desired(plan, cluster.rendering, fresh.kept, slots_of(live, plan))
    assert not diff(live, wanted, plan, fresh.kept)
    for stage in plan:
        pods = live.pods_of(stage.stage)
        assert len(pods) == stage.replicas
        held = Counter(
            (
                _model(pod),
                quantity(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"]),
            )
            for pod in pods
        )
        assert held == sum(
            (
                Counter({(lane.option.variant, Decimal(str(lane.option.cpu_cores))): lane.replicas})
                for lane in stage.lanes
            ),
            Counter(),
        )


def _model(pod: Any) -> str:
    """The variant that a pod runs."""
    variables = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}
    return str(variables["MLSERVER_MODEL_NAME"])


@contextmanager
def local_tests() -> Iterator[None]:
    """What the tests of runs on one machine share can be imported inside."""
    folder = str(Path(__file__).parents[1] / "local")
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
