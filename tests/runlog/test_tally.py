"""Requests that are counted, in the place of their times, say the same of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ipa_energy.comparing import metrics
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.report import run_series
from ipa_energy.runlog import Run, RunLog, read_run
from ipa_energy.serving.tally import Tally, merged, tally
from ipa_energy.testing import fake_config, fake_info, fake_intervals

CONFIG = Path(__file__).parents[2] / "configs" / "video.yaml"
WITHIN_HALF_A_PERCENT = ("latency_p50_s", "latency_p99_s")
OF_THE_CLOCK = ("decision_s_median", "decision_s_p99", "name", "settings")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A run with every request's times, and the same with counts alone, both from a folder."""
    runs = []
    for detail in ("requests", "counts"):
        folder = tmp_path_factory.mktemp("runs") / detail
        keys = {"log_detail": detail, "drop_limit": 0.9, "workload_config": {"duration_s": 300}}
        runs.append(run_experiment(load_experiment(CONFIG, keys), folder))
    return runs[0], runs[1]


def test_the_figures_are_the_same(both: tuple[Run, Run]) -> None:
    full, counted = (metrics(run) for run in both)
    assert full.dropped > 0
    for item in dataclasses.fields(full):
        mine, other = getattr(full, item.name), getattr(counted, item.name)
        if item.name in WITHIN_HALF_A_PERCENT:
            assert other == pytest.approx(mine, rel=0.006), item.name
        elif item.name not in OF_THE_CLOCK:
            assert repr(other) == pytest.approx(repr(mine)) or other == pytest.approx(
                mine, rel=1e-6, nan_ok=True
            ), item.name
    assert counted.settings["log_detail"] == "counts"


def test_the_folder_is_small_and_has_the_load(both: tuple[Run, Run]) -> None:
    full, counted = both
    assert full.path is not None
    assert counted.path is not None
    sizes = [(run.path / "0.json").stat().st_size for run in both if run.path]
    assert sizes[1] < sizes[0] / 50
    assert len(counted.requests) == 0
    np.testing.assert_array_equal(counted.offered_rps, full.offered_rps)
    np.testing.assert_array_equal(counted.power_w, full.power_w)
    assert [step.label for step in counted.steps] == [step.label for step in full.steps]


def test_pictures_are_drawn_from_counts(both: tuple[Run, Run]) -> None:
    full, counted = both
    exact, other = (run_series.latency_distribution(run) for run in both)
    assert other.y[-1] == pytest.approx(exact.y[-1])
    drops, (p50,) = run_series.latency_percentiles(counted, (50,))
    assert drops.sum() == run_series.latency_percentiles(full, (50,))[0].sum()
    assert len(p50) == len(counted.steps)


def test_without_a_folder_and_after_a_kill_it_is_the_same_run(tmp_path: Path) -> None:
    info = dataclasses.replace(fake_info(seconds=60), settings={"log_detail": "counts"})
    intervals = list(fake_intervals(seconds=60))
    log = RunLog.create(tmp_path / "run", config_yaml=fake_config(), info=info)
    for interval in intervals[:-1]:
        log.append_interval(interval)
    log.close()
    killed = read_run(tmp_path / "run")
    log = RunLog.resume(tmp_path / "run")
    assert log.totals.requests == sum(interval.served.left for interval in intervals[:-1])
    log.append_interval(intervals[-1])
    log.complete({})
    whole = read_run(tmp_path / "run")
    assert killed.tally is not None
    assert whole.tally is not None
    assert len(whole.tally) == sum(len(interval.served.requests) for interval in intervals)
    assert len(killed.tally) == len(whole.tally) - len(intervals[-1].served.requests)


def random_tally(rng: np.random.Generator, count: int) -> tuple[Tally, np.ndarray]:
    latency_s = rng.lognormal(-1, 1, count)
    lost = rng.integers(-1, 2, count) * (rng.random(count) < 0.2)
    dropped_at = np.where(lost == 0, -1, lost)
    failed = (dropped_at >= 0) & (rng.random(count) < 0.5)
    sending_s = np.sort(rng.uniform(5, 25, count))
    counted = tally(sending_s, latency_s, dropped_at, failed, stages=2, sla_s=1.0)
    return counted, latency_s[dropped_at < 0]


@pytest.mark.parametrize("seed", range(20))
def test_percentiles_are_within_half_a_percent_and_parts_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [random_tally(rng, count) for count in rng.integers(0, 400, 5)]
    whole, latency_s = merged([part for part, _ in parts]), np.concatenate([s for _, s in parts])
    assert len(whole) == sum(len(part) for part, _ in parts)
    assert whole.answered == len(latency_s)
    assert whole.in_sla == (latency_s <= 1.0).sum()
    assert whole.answered + sum(whole.dropped) + whole.failed == len(whole)
    assert whole.latency_sum_s == pytest.approx(latency_s.sum())
    for q in (1, 50, 99, 100):
        nearest = np.percentile(latency_s, q, method="lower")
        assert whole.percentile_s(q) == pytest.approx(nearest, rel=0.0051)
    assert Tally.from_json(whole.to_json()).to_json() == whole.to_json()
