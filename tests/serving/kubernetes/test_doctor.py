"""What a cluster lacks is named with what to do about it; what it has is not."""

from __future__ import annotations

import json

import pytest
from cluster_plans import plan, stage
from standin_cluster.api_server import ApiServer

from ipa_energy.cli import main
from ipa_energy.config.sections import KubernetesConfig
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi
from ipa_energy.serving.kubernetes.doctor import checks, is_fit


def _account(api):
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ipa-energy-router"}}
    api._asked("POST", "/api/v1/namespaces/default/serviceaccounts", None, body)


def _by_name(found):
    return {check.name: check for check in found}


def test_who_may_do_nothing_is_told_every_right_and_the_chart(tmp_path):
    with ApiServer(tokens={"t": "nobody", "root": "admin"}) as server:
        api = ClusterApi(server.kubeconfig(tmp_path / "k", token="t"))
        found = list(checks(api, KubernetesConfig(), "default"))
    named = _by_name(found)
    assert not is_fit(found)
    assert named["API server"].state == "ok" and "1.36" in named["API server"].found
    for resource in ("deployments", "services", "pods"):
        assert named[f"rights on {resource}"].state == "missing"
        assert "configs/kubernetes" in named[f"rights on {resource}"].fix


def test_a_cluster_that_has_everything_is_fit_and_seldon_is_asked_for_where_needed(tmp_path):
    with ApiServer() as server:
        api = ClusterApi(server.kubeconfig(tmp_path / "k"))
        found = list(checks(api, KubernetesConfig(), "default"))
        named = _by_name(found)
        assert is_fit([check for check in found if not check.name.startswith("service account")])
        assert named["SeldonDeployments"].state == "optional"
        assert named["Prometheus"].fix
        seldon = list(checks(api, KubernetesConfig(rendering="seldon"), "default"))
        assert _by_name(seldon)["SeldonDeployments"].state == "missing"


def test_a_namespace_that_is_not_there_is_missed(tmp_path):
    with ApiServer() as server:
        api = ClusterApi(server.kubeconfig(tmp_path / "k"))
        there = _by_name(checks(api, KubernetesConfig(), "default"))
        gone = _by_name(checks(api, KubernetesConfig(), "nowhere"))
        assert not api.list(("v1", "Service"), "default", "")
    assert there["namespace"].state == "ok"
    assert gone["namespace"].state == "missing"
    assert "kubectl create namespace nowhere" in gone["namespace"].fix


def test_a_quota_that_leaves_no_room_for_a_rollout_is_told(tmp_path):
    with ApiServer() as server:
        api = ClusterApi(server.kubeconfig(tmp_path / "k"))
        quota = {
            "items": [
                {
                    "metadata": {"name": "team"},
                    "status": {"hard": {"requests.cpu": "6"}, "used": {"requests.cpu": "500m"}},
                }
            ]
        }
        get = api.get
        api.get = lambda path, query=None: (
            quota if path.endswith("resourcequotas") else get(path, query)
        )
        for cores, state in ((1, "ok"), (2, "optional"), (6, "missing")):
            start = plan(stage(cores=cores))
            found = checks(api, KubernetesConfig(), "default", start=start)
            assert _by_name(found)["quotas"].state == state


def test_the_command_says_it_and_its_status_too(tmp_path, capsys):
    with ApiServer() as server:
        path = str(server.kubeconfig(tmp_path / "k"))
        assert main(["doctor", "--kubeconfig", path]) in (0, 4)
        assert "SeldonDeployments" in capsys.readouterr().out
        url = "http://127.0.0.1:9"
        main(["doctor", "--kubeconfig", path, "--prometheus", url, "--json"])
        told = json.loads(capsys.readouterr().out)
        prometheus = next(c for c in told["checks"] if c["name"] == "Prometheus")
        assert prometheus["state"] == "optional" and url in prometheus["found"]


def _states(out):
    found = json.loads(out)
    assert not found["is_fit"]
    return {check["name"]: check["state"] for check in found["checks"]}


def test_without_a_cluster_it_is_told_what_could_be_looked_for_and_what_not(
    tmp_path, monkeypatch, capsys
):
    with ApiServer() as server:
        path = server.kubeconfig(tmp_path / "k")
        whole = {check.name for check in checks(ClusterApi(path), KubernetesConfig(), "default")}
    words = ["--prometheus", "http://127.0.0.1:9"]
    assert main(["doctor", "video", "--kubeconfig", str(path), *words, "--json"]) == 4
    away = _states(capsys.readouterr().out)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main(["doctor", *words, "--json"]) == 4
    states = _states(capsys.readouterr().out)
    assert states == away
    assert states.keys() == whole
    assert (states.pop("API server"), states.pop("Prometheus")) == ("missing", "optional")
    assert set(states.values()) == {"unknown"}
    assert main(["doctor"]) == 4
    out = capsys.readouterr().out
    assert "MISSING  API server" in out and "no cluster is named" in out
    assert "fix: --kubeconfig FILE, or KUBECONFIG, or run in a pod" in out
    assert "unknown  namespace" in out


NO_KUBECONFIGS = {
    "none": None,
    "folder": "",
    "empty": b"",
    "list": b"[1]",
    "kinds": b"contexts: 1\ncurrent-context: a\nclusters: 2\nusers: 3\n",
    "torn": b"a: [",
    "latin-1": b"a: \xff\xfe",
    "without-context": b"a: 1",
}


@pytest.mark.parametrize("name", NO_KUBECONFIGS)
def test_a_file_that_is_no_kubeconfig_is_bad_input(tmp_path, capsys, name):
    path, content = tmp_path / name, NO_KUBECONFIGS[name]
    if content == "":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert main(["doctor", "--kubeconfig", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ipa-energy: error: --kubeconfig: no cluster is named: ")
    assert err.count("\n") == 1 and str(path) in err and "fix: --kubeconfig FILE" in err
