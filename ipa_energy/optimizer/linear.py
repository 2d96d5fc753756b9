r"""The program as a mixed-integer linear one, for solvers that take matrices.

One binary x a candidate; a row a stage (exactly one candidate) and a row an SLA. GPUs to be cut
(:mod:`.pools`) add an integer y a partition, a row a kind of slice and one a pool. A product of
accuracies is linear too, without logarithms and with zeros: let :math:`z_{sv}` be the product over
the stages before *s* if stage *s* has accuracy *v*, else 0. Then, with accuracies scaled to at most
1 and :math:`L_s` the least product before *s*,

.. math::

    Σ_v z_{1v} = 1, \quad Σ_v z_{s+1,v} = Σ_v v·z_{sv}, \quad
    L_s Σ_{o: a_o = v} x_{so} ≤ z_{sv} ≤ Σ_{o: a_o = v} x_{so}

and the product is :math:`Σ_v v·z_{Sv}`.

Solvers work to tolerances and this package promises exact constraints, so SLAs are written as what
is used *above the least possible*, scaled to 1000, with a little slack on the right. What comes
back is checked with :func:`~.problem.within`; a choice that fails is excluded by a cut and the
solver asked again. Excluding the last answer is also how the K best are found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats, Ints
from ipa_energy.optimizer.deadline import Bounded, Deadline
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.pools import SliceUse
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.table import Exchange, Resource, Table

SCALE = 1000.0
"""Largest coefficient of an SLA row and of the objective: a tolerance of 1e-9 is 1e-12 of it."""

_MENDING_SHARE = 0.2
"""Of the time that is left, for mending an answer that breaks a limit by less than the slack."""

BOUND_ROOM = 1e-6
"""Added to a solver's scaled bound: a billionth of the largest coefficient."""

SLACK = 1e-6
"""Added to the right of an SLA row. Gurobi's presolve was seen to call a program infeasible whose
plan met a row with less room than that. The few plans it lets in are caught by the check."""


_ROW_ROOM = 1e-9
"""By which values may miss a row that a solver starts with: it looks again."""


@dataclass(frozen=True, slots=True)
class LinearProgram:
    """Maximise ``cost·v`` with ``row_low ≤ A v ≤ row_high``, ``0 ≤ v ≤ upper``, the first binary.

    Attributes:
        cost: (V,) objective, scaled; constants that all choices share are left out.
        rows, columns, values: A as triplets.
        row_low, row_high: (R,) bounds of the rows, infinite where there is none.
        binaries: how many of the first variables are binary.
        integers: how many of the first are whole numbers, the binaries among them.
        upper: (V,) upper bounds.
        stage: (binaries,) stage of each binary.
        candidate: (binaries,) its position in ``problem.stages[stage]``.
        scale: what the objective was multiplied by, so that its largest entry is :data:`SCALE`.
        constant: what was left out, unscaled.
        start: values to begin with; None: none are known.
        is_delicate: HiGHS's presolve and least tolerance miss optima of programs like it.
    """

    cost: Floats
    rows: Ints
    columns: Ints
    values: Floats
    row_low: Floats
    row_high: Floats
    binaries: int
    integers: int
    upper: Floats
    stage: Ints
    candidate: Ints
    scale: float
    constant: float
    start: Floats | None = None
    is_delicate: bool = False

    def worth(self, value: float) -> float:
        """The objective that a value of ``cost·v`` stands for."""
        return value / self.scale + self.constant

    def fits(self, values: Floats) -> bool:
        """True if values meet every row, but for what a solver would look at again."""
        found = np.bincount(self.rows, self.values * values[self.columns], len(self.row_low))
        above = found >= self.row_low - _ROW_ROOM
        return bool((above & (found <= self.row_high + _ROW_ROOM)).all())

    def with_integers(self, values: Floats) -> LinearProgram:
        """What is left to choose if the whole numbers are those of some values."""
        known, first = self.columns < self.integers, self.integers
        used = np.bincount(
            self.rows[known],
            self.values[known] * values[self.columns[known]],
            len(self.row_low),
        )
        return replace(
            self,
            cost=self.cost[first:],
            rows=self.rows[~known],
            columns=self.columns[~known] - first,
            values=self.values[~known],
            row_low=self.row_low - used,
            row_high=self.row_high - used,
            binaries=0,
            integers=0,
            upper=self.upper[first:],
            start=None,
        )

    def binaries_of(self, choice: Choice) -> Ints:
        """The binaries of a choice; fewer than stages if the program left one of them out."""
        found = [
            np.flatnonzero((self.stage == stage) & (self.candidate == at))
            for stage, at in enumerate(choice)
        ]
        return np.concatenate(found)

    def choice(self, solution: npt.ArrayLike) -> tuple[Choice, Ints]:
        """The choice in a solver's values, and the binaries that are 1."""
        chosen = np.flatnonzero(np.asarray(solution)[: self.binaries] > 0.5)
        return tuple(self.candidate[chosen].tolist()), chosen


class Solver(Protocol):
    """A solver that holds one program and can be asked again."""

    def best(self) -> npt.ArrayLike | None:
        """Values of an optimal solution; None if there is none."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...

    def exclude(self, binaries: Ints) -> None:
        """Forbid that all of these be 1 together."""
        ...

    def best_within(self, seconds: float, start: Ints | None) -> TimedAnswer:
        """The best values found in so many seconds, beginning with ``start``, binaries of 1."""
        ...


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """What a solver had when it stopped.

    Attributes:
        values: of the variables; None if none were found.
        bound: no values are worth more, scaled; −inf if there are none at all.
        finished: False if its time was up.
    """

    values: npt.ArrayLike | None
    bound: float
    finished: bool


def bounded(
    make: Callable[[LinearProgram], Solver],
    problem: Problem,
    deadline: Deadline,
    start: Choice | None = None,
) -> Bounded:
    """The best choice that a solver finds until the deadline, and a bound on all.

    Args:
        make: the solver of a program.
        problem: what to solve.
        deadline: when to stop.
        start: a choice to begin with.
    """
    made = linear_program(problem)
    if made is None:
        return Bounded([], -math.inf)
    program, table = made
    binaries = None if start is None else program.binaries_of(start)
    solver = make(program)
    try:
        return _bounded(solver, program, table, deadline, binaries)
    finally:
        solver.close()


def _bounded(
    solver: Solver, program: LinearProgram, table: Table, deadline: Deadline, start: Ints | None
) -> Bounded:
    bound = math.inf
    mended: list[Choice] = []
    while deadline.left_s > 0:
        answer = solver.best_within(deadline.left_s, start)
        # Rows have slack and the solver a tolerance: what it says it cannot beat is not exact.
        scaled = answer.bound + BOUND_ROOM
        bound = min(bound, program.worth(scaled) if math.isfinite(scaled) else scaled)
        if answer.values is None:
            break
        choice, chosen = program.choice(answer.values)
        if table.fits(choice):
            worth = table.worth(choice)
            return Bounded([choice], worth if answer.finished else max(bound, worth))
        # Within the slack and beyond the limit: a choice near it may do.
        mended += Exchange(table).improved([choice], deadline.share(_MENDING_SHARE))
        if not answer.finished:
            break
        solver.exclude(chosen)
    best = sorted(dict.fromkeys(mended), key=table.worth, reverse=True)[:1]
    return Bounded(best, max([bound, *map(table.worth, best)]))


def best_choices(solver: Solver, program: LinearProgram, table: Table, top_k: int) -> list[Choice]:
    """The ``top_k`` best choices that respect the SLAs to the last bit, best first."""
    found: list[Choice] = []
    while len(found) < top_k:
        solution = solver.best()
        if solution is None:
            break
        choice, binaries = program.choice(solution)
        if table.fits(choice):
            found.append(choice)
        if len(found) < top_k:
            solver.exclude(binaries)
    return sorted(found, key=table.worth, reverse=True)


def linear_program(problem: Problem) -> tuple[LinearProgram, Table] | None:
    """The program and its table; None if it is plainly infeasible."""
    if problem.is_empty():
        return None
    table = Table.of(problem)
    if table.is_hopeless:
        return None
    kept = _affordable(table)
    if any(len(index) == 0 for index in kept):
        return None
    fitting = table.select(kept)
    sizes = [len(gain) for gain in fitting.gain]
    stage = np.repeat(np.arange(len(sizes)), sizes)
    matrix = _Matrix(sum(sizes))
    matrix.add_stages(stage)
    for resource in fitting.resources:
        matrix.add_resource(resource)
    gain = np.concatenate([gain - gain.max() for gain in fitting.gain])
    for pool in fitting.pools:
        matrix.add_pool(pool)
    cost = [gain, np.zeros(matrix.width - len(gain))]
    integers = matrix.width
    if fitting.factor is not None:
        cost.append(matrix.add_product(fitting.factor, stage) * fitting.scale)
    program = matrix.program(
        np.concatenate(cost),
        np.concatenate([*matrix.upper, np.ones(sum(map(len, cost)) - integers)]),
        binaries=sum(sizes),
        integers=integers,
        choices=(stage, np.concatenate(fitting.index)),
        constant=sum(float(gain.max()) for gain in fitting.gain),
    )
    return program, table


def _affordable(table: Table) -> list[Ints]:
    """Per stage, the candidates that fit every SLA if all other stages use the least."""
    kept = []
    for stage in range(len(table)):
        fits = np.ones(len(table.gain[stage]), dtype=bool)
        for resource in table.resources:
            use = resource.use[stage]
            fits &= use - use.min() <= _room(resource)
        kept.append(np.flatnonzero(fits))
    return kept


def _room(resource: Resource) -> float:
    """What is left of a resource when every stage uses the least; some rounding is granted."""
    least = float(resource.suffix(np.minimum)[0])
    return resource.loose_limit - least + 1e-14 * (abs(resource.limit) + abs(least))


class Rows:
    """Rows under construction."""

    def __init__(self) -> None:
        self._rows: list[Ints] = []
        self._columns: list[Ints] = []
        self._values: list[Floats] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def add(self, columns: npt.ArrayLike, values: npt.ArrayLike, low: float, high: float) -> None:
        """A row: between two limits, the sum of these values times these columns."""
        columns = np.asarray(columns, dtype=np.intp)
        self._rows.append(np.full(len(columns), len(self._low)))
        self._columns.append(columns)
        self._values.append(np.asarray(values, dtype=np.float64))
        self._low.append(low)
        self._high.append(high)

    def program(
        self,
        objective: Floats,
        upper: Floats,
        *,
        binaries: int,
        integers: int,
        choices: tuple[Ints, Ints] | None = None,
        constant: float = 0.0,
    ) -> LinearProgram:
        """All of them, with an objective; ``choices`` are stage and candidate of each binary."""
        largest = float(np.abs(objective).max())
        scale = SCALE / largest if largest > 0 else 1.0
        none = np.zeros(0, dtype=np.intp)
        stage, candidate = choices or (none, none)
        return LinearProgram(
            cost=objective * scale,
            rows=np.concatenate(self._rows),
            columns=np.concatenate(self._columns),
            values=np.concatenate(self._values),
            row_low=np.array(self._low),
            row_high=np.array(self._high),
            binaries=binaries,
            integers=integers,
            upper=upper,
            stage=stage,
            candidate=candidate,
            scale=scale,
            constant=constant,
        )


class _Matrix(Rows):
    """Those of the choices of one candidate a stage."""

    def __init__(self, binaries: int) -> None:
        super().__init__()
        self.upper = [np.ones(binaries)]
        self.width = binaries
        self._binaries = np.arange(binaries)

    def add_stages(self, stage: Ints) -> None:
        """Equation (1): one candidate a stage."""
        for number in range(int(stage[-1]) + 1):
            mine = self._binaries[stage == number]
            self.add(mine, np.ones(len(mine)), 1.0, 1.0)

    def add_resource(self, resource: Resource) -> None:
        """Equation (4) or (5), above the least use."""
        excess = np.concatenate([use - use.min() for use in resource.use])
        scale = SCALE / float(excess.max()) if excess.any() else 1.0
        coefficients = np.where(excess * scale < SLACK, 0.0, excess * scale)
        self.add(self._binaries, coefficients, -np.inf, scale * _room(resource) + SLACK)

    def add_pool(self, slices: SliceUse) -> None:
        """Constraint (6') of :mod:`.pools`, with its y; before any variable that is not whole."""
        pool = slices.pool
        cuts = self.width + np.arange(len(pool.partitions))
        self.width += len(cuts)
        self.upper.append(np.full(len(cuts), float(pool.gpus)))
        for name, columns in zip(pool.slices, slices.use, strict=True):
            made = np.array([-float(part.count(name)) for part in pool.partitions])
            values = np.concatenate([*columns, made])
            self.add(np.append(self._binaries, cuts), values, -np.inf, 0.0)
        self.add(cuts, np.ones(len(cuts)), -np.inf, float(pool.gpus))

    def add_product(self, factors: tuple[Floats, ...], stage: Ints) -> Floats:
        """The z variables and their rows; returns their objective, for a scale of 1."""
        greatest = [float(factor.max()) or 1.0 for factor in factors]
        least, weight = 1.0, float(np.prod(greatest))
        before: tuple[Ints, Floats] | None = None
        cost = []
        for number, factor in enumerate(factors):
            level, which = np.unique(factor / greatest[number], return_inverse=True)
            z = self.width + np.arange(len(level))
            self.width += len(level)
            if before is None:
                self.add(z, np.ones(len(z)), 1.0, 1.0)
            else:
                columns, values = before
                self.add(np.append(z, columns), np.append(np.ones(len(z)), -values), 0.0, 0.0)
            x = self._binaries[stage == number]
            for position in range(len(level)):
                group = x[which == position]
                columns = np.append(z[position], group)
                self.add(columns, np.append(1.0, np.full(len(group), -1.0)), -np.inf, 0.0)
                self.add(columns, np.append(1.0, np.full(len(group), -least)), 0.0, np.inf)
            before = (z, level)
            least *= float(level[0])
            last = number == len(factors) - 1
            cost.append(weight * level if last else np.zeros(len(level)))
        return np.concatenate(cost)
