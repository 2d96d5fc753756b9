"""Hypervolumes of hand-made fronts, and of random ones against counted boxes."""

from __future__ import annotations

import numpy as np
import pytest
from seeds import seeds
from small_programs import every_plan, random_small_program

from ipa_energy.as_json import as_json
from ipa_energy.optimizer.front import pareto_front
from ipa_energy.tradeoff import energy_added
from ipa_energy.tradeoff.energy_added import blind_front, hypervolume_of, hypervolumes, share_of_box


def test_one_point_covers_the_box() -> None:
    assert share_of_box(np.zeros((1, 4))) == pytest.approx(1.0)


def test_a_point_on_the_reference_covers_nothing() -> None:
    assert share_of_box(np.full((1, 3), 1.1)) == 0.0


def test_two_corners_of_a_square() -> None:
    # two strips of 1.1 by 0.1 that share a square of 0.1 by 0.1, in a box of 1.1 by 1.1
    corners = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert share_of_box(corners) == pytest.approx((0.11 + 0.11 - 0.01) / 1.21)


def test_objectives_that_do_not_vary_change_nothing() -> None:
    corners = np.array([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert share_of_box(corners) == pytest.approx(0.21 / 1.21)


def test_accuracy_is_better_when_larger() -> None:
    found = hypervolumes(
        {
            "accuracy": np.array([0.9, 0.5]),
            "cost_cores": np.array([4.0, 4.0]),
            "latency_s": np.array([1.0, 1.0]),
            "joules_per_request": np.array([3.0, 1.0]),
        },
        np.array([0]),
    )
    assert found.best == {
        "accuracy": 0.9,
        "cost_cores": 4.0,
        "latency_s": 1.0,
        "joules_per_request": 1.0,
    }
    assert found.worst["accuracy"] == 0.5
    # with: two corners of a square. without: the point that is best in accuracy, worst in joules
    assert found.with_energy == pytest.approx(0.21 / 1.21)
    assert found.without_energy == pytest.approx(0.11 / 1.21)
    assert found.gain == pytest.approx(0.21 / 0.11 - 1)
    assert as_json(found)["points_without_energy"] == 1


def test_points_in_four_dimensions_against_counted_cells() -> None:
    """All coordinates are multiples of 0.1, so the volume is a number of cells of 0.1⁴."""
    rng = np.random.default_rng(0)
    points = rng.integers(0, 11, size=(12, 4)) / 10
    cells = np.stack(np.meshgrid(*[np.arange(11) / 10 + 0.05] * 4, indexing="ij"), axis=-1)
    covered = np.zeros(cells.shape[:-1], dtype=bool)
    for point in points:
        covered |= (cells >= point).all(axis=-1)
    assert share_of_box(points) == pytest.approx(covered.mean())


@pytest.mark.parametrize("seed", seeds(12))
def test_energy_never_shrinks_the_volume(seed: int) -> None:
    program, load_rps = random_small_program(seed)
    front = pareto_front(program.at(load_rps))
    if len(front) == 0:
        assert every_plan(program.at(load_rps)) == []
        return
    found = hypervolume_of(front)
    assert 0 < found.without_energy <= found.with_energy * (1 + 1e-12) <= 1 + 1e-9
    if len(blind_front(front)) == len(front):
        assert found.gain == pytest.approx(0.0)


def test_a_thinned_front_covers_no_more_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.linspace(0, np.pi / 2, 400)
    columns = {
        "accuracy": np.cos(angles),
        "cost_cores": 1 - np.sin(angles),
        "latency_s": np.ones(400),
        "joules_per_request": np.ones(400),
    }
    whole = hypervolumes(columns, np.arange(400))
    monkeypatch.setattr(energy_added, "MOST_POINTS", 100)
    thinned = hypervolumes(columns, np.arange(400))
    assert (whole.is_exact, thinned.is_exact) == (True, False)
    assert 0.97 * whole.with_energy < thinned.with_energy < whole.with_energy
