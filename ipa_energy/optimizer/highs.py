"""The program through HiGHS: exact, free, no licence. The only module that imports highspy."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats, Ints
from ipa_energy.errors import UnavailableError
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

_OPTIONS: dict[str, bool | int | float | str] = {
    "output_flag": False,
    "threads": 1,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": 0.0,
    "mip_feasibility_tolerance": 1e-10,
    "primal_feasibility_tolerance": 1e-10,
    "dual_feasibility_tolerance": 1e-10,
}

_DELICATE: dict[str, bool | int | float | str] = {
    "presolve": "off",
    "mip_feasibility_tolerance": 1e-9,
}
"""With either as above HiGHS 1.16 calls one mix of classes in 300 the best that is not."""

_SAME_RTOL = 1e-6
"""By which the worth of a solution may differ from the objective that HiGHS names with it."""

_FEASIBLE = 2
"""HiGHS's ``kSolutionStatusFeasible``."""


def solve(problem: Problem, top_k: int = 1) -> list[Choice]:
    """The ``top_k`` best choices, best first; empty if infeasible. Exact.

    Raises:
        UnavailableError: highspy is not installed, or HiGHS failed.
    """
    made = linear_program(problem)
    if made is None:
        return []
    program, table = made
    return best_choices(HighsSolver(program), program, table, top_k)


def within(
    problem: Problem, top_k: int, deadline: Deadline, start: Choice | None = None
) -> Bounded:
    """The best choice found until the deadline, and a bound on all.

    Raises:
        UnavailableError: highspy is not installed, or HiGHS failed.
    """
    del top_k
    return bounded(HighsSolver, problem, deadline, start)


class HighsSolver:
    """One program inside HiGHS (protocol ``linear.Solver``)."""

    def __init__(self, program: LinearProgram) -> None:
        self._program = program
        self._has_start = False
        self._highspy = _highspy()
        with _silent():
            self._highs = self._highspy.Highs()
            options = _OPTIONS | (_DELICATE if program.is_delicate else {})
            for name, value in options.items():
                self._highs.setOptionValue(name, value)
        self._highs.passModel(_model(self._highspy, program))
        if len(program.cost) != program.integers:  # restarts pay where all is binary alone
            self._highs.setOptionValue("mip_allow_restart", False)
        if program.start is not None:
            self._begin_with(program.start)

    def best(self) -> npt.ArrayLike | None:
        """See :class:`~.linear.Solver`."""
        self._run()
        status = self._highs.getModelStatus()
        kinds = self._highspy.HighsModelStatus
        if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
            return None
        if status != kinds.kOptimal:
            raise UnavailableError(
                f"highs stopped with status {self._highs.modelStatusToString(status)};"
                " use method pareto or gurobi"
            )
        return np.array(self._highs.getSolution().col_value)

    def best_within(self, seconds: float, start: Ints | None) -> TimedAnswer:
        """See :class:`~.linear.Solver`."""
        highs, kinds = self._highs, self._highspy.HighsModelStatus
        highs.setOptionValue("time_limit", highs.getRunTime() + seconds)
        if start is not None and len(self._program.cost) == self._program.binaries:
            values = np.zeros(len(self._program.cost))
            values[start] = 1.0
            self._begin_with(values)
        self._run()
        status, info = highs.getModelStatus(), highs.getInfo()
        if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
            return TimedAnswer(None, -np.inf, finished=True)
        found = info.primal_solution_status == _FEASIBLE
        answer = np.array(highs.getSolution().col_value) if found else None
        return TimedAnswer(answer, float(info.mip_dual_bound), finished=status == kinds.kOptimal)

    def _run(self) -> None:
        """Solve; anew if what it was to begin with comes back in the place of what it found.

        HiGHS 1.16 does so where presolve alone improves a beginning.
        """
        highs = self._highs
        highs.run()
        info = highs.getInfo()
        if not self._has_start or info.primal_solution_status != _FEASIBLE:
            return
        objective = info.objective_function_value
        given = float(self._program.cost @ np.array(highs.getSolution().col_value))
        if abs(given - objective) > _SAME_RTOL * max(1.0, abs(objective)):
            highs.clearSolver()
            highs.run()

    def _begin_with(self, values: Floats) -> None:
        self._has_start = True
        solution = self._highspy.HighsSolution()
        solution.col_value = values.tolist()
        self._highs.setSolution(solution)

    def close(self) -> None:
        """Free the program."""
        self._highs.clear()

    def exclude(self, binaries: Ints) -> None:
        """See :class:`~.linear.Solver`."""
        count = len(binaries)
        columns = binaries.astype(np.int32)
        self._highs.addRow(-self._highspy.kHighsInf, count - 1.0, count, columns, np.ones(count))


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing that C code prints reaches standard output, which may have to be one JSON object.

    HiGHS 1.16 prints its name when it is made, before it can be told not to.
    """
    flush = ctypes.CDLL(None).fflush
    with _redirected:
        flush(None)
        try:
            kept = os.dup(1)
        except OSError:  # closed: nothing can be printed
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 1)
            yield
        finally:
            flush(None)
            os.dup2(kept, 1)
            os.close(kept)
            os.close(nowhere)


_redirected = threading.Lock()


def _highspy() -> Any:
    try:
        import highspy
    except ImportError as error:
        raise UnavailableError(
            "method highs needs highspy, which is not installed; fix: pip install highspy,"
            " or use method pareto"
        ) from error
    return highspy


def _model(highspy: Any, program: LinearProgram) -> Any:
    from scipy.sparse import csc_array

    width, height = len(program.cost), len(program.row_low)
    matrix = csc_array((program.values, (program.rows, program.columns)), shape=(height, width))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = width, height
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = program.cost
    lp.col_lower_, lp.col_upper_ = np.zeros(width), program.upper
    lp.row_lower_, lp.row_upper_ = program.row_low, program.row_high
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = matrix.indptr.astype(np.int32)
    lp.a_matrix_.index_ = matrix.indices.astype(np.int32)
    lp.a_matrix_.value_ = matrix.data
    kinds = highspy.HighsVarType
    lp.integrality_ = [
        kinds.kInteger if column < program.integers else kinds.kContinuous
        for column in range(width)
    ]
    return lp


def prepare(_: Settings) -> None:
    """Import what a decision needs.

    Raises:
        UnavailableError: highspy is not installed.
    """
    _highspy()
    import scipy.sparse  # noqa: F401


stops_in_time(within)(solve)
prepared_by(prepare)(solve)
mixes(HighsSolver)(solve)
