"""The best mix of a problem; a good one is looked for before, and what no better one has left out.

A solver that knows a good solution closes most branches at once, and the fewer uses there are the
sooner (:mod:`.mix_start`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.optimizer.deadline import Deadline
from ipa_energy.optimizer.linear import LinearProgram
from ipa_energy.optimizer.mix_start import Beginning, Stretch
from ipa_energy.optimizer.mixing import Layout, Make, MixProgram
from ipa_energy.optimizer.problem import Problem
from ipa_energy.records import Part


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
    made = _begun(program, make)
    if made is None:
        return Mixed(None, -np.inf)
    solver = make(made)
    try:
        if deadline is None:
            values = solver.best()
            bound, finished = np.inf, True
        else:
            answer = solver.best_within(deadline.left_s, None)
            values, bound, finished = answer.values, answer.bound, answer.finished
    finally:
        solver.close()
    found = [np.asarray(each) for each in (values, made.start) if each is not None]
    if not found or (finished and values is None):
        return Mixed(None, -np.inf if finished else np.inf, finished)
    solution = max(found, key=lambda each: float(made.cost @ each)) if not finished else found[0]
    worth = made.worth(float(made.cost @ solution))
    bound = worth if finished else max(worth, made.worth(bound))
    return Mixed(program.parts(solution), bound, finished)


def _begun(mix: MixProgram, make: Make) -> LinearProgram | None:
    """The program with a good mix to begin with, where one is found; None: plainly infeasible."""
    made = mix.linear(mix.objective())
    if made is None or len(mix.classes) > 1 or mix.pools:
        return made
    best, start = -np.inf, None
    for path, (_, site) in enumerate(mix.paths):
        beginning = Beginning(mix, site)
        for one in beginning.starts():
            values = _bettered(mix, made, one, path, make)
            if values is not None and made.cost @ values > best:
                best, start = float(made.cost @ values), values
    if start is None or len(mix.paths) > 1:
        return replace(made, start=start)
    at, kept = Layout(mix), beginning.contenders(made.worth(best))
    used = np.flatnonzero(start[at.z] > 0.5)
    kept = np.union1d(kept, used)
    if len(kept) == len(mix.uses):
        return replace(made, start=start)
    same = [
        (int(np.searchsorted(kept, u)), int(start[at.n[u]]), float(start[at.x[u, 0]])) for u in used
    ]
    mix.narrow(kept)
    made = mix.linear(mix.objective())
    if made is None:
        return None
    values = _values(mix, same, 0)
    return replace(made, start=values if made.fits(values) else None)


def _bettered(
    mix: MixProgram, made: LinearProgram, parts: Sequence[Stretch], path: int, make: Make
) -> Floats | None:
    """The values of a mix with the best shares that its replicas allow; None: it does not fit."""
    values = _values(mix, parts, path)
    if not made.fits(values):
        return None
    if len(parts) == len(mix.stages):
        return values
    solver = make(made.with_integers(values))
    try:
        found = solver.best()
    finally:
        solver.close()
    if found is None:
        return values
    values[made.integers :] = np.asarray(found)
    return values if made.fits(values) else None


def _values(mix: MixProgram, parts: Sequence[Stretch], path: int) -> Floats:
    """The values of a mix at one place."""
    at, delays_s = Layout(mix), mix.delays_s()[:, 0]
    values = np.zeros(at.width)
    longest_s = np.zeros(len(mix.stages))
    for u, count, share in parts:
        values[at.z[u]], values[at.n[u]], values[at.x[u, 0]] = 1.0, count, share
        stage = mix.uses[u].stage
        longest_s[stage] = max(longest_s[stage], delays_s[u])
    for (s, p), levels_s in mix.levels_s.items():
        level = int(np.searchsorted(levels_s, longest_s[s])) if p == path else 0
        values[at.levels[s, p][level]] = 1.0
    for p, cutoffs_s in mix.cutoffs_s.items():
        chosen = min(int(np.searchsorted(cutoffs_s, longest_s[0])), len(cutoffs_s) - 1)
        values[at.cutoffs[p][chosen if p == path else 0]] = 1.0
        if p == path and p in at.parts:
            values[at.parts[p][chosen]] = 1.0
    return values
