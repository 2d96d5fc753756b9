"""The split of a load among sites, against every basis of its linear program."""

from __future__ import annotations

from itertools import combinations
from types import ModuleType

import numpy as np
import pytest
from experiment_scripts import script as experiment_script
from seeds import seeds


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return experiment_script("carbon/sites")


def every_basis(cost: np.ndarray, rows: np.ndarray, right: np.ndarray) -> float:
    """The least cost of rows·x = right, x ≥ 0, by trying every basis; infinity if there is none."""
    best = np.inf
    for chosen in combinations(range(len(cost)), len(right)):
        basis = rows[:, chosen]
        if abs(np.linalg.det(basis)) > 1e-9:
            x = np.linalg.solve(basis, right)
            if (x >= -1e-9).all():
                best = min(best, float(cost[list(chosen)] @ x))
    return best


@pytest.mark.parametrize("seed", seeds(20))
def test_no_basis_is_better(seed: int, script: ModuleType) -> None:
    rng = np.random.default_rng(seed)
    sites = [
        script.Site(rate, capacity, delay, 1.2)
        for rate, capacity, delay in zip(
            rng.uniform(20, 600, 3), rng.uniform(0.2, 0.9, 3), rng.choice([0, 0.3], 3), strict=True
        )
    ]
    plans = script.Plans(rng.uniform(1, 9, 2), rng.uniform(0.4, 0.9, 2), np.array([0.1, 0.3]))
    floor = float(rng.uniform(0.3, 0.9))
    pairs = [
        (at, plan)
        for at, site in enumerate(sites)
        for plan in range(2)
        if plans.latency_s[plan] + site.delay_s <= 0.5
    ]
    grams = [plans.joules[k] * sites[s].g_per_kwh * 1.2 / 3.6e6 for s, k in pairs]
    rows = [[1.0] * len(pairs) + [0.0] * 4]
    for at in range(3):
        slack = [float(at == other) for other in range(3)]
        rows.append([float(s == at) for s, _ in pairs] + slack + [0.0])
    rows.append([plans.accuracy[k] for _, k in pairs] + [0.0] * 3 + [-1.0])
    right = np.array([1.0, *(site.capacity for site in sites), floor])
    least = every_basis(np.array(grams + [0.0] * 4), np.array(rows), right)
    if not np.isfinite(least):
        with pytest.raises(ValueError, match="cannot take"):
            script.split(sites, plans, floor=floor, latency_sla_s=0.5)
        return
    shares, found = script.split(sites, plans, floor=floor, latency_sla_s=0.5)
    assert found == pytest.approx(least, rel=1e-6)
    assert shares.sum() == pytest.approx(1.0)
    assert (shares.sum(axis=1) <= [site.capacity + 1e-9 for site in sites]).all()


def test_two_sites_that_take_turns(script: ModuleType) -> None:
    """100 and 300 g/kWh by turns: half of what one site emits is saved, by hand."""
    curve = script.PriceCurve(np.array([0.0]), np.array([2.0]), np.array([0.8]))
    rates = np.array([[100.0, 300.0], [300.0, 100.0]])
    loads = np.array([5.0, 5.0])
    found = script.emitted([curve, curve], rates, loads, 1.0)
    assert found.hourly / found.fixed == pytest.approx(0.5)
    # With room for 60 % of the load at each, 40 % go where it is dear: 100·0.6 + 300·0.4 of 200.
    found = script.emitted([curve, curve], rates, loads, 0.6)
    assert found.hourly / found.fixed == pytest.approx(180 / 200)
    # Where one is always the cleaner, knowing the hour saves nothing but over an even split.
    found = script.emitted([curve, curve], np.array([[100.0, 200.0], [300.0, 600.0]]), loads, 1.0)
    assert found.hourly / found.fixed == pytest.approx(1.0)
    assert found.hourly / found.even == pytest.approx(0.5)
