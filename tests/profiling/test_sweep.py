"""Whole sweeps of a fake pipeline in real processes: order, resuming, failures, files."""

import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import short_trials

from ipa_energy.errors import ConfigError, IpaEnergyError
from ipa_energy.jsonl import append_line
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profile_table.profile_csv import read_profile
from ipa_energy.profiling.entry_rows import profile_row
from ipa_energy.profiling.grid import Entry, visits
from ipa_energy.profiling.profile_sweep import profile_pipeline
from ipa_energy.profiling.replica_meter import MeterChoice, MeterPart, cpu_time_choice
from ipa_energy.testing import FakeMeter

pytestmark = pytest.mark.measures

PIPELINE = str(Path(__file__).with_name("fake_pipeline.py"))
CORE = max(os.sched_getaffinity(0))
MODEL = PowerModel(idle_w=2.0, max_w=10.0, cores=2, source="made up for the test")
SHORT = dataclasses.replace(
    short_trials.SHORT, min_window_s=0.05, min_batches=3, warm_up_max_s=0.05
)


def sweep(out, **changes):
    arguments = {
        "out": out,
        "meter": cpu_time_choice(MODEL),
        "variants": ["steady", "slower"],
        "batches": (1, 2),
        "core_ids": [CORE],
        "trials": 2,
        "settings": SHORT,
    }
    return profile_pipeline(PIPELINE, **(arguments | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "new" / "p.csv"
    return out, sweep(out)


def journal(out):
    text = out.with_suffix(".trials.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def trial_counts(out):
    return Counter(
        (line["entry"]["variant"], line["entry"]["batch"])
        for line in journal(out)
        if "entry" in line
    )


def test_every_entry_gets_a_row_that_the_table_module_reads(finished):
    out, result = finished
    rows = read_profile(out)
    assert {(row.variant, row.batch) for row in rows} == {
        ("steady", 1),
        ("steady", 2),
        ("slower", 1),
        ("slower", 2),
    }
    assert rows == list(result.rows)
    assert (result.kept, result.failures) == ((), ())
    for row in rows:
        assert (row.stage, row.hardware, row.cpu_cores, row.replicas) == ("work", "cpu", 1.0, 1)
        assert (row.trials, row.meter, row.quality) == (2, "cpu-time", "estimated")
        assert row.accuracy == 0.5
        assert row.load_rps == row.throughput_rps
        assert row.joules_per_request == pytest.approx(
            row.dynamic_energy_j + row.idle_power_w / row.load_rps, rel=1e-5
        )


def test_every_round_has_every_entry_in_an_order_of_its_own(finished):
    order = [
        (line["entry"]["variant"], line["entry"]["batch"])
        for line in journal(finished[0])
        if "entry" in line
    ]
    assert len(set(order[:4])) == len(set(order[4:])) == 4


def test_order_is_seeded_and_differs_by_round():
    entries = [Entry("s", f"v{i}", "cpu", 1, 1) for i in range(20)]
    order = list(visits(entries, 2, seed=1))
    assert order == list(visits(entries, 2, seed=1))
    assert order != list(visits(entries, 2, seed=2))
    first, second = [e for n, e in order if n == 0], [e for n, e in order if n == 1]
    assert sorted(first) == sorted(second) == sorted(entries)
    assert len({tuple(first), tuple(second), tuple(entries)}) == 3


def test_meta_says_how_it_was_measured_and_names_no_place(finished):
    out, _ = finished
    text = out.with_suffix(".meta.json").read_text()
    meta = json.loads(text)
    assert meta["meter"]["power_model"] == MODEL.to_json()
    assert "±50 %" in meta["meter"]["uncertainty"]
    assert meta["meter"]["quality"] == "estimated"
    assert meta["machine"]["cores"] == os.cpu_count()
    assert meta["versions"] == {"fake": "1"}
    assert meta["openmp"] == {"OMP_WAIT_POLICY": "PASSIVE"}
    facts = meta["entries"]["work/steady cpu 1c b2"]
    assert len(facts["windows"]) == 2
    assert facts["samples_behind_p99"] == sum(w["batches"] for w in facts["windows"])
    assert os.uname().nodename not in text
    assert str(Path(__file__).parent) not in text
    assert str(out.parent) not in text


def test_row_of_known_trials_by_hand(make_trial):
    entry = Entry("work", "steady", "cpu", 1, 2)
    trials = [make_trial(dynamic_energy_j=4.0), make_trial(dynamic_energy_j=8.0)]
    row = profile_row(entry, trials, 0.5)
    # 2 windows of 2 batches of 2 in 0.2 s: 20 requests/s; 1 and 2 J per request; 1 W idle.
    assert row.throughput_rps == row.load_rps == 20.0
    assert row.dynamic_energy_j == 1.5
    assert row.joules_per_request == pytest.approx(1.5 + 1.0 / 20.0)
    # Standard error 0.5, t(0.975, 1) = 12.7062.
    assert row.energy_ci95_j == pytest.approx(12.7062 * 0.5, rel=1e-5)


def test_existing_profile_is_not_touched_unless_resumed(finished):
    out, _ = finished
    before = out.read_bytes()
    with pytest.raises(ConfigError, match="resume"):
        sweep(out)
    assert out.read_bytes() == before


def test_resuming_a_finished_sweep_measures_nothing(finished):
    out, _ = finished
    before, lines = out.read_bytes(), journal(out)
    result = sweep(out, resume=True)
    assert result.rows == ()
    assert len(result.kept) == 4
    assert out.read_bytes() == before
    assert journal(out) == lines


def test_resumed_sweep_adds_new_entries_to_the_same_table(finished, tmp_path):
    out = tmp_path / "p.csv"
    for suffix in (".csv", ".trials.jsonl"):
        out.with_suffix(suffix).write_bytes(finished[0].with_suffix(suffix).read_bytes())
    before = out.read_text()
    result = sweep(out, batches=(4,), variants=["steady"], resume=True)
    assert [row.batch for row in result.rows] == [4]
    assert out.read_text().startswith(before)
    assert len(read_profile(out)) == 5


@pytest.mark.parametrize("change", ["power model", "settings"])
def test_resuming_in_another_context_is_refused(finished, change):
    changes = {
        "power model": {"meter": cpu_time_choice(PowerModel(1.0, 9.0, 2, "another"))},
        "settings": {"settings": SHORT.quick()},
    }[change]
    with pytest.raises(ConfigError, match="was begun with"):
        sweep(finished[0], resume=True, **changes)


def test_failing_entries_are_named_and_the_others_kept(tmp_path):
    out = tmp_path / "p.csv"
    result = sweep(out, variants=["raises", "steady", "exits"], batches=(1,), trials=1)
    assert [row.variant for row in read_profile(out)] == ["steady"]
    reasons = {failure.entry.variant: failure.reason for failure in result.failures}
    assert set(reasons) == {"raises", "exits"}
    assert "work/raises" in reasons["raises"]
    assert "bad input tensor" in reasons["raises"]
    again = sweep(out, variants=["raises", "steady"], batches=(1,), trials=1, resume=True)
    assert [failure.entry.variant for failure in again.failures] == ["raises"]
    assert len(read_profile(out)) == 1


def test_dead_meter_gives_no_row(tmp_path):
    dead = MeterChoice((MeterPart(lambda pid, cores: FakeMeter(0.0)),), {"name": "fake"})
    result = sweep(tmp_path / "p.csv", meter=dead, variants=["steady"], batches=(1,), trials=1)
    assert result.rows == ()
    assert "dead" in result.failures[0].reason


KILLED = """
import sys
sys.path[:0] = {paths!r}
from test_sweep import sweep
from pathlib import Path
sweep(Path({out!r}))
"""


def test_killed_sweep_goes_on_where_it_stopped(tmp_path):
    out = tmp_path / "p.csv"
    code = KILLED.format(
        paths=[str(Path(__file__).parent), str(Path(__file__).parents[2])], out=str(out)
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 90
    while not (out.exists() and out.read_text().count("\n") >= 2):  # a header and a row
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = read_profile(out)
    assert 1 <= len(first) < 4
    with out.with_suffix(".trials.jsonl").open("a") as file:
        file.write('{"entry":{"stage":"work","var')  # as if killed in the middle of a line
    result = sweep(out, resume=True)
    rows = read_profile(out)
    assert rows[: len(first)] == first
    assert len(rows) == len({row.option_key for row in rows}) == 4
    assert len(result.kept) == len(first)
    assert set(trial_counts(out).values()) == {2}


def test_row_lost_between_journal_and_table_is_written_without_measuring(finished, tmp_path):
    out = tmp_path / "p.csv"
    for suffix in (".csv", ".trials.jsonl"):
        out.with_suffix(suffix).write_bytes(finished[0].with_suffix(suffix).read_bytes())
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-1]) + lines[-1][:10])
    result = sweep(out, resume=True)
    assert out.read_text() == "".join(lines)
    assert len(result.rows) == 1
    assert set(trial_counts(out).values()) == {2}


@pytest.mark.parametrize("rest", ["", "work,stea"])
def test_table_torn_in_its_first_row_is_mended(finished, tmp_path, rest):
    out = tmp_path / "p.csv"
    journal_path = out.with_suffix(".trials.jsonl")
    journal_path.write_bytes(finished[0].with_suffix(".trials.jsonl").read_bytes())
    out.write_text(finished[0].read_text().splitlines(keepends=True)[0] + rest)
    assert len(sweep(out, resume=True).rows) == 4
    assert sorted(read_profile(out), key=str) == sorted(read_profile(finished[0]), key=str)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variants": ["stady"]}, "no variant 'stady'"),
        ({"stages": ["wrok"]}, "no stage 'wrok'"),
        ({"batches": (0,)}, "batch 0"),
        ({"allocations": (2,)}, "allocation 2"),
        ({"allocations": (0,)}, "allocation 0"),
        ({"trials": 0}, "trials is 0"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_written(tmp_path, changes, says):
    with pytest.raises(ConfigError, match=says):
        sweep(tmp_path / "p.csv", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is no folder"):
        sweep(tmp_path / "file" / "none" / "p.csv")


@pytest.mark.parametrize("reference", ["none/such", "no_such_module", "json"])
def test_unknown_pipeline_is_refused(tmp_path, reference):
    with pytest.raises(ConfigError, match=reference):
        profile_pipeline(reference, out=tmp_path / "p.csv", meter=cpu_time_choice(MODEL))


def test_journal_of_something_else_is_refused(tmp_path):
    out = tmp_path / "p.csv"
    out.with_suffix(".trials.jsonl").write_text('{"context": 1}\n')
    with pytest.raises(ConfigError, match=r"trials\.jsonl:1"):
        sweep(out, resume=True)


def test_full_disk_loses_nothing_and_says_what_to_do():
    with pytest.raises(IpaEnergyError, match="what was measured so far is kept"):
        append_line(Path("/dev/full"), "{}")


def test_raw_trials_are_strict_json(finished):
    def refuse(text):
        raise AssertionError(text)

    for line in finished[0].with_suffix(".trials.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_quick_is_one_short_trial(tmp_path):
    out = tmp_path / "p.csv"
    result = sweep(out, variants=["steady"], batches=(1,), trials=None, quick=True)
    assert result.rows[0].trials == 1
    assert math.isnan(result.rows[0].energy_ci95_j)
    with out.open(newline="") as file:
        assert next(csv.DictReader(file))["energy_ci95_j"] == ""


def test_more_trials_are_added_to_rows_that_have_fewer(tmp_path):
    out = tmp_path / "p.csv"
    sweep(out, trials=1)
    result = sweep(out, trials=3, resume=True)
    assert (len(result.rows), result.kept) == (4, ())
    assert [row.trials for row in read_profile(out)] == [3] * 4
    assert set(trial_counts(out).values()) == {3}
    result = sweep(out, trials=2, resume=True)
    assert (len(result.rows), len(result.kept)) == (0, 4)


def test_replicas_without_named_cpus_are_placed_and_the_meta_file_says_where(tmp_path):
    out = tmp_path / "p.csv"
    sweep(out, core_ids=None, variants=["steady"], batches=(1,), trials=1)
    (session,) = json.loads(out.with_suffix(".meta.json").read_text())["sessions"]
    ((own,),) = (placement["core_ids"] for placement in session["placements"].values())
    assert own[0] in os.sched_getaffinity(0)
    assert session["topology"]["cpus"] == len(os.sched_getaffinity(0))


def test_time_limit_keeps_what_was_measured_and_says_what_is_left(tmp_path):
    out = tmp_path / "p.csv"
    result = sweep(out, trials=1, time_limit_s=1e-9)
    assert (result.rows, result.remaining) == ((), 4)
    result = sweep(out, trials=1, time_limit_s=3600.0, resume=True)
    assert (len(result.rows), result.remaining) == (4, 0)
    with pytest.raises(ConfigError, match="time limit of 0 s"):
        sweep(tmp_path / "q.csv", time_limit_s=0.0)


def test_what_changed_is_named_as_deep_as_it_is(tmp_path):
    out = tmp_path / "p.csv"
    sweep(out, trials=1)
    longer = dataclasses.replace(SHORT, min_batches=4)
    with pytest.raises(ConfigError, match="begun with settings: min_batches 3, and now it is 4;"):
        sweep(out, trials=1, settings=longer, resume=True)


def test_profiles_of_cpus_do_not_depend_on_how_a_gpu_is_waited_for(tmp_path):
    out = tmp_path / "p.csv"
    sweep(out, trials=1)
    assert "settle_max_s" not in json.loads(out.with_suffix(".meta.json").read_text())["settings"]
    other = dataclasses.replace(SHORT, settle_max_s=7.0)
    assert len(sweep(out, trials=1, settings=other, resume=True).kept) == 4
