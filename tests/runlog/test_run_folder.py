"""Writing, killing, resuming and reading a run folder."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ipa_energy.comparing import metrics
from ipa_energy.errors import ConfigError
from ipa_energy.runlog import RunLog, Totals, read_run
from ipa_energy.runlog.reader import Run
from ipa_energy.serving.served import Requests
from ipa_energy.testing import (
    NODES,
    START_TIME_S,
    fake_config,
    fake_info,
    fake_intervals,
    write_fake_run,
)

SECONDS = 60


def start(path: Path, seconds: int = SECONDS) -> RunLog:
    return RunLog.create(path, config_yaml=fake_config(), info=fake_info(seconds=seconds))


def assert_same_run(one: Run, other: Run) -> None:
    assert repr(one.steps) == repr(other.steps)
    for item in fields(Requests):
        mine, theirs = getattr(one.requests, item.name), getattr(other.requests, item.name)
        np.testing.assert_array_equal(mine, theirs, err_msg=item.name)
    np.testing.assert_array_equal(one.power_w, other.power_w)
    np.testing.assert_array_equal(one.cores, other.cores)


def test_complete_run_reads_back_what_was_handed_in(tmp_path: Path) -> None:
    intervals = list(fake_intervals(seconds=SECONDS))
    run = read_run(write_fake_run(tmp_path / "run", seconds=SECONDS))
    assert run.status == "complete"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "0.json",
        "0.yaml",
        "adaptation_log.json",
        "profile.csv",
        "run.json",
        "workload.csv",
    ]
    assert len(run.requests) == sum(len(interval.served.requests) for interval in intervals)
    assert run.requests.request_id.tolist() == list(range(len(run.requests)))
    by_id = {
        int(key): done
        for interval in intervals
        for key, done in zip(
            interval.served.requests.request_id, interval.served.requests.done_s, strict=True
        )
    }
    np.testing.assert_allclose(
        run.requests.done_s, [by_id[key] for key in range(len(by_id))], atol=1e-6
    )
    energy_j = sum(i.served.idle_j.sum() + i.served.dynamic_j.sum() for i in intervals)
    assert sum(step.energy_j for step in run.steps) == pytest.approx(energy_j, abs=1e-4)
    assert [step.start_s for step in run.steps] == [0, 10, 20, 30, 40, 50]
    assert run.steps[0].status == "initial"
    assert run.steps[2].label == intervals[2].plan.label
    np.testing.assert_allclose(
        run.power_w, np.concatenate([i.served.power_w for i in intervals]), atol=1e-3
    )


def test_drain_is_charged_to_the_last_step(tmp_path: Path) -> None:
    intervals = list(fake_intervals(seconds=SECONDS))
    last, drain = intervals[-2].served, intervals[-1].served
    step = read_run(write_fake_run(tmp_path / "run", seconds=SECONDS)).steps[-1]
    assert step.end_s == pytest.approx(drain.end_s, abs=1e-6)
    expected = sum(
        part.sum() for served in (last, drain) for part in (served.idle_j, served.dynamic_j)
    )
    assert step.energy_j == pytest.approx(expected, abs=1e-5)


def test_unfinished_run_reads_like_a_complete_one(tmp_path: Path) -> None:
    log = start(tmp_path / "run")
    for interval in fake_intervals(seconds=SECONDS):
        log.append_interval(interval)
    running = read_run(log.path)
    assert running.status == "running"
    log.complete({"requests": 1})
    complete = read_run(log.path)
    assert_same_run(running, complete)
    assert json.loads((log.path / "run.json").read_text())["totals"] == {"requests": 1}


@pytest.mark.parametrize("torn", [1, 40, -1])
def test_torn_last_line_never_happened(tmp_path: Path, torn: int) -> None:
    log = start(tmp_path / "run")
    intervals = list(fake_intervals(seconds=SECONDS))
    for interval in intervals[:4]:
        log.append_interval(interval)
    log.close()
    journal = log.path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:torn])
    assert len(read_run(log.path).steps) == 3
    resumed = RunLog.resume(log.path)
    assert resumed.end_s == 30.0
    assert [interval.start_s for interval in resumed.finished] == [0, 10, 20]
    for interval in intervals[3:]:
        resumed.append_interval(interval)
    resumed.complete({})
    assert_same_run(
        read_run(log.path), read_run(write_fake_run(tmp_path / "unbroken", seconds=SECONDS))
    )


def test_damaged_line_is_named(tmp_path: Path) -> None:
    log = start(tmp_path / "run")
    log.close()
    (log.path / "journal.jsonl").write_text('{"timestep": 0}\n')
    with pytest.raises(ConfigError, match=r"journal\.jsonl:1: not a line"):
        read_run(log.path)


KILLED = """
import os, signal, sys
from pathlib import Path
from ipa_energy.runlog import RunLog
from ipa_energy.testing import fake_config, fake_info, fake_intervals

log = RunLog.create(Path(sys.argv[1]), config_yaml=fake_config(), info=fake_info(seconds=60))
for index, interval in enumerate(fake_intervals(seconds=60)):
    log.append_interval(interval)
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_keeps_every_finished_interval(tmp_path: Path) -> None:
    path = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    killed = read_run(path)
    assert killed.status == "running"
    assert [step.start_s for step in killed.steps] == [0, 10, 20]
    assert json.loads((path / "adaptation_log.json").read_text())["timesteps"]
    resumed = RunLog.resume(path)
    for interval in list(fake_intervals(seconds=SECONDS))[len(resumed.finished) :]:
        resumed.append_interval(interval)
    resumed.complete({})
    assert_same_run(
        read_run(path), read_run(write_fake_run(tmp_path / "unbroken", seconds=SECONDS))
    )


@pytest.mark.parametrize("step", range(4))
def test_crash_between_the_steps_of_completion_is_recoverable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    log = start(tmp_path / "run")
    for interval in fake_intervals(seconds=SECONDS):
        log.append_interval(interval)
    calls = 0
    replace, unlink = Path.replace, Path.unlink

    def crashing(path: Path, target: Path) -> None:
        nonlocal calls
        if calls == step:
            raise KeyboardInterrupt
        calls += 1
        replace(path, target)

    def refusing(self: Path, missing_ok: bool = False) -> None:
        if self.name == "journal.jsonl":
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crashing)
        if step == 3:
            patch.setattr(Path, "unlink", refusing)
        with pytest.raises(KeyboardInterrupt):
            log.complete({})
    log.close()
    unbroken = read_run(write_fake_run(tmp_path / "unbroken", seconds=SECONDS))
    assert_same_run(read_run(log.path), unbroken)
    resumed = RunLog.resume(log.path)
    assert resumed.is_complete == (step == 3)
    resumed.complete({})
    after = read_run(log.path)
    assert after.status == "complete"
    assert not (log.path / "journal.jsonl").exists()
    assert_same_run(after, unbroken)


def test_taken_folder_is_refused_and_unharmed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"not empty.*--resume, or choose another --out"):
        start(tmp_path / "run")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "note.txt"]


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        start(tmp_path / "run")


def test_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    start(tmp_path / "empty").close()
    start(tmp_path / "a" / "b" / "run").close()
    assert (tmp_path / "a" / "b" / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space left.*free some space"), (errno.EROFS, "read-only.*writable disk")],
)
def test_refusing_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match=words):
        start(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_up_keeps_the_intervals_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = start(tmp_path / "run")
    first, second, *_ = fake_intervals(seconds=SECONDS)
    log.append_interval(first)

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: memoryview) -> int:
            if len(data) < 100:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self.file.write(data[: len(data) // 2]))  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    monkeypatch.setattr(log, "_journal", Full(log._journal))
    with pytest.raises(ConfigError, match=r"no space left on device.*--resume"):
        log.append_interval(second)
    log.close()
    assert len(read_run(log.path).steps) == 1
    assert (log.path / "journal.jsonl").read_bytes().count(b"\n") == 1


def test_final_file_that_does_not_fit_leaves_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = start(tmp_path / "run")
    for interval in fake_intervals(seconds=SECONDS):
        log.append_interval(interval)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="no space left"):
            log.complete({})
    assert not [path.name for path in log.path.iterdir() if "partial" in path.name]
    assert read_run(log.path).status == "running"
    log.complete({})
    assert read_run(log.path).status == "complete"


def test_two_writers_are_refused(tmp_path: Path) -> None:
    log = start(tmp_path / "run")
    with pytest.raises(ConfigError, match="another process is writing"):
        RunLog.resume(log.path)
    log.close()
    RunLog.resume(log.path).close()


def test_failed_run_says_why_and_resumes(tmp_path: Path) -> None:
    log = start(tmp_path / "run")
    log.append_interval(next(fake_intervals(seconds=SECONDS)))
    log.fail("the server died")
    assert json.loads((log.path / "run.json").read_text())["error"] == "the server died"
    assert read_run(log.path).status == "failed"
    with RunLog.resume(log.path) as resumed:
        assert resumed.end_s == 10.0


@pytest.mark.parametrize("name", ["missing", "empty", "newer", "damaged"])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name != "missing":
        path.mkdir()
    if name == "newer":
        (path / "run.json").write_text(
            '{"format": 99, "status": "complete", "name": "x",'
            ' "stages": [], "nodes": [], "start_time_s": 0, "duration_s": 0, "interval_s": 1}'
        )
    if name == "damaged":
        (path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=f"{name}"):
        read_run(path)


def test_responses_lie_in_their_second_of_sending(tmp_path: Path) -> None:
    path = write_fake_run(tmp_path / "run", seconds=SECONDS)
    data = json.loads((path / "0.json").read_text())
    assert data["start_time_experiment"] == START_TIME_S
    assert data["end_time_experiment"] == START_TIME_S + SECONDS
    assert len(data["responses"]) == SECONDS
    for second, requests in enumerate(data["responses"]):
        for request in requests:
            client = request.get("dropped", request["times"])["request"]
            assert int(client["sending"] - START_TIME_S) == second
    assert len(data["power_w"]) == len(data["cores"]) >= SECONDS


def test_dropped_request_says_where(tmp_path: Path) -> None:
    path = write_fake_run(tmp_path / "run", seconds=SECONDS)
    data = json.loads((path / "0.json").read_text())
    dropped = [r["dropped"] for second in data["responses"] for r in second if "dropped" in r]
    assert dropped
    assert {entry["node"] for entry in dropped} == {NODES[0]}
    assert int(np.sum(read_run(path).requests.dropped_at == 0)) == len(dropped)


def test_failed_requests_are_told_from_dropped_ones_and_stay_lost_for_ipa(tmp_path: Path) -> None:
    log = start(tmp_path / "run")
    intervals = list(fake_intervals(seconds=SECONDS))
    totals = Totals()
    lost = 0
    for interval in intervals:
        requests = interval.served.requests
        failed = (requests.dropped_at >= 0) & (np.arange(len(requests)) % 2 == 0)
        lost += int(failed.sum())
        served = dataclasses.replace(
            interval.served, requests=dataclasses.replace(requests, failed=failed)
        )
        log.append_interval(dataclasses.replace(interval, served=served))
        totals.add(served, None, (), {})
    assert lost > 0
    before = read_run(log.path)
    log.complete(totals.to_json())
    for run in (before, read_run(log.path)):
        figures = metrics(run)
        assert figures.failed == lost
        assert figures.dropped == int((run.requests.dropped_at >= 0).sum()) - lost
        assert figures.served + figures.dropped + figures.failed == figures.requests
    text = json.loads((log.path / "run.json").read_text())
    assert text["totals"]["failed"] == lost
    data = json.loads((log.path / "0.json").read_text())
    empty = [r for second in data["responses"] for r in second if not r["times"]]
    assert len(empty) == figures.dropped + figures.failed
    assert sum(r["dropped"].get("failed", False) for r in empty) == lost


def test_seconds_without_requests_are_empty_lists(tmp_path: Path) -> None:
    log = start(tmp_path / "run", seconds=90)
    for interval in list(fake_intervals(seconds=SECONDS))[:-1]:
        log.append_interval(interval)
    log.complete({})
    data = json.loads((log.path / "0.json").read_text())
    assert len(data["responses"]) == 90
    assert data["responses"][-1] == []


def test_file_stays_small(tmp_path: Path) -> None:
    path = write_fake_run(tmp_path / "run", seconds=SECONDS)
    requests = len(read_run(path).requests)
    assert (path / "0.json").stat().st_size / requests * 14_437 < 8e6


def test_a_further_quantity_of_a_plan_is_logged_and_read_back(tmp_path: Path) -> None:
    log = RunLog.create(tmp_path / "run", config_yaml=fake_config(), info=fake_info())
    for interval in fake_intervals():
        terms = {**interval.plan.terms, "money": 1.5}
        plan = dataclasses.replace(interval.plan, terms=terms, amounts={"money": 0.5})
        log.append_interval(dataclasses.replace(interval, plan=plan))
    log.complete({})
    first, *decided = read_run(tmp_path / "run").steps
    assert "money" not in first.terms  # the initial configuration was never scored
    assert {step.terms["money"] for step in decided} == {1.5}
    assert {step.amounts["money"] for step in (first, *decided)} == {0.5}
    entries = json.loads((tmp_path / "run" / "adaptation_log.json").read_text())["timesteps"]
    assert [entry.get("terms") for entry in entries.values()] == [None] + [{"money": 1.5}] * 11


def test_totals_have_the_mean_of_a_further_term_over_the_requests() -> None:
    totals = Totals()
    first, second, *_ = (interval.served for interval in fake_intervals())
    totals.add(first, None, (), {})
    totals.add(first, "optimal", (), {"money": 1.0})
    totals.add(second, "optimal", (), {"money": 4.0})
    one, two = len(first.requests), len(second.requests)
    assert totals.to_json()["terms"]["money"] == pytest.approx((one + 4 * two) / (one + two))
    assert "terms" not in Totals().to_json()
