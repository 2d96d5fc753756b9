"""A cluster is brought to a plan, whatever it was and whoever interferes."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cluster_plans import mix, plan, rendering, stage
from standin_cluster.api_server import ApiServer
from standin_cluster.faults import Fault
from standin_cluster.seldon import DEFINITION
from standin_cluster.world import World

from ipa_energy.errors import GiveUpError, TryAgainError
from ipa_energy.serving.kubernetes.changes import Live, diff, is_ready, look
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi, ConflictError, RefusedError
from ipa_energy.serving.kubernetes.manifests import SERVER, desired, server_name
from ipa_energy.serving.kubernetes.reconciler import Reconciler

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CROP = "/apis/apps/v1/namespaces/lab/deployments/video-crop-0"


@contextmanager
def cluster(folder, **world):
    with ApiServer() as server:
        api = ClusterApi(server.kubeconfig(folder / "kubeconfig", namespace="lab"), seed=1)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}}
        api._asked("POST", "/api/v1/namespaces", None, body)
        with World(server, **world):
            yield server, api
        api.close()


def settle(reconciler, wanted, timeout_s=60.0):
    end_s = time.monotonic() + timeout_s
    while True:
        written = reconciler.step(wanted)
        unsettled = reconciler.unsettled(wanted)
        if not (written or unsettled):
            return
        assert time.monotonic() < end_s, unsettled
        time.sleep(0.02)


def cores_of(api):
    pods = api.list(("v1", "Pod"), "lab", "app.kubernetes.io/component=crop")
    return sorted(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] for pod in pods)


def names_of(api):
    pods = api.list(("v1", "Pod"), "lab", "app.kubernetes.io/component=crop")
    return {pod["metadata"]["name"] for pod in pods}


def test_a_plan_comes_to_be_and_is_not_written_again(tmp_path):
    with cluster(tmp_path) as (_, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan(stage(replicas=2)))
        before = api.writes
        for _ in range(3):
            assert reconciler.step(plan(stage(replicas=2, batch=8))) == 0
        assert api.writes == before
        assert len(names_of(api)) == 2
        assert reconciler.router_address() is not None


def test_a_new_variant_with_more_replicas_grows_no_old_pods(tmp_path):
    with cluster(tmp_path, ready_after_s=0.1) as (server, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan())
        seen = names_of(api)
        before = len(seen)
        wanted, end_s = plan(stage(variant="yolov5s", replicas=3)), time.monotonic() + 60
        while reconciler.step(wanted) or reconciler.unsettled(wanted):
            seen |= names_of(api)
            assert time.monotonic() < end_s
            time.sleep(0.01)
        assert len(seen | names_of(api)) == before + 3
        del server


def test_cores_change_in_place_and_the_next_pod_has_them_too(tmp_path):
    with cluster(tmp_path) as (_, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan(stage(replicas=2)))
        names = names_of(api)
        settle(reconciler, plan(stage(replicas=2, cores=2)))
        assert names_of(api) == names and cores_of(api) == ["2", "2"]
        template = api.get(CROP)["spec"]["template"]["spec"]["containers"][0]
        assert template["resources"]["limits"]["cpu"] == "1"
        pod = api.list(("v1", "Pod"), "lab", "app.kubernetes.io/component=crop")[0]
        api.delete({"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"]})
        settle(reconciler, plan(stage(replicas=2, cores=2)))
        assert cores_of(api) == ["2", "2"] and names_of(api) != names
        settle(reconciler, plan(stage(replicas=3, cores=2)))
        template = api.get(CROP)["spec"]["template"]["spec"]["containers"][0]
        assert template["resources"]["limits"]["cpu"] == "2"
        assert cores_of(api) == ["2", "2", "2"]


def test_a_pod_that_ends_is_not_resized(tmp_path):
    """It would be refused once it is gone, and its cores are of no use to anybody."""
    with cluster(tmp_path) as (server, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan(stage(replicas=2)))
        [ending, staying] = api.list(("v1", "Pod"), "lab", "app.kubernetes.io/component=crop")
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        live = Live(reconciler.live.objects, (ending, staying))
        wanted = plan(stage(replicas=2, cores=2))
        found = diff(live, desired(wanted, rendering(), {"crop": 1.0}), wanted, {"crop"})
        resized = [one.target["metadata"]["name"] for one in found if one.verb == "resize"]
        assert resized == [staying["metadata"]["name"]]
        del server


def test_what_does_not_fit_in_place_rolls_out(tmp_path, caplog):
    nodes = {"n1": {"cpu": "6", "memory": "64Gi", "pods": "50"}}
    nodes["n2"] = {"cpu": "32", "memory": "64Gi", "pods": "50"}
    with cluster(tmp_path, nodes=nodes) as (server, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan())
        server.faults.next(Fault(code=403), matches=lambda _, path: path.endswith("/resize"))
        settle(reconciler, plan(stage(cores=2)))
        assert cores_of(api) == ["2"]
        template = api.get(CROP)["spec"]["template"]["spec"]["containers"][0]
        assert template["resources"]["limits"]["cpu"] == "2"
    assert "cannot change in place" in caplog.text


def test_a_node_that_has_no_room_is_no_lack_of_rights(tmp_path, caplog):
    """Its refusal has the code of missing rights, and says what it is about in its causes."""
    nodes = {"n1": {"cpu": "3", "memory": "64Gi", "pods": "50"}}
    nodes["n2"] = {"cpu": "32", "memory": "64Gi", "pods": "50"}
    with cluster(tmp_path, nodes=nodes) as (_, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan())
        before = names_of(api)
        settle(reconciler, plan(stage(cores=4)))
        assert cores_of(api) == ["4"] and not names_of(api) & before
    assert "cannot change in place" in caplog.text and "cpu" in caplog.text
    assert "the rights in configs/kubernetes" not in caplog.text


def test_what_somebody_else_changed_is_put_right_and_told(tmp_path, caplog):
    with cluster(tmp_path) as (_, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan())
        api._asked(
            "PATCH",
            CROP,
            {"fieldManager": "somebody"},
            {"spec": {"replicas": 5}},
            "application/merge-patch+json",
        )
        settle(reconciler, plan())
        assert len(names_of(api)) == 1
    assert "spec.replicas: 5 → 1" in caplog.text and "somebody" in caplog.text


def test_what_is_not_ours_is_neither_changed_nor_deleted(tmp_path):
    with cluster(tmp_path) as (_, api):
        theirs = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "video-crop", "namespace": "lab"},
            "spec": {"ports": [{"port": 80}]},
        }
        made = api.create(theirs)
        with pytest.raises(GiveUpError, match="not of ipa-energy"):
            Reconciler(api, rendering()).step(plan())
        Reconciler(api, rendering()).delete_all()
        found = api.get("/api/v1/namespaces/lab/services/video-crop")
        assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_an_adapter_killed_between_two_writes_leaves_nothing_to_mend_by_hand(tmp_path):
    with cluster(tmp_path) as (_, api):
        for writes in range(1, 6):
            first = Reconciler(api, rendering())
            wanted = plan(stage(variant=f"v{writes}", replicas=2))
            actions = first._compared(wanted)[:writes]
            from ipa_energy.serving.kubernetes.changes import act

            assert not act(api, actions, first.live)
            settle(Reconciler(api, rendering()), wanted)
            labels = look(api, rendering()).pods_of("crop")
            assert {pod["metadata"]["labels"]["ipa-energy.io/server"][:2] for pod in labels} == {
                f"v{writes}"
            }


def test_a_deployment_deleted_and_made_again_before_its_pods_were_collected_comes_to_be(tmp_path):
    with ApiServer() as server:
        api = ClusterApi(server.kubeconfig(tmp_path / "other", namespace="lab"), seed=1)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}}
        api._asked("POST", "/api/v1/namespaces", None, body)
        with World(server):
            settle(Reconciler(api, rendering()), plan())
        before = names_of(api)
        api._asked("DELETE", CROP, None)  # while the controllers rest
        Reconciler(api, rendering()).step(plan())
        with World(server, nodes={}):
            settle(Reconciler(api, rendering()), plan())
            while names_of(api) & before:
                time.sleep(0.02)
        api.close()


def test_one_stage_that_fails_keeps_no_other_from_its_change(tmp_path):
    with cluster(tmp_path) as (server, api):
        api._sleep = lambda _: None
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan())
        wanted = plan(stage(variant="new"), stage("classification", "newer"))
        server.faults.next(Fault(code=500), 5, lambda m, path: m == "PATCH" and path == CROP)
        with pytest.raises(TryAgainError, match="stage crop"):
            reconciler.step(wanted)
        look_again = Reconciler(api, rendering())
        settle(look_again, plan(stage(), stage("classification", "newer")))


def test_a_stage_whose_write_is_refused_gets_no_other_and_to_give_up_outweighs(tmp_path):
    with cluster(tmp_path) as (server, api):
        api._sleep = lambda _: None
        server.faults.next(Fault(code=403), 1, lambda m, p: m != "GET" and p.endswith("video-crop"))
        late = "services/video-classification"
        server.faults.next(Fault(code=503), 5, lambda m, p: m != "GET" and p.endswith(late))
        with pytest.raises(GiveUpError, match=r"stage crop: .*stage classification: "):
            Reconciler(api, rendering()).step(plan())
        names = {name for _, name in look(api, rendering()).objects}
        assert names == {"video-router"}
        settle(Reconciler(api, rendering()), plan())


def test_what_somebody_wrote_meanwhile_is_read_and_planned_anew_at_once(tmp_path):
    with cluster(tmp_path) as (server, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan())
        server.faults.next(Fault(code=409), 2, lambda m, path: m == "PATCH" and path == CROP)
        assert reconciler.step(plan(stage(variant="new"))) == 1
        server.faults.next(Fault(code=409), 9, lambda m, path: m == "PATCH" and path == CROP)
        with pytest.raises(TryAgainError, match="stage crop"):
            reconciler.step(plan(stage(variant="newer")))


def _say_pending(api, reason):
    """What a node says that does not give a pod its cores."""
    for pod in api.list(("v1", "Pod"), "lab", "app.kubernetes.io/component=crop"):
        path = f"/api/v1/namespaces/lab/pods/{pod['metadata']['name']}/status"
        told = {"type": "PodResizePending", "status": "True", "reason": reason}
        body = {"status": {"conditions": [*pod["status"]["conditions"], told]}}
        api._asked("PATCH", path, None, body, "application/merge-patch+json")


@pytest.mark.parametrize(("reason", "after_s"), [("Infeasible", 0.0), ("Deferred", 31.0)])
def test_cores_that_a_node_does_not_give_come_with_new_pods(tmp_path, reason, after_s):
    now_s = [0.0]
    with cluster(tmp_path) as (_, api):
        reconciler = Reconciler(api, rendering(), now_s=lambda: now_s[0])
        settle(reconciler, plan())
        wanted = plan(stage(cores=2))
        assert reconciler.step(wanted)
        before = names_of(api)
        _say_pending(api, reason)
        if after_s:
            reconciler.step(wanted)
            now_s[0] = after_s - 2
            reconciler.step(wanted)
            assert names_of(api) == before  # it may still come
            now_s[0] = after_s
        settle(reconciler, wanted)
        assert cores_of(api) == ["2"] and not names_of(api) & before


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_lost_answer_is_as_good_as_none(tmp_path, drop):
    with cluster(tmp_path) as (server, api):
        server.faults.next(Fault(drop=drop), 2)
        settle(Reconciler(api, rendering()), plan())


def test_what_is_no_such_object_is_not_sent_again(tmp_path):
    """An unknown field is answered 500, as a fault of the server is, but without a reason."""
    with cluster(tmp_path) as (server, api):
        wrong = {"apiVersion": "v1", "kind": "Service", "spec": {"nope": 1}}
        wrong["metadata"] = {"name": "wrong", "namespace": "lab"}
        with pytest.raises(RefusedError, match="field not declared in schema"):
            api.apply(wrong, "ipa-energy")
        assert [code for _, path, code in server.log if path.endswith("wrong")] == [500]


def test_retry_after_is_kept_and_bounded(tmp_path):
    with cluster(tmp_path) as (server, api):
        waits = []
        api._sleep = waits.append
        server.faults.next(Fault(code=429, retry_after_s=3))
        settle(Reconciler(api, rendering()), plan())  # replicas of what is replaced change later
        assert 2.2 < waits[0] < 4
        server.faults.next(Fault(code=429, retry_after_s=3600), 50)  # writes go out side by side
        with pytest.raises(TryAgainError, match="5 times"):
            Reconciler(api, rendering()).step(plan(stage(replicas=2)))
        assert max(waits) <= 10


def test_a_dry_run_changes_nothing(tmp_path):
    with cluster(tmp_path) as (_, api):
        actions, troubles = Reconciler(api, rendering()).differences(plan())
        assert len(actions) == 6 and not troubles
        assert not look(api, rendering()).objects


def test_seldon_deployments_are_replaced_whole_with_what_others_put_there(tmp_path):
    with cluster(tmp_path) as (server, api):
        api._asked("POST", DEFINITIONS, None, DEFINITION)
        reconciler = Reconciler(api, rendering(rendering="seldon"))
        settle(reconciler, plan())
        path = "/apis/machinelearning.seldon.io/v1/namespaces/lab/seldondeployments/video-crop-0"
        while True:  # Seldon writes the object's state meanwhile
            theirs = api.get(path)
            theirs["spec"]["predictors"][0]["annotations"] = {"theirs": "kept"}
            try:
                api.replace(theirs, "somebody")
                break
            except ConflictError:
                continue
        assert reconciler.step(plan()) == 0
        assert reconciler.step(plan(stage(variant="yolov5s", replicas=3))) == 1
        found = api.get(path)["spec"]["predictors"][0]
        assert found["annotations"] == {"theirs": "kept"}
        [component] = found["componentSpecs"]
        assert component["replicas"] == 3
        [container] = component["spec"]["containers"]
        named = {one["name"]: one["value"] for one in container["env"]}
        assert named["MLSERVER_MODEL_NAME"] == "yolov5s"
        assert reconciler.step(plan(stage(variant="yolov5s", replicas=3))) == 0
        methods = {m for m, p, _ in server.log if "seldondeployments/" in p and m != "GET"}
        assert methods == {"PUT"}  # a partial apply would wipe the pod's containers


def _ready_of(api):
    """Server → pods that are ready and not ending."""
    pods = api.list(("v1", "Pod"), "lab", "app.kubernetes.io/component=crop")
    ready = [pod for pod in pods if is_ready(pod) and not pod["metadata"].get("deletionTimestamp")]
    return Counter(pod["metadata"]["labels"][SERVER] for pod in ready)


def test_options_come_and_go_and_none_loses_a_pod_before_the_others_have_theirs(tmp_path):
    small, large = stage(replicas=3), stage(variant="yolov5s", replicas=1)
    huge = stage(variant="yolov5x", replicas=2)
    fewer, more = stage(replicas=1), stage(variant="yolov5s", replicas=3)
    courses = [
        mix((small, 0.7), (large, 0.3)),
        mix((fewer, 0.3), (more, 0.7)),
        mix((huge, 0.5), (more, 0.5)),
        mix((small, 0.2), (more, 0.5), (huge, 0.3)),
        huge,
    ]
    with cluster(tmp_path, ready_after_s=0.1) as (_, api):
        reconciler = Reconciler(api, rendering())
        settle(reconciler, plan(small))
        before = small
        for after in courses:
            old, new = (
                Counter({server_name(lane.option): lane.replicas for lane in one.lanes})
                for one in (before, after)
            )
            wanted, end_s = plan(after), time.monotonic() + 30
            while reconciler.step(wanted) or reconciler.unsettled(wanted):
                there = _ready_of(api)
                # An option that stays has no less than the smaller of what it had and is to have,
                # and all of them together no fewer; one that is replaced goes pod by pod.
                assert not (old & new) - there
                assert there.total() >= min(old.total(), new.total())
                assert time.monotonic() < end_s
                time.sleep(0.01)
            assert _ready_of(api) == new
            writes = api.writes
            assert reconciler.step(wanted) == 0
            assert api.writes == writes
            before = after
        assert len(reconciler.live.workloads("crop")) == 1


def test_batches_of_one_server_are_two_options_to_a_run_and_one_state_each(tmp_path):
    one, four = stage(replicas=1, batch=1), stage(replicas=2, batch=4)
    with cluster(tmp_path) as (_, api):
        reconciler = Reconciler(api, rendering())
        wanted = plan(mix((one, 0.5), (four, 0.5)))
        settle(reconciler, wanted)
        states = reconciler.states(wanted, {"crop": {}, "classification": {}})
        ready = {state.option.batch: state.ready for state in states if state.stage == "crop"}
        assert ready == {1: 1, 4: 2}
        starting = reconciler.live.pods_of("crop")[0]
        made = datetime.now(UTC) - timedelta(seconds=90)
        starting["metadata"]["creationTimestamp"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")
        starting["status"] = {"phase": "Pending"}
        states = reconciler.states(wanted, {"crop": {}, "classification": {}})
        assert sum(state.starting for state in states if state.stage == "crop") == 1
        [age_s] = [age_s for state in states for age_s in state.starting_for_s]
        assert 90 <= age_s < 150
