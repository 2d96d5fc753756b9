"""The shipped pipeline of language models: GPUs are counted, priced, and sources travel."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_scripts import script

from ipa_energy.comparing import compare, comparison_table, metrics
from ipa_energy.experiment import load_experiment, run_experiment, warn_of_overload
from ipa_energy.optimizer.solve import decide
from ipa_energy.planning.planner import load_planner
from ipa_energy.profile_table.profile_csv import read_profile
from ipa_energy.serving.deployment import DeployedStage

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "llm.yaml"
PROFILE = ROOT / "configs" / "profiles" / "mlenergy-gpqa.csv"
write_files = script("profiles/mlenergy/make_profile").write_files


@pytest.mark.parametrize("weight", [0.0, 0.002, 0.01])
@pytest.mark.parametrize("load_rps", [1, 2, 4])
def test_two_exact_solvers_agree_and_no_plan_uses_more_gpus_than_there_are(
    weight: float, load_rps: float
) -> None:
    planner = load_planner(CONFIG, {"energy_weight": weight})
    found = [decide(planner.program, load_rps, method) for method in ("pareto", "highs")]
    assert [result.status for result in found] == ["optimal", "optimal"]
    assert found[0].best.objective == pytest.approx(found[1].best.objective, rel=1e-9)
    for result in found:
        (stage,) = result.best.stages
        for name, units in stage.option.allocation.resources:
            if name in planner.config.capacity:
                assert stage.replicas * units <= planner.config.capacity[name]
        assert result.best.latency_s <= 600
        assert result.best.quality == "imported"


def test_a_weight_of_energy_finds_the_smaller_model() -> None:
    blind = decide(load_planner(CONFIG).program, 1).best
    seeing = decide(load_planner(CONFIG, {"energy_weight": 0.01}).program, 1).best
    assert blind.stages[0].option.variant == "Qwen3-32B"
    assert seeing.stages[0].option.variant == "Qwen3-8B"
    assert seeing.joules_per_request < 0.5 * blind.joules_per_request


def test_the_shipped_load_is_served_and_a_load_beyond_all_gpus_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = metrics(run_experiment(load_experiment(CONFIG)))
    assert found.sla_attainment > 0.999
    assert "no plan carries" not in caplog.text
    warn_of_overload(load_experiment(CONFIG, {"workload_type": "bursty"}))
    assert "no plan carries its busiest 60 s, 27 rps, and requests will come late" in caplog.text
    assert "a capacity of at least 70 units of H100" in caplog.text


def test_a_published_line_by_hand() -> None:
    """Qwen3-14B on one H100, 64 at once: 2146.2358 tokens/s, 6710.8 tokens, 1876.09 J."""
    (row,) = (
        row
        for row in read_profile(PROFILE)
        if (row.variant, row.hardware, row.batch) == ("Qwen3-14B", "H100", 64)
    )
    assert row.throughput_rps == pytest.approx(2146.23578966 / 6710.81313131, rel=1e-5)
    assert row.joules_per_request == pytest.approx(1876.0888, rel=1e-5)
    assert row.dynamic_energy_j == pytest.approx(1876.0888 - 116 / 0.3198175, rel=1e-5)
    assert row.latency_avg_s == pytest.approx(6710.81313131 * 0.028065836, rel=1e-5)
    assert row.latency_p99_s == pytest.approx(6710.81313131 * 0.03454759635, rel=1e-5)


def test_the_shipped_profile_is_what_the_script_makes_and_every_figure_has_a_source(
    tmp_path: Path,
) -> None:
    left_out = write_files(tmp_path / PROFILE.name)
    assert (tmp_path / PROFILE.name).read_bytes() == PROFILE.read_bytes()
    meta = json.loads(PROFILE.with_suffix(".meta.json").read_text())
    assert json.loads((tmp_path / "mlenergy-gpqa.meta.json").read_text()) == meta
    assert meta["left_out"] == left_out
    models = {name.rpartition("/")[2] for name in meta["accuracies"]}
    assert {row.variant for row in read_profile(PROFILE)} == models
    for cited in (*meta["accuracies"].values(), *meta["idle_power_w"].values()):
        assert cited["source"]
    assert "Apache-2.0" in meta["licence"]


def test_no_file_has_figures_of_two_benchmarks() -> None:
    for path in (ROOT / "configs" / "profiles").glob("*.csv"):
        meters = {row.meter for row in read_profile(path)}
        assert not ({"mlperf-wall"} < meters)


def test_joules_per_token_from_the_table_to_the_comparison(tmp_path: Path) -> None:
    """Of full batches without a pause they are the published ones: 1876.0888 J, 6710.8 tokens."""
    planner = load_planner(CONFIG)
    (option,) = (
        one
        for one in planner.stages[0].options
        if (one.variant, one.hardware, one.batch) == ("Qwen3-14B", "H100", 64)
    )
    assert option.tokens_per_request == pytest.approx(6710.81313131, rel=1e-5)
    busy = planner.plan_running((DeployedStage("gpqa", option, 1),), option.throughput_rps)
    assert busy.joules_per_token == pytest.approx(1876.0888 / 6710.81313131, rel=1e-4)
    overrides = {"workload_type": "static",
                 "workload_config": {"loads_to_test": 1, "load_duration": 600}}  # fmt: skip
    run = run_experiment(load_experiment(CONFIG, overrides), tmp_path / "run")
    found = metrics(run)
    tokens = {o.label: o.tokens_per_request for o in planner.stages[0].options}
    sent = [1 * (min(step.end_s, 600) - step.start_s) for step in run.steps]
    total = sum(
        count * tokens[step.stages[0].label.rpartition(" x")[0]]
        for count, step in zip(sent, run.steps, strict=True)
    )
    assert found.joules_per_token == pytest.approx(found.energy_j / total, rel=1e-4)
    assert "J/token" in comparison_table(compare([found]))

    first, *rest = run.steps
    untold = [replace(stage, tokens_per_request=math.nan) for stage in first.stages]
    half = replace(run, steps=[replace(first, stages=tuple(untold)), *rest])
    assert math.isnan(metrics(half).joules_per_token)  # not all joules over half of the tokens
