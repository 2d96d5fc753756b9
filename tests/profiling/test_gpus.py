"""Which GPUs a profile runs on, whose share is believed, and what is refused, by a fake driver."""

import re

import pytest
from fake_nvml import build_driver

from ipa_energy.errors import ConfigError
from ipa_energy.profiling.gpus import GpuPool, check_shares

PROBE = f"""
from ipa_energy.profiling.gpus import find_gpus, probe_gpus
from pathlib import Path
PIPELINE = {str(__file__).replace("test_gpus.py", "fake_gpu_pipeline.py")!r}
def found(shares, replicas=(1,)):
    pool = find_gpus(shares, replicas)
    return list(pool.uuids), pool.hardware, probe_gpus(pool, PIPELINE, shares)
"""
POOL = GpuPool(("GPU-a", "GPU-b"), "NVIDIA H100 80GB HBM3", {})


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    return build_driver(tmp_path_factory.mktemp("gpus"))


def refusal(driver, arguments, *, pretend="", **environ):
    """What asking for these shares and replicas is answered with."""
    code = f"{PROBE}\nanswer(said=error_of(found, {arguments}))"
    return driver.run(code, pretend=pretend, **environ)["said"]


def test_label_is_the_models_name():
    assert POOL.hardware == "nvidia-h100-80gb-hbm3"
    assert GpuPool(("GPU-a",), "(?)", {}).hardware == "gpu"


@pytest.mark.parametrize(
    ("share", "replicas", "uuids"),
    [
        (1.0, 2, ["GPU-a", "GPU-b"]),
        (0.5, 3, ["GPU-a", "GPU-a", "GPU-b"]),
        (1 / 3, 3, ["GPU-a"] * 3),
        (0.7, 2, ["GPU-a", "GPU-b"]),
    ],
)
def test_replicas_fill_one_gpu_after_the_other(share, replicas, uuids):
    assert [slot.uuid for slot in POOL.slots(share, replicas)] == uuids


def test_more_replicas_than_fit_are_refused_with_how_many_do():
    with pytest.raises(ConfigError, match=r"3 replicas with 0\.7 of a GPU each.*2 on the 2 GPUs"):
        POOL.slots(0.7, 3)


def test_a_slot_shows_one_gpu_and_a_share_asks_for_its_part():
    whole, half = POOL.slots(1.0, 1)[0], POOL.slots(0.5, 1)[0]
    assert whole.environ == {"CUDA_VISIBLE_DEVICES": "GPU-a"}
    assert half.environ == {
        "CUDA_VISIBLE_DEVICES": "GPU-a",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50",
    }


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ConfigError, match="a GPU share of"):
        check_shares([1.0, share])


def test_whole_gpu_is_found_and_seen(driver):
    found = driver.run(f"{PROBE}\nanswer(found=found([1.0]))")["found"]
    assert found[:2] == [["GPU-000000a0-1111-2222-3333-444444444444"], "fake-gpu-100"]
    assert found[2]["multiprocessors"] == 100
    assert "shares" not in found[2]


def test_as_many_gpus_as_the_largest_entry_needs(driver):
    code = PROBE + "answer(two=found([1.0], (1, 2))[0], one=found([0.5], (1, 2))[0])"
    found = driver.run(code, pretend="count 0 4\n", FAKE_CUDA="mps")
    assert (len(found["two"]), len(found["one"])) == (2, 1)


def test_share_is_believed_where_a_process_sees_no_more(driver):
    found = driver.run(f"{PROBE}\nanswer(found=found([0.25, 0.5]))", FAKE_CUDA="mps")["found"]
    assert found[2]["shares"] == {"0.25": 25, "0.5": 50}


def test_share_that_nothing_enforces_is_refused(driver):
    said = refusal(driver, "[0.5]")
    assert "nothing enforces a GPU share of 0.5: " in said
    assert "sees 100 of 100 multiprocessors" in said
    assert said.startswith("IpaEnergyError UnavailableError")


@pytest.mark.parametrize(
    ("pretend", "environ", "says"),
    [
        ("init 0 12\n", {}, "no NVIDIA driver"),
        ("init 0 4\n", {}, "no permission"),
        ("count 0 0\n", {}, "sees no GPU"),
        ("code 0 4\n", {}, "no permission"),
        ("mig 0 1\n", {}, "MIG slices, and only the whole GPU counts.*nvidia-smi -mig 0"),
        ("", {"FAKE_CUDA": "none"}, "FakeTorch sees no GPU; fix: a GPU"),
        ("", {"FAKE_CUDA": "other"}, "CUDA runs on the GPU of-another-kind, and NVML counts"),
        ("", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is empty"),
        ("", {"CUDA_VISIBLE_DEVICES": "MIG-1"}, "MIG slice"),
    ],
)
def test_what_keeps_a_gpu_from_being_measured_is_said(driver, pretend, environ, says):
    said = refusal(driver, "[1.0]", pretend=pretend, **environ)
    assert "Error" in said.split(":", maxsplit=1)[0]
    assert re.search(says, said), said


def test_gpus_of_several_models_are_not_mixed(driver):
    said = refusal(driver, "[1.0], (2,)", pretend="count 0 2\nmodel 0 1\nmodel 1 2\n")
    assert "of several models: Fake GPU 1, Fake GPU 2" in said


def test_more_gpus_than_there_are(driver):
    said = refusal(driver, "[1.0], (2,)")
    assert "2 replicas with 1 of a GPU each; allowed: 1 on the 1 GPUs there are" in said
