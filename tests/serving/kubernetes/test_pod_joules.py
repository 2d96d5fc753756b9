"""Joules of pods from a real Prometheus, whose every joule is known."""

from __future__ import annotations

import time

import numpy as np
import pytest
from prometheus_fixture import SECONDS, between, prometheus, serving, steady

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.prometheus.server import PrometheusServer
from ipa_energy.serving.kubernetes.pod_joules import Held, PodJoules, StageJoules, with_joules
from ipa_energy.serving.observed import Spent
from ipa_energy.serving.served import Requests, Served

GPU = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


def _pod(name, uid, node="n1"):
    return (
        f'kepler_pod_cpu_joules_total{{node_name="{node}",zone="package",pod_id="{uid}",'
        f'state="running",pod_name="{name}",pod_namespace="lab"}}'
    )


def _curves(is_old=False):
    curves = {"trouble_watts": lambda _: 1.0, 'machine_cpu_cores{node="n1"}': lambda _: 8.0}
    gpu = 'gpu="0",UUID="GPU-a",device="nvidia0",Hostname="n1",namespace="lab"'
    curves[f'{GPU}{{{gpu},pod="video-crop-0-a"}}'] = steady(200_000)
    curves[f'{GPU}{{{gpu},pod="somebody"}}'] = steady(200_000)
    if is_old:
        for mode, power_w in (("dynamic", 30), ("idle", 16)):
            node = f'kepler_node_package_joules_total{{instance="n1:9102",mode="{mode}"}}'
            curves[node] = steady(power_w)
            labels = 'instance="n1:9102",container_name="model",container_namespace="lab"'
            for pod, share in (("video-crop-0-a", 0.5), ("other", 0.5)):
                name = f'{labels},pod_name="{pod}",mode="{mode}"'
                curves[f"kepler_container_package_joules_total{{{name}}}"] = steady(power_w * share)
        return curves
    for zone, power_w in (("package", 50), ("dram", 10)):
        labels = f'node_name="n1",zone="{zone}",path="/p/{zone}"'
        curves[f"kepler_node_cpu_joules_total{{{labels}}}"] = steady(power_w)
        curves[f"kepler_node_cpu_idle_joules_total{{{labels}}}"] = steady(power_w * 0.4)
    curves[_pod("video-crop-0-a", "1")] = steady(12)
    curves[_pod("video-crop-0-b", "2")] = between(20, 40, lambda second: 7.0 * (second - 20))
    curves[_pod("video-classification-0-a", "3")] = steady(5)
    curves[_pod("video-router-x", "4")] = steady(3)
    return curves


@pytest.fixture(scope="module", params=[False, True], ids=["kepler-0.10", "kepler-0.9"])
def asked(request, tmp_path_factory):
    begin_ms = int(time.time() - 120) * 1000

    def page(path):
        if path == "/live":
            return f"live_joules_total {time.time()!r}\n"
        return "".join(
            f"{name} {value!r} {begin_ms + 1000 * second}\n"
            for name, curve in _curves(request.param).items()
            for second in range(SECONDS)
            if (value := curve(second)) is not None
        )

    with serving(page) as target, prometheus(tmp_path_factory.mktemp("prometheus"), target) as url:
        names = {"crop": "video-crop-0", "classification": "video-classification-0"}
        yield PodJoules(PrometheusServer(url), "lab", names), begin_ms / 1000, request.param


def test_stages_have_the_joules_of_their_pods_and_their_part_of_the_nodes(asked):
    joules, zero_s, is_old = asked
    held = {"crop": Held({"n1": 2 * 40.0}, {"video-crop-0-a", "video-crop-0-zz"})}
    if not is_old:
        held["classification"] = Held({"n1": 1 * 40.0}, {"video-classification-0-a"})
    found = joules.window(zero_s + 10, zero_s + 50, held)
    crop = found["crop"]
    if is_old:
        assert crop.dynamic_j == pytest.approx(15 * 40, rel=0.02)
        assert crop.idle_j == pytest.approx(16 * 40 * 2 / 8, rel=0.02)
    else:
        assert crop.dynamic_j == pytest.approx(12 * 40 + 7 * 20, rel=0.02)
        assert crop.idle_j == pytest.approx(24 * 40 * 2 / 8, rel=0.02)
        assert found["classification"].dynamic_j == pytest.approx(5 * 40, rel=0.02)
        assert found["classification"].idle_j == pytest.approx(24 * 40 * 1 / 8, rel=0.02)
    assert crop.quality == "estimated" and crop.meters == ("kepler",)
    assert any("video-crop-0-zz" in note and "missing" in note for note in crop.notes)


def test_an_option_of_which_nothing_is_scraped_yet_takes_no_other_its_joules(asked):
    joules, zero_s, _ = asked
    span = zero_s + 10, zero_s + 50
    alone = Held({"n1": 40.0}, {"video-crop-0-a"}, workloads={"video-crop-0"})
    new = {"video-crop-0-a", "video-crop-1-a"}, False, {"video-crop-0", "video-crop-1"}
    crop = joules.window(*span, {"crop": Held({"n1": 40.0}, *new)})["crop"]
    assert crop.dynamic_j == joules.window(*span, {"crop": alone})["crop"].dynamic_j
    assert any("video-crop-1-a" in note and "missing" in note for note in crop.notes)
    with pytest.raises(MeterUnavailableError, match="video-crop-1"):
        joules.window(*span, {"crop": Held({"n1": 40.0}, workloads={"video-crop-1"})})


def test_a_gpu_that_several_pods_hold_is_shared_and_said_to_be(asked):
    joules, zero_s, _ = asked
    held = {"crop": Held({"n1": 40.0}, {"video-crop-0-a"}, has_gpus=True)}
    without = {"crop": Held({"n1": 40.0}, {"video-crop-0-a"})}
    span = zero_s + 10, zero_s + 50
    crop = joules.window(*span, held)["crop"]
    before_j = joules.window(*span, without)["crop"].dynamic_j
    assert crop.dynamic_j - before_j == pytest.approx(200 * 40 / 2, rel=0.02)
    assert crop.meters == ("kepler", "dcgm") and any("shared" in note for note in crop.notes)


def test_a_node_that_nobody_counts_gives_no_figure(asked):
    joules, zero_s, _ = asked
    with pytest.raises(MeterUnavailableError, match="n9"):
        joules.window(zero_s + 10, zero_s + 50, {"crop": Held({"n9": 40.0})})


def test_a_window_takes_them_over_and_keeps_its_shape():
    none = np.zeros(0)
    served = Served(
        start_s=0.0,
        end_s=2.0,
        requests=Requests(none.astype(int), none, none, none.astype(int), *[np.zeros((0, 2))] * 3),
        idle_j=np.array([2.0, 1.0]),
        dynamic_j=np.array([4.0, 3.0]),
        power_w=np.array([4.0, 6.0]),
        cores=np.array([2.0, 2.0]),
        in_flight=0,
        meter="busy-time",
        quality="estimated",
        replicas=(Spent("crop", "v 1c", "a", 2.0, 4.0, 1.0),),
    )
    found = {
        "crop": StageJoules(4.0, 2.0, ("kepler", "dcgm"), "estimated", ("a note",)),
        "classification": StageJoules(4.0, 10.0, ("kepler",), "estimated"),
    }
    after = with_joules(served, ["crop", "classification"], found)
    assert after.meter == "kepler+dcgm" and after.notes == ("a note",)
    assert after.power_w == pytest.approx([8.0, 12.0])
    assert after.power_w.sum() == pytest.approx(after.idle_j.sum() + after.dynamic_j.sum())
    assert (after.replicas[0].idle_j, after.replicas[0].dynamic_j) == (4.0, 2.0)
