"""Points that no other beats, against a comparison of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from seeds import seeds

from ipa_energy.optimizer.dominance import pareto_points


def by_pairs(columns: np.ndarray, tie_break: np.ndarray) -> list[int]:
    """The same in the plainest way; ``columns`` is (K, N)."""
    kept = []
    for at, point in enumerate(columns.T):
        no_worse = (columns.T - point <= 0).all(axis=1)
        equal = (columns.T - point == 0).all(axis=1)
        rivals = [(float(tie_break[other]), other) for other in np.flatnonzero(equal).tolist()]
        if not (no_worse & ~equal).any() and min(rivals)[1] == at:
            kept.append(at)
    return kept


def random_points(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    width, count = int(rng.integers(2, 5)), int(rng.integers(1, 200))
    if seed % 2:
        points = rng.integers(0, int(rng.integers(2, 9)), size=(width, count)).astype(float)
    else:
        points = rng.random((width, count))
    return points, rng.integers(0, 3, count).astype(float)


@pytest.mark.parametrize("seed", seeds(15))
def test_agrees_with_all_pairs(seed: int) -> None:
    points, tie_break = random_points(seed)
    found = pareto_points(list(points), tie_break, points.shape[1])
    assert found is not None
    assert found.tolist() == by_pairs(points, tie_break)


def test_a_front_of_every_point() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((3, 2000))
    columns = [*points, -points.sum(axis=0)]
    found = pareto_points(columns, np.zeros(2000), 2000)
    assert found is not None
    assert found.tolist() == list(range(2000))


def test_no_points_are_no_front() -> None:
    found = pareto_points([np.empty(0), np.empty(0)], np.empty(0), 5)
    assert found is not None
    assert found.tolist() == []


def test_it_gives_up_beyond_the_limit() -> None:
    rising = np.arange(5.0)
    assert pareto_points([rising, -rising], np.zeros(5), 4) is None
    assert pareto_points([rising, -rising], np.zeros(5), 5) is not None
