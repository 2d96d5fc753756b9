"""Intervals against the tables of Student's t."""

from __future__ import annotations

import math

import pytest

from ipa_energy.interval import half_width_95, t_quantile_95


@pytest.mark.parametrize(
    ("degrees_of_freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (1e9, 1.95996)],
)
def test_quantiles_are_those_of_the_printed_tables(
    degrees_of_freedom: float, quantile: float
) -> None:
    assert t_quantile_95(degrees_of_freedom) == pytest.approx(quantile, abs=5e-5)


def test_half_width_is_quantile_times_standard_error() -> None:
    # 1, 2, 3: standard deviation 1, standard error 1/√3, t(2) = 4.3027
    assert half_width_95([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert half_width_95([5.0, 5.0]) == 0.0


def test_one_value_has_no_interval() -> None:
    assert math.isnan(half_width_95([5.0]))
    assert math.isnan(half_width_95([]))
