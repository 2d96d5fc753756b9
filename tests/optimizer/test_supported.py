"""What weights can choose: by hand, by a fine grid of weights, and by its own witnesses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from instances import random_problem, table_problem
from seeds import seeds

from ipa_energy.optimizer import supported as supported_module
from ipa_energy.optimizer.front import OBJECTIVES, Front, pareto_front
from ipa_energy.optimizer.supported import Supported, supported, weight_name

SEEDS = seeds(15)


def line_of(rows: list[tuple[float, float]]) -> Front:
    """A front of (accuracy, joules) with one core and one latency each."""
    return pareto_front(table_problem([[(accuracy, 0.1, j, 0.0) for accuracy, j in rows]]))


def test_a_point_under_the_line_of_its_neighbours_is_chosen_by_no_weights() -> None:
    found = supported(line_of([(0.9, 3.0), (0.6, 2.5), (0.5, 1.0)]))
    assert found.names == ("alpha", "beta", "energy_weight")
    assert found.mask.tolist() == [True, False, True]
    assert found.alone.tolist() == [True, False, True]
    assert found.witness(1) is None
    weights = found.witness(0)
    assert weights is not None
    # 0.9·a − 3·w beats 0.5·a − w from a > 5·w
    assert weights["alpha"] > 5 * weights["energy_weight"]


def test_a_point_on_the_line_of_its_neighbours_ties_at_one_ratio() -> None:
    found = supported(line_of([(0.75, 3.0), (0.5, 2.0), (0.25, 1.0)]))
    assert found.mask.tolist() == [True, True, True]
    assert found.alone.tolist() == [True, False, True]
    weights = found.witness(1)
    assert weights is not None
    assert weights["alpha"] / weights["energy_weight"] == pytest.approx(4.0)


def test_without_energy_only_accuracy_and_cores_are_weighed() -> None:
    front = line_of([(0.9, 3.0), (0.5, 1.0)])
    found = supported(front, ("cost",))
    assert found.names == ("alpha", "beta")
    assert found.mask.tolist() == [True, False]


def test_points_that_weights_cannot_tell_apart_are_never_alone() -> None:
    rows = [(0.9, 0.1, 3.0, 0.0), (0.9, 0.2, 1.0, 0.0)]
    found = supported(pareto_front(table_problem([rows])), ("cost",))
    assert found.mask.tolist() == [True, True]
    assert found.alone.tolist() == [False, False]


def test_latency_can_have_a_weight() -> None:
    rows = [(0.9, 0.3, 1.0, 0.0), (0.9, 0.1, 2.0, 0.0)]
    front = pareto_front(table_problem([rows]))
    assert supported(front).mask.tolist() == [True, False]
    found = supported(front, OBJECTIVES)
    assert found.names == ("alpha", "beta", "latency_s", "energy_weight")
    assert found.mask.tolist() == [True, True]


def test_joules_that_the_profile_lacks_are_not_weighed() -> None:
    nan = float("nan")
    rows = [(0.9, 0.3, nan, 0.0), (0.5, 0.1, nan, 0.0)]
    found = supported(pareto_front(table_problem([rows])))
    assert found.names == ("alpha", "beta")
    assert found.mask.tolist() == [True, False]


def test_the_random_fronts_have_points_of_every_kind() -> None:
    found = [supported(pareto_front(random_problem(s, stages=1 + s % 2))) for s in range(120)]
    masks = np.concatenate([each.mask for each in found])
    alone = np.concatenate([each.alone for each in found])
    assert (~masks).sum() > 50
    assert alone.sum() > 50
    blind = [supported(pareto_front(random_problem(s, stages=2)), ("cost",)) for s in range(120)]
    assert sum(int((each.mask & ~each.alone).sum()) for each in blind) > 5


def test_a_single_point_is_chosen_by_all_weights() -> None:
    found = supported(line_of([(0.5, 1.0)]))
    assert (found.mask.tolist(), found.alone.tolist()) == ([True], [True])


def test_of_an_empty_front_nothing_is_chosen() -> None:
    problem = table_problem([[(0.5, 0.9, 1.0, 0.0)]], latency_sla_s=0.1)
    assert len(supported(pareto_front(problem)).mask) == 0


def points_of(front: Front, found: Supported) -> np.ndarray:
    names = [name for name in front.amounts if weight_name(name) in found.names]
    return np.stack([-front.accuracy, *(front.amounts[name] for name in names)], axis=1)


@pytest.mark.parametrize("quantities", [OBJECTIVES, OBJECTIVES[:2], OBJECTIVES[::2], ("cost",)])
@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_a_grid_of_weights(seed: int, quantities: tuple[str, ...]) -> None:
    front = pareto_front(random_problem(seed, stages=1 + seed % 2))
    if len(front) == 0:
        return
    found = supported(front, quantities)
    points = points_of(front, found)
    spans = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(spans > 0, spans, 1.0)
    for weights in grid(points.shape[1]):
        worth = scaled @ weights
        chosen = np.flatnonzero(worth <= worth.min() + 1e-12)
        assert found.mask[chosen].all()
        if np.sum(worth <= worth.min() + 1e-6) == 1:
            assert found.alone[chosen].all()
    for at in np.flatnonzero(found.mask).tolist():
        worth = points @ found.weights[at]
        room = 1e-8 * np.abs(points * found.weights[at]).max()
        assert worth[at] <= worth.min() + room
        assert (found.weights[at] > 0).all()
        assert found.weights[at].sum() == pytest.approx(1.0)
        if found.alone[at]:
            assert (np.delete(worth, at) > worth[at]).all()


def grid(width: int) -> np.ndarray:
    """Weights above 0 that sum to 1, evenly spread, and some near each corner."""
    steps = {2: 60, 3: 16, 4: 8}[width]
    inner = [
        np.array([*parts, steps - sum(parts)]) / steps
        for parts in itertools.product(range(1, steps), repeat=width - 1)
        if sum(parts) < steps
    ]
    corners = [np.where(np.arange(width) == at, 1.0, 1e-3) for at in range(width)]
    return np.array([*inner, *(corner / corner.sum() for corner in corners)])


@pytest.mark.parametrize("seed", seeds(10))
def test_the_hull_only_saves_work(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    front = pareto_front(random_problem(seed, stages=2))
    found = supported(front)

    def everything(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(points)), np.arange(len(points))

    monkeypatch.setattr(supported_module, "_hull", everything)
    assert (supported(front).mask == found.mask).all()
    assert (supported(front).alone == found.alone).all()
