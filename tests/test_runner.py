"""The whole runner over a scripted world: what is observed, decided, deployed, and how it fails."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipa_energy.errors import ConfigError, GiveUpError, ServingError, TryAgainError
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.registries import BACKENDS, Named
from ipa_energy.runlog import Run, RunLog, read_run
from ipa_energy.serving.base import Setting
from ipa_energy.testing import FakeBackend

NEVER = [TryAgainError("the server is busy")] * 5
"""More failures than the runner tries."""

Registered = Callable[..., list[FakeBackend]]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Registered:
    """Registers a fake backend; the list gets each one that is made."""

    def with_world(script: Callable[[FakeBackend], object] | None = None, **world: Any) -> Any:
        made: list[FakeBackend] = []

        def make(setting: Setting) -> Any:
            made.append(FakeBackend(setting, **world))
            if script is not None:
                script(made[-1])
            return made[-1].serving

        monkeypatch.setitem(BACKENDS, "fake", Named("a scripted world", make))
        return made

    return with_world


def run(pipeline: Path, out: Path | None = None, **keywords: Any) -> Run:
    return run_experiment(load_experiment(pipeline), out, backend="fake", **keywords)


def test_a_backend_registered_while_the_program_runs_is_used(
    small_pipeline: Path, register: Registered, tmp_path: Path
) -> None:
    made = register()
    finished = run(small_pipeline, tmp_path / "run")
    assert finished.info.backend == "fake"
    assert finished.offered_rps.tolist() == load_experiment(small_pipeline).workload.counts.tolist()
    assert [step.status for step in finished.steps] == ["initial"] + ["optimal"] * 11
    assert [now_s for now_s, _ in made[0].deploys] == [
        step.start_s for step in finished.steps if step.reconfigured
    ]
    latency_s = finished.requests.done_s - finished.requests.sending_s
    assert latency_s == pytest.approx(0.25, abs=1e-6)


def test_the_predictor_sees_what_arrived_not_what_the_trace_says(
    small_pipeline: Path, register: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    monkeypatch.setattr(FakeBackend, "received_rps", lambda _, window_s: np.full(window_s, 7))
    finished = run(small_pipeline)
    assert {step.monitored_load_rps for step in finished.decisions} == {(7.0,) * 120}
    assert {step.predicted_load_rps for step in finished.decisions} == {7.0}


def test_what_may_work_in_a_moment_is_tried_again_and_then_done(
    small_pipeline: Path, register: Registered
) -> None:
    made = register(faults={"deploy": [TryAgainError("conflict")] * 2})
    finished = run(small_pipeline)
    first = next(step for step in finished.steps if step.reconfigured)
    assert made[0].deploys[0][0] == first.start_s + 0.5 + 1.0
    assert {step.trouble for step in finished.steps} == {None}


def test_what_fails_for_long_leaves_the_running_plan_and_the_log_says_so(
    small_pipeline: Path, register: Registered, tmp_path: Path
) -> None:
    made = register(faults={"deploy": NEVER})
    finished = run(small_pipeline, tmp_path / "run")
    kept = [step for step in finished.steps if step.status == "kept"]
    assert [step.trouble for step in kept] == ["the server is busy"]
    before = {step.end_s: step.label for step in finished.steps}
    assert kept[0].label == before[kept[0].start_s]
    assert kept[0].reconfigured == ()
    assert np.isnan(kept[0].terms["objective"])
    later = [step for step in finished.steps if step.start_s > kept[0].start_s]
    assert later[0].reconfigured
    assert made[0].deploys[0][0] == later[0].start_s
    assert len(finished.requests) == load_experiment(small_pipeline).workload.requests


def test_without_a_word_of_the_load_the_running_plan_stays(
    small_pipeline: Path, register: Registered
) -> None:
    register(faults={"received_rps": NEVER})
    finished = run(small_pipeline)
    assert finished.steps[1].status == "kept"
    assert finished.steps[1].trouble == "the server is busy"
    assert finished.steps[1].label == finished.steps[0].label
    assert finished.steps[2].status == "optimal"


@pytest.mark.parametrize("method", ["deploy", "deployed", "received_rps", "collect"])
@pytest.mark.parametrize("error", [GiveUpError("no right"), ServingError("it died")])
def test_what_trying_again_cannot_mend_stops_the_run_and_keeps_what_finished(
    small_pipeline: Path, register: Registered, tmp_path: Path, method: str, error: ServingError
) -> None:
    passing = [] if method == "deploy" else [None] * 3
    register(faults={method: [*passing, error]})
    out = tmp_path / "run"
    with pytest.raises(type(error), match=str(error)):
        run(small_pipeline, out)
    told = json.loads((out / "run.json").read_text())
    assert (told["status"], told["error"]) == ("failed", str(error))
    assert read_run(out).steps


def test_lost_replicas_are_deployed_again_and_named(
    small_pipeline: Path, register: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = register()
    collect = FakeBackend.collect

    def collect_and_lose(self: FakeBackend, until_s: float) -> Any:
        if until_s == 60:
            self.lose("find", 1)
        return collect(self, until_s)

    monkeypatch.setattr(FakeBackend, "collect", collect_and_lose)
    finished = run(small_pipeline)
    step = next(step for step in finished.steps if step.start_s == 60)
    assert step.trouble == "lost replicas: 1 of stage find"
    assert 60.0 in [now_s for now_s, _ in made[0].deploys]
    assert {step.trouble for step in finished.steps if step.start_s != 60} == {None}


def stopped_at(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run is interrupted before it logs the interval that begins at ``seconds``."""
    append = RunLog.append_interval

    def stop(self: RunLog, interval: Any) -> None:
        if interval.timestep_s >= seconds:
            monkeypatch.setattr(RunLog, "append_interval", append)
            raise KeyboardInterrupt
        append(self, interval)

    monkeypatch.setattr(RunLog, "append_interval", stop)


def test_a_backend_that_replays_is_served_again_to_the_same_end(
    small_pipeline: Path, register: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    stopped_at(60, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(small_pipeline, tmp_path / "run", name="one")
    resumed = run(small_pipeline, tmp_path / "run", resume=True)
    whole = run(small_pipeline, tmp_path / "whole", name="one")
    assert [step.label for step in resumed.steps] == [step.label for step in whole.steps]
    assert resumed.requests.done_s == pytest.approx(whole.requests.done_s)


def test_a_backend_that_is_adopted_goes_on_from_now_and_the_gap_is_said(
    small_pipeline: Path,
    register: Registered,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "run"
    first = register(resumes="adopt")
    stopped_at(60, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(small_pipeline, out)
    runs_now = first[0].deploys[-1][1]
    killed = read_run(out)

    start_s = json.loads((out / "run.json").read_text())["start_time_s"]
    monkeypatch.setattr(time, "time", lambda: start_s + 75.25)
    second = register(resumes="adopt", running=runs_now)
    resumed = run(small_pipeline, out, resume=True)

    assert "second 76: taken over" in caplog.text
    assert resumed.status == "complete"
    assert [step.start_s for step in resumed.steps] == [0, 10, 20, 30, 40, 50, 76, 86, 96, 106, 116]
    taken_over = resumed.steps[6]
    assert taken_over.gap_s == 16.0
    assert taken_over.status == "kept"
    assert taken_over.trouble == "no load was seen yet"
    assert taken_over.label == killed.steps[-1].label
    assert {step.gap_s for step in resumed.steps if step is not taken_over} == {0.0}
    assert all(now_s > 76 for now_s, _ in second[0].deploys)

    sent_s = resumed.requests.sending_s
    assert not ((sent_s > 60) & (sent_s < 75)).any()
    assert (np.diff(sent_s) >= 0).all()
    assert set(killed.requests.sending_s.tolist()) < set(sent_s.tolist())
    assert np.isnan(resumed.power_w[60:75]).all()
    assert not np.isnan(resumed.power_w[:60]).any()
    totals = json.loads((out / "run.json").read_text())["totals"]
    assert totals["requests"] == len(resumed.requests)
    assert totals["decisions"] == 10


def test_a_run_that_looks_ahead_goes_on_after_it_was_adopted(
    small_pipeline: Path, register: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    ahead = load_experiment(small_pipeline, {"controller": "horizon"})
    first = register(resumes="adopt")
    stopped_at(60, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(ahead, out, backend="fake")
    start_s = json.loads((out / "run.json").read_text())["start_time_s"]
    monkeypatch.setattr(time, "time", lambda: start_s + 75.25)
    runs_now = first[0].deploys[-1][1]
    register(resumes="adopt", running=runs_now)
    resumed = run_experiment(ahead, out, backend="fake", resume=True)
    assert resumed.status == "complete"
    at = [step.start_s for step in resumed.steps].index(76)
    assert [step.status for step in resumed.steps[at : at + 2]] == ["kept", "optimal"]
    before, after = resumed.steps[at : at + 2]
    assert before.gap_s == 76 - resumed.steps[at - 1].end_s
    assert after.switching
    # What was taken over is what the change is counted from.
    assert (after.switching["loading_joules"] > 0) <= bool(after.reconfigured)


def test_a_run_that_is_adopted_after_its_load_says_how_long_nobody_decided(
    small_pipeline: Path, register: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    first = register(resumes="adopt")
    stopped_at(60, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(small_pipeline, out)
    start_s = json.loads((out / "run.json").read_text())["start_time_s"]
    monkeypatch.setattr(time, "time", lambda: start_s + 125.5)
    register(resumes="adopt", running=first[0].deploys[-1][1])
    resumed = run(small_pipeline, out, resume=True)
    live = resumed.steps[-1].live
    assert live is not None
    assert live.notes == ("nobody decided in the 66 s before second 126",)


def test_a_run_without_a_folder_is_the_same_run(
    small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.1234567)
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    experiment = load_experiment(small_pipeline, {"drop_limit": 0.6})
    told = run_experiment(experiment, name="one")
    folder = run_experiment(experiment, tmp_path / "run", name="one")
    assert told.path is None
    assert (folder.requests.dropped_at >= 0).any()
    for name in Run.__slots__:
        mine, theirs = getattr(told, name), getattr(folder, name)
        if name == "requests":
            for column in type(mine).__slots__:
                np.testing.assert_array_equal(
                    getattr(mine, column), getattr(theirs, column), err_msg=column
                )
        elif isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
        elif name != "path":
            assert str(mine) == str(theirs), name


def test_an_unknown_backend_is_refused(small_pipeline: Path) -> None:
    with pytest.raises(ConfigError, match="unknown backend 'fake'; allowed: simulate"):
        run(small_pipeline)
