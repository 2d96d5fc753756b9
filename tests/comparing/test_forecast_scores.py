"""Forecasts of runs against scores computed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipa_energy.adaptation.forecast import pinball_rps, smape
from ipa_energy.cli import main
from ipa_energy.comparing import compare, comparison_table
from ipa_energy.comparing.forecast_scores import forecast_scores
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.runlog import Run, read_run
from ipa_energy.serving.tally import Tally
from ipa_energy.testing import write_fake_run

LEVELS = (0.1, 0.5, 0.9)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(write_fake_run(tmp_path / "run", seconds=40, energy_weight=0.0))


def told(peak: tuple[float, ...], mean: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    return {"levels": LEVELS, "peak_rps": peak, "mean_rps": mean}


def scored(run: Run, counts: list[int], forecasts: list[Any], **config: Any) -> Run:
    """A run of intervals of 10 s that was sent these requests a second, with these forecasts."""
    none = np.empty(0, dtype=np.int64)
    sent = np.array(counts, dtype=np.int64)
    tally = Tally(
        first_s=0,
        sent=sent,
        dropped=(int(sent.sum()), 0),
        failed=0,
        in_sla=0,
        latency_sum_s=0.0,
        bins=none,
        counts=none,
    )
    steps = tuple(
        replace(run.steps[0], start_s=10.0 * at, end_s=10.0 * (at + 1), forecast=said or {})
        for at, said in enumerate(forecasts)
    )
    info = replace(run.info, duration_s=float(len(counts)), interval_s=10)
    return replace(run, info=info, steps=steps, tally=tally, config=config)


COUNTS = [0] * 10 + [0] * 9 + [10] + [4] * 10 + [7] * 5
"""Nothing; a busy second; four a second; and half an interval more."""

FORECASTS = [
    None,  # what runs first was not decided
    told((8, 10, 12), (1, 2, 3)),
    told((5, 6, 7), (1, 2, 3)),
    told((0, 0, 0), (0, 0, 0)),  # of half an interval nothing can be said
]


def test_scores_by_hand(run: Run) -> None:
    peak, mean = forecast_scores(scored(run, COUNTS, FORECASTS))
    assert (peak.of, mean.of, peak.intervals) == ("peak_rps", "mean_rps", 2)
    # 10 and 4 came of the largest seconds, 1 and 4 of the means.
    assert peak.coverage == (0.5, 1.0, 1.0)
    assert mean.coverage == (0.5, 0.5, 0.5)
    assert peak.smape_median == pytest.approx((0 + 2 / 5) / 2)
    assert mean.smape_median == pytest.approx((1 / 1.5 + 2 / 3) / 2)
    # Too few by x at level q costs q·x, too many (1 − q)·x.
    losses = [0.1 * 2, 0, 0.1 * 2, 0.9 * 1, 0.5 * 2, 0.1 * 3]
    assert peak.pinball_rps == pytest.approx(sum(losses) / 6)
    losses = [0, 0.5 * 1, 0.1 * 2, 0.1 * 3, 0.5 * 2, 0.9 * 1]
    assert mean.pinball_rps == pytest.approx(sum(losses) / 6)


def test_levels_that_were_planned_with_are_scored_between_those_that_were_logged(run: Run) -> None:
    """0.7 of the largest second is 11 and 6.5, of the mean 2.5 twice."""
    peak, mean = forecast_scores(scored(run, COUNTS, FORECASTS, forecast_levels=[0.1, 0.5, 0.7]))
    assert peak.levels == mean.levels == (0.1, 0.5, 0.7, 0.9)
    assert (peak.coverage[2], mean.coverage[2]) == (1.0, 0.5)


def test_runs_that_logged_none_have_none(run: Run) -> None:
    assert forecast_scores(run) == ()
    assert forecast_scores(scored(run, COUNTS[:15], FORECASTS[:2])) == ()
    assert "forecasts" not in comparison_table(compare([run]))


def test_the_loss_is_least_at_the_quantiles_themselves() -> None:
    """On seeds: no shift of any level of the true quantiles makes the loss less."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        came = rng.gamma(4.0, 5.0, size=400)
        best = np.quantile(came, LEVELS)
        least = pinball_rps(came, np.tile(best, (400, 1)), LEVELS)
        for at in range(3):
            for shift in (-1.0, 1.0):
                moved = best.copy()
                moved[at] += shift
                assert pinball_rps(came, np.tile(moved, (400, 1)), LEVELS) > least
    assert smape(np.array([0.0, 3.0]), np.array([0.0, 1.0])) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["forecast_levels: [0.1, 0.5, 0.9]\n", "controller: horizon\n"])
def test_compare_says_how_good_the_forecasts_of_a_run_were(
    small_pipeline: Path, tmp_path: Path, keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small_pipeline.write_text(small_pipeline.read_text() + keys)
    run_experiment(load_experiment(small_pipeline), tmp_path / "run")
    folder, page = str(tmp_path / "run"), tmp_path / "page.html"
    assert main(["compare", folder, "--no-hindsight", "--no-yardstick", "--html", str(page)]) == 0
    assert "How good the forecasts were" in capsys.readouterr().out
    assert "How good the forecasts were" in page.read_text()
    assert main(["compare", folder, "--no-hindsight", "--no-yardstick", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["runs"]
    assert [each["of"] for each in shown["forecasts"]] == ["peak_rps", "mean_rps"]
    assert all(0 <= share <= 1 for each in shown["forecasts"] for share in each["coverage"])
    assert shown["forecasts"][0]["coverage"] == sorted(shown["forecasts"][0]["coverage"])
