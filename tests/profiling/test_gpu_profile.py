"""Whole profiles of entries on a fake GPU: real processes, the real nvidia-ml-py, a fake driver.

The GPU draws 50 W whatever happens, and 0.5 J more for each request. A batch takes 10 ms.
"""

import json
from pathlib import Path

import pytest
from fake_nvml import build_driver

from ipa_energy.profile_table.profile_csv import read_profile

pytestmark = pytest.mark.measures

PIPELINE = str(Path(__file__).with_name("fake_gpu_pipeline.py"))
GPU = "power 0 50\npower 1 50\nperiod 0 1\n"
CODE = f"""
import dataclasses
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.testing import FakeMeter
from ipa_energy.profiling.gpus import find_gpus
from ipa_energy.profiling.replica_meter import cpu_time_choice, gpu_choice, joined, machine_choice
from ipa_energy.profiling.trial_windows import TrialSettings
from ipa_energy.profiling.profile_sweep import profile_pipeline

MODEL = PowerModel(idle_w=2.0, max_w=10.0, cores=2, source="made up for the test")
SETTINGS = TrialSettings(
    min_window_s=0.3, max_window_s=0.6, min_batches=5, idle_s=0.1, warm_up_min_s=0.0,
    warm_up_max_s=0.05, max_foreign_load=10.0, timeout_s=60.0, settle_slice_s=0.05,
    settle_max_s=0.5,
)

class Counter(NvmlMeter):
    # Its step is known, and its figures are those of their moment: where others held a read up, it
    # reads again.
    def __init__(self, uuids):
        super().__init__(uuids, update_period_s=0.001)

    def read(self):
        while True:
            start_s = time.perf_counter()
            reading = super().read()
            if time.perf_counter() - start_s < 0.001:
                return reading

def profile(shares=(1.0,), replicas=(1,), meter=None, **changes):
    gpus = find_gpus(shares, replicas)
    meter = meter or joined([gpu_choice(Counter(gpus.uuids), len(gpus.uuids)),
                             cpu_time_choice(MODEL)])
    arguments = dict(
        out=Path(os.environ["OUT"]), meter=meter, gpus=gpus, gpu_shares=shares,
        replicas=replicas, variants=["works"], batches=(2,), trials=1, settings=SETTINGS,
    )
    return profile_pipeline({PIPELINE!r}, **(arguments | changes))

def summary(sweep):
    return dict(measured=len(sweep.rows), kept=len(sweep.kept), remaining=sweep.remaining,
                failures=[failure.reason for failure in sweep.failures])
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    return build_driver(tmp_path_factory.mktemp("gpu_profile"))


@pytest.fixture
def run(driver, tmp_path):
    """Runs code that profiles into ``OUT``; what it answers."""

    def call(code, *, pretend=GPU, **environ):
        places = {"OUT": str(tmp_path / "p.csv"), "FAKE_NVML_WORK": str(tmp_path / "work")}
        return driver.run(CODE + code, pretend=pretend, **places, **environ)

    return call


def meta_of(folder):
    return json.loads((folder / "p.meta.json").read_text())


def test_gpu_joules_are_those_of_the_work_and_parts_are_kept(run, tmp_path):
    seen = tmp_path / "seen"
    seen.touch()
    found = run(f"answer(**summary(profile(trials=2, weights={{'works': {str(seen)!r}}})))")
    assert found == {"measured": 1, "kept": 0, "remaining": 0, "failures": []}
    (row,) = read_profile(tmp_path / "p.csv")
    assert (row.hardware, row.cpu_cores, row.gpu_share, row.batch) == ("fake-gpu-100", 1, 1.0, 2)
    assert (row.meter, row.quality) == ("nvml+cpu-time", "estimated")
    (label, entry), *_ = meta_of(tmp_path)["entries"].items()
    assert label == "work/works fake-gpu-100 1c+1g b2"
    gpu, cpu = entry["parts"]["nvml"], entry["parts"]["cpu-time"]
    assert (gpu["quality"], cpu["quality"]) == ("measured", "estimated")
    assert gpu["dynamic_j_per_request"] == pytest.approx(0.5, rel=0.02)
    assert gpu["idle_power_w"] == pytest.approx(50.0, rel=0.02)
    assert gpu["empty_power_w"] == pytest.approx(50.0, rel=0.02)
    assert cpu["idle_power_w"] == pytest.approx(1.0, rel=0.2)
    assert "empty_power_w" not in cpu
    assert row.dynamic_energy_j == pytest.approx(
        gpu["dynamic_j_per_request"] + cpu["dynamic_j_per_request"], rel=1e-4
    )
    assert row.idle_power_w == pytest.approx(gpu["idle_power_w"] + cpu["idle_power_w"], rel=1e-4)
    assert row.joules_per_request == pytest.approx(
        row.dynamic_energy_j + row.idle_power_w / row.load_rps, rel=1e-4
    )
    assert entry["peak_gpu_memory_bytes"] == 123_000_000
    assert len(entry["windows"][0]["settle_s"]) == 3  # before, after, and the empty GPU
    assert set(entry["windows"][0]["parts_j_per_request"]) == {"nvml", "cpu-time"}
    assert set(seen.read_text().splitlines()) == {"cuda GPU-000000a0-1111-2222-3333-444444444444 -"}


def test_meta_says_what_was_measured_with_what(run, tmp_path):
    run("answer(**summary(profile()))")
    meta = meta_of(tmp_path)
    assert meta["meter"]["parts"]["nvml"]["quality"] == "measured"
    assert meta["meter"]["parts"]["cpu-time"]["power_model"]["max_w"] == 10.0
    assert meta["gpu"]["name"] == "Fake GPU 100"
    assert meta["gpu"]["as_the_models_see_it"]["multiprocessors"] == 100
    assert meta["settings"]["settle_max_s"] == 0.5
    placements = meta["sessions"][0]["placements"]
    assert [len(cores) for cores in placements["1c ×1"]["core_ids"]] == [1]
    assert meta["sessions"][0]["topology"]["cpus"] >= 1


def test_each_precision_is_an_option_of_its_own(run, tmp_path):
    found = run("answer(**summary(profile(precisions=('float32', 'float16'))))")
    assert found == {"measured": 2, "kept": 0, "remaining": 0, "failures": []}
    half, whole = sorted(read_profile(tmp_path / "p.csv"), key=lambda row: row.precision)
    assert (half.precision, whole.precision) == ("float16", "float32")
    parts = {
        label: entry["parts"]["nvml"]["dynamic_j_per_request"]
        for label, entry in meta_of(tmp_path)["entries"].items()
    }
    assert [label.split()[-1] for label in sorted(parts)] == ["float16", "float32"]
    assert [parts[label] for label in sorted(parts)] == pytest.approx([0.25, 0.5], rel=0.02)
    again = run("answer(**summary(profile(precisions=('float32', 'float16'), resume=True)))")
    assert (again["measured"], again["kept"]) == (0, 2)
    said = run("answer(said=error_of(lambda: profile(precisions=('float8',))))")["said"]
    assert "cannot be built in float8; allowed: float32, float16" in said


def test_replicas_share_a_gpu_and_its_idle_watts(run, tmp_path):
    found = run(
        "import os\n"
        "if len(os.sched_getaffinity(0)) < 2: answer(few=True); sys.exit()\n"
        "answer(**summary(profile(shares=(0.5,), replicas=(1, 2))))",
        FAKE_CUDA="mps",
    )
    if "few" in found:
        pytest.skip("replicas at once need two CPUs")
    one, two = sorted(read_profile(tmp_path / "p.csv"), key=lambda row: row.replicas)
    assert (one.gpu_share, two.gpu_share) == (0.5, 0.5)
    entries = meta_of(tmp_path)["entries"]
    for label in ("work/works fake-gpu-100 1c+0.5g b2", "work/works fake-gpu-100 1c+0.5g b2 ×2"):
        gpu = entries[label]["parts"]["nvml"]
        assert gpu["idle_power_w"] == pytest.approx(25.0, rel=0.05)
        assert gpu["dynamic_j_per_request"] == pytest.approx(0.5, rel=0.05)
    assert two.load_rps == pytest.approx(2 * two.throughput_rps, rel=1e-4)


def test_two_gpus_hold_a_replica_each(run, tmp_path):
    found = run(
        "if len(os.sched_getaffinity(0)) < 2: answer(few=True); sys.exit()\n"
        "answer(**summary(profile(replicas=(2,))))",
        pretend=GPU + "count 0 2\n",
    )
    if "few" in found:
        pytest.skip("replicas at once need two CPUs")
    gpu = next(iter(meta_of(tmp_path)["entries"].values()))["parts"]["nvml"]
    assert gpu["waiting_power_w"] == pytest.approx(100.0, rel=0.05)
    assert gpu["idle_power_w"] == pytest.approx(50.0, rel=0.05)
    assert gpu["dynamic_j_per_request"] == pytest.approx(0.5, rel=0.05)
    assert {path.name for path in tmp_path.glob("work.*")} == {"work.0", "work.1"}


def test_entries_on_cpus_stand_beside_those_on_the_gpu(run, tmp_path):
    found = run("answer(**summary(profile(shares=(0.0, 1.0))))")
    assert found["measured"] == 2
    rows = {row.gpu_share: row for row in read_profile(tmp_path / "p.csv")}
    assert (rows[0.0].hardware, rows[0.0].meter) == ("cpu", "cpu-time")
    assert rows[0.0].idle_power_w == pytest.approx(1.0, rel=0.2)  # nothing of the GPU's
    assert rows[1.0].meter == "nvml+cpu-time"


def test_replicas_on_cpus_see_no_gpu(run, tmp_path):
    seen = tmp_path / "seen"
    seen.touch()
    run(f"answer(**summary(profile(shares=(0.0, 1.0), weights={{'works': {str(seen)!r}}})))")
    assert "cpu - -" in seen.read_text().splitlines()


def test_gpu_meter_alone_is_measured(run, tmp_path):
    run(
        "gpus = find_gpus([1.0], [1])\n"
        "answer(**summary(profile(meter=gpu_choice(Counter(gpus.uuids), 1))))"
    )
    (row,) = read_profile(tmp_path / "p.csv")
    assert (row.meter, row.quality) == ("nvml", "measured")
    assert row.dynamic_energy_j == pytest.approx(0.5, rel=0.02)


def test_counters_of_both_are_measured_together(run, tmp_path):
    run(
        "gpus = find_gpus([1.0], [1])\n"
        "meter = joined([gpu_choice(Counter(gpus.uuids), 1), machine_choice(FakeMeter(8.0))])\n"
        "answer(**summary(profile(meter=meter)))"
    )
    (row,) = read_profile(tmp_path / "p.csv")
    assert (row.meter, row.quality) == ("nvml+fake", "measured")
    parts = next(iter(meta_of(tmp_path)["entries"].values()))["parts"]
    assert parts["fake"]["dynamic_j_per_request"] == pytest.approx(0.0, abs=0.01)
    assert row.dynamic_energy_j == pytest.approx(0.5, rel=0.03)


def test_model_that_did_not_run_on_the_gpu_has_no_row(run, tmp_path):
    found = run("answer(**summary(profile(variants=['shirks'])))")
    assert found["measured"] == 0
    assert "the model did not run on the GPU that is measured" in found["failures"][0]
    assert not (tmp_path / "p.csv").exists()


def test_counter_that_stands_still_gives_no_row_and_stops_nothing(run, tmp_path):
    found = run(
        "answer(**summary(profile()))",
        pretend=GPU + "frozen 0 1\n",
    )
    assert found["measured"] == 0
    assert "did not move" in found["failures"][0]
    assert not (tmp_path / "p.csv").exists()


def test_dead_counter_is_found_before_anything_is_written(run, tmp_path):
    found = run(
        "gpus = find_gpus([1.0], [1])\n"
        "meter = gpu_choice(NvmlMeter(gpus.uuids), 1)\n"
        "answer(said=error_of(lambda: profile(meter=meter)))",
        pretend=GPU + "frozen 0 1\n",
    )
    assert "stood still for 3 s" in found["said"]
    assert [path.name for path in tmp_path.iterdir()] == []


def test_driver_reloaded_in_a_window_costs_that_entry_only(run, tmp_path):
    # The warm-up has at most six batches of 10 ms and the window at least ten more.
    longer = "settings = dataclasses.replace(SETTINGS, min_batches=10, max_window_s=20.0)\n"
    found = run(
        f"{longer}answer(**summary(profile(settings=settings)))",
        pretend=GPU + "offset 0 10000000000\n",
        FAKE_RELOAD="10",
    )
    assert found["measured"] == 0
    assert "fell by" in found["failures"][0]
    found = run(f"{longer}answer(**summary(profile(settings=settings, resume=True)))")
    assert found["measured"] == 1


def test_time_limit_leaves_the_rest_for_resuming(run, tmp_path):
    found = run("answer(**summary(profile(batches=(1, 2, 4), time_limit_s=0.001)))")
    assert (found["measured"], found["remaining"], found["failures"]) == (0, 3, [])
    assert not (tmp_path / "p.csv").exists()
    found = run("answer(**summary(profile(batches=(1, 2, 4), time_limit_s=600.0, resume=True)))")
    assert (found["measured"], found["remaining"]) == (3, 0)
    found = run("answer(**summary(profile(batches=(1, 2, 4), only_changed=True)))")
    assert (found["measured"], found["kept"]) == (0, 3)


def test_another_gpu_or_a_cpu_profile_is_not_mixed_in(run):
    run("answer(**summary(profile()))")
    found = run("answer(said=error_of(lambda: profile(resume=True)))", pretend=GPU + "model 0 7\n")
    assert "gpu: name 'Fake GPU 100', and now it is 'Fake GPU 7'" in found["said"]
    found = run(
        "cpu = dict(gpus=None, gpu_shares=(0.0,), meter=cpu_time_choice(MODEL))\n"
        "answer(said=error_of(lambda: profile(resume=True, **cpu)))"
    )
    assert "gpu {" in found["said"]
    assert "now there is none" in found["said"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("meter=cpu_time_choice(MODEL)", "cpu-time does not count the joules of GPUs"),
        (
            "shares=(0.0, 1.0), meter=gpu_choice(FakeMeter(), 1)",
            "fake counts the joules of GPUs, and this entry uses none",
        ),
        (
            "meter=joined([gpu_choice(FakeMeter(min_window_s=9.0), 1), cpu_time_choice(MODEL)])",
            "windows of at most 0.6 s are too short for fake, which needs 9 s; fix: --window 9",
        ),
    ],
)
def test_meters_that_do_not_fit_are_refused_before_anything_is_written(run, tmp_path, code, says):
    found = run(f"answer(said=error_of(lambda: profile({code})))")
    assert says in found["said"]
    assert list(tmp_path.iterdir()) == []


def test_pipeline_of_cpus_alone_is_refused(run, tmp_path):
    fake = str(Path(__file__).with_name("fake_pipeline.py"))
    found = run(
        "gpus = find_gpus([1.0], [1])\n"
        f"answer(said=error_of(lambda: profile_pipeline({fake!r}, out=Path(os.environ['OUT']),"
        " meter=cpu_time_choice(MODEL), gpus=gpus, gpu_shares=(1.0,))))"
    )
    assert "run on CPUs alone: it has no gpu and no peak_gpu_memory_bytes" in found["said"]


def test_command_line_measures_a_gpu_with_the_best_meters(run, tmp_path, small_pipeline):
    found = run(
        "from ipa_energy.cli import main\n"
        "from contextlib import redirect_stdout; import io\n"
        "text = io.StringIO()\n"
        "with redirect_stdout(text):\n"
        f"    status = main(['profile', {str(small_pipeline)!r}, '--models', {PIPELINE!r},\n"
        "        '--out', os.environ['OUT'], '--gpu', '--variant', 'works', '--batch', '64',\n"
        "        '--quick', '--window', '3', '--json', '--quiet', '--time-limit', '5min'])\n"
        "answer(status=status, document=json.loads(text.getvalue()))",
        XDG_DATA_HOME=str(tmp_path / "data"),
    )
    assert found["status"] == 0, found
    assert (found["document"]["measured"], found["document"]["remaining"]) == (1, 0)
    (row,) = read_profile(tmp_path / "p.csv")
    assert (row.batch, row.gpu_share) == (64, 1.0)
    assert row.meter.startswith("nvml+")
    gpu = next(iter(meta_of(tmp_path)["entries"].values()))["parts"]["nvml"]
    assert gpu["dynamic_j_per_request"] == pytest.approx(0.5, rel=0.02)
