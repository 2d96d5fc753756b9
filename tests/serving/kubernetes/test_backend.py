"""What the backend does beside its reconciler: taking over, the dry run, what it says."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace

import pytest

pytest.importorskip("kubernetes")
pytest.importorskip("grpc")

from clusters import local_tests

from ipa_energy.cli import main
from ipa_energy.errors import GiveUpError, TryAgainError
from ipa_energy.experiment import load_experiment, setting_of
from ipa_energy.serving.base import LiveOptions
from ipa_energy.serving.kubernetes import backend as tested
from ipa_energy.serving.kubernetes.cluster_api import RefusedError
from ipa_energy.serving.kubernetes.reconciler import Reconciler
from ipa_energy.serving.local.backend import RunClock
from ipa_energy.serving.local.plane import Standing
from ipa_energy.serving.local.replica_set import Wanted
from ipa_energy.serving.local.served_models import STUB_PAYLOAD, ServedModels
from ipa_energy.testing.cluster.api_server import ApiServer
from ipa_energy.testing.cluster.faults import Fault
from ipa_energy.testing.cluster.world import World

with local_tests():
    from live_runs import until, write_pipeline

MERGE = "application/merge-patch+json"


class Router:
    """A router that serves a plan already."""

    serves: tuple[tuple[Wanted, ...], ...] = ()

    def __init__(self, *_):
        self.is_busy, self.clock_ahead_s = True, 0.0
        self.standing = Standing("127.0.0.1:1", 1, 0.0)
        self.told = threading.Event()

    def adopt(self, _):
        """Nothing to do."""

    def wanted(self):
        """What it was told before."""
        return self.serves

    def want(self, wanted):
        """Remember that it was told again."""
        assert [one.replicas for (one,) in wanted] == [one.replicas for (one,) in self.serves]
        self.told.set()

    def close(self):
        """Nothing to close."""


@pytest.fixture
def cluster(tmp_path):
    with ApiServer() as server, World(server):
        yield server, server.kubeconfig(tmp_path / "kubeconfig")


def _setting(tmp_path, kubeconfig):
    experiment = load_experiment(write_pipeline(tmp_path / "small", [4] * 6, interval_s=2))
    live = LiveOptions(kubeconfig=kubeconfig)
    return replace(setting_of(experiment, None, 0.0, live), folder=tmp_path)


def _backend(setting):
    api = tested.connected(setting)
    rendering, _ = tested.rendered(setting, api.namespace, is_stub=True)
    models = ServedModels("kubernetes-stub", {}, (STUB_PAYLOAD,))
    clock = RunClock(setting.resumed_at_s)
    reconciler = Reconciler(api, rendering)
    return tested.KubernetesBackend(setting, models, clock, reconciler, rendering), api


@pytest.fixture
def taken_over(tmp_path, cluster, monkeypatch):
    """A backend whose router served two replicas a stage, of which somebody made five of one."""
    server, kubeconfig = cluster
    setting = _setting(tmp_path, kubeconfig)
    api = tested.connected(setting)
    rendering, _ = tested.rendered(setting, "default", is_stub=True)
    first = Reconciler(api, rendering)
    plan = tuple(replace(stage, replicas=2) for stage in setting.start)
    until(lambda: not first.step(plan) and not first.unsettled(plan) and first.router_address())
    path = f"/apis/apps/v1/namespaces/default/deployments/{rendering.pipeline}-{plan[0].stage}-0"
    body = {"spec": {"replicas": 5}}
    api._asked("PATCH", f"{path}/scale", {"fieldManager": "somebody"}, body, MERGE)
    Router.serves = tuple(
        (Wanted(stage.option, stage.replicas, server=first.servers_of(plan, stage.stage)[0]),)
        for stage in plan
    )
    monkeypatch.setattr(tested, "RemotePlane", Router)
    backend, its_api = _backend(replace(setting, resumed_at_s=10.0))
    its_api._sleep = lambda _: None
    yield server, backend, plan, lambda: api.get(path)["spec"]["replicas"]
    backend.close()


def test_what_changed_while_nobody_decided_is_put_right_before_the_next_plan(taken_over):
    """A router is taken over with the plan that it serves, and the cluster is kept at it."""
    _, backend, plan, replicas = taken_over
    assert backend.is_taken_over
    until(lambda: replicas() == 2)
    held = backend._held[plan[0].stage]
    until(lambda: len(held.pods) >= 2 and sum(held.core_s.values()) > 0)


def test_after_a_plan_that_could_not_be_written_the_one_before_is_wanted(taken_over):
    server, backend, plan, replicas = taken_over
    until(lambda: replicas() == 2)
    more = tuple(replace(stage, replicas=3) for stage in plan)
    for fault in (Fault(code=503), Fault(drop="before")):
        server.faults.next(fault, 10)
        with pytest.raises(TryAgainError):
            backend.deploy(more)
        server.faults.clear()
        asked = len(server.log)
        until(lambda n=asked: sum(path.endswith("/pods") for _, path, _ in server.log[n:]) >= 3)
        assert replicas() == 2


def test_a_dry_run_of_what_is_there_already_finds_no_difference(tmp_path, cluster):
    """Each run has a token of its own, which is no difference of the configuration."""
    server, kubeconfig = cluster
    setting = _setting(tmp_path, kubeconfig)
    api = tested.connected(setting)
    rendering, _ = tested.rendered(setting, "default", is_stub=True)
    reconciler = Reconciler(api, rendering)
    until(lambda: not reconciler.step(setting.start))
    before = len(server.written())
    told = tested.dry_run(setting, is_stub=True)
    assert told.startswith("# nothing differs\n")
    assert len(server.written()) == before


def test_a_dry_run_without_a_cluster_says_so_and_prints_the_objects(tmp_path, cluster):
    _, kubeconfig = cluster
    text = kubeconfig.read_text()
    kubeconfig.write_text(text.replace(text.split("server: ")[1].split()[0], "http://127.0.0.1:1"))
    setting = _setting(tmp_path, kubeconfig)
    told = tested.dry_run(setting, is_stub=True)
    assert told.startswith("# the cluster was not asked: the cluster cannot be reached")
    assert told.count("kind: Deployment") == 1 + len(setting.start)


def test_a_refusal_is_told_in_the_clusters_words(tmp_path, cluster):
    _, kubeconfig = cluster
    setting = _setting(tmp_path, kubeconfig)
    api = tested.connected(setting)
    with pytest.raises(RefusedError, match='services "none" not found') as caught:
        api.get("/api/v1/namespaces/default/services/none")
    assert caught.value.status == 404 and caught.value.reason == "NotFound"
    rendering, _ = tested.rendered(setting, "nowhere", is_stub=True)
    with pytest.raises(GiveUpError, match='namespaces "nowhere" not found'):
        Reconciler(api, rendering).step(setting.start)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--namespace", "No Such"], "'No Such'; allowed: a name of lower-case letters"),
        (["--kubeconfig", "none-there"], "none-there: there is no such file"),
    ],
)
def test_a_wrong_option_is_told(words, told, capsys):
    with pytest.raises(SystemExit) if "--namespace" in words else nullcontext():
        assert main(["doctor", *words]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
