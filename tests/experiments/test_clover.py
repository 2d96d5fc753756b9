"""Clover's table: the stand-in of its networks, its space, and the table that is kept on disk."""

from __future__ import annotations

import numpy as np
import pytest
from experiment_scripts import script


@pytest.fixture(scope="module")
def clover():  # type: ignore[no-untyped-def]
    return script("clover/clover")


def test_the_modelled_networks_by_hand(clover) -> None:  # type: ignore[no-untyped-def]
    figures = clover.efficientnets()
    whole, seventh = figures["b7", 7], figures["b5", 1]
    assert (whole.service_s, whole.accuracy) == (pytest.approx(0.2), 84.582)
    assert whole.energy_j == pytest.approx((300 - 55) * 0.2)
    assert seventh.service_s == pytest.approx(0.2 * 9.9 / 37 * 7**0.8)
    case = clover.Case(2, figures)
    assert case.best == ("b7", 7)
    assert case.load_rps == pytest.approx(0.5 * 2 / 0.2)
    # The base saves nothing and loses nothing.
    assert case.score(np.array(whole.accuracy), np.array(case.base_j)) == pytest.approx(0)


def test_two_gpus_are_decided_exactly_and_no_worse_than_the_base(clover) -> None:  # type: ignore[no-untyped-def]
    case = clover.Case(2, clover.efficientnets())
    answer = clover.exact(case, clover._sla_s(case), used=0.9, late=0.0, off=True)
    assert answer.gap < 1e-6
    assert sum(answer.shares.values()) == pytest.approx(1)
    assert clover._score(case, answer) > 0


def test_a_table_is_made_once(clover, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    case = clover.Case(2, clover.efficientnets())
    few = clover.their_space(case.figures)[:5]
    first, _ = clover.table(case, few)
    assert first.p95_s.tolist() == clover.simulate(case, few).p95_s.tolist()
    monkeypatch.setattr(clover, "simulate", None)
    again, _ = clover.table(case, few)
    assert again.energy_j.tolist() == first.energy_j.tolist()
    with pytest.raises(TypeError):  # other figures, another table
        clover.table(clover.Case(3, case.figures), few)
