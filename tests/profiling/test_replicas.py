"""Several replicas at once: real processes on cores of their own, and the model against them."""

import dataclasses
import json
import math
import os
from itertools import pairwise
from pathlib import Path

import pytest
import short_trials

from ipa_energy.as_json import or_none
from ipa_energy.errors import ConfigError, ServingError
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profile_table.profile_csv import meta_path, read_profile
from ipa_energy.profiling.entry_rows import at_load, profile_row
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.profile_meta import check_replicas
from ipa_energy.profiling.profile_sweep import profile_pipeline
from ipa_energy.profiling.replica_group import HELD, Replica, ReplicaGroup, ReplicaSpec
from ipa_energy.profiling.replica_meter import MeterPart, cpu_time_choice, machine_choice
from ipa_energy.profiling.trial import run_trial
from ipa_energy.testing import FakeMeter

pytestmark = pytest.mark.measures

PIPELINE = str(Path(__file__).with_name("fake_pipeline.py"))
MODEL = PowerModel(idle_w=2.0, max_w=10.0, cores=2, source="made up for the test")
SHORT = dataclasses.replace(
    short_trials.SHORT,
    min_window_s=0.1,
    max_window_s=0.3,
    min_batches=5,
    idle_s=0.02,
    warm_up_max_s=0.1,
    timeout_s=60.0,
)
# Where the figures of the work itself are looked at: so many batches that what goes on around them
# is little, however slow the machine is.
MANY = dataclasses.replace(SHORT, min_batches=50, max_window_s=20.0)
# A load is held to 5 % of its time: in windows of a second, an ordinary delay is not as long.
LONG = dataclasses.replace(SHORT, min_window_s=1.0, max_window_s=1.5)


@pytest.fixture(scope="module")
def two_cores():
    """Two CPUs that a child may be pinned to."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count()))
        cores = sorted(os.sched_getaffinity(0))
    except OSError:
        cores = sorted(before)
    finally:
        os.sched_setaffinity(0, before)
    if len(cores) < 2:
        pytest.skip("replicas at once need two CPUs")
    return cores[:2]


def specs(cores, variant="steady", **changes):
    return [ReplicaSpec(PIPELINE, "work", variant, 1, (core,), **changes) for core in cores]


CPU_TIME = cpu_time_choice(MODEL).parts
SERVED = str(Path(__file__).parents[1] / "serving/local/served_pipeline.py")


def test_what_is_served_can_be_measured_by_its_handler_after_importing_its_libraries():
    spec = ReplicaSpec(SERVED, "first", "echo", 2, (0,), serving=True)
    with Replica(spec, timeout_s=20.0) as replica:
        replica.prepare()
        assert replica.load() > 0
        assert len(replica.run("paced", batches=3, period_s=0.001)["latencies_s"]) == 3
    with Replica(dataclasses.replace(spec, variant="raises"), timeout_s=20.0) as replica:
        replica.prepare()
        replica.load()  # its own first call is answered
        with pytest.raises(ServingError, match="out of something"):
            replica.run("paced", batches=3, period_s=0.001)
    with (
        Replica(dataclasses.replace(spec, pipeline=PIPELINE), timeout_s=20.0) as replica,
        pytest.raises(ServingError, match="cannot be served: it has no handler"),
    ):
        replica.prepare()


def test_threads_of_a_replica_that_wait_are_told_not_to_spin():
    with Replica(ReplicaSpec(PIPELINE, "work", "steady", 1, (0,)), timeout_s=20.0) as replica:
        replica.load()  # it has answered: its program runs, and the kernel shows its environment
        words = Path(f"/proc/{replica.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_WAIT_POLICY=PASSIVE" in words


def test_replicas_serve_at_the_same_time_on_cores_of_their_own(two_cores, tmp_path):
    seen = tmp_path / "seen"
    found = run_trial(specs(two_cores, weights=str(seen)), CPU_TIME, MANY)
    lines = seen.read_text().splitlines()
    assert set(lines) == {f"steady [{core}] 1" for core in two_cores}
    # Batches of 2 ms of both replicas, in one file in the order in which they ran.
    window = lines[len(found.warm_up_s) :]
    changes = sum(one != other for one, other in pairwise(window))
    assert changes > 2, "one replica after the other"


def test_joules_and_time_are_those_of_all_replicas(two_cores):
    found = run_trial(specs(two_cores), CPU_TIME, MANY)
    batches = len(found.latencies_s)
    assert found.cpu_s == pytest.approx(0.002 * batches, rel=0.3)
    assert found.dynamic_energy_j == pytest.approx(4.0 * found.cpu_s, rel=0.1)
    assert found.idle_power_w == pytest.approx(1.0, rel=0.1)  # of one replica
    assert found.busy_s >= 2 * SHORT.min_window_s


def test_row_of_two_replicas_by_hand(make_trial):
    # 4 batches of 2 requests, 0.4 replica seconds: 20 requests/s each, 40 in all; 1 J a request.
    trial = make_trial(latencies_s=[0.1] * 4, busy_s=0.4, dynamic_energy_j=8.0, idle_power_w=3.0)
    row = profile_row(Entry("work", "steady", "cpu", 1, 2, 2), [trial], 0.5)
    assert (row.replicas, row.throughput_rps, row.load_rps) == (2, 20.0, 40.0)
    assert row.dynamic_energy_j == 1.0
    assert row.joules_per_request == pytest.approx(1.0 + 2 * 3.0 / 40.0)


def test_one_stall_among_hundreds_does_not_put_p99_below_the_mean(make_trial):
    # 999 batches of 1 ms and one of 1 s: the mean is 2 ms, the 99th percentile 1 ms.
    latencies_s = [0.001] * 999 + [1.0]
    trial = make_trial(latencies_s=latencies_s, busy_s=2.0, dynamic_energy_j=8.0)
    row = profile_row(Entry("work", "steady", "cpu", 1, 1), [trial], 0.5)
    assert row.latency_p99_s == row.latency_avg_s == pytest.approx(0.001999)


def test_machine_meter_is_divided_among_the_replicas(two_cores):
    # 10 W whatever happens: all of it is idle, half of the machine's for two of four cores.
    meter = FakeMeter(10.0)
    part = MeterPart(lambda pid, cores: meter, "CPU", shared_by=4)
    found = run_trial(specs(two_cores), [part], SHORT)
    assert found.idle_power_w == pytest.approx(10.0 * 2 / 4 / 2)
    assert found.dynamic_energy_j == pytest.approx(0.0, abs=1e-6)


def test_one_failing_replica_fails_the_trial_by_name(two_cores):
    mixed = [specs(two_cores[:1])[0], specs(two_cores[1:], "late")[0]]
    with pytest.raises(ServingError, match="work/late"):
        run_trial(mixed, CPU_TIME, SHORT)


def test_replicas_that_share_a_core_are_refused(two_cores):
    with pytest.raises(ConfigError, match="share a core"):
        run_trial(specs([two_cores[0]] * 2), CPU_TIME, SHORT)


@pytest.fixture(scope="module")
def finished(two_cores, tmp_path_factory):
    out = tmp_path_factory.mktemp("replicas") / "p.csv"
    result = profile_pipeline(
        PIPELINE,
        out=out,
        meter=cpu_time_choice(MODEL),
        variants=["steady"],
        batches=(1, 2),
        replicas=(1, 2),
        core_ids=two_cores,
        trials=2,
        settings=SHORT,
    )
    return out, result


def test_sweep_holds_rows_of_one_and_of_two(finished):
    out, result = finished
    rows = {(row.batch, row.replicas): row for row in read_profile(out)}
    assert set(rows) == {(1, 1), (1, 2), (2, 1), (2, 2)}
    for row in rows.values():
        assert row.load_rps == pytest.approx(row.replicas * row.throughput_rps, rel=1e-5)
        assert row.joules_per_request == pytest.approx(
            row.dynamic_energy_j + row.replicas * row.idle_power_w / row.load_rps, rel=1e-5
        )
    assert result.failures == ()
    labels = set(json.loads(meta_path(out).read_text())["entries"])
    assert "work/steady cpu 1c b2 ×2" in labels


def test_meta_has_the_models_error_against_them(finished):
    out, result = finished
    meta = json.loads(meta_path(out).read_text())
    check = meta["replica_check"]
    rows = {(row.batch, row.replicas): row for row in read_profile(out)}
    found = check["entries"]["work/steady cpu 1c b2 ×2"]
    one, two = rows[2, 1], rows[2, 2]
    assert found["measured_j"] == two.joules_per_request
    predicted_j = one.dynamic_energy_j + 2 * one.idle_power_w / two.load_rps
    assert found["predicted_j"] == pytest.approx(predicted_j)
    assert found["relative_error"] == pytest.approx(predicted_j / two.joules_per_request - 1)
    assert check["relative_error_max_abs"] == max(
        abs(entry["relative_error"]) for entry in check["entries"].values()
    )
    assert result.replica_check == check


def test_load_time_energy_and_memory_are_surfaced(finished):
    facts = json.loads(meta_path(finished[0]).read_text())["entries"]["work/steady cpu 1c b1 ×2"]
    assert facts["load_s"] > 0
    assert facts["load_energy_j"] is None or facts["load_energy_j"] > 0
    assert facts["peak_memory_bytes"] > 1e6
    (row,) = (r for r in read_profile(finished[0]) if (r.batch, r.replicas) == (1, 2))
    assert row.load_s == facts["load_s"]
    assert or_none(row.load_energy_j) == facts["load_energy_j"]


def test_what_a_load_takes_is_the_median_of_the_trials_that_saw_it(make_trial):
    entry = Entry("work", "steady", "cpu", 1, 1, 1)
    seen = [(9.0, math.nan), (2.0, 5.0), (3.0, -0.5), (2.5, 4.0)]
    trials = [make_trial(load_s=load_s, load_energy_j=joules) for load_s, joules in seen]
    row = profile_row(entry, trials, 0.5)
    assert (row.load_s, row.load_energy_j) == (2.75, 4.0)
    below = profile_row(entry, trials[2:3], 0.5)
    assert below.load_energy_j == 0.0
    assert math.isnan(profile_row(entry, trials[:1], 0.5).load_energy_j)


def test_several_without_one_to_check_against_say_so(finished):
    rows = [row for row in read_profile(finished[0]) if row.replicas == 2]
    check = check_replicas(rows)
    assert all("unchecked" in entry for entry in check["entries"].values())
    assert check["relative_error_mean_abs"] is None


def test_check_of_known_rows_by_hand(finished):
    one = dataclasses.replace(
        read_profile(finished[0])[0],
        replicas=1,
        dynamic_energy_j=2.0,
        idle_power_w=3.0,
        throughput_rps=10.0,
        latency_avg_s=0.1,
        latency_p99_s=0.1,
    )
    two = dataclasses.replace(
        one, replicas=2, load_rps=16.0, throughput_rps=8.0, joules_per_request=2.5
    )
    found = next(iter(check_replicas([one, two])["entries"].values()))
    # 2 + 2·3/16 = 2.375 J promised, 2.5 J measured; 8 of 10 requests a second.
    assert found["predicted_j"] == 2.375
    assert found["relative_error"] == pytest.approx(-0.05)
    assert found["throughput_ratio"] == 0.8
    assert check_replicas([one]) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"replicas": (1, 2)}, "2 replicas on 1 cores each need 2 cores"),
        ({"replicas": (0,)}, "replicas 0"),
        ({"replicas": (3,), "core_ids": [0, 1]}, "3 replicas on 1 cores each need 3"),
        ({"replicas": (2,), "core_ids": [0, 1], "budget": 0.5}, "a budget with 2 replicas"),
        ({"loads_rps": (1.0,), "budget": 0.5}, "a budget with 1 replicas and 1 loads"),
        ({"loads_rps": (0.0,)}, "load 0 rps"),
    ],
)
def test_replicas_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, changes, says):
    arguments = {
        "out": tmp_path / "p.csv",
        "meter": cpu_time_choice(MODEL),
        "variants": ["steady"],
        "core_ids": [0],
        "settings": SHORT,
    }
    with pytest.raises(ConfigError, match=says):
        profile_pipeline(PIPELINE, **(arguments | changes))
    assert list(tmp_path.iterdir()) == []


# Loads below saturation.


@pytest.fixture(scope="module")
def loaded(two_cores, tmp_path_factory):
    """A batch of 2 takes 4 ms of CPU: 5 rps keep a core busy for a hundredth of the time."""
    out = tmp_path_factory.mktemp("loads") / "p.csv"
    return out, profile_at_a_load(out, two_cores)


def profile_at_a_load(out, cores, **more):
    return profile_pipeline(
        PIPELINE,
        out=out,
        meter=cpu_time_choice(MODEL),
        variants=["steady"],
        batches=(2,),
        replicas=(1, 2),
        loads_rps=(5.0,),
        core_ids=cores,
        trials=1,
        settings=LONG,
        **more,
    )


def test_load_below_saturation_has_a_row_of_its_own(loaded):
    out, result = loaded
    assert result.failures == ()
    rows = read_profile(out)
    assert len(rows) == 4
    for count in (1, 2):
        full = next(row for row in rows if row.replicas == count and row.is_saturated)
        part = next(row for row in rows if row.replicas == count and not row.is_saturated)
        assert part.load_rps == 5.0 < full.load_rps
        assert part.throughput_rps == full.throughput_rps
        idle_j = count * part.idle_power_w / 5.0
        assert part.joules_per_request == pytest.approx(part.dynamic_energy_j + idle_j, rel=1e-5)


def test_joules_of_idle_time_are_in_the_check_at_that_load(loaded):
    out, _ = loaded
    check = json.loads(meta_path(out).read_text())["replica_check"]["entries"]
    assert set(check) == {
        "work/steady cpu 1c b2 @5rps",
        "work/steady cpu 1c b2 ×2",
        "work/steady cpu 1c b2 ×2 @5rps",
    }
    # 1 W of idle power for each of two replicas at 5 rps is 0.4 J a request.
    assert check["work/steady cpu 1c b2 ×2 @5rps"]["measured_j"] > 0.4


def test_load_is_served_at_its_pace(two_cores):
    one = ReplicaSpec(PIPELINE, "work", "steady", 2, (two_cores[1],))
    found = run_trial(one, CPU_TIME, LONG, load_rps=5.0)
    # A batch of 2 every 0.4 s; 5 of them, or as many as fit into 1.5 s.
    assert len(found.latencies_s) == 3
    assert found.busy_s >= 1.2
    assert found.cpu_s < 0.5 * found.busy_s


def test_resuming_keeps_rows_of_loads_apart(loaded, two_cores):
    out, _ = loaded
    before = out.read_bytes()
    again = profile_at_a_load(out, two_cores, resume=True)
    assert (again.rows, len(again.kept)) == ((), 4)
    assert out.read_bytes() == before


def test_load_beyond_saturation_is_a_named_failure_and_the_others_stay(two_cores, tmp_path):
    result = profile_pipeline(
        PIPELINE,
        out=tmp_path / "p.csv",
        meter=cpu_time_choice(MODEL),
        variants=["steady"],
        batches=(1,),
        loads_rps=(5000.0,),
        core_ids=two_cores,
        trials=1,
        settings=SHORT,
    )
    assert len(result.rows) == 1
    (failure,) = result.failures
    assert "load of 5000 rps is too much for 1 replicas" in failure.reason


def test_row_at_a_load_by_hand(make_trial):
    trial = make_trial(latencies_s=[0.1] * 4, busy_s=4.0, dynamic_energy_j=8.0, idle_power_w=3.0)
    entry = Entry("work", "steady", "cpu", 1, 2, 2, 4.0)
    row = at_load(profile_row(entry, [trial], 0.5), 4.0, 20.0)
    # 8 requests cost 8 J above idle; 2 replicas of 3 W at 4 rps add 1.5 J to each.
    assert (row.load_rps, row.throughput_rps, row.joules_per_request) == (4.0, 20.0, 2.5)
    assert not row.is_saturated
    with pytest.raises(ServingError, match="saturates 2 replicas, which serve 40 rps"):
        at_load(row, 39.5, 20.0)


def test_dead_machine_meter_gives_no_row(two_cores, tmp_path):
    result = profile_pipeline(
        PIPELINE,
        out=tmp_path / "p.csv",
        meter=machine_choice(FakeMeter(0.0)),
        variants=["steady"],
        batches=(1,),
        replicas=(2,),
        core_ids=two_cores,
        trials=1,
        settings=SHORT,
    )
    assert result.rows == ()
    assert "dead" in result.failures[0].reason


class Late:
    """A replica that takes longer than its pace allows, by a known share."""

    def __init__(self, held):
        self._held = held

    def begin(self, do, *, batches, period_s):
        self._latencies_s, self._busy_s = [period_s] * batches, batches * period_s / self._held

    def answer(self):
        memory = {"peak_memory_bytes": 1, "peak_gpu_memory_bytes": None}
        return {"latencies_s": self._latencies_s, "busy_s": self._busy_s, **memory}


@pytest.mark.parametrize("held", [0.96, 0.94])
def test_a_load_that_was_served_too_late_was_not_held(held):
    with ReplicaGroup(specs((0,)), timeout_s=1.0) as group:
        group.replicas, group.batch_s = [Late(held)], 0.1
        if held > HELD:
            assert group.paced(8.0, min_s=1.0, min_batches=5, max_s=2.0).busy_s > 1.0
        else:
            with pytest.raises(ServingError, match=r"a load of 8 rps .* which serve 7\.52 rps"):
                group.paced(8.0, min_s=1.0, min_batches=5, max_s=2.0)
    assert HELD == 0.95
