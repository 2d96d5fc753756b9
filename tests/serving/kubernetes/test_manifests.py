"""A plan as objects: the same text for ever, valid, and the same for every batch."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_plans import mix, model_of, plan, rendering, stage
from option_maker import make_option

from ipa_energy.errors import ConfigError
from ipa_energy.records import Allocation
from ipa_energy.serving.deployment import DeployedStage
from ipa_energy.serving.kubernetes.manifests import (
    as_yaml,
    cores_text,
    desired,
    dns_name,
    server_name,
)

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = {
    "deployments": {},
    "seldon": {"rendering": "seldon"},
    "mix": {},
    "gpu": {
        "node_selector": {"pool": "inference"},
        "hardware_nodes": {"a100": {"nvidia.com/gpu.product": "A100"}},
        "pull_secret": "registry",
    },
}


def _plan(name):
    if name == "mix":
        both = (stage(replicas=3), 0.7), (stage(variant="yolov5s", cores=2), 0.3)
        return plan(mix(*both))
    if name != "gpu":
        return plan(stage(replicas=3, cores=0.5))
    slices = Allocation.of(2, hardware="a100", resources={"mig-1g.10gb": 1})
    return plan(DeployedStage("crop", replace(make_option("yolov5s"), allocation=slices), 1))


@pytest.mark.parametrize("name", SETTINGS)
def test_objects_are_those_of_the_golden_file(name):
    """``WRITE_GOLDEN=1`` writes the files anew."""
    made = list(desired(_plan(name), rendering(**SETTINGS[name])))
    text = as_yaml(made)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["deployments", "gpu", "mix"])
def test_objects_are_valid_by_the_published_schemas(name):
    validate = pytest.importorskip("kubernetes_validate")
    for one in desired(_plan(name), rendering(**SETTINGS[name])):
        validate.validate(one, "1.34", strict=True)
        with pytest.raises(validate.ValidationError):
            validate.validate({**one, "spec": {**one["spec"], "replica": 1}}, "1.34", strict=True)


def test_a_batch_stands_in_no_object():
    one = plan(stage(batch=1))
    other = plan(replace(stage(batch=8), wait_s=0.4))
    assert desired(one, rendering()) == desired(other, rendering())


def test_shares_stand_in_no_object():
    small, large = stage(), stage(variant="yolov5s")
    one = plan(mix((small, 0.7), (large, 0.3)))
    assert desired(one, rendering()) == desired(plan(mix((small, 0.5), (large, 0.5))), rendering())


def test_variant_replicas_and_cores_do():
    texts = {
        str(desired(plan(crop), rendering()))
        for crop in (stage(), stage(variant="yolov5s"), stage(replicas=2), stage(cores=2))
    }
    assert len(texts) == 4


def test_cores_kept_in_the_template_leave_the_pod_as_it_was():
    kept = desired(plan(stage(cores=2)), rendering(), {"crop": 1})
    before = desired(plan(stage(cores=1)), rendering())
    assert [one["spec"] for one in kept] == [one["spec"] for one in before]
    notes = [one["metadata"]["annotations"] for one in kept]
    assert notes != [one["metadata"]["annotations"] for one in before]


@pytest.mark.parametrize("cores, text", [(1, "1"), (2.0, "2"), (0.5, "500m"), (1.25, "1250m")])
def test_cores_are_written_as_the_server_keeps_them(cores, text):
    assert cores_text(cores) == text


def test_names_are_names_of_dns_and_differ_where_their_parts_do():
    parts = [
        ("video", "crop"),
        ("Video", "crop"),
        ("vi_deo", "crop"),
        ("1st",),
        ("ü",),
        ("v" * 80,),
    ]
    parts += [("video", "crop" + "x" * 60, "0"), ("video", "crop" + "x" * 60, "1")]
    names = [dns_name(*each) for each in parts]
    assert len(set(names)) == len(parts)
    for name in names:
        assert len(name) <= 46 and name[0].isalpha() and name[-1].isalnum()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_servers_are_told_apart_by_all_that_needs_another_pod():
    options = [make_option("a"), make_option("b"), make_option("a", cpu_cores=2)]
    assert len({server_name(option) for option in options}) == 3
    assert server_name(make_option("a", 8)) == server_name(make_option("a", 1))


@pytest.mark.parametrize("resources", [{"gpu": 0.5}, {"board": 1}])
def test_what_a_cluster_cannot_hand_out_is_refused(resources):
    allocation = Allocation.of(1, resources=resources)
    crop = DeployedStage("crop", replace(make_option(), allocation=allocation), 1)
    with pytest.raises(ConfigError, match=r"whole|kubernetes\.resources"):
        desired(plan(crop), rendering())


def test_a_resource_has_the_name_that_the_yaml_gives_it():
    allocation = Allocation.of(1, resources={"board": 2})
    crop = DeployedStage("crop", replace(make_option(), allocation=allocation), 1)
    text = str(desired(plan(crop), rendering(resources={"board": "maker.example/board"})))
    assert "'maker.example/board': '2'" in text
    assert model_of("crop", crop.option).extra["threads"] == 1
