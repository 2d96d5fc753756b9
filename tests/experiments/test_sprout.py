"""Sprout's table: bounds in their order, figures that were known, and the program behind it."""

from __future__ import annotations

import numpy as np
import pytest
from experiment_scripts import script


@pytest.fixture(scope="module")
def sprout():  # type: ignore[no-untyped-def]
    return script("sprout/sprout")


def test_what_each_freedom_saves(sprout) -> None:  # type: ignore[no-untyped-def]
    tasks = sprout.read_directives()
    assert len(tasks) == 6
    zone, intensity = next(sprout.weeks())
    row = sprout.judged(zone, tasks, intensity, (intensity.min(), intensity.max()))
    assert row.static < row.theirs < row.own < row.static_by_class < row.ours < row.bound
    assert row.ours == pytest.approx(0.786, abs=0.005)


def test_the_hourly_mix_for_all_is_the_vertex_of_its_linear_program(sprout) -> None:  # type: ignore[no-untyped-def]
    """Two directives, one floor: the share of the cheap one is what the floor leaves it."""
    cost, quality = np.array([[[4.0, 1.0]]]), np.array([[0.6, 0.2]])
    share = (0.6 - 0.5) / (0.6 - 0.2)
    expected = 4.0 - share * 3.0
    found = sprout.cheapest(cost, quality[None], np.array([0.5]), np.ones((1, 1)))
    assert found == pytest.approx(expected)


def test_shares_of_tasks_weigh_grams_and_preference(sprout) -> None:  # type: ignore[no-untyped-def]
    """Three quarters of the requests are of the first task; its shorter answer loses nothing."""
    cost = np.array([[[4.0, 1.0], [8.0, 2.0]]])
    quality = np.array([[[0.6, 0.6], [0.6, 0.2]]])
    found = sprout.cheapest(cost, quality, np.array([0.6]), np.array([[0.75, 0.25]]))
    assert found == pytest.approx(0.75 * 1.0 + 0.25 * 8.0)


def test_shares_are_drawn_as_the_papers_code_draws_them(sprout) -> None:  # type: ignore[no-untyped-def]
    """Its own lines, with NumPy's global generator."""
    trace = np.arange(1.0, 200.0)
    tasks = list(sprout.read_directives())
    found = sprout.drawn_shares(trace, tasks, 3, 240)
    np.random.seed(3)
    starts = [np.random.randint(0, len(trace) - 240 / 24) for _ in range(6)]
    first = trace[starts] / trace[starts].sum()
    names = [name.replace("-", "") for name in tasks]
    assert found[0].tolist() == [first[sprout.PAPER_ORDER.index(name)] for name in names]
    assert found.sum(axis=1) == pytest.approx(1)
    changed = np.flatnonzero((np.diff(found, axis=0) != 0).any(axis=1)) + 1
    assert changed[0] == round(np.random.normal(24, 4.8))


def test_the_programs_plans_are_those_of_the_table(sprout) -> None:  # type: ignore[no-untyped-def]
    tasks = sprout.read_directives()
    intensity = next(sprout.weeks())[1][:48]
    hours, worst = sprout.program_agrees(tasks, intensity, (intensity.min(), intensity.max()))
    assert hours == 2
    assert worst < 1e-7
