"""Correlations against sets whose coefficients are known in advance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import pearsonr

from ipa_energy.as_json import as_json
from ipa_energy.tradeoff.correlation import Correlation, Over, correlations


def found(
    columns: dict[str, list[float]],
    x: str,
    y: str = "joules_per_request",
    *,
    given: str | None = None,
    method: str = "pearson",
    over: Over = "points",
) -> Correlation:
    arrays = {name: np.array(values, dtype=float) for name, values in columns.items()}
    (one,) = [
        each
        for each in correlations(arrays, over)
        if (each.x, each.y, each.given, each.method) == (x, y, given, method)
    ]
    return one


def test_pearson_of_a_set_computed_by_hand() -> None:
    # deviations (−1, 0, 1) and (−1, 1, 0): 1/√(2·2)
    columns = {"cost_cores": [1.0, 2, 3], "joules_per_request": [10.0, 30, 20]}
    assert found(columns, "cost_cores").value == pytest.approx(0.5)


def test_spearman_sees_ranks_alone() -> None:
    columns = {"cost_cores": [1.0, 2, 3, 4], "joules_per_request": [1.0, 10, 1000, 100]}
    # ranks 1 2 3 4 and 1 2 4 3: 1 − 6·2/(4·15)
    assert found(columns, "cost_cores", method="spearman").value == pytest.approx(0.8)
    assert found(columns, "cost_cores").value < 0.8


def test_spearman_shares_the_ranks_of_ties() -> None:
    columns = {"cost_cores": [1.0, 1, 2, 3], "joules_per_request": [1.0, 2, 3, 4]}
    # ranks 1.5 1.5 3 4 against 1 2 3 4: Σdxdy = 4.5, Σdx² = 4.5, Σdy² = 5
    expected = 4.5 / math.sqrt(4.5 * 5)
    assert found(columns, "cost_cores", method="spearman").value == pytest.approx(expected)


def test_spearman_does_not_see_the_rounding_of_sums() -> None:
    tied = [0.1 + 0.2, 0.3, 0.7 + 0.1, 0.8, 1.0]
    columns = {"cost_cores": tied, "joules_per_request": [2.0, 1, 3, 4, 5]}
    exact = {**columns, "cost_cores": [0.3, 0.3, 0.8, 0.8, 1.0]}
    assert tied[0] != tied[1] and tied[2] != tied[3]
    mine = found(columns, "cost_cores", method="spearman").value
    assert mine == found(exact, "cost_cores", method="spearman").value


def test_partial_correlation_takes_out_what_latency_explains() -> None:
    latency = np.array([1.0, 1, 2, 2, 3, 3, 4, 4])
    apart = np.array([1.0, -1, -1, 1, 1, -1, -1, 1])  # orthogonal to latency and to `other`
    other = np.array([1.0, -1, -1, 1, -1, 1, 1, -1])
    columns = {
        "accuracy": (latency + 0.3 * apart).tolist(),
        "latency_s": latency.tolist(),
        "joules_per_request": (latency + 0.3 * other).tolist(),
    }
    assert found(columns, "accuracy").value > 0.9
    partial = found(columns, "accuracy", given="latency_s")
    assert partial.value == pytest.approx(0.0, abs=1e-12)


def test_partial_correlation_equals_that_of_the_residuals() -> None:
    rng = np.random.default_rng(3)
    latency, x, y = rng.normal(size=(3, 12))
    x, y = x + latency, y - 0.5 * latency
    design = np.stack([np.ones(12), latency], axis=1)

    def residual(column: np.ndarray) -> np.ndarray:
        return column - design @ np.linalg.lstsq(design, column, rcond=None)[0]

    columns = {"accuracy": x, "latency_s": latency, "joules_per_request": y}
    lists = {name: column.tolist() for name, column in columns.items()}
    expected = pearsonr(residual(x), residual(y)).statistic
    assert found(lists, "accuracy", given="latency_s").value == pytest.approx(expected)


def test_pearson_interval_is_fishers() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    one = found({"cost_cores": x.tolist(), "joules_per_request": y.tolist()}, "cost_cores")
    expected = pearsonr(x, y).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx((expected.low, expected.high))
    assert one.reason is None


def test_spearman_interval_is_bonett_and_wrights() -> None:
    columns = {
        "cost_cores": [1.0, 2, 3, 4, 5, 6],
        "joules_per_request": [2.0, 1, 3, 4, 6, 5],
    }
    one = found(columns, "cost_cores", method="spearman")
    value = 1 - 6 * 4 / (6 * 35)
    reach = 1.959964 * math.sqrt((1 + value**2 / 2) / 3)
    assert one.value == pytest.approx(value)
    assert one.low == pytest.approx(math.tanh(math.atanh(value) - reach), abs=1e-6)
    assert one.high == pytest.approx(math.tanh(math.atanh(value) + reach), abs=1e-6)


def test_a_partial_interval_has_a_degree_of_freedom_less() -> None:
    rng = np.random.default_rng(5)
    x, y, z = rng.normal(size=(3, 5))
    columns = {"accuracy": x, "latency_s": z, "joules_per_request": y}
    lists = {name: column.tolist() for name, column in columns.items()}
    partial = found(lists, "accuracy", given="latency_s")
    reach = 1.959964 / math.sqrt(5 - 3 - 1)
    assert partial.high == pytest.approx(math.tanh(math.atanh(partial.value) + reach), abs=1e-6)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_a_constant_column_is_undefined_and_says_so(method: str) -> None:
    columns = {"accuracy": [0.1 + 0.2] * 5, "joules_per_request": [1.0, 2, 3, 4, 5]}
    one = found(columns, "accuracy", method=method)
    assert math.isnan(one.value)
    assert one.reason == "accuracy is the same in all 5 points"
    assert as_json(one)["value"] is None


def test_two_points_are_not_correlated() -> None:
    columns = {"accuracy": [0.1, 0.2], "joules_per_request": [1.0, 2]}
    one = found(columns, "accuracy")
    assert math.isnan(one.value)
    assert "it takes 3" in (one.reason or "")
    alone = found({"accuracy": [0.1], "joules_per_request": [1.0]}, "accuracy")
    assert (alone.reason or "").startswith("1 point cannot be correlated")


def test_three_points_have_a_value_and_no_interval() -> None:
    one = found({"accuracy": [0.1, 0.2, 0.4], "joules_per_request": [1.0, 3, 2]}, "accuracy")
    assert not math.isnan(one.value)
    assert math.isnan(one.low)
    assert one.reason == "an interval takes 4 points, there are 3"


def test_a_perfect_correlation_has_no_interval() -> None:
    one = found(
        {"accuracy": [1.0, 2, 3, 4, 5], "joules_per_request": [2.0, 4, 6, 8, 10]}, "accuracy"
    )
    assert one.value == pytest.approx(1.0)
    assert math.isnan(one.low)
    assert "perfect" in (one.reason or "")


def test_latency_that_determines_energy_leaves_nothing_to_correlate() -> None:
    columns = {
        "accuracy": [1.0, 3, 2, 5, 4],
        "latency_s": [1.0, 2, 3, 4, 5],
        "joules_per_request": [2.0, 4, 6, 8, 10],
    }
    one = found(columns, "accuracy", given="latency_s")
    assert math.isnan(one.value)
    assert one.reason is not None
    assert one.reason.startswith("latency_s determines joules_per_request")


def test_every_plan_is_no_sample() -> None:
    columns = {"accuracy": [1.0, 3, 2, 5, 4], "joules_per_request": [1.0, 2, 3, 4, 5]}
    one = found(columns, "accuracy", over="plans")
    assert one.value == pytest.approx(0.8)
    assert math.isnan(one.low)
    assert one.n == 5


def test_rows_with_a_gap_are_left_out() -> None:
    gap = {"accuracy": [1.0, 3, 2, 9], "joules_per_request": [1.0, 2, 3, math.nan]}
    whole = {"accuracy": [1.0, 3, 2], "joules_per_request": [1.0, 2, 3]}
    assert found(gap, "accuracy") == found(whole, "accuracy")


def test_without_energy_the_others_are_correlated_all_the_same() -> None:
    columns = {
        "accuracy": np.array([1.0, 3, 2]),
        "cost_cores": np.array([1.0, 2, 3]),
        "joules_per_request": np.full(3, math.nan),
    }
    assert {(one.x, one.y) for one in correlations(columns, "points")} == {
        ("accuracy", "cost_cores")
    }


def test_no_points_have_no_correlations_to_compute() -> None:
    empty = {"accuracy": np.empty(0), "cost_cores": np.empty(0)}
    assert correlations(empty, "points") == ()
