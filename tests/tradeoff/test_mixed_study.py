"""``tradeoff`` and ``frontier`` with ``mix: true``: mixes are points and runs like others."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

from ipa_energy.errors import ConfigError
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.frontier.sweep import run_outcome, sweep
from ipa_energy.frontier.weightings import with_energy, without_energy
from ipa_energy.optimizer import pareto
from ipa_energy.planning.planner import load_planner
from ipa_energy.tradeoff.conduct import Question, conduct
from ipa_energy.tradeoff.named_configurations import configurations_of_run
from ipa_energy.tradeoff.prices import shadow_price
from ipa_energy.tradeoff.sentences import _price
from ipa_energy.tradeoff.trials import constant_load

MIXED = {
    "mix": True,
    "accuracy_floor": 1.2,
    "optimization_method": "highs",
    "batching_cap": 2,
    "workload_type": "static",
    "workload_config": {"loads_to_test": 8, "load_duration": 40},
}


def test_mixes_are_points_of_a_study_under_the_floor(tmp_path: Path) -> None:
    planner = load_planner(write_small_pipeline(tmp_path), MIXED)
    study = conduct(Question(planners=[planner], loads=[constant_load(8, 20)], count=6, trials=1))
    (case,) = study.cases
    mixed = [point for point in case.points if "%" in point.configuration.label]
    assert mixed
    assert any("mixed" in point.configuration.origin for point in mixed)
    assert all(point.accuracy >= 1.2 - 1e-6 for point in case.points)
    assert all(point.configuration.plan.certificate.holds for point in mixed)
    # A mix of least joules at a higher floor needs no more than the least single plan there.
    for point in mixed:
        if "least energy" not in point.configuration.origin:
            continue
        above = [p.configuration.plan.joules_per_request for p in case.points
                 if p.accuracy >= point.accuracy - 1e-9]  # fmt: skip
        assert point.configuration.plan.joules_per_request <= min(above) + 1e-9
    assert any("mixed plans are among the configurations" in text for text in study.warnings)


def test_a_frontier_with_mixes_reaches_accuracies_between_and_sweeps_as_whole_runs(
    tmp_path: Path,
) -> None:
    experiment = load_experiment(write_small_pipeline(tmp_path), MIXED)
    planner = experiment.planner
    floors = [one for one in with_energy(planner.config, planner) if "floor" in one.label]
    assert len(floors) == 7  # of eight from 1.189 to 1.461, those above the YAML's own
    assert any("least cost at accuracy_floor" in one.label for one in without_energy(planner))
    two = floors[:2]
    swept = sweep(experiment, two, [0], workers=1)
    for one, found in zip(two, swept, strict=True):
        whole = run_outcome(experiment, one, 0)
        assert whole is not None
        assert found.accuracy == pytest.approx(whole.accuracy)
        assert found.joules_per_request == pytest.approx(whole.joules_per_request, rel=1e-6)
    assert swept[0].accuracy < swept[1].accuracy


def test_a_mixed_run_gives_no_list_of_configurations(tmp_path: Path) -> None:
    overrides = {**MIXED, "alpha": 0.0, "beta": 0.0, "energy_weight": 1.0}
    experiment = load_experiment(write_small_pipeline(tmp_path), overrides)
    run = run_experiment(experiment, tmp_path / "mixed")
    with pytest.raises(ConfigError, match="the study chooses mixes by itself"):
        configurations_of_run(run, experiment.planner.stages)


def test_the_price_of_a_floor_is_told_as_the_key_has_it(tmp_path: Path) -> None:
    """A floor of 1.2 is a cap of 0.8 on what two stages lack of 1 each; nobody wrote 0.8."""
    overrides = {**MIXED, "mix": False, "alpha": 0.0, "beta": 0.0, "energy_weight": 1.0}
    planner = load_planner(write_small_pipeline(tmp_path), {**overrides, "accuracy_floor": 1.35})
    problem = planner.program.at(8.0)
    choice = pareto.solve(problem)[0]
    price = shadow_price(problem, "accuracy_floor", choice)
    assert price.limit == pytest.approx(1.35)
    assert price.used == pytest.approx(problem.combined_accuracy(
        [float(c.accuracy[at]) for c, at in zip(problem.stages, choice, strict=True)]))  # fmt: skip
    assert price.is_floor
    assert price.relaxed is not None
    assert price.relaxed.limit < 1.35 <= price.used + 1e-9
    assert price.relaxed.joules_change < 0
    told = " ".join(_price(price))
    assert f"accuracy_floor of 1.35: binding; down to {price.relaxed.limit:.4g} the plan" in told
