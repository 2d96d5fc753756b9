"""Runs of stubs with several options of a stage at once: shares, changes, deaths, takeover."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("grpc")

from live_runs import data_path, lines_of, running, send, until, words_of, write_pipeline
from option_maker import make_option

from ipa_energy.cli import main
from ipa_energy.comparing import metrics
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.records import EVERY_CLASS, Part
from ipa_energy.runlog import read_run
from ipa_energy.serving.base import LiveOptions
from ipa_energy.serving.deployment import DeployedStage, changed_stages
from ipa_energy.serving.local import control
from ipa_energy.serving.local.backend import LocalBackend, deployment_told
from ipa_energy.serving.local.plane import ASKS
from ipa_energy.serving.local.replica_set import Wanted
from ipa_energy.serving.observed import of_stage

pytestmark = pytest.mark.slow

MIX = "mix: true\naccuracy_floor: 1.2\nenergy_weight: 1\noptimization_method: auto\n"
FREE = [word for key in ("alpha=0", "beta=0", "batching_cap=2") for word in ("--set", key)]


def answered(run) -> dict[str, Counter[str]]:
    """Stage → option → requests that its replicas answered."""
    found: dict[str, Counter[str]] = {}
    for step in run.steps:
        for spent in step.live.replicas if step.live else ():
            found.setdefault(spent.stage, Counter())[spent.option] += spent.requests
    return found


def test_live_and_simulated_requests_go_to_the_same_options(tmp_path: Path) -> None:
    experiment = load_experiment(write_pipeline(tmp_path, [10] * 6))
    fixed = []
    for stage in experiment.planner.stages:
        alone = [option for option in stage.options if option.batch == 1]
        cheap = min(alone, key=lambda option: option.dynamic_energy_j)
        dear = max(alone, key=lambda option: option.dynamic_energy_j)
        parts = (Part(cheap, 2, ((EVERY_CLASS, 0.7),)), Part(dear, 2, ((EVERY_CLASS, 0.3),)))
        fixed.append(DeployedStage(stage.name, cheap, 4, parts=parts))
    live = run_experiment(
        experiment,
        tmp_path / "live",
        backend="local-stub",
        fixed=tuple(fixed),
        live=LiveOptions(overcommits=True),
    )
    simulated = run_experiment(experiment, tmp_path / "simulated", fixed=tuple(fixed))
    assert len(live.requests) == len(simulated.requests) == 60
    counts = answered(live)
    for index, stage in enumerate(fixed):
        labels = [f"{p.option.variant} {p.option.allocation.label}" for p in stage.parts]
        assert [counts[stage.stage][label] for label in labels] == [42, 18]
        total_j = sum(step.stages[index].dynamic_j for step in simulated.steps)
        cheap_j, dear_j = (part.option.dynamic_energy_j for part in stage.parts)
        assert total_j == pytest.approx(42 * cheap_j + 18 * dear_j)
    for step in live.steps:
        assert {state.label.count("%") for state in step.stages} == {2}
        for stage in fixed:
            assert of_stage(step.live.joules, stage.stage).requests > 0


def test_a_live_run_decides_on_mixes_changes_shares_and_loses_nothing(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path, [12] * 4 + [40] * 6, more=MIX)
    out = tmp_path / "run"
    assert main(words_of(pipeline, out, *FREE)) == 0
    run = read_run(out)
    assert len(run.requests) == 12 * 4 + 40 * 6
    assert (run.requests.dropped_at < 0).all()
    assert np.isfinite(run.requests.done_s).all()
    assert len({step.label for step in run.steps if "%" in step.label}) >= 2
    assert any("%" in change.to for step in run.steps if step.live for change in step.live.changes)
    assert sum(answered(run)[run.info.stages[0]].values()) == len(run.requests)
    log = json.loads((out / "adaptation_log.json").read_text())
    assert any("parts" in node for e in log["timesteps"].values() for node in e["energy"].values())


def test_a_mix_is_mended_and_taken_over_with_its_shares(tmp_path: Path) -> None:
    pipeline, out = write_pipeline(tmp_path, [8] * 26, more=MIX), tmp_path / "run"
    words = [*FREE, "--lease", "60"]
    with running(words_of(pipeline, out, *words)) as adapter:
        until(lambda: lines_of(out) >= 3)
        stubs = [pid for pid, what in data_path(adapter.pid).items() if what == "stub_model"]
        send(stubs[-1], signal.SIGKILL)
        send(adapter.pid)
    time.sleep(2.5)
    with running(words_of(pipeline, out, "--resume", *words)) as back:
        assert back.wait(120) == 0
    run = read_run(out)
    assert run.requests.request_id.tolist() == list(range(8 * 26))
    assert (run.requests.dropped_at < 0).all()
    (at,) = [index for index, step in enumerate(run.steps) if step.gap_s]
    before, after = run.steps[at - 1], run.steps[at]
    assert "%" in before.label
    assert not after.reconfigured or "%" in after.label


def test_what_a_plane_was_told_is_what_is_taken_over(tmp_path: Path) -> None:
    """Shares by class included, in force or not yet; and the ages at which requests are late."""
    path = write_pipeline(tmp_path, [1], more="queue_order: in-time-first\n")
    planner = load_experiment(path).planner
    backend = LocalBackend.__new__(LocalBackend)
    backend._setting = SimpleNamespace(
        stages=planner.stages, config=planner.config, latency_sla_s=2.0
    )
    told = []
    for stage in planner.stages:
        first, second = stage.options[0], stage.options[-1]
        parts = (
            Part(first, 2, (("easy", 0.5), ("hard", 0.1))),
            Part(second, 1, (("hard", 0.4),)),
        )
        told.append(DeployedStage(stage.name, first, 3, parts=parts))
    alike = (
        Part(told[0].option, 1, ((EVERY_CLASS, 0.7),)),
        Part(told[1].option, 2, ((EVERY_CLASS, 0.3),)),
    )
    for deployment in (
        tuple(told),
        tuple(replace(stage, parts=()) for stage in told),
        (replace(told[0], parts=alike), told[1]),
    ):
        takes, _ = ASKS["want"]
        wanted = backend._wanted(deployment)
        over_the_line = control.loaded(ASKS["wanted"][1], control.dumped(takes, wanted))
        found = deployment_told(over_the_line, planner.stages)
        assert found is not None
        assert changed_stages(found, deployment) == []
        # Options have NaN for what nobody knows, which is equal to nothing.
        assert repr(backend._wanted(found)) == repr(wanted)
    assert deployment_told((), planner.stages) is None
    fastest_s = min(part.option.latency_s for part in told[1].parts)
    for part, wanted_of in zip(told[0].parts, backend._wanted(tuple(told))[0], strict=True):
        left_s = 2.0 - part.option.latency_s - fastest_s
        assert dict(wanted_of.in_time_s) == {"": pytest.approx(left_s)}


def test_who_knows_no_ages_and_who_does_understand_each_other() -> None:
    """An adapter and a plane of two versions: first come, first served."""
    (takes, _), wanted = ASKS["want"], Wanted(make_option("v"), 1, in_time_s=(("", 0.5),))
    ((new,),) = control.dumped(takes, ((wanted,),))
    old = {name: value for name, value in new.items() if name != "in_time_s"}
    assert new["in_time_s"] and control.loaded(takes, [[old]])[0][0].in_time_s == ()
    assert repr(control.loaded(takes, [[{**new, "of_later": 1}]])) == repr(((wanted,),))


def test_a_burst_leaves_more_in_time_where_who_can_be_is_served_first(tmp_path: Path) -> None:
    """50 requests a second are carried; 120 come for two seconds. All are answered."""
    in_time = {}
    for order in ("fifo", "in-time-first"):
        more = f"drop_limit: null\nqueue_order: {order}\nlatency_sla_s: 0.8\n"
        path = write_pipeline(tmp_path / order, [16, 120, 120, 20, 20], more=more)
        path.write_text(path.read_text().replace("latency_sla_s: 3\n", ""))
        experiment = load_experiment(path)
        fixed = tuple(
            DeployedStage(stage.name, next(o for o in stage.options if o.batch == 1), 4)
            for stage in experiment.planner.stages
        )
        run = run_experiment(
            experiment,
            tmp_path / order / "run",
            backend="local-stub",
            fixed=fixed,
            live=LiveOptions(overcommits=True),
        )
        assert len(run.requests) == 296 and (run.requests.dropped_at < 0).all()
        in_time[order] = round(296 * metrics(run).sla_attainment)
    assert in_time["in-time-first"] >= in_time["fifo"] * 4 / 3
