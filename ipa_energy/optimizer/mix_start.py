"""A mix to begin with: the best plan of one option a stage, all of it in one place.

A solver that knows a good solution closes most branches at once. This one takes no longer than
going over the cutoffs between two stages, and is the optimum wherever mixing helps nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.energy import ROUNDING_RTOL
from ipa_energy.optimizer.linear import LinearProgram

if TYPE_CHECKING:
    from ipa_energy.optimizer.mixing import Layout, MixProgram

_ROW_ROOM = 1e-9
"""By which a row may be missed: the solver looks again."""


def with_start(
    mix: MixProgram, made: LinearProgram, at: Layout, objective: tuple[Floats, Floats, Floats]
) -> LinearProgram:
    """The program with a solution to begin with, if one of the simple ones is feasible."""
    if len(mix.classes) > 1 or len(mix.stages) > 2 or mix.pools or mix.levels_s:
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
