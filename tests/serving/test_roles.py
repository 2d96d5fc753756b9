"""The three roles of a run: clocks, a load, and what a simulation says of what runs and arrives."""

import time

import numpy as np
import pytest
from tiny_pipelines import deployed, option, stage

from ipa_energy.serving.base import VirtualClock, WallClock
from ipa_energy.serving.deployment import DeployedStage, StageState, short_of
from ipa_energy.serving.load import TraceLoad, arrival_times_s
from ipa_energy.serving.simulated.backend import SimulatedBackend

OLD, NEW, OTHER = option(1, 1.0), option(1, 0.5, variant="new"), option(2, 0.5)


def test_wall_clock_begins_where_it_is_told_and_sleeps_until_a_time(monkeypatch):
    now_s = [100.0]
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        now_s[0] += seconds / 2  # a sleep that ends too early is taken up again
        if seconds < 0.1:
            now_s[0] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now_s[0])
    monkeypatch.setattr(time, "sleep", sleep)
    clock = WallClock(75.0)
    assert clock.now_s == 75.0
    clock.wait_until(76.0)
    assert clock.now_s >= 76.0
    assert slept[0] == 1.0
    clock.wait_until(70.0)
    assert len(slept) == 5


def test_virtual_clock_passes_by_being_waited_for_and_never_goes_back():
    clock = VirtualClock()
    clock.wait_until(5.0)
    clock.wait_until(3.0)
    assert clock.now_s == 5.0


def test_a_trace_s_load_is_sent_window_by_window():
    counts = np.array([3, 0, 2, 4])
    load = TraceLoad(counts, seed=1)
    windows = [load.sending_s(start, start + 2.0) for start in (0.0, 2.0)]
    assert np.concatenate(windows).tolist() == arrival_times_s(counts, seed=1).tolist()
    assert [len(window) for window in windows] == [3, 6]
    assert (load.duration_s, load.trace.tolist()) == (4, [3, 0, 2, 4])


@pytest.mark.parametrize("edges", [[2.0, 4.0, 6.0], [0.5, 3.25, 6.0]])
def test_a_simulation_receives_what_is_sent_to_it(edges):
    counts = np.array([3, 0, 2, 4, 0, 1])
    stages = [stage(OLD)]
    load = TraceLoad(counts, seed=1)
    backend = SimulatedBackend(stages, deployed(stages, (0, 1)), load=load, seed=0)
    assert backend.received_rps(10).tolist() == []
    for until_s in edges:
        backend.collect(until_s)
    assert backend.received_rps(10).tolist() == counts.tolist()
    assert backend.received_rps(2).tolist() == [0, 1]
    assert len(backend.collect(np.inf).requests) > 0


def test_a_simulation_says_what_is_ready_starting_and_draining():
    stages = [stage(OLD, NEW)]
    load = TraceLoad(np.array([0, 2, 0, 0]), mode="equal", seed=1)
    backend = SimulatedBackend(
        stages, deployed(stages, (0, 2)), load=load, seed=0, reconfiguration_s=0.75
    )
    backend.collect(1.0)
    assert backend.deployed() == (StageState("crop", OLD, ready=2),)
    backend.deploy(deployed(stages, (1, 3)))
    assert backend.deployed() == (
        StageState("crop", OLD, ready=2),
        StageState("crop", NEW, starting=3, starting_for_s=(0.0, 0.0, 0.0)),
    )
    backend.collect(1.8)  # requests sent at 1.0 and 1.5 keep the old replicas busy
    ready, draining = backend.deployed()
    assert ready == StageState("crop", NEW, ready=3)
    assert (draining.option, draining.ready, draining.draining) == (OLD, 0, 2)
    backend.collect(4.0)
    assert backend.deployed() == (StageState("crop", NEW, ready=3),)


def test_what_is_short_is_what_neither_serves_nor_starts():
    wanted = (DeployedStage("a", OLD, 3), DeployedStage("b", NEW, 1))
    states = [
        StageState("a", OLD, ready=1, starting=1, failed=1),
        StageState("a", OTHER, ready=9),
        StageState("b", NEW, ready=1),
    ]
    assert short_of(wanted, states) == {"a": 1}
