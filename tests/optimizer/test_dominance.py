"""Dominance against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from ipa_energy.optimizer.dominance import undominated


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 5, 150, 700])
@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("coarse", [True, False])
def test_what_goes_has_enough_dominators_among_what_stays(
    columns: int, size: int, keep: int, *, coarse: bool
) -> None:
    rng = np.random.default_rng(columns * 1000 + size + keep)
    table = [
        rng.integers(0, 6, size).astype(float) if coarse else rng.random(size)
        for _ in range(columns)
    ]
    kept = undominated(table, keep)
    assert len(set(kept.tolist())) == len(kept)
    for entry in set(range(size)) - set(kept.tolist()):
        at_least = np.logical_and.reduce([column[kept] >= column[entry] for column in table])
        assert at_least.sum() >= keep


def test_only_the_front_stays() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 2.0]), np.array([3.0, 2.0, 1.0, 1.0])
    assert sorted(undominated([first, second], 1).tolist()) == [0, 1, 2]
    third = np.array([1.0, 1.0, 1.0, 1.0])
    assert sorted(undominated([first, second, third], 1).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("columns", [2, 3])
def test_equal_entries_stay_keep_times(columns: int) -> None:
    same = [np.ones(400)] * columns
    assert len(undominated(same, 3)) == 3
