"""Whole runs with ``mix: true``: what the log has, replay after a kill, what cannot run mixes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

from ipa_energy.errors import ConfigError
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.registries import BACKENDS, Named
from ipa_energy.runlog.reader import read_run

WITH_MIX = {
    "mix": True,
    "accuracy_floor": 1.2,
    "alpha": 0.0,
    "beta": 0.0,
    "energy_weight": 1.0,
    "optimization_method": "auto",
    "batching_cap": 2,
    "workload_type": "static",
    "workload_config": {"loads_to_test": 8, "load_duration": 40},
}


def test_a_run_with_mixes_logs_its_parts_and_keeps_the_floor(tmp_path: Path) -> None:
    path = write_small_pipeline(tmp_path)
    run_experiment(load_experiment(path, WITH_MIX), tmp_path / "mixed")
    log = json.loads((tmp_path / "mixed" / "adaptation_log.json").read_text())
    steps = [entry for entry in log["timesteps"].values() if entry["status"] == "optimal"]
    parts = [node["parts"] for entry in steps for node in entry["energy"].values()
             if "parts" in node]  # fmt: skip
    assert parts
    assert all(sum(part["share"] for part in each) == pytest.approx(1) for each in parts)
    run = read_run(tmp_path / "mixed")
    mixed = [step for step in run.steps if any(stage.parts for stage in step.stages)]
    assert mixed
    assert all(step.accuracy_raw >= 1.2 - 1e-9 for step in mixed)
    assert "%" in mixed[0].label
    alone = load_experiment(path, {**WITH_MIX, "mix": False, "optimization_method": "pareto"})
    others = run_experiment(alone, tmp_path / "alone").steps
    decided = [(one, other) for one, other in zip(run.steps, others, strict=True)
               if one.status == "optimal"]  # fmt: skip
    assert all(one.terms["objective"] >= other.terms["objective"] - 1e-9 for one, other in decided)


def test_a_killed_run_with_mixes_goes_on_to_the_same_end(tmp_path: Path) -> None:
    path = write_small_pipeline(tmp_path)
    experiment = load_experiment(path, WITH_MIX)
    whole = run_experiment(experiment, tmp_path / "whole")

    class KilledError(Exception):
        pass

    class Kills:
        def interval(self, interval: object) -> None:
            if interval.timestep_s == 20:  # type: ignore[attr-defined]
                raise KilledError

        def tick(self, *_: object) -> None: ...
        def clear(self) -> None: ...

    with pytest.raises(KilledError):
        run_experiment(experiment, tmp_path / "killed", view=Kills())
    again = run_experiment(experiment, tmp_path / "killed", resume=True)
    assert [step.label for step in again.steps] == [step.label for step in whole.steps]
    assert [step.energy_j for step in again.steps] == [step.energy_j for step in whole.steps]


def test_a_backend_that_serves_one_option_a_stage_refuses_mixes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "plain", Named("made up", print))
    experiment = load_experiment(write_small_pipeline(tmp_path), WITH_MIX)
    with pytest.raises(ConfigError, match="plain serves one option a stage"):
        run_experiment(experiment, tmp_path / "live", backend="plain")


@pytest.mark.parametrize(
    ("changes", "warns"),
    [({}, True), ({"latency_model": "queue"}, False), ({"throughput_margin": -10}, False)],
)
def test_a_mix_that_leaves_no_room_says_so_once(
    changes: dict[str, object], warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_experiment(load_experiment(write_small_pipeline(tmp_path), WITH_MIX | changes))
    assert caplog.text.count("latency_model: queue leaves room") == warns
