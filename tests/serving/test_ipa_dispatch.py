"""Serving as IPA does: batches close by themselves and wait at one replica; pods stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from seeds import seeds
from tiny_pipelines import by_id, deployed, option, run, stage

from ipa_energy.comparing import metrics
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.frontier.courses import Course, outturn
from ipa_energy.frontier.worth import bound_of, worth
from ipa_energy.runlog import Run
from ipa_energy.serving.simulated.backend import ServingMode, SimulatedBackend
from ipa_energy.serving.simulated.ipa_dispatch import POD_STAYS_S

SLOW, FAST = option(1, 1.0, variant="slow"), option(1, 0.25, variant="fast", cores=4.0)
PAIR = option(2, 1.0, variant="slow")
STAGES = [stage(SLOW, PAIR, FAST)]


def backend(
    index: int, replicas: int, serving: ServingMode = "ipa", seed: int = 0
) -> SimulatedBackend:
    return SimulatedBackend(
        STAGES, deployed(STAGES, (index, replicas)), seed=seed, reconfiguration_s=8.0,
        batch_timeout_s=[1.0], serving=serving,
    )  # fmt: skip


def test_batches_go_to_replicas_in_turn_and_wait_there_even_if_another_is_free() -> None:
    # Of two replicas the first gets 0.0 and 0.2, the second 0.1 and 1.3; 0.1 is done at 1.1.
    windows = run(backend(0, 2), [0.0, 0.1, 0.2, 1.3, 1.4], [0.0, 10.0])
    assert by_id(windows).started_s[:, 0].tolist() == [0.0, 0.1, 1.0, 1.3, 2.0]
    windows = run(backend(0, 2, "central"), [0.0, 0.1, 0.2, 1.3, 1.4], [0.0, 10.0])
    assert by_id(windows).started_s[:, 0].tolist() == [0.0, 0.1, 1.0, 1.3, 2.0]
    # Nothing in turn: the second of three waits for a busy one although the other is free.
    windows = run(backend(0, 2), [0.0, 0.1, 1.05, 1.06, 1.07], [0.0, 10.0])
    assert by_id(windows).started_s[:, 0].tolist() == [0.0, 0.1, 1.05, 1.1, 2.05]


def test_a_batch_closes_at_its_time_out_though_no_replica_is_free() -> None:
    windows = run(backend(1, 1), [0.0, 0.1, 0.2, 1.5], [0.0, 10.0])
    requests = by_id(windows)
    # 0.2 waits alone until 1.2, when its batch closes; the replica is free at 1.1 and takes it.
    assert requests.started_s[:, 0].tolist() == [0.1, 0.1, 1.2, 2.5]
    windows = run(backend(1, 1), [0.0, 0.0, 0.0, 0.9, 1.05], [0.0, 10.0])
    # 0.0 (third) and 0.9 are full at 0.9 and wait for the replica until 1.0; 1.05 is alone.
    assert by_id(windows).started_s[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 2.05]


def test_stopped_pods_hold_their_cores_for_the_grace_period() -> None:
    found = backend(0, 3)
    windows = run(found, [], [0.0, 10.0, 60.0], {10.0: deployed(STAGES, (0, 1))})
    cores = np.concatenate([window.cores for window in windows[:2]])
    assert cores.tolist() == [3.0] * int(10 + POD_STAYS_S) + [1.0] * 20
    found = backend(0, 3)
    windows = run(found, [], [0.0, 10.0, 60.0], {10.0: deployed(STAGES, (2, 1))})
    cores = np.concatenate([window.cores for window in windows[:2]])
    # Three of one core until the new one of four is ready at 18 s, and 30 s beyond.
    assert cores.tolist() == [3.0] * 10 + [7.0] * 38 + [4.0] * 12


def test_a_replica_that_stops_serves_what_waits_at_it() -> None:
    found = backend(0, 1)
    windows = run(
        found, [17.0, 17.1, 17.2, 18.5], [0.0, 10.0, 40.0], {10.0: deployed(STAGES, (2, 1))}
    )
    requests = by_id(windows)
    assert requests.started_s[:, 0].tolist() == [17.0, 18.0, 19.0, 18.5]
    assert (requests.served_s - requests.started_s)[:, 0].tolist() == [1.0, 1.0, 1.0, 0.25]


@pytest.mark.parametrize("seed", seeds(6))
@pytest.mark.parametrize("serving", ["ipa", "ipa-random"])
def test_every_request_is_answered_whatever_changes(serving: ServingMode, seed: int) -> None:
    draw = np.random.default_rng(seed)
    sending = np.sort(draw.uniform(0, 100, 300))
    changes = {
        float(at): deployed(STAGES, (int(draw.integers(3)), int(draw.integers(1, 5))))
        for at in range(5, 100, 5)
    }
    found = backend(0, 2, serving, seed)
    windows = run(found, sending, [0.0, *changes, 100.0], changes)
    requests = by_id(windows)
    assert len(requests) == 300
    assert (requests.dropped_at == -1).all()
    busy = requests.served_s - requests.started_s
    assert (busy > 0).all()


def test_a_run_says_how_it_was_served_and_ipa_answers_later(small_pipeline: Path) -> None:
    def served(**changes: object) -> Run:
        return run_experiment(
            load_experiment(small_pipeline, {"workload": "steady-low", **changes})
        )

    plain, random = served(), served(serving="ipa-random")
    ipa = served(serving="ipa")
    assert "serving" not in plain.info.settings
    assert ipa.info.settings["serving"] == "ipa"
    figures = [metrics(one) for one in (plain, ipa, random)]
    assert figures[2].latency_mean_s > figures[1].latency_mean_s > figures[0].latency_mean_s
    assert figures[1].energy_j > figures[0].energy_j, "pods stay"


def test_the_bound_holds_for_it(small_pipeline: Path) -> None:
    experiment = load_experiment(small_pipeline, {"serving": "ipa-random", "energy_weight": 10.0})
    plan = deployed(experiment.planner.stages, (4, 3), (0, 2))
    other = deployed(experiment.planner.stages, (8, 3), (8, 1))
    course = Course(((0, plan), (30, other), (60, plan)), float("nan"))
    found = outturn(experiment, course, 0)
    assert found.answered
    assert worth(experiment, course, found) <= bound_of(experiment, found)
