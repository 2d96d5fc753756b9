"""What a forecast's quantiles mean, and that they are as wide as what came was scattered."""

import math

import numpy as np
import pytest

from ipa_energy.adaptation.forecast import LEVELS, Forecast, windows_of, with_residuals
from ipa_energy.adaptation.predictor import forecast_reactive, make_predictor
from ipa_energy.adaptation.seasonal import period_of
from ipa_energy.workloads import named_workload


def test_what_is_known_has_one_value_at_every_level() -> None:
    known = Forecast.known(np.array([1] * 9 + [5] + [2] * 10 + [8] * 4 + [0] * 6))
    assert known.horizon_s == 30
    assert known.peak_rps[:, 0].tolist() == [5, 2, 8]
    assert known.peak_rps[:, -1].tolist() == [5, 2, 8]
    assert known.mean_rps[:, 3].tolist() == [1.4, 2, 3.2]


@pytest.mark.parametrize(
    ("begin_s", "end_s", "peak", "mean"),
    [
        (0, 10, 5, 1.4),
        (0, 12, 5, (14 + 4) / 12),
        (10, 20, 2, 2),
        (8, 20, 5, (2.8 + 20) / 12),
        (20, 90, 8, 3.2),
        (70, 80, 8, 3.2),
        (0, math.inf, 8, 2.2),
        (90, math.inf, 8, 3.2),
    ],
)
def test_loads_between_two_times(begin_s: float, end_s: float, peak: float, mean: float) -> None:
    """The last step goes on for ever."""
    known = Forecast.known(np.array([1] * 9 + [5] + [2] * 10 + [8] * 4 + [0] * 6))
    assert known.peak(0.9, begin_s, end_s) == peak
    assert known.mean(0.5, begin_s, end_s) == pytest.approx(mean)


def test_nothing_lies_between_a_time_and_itself() -> None:
    with pytest.raises(ValueError, match="nothing in between"):
        Forecast.flat(3).peak(0.5, 20, 20)


def test_levels_between_two_are_interpolated_and_none_is_beyond_them() -> None:
    row = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]])
    forecast = Forecast(row, row)
    assert forecast.peak(0.5) == 4
    assert forecast.peak(0.825) == pytest.approx(5.5)
    assert (forecast.peak(0.001), forecast.peak(0.999)) == (1, 8)


def test_the_largest_of_several_steps_is_at_a_higher_level_of_each() -> None:
    """Two steps stray as 2^⅔ = 1.59 independent ones: 0.5 of both is 0.646 of each."""
    rows = np.tile(np.arange(1.0, 9.0), (2, 1))
    forecast = Forecast(rows, rows)
    assert forecast.peak(0.5, 0, 20) == pytest.approx(4 + (0.5 ** (2 ** (-2 / 3)) - 0.5) / 0.25)
    assert forecast.mean(0.5, 0, 20) == 4


@pytest.mark.parametrize("name", ["reactive", "max", "avg", "arima", "lstm", "ensemble"])
def test_quantiles_never_cross_and_hold_what_they_say(name: str) -> None:
    """Over many decisions about as many loads stay below a quantile as its level says."""
    below, seen = np.zeros(len(LEVELS)), 0
    for seed in range(1 if name == "ensemble" else 3):
        counts = named_workload("fluctuating", seed=seed).counts
        predictor = make_predictor(name)
        for now_s in range(310, 1190, 40):
            forecast = predictor.forecast(counts[:now_s], now_s, 10)
            for quantiles in (forecast.peak_rps, forecast.mean_rps):
                assert (np.diff(quantiles, axis=1) >= 0).all()
                assert (quantiles >= 0).all()
            below += counts[now_s : now_s + 10].mean() <= forecast.mean_rps[0]
            seen += 1
    share = below / seen
    assert share[0] < 0.2
    assert 0.25 < share[3] < 0.75
    assert share[-1] > 0.8


def test_of_a_load_that_never_changes_only_the_prior_is_uncertain() -> None:
    """With history it is outweighed: the 10 % and 90 % quantiles are the load."""
    steady = np.full(720, 20)
    forecast = with_residuals(forecast_reactive, steady, 12)
    assert forecast.peak(0.1, 0, 10) == pytest.approx(20, rel=0.01)
    assert forecast.peak(0.9, 0, 10) == pytest.approx(20, rel=0.01)
    young = with_residuals(forecast_reactive, steady[:20], 12)
    assert young.peak(0.9, 0, 10) > 21


def test_the_oracle_is_certain_of_the_trace_and_of_nothing_after_it() -> None:
    trace = np.array([1] * 10 + [7] * 10)
    oracle = make_predictor("oracle", trace=trace)
    forecast = oracle.forecast([], 10, 20)
    assert forecast.peak_rps[:, 2].tolist() == [7, 0]
    assert (forecast.peak_rps == forecast.mean_rps).all()


def test_an_idle_history_expects_next_to_nothing() -> None:
    forecast = make_predictor("lstm").forecast([0] * 300, 300)
    assert forecast.peak(0.9) < 0.5


def test_a_history_shorter_than_the_horizon_has_a_forecast() -> None:
    for name in ("reactive", "lstm", "seasonal", "ensemble"):
        forecast = make_predictor(name).forecast([3], 1)
        assert forecast.horizon_s == 60
        assert 1 < forecast.mean(0.5) < 6


def square(period_s: int, length_s: int) -> np.ndarray:
    """Half a period at 2, half at 20 requests a second, with a little noise."""
    seconds = np.arange(length_s)
    noise = np.random.default_rng(0).integers(-1, 2, length_s)
    return np.where(seconds % period_s < period_s // 2, 3, 20) + noise


@pytest.mark.parametrize("period_s", [120, 310, 900])
def test_a_periodic_load_is_met_before_it_comes(period_s: int) -> None:
    """The jump is in the forecast when nothing of it is in the load yet."""
    counts = square(period_s, 6 * period_s)
    jump_s = 5 * period_s + period_s // 2
    now_s = jump_s - 20
    assert period_of(windows_of(counts[:now_s])[1]) == period_s // 10
    forecast = make_predictor("seasonal").forecast(counts[:now_s], now_s)
    assert forecast.mean(0.5, 0, 10) < 5
    assert forecast.mean(0.5, 40, 50) > 17
    blind = make_predictor("reactive").forecast(counts[now_s - 30 : now_s], now_s)
    assert blind.mean(0.5, 40, 50) < 10
    both = make_predictor("ensemble").forecast(counts[:now_s], now_s)
    assert both.mean(0.5, 40, 50) > 10


def test_noise_and_a_single_burst_have_no_period() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        assert period_of(random.poisson(10, 360) / 1.0) is None
    burst = np.full(120, 5.0)
    burst[50:70] = 25
    assert period_of(burst) is None
    assert period_of(np.full(120, 5.0)) is None


def _wide(load_rps: float = 5.0) -> Forecast:
    rows = np.tile(load_rps * np.linspace(0.8, 1.5, len(LEVELS)), (6, 1))
    return Forecast(rows * 1.2, rows)


def test_a_rise_goes_on_along_its_line_for_twice_as_long_as_it_was_seen() -> None:
    counts = np.array([5] * 40 + list(range(6, 33)))  # 27 s, a request a second each
    found, was = _wide().with_rise(counts), _wide()
    line = (32.0 + np.minimum(np.arange(1, 61), 54)).reshape(6, 10)
    for rows, before, least in (
        (found.mean_rps, was.mean_rps, line.mean(axis=1)),
        (found.peak_rps, was.peak_rps, line.max(axis=1)),
    ):
        np.testing.assert_allclose(rows[:, 3:], np.tile(least[:, None], 5))
        np.testing.assert_array_equal(rows[:, :3], before[:, :3])
        assert (np.diff(rows, axis=1) >= 0).all()


def test_what_does_not_rise_for_sure_is_forecast_as_before() -> None:
    rng, told = np.random.default_rng(0), 0
    for _ in range(400):
        forecast = _wide(9.0)
        told += forecast.with_rise(rng.poisson(9.0, 60)) is not forecast
    assert 0 < told <= 12  # four windows at 3.5 standard errors
    for counts in ([], [3], [0] * 60, list(range(60, 0, -1))):
        forecast = _wide()
        assert forecast.with_rise(np.array(counts, dtype=np.int64)) is forecast
    # At least 8 of 10: a steep rise with random arrivals is found in its 12 seconds.
    loads = np.concatenate([np.full(48, 6.0), 6.0 + 1.2 * np.arange(12)])
    seen = sum(_wide().with_rise(rng.poisson(loads)).mean(0.5) > 12 for _ in range(100))
    assert seen >= 80


def test_a_load_that_is_known_is_not_made_to_rise() -> None:
    known = Forecast.flat(5.0)
    assert known.with_rise(np.arange(60)) is known
