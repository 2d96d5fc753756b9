"""One trial in a real pinned process, and what is computed from several."""

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import short_trials

from ipa_energy.errors import MeterUnavailableError, ServingError
from ipa_energy.interval import half_width_95
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.meters.cpu_time import CoreTimes, load_between, read_core_times
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profiling.entry_rows import profile_row
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.replica_group import Replica, ReplicaSpec
from ipa_energy.profiling.replica_meter import MeterPart, cpu_time_choice
from ipa_energy.profiling.trial import TrialSettings, run_trial
from ipa_energy.testing import FakeMeter

pytestmark = pytest.mark.measures

PIPELINE = str(Path(__file__).with_name("fake_pipeline.py"))
CORE = max(os.sched_getaffinity(0))
MODEL = PowerModel(idle_w=2.0, max_w=10.0, cores=2, source="made up for the test")
SHORT = replace(
    short_trials.SHORT,
    min_window_s=0.1,
    max_window_s=0.5,
    min_batches=5,
    idle_s=0.02,
    warm_up_max_s=0.5,
)


def spec(variant, batch=1, **changes):
    return ReplicaSpec(PIPELINE, "work", variant, batch, (CORE,), **changes)


ONE = Entry("work", "steady", "cpu", 1, 1)
CPU_TIME = cpu_time_choice(MODEL).parts


def settings(**changes):
    return TrialSettings(**{name: getattr(SHORT, name) for name in SHORT.__slots__} | changes)


def test_trial_of_known_work_has_its_cpu_time_and_joules():
    found = run_trial(spec("steady", batch=4), CPU_TIME, SHORT)
    batches = len(found.latencies_s)
    # 2 ms of CPU for each of 4 requests, at (10 − 2) / 2 = 4 J per CPU second.
    assert batches >= 5
    assert found.cpu_s == pytest.approx(0.008 * batches, rel=0.25)
    assert found.dynamic_energy_j == pytest.approx(4.0 * found.cpu_s, rel=0.05)
    assert found.idle_power_w == pytest.approx(1.0, rel=0.1)
    assert min(found.latencies_s) >= 0.0079
    assert found.busy_s >= sum(found.latencies_s) >= 0.0079 * batches
    assert found.busy_s >= SHORT.min_window_s
    assert (found.meter, found.quality) == ("cpu-time", "estimated")
    assert found.peak_memory_bytes > 1e6


def test_three_times_the_work_takes_three_times_the_joules():
    once = profile_row(ONE, [run_trial(spec("steady"), CPU_TIME, SHORT)], 0.5)
    thrice = profile_row(ONE, [run_trial(spec("slower"), CPU_TIME, SHORT)], 0.5)
    assert thrice.dynamic_energy_j / once.dynamic_energy_j == pytest.approx(3.0, rel=0.25)


def test_threads_that_spin_after_a_batch_are_not_idle_power():
    # Idle is 2 W / 2 cores = 1 W; 0.3 s of a spinning thread would be 4 W more.
    found = run_trial(spec("spinner"), CPU_TIME, settings(idle_s=0.1))
    assert found.idle_power_w == pytest.approx(1.0, rel=0.05)


def test_threads_that_never_stop_are_told(caplog):
    run_trial(spec("spinner"), CPU_TIME, settings(idle_s=0.1, quiet_max_s=0.1))
    assert "of its cores 0.1 s after its last batch" in caplog.text


def test_replica_runs_on_the_cores_of_its_allocation_only(tmp_path):
    seen = tmp_path / "seen"
    run_trial(spec("steady", weights=str(seen)), CPU_TIME, SHORT)
    assert set(seen.read_text().splitlines()) == {f"steady [{CORE}] 1"}


def test_warm_up_lasts_until_batch_times_stop_falling():
    # Batch k takes 2·max(1, 12 − 2k) ms: falling until the sixth, then flat for three.
    with Replica(spec("falling"), timeout_s=20.0) as replica:
        replica.load()
        answer = replica.run("warm_up", min_s=0.0, max_s=5.0)
    assert answer["settled"]
    assert len(answer["latencies_s"]) >= 9
    assert answer["latencies_s"][0] > 4 * min(answer["latencies_s"])


def test_warm_up_is_bounded_and_says_so():
    with Replica(spec("sleepy"), timeout_s=20.0) as replica:
        replica.load()
        answer = replica.run("warm_up", min_s=0.0, max_s=0.015)
    assert len(answer["latencies_s"]) == 1
    assert not answer["settled"]


def test_window_never_starts_a_batch_that_would_pass_its_limit():
    with Replica(spec("sleepy"), timeout_s=20.0) as replica:
        replica.load()
        answer = replica.run("window", min_s=1.0, min_batches=100, max_s=0.055)
        assert 1 <= len(answer["latencies_s"]) <= 5
        answer = replica.run("window", min_s=1.0, min_batches=100, max_s=0.001)
        assert len(answer["latencies_s"]) == 1


def test_loading_has_its_own_time_and_joules():
    # "chatty" uses 0.2 s of CPU to load, at 4 J each second; Python's own start comes on top.
    found = run_trial(spec("chatty"), CPU_TIME, SHORT)
    assert found.load_s >= 0.2
    assert 0.8 <= found.load_energy_j <= 2.4


def test_what_libraries_print_does_not_reach_the_answers():
    assert run_trial(spec("chatty"), CPU_TIME, SHORT).latencies_s


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ("raises", "bad input tensor"),
        ("exits", "exit status 3.*out of something"),
        ("killed", "signal 9"),
        ("short", "batch of 2 with 1 items"),
        ("nothing", "NoneType"),
        ("no-build", "no such network"),
        ("late", "only now"),
        ("unknown", "no variant work/unknown"),
    ],
)
def test_failing_runner_is_named_with_its_reason(variant, says):
    with pytest.raises(ServingError, match=f"(?s)work/{variant} 1c b2.*{says}"):
        run_trial(spec(variant, batch=2), CPU_TIME, SHORT)


def test_hanging_runner_is_ended_and_named():
    with (
        pytest.raises(ServingError, match="work/hangs 1c b1: no answer for 1 s"),
        Replica(spec("hangs"), timeout_s=1.0) as replica,
    ):
        pid = replica.pid
        replica._timeout_s = 20.0
        replica.load()
        replica._timeout_s = 1.0
        replica.run("window", min_s=0.1, min_batches=1, max_s=0.1)
    assert not Path(f"/proc/{pid}").exists()


def is_alive(process):
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_replica_does_not_outlive_its_parent():
    code = (
        "from ipa_energy.profiling.replica_group import *\n"
        f"spec = ReplicaSpec({PIPELINE!r}, 'work', 'hangs', 1, ({CORE},))\n"
        "replica = Replica(spec, timeout_s=60); replica.load(); print(replica.pid, flush=True)\n"
        "replica.run('window', min_s=1, min_batches=1, max_s=1)\n"
    )
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, text=True
    )
    replica = Path("/proc") / parent.stdout.readline().strip()
    assert is_alive(replica)
    parent.kill()
    parent.communicate()
    deadline_s = time.monotonic() + 60
    while is_alive(replica):
        assert time.monotonic() < deadline_s, "the replica is still there"
        time.sleep(0.01)


def test_dynamic_joules_are_those_above_idle():
    # A machine-wide meter at a constant 10 W shows no difference between idle and work.
    found = run_trial(spec("steady"), [MeterPart(lambda pid, cores: FakeMeter(10.0))], SHORT)
    assert found.idle_power_w == pytest.approx(10.0)
    assert found.dynamic_energy_j == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(MeterUnavailableError, match="dead"):
        profile_row(ONE, [found], 0.5)


def test_contended_window_is_repeated_then_kept_and_marked():
    calm = run_trial(spec("steady"), CPU_TIME, settings(max_foreign_load=10.0, retries=2))
    assert (calm.contended, calm.repeats) == (False, 0)
    # No window can be as calm as −1000 %: every retry is spent, and the last window is kept.
    busy = run_trial(spec("steady"), CPU_TIME, settings(max_foreign_load=-10.0, retries=2))
    assert (busy.contended, busy.repeats) == (True, 2)
    assert busy.latencies_s


def test_load_of_others_is_busy_time_that_is_not_ours():
    start = CoreTimes(100.0, {0: 10.0, 1: 20.0, 2: 5.0}, {0: 1.0, 1: 1.0, 2: 1.0})
    end = CoreTimes(110.0, {0: 19.0, 1: 26.0, 2: 9.0}, {0: 1.5, 1: 1.0, 2: 1.0})
    load = load_between(start, end, core_ids=(0, 1), own_cpu_s=12.0)
    # Cores 0 and 1: 9 + 6 busy + 0.5 stolen − 12 ours = 3.5 s of 2 × 10 s. Core 2: 4 s of 10 s.
    assert load.foreign == pytest.approx(0.175)
    assert load.neighbour == pytest.approx(0.4)
    assert load_between(start, end, core_ids=(0, 1, 2), own_cpu_s=12.0).neighbour == 0.0


def test_core_times_are_read_as_the_kernel_writes_them(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\n"
        "cpu0 100 200 300 4000 50 6 7 80 90 1\n"
        "cpu12 1 0 0 0 0 0 0 2 0 0\nintr 5\n"
    )
    times = read_core_times(stat)
    # user + nice + system + irq + softirq; guest time is in user already, iowait is idle.
    assert times.busy_s == {0: pytest.approx(6.13), 12: pytest.approx(0.01)}
    assert times.steal_s == {0: pytest.approx(0.8), 12: pytest.approx(0.02)}


def test_summary_of_trials_by_hand(make_trial):
    trials = [
        make_trial(latencies_s=[0.1, 0.3], busy_s=0.4, dynamic_energy_j=4.0),
        make_trial(latencies_s=[0.2, 0.2], busy_s=0.6, dynamic_energy_j=8.0, idle_power_w=2.0),
        make_trial(latencies_s=[0.2], busy_s=0.2, dynamic_energy_j=6.0),
    ]
    found = profile_row(Entry("work", "steady", "cpu", 1, 2), trials, 0.5)
    assert found.latency_avg_s == pytest.approx(0.2)
    # Sorted .1 .2 .2 .2 .3: the 99th percentile is 96 % of the way from the fourth to the fifth.
    assert found.latency_p99_s == pytest.approx(0.296)
    assert found.throughput_rps == pytest.approx(2 * 5 / 1.2)
    # Joules per request 1, 2 and 3: mean 2, standard error 1/√3, t(0.975, 2) = 4.3027.
    assert found.dynamic_energy_j == pytest.approx(2.0)
    assert found.energy_ci95_j == pytest.approx(4.302653 / math.sqrt(3))
    assert found.idle_power_w == 1.33333  # six digits
    assert found.trials == 3


def test_one_trial_has_no_interval(make_trial):
    assert math.isnan(profile_row(ONE, [make_trial()], 0.5).energy_ci95_j)
    assert math.isnan(half_width_95([]))


def test_quick_settings_are_shorter_in_every_way():
    full, quick = TrialSettings(), TrialSettings().quick()
    for name in ("min_window_s", "max_window_s", "min_batches", "warm_up_max_s", "retries"):
        assert getattr(quick, name) < getattr(full, name)


class Shows:
    """A meter that shows given watts, window after window."""

    name, quality, min_window_s = "shows", "measured", 0.0

    def __init__(self, *powers_w):
        self._powers_w = iter(powers_w)

    def read(self):
        return Reading(time.perf_counter(), {})

    def energy_between(self, start, end):
        duration_s = end.time_s - start.time_s
        energy_j = next(self._powers_w) * duration_s
        return Energy(energy_j, duration_s, {"all": energy_j}, self.name, self.quality)


def test_idle_power_is_the_mean_of_before_and_after():
    loading, before, after, window = 50.0, 4.0, 8.0, 20.0  # in the order of the questions
    meter = Shows(loading, before, after, window)
    found = run_trial(spec("steady"), [MeterPart(lambda pid, cores: meter)], SHORT)
    assert found.idle_power_w == pytest.approx(6.0)
    assert found.idle_drift_w == pytest.approx(4.0)
    # 14 W above idle, over a window that begins and ends with the meter's own reads.
    assert found.dynamic_energy_j == pytest.approx(14.0 * found.busy_s, rel=0.2)
