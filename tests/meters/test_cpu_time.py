"""CPU time × power model: the arithmetic by hand, and real processes of known work."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Meter, Reading
from ipa_energy.meters.cpu_time import CpuTimeMeter, process_tree_cpu_s
from ipa_energy.meters.power_model import PowerModel, stated_prior

pytestmark = pytest.mark.measures

MODEL = PowerModel(idle_w=40.0, max_w=200.0, cores=16, source="made up for the test")

SPIN = """
import sys, time
def spin(cpu_s):
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass
"""


def child(code):
    return subprocess.Popen(
        [sys.executable, "-c", SPIN + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def reading(time_s, cpu_s):
    return Reading(time_s, {"cpu_s": cpu_s})


def test_energy_is_affine_in_cpu_seconds_and_reserved_cores():
    meter: Meter = CpuTimeMeter(MODEL, pid=os.getpid(), reserved_cores=4)
    energy = meter.energy_between(reading(10.0, 1.0), reading(14.0, 7.0))
    # 6 CPU seconds × (200 − 40) / 16 = 60 J above idle; 4 s × 40 W × 4/16 = 40 J idle.
    assert energy.domains == {"cpu-dynamic": 60.0, "cpu-idle": 40.0}
    assert energy.energy_j == 100.0
    assert energy.power_w == 25.0
    assert (energy.meter, energy.quality) == ("cpu-time", "estimated")


def test_full_machine_draws_max_and_idle_machine_idle():
    meter = CpuTimeMeter(MODEL, pid=os.getpid(), reserved_cores=16)
    assert meter.energy_between(reading(0, 0), reading(1, 16)).power_w == pytest.approx(200.0)
    assert meter.energy_between(reading(0, 0), reading(1, 0)).power_w == pytest.approx(40.0)


@pytest.mark.parametrize(("duration_s", "cpu_s"), [(0.0, 0.0), (-1.0, 0.0), (1.0, -0.5)])
def test_window_without_length_or_with_falling_cpu_time_is_refused(duration_s, cpu_s):
    meter = CpuTimeMeter(MODEL, pid=os.getpid(), reserved_cores=1)
    with pytest.raises(MeterUnavailableError):
        meter.energy_between(reading(5.0, 9.0), reading(5.0 + duration_s, 9.0 + cpu_s))


def test_counts_a_process_to_a_fraction_of_a_tick():
    process = child(
        "sys.stdin.readline(); spin(0.2); print(time.process_time(), flush=True);"
        "sys.stdin.readline()"
    )
    try:
        process.stdin.write(b"\n")
        process.stdin.flush()
        own_s = float(process.stdout.readline())
        assert process_tree_cpu_s(process.pid) == pytest.approx(own_s, abs=0.005)
    finally:
        process.kill()
        process.communicate()


def test_counts_living_and_reaped_descendants():
    code = (
        "import subprocess\n"
        "source = " + repr(SPIN) + "\n"
        "subprocess.run([sys.executable, '-c', source + 'spin(0.15)'])\n"
        "live = subprocess.Popen([sys.executable, '-c', source +"
        " 'spin(0.15); print(flush=True); time.sleep(60)'], stdout=subprocess.PIPE)\n"
        "live.stdout.readline(); print(live.pid, flush=True); sys.stdin.readline(); live.kill();"
        " live.wait()"
    )
    process = child(code)
    try:
        process.stdout.readline()
        own_s = time.clock_gettime((~process.pid << 3) | 2)
        assert process_tree_cpu_s(process.pid) - own_s >= 0.3 - 0.02
    finally:
        process.communicate(b"\n")


def test_sleeping_costs_its_idle_share_only():
    process = child("print(flush=True); sys.stdin.readline()")
    try:
        process.stdout.readline()
        meter = CpuTimeMeter(MODEL, pid=process.pid, reserved_cores=2)
        start = meter.read()
        time.sleep(0.2)
        energy = meter.energy_between(start, meter.read())
        assert energy.power_w == pytest.approx(40.0 * 2 / 16, rel=0.02)
    finally:
        process.communicate(b"\n")


def test_a_process_that_is_gone_is_unavailable_not_zero():
    process = child("")
    process.communicate()
    meter = CpuTimeMeter(MODEL, pid=process.pid, reserved_cores=1)
    with pytest.raises(MeterUnavailableError, match=str(process.pid)):
        meter.read()


@pytest.mark.parametrize("cores", [0, -1, 17, math.nan])
def test_reserved_cores_must_fit_the_machine(cores):
    with pytest.raises(ConfigError, match="reserved cores"):
        CpuTimeMeter(MODEL, pid=1, reserved_cores=cores)


def test_model_survives_json(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(MODEL.to_json()))
    assert PowerModel.load(path) == MODEL


def test_an_uncalibrated_model_says_50_percent():
    assert MODEL.relative_error == 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"idle_w": -1},
        {"idle_w": 200.0},
        {"max_w": math.nan},
        {"max_w": math.inf},
        {"max_w": "200"},
        {"max_w": True},
        {"cores": 0},
        {"cores": 1.5},
        {"source": " "},
        {"source": None},
        {"relative_error": -0.1},
        {"watts": 3},
    ],
)
def test_impossible_model_is_refused(change):
    with pytest.raises(ConfigError):
        PowerModel.from_json(MODEL.to_json() | change, where="model.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"idle_w": 1}', "\xff"])
def test_file_that_is_no_model_is_refused_with_its_path(tmp_path, text):
    path = tmp_path / "model.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"model\.json"):
        PowerModel.load(path)


def test_missing_model_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json"):
        PowerModel.load(tmp_path / "none.json")


def test_prior_covers_the_processors_it_names_within_its_error():
    model = stated_prior(8)
    per_cpu_w = model.max_w / model.cores
    for tdp_w, threads in ((360, 192), (165, 48), (280, 128)):
        assert abs(per_cpu_w - tdp_w / threads) <= model.relative_error * per_cpu_w
    assert "not calibrated" in model.source


def test_bundled_power_model_is_what_its_source_says():
    root = Path(__file__).parents[2]
    model = PowerModel.load(root / "configs/profiles/power-epyc-9004-2vcpu.json")
    per_vcpu_w = model.max_w / model.cores
    # A hardware thread and a whole core of an EPYC 9654 both lie within the stated error.
    for reading_w in (360 / 192, 360 / 96):
        assert abs(per_vcpu_w - reading_w) <= model.relative_error * per_vcpu_w
    assert 0.13 <= model.idle_w / model.max_w <= 0.40
