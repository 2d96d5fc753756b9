"""The best mix of a problem, and one to begin with: the best plan of one option a stage.

A solver that knows a good solution closes most branches at once. This one is all in one place and
takes no longer than going over the cutoffs between two stages; it is the optimum wherever mixing
helps nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.energy import ROUNDING_RTOL
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.deadline import Deadline
from ipa_energy.optimizer.linear import LinearProgram
from ipa_energy.optimizer.mixing import Layout, Make, MixProgram
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem
from ipa_energy.records import Part

_ROW_ROOM = 1e-9
"""By which a row may be missed: the solver looks again."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a solver found.

    Attributes:
        parts: what each stage runs; None if nothing was found.
        bound: no mix is worth more; −inf if there is none.
        finished: False if its time was up.
    """

    parts: tuple[tuple[Part, ...], ...] | None
    bound: float
    finished: bool = True


def solve_mixed(make: Make, problem: Problem, deadline: Deadline | None = None) -> Mixed:
    """The best mix of a problem; exact without a deadline, within :data:`SHARE_RTOL`."""
    program = MixProgram(problem)
    objective = program.objective()
    made = program.linear(objective)
    if made is None:
        return Mixed(None, -np.inf)
    solver = make(with_start(program, made, Layout(program), objective))
    try:
        if deadline is None:
            values = solver.best()
            bound, finished = np.inf, True
        else:
            answer = solver.best_within(deadline.left_s, None)
            values, bound, finished = answer.values, answer.bound, answer.finished
    finally:
        solver.close()
    if values is None:
        found = Mixed(None, -np.inf if finished else np.inf, finished)
        return found if finished else _or_alone(problem, found, -np.inf)
    solution = np.asarray(values)
    worth = made.worth(float(made.cost @ solution))
    if finished:
        return Mixed(program.parts(solution), worth)
    found = Mixed(program.parts(solution), max(worth, made.worth(bound)), finished)
    return _or_alone(problem, found, worth)


_ALONE_S = 0.3
"""For the best plan with one option a stage, to begin with or where the time for mixes was up."""


def _or_alone(problem: Problem, found: Mixed, worth: float) -> Mixed:
    """What was found in time, or the best plan with one option a stage if that is worth more."""
    settings = problem.settings
    sites = any(option.allocation.site for s in problem.stages for option in s.stage.options)
    if settings.gpus or settings.request_classes or sites:
        return found
    alone, choice = _best_alone(problem)
    if choice is None or alone.worth(choice) <= worth:
        return found
    plan = build_plan(alone, choice)
    parts = tuple(stage.parts for stage in plan.stages)
    return Mixed(parts, max(found.bound, plan.objective), finished=False)


def _best_alone(problem: Problem) -> tuple[Problem, Choice | None]:
    """The problem without mixing, and its best plan found in :data:`_ALONE_S`; None: none."""
    alone = problem.under(replace(problem.settings, mix=False))
    if alone.is_empty():
        return alone, None
    choices = pareto.within(alone, 1, Deadline.after(_ALONE_S)).choices
    return alone, choices[0] if choices else None


def with_start(
    mix: MixProgram, made: LinearProgram, at: Layout, objective: tuple[Floats, Floats, Floats]
) -> LinearProgram:
    """The program with a solution to begin with, if one of the simple ones is feasible."""
    if len(mix.classes) > 1 or mix.pools:
        return made
    if mix.levels_s:
        return _with_plan(mix, made, at)
    if len(mix.stages) > 2:
        return made
    counts = _replicas(mix)
    replica, share, use = objective
    worth = share[:, 0] + counts * replica + use
    worth[counts > made.upper[at.n]] = -np.inf
    starts = sorted(_starts(mix, worth), key=lambda start: -float(worth[list(start[0])].sum()))
    for uses, path, cutoff in starts:
        values = np.zeros(at.width)
        chosen = list(uses)
        values[at.z[chosen]] = values[at.x[chosen, 0]] = 1.0
        values[at.n[chosen]] = counts[chosen]
        for other, cutoffs in at.cutoffs.items():
            values[cutoffs[cutoff if other == path else 0]] = 1.0
        if path in at.parts:
            values[at.parts[path][cutoff]] = 1.0
        if _fits(made, values):
            return replace(made, start=values)
    return made


def _with_plan(mix: MixProgram, made: LinearProgram, at: Layout) -> LinearProgram:
    """The program with the best plan of one option a stage, where the stages share an SLA."""
    if len(mix.paths) > 1:
        return made
    alone, best = _best_alone(mix.problem)
    if best is None:
        return made
    values, delays_s = np.zeros(at.width), mix.delays_s()[:, 0]
    for s, (candidates, choice) in enumerate(zip(alone.stages, best, strict=True)):
        index, count = candidates.option_index[choice], int(candidates.replicas[choice])
        same = [
            u
            for u, use in enumerate(mix.uses)
            if (use.stage, use.option_index) == (s, index) and use.least <= count <= use.most
        ]
        if not same:
            return made
        u = min(same, key=lambda u: float(delays_s[u]))
        values[at.z[u]] = values[at.x[u, 0]] = 1.0
        values[at.n[u]] = count
        if (s, 0) in mix.levels_s:
            values[at.levels[s, 0][int(np.searchsorted(mix.levels_s[s, 0], delays_s[u]))]] = 1.0
    return replace(made, start=values) if _fits(made, values) else made


def _replicas(mix: MixProgram) -> Floats:
    """(U,) with which a use carries all requests of its stage."""
    found = []
    for u, use in enumerate(mix.uses):
        fixed = mix.problem.rules[use.stage].replicas
        need = np.ceil(float(mix.per_share(u)[0]) * (1 - ROUNDING_RTOL))
        found.append(float(max(use.least, need) if fixed is None else use.most))
    return np.array(found)


def _starts(mix: MixProgram, worth: Floats) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """The best use of each stage, at each place and within each cutoff: (uses, path, cutoff)."""
    delays_s = mix.delays_s()[:, 0]
    for path, (_, site) in enumerate(mix.paths):
        there = mix.serves[:, 0] & mix.at_site(site) & np.isfinite(worth)
        for cutoff, limits_s in enumerate(mix.limits_s(path)):
            uses = []
            for stage, limit_s in enumerate(limits_s):
                mine = np.flatnonzero(there & (mix.stage_of == stage) & (delays_s <= limit_s))
                uses += [int(mine[worth[mine].argmax()])] if len(mine) else []
            if len(uses) == len(mix.stages):
                yield tuple(uses), path, cutoff


def _fits(made: LinearProgram, values: Floats) -> bool:
    found = np.bincount(made.rows, made.values * values[made.columns], len(made.row_low))
    above = found >= made.row_low - _ROW_ROOM
    return bool((above & (found <= made.row_high + _ROW_ROOM)).all())
