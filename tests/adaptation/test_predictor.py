import logging
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from ipa_energy.adaptation.predictor import (
    fitted_ar1,
    forecast_arima,
    forecast_avg,
    make_predictor,
    window_maxima,
)
from ipa_energy.errors import ConfigError
from ipa_energy.registries import PREDICTORS, Named, backup_predictors
from ipa_energy.workloads import named_workload


@pytest.mark.parametrize(
    ("counts", "step_s", "expected"),
    [
        ([], 10, []),
        ([4], 10, [4]),
        ([1, 5, 2, 9, 3, 4], 2, [5, 9, 4]),
        ([1, 5, 2, 9, 3], 2, [5, 9, 3]),  # the last window is short, none at the start
        ([0] * 9 + [7] + [1] * 10 + [2], 10, [7, 1, 2]),
    ],
)
def test_window_maxima(counts: list[int], step_s: int, expected: list[float]) -> None:
    assert window_maxima(counts, step_s).tolist() == expected
    assert window_maxima(np.array(counts, dtype=np.int64), step_s).tolist() == expected


# 12 windows of 10 s: eleven at 10 rps but for one second at 20, the last at 4.
HISTORY = [10] * 55 + [20] + [10] * 54 + [4] * 10


@pytest.mark.parametrize(
    ("name", "expected"), [("reactive", 4), ("max", 20), ("avg", round((10 * 10 + 20 + 4) / 12))]
)
@pytest.mark.parametrize("as_array", [False, True])
def test_simple_forecasts(name: str, expected: float, as_array: bool) -> None:
    history = np.array(HISTORY) if as_array else HISTORY
    assert make_predictor(name).predict(history, 120) == expected


def test_avg_of_a_constant_load_is_the_load() -> None:
    assert forecast_avg(np.full(12, 10.0)) == 10  # IPA: 10 / 12


@pytest.mark.parametrize("name", [name for name in backup_predictors() if name != "lstm"])
def test_a_constant_load_is_predicted_exactly(name: str) -> None:
    assert make_predictor(name).predict([10] * 120, 120) == 10


@pytest.mark.parametrize(
    ("seconds", "expected"), [(10, 30), (110, 30), (111, 5), (119, 5), (120, 5), (300, 5)]
)
def test_the_backup_serves_until_there_is_enough_history(seconds: int, expected: float) -> None:
    """IPA counts started windows: 111 s are 12 of them, the two minutes it waits for."""
    predictor = make_predictor(
        "reactive", backup_name="max", backup_duration_min=2, monitoring_duration_min=10
    )
    history = [30] + [5] * (seconds - 1)
    assert predictor.predict(history, seconds) == expected


def test_without_a_backup_duration_the_predictor_serves_at_once() -> None:
    predictor = make_predictor("reactive", backup_name="max", backup_duration_min=0)
    assert predictor.predict([30] * 10 + [5] * 10, 20) == 5


def test_only_the_monitored_minutes_count() -> None:
    predictor = make_predictor("max", monitoring_duration_min=1, backup_duration_min=1)
    assert predictor.predict([50] * 60 + [7] * 60, 120) == 7
    assert predictor.predict([50] * 61 + [7] * 59, 120) == 50


@pytest.mark.parametrize(
    ("margin_percent", "expected"), [(0, 10), (20, 12), (25, 12), (26, 13), (100, 20), (-50, 5)]
)
def test_the_margin_is_added_and_the_sum_rounded(margin_percent: float, expected: float) -> None:
    """12.5 becomes 12: Python rounds halves to even, and so does IPA."""
    predictor = make_predictor("max", margin_percent=margin_percent)
    assert predictor.predict([10] * 120, 120) == expected


def test_an_idle_history_predicts_zero() -> None:
    for name in backup_predictors():
        assert make_predictor(name).predict([0] * 120, 120) == 0


@pytest.mark.parametrize("name", backup_predictors())
def test_an_empty_history_is_a_mistake_of_the_caller(name: str) -> None:
    with pytest.raises(ValueError, match="no load was seen before second 0"):
        make_predictor(name).predict([], 0)


@pytest.mark.parametrize("name", backup_predictors())
@pytest.mark.parametrize("shape", ["bursty", "steady-low"])
def test_predictions_are_whole_finite_and_near_the_load(name: str, shape: str) -> None:
    counts = named_workload(shape, seed=1).counts
    predictor = make_predictor(name)
    for now_s in range(10, 1200, 130):
        load_rps = predictor.predict(counts[:now_s], now_s)
        assert isinstance(load_rps, float)
        assert load_rps.is_integer()
        seen = counts[max(0, now_s - 120) : now_s]
        assert seen.min() <= load_rps <= 1.5 * seen.max()


def test_arima_returns_towards_the_mean_of_an_alternating_history() -> None:
    """x_t = 20 ± 10 alternating: the next two are near 30 and 10, or 10 and 30; the larger counts.

    After 10 comes 30: phi is near −1, so the first step is already the high one.
    """
    maxima = np.tile([30.0, 10.0], 6)
    assert 25 < forecast_arima(maxima) <= 31


def test_arima_follows_a_level() -> None:
    random = np.random.default_rng(0)
    maxima = 100 + random.normal(0, 2, size=12)
    assert forecast_arima(maxima) == pytest.approx(100, abs=4)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["bursty", "steady-low", "steady-high", "fluctuating"])
def test_arima_is_that_of_statsmodels(shape: str) -> None:
    """To its optimiser's accuracy; ours finds the same likelihood or a better one."""
    ARIMA = pytest.importorskip("statsmodels.tsa.arima.model").ARIMA
    counts = named_workload(shape, seed=1).counts
    for now_s in range(60, 1200, 120):
        maxima = window_maxima(counts[max(0, now_s - 120) : now_s])
        with warnings.catch_warnings():  # convergence, starting values
            warnings.simplefilter("ignore")
            fit = ARIMA(maxima, order=(1, 0, 0)).fit()
        mean, phi, _ = fit.params
        assert fitted_ar1(maxima) == pytest.approx((phi, mean), rel=1e-3, abs=1e-3)
        assert forecast_arima(maxima) == pytest.approx(fit.forecast(steps=2).max(), rel=1e-4)


@pytest.mark.parametrize("maxima", [[5.0, 6.0, 7.0], [1.0]])
def test_arima_has_no_forecast_from_a_few_points(maxima: list[float]) -> None:
    assert math.isnan(forecast_arima(np.array(maxima)))


def test_arima_survives_histories_that_are_hard_to_fit() -> None:
    for maxima in ([0.0] * 11 + [400], [1.0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]):
        forecast_rps = forecast_arima(np.array(maxima))
        assert forecast_rps >= 0
        assert forecast_rps < 2 * max(maxima)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def fail(name: str) -> None:
        monkeypatch.setitem(PREDICTORS, name, Named("fails", lambda _maxima: math.nan))

    return fail


def test_a_forecast_that_fails_falls_back_with_a_warning(
    failing: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    failing("arima")
    predictor = make_predictor("arima", backup_name="reactive")
    with caplog.at_level(logging.WARNING):
        assert predictor.predict(HISTORY, 120) == 4
    assert "second 120: arima has no forecast from 12 maxima" in caplog.text


def test_a_backup_that_fails_falls_back_to_the_maximum() -> None:
    predictor = make_predictor("reactive", backup_name="arima")
    assert predictor.predict([9] * 10 + [4] * 10, 20) == 9  # two points, too few for ARIMA


def test_the_oracle_knows_what_comes() -> None:
    counts = np.array([1, 2, 9, 4, 5, 6, 3])
    oracle = make_predictor("oracle", trace=counts, horizon_s=3, margin_percent=50)
    assert [oracle.predict([], now_s) for now_s in range(8)] == [9, 9, 9, 6, 6, 6, 3, 0]


def test_an_oracle_without_a_trace_is_refused() -> None:
    with pytest.raises(ConfigError, match="the oracle has no trace"):
        make_predictor("oracle")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"name": "prophet"}, "predictor_type: there is no predictor 'prophet'; allowed: reactive"),
        ({"name": "max", "backup_name": "x"}, "backup_predictor_type: there is no predictor 'x'"),
        ({"name": "max", "backup_name": "oracle"}, "backup_predictor_type"),
        ({"name": "max", "monitoring_duration_min": 0}, "monitoring_duration: 0 min"),
        ({"name": "max", "margin_percent": -100}, "predictor_margin: -100 %"),
        ({"name": "max", "margin_percent": math.nan}, "predictor_margin: nan %"),
    ],
)
def test_impossible_settings_are_refused(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_predictor(**keywords)  # type: ignore[arg-type]


def test_a_predictor_that_will_never_serve_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        make_predictor("lstm", backup_duration_min=3, monitoring_duration_min=2)
    assert "max is used for the whole run and lstm never" in caplog.text


def test_a_predictor_registered_while_the_program_runs_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PREDICTORS, "first", Named("oldest", lambda maxima: float(maxima[0])))
    assert make_predictor("first", margin_percent=100).predict(HISTORY, 120) == 20
    assert make_predictor("lstm", backup_name="first").predict([7] + [3] * 30, 31) == 7
