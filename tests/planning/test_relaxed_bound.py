"""The bound's inequalities by numbers; that no run crosses it: ``test_yardsticks``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from option_maker import make_option

from ipa_energy.experiment import load_experiment
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning import relaxed_bound
from ipa_energy.planning.relaxed_bound import (
    BoundWeights,
    Promptness,
    objective_bound,
    tilted,
)
from ipa_energy.records import Stage


def test_a_lognormal_time_is_no_less_than_its_tilted_mean() -> None:
    """−ln E exp(−tX)/t by quadrature over the normal; it and the bound near the mean as t → 0."""
    z = np.linspace(-10, 10, 20_001)
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    draw = np.random.default_rng(0)
    for _ in range(300):
        mean, deviation = draw.uniform(0.01, 20), draw.uniform(0.0, 1.0)
        tilt = draw.choice([1e-3, 0.1, 1.0, 8.0]) / mean
        times = mean * np.exp(deviation * z - deviation**2 / 2)
        exact = -np.log((weight * np.exp(-tilt * times)).sum()) / tilt
        assert tilted(mean, deviation, tilt) <= exact * (1 + 1e-9)
    assert tilted(2.0, 0.3, 1e-3) == pytest.approx(2.0, rel=1e-4)
    assert tilted(2.0, 0.3, 0.0) == tilted(2.0, 0.0, 1.0) == 2.0


def test_a_late_request_is_worth_what_it_can_have_saved_and_a_lost_one_more(
    small_pipeline: Path,
) -> None:
    experiment = load_experiment(small_pipeline, {"energy_weight": 20.0})
    planner, counts = experiment.planner, experiment.workload.counts
    weights = BoundWeights(20.0 / counts.sum(), 0.5 / len(counts))

    def bound(run: Promptness) -> float:
        return objective_bound(
            planner.stages,
            planner.program.settings,
            counts,
            weights,
            run,
            interval_s=10,
            reconfiguration_s=2.0,
        )

    prompt = Promptness(answered=int(counts.sum()), delay_s=0.5)
    strict = bound(prompt)
    before = strict
    for late in (1, 5, 50, 500):
        excused = bound(replace(prompt, late=late))
        assert before <= excused
        before = excused
        # A request of a dear server costs no more than some ten joules here.
        assert excused <= strict + late * 20 * weights.joule
        assert excused <= bound(replace(prompt, lost=late))
    # Of very many late ones each says as much as if nobody had promised anything.
    anyhow = [bound(replace(prompt, late=late)) for late in (10**6, 10**7)]
    assert anyhow[0] == pytest.approx(anyhow[1])


def test_the_price_of_late_requests_that_bounds_most_is_found(
    small_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By bisection, as by trying every one."""
    tried: list[int] = []

    def every(at: Callable[[float], float], prices: Sequence[float]) -> float:
        tried.append(len(prices))
        return min(map(at, prices))

    for seed, weight in enumerate((0.5, 5.0, 20.0, 80.0)):
        experiment = load_experiment(small_pipeline, {"energy_weight": weight})
        counts = np.random.default_rng(seed).poisson(4 + 3 * seed, 300)
        weights = BoundWeights(weight / counts.sum(), 0.5 / len(counts))
        for late, lost in ((1, 0), (20, 3), (200, 50)):
            run = Promptness(int(counts.sum()) - lost, 0.7, late, lost)
            asked = (experiment.planner.stages, experiment.planner.program.settings, counts)
            times = {"interval_s": 10, "reconfiguration_s": 2.0}
            found = objective_bound(*asked, weights, run, **times)
            with monkeypatch.context() as patched:
                patched.setattr(relaxed_bound, "_least", every)
                assert found == pytest.approx(
                    objective_bound(*asked, weights, run, **times), rel=1e-12
                )
    assert max(tried) >= 3


def test_a_thousand_servers_are_bounded_in_seconds() -> None:
    """The edge boards have over a thousand, and :func:`objective_bound` is asked for every run."""
    rng = np.random.default_rng(3)
    options = tuple(
        make_option(
            f"v{n}", latency_s=0.05, accuracy=float(rng.uniform(0.3, 0.9)),
            dynamic_energy_j=float(rng.uniform(0.1, 5)), idle_power_w=float(rng.uniform(0.5, 9)),
        )
        for n in range(1000)
    )  # fmt: skip
    counts = rng.poisson(10, 1200)
    begin_s = time.process_time()
    bound = objective_bound(
        [Stage("s", "s", options)],
        Settings(alpha=40, beta=1, gamma=0, energy_weight=20, scaling_cap=100, batching_cap=1),
        counts,
        BoundWeights(20 / counts.sum(), 1 / len(counts)),
        Promptness(int(counts.sum()), 0.5, late=120),
        interval_s=10,
        reconfiguration_s=2.0,
    )
    assert np.isfinite(bound)
    assert time.process_time() - begin_s < 20, "it takes 2 s where nobody else is"
