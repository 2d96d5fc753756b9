"""What is applied by hand: valid, of least privilege, and of one mind with what a run makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from cluster_plans import plan, rendering

from ipa_energy.config import load_config
from ipa_energy.serving.kubernetes import doctor
from ipa_energy.serving.kubernetes.manifests import (
    CONTROL,
    EXPORTER,
    GRPC,
    SERVICE_ACCOUNT,
    USER,
    desired,
)

FOLDER = Path(__file__).parents[3] / "configs" / "kubernetes"
NAMES = ("namespace", "rights", "network", "disruption", "run")


def _objects():
    return [
        one
        for name in NAMES
        for one in yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    ]


def _role(name):
    [role] = [o for o in _objects() if o["kind"] == "Role" and o["metadata"]["name"] == name]
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_all_are_valid_by_the_published_schemas():
    validate = pytest.importorskip("kubernetes_validate")
    for one in _objects():
        validate.validate(one, "1.34", strict=True)


def test_rights_are_those_that_the_doctor_asks_for_and_no_others_beside_what_it_reads():
    rights = _role("ipa-energy")
    for group, resource, verbs in (*doctor.RIGHTS, doctor.SELDON_RIGHTS):
        assert rights.pop((group, resource)) == set(verbs)
    assert rights == {
        ("", "pods/resize"): {"patch"},
        ("", "resourcequotas"): {"list"},
        ("", "serviceaccounts"): {"get"},
    }
    watched = _role(SERVICE_ACCOUNT)
    assert watched == {("discovery.k8s.io", "endpointslices"): {"get", "list", "watch"}}
    assert not [one for one in _objects() if one["kind"].startswith("ClusterRole")]


def test_policies_and_budgets_select_what_a_run_makes():
    pods = {}
    for one in desired(plan(), rendering()):
        if one["kind"] == "Deployment":
            pods[one["metadata"]["name"]] = one["spec"]["template"]["metadata"]["labels"]
    chosen = {"ipa-energy-servers": set(), "ipa-energy-router": set()}
    for one in _objects():
        if one["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            spec = one["spec"]
            selector = spec.get("podSelector") or spec["selector"]
            for name, labels in pods.items():
                if _selects(selector, labels):
                    chosen[one["metadata"]["name"]].add((one["kind"], name))
    both = ("NetworkPolicy", "PodDisruptionBudget")
    servers = ("video-crop-0", "video-classification-0")
    assert chosen["ipa-energy-servers"] == {(kind, name) for kind in both for name in servers}
    assert chosen["ipa-energy-router"] == {(kind, "video-router") for kind in both}
    [router] = [
        o
        for o in _objects()
        if o["kind"] == "NetworkPolicy" and o["metadata"]["name"].endswith("router")
    ]
    ports = [port["port"] for rule in router["spec"]["ingress"] for port in rule["ports"]]
    assert ports == [GRPC, EXPORTER, CONTROL]


def _selects(selector, labels):
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(
        labels.get(one["key"]) not in one["values"] for one in selector.get("matchExpressions", ())
    )


def test_the_pipeline_beside_them_loads():
    config = load_config(FOLDER / "pipeline.yaml")
    assert config.kubernetes is not None and config.kubernetes.rendering == "deployments"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_takes_the_folder():
    made = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    objects = list(yaml.safe_load_all(made))
    spaced = {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"}
    assert spaced == {"ipa-energy"}
    assert {one["kind"] for one in objects} >= {"Job", "Role", "NetworkPolicy", "ConfigMap"}


@pytest.mark.parametrize("name", ["router", "server"])
def test_a_dockerfile_runs_as_the_user_of_the_pods_and_copies_what_there_is(name):
    lines = (FOLDER / "images" / f"{name}.Dockerfile").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line and not line.startswith(("#", " "))]
    verbs = [line[0] for line in words]
    assert verbs[0] == "FROM" and verbs[-1] == "CMD"
    assert set(verbs) <= {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "CMD"}
    assert [line[1] for line in words if line[0] == "USER"] == [str(USER)]
    for line in words:
        if line[0] == "FROM":
            image, _, tag = line[1].partition(":")
            assert image and tag not in ("", "latest")
        if line[0] == "COPY" and not line[1].startswith("--"):
            assert (FOLDER.parents[1] / line[1]).exists()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.endswith("\\"):
            assert after.startswith("    ")
