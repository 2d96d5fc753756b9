"""Joules of live runs from end to end: drift of real work, and a counter that is taken away."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("grpc")
sys.path.insert(0, str(Path(__file__).parents[2] / "meters"))

from live_runs import lines_of, until, write_pipeline
from powercap_tree import LiveMachine, Machine

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.meters.power_model import power_model_for_this_machine
from ipa_energy.runlog import RunLog, read_run
from ipa_energy.runlog.record import Interval
from ipa_energy.serving.base import LiveOptions

pytestmark = [pytest.mark.slow, pytest.mark.measures]

ROUTING_S = 0.004
"""About the CPU seconds that a replica's own server spends on a request beside its model."""


RPS = 4


def write_working_pipeline(folder: Path, seconds: int, more: dict[str, float]) -> Path:
    """Two stages whose stubs really spend so many times the joules that the profile has."""
    path = write_pipeline(folder, [RPS] * seconds)
    model = power_model_for_this_machine()
    lines = (folder / "profile.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = []
    for line in lines[1:]:
        row = dict(zip(names, line.split(","), strict=True))
        if (row["batch"], row["cpu_cores"]) != ("1", "1") or row["variant"][-2:] != "-s":
            continue  # one option a stage: nothing changes, and every window counts
        used_s = float(row["latency_avg_s"]) + ROUTING_S
        idle_j = model.idle_w_per_core / RPS
        live_j = used_s * model.dynamic_w_per_core + idle_j
        row["dynamic_energy_j"] = f"{live_j / more[row['stage']] - idle_j:.6g}"
        row["idle_power_w"] = f"{model.idle_w_per_core:.6g}"
        row["energy_ci95_j"] = "0.001"
        row["latency_p99_s"] = "1.5"  # so that nobody is replaced for being slow
        rows.append(",".join(row.values()))
    (folder / "profile.csv").write_text("\n".join([lines[0], *rows, ""]))
    return path


def test_a_stub_whose_work_differs_from_its_profile_is_rescaled_within_a_minute_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is CPU time, which a busy machine does not change; only waiting does."""
    corrected: list[bool] = []
    append = RunLog.append_interval

    def until_counted_with(self: RunLog, interval: Interval) -> None:
        append(self, interval)
        corrected.append(bool(interval.corrections))
        if any(corrected[:-2]):
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLog, "append_interval", until_counted_with)
    pipeline = write_working_pipeline(tmp_path, 36, {"find": 1.2, "name": 1.0})
    watched = LiveOptions(meter="cpu-time", stubs_work=True, overcommits=True)
    with suppress(KeyboardInterrupt):
        run_experiment(
            load_experiment(pipeline), tmp_path / "run", backend="local-stub", live=watched
        )
    run = read_run(tmp_path / "run")
    seen = [step.live for step in run.steps if step.live]
    ratios = [(one.stage, round(one.ratio, 2), one.is_clean) for at in seen for one in at.joules]
    found = {one.stage: one for live in seen for one in reversed(live.corrections)}
    assert set(found) == {"find"}, ratios
    assert found["find"].found_s <= 60, ratios
    assert found["find"].is_applied
    assert found["find"].scale == pytest.approx(1.2, rel=0.08), ratios
    assert found["find"].idle == pytest.approx(1.0, rel=0.1), ratios
    idle_w = power_model_for_this_machine().idle_w_per_core
    planned = [(step.stages[0].joules_per_request, step.planned_load_rps) for step in run.steps]
    before_j, after_j = (joules - idle_w / rps for joules, rps in (planned[1], planned[-1]))
    assert after_j > 1.2 * before_j, planned  # what is decided next counts with it


def test_a_counter_that_is_taken_away_in_the_middle_is_replaced_by_the_estimate_with_a_word(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path / "powercap")
    zone = machine.add("intel-rapl:0", "package-0", power_w=40.0)
    pipeline = write_pipeline(tmp_path / "pipeline", [5] * 14)
    out = tmp_path / "run"
    experiment = load_experiment(pipeline)
    watched = LiveOptions(meter="rapl", powercap=machine.root, overcommits=True)

    def take_away() -> None:
        until(lambda: lines_of(out) >= 4)
        zone.running = False
        time.sleep(0.1)
        (zone.path / "energy_uj").unlink()

    with LiveMachine(machine):
        thief = threading.Thread(target=take_away)
        thief.start()
        run = run_experiment(experiment, out, backend="local-stub", live=watched)
        thief.join()
    found = [(step.meter, step.quality) for step in run.steps]
    assert ("rapl", "measured") in found
    assert found[-1] == ("cpu-time", "estimated")
    notes = [note for step in run.steps if step.live for note in step.live.notes]
    gone = [note for note in notes if "cannot be read" in note]
    assert len(gone) == 1, notes
    assert "joules are estimated from CPU time from here on" in gone[0]
    for step in run.steps:  # never 0, whoever counts; this machine draws the same whatever it does
        assert step.live is not None
        assert all(stage.idle_j > 0 for stage in step.stages)
        assert step.meter == "rapl" or all(stage.dynamic_j > 0 for stage in step.stages)
        assert set(step.live.overhead_j) >= {"router", "generator", "adapter", "meter"}
    metered = [step for step in run.steps if step.meter == "rapl"][1:]
    machine_j = sum(step.live.machine_j or 0.0 for step in metered if step.live)
    # 40 W, of which the stages have their cores' share of the empty machine and their work.
    assert machine_j == pytest.approx(40.0 * sum(step.duration_s for step in metered), rel=0.3)
    assert 0 < sum(step.energy_j for step in metered) < 1.2 * machine_j


def test_a_meter_that_gives_no_figure_is_told_before_anything_is_served(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path, [5] * 4)
    watched = LiveOptions(meter="rapl", powercap=tmp_path / "none", overcommits=True)
    with pytest.raises(MeterUnavailableError, match="rapl"):
        run_experiment(load_experiment(pipeline), backend="local-stub", live=watched)
