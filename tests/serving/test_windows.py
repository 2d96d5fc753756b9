"""Windows concatenate, runs replay, nothing is lost: on random pipelines and random plans."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_pipelines import deployed, joined, option, run, stage, total_j

from ipa_energy.serving.load import arrival_times_s
from ipa_energy.serving.served import Requests
from ipa_energy.serving.simulated.backend import SimulatedBackend

DURATION_S = 40.0


class Scenario:
    """A random pipeline, load and sequence of plans."""

    def __init__(self, seed, *, on_grid=False):
        rng = np.random.default_rng(seed)
        spread = 1.0 if on_grid else 2.5
        self.stages = [self._stage(rng, name, spread, on_grid) for name in "abc"]
        counts = rng.integers(0, 12, int(DURATION_S))
        self.sending = arrival_times_s(
            counts, mode="equal" if on_grid else "exponential", seed=seed
        )
        self.start = self._plan(rng)
        self.plans = {float(t): self._plan(rng) for t in (5, 10, 12, 20, 30)}
        self.settings = {
            "drop_limit_s": [None, 2.0, 10.0][seed % 3],
            "reconfiguration_s": [0.0, 4.0, 8.0][seed // 3 % 3],
            "batch_timeout_s": [0.5, 1.0, 0.0],
        }

    def _stage(self, rng, name, spread, on_grid):
        options = []
        for variant in ("x", "y"):
            base_s = float(rng.choice([0.125, 0.25, 0.5])) if on_grid else rng.uniform(0.05, 0.5)
            for batch in (1, 2, 4):
                latency_s = base_s * (1 + batch) / 2
                options.append(option(batch, latency_s, p99_s=spread * latency_s, variant=variant))
        return stage(*options, name=name, per_input=float(rng.choice([1.0, 1.0, 2.0, 0.5, 1.4])))

    def _plan(self, rng):
        return deployed(
            self.stages, *((int(rng.integers(0, 6)), int(rng.integers(1, 6))) for _ in "abc")
        )

    def run(self, extra_edges=(), seed=0):
        backend = SimulatedBackend(self.stages, self.start, seed=seed, **self.settings)
        edges = sorted({0.0, DURATION_S, *self.plans, *extra_edges})
        return run(backend, self.sending, edges, self.plans)


def assert_same(one, other):
    for name in Requests.__slots__:
        left, right = getattr(joined(one), name), getattr(joined(other), name)
        assert np.array_equal(left, right, equal_nan=name not in ("request_id", "dropped_at")), name


@pytest.mark.parametrize("on_grid", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_results_do_not_depend_on_where_windows_are_cut(seed, on_grid):
    """On the grid, cuts fall on arrivals, ends of batches and time-outs."""
    scenario = Scenario(seed, on_grid=on_grid)
    rng = np.random.default_rng(seed)
    whole = scenario.run()
    cuts = np.arange(1, 160) / 4 if on_grid else rng.uniform(0, DURATION_S, 25)
    cut = scenario.run(cuts.tolist())
    assert_same(whole, cut)
    assert total_j(cut) == pytest.approx(total_j(whole), rel=1e-12)
    assert sum(w.dynamic_j for w in cut) == pytest.approx(sum(w.dynamic_j for w in whole))


def test_seconds_do_not_depend_on_where_windows_are_cut():
    scenario = Scenario(4)
    whole, cut = scenario.run(), scenario.run([float(t) for t in range(1, 40)])
    for name in ("power_w", "cores"):
        series = [np.concatenate([getattr(w, name) for w in run]) for run in (whole, cut)]
        assert series[1] == pytest.approx(series[0], rel=1e-9)


def test_a_run_replays_exactly():
    one, other = Scenario(7).run(), Scenario(7).run()
    assert_same(one, other)
    for first, second in zip(one, other, strict=True):
        assert first.power_w.tolist() == second.power_w.tolist()
        assert first.idle_j.tolist() == second.idle_j.tolist()
        assert first.dynamic_j.tolist() == second.dynamic_j.tolist()


def test_another_seed_gives_another_run():
    scenario = Scenario(7)
    assert (
        joined(scenario.run(seed=0)).done_s.tolist() != joined(scenario.run(seed=1)).done_s.tolist()
    )


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 10**6), st.booleans())
def test_every_request_leaves_once_and_in_order(seed, on_grid):
    scenario = Scenario(seed, on_grid=on_grid)
    windows = scenario.run()
    requests = joined(windows)
    assert sorted(requests.request_id.tolist()) == list(range(len(scenario.sending)))
    assert (scenario.sending[requests.request_id] == requests.sending_s).all()
    served = requests.dropped_at == -1
    if scenario.settings["drop_limit_s"] is None:
        assert served.all()
    assert (np.diff(requests.done_s) >= 0).all()
    assert (requests.done_s >= requests.sending_s).all()
    for queued, started, ended in zip(
        requests.queued_s.T, requests.started_s.T, requests.served_s.T, strict=True
    ):
        went_through = ~np.isnan(ended)
        assert (started[went_through] >= queued[went_through]).all()
        assert (ended[went_through] > started[went_through]).all()
        order = np.lexsort((started[went_through], queued[went_through]))
        assert (np.diff(started[went_through][order]) >= 0).all()
    last = np.fmax.reduce(requests.served_s, axis=1)
    assert (
        requests.done_s[served] == np.where(np.isnan(last), requests.sending_s, last)[served]
    ).all()
    for window in windows:
        done = window.requests.done_s
        assert ((done >= window.start_s) & (done <= window.end_s)).all()
    assert windows[-1].in_flight == 0
    assert math.isfinite(total_j(windows))


def test_in_flight_counts_those_inside():
    scenario = Scenario(0)
    left = 0
    for window in scenario.run([float(t) for t in range(1, 40)]):
        left += len(window.requests)
        assert window.in_flight == (scenario.sending < window.end_s).sum() - left
