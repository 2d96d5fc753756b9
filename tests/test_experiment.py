"""Whole runs through the front door: same seed, same run; killed and resumed, same run."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipa_energy.comparing import metrics
from ipa_energy.errors import ConfigError
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.records import Option
from ipa_energy.registries import QUANTITIES, Quantity
from ipa_energy.runlog import Run, read_run
from ipa_energy.runlog.writer import RunLog
from ipa_energy.workloads import Workload


def timeless(folder: Path) -> Any:
    """adaptation_log.json without the wall time of decisions."""
    log = json.loads((folder / "adaptation_log.json").read_text())
    for step in log["timesteps"].values():
        step.pop("duration")
    return log


def times_s(folder: Path) -> np.ndarray[Any, Any]:
    """Every time of every request as 0.json has it, relative to the start of the run."""
    requests = read_run(folder).requests
    columns = [requests.sending_s[:, None], requests.done_s[:, None]]
    columns += [requests.queued_s, requests.started_s, requests.served_s]
    return np.hstack(columns)


def same_times(first: Path, second: Path) -> bool:
    """Equal to the resolution of a wall clock in microseconds."""
    mine, theirs = times_s(first), times_s(second)
    return mine.shape == theirs.shape and np.allclose(mine, theirs, atol=5e-6, equal_nan=True)


def run(path: Path, out: Path, **overrides: object) -> Run:
    return run_experiment(load_experiment(path, overrides), out)


def stopped(path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is interrupted after three intervals."""
    append = RunLog.append_interval

    def stop(self: RunLog, interval: Any) -> None:
        if interval.timestep_s >= 30:
            raise KeyboardInterrupt
        append(self, interval)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "append_interval", stop)
        with pytest.raises(KeyboardInterrupt):
            run(path, out)


def test_same_seed_gives_the_same_run(small_pipeline: Path, tmp_path: Path) -> None:
    run(small_pipeline, tmp_path / "a")
    run(small_pipeline, tmp_path / "b")
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")
    assert same_times(tmp_path / "a", tmp_path / "b")


def test_another_seed_gives_another_run(small_pipeline: Path, tmp_path: Path) -> None:
    run(small_pipeline, tmp_path / "a", seed=1)
    run(small_pipeline, tmp_path / "b", seed=2)
    assert not same_times(tmp_path / "a", tmp_path / "b")


def test_every_request_of_the_trace_is_answered_or_dropped(
    small_pipeline: Path, tmp_path: Path
) -> None:
    experiment = load_experiment(small_pipeline)
    finished = run_experiment(experiment, tmp_path / "run")
    assert finished.offered_rps.tolist() == experiment.workload.counts.tolist()
    assert finished.requests.request_id.tolist() == list(range(experiment.workload.requests))


def test_decisions_come_at_every_interval_but_the_first(
    small_pipeline: Path, tmp_path: Path
) -> None:
    finished = run(small_pipeline, tmp_path / "run")
    assert [step.start_s for step in finished.steps] == list(range(0, 120, 10))
    assert [step.status for step in finished.steps] == ["initial"] + ["optimal"] * 11


def test_energy_weight_lowers_joules_and_zero_is_the_default(
    small_pipeline: Path, tmp_path: Path
) -> None:
    default = metrics(run(small_pipeline, tmp_path / "default"))
    zero = metrics(run(small_pipeline, tmp_path / "zero", energy_weight=0.0))
    heavy = metrics(run(small_pipeline, tmp_path / "heavy", energy_weight=10.0))
    assert timeless(tmp_path / "default") == timeless(tmp_path / "zero")
    assert default.energy_j == zero.energy_j
    assert heavy.joules_per_request < 0.8 * zero.joules_per_request
    assert heavy.accuracy_mean < zero.accuracy_mean


def test_simulated_joules_are_called_estimated_and_name_their_meter(
    small_pipeline: Path, tmp_path: Path
) -> None:
    found = metrics(run(small_pipeline, tmp_path / "run"))
    assert (found.meter, found.quality) == ("cpu-time", "estimated")


def test_share_of_intervals_inside_the_energy_sla_is_logged_and_counted(
    small_pipeline: Path, tmp_path: Path
) -> None:
    """Joules of an interval, its idle ones included, over the requests that left it."""
    finished = run(small_pipeline, tmp_path / "run", energy_sla_joules=1.2)
    done_s = finished.requests.done_s
    inside = []
    for step in finished.steps:
        is_last = step is finished.steps[-1]
        left = (done_s >= step.start_s) & ((done_s < step.end_s) | is_last)
        inside.append(step.energy_j / left.sum() <= 1.2)
        assert step.in_energy_sla == inside[-1]
    found = metrics(finished)
    assert found.energy_sla_joules == 1.2
    assert found.energy_sla_attainment == sum(inside) / len(inside)
    assert 0.5 < found.energy_sla_attainment < 1.0
    log = json.loads((tmp_path / "run" / "adaptation_log.json").read_text())["timesteps"]
    assert log["10"]["energy_sla"]["joules"] == 1.2
    assert log["10"]["energy_sla"]["planned_at_rps"] == finished.offered_rps[:10].mean()
    in_memory = run_experiment(load_experiment(small_pipeline, {"energy_sla_joules": 1.2}))
    assert metrics(in_memory).energy_sla_attainment == found.energy_sla_attainment


def test_run_without_an_energy_sla_says_nothing_of_one(
    small_pipeline: Path, tmp_path: Path
) -> None:
    found = metrics(run(small_pipeline, tmp_path / "run"))
    assert found.energy_sla_joules is None
    assert np.isnan(found.energy_sla_attainment)
    assert "energy_sla" not in (tmp_path / "run" / "adaptation_log.json").read_text()


def test_loads_under_one_a_second_are_planned_as_they_are(
    small_pipeline: Path, tmp_path: Path
) -> None:
    """One request in 20 s, then none: planned as it is, or as one request an interval."""
    csv = tmp_path / "quiet.csv"
    counts = [int(second % 20 == 3) for second in range(60)] + [0] * 60
    csv.write_text("requests\n" + "\n".join(map(str, counts)) + "\n")
    finished = run(
        small_pipeline,
        tmp_path / "run",
        workload_type="csv",
        workload_config={"path": str(csv)},
        predictor_type="avg",
        backup_predictor_duration=0,
        monitoring_duration=0.5,
    )
    planned = [step.planned_load_rps for step in finished.decisions]
    predicted = [step.predicted_load_rps for step in finished.decisions]
    assert planned == [load_rps or 0.1 for load_rps in predicted]
    assert predicted[-1] == 0.0
    assert any(0 < load_rps < 1 for load_rps in predicted)
    step = next(step for step in finished.decisions if step.planned_load_rps == 0.1)
    for stage in step.stages:
        assert stage.power_w == pytest.approx(0.1 * stage.joules_per_request, rel=1e-4)


def test_energy_sla_holds_in_every_step(small_pipeline: Path, tmp_path: Path) -> None:
    finished = run(small_pipeline, tmp_path / "run", energy_sla_joules=1.2)
    for step in finished.decisions:
        assert sum(stage.joules_per_request for stage in step.stages) <= 1.2 * (1 + 1e-9)
    free = run(small_pipeline, tmp_path / "free")
    assert any(
        sum(stage.joules_per_request for stage in step.stages) > 1.2 for step in free.decisions
    )


def test_infeasible_steps_keep_the_running_plan_and_say_so(
    small_pipeline: Path, tmp_path: Path
) -> None:
    finished = run(small_pipeline, tmp_path / "run", scaling_cap=1, latency_sla_s=0.2)
    infeasible = [step for step in finished.decisions if step.status == "infeasible"]
    assert infeasible
    before = {step.end_s: step.label for step in finished.steps}
    for step in infeasible:
        assert step.conflict
        assert step.label == before[step.start_s]
        assert step.reconfigured == ()


def test_run_folder_runs_again_on_its_own(small_pipeline: Path, tmp_path: Path) -> None:
    run(small_pipeline, tmp_path / "a")
    for path in small_pipeline.parent.iterdir():
        path.unlink()
    run(tmp_path / "a" / "0.yaml", tmp_path / "b")
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")


CHILD = """
import sys
from pathlib import Path
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.runlog.writer import RunLog

append = RunLog.append_interval
def slow(self, interval):
    append(self, interval)
    print(interval.timestep_s, flush=True)
    sys.stdin.readline()
RunLog.append_interval = slow
run_experiment(load_experiment(Path(sys.argv[1])), Path(sys.argv[2]), name="a")
"""


@pytest.mark.slow
@pytest.mark.parametrize("intervals", [1, 5, 12])
def test_killed_run_keeps_its_intervals_and_resumes_to_the_same_end(
    small_pipeline: Path, tmp_path: Path, intervals: int
) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(small_pipeline), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(intervals - 1):
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()

    killed = read_run(out)
    assert killed.status == "running"
    assert len(killed.steps) == intervals
    assert metrics(killed).energy_j > 0

    resumed = run_experiment(load_experiment(small_pipeline), out, resume=True)
    run_experiment(load_experiment(small_pipeline), tmp_path / "whole", name="a")
    assert resumed.status == "complete"
    assert timeless(out) == timeless(tmp_path / "whole")
    assert same_times(out, tmp_path / "whole")
    totals = [
        json.loads((path / "run.json").read_text())["totals"] for path in (out, tmp_path / "whole")
    ]
    assert totals[0] == totals[1]


def test_hardware_that_cores_do_not_tell_apart_is_logged_and_resumed(
    small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = small_pipeline.parent / "profile.csv"
    header, *rows = profile.read_text().splitlines()
    slow = []
    for row in rows:
        cells = row.replace(",cpu,", ",arm,").split(",")
        for column, factor in ((8, 2), (9, 2), (10, 0.5)):  # mean and p99 latency, throughput
            cells[column] = f"{float(cells[column]) * factor:.6g}"
        slow.append(",".join(cells))
    fast = [row.replace(",cpu,", ",xeon,") for row in rows]
    profile.write_text("\n".join([header, *slow, *fast, ""]))
    whole = run(small_pipeline, tmp_path / "whole")
    assert all(" on " in stage.label for step in whole.steps for stage in step.stages)

    append = RunLog.append_interval

    def stop(self: RunLog, interval: Any) -> None:
        if interval.timestep_s >= 60:
            raise KeyboardInterrupt
        append(self, interval)

    monkeypatch.setattr(RunLog, "append_interval", stop)
    with pytest.raises(KeyboardInterrupt):
        run(small_pipeline, tmp_path / "run")
    monkeypatch.undo()
    resumed = run_experiment(load_experiment(small_pipeline), tmp_path / "run", resume=True)
    assert [step.label for step in resumed.steps] == [step.label for step in whole.steps]
    assert same_times(tmp_path / "run", tmp_path / "whole")


def test_resume_decides_nothing_anew(
    small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    append = RunLog.append_interval
    count = 0

    def stop_at_six(self: RunLog, interval: Any) -> None:
        nonlocal count
        count += 1
        if count > 6:
            raise KeyboardInterrupt
        append(self, interval)

    monkeypatch.setattr(RunLog, "append_interval", stop_at_six)
    with pytest.raises(KeyboardInterrupt):
        run(small_pipeline, out)
    monkeypatch.undo()
    durations = [step.decision_s for step in read_run(out).steps]
    resumed = run_experiment(load_experiment(small_pipeline), out, resume=True)
    assert np.array_equal(
        durations, [step.decision_s for step in resumed.steps][: len(durations)], equal_nan=True
    )


def test_resume_refuses_another_configuration(small_pipeline: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    experiment = load_experiment(small_pipeline)
    run_experiment(experiment, out)
    text = (out / "run.json").read_text().replace('"complete"', '"running"')
    (out / "run.json").write_text(text)
    (out / "journal.jsonl").write_text("")
    with pytest.raises(ConfigError, match="other options"):
        run_experiment(load_experiment(small_pipeline, {"energy_weight": 3.0}), out, resume=True)


def test_a_run_by_quantiles_and_queues_resumes_to_the_same_end(
    small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = "forecast_levels: [0.1, 0.5, 0.9]\nlatency_model: queue\npredictor_type: ensemble\n"
    text = small_pipeline.read_text().replace("predictor_type: max\n", "", 1)
    small_pipeline.write_text(text + keys)
    stopped(small_pipeline, tmp_path / "cut", monkeypatch)
    run_experiment(load_experiment(small_pipeline), tmp_path / "cut", resume=True)
    run_experiment(load_experiment(small_pipeline), tmp_path / "whole", name="a")
    whole = timeless(tmp_path / "whole")
    assert timeless(tmp_path / "cut")["timesteps"] == whole["timesteps"]
    told = [step["forecast"] for step in whole["timesteps"].values() if "forecast" in step]
    assert len(told) > 3
    assert all(len(each["mean_rps"]) == len(each["levels"]) for each in told)


@pytest.fixture
def unfinished(small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after three intervals."""
    stopped(small_pipeline, tmp_path / "unfinished", monkeypatch)
    return tmp_path / "unfinished"


@pytest.mark.parametrize("name", ["0.yaml", "profile.csv", "workload.csv"])
def test_resume_names_the_file_that_is_gone(
    small_pipeline: Path, unfinished: Path, name: str
) -> None:
    (unfinished / name).rename(unfinished / "elsewhere")
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read \(no such file.*put it back"):
        run_experiment(load_experiment(small_pipeline), unfinished, resume=True)
    (unfinished / "elsewhere").rename(unfinished / name)
    assert (
        run_experiment(load_experiment(small_pipeline), unfinished, resume=True).status
        == "complete"
    )


def test_resume_does_not_rename_a_run(small_pipeline: Path, unfinished: Path) -> None:
    experiment = load_experiment(small_pipeline)
    with pytest.raises(ConfigError, match="--name: the run is called unfinished"):
        run_experiment(experiment, unfinished, resume=True, name="other")
    resumed = run_experiment(experiment, unfinished, resume=True, name="unfinished")
    assert resumed.status == "complete"


def test_a_complete_run_on_a_read_only_disk_is_complete_already(
    small_pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "run"
    run(small_pipeline, out)

    def read_only(self: Path, missing_ok: bool = False) -> None:
        del missing_ok
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "unlink", read_only)
    found = run_experiment(load_experiment(small_pipeline), out, resume=True)
    assert found.status == "complete"
    assert "complete already" in caplog.text


def test_existing_folder_is_refused_and_left_alone(small_pipeline: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        run(small_pipeline, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("second", "predicted_rps"), [(27, 9.0), (28, 2.0)])
def test_the_oracle_looks_until_the_plan_after_the_next_serves(
    small_pipeline: Path, second: int, predicted_rps: float
) -> None:
    """The next decision comes after 10 s, and what it starts is ready 7.5 s, so 8 s, later."""
    overrides = {"predictor_type": "oracle", "adaptation_interval": 10, "reconfiguration_s": 7.5}
    counts = np.full(40, 2)
    counts[second] = 9
    experiment = load_experiment(small_pipeline, overrides)
    experiment = replace(experiment, workload=Workload("made up", counts, "this test"))
    first = run_experiment(experiment).decisions[0]
    assert (first.start_s, first.predicted_load_rps) == (10, predicted_rps)


def test_decisions_of_another_run_are_simulated_as_they_were_made(
    small_pipeline: Path, tmp_path: Path
) -> None:
    decided = run(small_pipeline, tmp_path / "run")
    assert any(step.reconfigured for step in decided.decisions)
    # With other weights it would decide otherwise.
    other = load_experiment(small_pipeline, {"alpha": 0.1})
    assert run_experiment(other).requests.done_s.tolist() != decided.requests.done_s.tolist()
    again = run_experiment(other, decisions=decided.steps)
    assert again.requests.done_s.tolist() == decided.requests.done_s.tolist()
    assert [step.stages for step in again.steps] == [step.stages for step in decided.steps]


def test_decision_time_is_logged(small_pipeline: Path, tmp_path: Path) -> None:
    begin = time.perf_counter()
    finished = run(small_pipeline, tmp_path / "run")
    elapsed_s = time.perf_counter() - begin
    decisions_s = [step.decision_s for step in finished.decisions]
    assert all(0 < value < elapsed_s for value in decisions_s)


def test_log_has_the_load_of_every_second_up_to_the_last_decision(
    small_pipeline: Path, tmp_path: Path
) -> None:
    experiment = load_experiment(small_pipeline, {"monitoring_duration": 0.5})
    run_experiment(experiment, tmp_path / "run")
    log = json.loads((tmp_path / "run" / "adaptation_log.json").read_text())
    assert log["metadata"]["recieved_load"] == experiment.workload.counts[:110].tolist()


def test_a_run_says_what_it_was_decided_by_where_that_is_not_the_default(
    small_pipeline: Path, tmp_path: Path
) -> None:
    plain = run(small_pipeline, tmp_path / "plain").info.settings
    told = {
        "mix": True,
        "latency_model": "queue",
        "throughput_margin": -10,
        "capacity": {"core": 99},
    }
    overrides = {**told, "accuracy_floor": 0.2, "optimization_method": "highs"}
    further = run(small_pipeline, tmp_path / "further", **overrides).info.settings
    assert not {*told, "accuracy_floor", "controller"} & {*plain}
    assert {key: further[key] for key in told} == told
    assert further["accuracy_floor"] == 0.2
    horizon = run(small_pipeline, tmp_path / "horizon", controller="horizon").info.settings
    assert horizon["controller"] == "horizon"


def test_a_quantity_from_outside_goes_through_a_whole_run(
    small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rent(option: Option, replicas: int, *_: object) -> float:
        return 0.25 * option.cpu_cores * replicas

    money = Quantity("rent of the cores", rent, "ct", "money_weight", "money_cap")
    monkeypatch.setitem(QUANTITIES, "money", money)
    overrides = {"money_weight": 2.0, "money_cap": 100.0}
    finished = run(small_pipeline, tmp_path / "run", **overrides)
    for step in finished.decisions:
        assert step.amounts["money"] == pytest.approx(0.25 * step.cores)
        assert step.terms["money"] == pytest.approx(2 * step.amounts["money"])
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (told["settings"]["money_weight"], told["settings"]["money_cap"]) == (2.0, 100.0)
    assert told["totals"]["terms"]["money"] > 0
    in_memory = run_experiment(load_experiment(small_pipeline, overrides))
    assert [step.amounts for step in in_memory.steps] == [step.amounts for step in finished.steps]


@pytest.mark.parametrize("name", ["red \x1b[31m", "two\nlines", "bell\a"])
def test_a_name_that_a_terminal_would_obey_is_refused(
    small_pipeline: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=r"--name: .*; allowed: printable text"):
        run_experiment(load_experiment(small_pipeline), tmp_path / "run", name=name)
    assert not (tmp_path / "run").exists()


def test_a_foreign_runs_name_reaches_no_terminal_raw(small_pipeline: Path, tmp_path: Path) -> None:
    run(small_pipeline, tmp_path / "run")
    info = tmp_path / "run" / "run.json"
    info.write_text(info.read_text().replace('"name": "run"', '"name": "a\\u001b[31m"'))
    assert read_run(tmp_path / "run").name == "a\ufffd[31m"
