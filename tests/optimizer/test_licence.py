"""What a user of Gurobi is told when it cannot be used."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from instances import table_problem

from ipa_energy.errors import LicenceError, UnavailableError
from ipa_energy.optimizer import gurobi, highs, pareto
from ipa_energy.optimizer.problem import Problem


def large_problem() -> Problem:
    rng = np.random.default_rng(1)
    return table_problem(
        [[tuple(row) for row in rng.random((210, 4)).tolist()] for _ in range(10)],
        latency_sla_s=4.0,
    )


def full_licence() -> bool:
    try:
        gurobi.solve(large_problem())
    except LicenceError:
        return False
    return True


@pytest.mark.skipif(full_licence(), reason="this machine has a full Gurobi licence")
def test_too_small_a_licence_names_the_size_and_the_other_methods() -> None:
    with pytest.raises(
        LicenceError, match=r"2100 variables and 11 constraints.*2000 of each.*pareto, highs"
    ):
        gurobi.solve(large_problem())


def test_large_problem_is_solved_without_a_licence() -> None:
    assert len(pareto.solve(large_problem())) == 1


@pytest.mark.parametrize(("module", "solver"), [("gurobipy", gurobi), ("highspy", highs)])
def test_missing_library_names_the_fix(
    module: str, solver: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    solve = solver.solve  # type: ignore[attr-defined]
    with pytest.raises(UnavailableError, match=rf"pip install {module}.*pareto"):
        solve(table_problem([[(0.5, 1, 1, 0)], [(0.5, 1, 1, 0)]]))
