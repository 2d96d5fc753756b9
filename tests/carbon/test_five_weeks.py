"""A budget a day over five real weeks, on the boards that have the least room to keep it."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from experiment_scripts import script

from ipa_energy.planning.carbon_budget import CarbonBudget, PriceCurve, price_curve
from ipa_energy.planning.planner import Planner

ZONES = ("GB", "NL", "US-CAL-CISO", "US-TEX-ERCO", "AU-SA")


@pytest.fixture(scope="module")
def hours() -> ModuleType:
    return script("carbon/hours")


@pytest.fixture(scope="module")
def rpi4(hours: ModuleType) -> tuple[Planner, dict[float, PriceCurve]]:
    planner = hours.planner_of("rpi4")
    loads = np.unique(np.round(hours.loads_rps(hours.MEAN_RPS["rpi4"]), 6))
    return planner, {float(load): price_curve(planner.program, float(load)) for load in loads}


@pytest.mark.parametrize("zone", ZONES)
def test_yesterday_overshoots_by_three_percent_at_most_and_the_truth_not_at_all(
    zone: str,
    hours: ModuleType,
    rpi4: tuple[Planner, dict[float, PriceCurve]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planner, curves = rpi4
    loads = np.round(hours.loads_rps(hours.MEAN_RPS["rpi4"]), 6)
    # A curve of a load is the same every day, and is slow to find.
    monkeypatch.setattr(CarbonBudget, "_curve", lambda _, load: curves[round(float(load), 6)])
    series = hours.intensity_of(zone)
    week = hours.Week([curves[load] for load in loads], series.g_per_kwh, loads * 3600)
    knowing = hours.keep_budget(week, planner, loads, 0.4, knows=True)
    yesterday = hours.keep_budget(week, planner, loads, 0.4, knows=False)
    assert knowing.overshoot <= 1e-9
    assert knowing.bound - knowing.accuracy <= 0.001
    assert yesterday.overshoot <= 0.03
    assert yesterday.bound - yesterday.accuracy <= 0.08
