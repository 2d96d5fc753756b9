"""Runs that look ahead: a load that comes and goes, and a run that is killed and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ipa_energy.comparing import metrics
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.runlog import RunLog

VIDEO = Path(__file__).parents[2] / "configs" / "video.yaml"


def alternating(folder: Path) -> dict[str, Any]:
    """No request for a minute, then 3 a second for a minute, and so on."""
    rows = "".join(f"{second},{3 * (second // 60 % 2)}\n" for second in range(600))
    path = folder / "alternating.csv"
    path.write_text("second,requests\n" + rows)
    workload = {"workload_type": "csv", "workload_config": {"path": str(path)}}
    return {**workload, "predictor_type": "reactive", "controller": "horizon"}


def test_a_backlog_is_worked_off(tmp_path: Path) -> None:
    """Without a look at the queue 3 % of these requests are answered in time."""
    settings = alternating(tmp_path)
    ahead = run_experiment(load_experiment(VIDEO, settings))
    blind = run_experiment(load_experiment(VIDEO, {**settings, "controller": "interval"}))
    assert metrics(blind).sla_attainment < 0.1
    assert metrics(ahead).sla_attainment > 0.75


def test_a_killed_run_that_looks_ahead_resumes_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = alternating(tmp_path)
    append = RunLog.append_interval

    def stop(self: RunLog, interval: Any) -> None:
        if interval.timestep_s >= 200:
            raise KeyboardInterrupt
        append(self, interval)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "append_interval", stop)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(load_experiment(VIDEO, settings), tmp_path / "run")
    resumed = run_experiment(load_experiment(VIDEO, settings), tmp_path / "run", resume=True)
    whole = run_experiment(load_experiment(VIDEO, settings), tmp_path / "whole")
    assert resumed.status == "complete"
    logs = [
        json.loads((tmp_path / f / "adaptation_log.json").read_text()) for f in ("run", "whole")
    ]
    for log in logs:
        for step in log["timesteps"].values():
            step.pop("duration")
    assert logs[0]["timesteps"] == logs[1]["timesteps"]
    paid = [step.switching for step in whole.steps if step.switching]
    assert sum(step["loading_joules"] for step in paid) > 0
    loaded_j = sum(step["loaded_joules"] for step in paid)
    assert loaded_j == pytest.approx(sum(step["loading_joules"] for step in paid), rel=0.2)
