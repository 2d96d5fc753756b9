"""Runs that look ahead: a load that comes and goes, and a run that is killed and goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipa_energy.adaptation.predictor import make_predictor
from ipa_energy.comparing import metrics
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.frontier.worth import bound_of, course_of_run, outturn_of_run, worth
from ipa_energy.planning import horizon_adapter
from ipa_energy.planning.horizon_adapter import adapter_for, weights_of, without_cut
from ipa_energy.planning.planner import load_planner
from ipa_energy.runlog import Run, RunLog
from ipa_energy.runner import initial_configuration

VIDEO = Path(__file__).parents[2] / "configs" / "video.yaml"


def alternating(folder: Path) -> dict[str, Any]:
    """No request for a minute, then 3 a second for a minute, and so on."""
    rows = "".join(f"{second},{3 * (second // 60 % 2)}\n" for second in range(600))
    path = folder / "alternating.csv"
    path.write_text("second,requests\n" + rows)
    workload = {"workload_type": "csv", "workload_config": {"path": str(path)}}
    return {**workload, "predictor_type": "reactive", "controller": "horizon"}


def killed_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], killed_s: int
) -> tuple[Run, Run]:
    """A run in ``run`` that was killed at a second and resumed, and the same in ``whole``."""
    append = RunLog.append_interval

    def stop(self: RunLog, interval: Any) -> None:
        if interval.timestep_s >= killed_s:
            raise KeyboardInterrupt
        append(self, interval)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "append_interval", stop)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(load_experiment(VIDEO, settings), tmp_path / "run")
    resumed = run_experiment(load_experiment(VIDEO, settings), tmp_path / "run", resume=True)
    whole = run_experiment(load_experiment(VIDEO, settings), tmp_path / "whole")
    return resumed, whole


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
    resumed, whole = killed_and_whole(tmp_path, monkeypatch, settings, 200)
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


def jumping(folder: Path, **keys: object) -> dict[str, Any]:
    """3 requests a second, and 14 from second 125 on."""
    path = folder / "jumping.csv"
    rows = "".join(f"{second},{3 if second < 125 else 14}\n" for second in range(240))
    path.write_text("second,requests\n" + rows)
    workload = {"workload_type": "csv", "workload_config": {"path": str(path)}}
    return {**workload, "predictor_type": "reactive", "controller": "horizon", **keys}


def test_a_load_beyond_the_plan_is_not_waited_out(tmp_path: Path) -> None:
    """Of the two seconds before 126 the second has it."""
    early = run_experiment(load_experiment(VIDEO, jumping(tmp_path)), tmp_path / "early")
    assert [step.start_s for step in early.steps][12:15] == [120, 126, 136]
    step = early.steps[13]
    assert step.overrun_rps == 8.5
    assert step.reconfigured
    assert {math.isnan(other.overrun_rps) for other in early.steps if other is not step} == {True}
    late = run_experiment(load_experiment(VIDEO, jumping(tmp_path, early_decisions=False)))
    assert [step.start_s for step in late.steps] == list(range(0, 240, 10))
    in_time = [metrics(each).sla_attainment for each in (late, early)]
    assert in_time[1] > in_time[0] + 0.01


def test_a_load_beyond_the_forecast_is_not_waited_out_though_it_is_carried(tmp_path: Path) -> None:
    settings = jumping(tmp_path, energy_weight=4)
    path = Path(settings["workload_config"]["path"])
    path.write_text(path.read_text().replace(",14", ",5"))
    steps = run_experiment(load_experiment(VIDEO, settings)).steps
    before, early = (step for step in steps if 120 <= step.start_s < 130)
    assert early.start_s == 127
    assert before.planned_load_rps < early.overrun_rps == 5.0
    assert min(stage.throughput_rps for stage in before.stages) > 5.0


@pytest.mark.parametrize(("said", "steps"), [(None, 24), (True, 25)])
def test_other_controllers_decide_early_when_told(
    tmp_path: Path, said: bool | None, steps: int
) -> None:
    settings = jumping(tmp_path, controller="interval", early_decisions=said)
    assert len(run_experiment(load_experiment(VIDEO, settings)).steps) == steps


def test_early_decisions_are_made_again_where_a_killed_run_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = jumping(tmp_path)
    resumed, whole = killed_and_whole(tmp_path, monkeypatch, settings, 150)
    assert [(s.start_s, s.label) for s in resumed.steps] == [
        (s.start_s, s.label) for s in whole.steps
    ]
    assert resumed.requests.done_s == pytest.approx(whole.requests.done_s)


def test_the_log_says_with_what_it_was_planned_and_what_the_change_weighed(tmp_path: Path) -> None:
    found = run_experiment(load_experiment(VIDEO, jumping(tmp_path)), tmp_path / "run")
    step = next(step for step in found.steps if step.reconfigured)
    assert step.forecast["planned_levels"] == (0.5, 0.98)
    assert len(step.forecast["peak_rps"]) == len(step.forecast["levels"])
    assert step.switching["penalty"] > 0


def test_no_early_run_exceeds_its_bound(tmp_path: Path) -> None:
    experiment = load_experiment(VIDEO, jumping(tmp_path, energy_weight=1))
    found = run_experiment(experiment)
    outturn = outturn_of_run(metrics(found))
    assert worth(experiment, course_of_run(experiment, found), outturn) <= bound_of(
        experiment, outturn
    )


def test_the_margin_is_on_what_has_to_be_carried_and_not_on_the_mean_load() -> None:
    def planned(margin: int, load_rps: int) -> tuple[set[float], float]:
        planner = load_planner(VIDEO, {"predictor_margin": margin, "controller": "horizon"})
        means_rps: set[float] = set()

        def signals(_: float, mean_rps: float) -> dict[str, float]:
            means_rps.add(mean_rps)
            return {}

        trace = np.full(600, load_rps)
        oracle = make_predictor("oracle", trace=trace)
        adapter = adapter_for(planner, oracle, signals, 20)
        decision = adapter.decide(100, trace[:100], initial_configuration(planner))
        return means_rps, decision.planned_load_rps

    assert planned(50, 0)[0] == planned(0, 0)[0] == {0.1}  # one request an interval
    assert planned(50, 3)[0] == planned(0, 3)[0] == {3.0}
    assert planned(50, 3)[1] > 1.3 * planned(0, 3)[1]


def test_quantiles_stand_for_what_is_nearest_to_them() -> None:
    assert weights_of([0.5]).tolist() == [1.0]
    assert weights_of([0.5, 0.9, 0.98]) == pytest.approx([0.7, 0.24, 0.06])


def test_a_cut_is_filled_with_what_came_before_it_and_a_lull_is_not() -> None:
    before, cut, after = [5, 4, 6, 5, 7], [0] * 3, [4, 5]
    filled = without_cut(np.array(before + cut + after), 0.02)
    assert filled.tolist() == [*before, 6, 5, 7, *after]
    going_on = without_cut(np.array([5, 4, *[0] * 5]), 0.02)  # longer than what came before it
    assert going_on.tolist() == [5, 4, 5, 4, 5, 4, 5]
    for lull in (
        [5, 0, 0, 0, 5, 4, 0, 0, 0],  # as long as one before
        [1, 0, 1, 0, 0, 0, 0, 1, 1],  # at one request a second, by chance
        [0, 0, 0, 5, 5, 5],  # nothing came before
        [0, 0, 0],
    ):
        assert without_cut(np.array(lull), 0.02).tolist() == lull


def test_replicas_stay_while_the_senders_are_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes of load, 20 s of silence, a minute of load."""
    rows = [f"{second},{0 if 120 <= second < 140 else 5}\n" for second in range(200)]
    settings = alternating(tmp_path) | {"predictor_type": "lstm"}
    Path(settings["workload_config"]["path"]).write_text("second,requests\n" + "".join(rows))

    def in_time() -> float:
        return metrics(run_experiment(load_experiment(VIDEO, settings))).sla_attainment

    assert in_time() > 0.995
    monkeypatch.setattr(horizon_adapter, "without_cut", lambda counts, _: counts)
    assert in_time() < 0.985
