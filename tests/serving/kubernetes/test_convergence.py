"""Whatever plans come and whatever goes wrong: the cluster becomes what the last plan says."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_plans import mix, stage
from seeds import LONG_RUN, seeds

pytest.importorskip("kubernetes")

from clusters import TIMEOUT_S, Cluster, assert_is, real, settle, stand_in, step

from ipa_energy.serving.deployment import DeployedStage, Deployment
from ipa_energy.serving.kubernetes.changes import look
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi
from ipa_energy.serving.kubernetes.manifests import SERVER
from ipa_energy.serving.kubernetes.reconciler import Reconciler

VARIANTS = {"crop": ("yolov5n", "yolov5s"), "classification": ("resnet18", "resnet50")}
FAULTY = 0.1
MERGE = "application/merge-patch+json"
PLANS = 1000 if os.environ.get(LONG_RUN) else 100

Disturbance = Callable[[Cluster, random.Random], None]


def a_plan(rng: random.Random, *, mixes: bool = False) -> Deployment:
    """Both stages, at random; with ``mixes`` one or two options of each."""

    def one(name: str) -> DeployedStage:
        return stage(
            name,
            rng.choice(VARIANTS[name]),
            cores=rng.choice((0.5, 1, 2)),
            replicas=rng.randint(1, 3),
            batch=rng.choice((1, 4)),
        )

    def either(name: str) -> DeployedStage:
        first, second = one(name), one(name)
        is_same = first.option.label == second.option.label
        return first if is_same else mix((first, 0.6), (second, 0.4), name=name)

    return tuple(either(n) if mixes and rng.random() < 0.7 else one(n) for n in VARIANTS)


def _workload(cluster: Cluster, rng: random.Random) -> str:
    live = look(cluster.api, cluster.rendering)
    names = [name for kind, name in live.objects if kind == "Deployment"]
    return f"apps/deployments/{rng.choice(names)}" if names else ""


def scaled(cluster: Cluster, rng: random.Random) -> None:
    """Somebody changes a number of replicas."""
    if path := _workload(cluster, rng):
        cluster.request("PATCH", f"{path}/scale", {"spec": {"replicas": rng.randint(0, 4)}}, MERGE)


def another_image(cluster: Cluster, rng: random.Random) -> None:
    """Somebody changes a template."""
    if path := _workload(cluster, rng):
        pod = cluster.request("GET", path)["spec"]["template"]["spec"]
        pod["containers"][0]["image"] = "example.invalid/other:1"
        body = {"spec": {"template": {"spec": {"containers": pod["containers"]}}}}
        cluster.request("PATCH", path, body, MERGE)


def deleted(cluster: Cluster, rng: random.Random) -> None:
    """Somebody deletes a Deployment."""
    if path := _workload(cluster, rng):
        cluster.request("DELETE", path)


def pod_deleted(cluster: Cluster, rng: random.Random) -> None:
    """A pod is evicted."""
    pods = look(cluster.api, cluster.rendering).pods
    if pods:
        name = rng.choice(pods)["metadata"]["name"]
        cluster.request("DELETE", f"core/pods/{name}?gracePeriodSeconds=0")


DISTURBANCES: tuple[Disturbance, ...] = (scaled, another_image, deleted, pod_deleted)


class KilledError(BaseException):
    """The adapter ends here."""


class MortalApi(ClusterApi):
    """Ends the adapter at one of its writes: before it is sent, or before its answer is read."""

    def __init__(self, other: ClusterApi, after: int, *, has_effect: bool) -> None:
        self.__dict__.update(other.__dict__)
        self._left, self._has_effect = after, has_effect

    def _sent(self, method: str, *args: Any, **more: Any) -> Any:
        self._left -= method != "GET"
        if self._left < 0 and method != "GET":
            if self._has_effect:
                super()._sent(method, *args, **more).read()
            raise KilledError
        return super()._sent(method, *args, **more)


def _converges(cluster: Cluster, seed: int, *, mixes: bool = False) -> None:
    """Plans, faults, disturbances and deaths, then one plan in peace."""
    rng = random.Random(seed)
    reconciler = cluster.reconciler()
    for _ in range(rng.randint(2, 5)):
        plan = a_plan(rng, mixes=mixes)
        if cluster.server is not None:
            cluster.server.faults.at_random(rng.choice((0.0, FAULTY, 0.3)), seed)
        for _ in range(rng.randint(1, 4)):
            step(reconciler, plan)
        if cluster.server is not None:
            cluster.server.faults.at_random(0.0, seed)
        if rng.random() < 0.5 and cluster.rendering.settings.rendering == "deployments":
            rng.choice(DISTURBANCES)(cluster, rng)
        if rng.random() < 0.3:
            reconciler = cluster.reconciler()
    settle(reconciler, plan)
    assert_is(cluster, plan)
    before = cluster.api.writes
    assert reconciler.step(plan) == 0
    assert cluster.api.writes == before


@pytest.mark.parametrize("kind", ["deployments", "seldon"])
@pytest.mark.parametrize("seed", seeds(4))
def test_any_plans_and_faults_converge(tmp_path: Path, seed: int, kind: str) -> None:
    """To what the last plan says; and then nothing is written."""
    with stand_in(tmp_path, kind=kind) as cluster:
        _converges(cluster, seed)


@pytest.mark.parametrize("kind", ["deployments", "seldon"])
@pytest.mark.parametrize("seed", seeds(3))
def test_any_mixes_and_faults_converge(tmp_path: Path, seed: int, kind: str) -> None:
    """The same with several options of a stage at once, in changing numbers."""
    with stand_in(tmp_path, kind=kind) as cluster:
        _converges(cluster, 100 + seed, mixes=True)


def _is_written(reconciler: Reconciler, plan: Deployment, stage: str) -> bool:
    """Whether a stage's template was what the plan says when it was last looked at."""
    found = reconciler.live.workload(stage)
    assert found is not None
    labels = found["spec"]["template"]["metadata"]["labels"]
    return (labels[SERVER],) == reconciler.servers_of(plan, stage)


def test_of_many_plans_with_faults_none_is_lost(tmp_path: Path) -> None:
    """One write in ten goes wrong; after each plan the objects are what it says."""
    rng = random.Random(5)
    with stand_in(tmp_path) as cluster:
        assert cluster.server is not None
        cluster.server.faults.at_random(FAULTY, seed=5)
        reconciler = cluster.reconciler()
        for _ in range(PLANS):
            plan = a_plan(rng)
            end_s = time.monotonic() + TIMEOUT_S
            while step(reconciler, plan):
                assert time.monotonic() < end_s
            assert all(_is_written(reconciler, plan, one.stage) for one in plan)
        settle(reconciler, plan)
        happened = cluster.server.faults.happened
        cluster.server.faults.at_random(0.0, seed=5)
        assert_is(cluster, plan)
    assert happened > PLANS / 20


@pytest.mark.parametrize("has_effect", [False, True])
def test_an_adapter_killed_at_any_write_leaves_nothing_to_mend(
    tmp_path: Path, *, has_effect: bool
) -> None:
    """Killed before or after each of its writes, and another takes over."""
    rng = random.Random(7)
    with stand_in(tmp_path) as cluster:
        deaths, after = 0, 0
        while after < 6:
            plan = a_plan(rng)
            mortal = MortalApi(cluster.api, after, has_effect=has_effect)
            first = type(cluster.reconciler())(mortal, cluster.rendering)
            try:
                settle(first, plan)
            except KilledError:
                deaths += 1
            settle(cluster.reconciler(), plan)
            assert_is(cluster, plan)
            after += 1
    assert deaths >= 3


def test_a_minute_without_a_server_is_made_up_for(tmp_path: Path) -> None:
    """While it answers 503 nothing is written; with its first answer the plan comes to be."""
    rng = random.Random(11)
    with stand_in(tmp_path) as cluster:
        assert cluster.server is not None
        reconciler = cluster.reconciler()
        settle(reconciler, a_plan(rng))
        before, plan = cluster.api.writes, a_plan(rng)
        cluster.server.faults.outage(60.0)
        assert step(reconciler, plan)
        assert cluster.api.writes == before
        cluster.server.faults.outage(0.0)
        settle(reconciler, plan)
        assert_is(cluster, plan)


@pytest.fixture
def real_cluster() -> Iterator[Cluster]:
    """Skips without one."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("no KUBECONFIG")
    with real() as cluster:
        yield cluster


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", seeds(2))
def test_any_plans_converge_on_a_real_cluster(real_cluster: Cluster, seed: int) -> None:
    """The same as above, with disturbances and without faults."""
    _converges(real_cluster, seed)
