"""What is added to a registry while the program runs is used through command line and YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipa_energy import registries
from ipa_energy.arrays import Floats
from ipa_energy.cli import main
from ipa_energy.config import PipelineConfig, dump_config, json_schema, load_config
from ipa_energy.errors import ConfigError
from ipa_energy.meters.sources import Source
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.planning.policies import rim_high
from ipa_energy.records import Option, Stage
from ipa_energy.registries import Named, Quantity
from ipa_energy.serving.base import Serving, Setting
from ipa_energy.testing import FakeBackend, FakeMeter
from ipa_energy.workloads.trace import Workload


def call(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> Any:
    """The JSON object that a verb prints."""
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def help_of(capsys: pytest.CaptureFixture[str], verb: str) -> str:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    return " ".join(capsys.readouterr().out.split())


def with_lines(path: Path, *lines: str) -> Path:
    """The YAML with these lines instead of those of the same keys."""
    keys = tuple(f"{line.partition(':')[0]}:" for line in lines)
    kept = [line for line in path.read_text().splitlines() if not line.startswith(keys)]
    path.write_text("\n".join([*kept, *lines]) + "\n")
    return path


def test_a_solver(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_best(problem: Problem, top_k: int) -> list[Choice]:
        return pareto.solve(problem, top_k + 1)[1:]

    best = call(capsys, "optimize", small_pipeline, "--load", "7", "--top", "2")["plans"]
    monkeypatch.setitem(registries.SOLVERS, "second", Named("the second best", second_best))
    argv = ("optimize", small_pipeline, "--load", "7")
    found = call(capsys, *argv, "--method", "second")
    assert (found["method"], found["plans"][0]["objective"]) == ("second", best[1]["objective"])
    assert "second (the second best)" in help_of(capsys, "optimize")
    with_lines(small_pipeline, "optimization_method: second")
    assert call(capsys, *argv)["plans"] == found["plans"]
    assert "second" in json_schema()["properties"]["optimization_method"]["enum"]
    monkeypatch.delitem(registries.SOLVERS, "second")
    with pytest.raises(ConfigError, match=r"'second'; allowed: pareto \| gurobi"):
        load_config(small_pipeline)


def test_a_predictor(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def flat(maxima: Floats) -> float:
        del maxima
        return 4.2

    def predicted(run: Path) -> set[float]:
        log = json.loads((run / "adaptation_log.json").read_text())
        return {step["predicted_load"] for step in log["timesteps"].values()} - {0}

    monkeypatch.setitem(registries.PREDICTORS, "flat", Named("always the same", flat))
    argv = ("run", small_pipeline, "--quiet")
    call(capsys, *argv, "--predictor", "flat", "--set", "backup_predictor_type=flat",
         "--out", tmp_path / "option")  # fmt: skip
    assert predicted(tmp_path / "option") == {4}
    with_lines(small_pipeline, "predictor_type: flat", "backup_predictor_type: flat")
    call(capsys, *argv, "--out", tmp_path / "key")
    assert predicted(tmp_path / "key") == {4}
    for key in ("predictor_type", "backup_predictor_type"):
        assert "flat" in json_schema()["properties"][key]["enum"]


def test_a_workload(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def ramp(config: PipelineConfig, ipa_home: Path | None) -> Workload:
        del ipa_home
        asked = config.workload_config
        top = asked["top_rps"] if isinstance(asked, dict) else 3
        return Workload("ramp", np.arange(top + 1).repeat(10), "a test")

    monkeypatch.setitem(registries.WORKLOADS, "ramp", Named("a ramp", ramp))
    found = call(capsys, "run", small_pipeline, "--workload", "ramp", "--out", tmp_path / "option",
                 "--quiet")  # fmt: skip
    assert found["requests"] == 60
    assert "ramp" in help_of(capsys, "run")
    with_lines(small_pipeline, "workload_type: ramp", "workload_config: {top_rps: 2}")
    config = load_config(small_pipeline)
    assert config.workload_config == {"top_rps": 2}
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(dump_config(config))
    assert load_config(dumped) == config
    found = call(capsys, "run", small_pipeline, "--out", tmp_path / "key", "--quiet")
    assert found["requests"] == 30
    with_lines(small_pipeline, "workload_config: 3")
    with pytest.raises(ConfigError, match="workload_config is 3"):
        load_config(small_pipeline)


def test_a_meter(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class TenWatts(FakeMeter):
        name = "ten"

    source = Source(open=lambda _: TenWatts(power_w=10.0), counts=None)
    monkeypatch.setitem(registries.METERS, "ten", Named("ten watts", source))
    meters = {meter["name"]: meter for meter in call(capsys, "meters")["meters"]}
    assert meters["ten"]["state"] == "measured"
    assert ", ten, several joined by +" in help_of(capsys, "measure")
    argv = ("measure", "--meter", "ten", "--trials", "1", "--idle", "0.05", "--json")
    assert main([*argv, "--", "sleep", "0.1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["power_w"] == pytest.approx(10.0)


def test_a_backend(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def scripted(setting: Setting) -> Serving:
        return FakeBackend(setting, latency_s=0.125).serving

    monkeypatch.setitem(registries.BACKENDS, "scripted", Named("a script", scripted))
    found = call(capsys, "run", small_pipeline, "--backend", "scripted", "--out", tmp_path / "run",
                 "--quiet")  # fmt: skip
    assert (found["meter"], found["latency_p99_s"]) == ("fake", pytest.approx(0.125))
    assert "scripted" in help_of(capsys, "run")


def test_a_policy(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def twins(config: PipelineConfig, stages: tuple[Stage, ...]) -> PipelineConfig:
        return rim_high(config, stages).model_copy(update={"initial_replica": (2,) * len(stages)})

    monkeypatch.setitem(registries.POLICIES, "twins", Named("two replicas", twins))
    found = call(capsys, "optimize", small_pipeline, "--load", "7", "--policy", "twins")
    assert [stage["replicas"] for stage in found["plans"][0]["stages"]] == [2, 2]
    assert "twins (two replicas)" in help_of(capsys, "optimize")


def test_a_term(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rent(option: Option, replicas: int, stage: Stage, moment: Moment) -> float:
        del stage, moment
        return 0.25 * option.cpu_cores * replicas

    quantity = Quantity("rent", rent, unit="EUR/h", weight_key="rent_weight", cap_key="rent_cap")
    monkeypatch.setitem(registries.QUANTITIES, "rent", quantity)
    argv = ("optimize", small_pipeline, "--load", "7")
    plain = call(capsys, *argv)["plans"][0]
    assert plain["cost_cores"] > 3
    found = call(capsys, *argv, "--set", "rent_weight=2", "--set", "rent_cap=0.75")
    plan = found["plans"][0]
    assert plan["cost_cores"] <= 3
    assert plan["terms"]["rent"] == pytest.approx(2 * 0.25 * plan["cost_cores"])
    parts = plan["terms"]
    worth = 2 * parts["accuracy"] - sum(parts.values())
    assert plan["objective"] == pytest.approx(worth)
    checks = {check["constraint"]: check for check in plan["certificate"]["checks"]}
    assert checks["rent_cap"]["limit"] == 0.75
    assert checks["rent_cap"]["value"] == pytest.approx(0.25 * plan["cost_cores"])
    assert main([*map(str, argv), "--set", "rent_weight=2"]) == 0
    assert " rent\n" in capsys.readouterr().out
    assert main([*map(str, argv), "--set", "rent_cap=0.25", "--json"]) == 3
    conflict = json.loads(capsys.readouterr().out)["conflict"]
    assert "rent_cap" in conflict["constraints"]
    with_lines(small_pipeline, "rent_weight: 2", "rent_cap: 0.75")
    assert call(capsys, *argv)["plans"] == found["plans"]


def test_the_keys_of_a_quantity(
    small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    money = Quantity("money", None, unit="euro", weight_key="money_weight", cap_key="money_cap")
    plain = load_config(small_pipeline)
    assert type(plain) is PipelineConfig
    with pytest.raises(ConfigError, match="unknown key money_weight"):
        load_config(small_pipeline, {"set": ["money_weight=2"]})
    monkeypatch.setitem(registries.QUANTITIES, "money", money)
    config = load_config(small_pipeline)
    assert (config.objective_weights, config.quantity_caps) == ({}, {})
    config = load_config(small_pipeline, {"set": ["money_weight=2", "money_cap=0.5"]})
    assert config.objective_weights == {"money": 2}
    assert config.quantity_caps == {"money": 0.5}
    dumped = tmp_path / "small" / "dumped.yaml"
    dumped.write_text(dump_config(config))
    assert "money_weight: 2\nmoney_cap: 0.5\n" in dumped.read_text()
    assert load_config(dumped) == config
    for key, bad, allowed in (
        ("money_weight", "-1", "a finite number ≥ 0"),
        ("money_weight", "'2'", "a finite number ≥ 0; fix: write the number without quotes"),
        ("money_cap", "0", "a finite number > 0 or null"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(with_lines(dumped, f"{key}: {bad}"))
        assert f"dumped.yaml:{len(dumped.read_text().splitlines())}: {key} is" in str(caught.value)
        assert str(caught.value).endswith(f"allowed: {allowed}")
        with_lines(dumped, f"{key}: 1")
    with pytest.raises(ConfigError, match="did you mean money_cap"):
        load_config(small_pipeline, {"set": ["money_cop=2"]})
    assert (
        json_schema()["properties"]["money_cap"]["description"] == "Hard cap on money: money, euro."
    )
    monkeypatch.delitem(registries.QUANTITIES, "money")
    assert "money_cap" not in json_schema()["properties"]
