"""The NVML meter through the real nvidia-ml-py: a stand-in for the driver, and a real GPU."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time

import pytest
from fake_nvml import FakeDriver, build_driver

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Meter, Reading
from ipa_energy.meters.nvml import NvmlMeter


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    return build_driver(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    """A driver without the energy call."""
    return build_driver(tmp_path_factory.mktemp("old_nvml"), "-DOLD_DRIVER")


# ------------------------------------------------------------------ the stand-in's known truth


def test_joules_are_watts_times_seconds_to_one_step(driver: FakeDriver) -> None:
    found = driver.run(
        """
meter = NvmlMeter(update_period_s=0.02)
t0 = time.perf_counter(); start = meter.read(); t1 = time.perf_counter()
time.sleep(0.3)
t2 = time.perf_counter(); end = meter.read(); t3 = time.perf_counter()
energy = meter.energy_between(start, end)
answer(energy=energy.domains, total=energy.energy_j, meter=energy.meter, quality=energy.quality,
       duration=energy.duration_s, shortest=t2 - t1, longest=t3 - t0, min_window=meter.min_window_s)
""",
        pretend="count 0 2\npower 0 100\npower 1 250\n",
    )
    for domain, power_w in (("gpu-0", 100.0), ("gpu-1", 250.0)):
        step_j = power_w * 0.02 + 0.002
        least_j, most_j = power_w * found["shortest"] - step_j, power_w * found["longest"] + step_j
        assert least_j <= found["energy"][domain] <= most_j
    assert found["total"] == pytest.approx(sum(found["energy"].values()))
    assert (found["meter"], found["quality"]) == ("nvml", "measured")
    assert found["shortest"] <= found["duration"] <= found["longest"]
    assert found["min_window"] == pytest.approx(2.0)


def test_the_update_period_is_found_by_watching(driver: FakeDriver) -> None:
    found = driver.run(
        "s = NvmlMeter().probe(); answer(state=s.state, period=s.update_period_s, "
        "window=s.min_window_s, domains=s.domains, reason=s.reason)",
        pretend="period 0 50\n",
    )
    assert found["state"] == "measured"
    # A process that is not let run sees several steps as one, never one as several.
    assert 0.04 < found["period"] < 3.0
    assert found["window"] == pytest.approx(100 * found["period"])
    assert found["domains"] == ["gpu-0"]
    assert "Fake GPU 100" in found["reason"]


def test_work_is_awaited_before_each_read(driver: FakeDriver) -> None:
    found = driver.run(
        "calls = []\n"
        "meter = NvmlMeter(synchronise=lambda: calls.append(time.perf_counter()))\n"
        "reading = meter.read(); answer(calls=calls, time=reading.time_s)"
    )
    assert len(found["calls"]) == 1
    assert found["calls"][0] < found["time"]


# ------------------------------------------------------------------ no figure where none is due


def test_a_gpu_lost_in_mid_window_gives_no_figure(driver: FakeDriver) -> None:
    found = driver.run(
        """
meter = NvmlMeter(update_period_s=0.02)
meter.read()
pretend(energy_0=15)
answer(error=error_of(meter.read), state=meter.probe().state)
"""
    )
    assert "fallen off the bus" in found["error"]
    assert "fix:" in found["error"]
    assert found["error"].startswith("MeterUnavailableError")
    assert found["state"] == "dead"


def test_a_counter_that_starts_anew_is_an_error_never_negative(driver: FakeDriver) -> None:
    found = driver.run(
        """
meter = NvmlMeter(update_period_s=0.02)
start = meter.read()
pretend(offset_0=-50000)
answer(error=error_of(meter.energy_between, start, meter.read()))
""",
        pretend="power 0 10\n",
    )
    assert "fell by" in found["error"]
    assert "reloaded" in found["error"]


def test_a_frozen_counter_is_dead(driver: FakeDriver) -> None:
    found = driver.run(
        """
ipa_energy.meters.nvml.OBSERVATION_LIMIT_S = 0.2
meter = NvmlMeter(update_period_s=0.02)
start = meter.read()
time.sleep(0.1)
status = NvmlMeter().probe()
answer(error=error_of(meter.energy_between, start, meter.read()), state=status.state,
       reason=status.reason, period=status.update_period_s, fix=status.fix)
""",
        pretend="frozen 0 1\n",
    )
    assert "did not move" in found["error"]
    assert found["state"] == "dead"
    assert "stood still" in found["reason"]
    assert found["period"] is None
    assert "nvml-power" in found["fix"]


@pytest.mark.parametrize("duration_s", [0.0, -1.0])
def test_a_window_without_length_is_refused(duration_s: float) -> None:
    meter: Meter = NvmlMeter(update_period_s=0.02)
    with pytest.raises(MeterUnavailableError, match="no length"):
        meter.energy_between(Reading(5.0, {"gpu-0": 1.0}), Reading(5.0 + duration_s, {"gpu-0": 9}))


FAILURES = [
    ("energy 0 3", "absent", "Volta"),
    ("energy 0 4", "denied", "no permission"),
    ("code 0 4", "denied", "no permission"),
    ("code 0 15", "dead", "fallen off the bus"),
    ("init 0 9", "absent", "not loaded"),
    ("init 0 18", "absent", "different versions"),
    ("init 0 999", "dead", "999"),
    ("count 0 0", "absent", "sees no GPU"),
]


@pytest.fixture(scope="session")
def failed(driver: FakeDriver) -> dict[str, dict[str, str]]:
    """What the meter says of each way to fail, all in one process."""
    found: dict[str, dict[str, str]] = driver.run(
        """
found = {}
for case in json.loads(os.environ["CASES"]):
    Path(os.environ["FAKE_NVML"]).write_text(case + "\\n")
    meter = NvmlMeter()
    status = meter.probe()
    found[case] = dict(state=status.state, reason=status.reason, error=error_of(meter.read))
answer(**found)
""",
        CASES=json.dumps([case for case, _, _ in FAILURES]),
    )
    return found


@pytest.mark.parametrize(("pretend", "state", "words"), FAILURES)
def test_errors_of_the_driver_are_said_in_words(
    failed: dict[str, dict[str, str]], pretend: str, state: str, words: str
) -> None:
    assert failed[pretend]["state"] == state
    assert words in failed[pretend]["reason"]
    assert words in failed[pretend]["error"]


def test_an_old_driver_without_the_call_is_told_apart(old_driver: FakeDriver) -> None:
    found = old_driver.run(
        "s = NvmlMeter().probe(); answer(state=s.state, reason=s.reason, fix=s.fix)"
    )
    assert found["state"] == "absent"
    assert "too old" in found["reason"]
    assert "newer" in found["fix"]


def test_without_a_driver_it_is_absent_with_the_fix() -> None:
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py (pip install ipa-energy[nvml])")
    if _has_driver():
        pytest.skip("there is an NVIDIA driver here")
    status = NvmlMeter().probe()
    assert (status.state, status.update_period_s, status.domains) == ("absent", None, ())
    assert "libnvidia-ml.so.1" in status.reason
    assert status.fix is not None
    with pytest.raises(MeterUnavailableError, match="libnvidia-ml"):
        NvmlMeter().read()


def test_without_nvidia_ml_py_it_is_absent_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    status = NvmlMeter().probe()
    assert status.state == "absent"
    assert status.fix == "pip install 'ipa-energy[nvml]'"


def test_importing_the_meter_loads_no_nvml() -> None:
    code = "import sys, ipa_energy.meters.nvml; print('pynvml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ------------------------------------------------------------------ which GPUs

SECOND = "GPU-000000a1-1111-2222-3333-444444444444"


CHOICES: list[tuple[list[int | str] | None, dict[str, str], list[str]]] = [
    (None, {}, ["gpu-0", "gpu-1", "gpu-2"]),
    ([1], {}, ["gpu-1"]),
    ([2, 0], {}, ["gpu-2", "gpu-0"]),
    ([SECOND], {}, ["gpu-1"]),
    (["GPU-000000a2"], {}, ["gpu-2"]),
    (None, {"CUDA_VISIBLE_DEVICES": "2,1"}, ["gpu-2", "gpu-1"]),
    (None, {"CUDA_VISIBLE_DEVICES": f" {SECOND} "}, ["gpu-1"]),
    (None, {"CUDA_VISIBLE_DEVICES": "1,-1,2"}, ["gpu-1"]),
    ([0], {"CUDA_VISIBLE_DEVICES": "1"}, ["gpu-0"]),
]

REFUSALS: list[tuple[list[int | str] | None, dict[str, str], str]] = [
    ([3], {}, "there is no GPU 3"),
    ([-1], {}, "there is no GPU -1"),
    ([1, 1], {}, "twice"),
    (["GPU-ffff"], {}, "fits no GPU"),
    (["GPU-"], {}, "fits 3 GPUs"),
    (["MIG-0123"], {}, "MIG slice"),
    ([], {}, "no GPU is selected"),
    (None, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is empty"),
    (None, {"CUDA_VISIBLE_DEVICES": "7"}, "there is no GPU 7"),
    (None, {"CUDA_VISIBLE_DEVICES": "MIG-0123"}, "MIG slice"),
]


@pytest.fixture(scope="session")
def selected(driver: FakeDriver) -> dict[str, str]:
    """Domains, or the error, of each choice among three GPUs, all in one process."""
    found: dict[str, str] = driver.run(
        """
found = {}
for devices, environ in json.loads(os.environ["CASES"]):
    meter = NvmlMeter(devices, environ=environ)
    found[repr((devices, environ))] = error_of(lambda: [gpu.domain for gpu in meter.gpus])
answer(**found)
""",
        pretend="count 0 3\n",
        CASES=json.dumps([case[:2] for case in [*CHOICES, *REFUSALS]]),
    )
    return found


@pytest.mark.parametrize(("devices", "environ", "expected"), CHOICES)
def test_gpus_are_chosen_by_index_uuid_or_environment(
    selected: dict[str, str],
    devices: list[int | str] | None,
    environ: dict[str, str],
    expected: list[str],
) -> None:
    assert selected[repr((devices, environ))] == repr(expected)


@pytest.mark.parametrize(("devices", "environ", "words"), REFUSALS)
def test_a_choice_that_fits_nothing_is_refused(
    selected: dict[str, str], devices: list[int | str] | None, environ: dict[str, str], words: str
) -> None:
    assert "Error" in selected[repr((devices, environ))]
    assert words in selected[repr((devices, environ))]


def test_indices_of_cuda_are_refused_where_its_order_may_differ(driver: FakeDriver) -> None:
    found = driver.run(
        """
def gpus(**environ):
    return error_of(lambda: [gpu.domain for gpu in NvmlMeter(environ=environ).gpus])

answer(refused=gpus(CUDA_VISIBLE_DEVICES="1"),
       ordered=gpus(CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID"),
       by_uuid=gpus(CUDA_VISIBLE_DEVICES="GPU-000000a1"))
""",
        pretend="count 0 2\nmodel 0 100\nmodel 1 200\n",
    )
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in found["refused"]
    assert (found["ordered"], found["by_uuid"]) == ("['gpu-1']", "['gpu-1']")


def test_the_environment_is_the_process_own(driver: FakeDriver) -> None:
    found = driver.run(
        "answer(domains=[gpu.domain for gpu in NvmlMeter().gpus])",
        pretend="count 0 3\n",
        CUDA_VISIBLE_DEVICES="2",
    )
    assert found["domains"] == ["gpu-2"]


def test_a_split_gpu_is_measured_whole_only_if_named(driver: FakeDriver) -> None:
    found = driver.run(
        """
named = NvmlMeter([0], update_period_s=0.02).probe()
answer(error=error_of(NvmlMeter().read), state=named.state, reason=named.reason)
""",
        pretend="mig 0 1\n",
    )
    assert "MIG slices" in found["error"]
    assert "GPU-000000a0" in found["error"]
    assert found["state"] == "measured"
    assert "all MIG slices together: gpu-0" in found["reason"]


def test_a_gpu_whose_counter_leaps_gives_no_figure(driver: FakeDriver) -> None:
    found = driver.run(
        """
meter = NvmlMeter(update_period_s=0.02)
start = meter.read(); time.sleep(0.1)
pretend(offset_0=65_536_000)
answer(error=error_of(meter.energy_between, start, meter.read()))
"""
    )
    assert "no power explains" in found["error"]


def test_the_advice_about_slices_leads_to_the_whole_gpu(driver: FakeDriver) -> None:
    code = """
def gpus(**environ):
    return error_of(lambda: [gpu.domain for gpu in NvmlMeter(environ=environ).gpus])

answer(all=gpus(), index=gpus(CUDA_VISIBLE_DEVICES="0"), slice=gpus(CUDA_VISIBLE_DEVICES="MIG-0"),
       named=gpus(CUDA_VISIBLE_DEVICES="GPU-000000a0-1111-2222-3333-444444444444"))
"""
    found = driver.run(code, pretend="mig 0 1\n")
    uuid = "GPU-000000a0-1111-2222-3333-444444444444"
    for refused in (found["all"], found["index"]):
        assert f"CUDA_VISIBLE_DEVICES={uuid}" in refused
    assert "CUDA_VISIBLE_DEVICES=GPU-" in found["slice"]
    assert found["named"] == "['gpu-0']"


MEASURE = """
import contextlib, io
from ipa_energy.cli import main
out = io.StringIO()
with contextlib.redirect_stdout(out):
    main(["measure", "--idle", "0", "--json", "--", "sleep", "2"])
found = json.loads(out.getvalue())
answer(meter=found["meter"], power_w=found["power_w"], warnings=found["warnings"])
"""


@pytest.mark.parametrize(
    ("pretend", "environ", "words"),
    [
        ("mig 0 1\n", {"CUDA_VISIBLE_DEVICES": "MIG-0aaa1111"}, "MIG slice"),
        ("mig 0 1\n", {}, "split into MIG slices"),
        ("energy 0 3\nnopower 0 1\n", {}, "no such counter"),
    ],
)
def test_a_gpu_that_cannot_be_counted_is_not_left_out_without_a_word(
    driver: FakeDriver, pretend: str, environ: dict[str, str], words: str
) -> None:
    found = driver.run(MEASURE, pretend=pretend, **environ)
    (warning,) = [each for each in found["warnings"] if "GPU is there" in each]
    assert "not counted" in warning
    assert words in warning
    assert "use the meter nvml-power" not in warning  # which does not work either


@pytest.mark.parametrize("environ", [{"CUDA_VISIBLE_DEVICES": ""}])
def test_a_gpu_that_is_hidden_on_purpose_is_not_named(
    driver: FakeDriver, environ: dict[str, str]
) -> None:
    found = driver.run(MEASURE, **environ)
    assert not [each for each in found["warnings"] if "GPU" in each]


def test_the_processor_of_a_module_is_not_added_to_it(driver: FakeDriver) -> None:
    name = "NVIDIA GH200 480GB"
    found = driver.run(MEASURE, pretend="power 0 300\nperiod 0 5\n", FAKE_GPU_NAME=name)
    assert found["meter"] == "nvml"
    assert found["power_w"] == pytest.approx(300, rel=0.03)
    assert any("processor is not added" in each for each in found["warnings"])
    refused = driver.run(
        "from ipa_energy.meters.discovery import open_meter\n"
        "answer(error=error_of(open_meter, 'nvml+cpu-time'), reason=NvmlMeter().probe().reason)",
        FAKE_GPU_NAME=name,
    )
    assert "counts the joules of CPU twice" in refused["error"]
    assert "whole module" in refused["reason"]


def test_a_lost_gpu_does_not_disturb_the_others(driver: FakeDriver) -> None:
    found = driver.run(
        "answer(other=[g.domain for g in NvmlMeter([1]).gpus], "
        "lost=error_of(lambda: NvmlMeter([0]).gpus))",
        pretend="count 0 2\ncode 0 15\n",
    )
    assert found["other"] == ["gpu-1"]
    assert "fallen off the bus" in found["lost"]


def test_a_closed_meter_opens_again(driver: FakeDriver) -> None:
    found = driver.run(
        "meter = NvmlMeter(); meter.close(); meter.read(); meter.close(); meter.close()\n"
        "answer(counters=list(meter.read().counters))"
    )
    assert found["counters"] == ["gpu-0"]


def test_a_forked_child_opens_its_own_session(driver: FakeDriver) -> None:
    found = driver.run(
        """
meter = NvmlMeter(update_period_s=0.02)
meter.read()
child = os.fork()
if child == 0:
    meter.read()
    os._exit(0)
answer(status=os.waitpid(child, 0)[1])
"""
    )
    assert found["status"] == 0


@pytest.mark.parametrize("period_s", [0.0, -1.0, float("nan")])
def test_an_impossible_period_is_refused(period_s: float) -> None:
    with pytest.raises(ConfigError, match="update_period_s"):
        NvmlMeter(update_period_s=period_s)


# ------------------------------------------------------------------ power readings, added up


def test_power_readings_make_an_estimate(driver: FakeDriver) -> None:
    found = driver.run(
        """
meter = NvmlPowerMeter(sample_period_s=0.01)
start = meter.read(); time.sleep(0.2); end = meter.read()
energy = meter.energy_between(start, end)
status = meter.probe()
meter.close()
answer(power=energy.power_w, domains=energy.domains, quality=energy.quality, meter=energy.meter,
       state=status.state)
""",
        pretend="count 0 2\npower 0 40\npower 1 60\n",
    )
    assert found["power"] == pytest.approx(100.0)
    assert found["domains"]["gpu-1"] == pytest.approx(1.5 * found["domains"]["gpu-0"])
    assert (found["meter"], found["quality"], found["state"]) == (
        "nvml-power",
        "estimated",
        "estimated",
    )


def test_power_that_rises_between_two_readings_is_drawn_as_a_straight_line(
    driver: FakeDriver,
) -> None:
    found = driver.run(
        """
meter = NvmlPowerMeter(sample_period_s=0.99)  # nothing is sampled but by the two reads
start = meter.read()
pretend(power_0=300)
time.sleep(0.02)
end = meter.read()
answer(power=meter.energy_between(start, end).power_w)
""",
        pretend="power 0 100\n",
    )
    assert found["power"] == pytest.approx((100 + 300) / 2)


def test_power_works_where_there_is_no_energy_counter(old_driver: FakeDriver) -> None:
    found = old_driver.run(
        "meter = NvmlPowerMeter(); a = meter.read(); time.sleep(0.02); b = meter.read()\n"
        "answer(power=meter.energy_between(a, b).power_w)"
    )
    assert found["power"] == pytest.approx(100.0)


def test_power_of_a_lost_gpu_is_an_error_and_can_start_anew(driver: FakeDriver) -> None:
    found = driver.run(
        """
meter = NvmlPowerMeter(sample_period_s=0.01)
first = meter.read()
pretend(code_0=15)
time.sleep(0.05)
error = error_of(meter.read)
pretend(code_0=0)
second = meter.read(); time.sleep(0.02); third = meter.read()
answer(error=error, power=meter.energy_between(second, third).power_w)
"""
    )
    assert "fallen off the bus" in found["error"]
    assert found["power"] == pytest.approx(100.0)


def test_a_board_that_tells_no_watts_gives_no_figure(driver: FakeDriver) -> None:
    found = driver.run(
        "meter = NvmlPowerMeter(); a = meter.read(); time.sleep(0.01)\n"
        "answer(error=error_of(meter.energy_between, a, meter.read()))",
        pretend="power 0 0\n",
    )
    assert "told 0 W" in found["error"]


# ------------------------------------------------------------------ a real one


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


@pytest.mark.gpu
def test_a_real_gpu_draws_between_one_and_a_thousand_watts() -> None:
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py (pip install ipa-energy[nvml])")
    if not _has_driver():
        pytest.skip("needs an NVIDIA GPU: libnvidia-ml.so.1 is not found")
    meter = NvmlMeter()
    status = meter.probe()
    assert status.state == "measured", status.reason
    assert status.update_period_s is not None
    assert 0.0005 < status.update_period_s < 1.0
    start = meter.read()
    time.sleep(2.0)
    energy = meter.energy_between(start, meter.read())
    for joules in energy.domains.values():
        assert 1.0 < joules / energy.duration_s < 1500.0
