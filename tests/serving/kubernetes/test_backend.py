"""What the backend does beside its reconciler: taking over, the dry run, what it says."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest

pytest.importorskip("kubernetes")
pytest.importorskip("grpc")

from clusters import local_tests
from standin_cluster.api_server import ApiServer
from standin_cluster.faults import Fault
from standin_cluster.world import World

from ipa_energy.cli import main
from ipa_energy.config.sections import KubernetesConfig
from ipa_energy.errors import ConfigError, GiveUpError, TryAgainError
from ipa_energy.experiment import load_experiment, setting_of
from ipa_energy.records import EVERY_CLASS, Allocation, Part
from ipa_energy.serving.base import LiveOptions
from ipa_energy.serving.kubernetes import backend as tested
from ipa_energy.serving.kubernetes.cluster_api import RefusedError
from ipa_energy.serving.kubernetes.reconciler import Reconciler
from ipa_energy.serving.local.backend import RunClock
from ipa_energy.serving.local.plane import Standing
from ipa_energy.serving.local.replica_set import Wanted
from ipa_energy.serving.local.served_models import STUB_PAYLOAD, ServedModels

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
        assert [each.label for one in wanted for each in one] == [
            each.label for one in self.serves for each in one
        ]
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
    setting = _setting(tmp_path, cluster[1])
    plan = tuple(replace(stage, replicas=2) for stage in setting.start)
    with _taken_over(setting, plan, cluster[0], monkeypatch) as (backend, replicas):
        yield cluster[0], backend, plan, replicas


@contextmanager
def _taken_over(setting, plan, server, monkeypatch):
    """A backend whose router served the plan, and how many replicas the first stage is to have."""
    api = tested.connected(setting)
    rendering, _ = tested.rendered(setting, "default", is_stub=True)
    first = Reconciler(api, rendering)
    until(lambda: not first.step(plan) and not first.unsettled(plan) and first.router_address())
    path = f"/apis/apps/v1/namespaces/default/deployments/{rendering.pipeline}-{plan[0].stage}-0"
    body = {"spec": {"replicas": 5}}
    api._asked("PATCH", f"{path}/scale", {"fieldManager": "somebody"}, body, MERGE)
    Router.serves = tuple(
        tuple(
            Wanted(lane.option, lane.replicas, server=server, share=share[EVERY_CLASS])
            for lane, share, server in zip(
                stage.lanes, stage.shares, first.servers_of(plan, stage.stage), strict=True
            )
        )
        for stage in plan
    )
    monkeypatch.setattr(tested, "RemotePlane", Router)
    backend, its_api = _backend(replace(setting, resumed_at_s=10.0))
    its_api._sleep = lambda _: None
    yield backend, lambda: api.get(path)["spec"]["replicas"]
    server.faults.clear()
    backend.close()


def test_what_changed_while_nobody_decided_is_put_right_before_the_next_plan(taken_over):
    """A router is taken over with the plan that it serves, and the cluster is kept at it."""
    _, backend, plan, replicas = taken_over
    assert backend.is_taken_over
    until(lambda: replicas() == 2)
    held = backend._held[plan[0].stage]
    until(lambda: len(held.pods) >= 2 and sum(held.core_s.values()) > 0)


def test_a_mix_that_a_killed_adapter_left_is_kept_with_all_its_options(
    tmp_path, cluster, monkeypatch
):
    """Until the next decision, whatever others do to either option."""
    server, kubeconfig = cluster
    setting = _setting(tmp_path, kubeconfig)
    first = setting.start[0]
    other = next(o for o in setting.stages[0].options if o.variant != first.option.variant)
    parts = (
        Part(first.option, 2, ((EVERY_CLASS, 0.7),)),
        Part(other, 1, ((EVERY_CLASS, 0.3),)),
    )
    plan = (replace(first, replicas=3, parts=parts), *setting.start[1:])
    with _taken_over(setting, plan, server, monkeypatch) as (backend, replicas):
        until(lambda: replicas() == 2)
        until(backend.plane.told.is_set)
        names = {name for kind, name in backend._reconciler.live.objects if kind == "Deployment"}
        slots = sorted(name for name in names if f"-{first.stage}-" in name)
        assert [name[-2:] for name in slots] == ["-0", "-1"]
        path = f"/apis/apps/v1/namespaces/default/deployments/{slots[1]}"
        api = backend._reconciler._api
        before = api.get(path)["metadata"]["uid"]
        api._asked("DELETE", path, None)

        def is_back():
            there = backend._reconciler.live.workloads(first.stage)
            is_new = 1 in there and there[1]["metadata"]["uid"] != before
            return is_new and not backend._unsettled(plan)

        until(is_back)
        with backend._lock:
            found = backend._reconciler.states(plan, backend._options)
        states = [state for state in found if state.stage == first.stage]
        assert {state.option.variant: state.ready for state in states} == {
            first.option.variant: 2,
            other.variant: 1,
        }


def test_who_is_served_first_is_told_to_the_router_and_written_nowhere(
    tmp_path, cluster, monkeypatch
):
    """Also when a later stage's batch, and so the time that it takes, changes alone."""
    server, kubeconfig = cluster
    setting, told = _setting(tmp_path, kubeconfig), []
    config = setting.config.model_copy(update={"queue_order": "in-time-first"})
    setting = replace(setting, config=config)
    monkeypatch.setattr(Router, "want", lambda _, wanted: told.append(wanted))
    with _taken_over(setting, setting.start, server, monkeypatch) as (backend, replicas):
        until(lambda: replicas() == setting.start[0].replicas and told)
        until(lambda: not backend._unsettled(setting.start))
        before = len(server.written())
        first, last = setting.start
        now = last.option
        other = next(
            each
            for each in setting.stages[1].options
            if (each.variant, each.allocation) == (now.variant, now.allocation)
            and each.batch != now.batch
        )
        backend.deploy((first, replace(last, option=other)))
        ages = [[dict(part.in_time_s)[""] for (part, *_) in each] for each in (told[0], told[-1])]
        for found, option in zip(ages, (now, other), strict=True):
            left_s = setting.latency_sla_s - option.latency_s
            assert found == pytest.approx([left_s - first.option.latency_s, left_s])
        asked = len(server.log)
        until(lambda: sum(path.endswith("/pods") for _, path, _ in server.log[asked:]) >= 3)
        assert len(server.written()) == before


def test_a_server_that_hangs_holds_a_decision_up_for_part_of_an_interval(taken_over):
    """Each answer comes late, as often as one asks; the plan before is wanted again."""
    server, backend, plan, replicas = taken_over
    until(lambda: replicas() == 2)
    longest_s = backend._reconciler.longest_s
    assert longest_s == tested.LEAST_ROUND_S  # of an interval of 2 s more than a quarter
    server.faults.next(Fault(delay_s=12.0), 20, lambda *_: True)
    more = tuple(replace(stage, replicas=3) for stage in plan)
    start_s = time.perf_counter()
    with pytest.raises(TryAgainError, match=r"no answer \(readtimeout\)|no time is left"):
        backend.deploy(more)
    # One round of the thread's may have been under way.
    assert time.perf_counter() - start_s < 2 * longest_s + 2
    server.faults.clear()
    asked = len(server.log)
    until(lambda: sum(path.endswith("/pods") for _, path, _ in server.log[asked:]) >= 3)
    assert replicas() == 2 and backend._failure is None


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


def test_a_dry_run_with_a_kubeconfig_that_is_none_is_bad_input(tmp_path, cluster):
    _, kubeconfig = cluster
    kubeconfig.write_text("a: [")
    with pytest.raises(ConfigError, match="--kubeconfig: no cluster is named: "):
        tested.dry_run(_setting(tmp_path, kubeconfig), is_stub=True)


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


def test_a_prometheus_of_this_machine_is_refused_before_the_cluster_is_asked(tmp_path, monkeypatch):
    experiment = load_experiment(write_pipeline(tmp_path / "small", [4]))
    setting = setting_of(experiment, None, 0.0, LiveOptions(prometheus=tmp_path / "prometheus"))
    monkeypatch.setattr(tested, "connected", lambda _: pytest.fail("the cluster was asked"))
    with pytest.raises(ConfigError, match=r"--prometheus.*allowed: the URL of one in the cluster"):
        tested.served(setting, is_stub=True)


@pytest.mark.parametrize(
    ("resources", "device"),
    [
        ({}, "cpu"),
        ({"gpu": 1}, "cuda"),
        ({"mig-1g.10gb": 1}, "cuda"),
        ({"a100": 1}, "cuda"),
        ({"board": 1}, "cpu"),
    ],
)
def test_a_model_computes_on_the_gpu_that_its_pod_holds(tmp_path, resources, device):
    experiment = load_experiment(write_pipeline(tmp_path / "small", [4]))
    setting = setting_of(experiment, None, 0.0, LiveOptions())
    named = KubernetesConfig(resources={"a100": "nvidia.com/gpu", "board": "vendor.com/board"})
    option = replace(setting.stages[0].options[0], allocation=Allocation.of(1, resources=resources))
    model = tested._model_of(setting, named)(setting.stages[0].name, option)
    assert model.extra["device"] == device


@pytest.mark.parametrize("url", ["host:9090", "//host", "ftp://host", "http://", "http://h/?q=1"])
def test_a_url_that_is_none_is_refused_when_the_yaml_is_loaded(tmp_path, url):
    path = write_pipeline(tmp_path / "small", [4])
    text = path.read_text()
    path.write_text(f"{text}\nkubernetes: {{prometheus_url: 'https://me:word@host:9/prefix'}}\n")
    load_experiment(path)
    path.write_text(f"{text}\nkubernetes: {{prometheus_url: '{url}'}}\n")
    with pytest.raises(ConfigError, match=r"kubernetes\.prometheus_url.*allowed: http://HOST:PORT"):
        load_experiment(path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--namespace", "No Such"], "'No Such'; allowed: a name of lower-case letters"),
        (["--kubeconfig", "none-there"], "none-there: there is no such file"),
        (["--prometheus", "host:9090"], "'host:9090'; allowed: http://HOST:PORT"),
    ],
)
def test_a_wrong_option_is_told(words, told, capsys):
    with nullcontext() if "--kubeconfig" in words else pytest.raises(SystemExit):
        assert main(["doctor", *words]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
