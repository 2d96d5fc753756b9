"""Controllers of the literature, by their published rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ipa_energy.comparing import metrics
from ipa_energy.experiment import Experiment, load_experiment, run_experiment
from ipa_energy.planning.literature import (
    HpaAdapter,
    IpaAdapter,
    envelope_of,
    hpa_desired,
    plan_of_sample,
)
from ipa_energy.records import Option
from ipa_energy.runner import initial_configuration
from ipa_energy.workloads import Workload


@pytest.mark.parametrize(
    ("current", "utilisation", "desired"),
    [
        (4, 0.8, 4),
        (4, 0.87, 4),  # within the tolerance of 10 %
        (4, 0.73, 4),
        (4, 0.9, 5),  # ⌈4 · 0.9/0.8⌉
        (4, 0.4, 2),
        (10, 0.6, 8),
        (1, 0.0, 1),
        (2, 4.0, 6),  # at most 4 more at small sizes
        (10, 4.0, 20),  # or twice as many
    ],
)
def test_the_autoscaler_rounds_its_ratio_up(current: int, utilisation: float, desired: int) -> None:
    assert hpa_desired(current, utilisation) == desired


def experiment_of(path: Path, policy: str, counts: list[int]) -> Experiment:
    experiment = load_experiment(path, policy=policy)
    return Experiment(experiment.planner, Workload("steps", np.array(counts), "a test"))


def test_the_autoscaler_goes_down_after_five_minutes_and_up_at_once(small_pipeline: Path) -> None:
    experiment = experiment_of(small_pipeline, "hpa-high", [4] * 60 + [1] * 340 + [4] * 60)
    run = run_experiment(experiment)
    replicas = {step.start_s: step.stages[0].replicas for step in run.steps}
    assert max(replicas.values()) == replicas[100.0] == replicas[350.0]
    first_down = min(
        second for second in replicas if second > 60 and replicas[second] < replicas[60.0]
    )
    assert first_down == 370.0, "the last high wish is of 60 s, and counts to 360 s"
    assert replicas[420.0] > replicas[400.0]
    assert len({(stage.variant, stage.batch) for step in run.steps for stage in step.stages}) == 2


def test_an_envelope_has_the_busiest_windows() -> None:
    counts = np.array([1, 5, 3, 0, 0, 0, 0, 0])
    assert envelope_of(counts) == ((1, 5.0), (2, 4.0), (4, 9 / 4), (8, 9 / 8))


def test_inferline_keeps_the_sla_of_its_sample_at_no_needless_price(small_pipeline: Path) -> None:
    experiment = load_experiment(small_pipeline, policy="inferline-high")
    sample = np.full(60, 6)
    found = plan_of_sample(experiment.planner, sample)
    assert [run.option.variant for run in found.deployment] == ["find-l", "name-l"]
    served = run_experiment(
        Experiment(experiment.planner, Workload("even", sample, "a test")), fixed=found.deployment
    )
    assert metrics(served).sla_attainment >= 0.99
    # 6 rps of find-l (0.5 s on one core, three quarters of it with larger batches) take 3 replicas.
    assert found.deployment[0].replicas * found.deployment[0].option.cpu_cores <= 4
    assert found.deployment[1].replicas == 1


def test_inferline_follows_a_load_beyond_its_envelope_and_back(small_pipeline: Path) -> None:
    small_pipeline.write_text(
        small_pipeline.read_text().replace(
            "workload_type: bursty\nworkload_config: {duration_s: 120}\n",
            "workload_type: static\nworkload_config: {loads_to_test: 4, load_duration: 240}\n",
        )
    )
    experiment = experiment_of(small_pipeline, "inferline-high", [4] * 60 + [12] * 60 + [1] * 120)
    run = run_experiment(experiment)
    replicas = [step.stages[0].replicas for step in run.steps]
    assert max(replicas[6:13]) > replicas[5]
    assert replicas[-2] < max(replicas)
    find = plan_of_sample(experiment.planner, np.full(60, 4)).deployment[0].option
    assert max(replicas) * find.throughput_rps >= 12


def test_ipa_counts_changes_of_variant_and_batch_alone(small_pipeline: Path) -> None:
    experiment = load_experiment(small_pipeline, policy="ipa-switch")
    planner = experiment.planner
    running = initial_configuration(planner)
    adapter = IpaAdapter(planner.program, None, method="pareto")  # type: ignore[arg-type]

    def score(option: Option, replicas: int) -> tuple[float, ...]:
        moved = (type(running[0])(running[0].stage, option, replicas), running[1])
        return adapter.preference(planner.plan_running(moved, 4.0), running)

    mine = running[0].option
    options = planner.stages[0].options
    batch = next(o for o in options if (o.variant, o.batch) == (mine.variant, 4))
    other = next(o for o in options if o.variant != mine.variant and o.batch == 4)
    assert [score(mine, 7), score(batch, 1), score(other, 1)] == [(0,), (1,), (2,)]


def test_the_autoscaler_does_not_count_what_starts(small_pipeline: Path) -> None:
    experiment = load_experiment(small_pipeline, policy="hpa-low")
    adapter = HpaAdapter(experiment.planner, None, lambda *_: {})  # type: ignore[arg-type]
    running = initial_configuration(experiment.planner)
    decision = adapter.decide(10, np.full(10, 100), running)
    assert decision.plan is not None
    # All of one replica is busy: ⌈1 · 1/0.8⌉, however much more waits.
    assert [stage.replicas for stage in decision.plan.stages] == [2, 2]
