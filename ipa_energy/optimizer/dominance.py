"""Which of many entries are worth keeping when more is better in every column.

An entry is *dominated* by an earlier one (in a fixed order) that is at least as good in every
column. Whoever wants the K best of something may drop an entry with K dominators: whatever can be
made of it, K others make as much. Dominance is transitive, so those K can be found among the kept.

Points of fronts and their hypervolumes, of which less is better, are the work of moocore, which is
called from here only. It is no help to the solvers: they need K dominators, on few entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipa_energy.arrays import Floats, Ints, Mask

_BLOCK = 128
_PAIRWISE = 160
_EARLIER = np.triu(np.ones((_PAIRWISE, _PAIRWISE), dtype=bool), 1)
"""Row before column, for as many entries as are ever compared with themselves."""


def undominated(columns: Sequence[Floats], keep: int, order: Ints | None = None) -> Ints:
    """Indices of the entries with fewer than ``keep`` dominators, in a good-first order.

    Args:
        columns: one or more arrays of one length N; larger is better in each.
        keep: K, the number of best results wanted.
        order: (N,) the order of the entries in which dominators are looked for, likely dominators
            first; default by the sum of the columns over their ranges. Any order is correct; a bad
            one keeps entries that could have gone.
    """
    if order is None:
        order = _good_first(columns)
    if len(order) <= keep:
        return order
    if len(columns) == 1:
        return _largest(columns[0], keep)
    if len(order) <= _PAIRWISE:
        return order[_dominators(columns, order, order, triangular=True) < keep]
    if len(columns) == 2:
        return _staircases(columns[0], columns[1], keep)
    return _filtered([_ranks(column) for column in columns], order, keep)


def _good_first(columns: Sequence[Floats]) -> Ints:
    if len(columns) == 1:
        return np.argsort(-columns[0])
    total = np.zeros(len(columns[0]))
    for column in columns:
        span = float(np.ptp(column)) if len(column) else 0.0
        if span > 0:
            total -= column / span
    return np.argsort(total, kind="stable")


def _largest(column: Floats, keep: int) -> Ints:
    found = np.argpartition(-column, keep - 1)[:keep]
    return found[np.argsort(-column[found])]


def _dominators(
    columns: Sequence[np.ndarray], above: Ints, below: Ints, *, triangular: bool
) -> Ints:
    """How many entries of ``above`` are at least as good as each of ``below``."""
    at_least = columns[0][above][:, None] >= columns[0][below]
    for column in columns[1:]:
        at_least &= column[above][:, None] >= column[below]
    if triangular:
        at_least &= _EARLIER[: len(above), : len(below)]
    return np.asarray(np.count_nonzero(at_least, axis=0), dtype=np.intp)


def _staircases(first: Floats, second: Floats, keep: int) -> Ints:
    """Two columns: ``keep`` times the staircase of what is left, by a running maximum."""
    remaining = np.lexsort((-second, -first))
    kept = []
    for _ in range(keep):
        height = second[remaining]
        highest_before = np.maximum.accumulate(height)
        on_stairs = np.empty(len(height), dtype=bool)
        on_stairs[0] = True
        on_stairs[1:] = height[1:] > highest_before[:-1]
        kept.append(remaining[on_stairs])
        remaining = remaining[~on_stairs]
        if not len(remaining):
            break
    return np.concatenate(kept)


def _ranks(column: Floats) -> np.ndarray:
    """Dense ranks, equal where the values are equal: small integers compare faster than floats."""
    order = np.argsort(column)
    ordered = column[order]
    rank = np.zeros(len(column), dtype=np.uint16 if len(column) < 2**16 else np.uint32)
    rank[order[1:]] = np.cumsum(ordered[1:] > ordered[:-1])
    return rank


def _filtered(columns: Sequence[np.ndarray], order: Ints, keep: int) -> Ints:
    """Take a block of the best, drop what it dominates, repeat on the rest."""
    columns = [column[order] for column in columns]
    position = np.arange(len(order))
    found = np.zeros(len(order), dtype=np.intp)  # dominators found so far
    kept = []
    while len(position):
        block = np.arange(min(_BLOCK, len(position)))
        counts = found[block] + _dominators(columns, block, block, triangular=True)
        good = block[counts < keep]
        kept.append(position[good])
        rest = np.arange(len(block), len(position))
        found = found[rest] + _dominators(columns, good, rest, triangular=False)
        stay = found < keep
        rest, found = rest[stay], found[stay]
        position = position[rest]
        columns = [column[rest] for column in columns]
    return order[np.concatenate(kept)]


def pareto_points(columns: Sequence[Floats], tie_break: Floats, most: int) -> Ints | None:
    """Indices, ascending, of the points that no other one beats; one of each set of equal ones.

    Args:
        columns: arrays of one length; a point is beaten by another that is at most as large in
            each and smaller in one.
        tie_break: of equal points the one with the least of this stays, of those the first.
        most: None is returned if there are more of them.
    """
    if len(tie_break) == 0:
        return np.arange(0)
    from moocore import is_nondominated

    order = np.argsort(tie_break, kind="stable")
    points = np.stack(columns, axis=1)[order]
    kept = order[is_nondominated(points, keep_weakly=False)]
    return None if len(kept) > most else np.sort(kept)


def unbeaten(losses: Floats) -> Mask:
    """Of each row whether no other is at most as large in every column and smaller in one.

    Equal rows are unbeaten all or none; a row with a NaN never is.
    """
    from moocore import is_nondominated

    found: Mask = np.asarray(~np.isnan(losses).any(axis=1))
    if found.any():
        found[found] = is_nondominated(losses[found], keep_weakly=True)
    return found


def hypervolume(losses: Floats, reference: float) -> float:
    """Volume of what the rows beat, up to ``reference`` in every column."""
    import moocore

    return float(moocore.hypervolume(losses, ref=np.full(losses.shape[1], reference)))
