"""The program through Gurobi, as in IPA. The only module that imports gurobipy.

The licence that comes with ``pip install gurobipy`` takes up to 2000 variables and constraints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Ints
from ipa_energy.errors import LicenceError, UnavailableError, require
from ipa_energy.optimizer.deadline import Bounded, Deadline, prepared_by, stops_in_time
from ipa_energy.optimizer.linear import (
    LinearProgram,
    TimedAnswer,
    best_choices,
    bounded,
    linear_program,
)
from ipa_energy.optimizer.mixing import mixes
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.settings import Settings

_NO_LICENCE = 10009
_TOO_LARGE = 10010
_OTHERS = "use method pareto, highs or (for small programs) brute-force: they need no licence"
_PARAMETERS = {
    "OutputFlag": 0,
    "LogToConsole": 0,
    "Threads": 1,
    "MIPGap": 0.0,
    "MIPGapAbs": 0.0,
    "FeasibilityTol": 1e-9,
    "IntFeasTol": 1e-9,
    "OptimalityTol": 1e-9,
    "Aggregate": 0,  # its aggregator called tight but feasible programs infeasible
}
_environments: list[Any] = []


def solve(problem: Problem, top_k: int = 1) -> list[Choice]:
    """The ``top_k`` best choices, best first; empty if infeasible. Exact.

    Raises:
        UnavailableError: gurobipy is not installed.
        LicenceError: there is no licence, or it is too small for this program.
    """
    made = linear_program(problem)
    if made is None:
        return []
    program, table = made
    solver = GurobiSolver(program)
    try:
        return best_choices(solver, program, table, top_k)
    finally:
        solver.close()


def within(
    problem: Problem, top_k: int, deadline: Deadline, start: Choice | None = None
) -> Bounded:
    """The best choice found until the deadline, and a bound on all.

    Raises:
        UnavailableError: gurobipy is not installed.
        LicenceError: there is no licence, or it is too small for this program.
    """
    del top_k
    return bounded(GurobiSolver, problem, deadline, start)


class GurobiSolver:
    """One program inside Gurobi (protocol ``linear.Solver``)."""

    def __init__(self, program: LinearProgram) -> None:
        gurobi = _gurobipy()
        from scipy.sparse import csr_array

        self._program, self._gurobi = program, gurobi
        model = self._model = gurobi.Model(env=_environment(gurobi))
        width = len(program.cost)
        kinds = np.full(width, gurobi.GRB.CONTINUOUS)
        kinds[: program.integers] = gurobi.GRB.INTEGER
        kinds[: program.binaries] = gurobi.GRB.BINARY
        self._variables = model.addMVar(width, ub=program.upper, obj=program.cost, vtype=kinds)
        matrix = csr_array(
            (program.values, (program.rows, program.columns)), shape=(len(program.row_low), width)
        )
        low, high = program.row_low, program.row_high
        equal = low == high
        for rows, sense, side in (
            (equal, "=", low),
            (~equal & np.isfinite(high), "<", high),
            (~equal & np.isfinite(low), ">", low),
        ):
            if rows.any():
                index = np.flatnonzero(rows)
                model.addMConstr(matrix[index], self._variables, sense, side[index])
        model.ModelSense = gurobi.GRB.MAXIMIZE
        if program.start is not None:
            self._variables.Start = program.start

    def best(self) -> npt.ArrayLike | None:
        """See :class:`~.linear.Solver`."""
        try:
            self._model.optimize()
        except self._gurobi.GurobiError as error:
            raise _explained(error, self._program) from error
        status = self._model.Status
        if status in (self._gurobi.GRB.INFEASIBLE, self._gurobi.GRB.INF_OR_UNBD):
            return None
        if status != self._gurobi.GRB.OPTIMAL:
            raise UnavailableError(f"gurobi stopped with status {status}; {_OTHERS}")
        values: npt.ArrayLike = self._variables.X
        return values

    def best_within(self, seconds: float, start: Ints | None) -> TimedAnswer:
        """See :class:`~.linear.Solver`."""
        model, kinds = self._model, self._gurobi.GRB
        model.Params.TimeLimit = seconds
        if start is not None:
            values = np.full(len(self._program.cost), kinds.UNDEFINED)
            values[: self._program.binaries] = 0.0
            values[start] = 1.0
            self._variables.Start = values
        try:
            model.optimize()
        except self._gurobi.GurobiError as error:
            raise _explained(error, self._program) from error
        if model.Status in (kinds.INFEASIBLE, kinds.INF_OR_UNBD):
            return TimedAnswer(None, -np.inf, finished=True)
        answer = self._variables.X if model.SolCount else None
        return TimedAnswer(answer, float(model.ObjBound), finished=model.Status == kinds.OPTIMAL)

    def exclude(self, binaries: Ints) -> None:
        """See :class:`~.linear.Solver`."""
        self._model.addConstr(self._variables[binaries].sum() <= len(binaries) - 1)

    def close(self) -> None:
        """Free the model."""
        self._model.dispose()


def _gurobipy() -> Any:
    require("gurobipy", what="method gurobi", extra="gurobi", instead=_OTHERS)
    import gurobipy

    return gurobipy


def _environment(gurobi: Any) -> Any:
    """One silent environment for the process: starting it checks the licence, which takes time."""
    if not _environments:
        try:
            environment = gurobi.Env(params=_PARAMETERS)
        except gurobi.GurobiError as error:
            raise _explained(error) from error
        _environments.append(environment)
    return _environments[0]


def _explained(error: Any, program: LinearProgram | None = None) -> Exception:
    size = "" if program is None else _size_of(program)
    if error.errno == _TOO_LARGE:
        return LicenceError(
            f"this program has {size}, more than the Gurobi licence found here allows (the one"
            f" bundled with gurobipy: 2000 of each); fix: install a full licence, or {_OTHERS}"
        )
    if error.errno == _NO_LICENCE:
        return LicenceError(
            f"no valid Gurobi licence ({error}){size and f' for {size}'}; fix: install one,"
            f" or {_OTHERS}"
        )
    return UnavailableError(f"gurobi failed: {error}; {_OTHERS}")


def _size_of(program: LinearProgram) -> str:
    return f"{len(program.cost)} variables and {len(program.row_low)} constraints"


def prepare(_: Settings) -> None:
    """Import what a decision needs, and start Gurobi, which checks the licence.

    Raises:
        UnavailableError: gurobipy is not installed.
        LicenceError: there is no licence.
    """
    _environment(_gurobipy())
    import scipy.sparse  # noqa: F401


stops_in_time(within)(solve)
prepared_by(prepare)(solve)
mixes(GurobiSolver)(solve)
