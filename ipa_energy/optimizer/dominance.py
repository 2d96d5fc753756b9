"""Which of many entries are worth keeping when more is better in every column.

An entry is *dominated* by an earlier one (in a fixed order) that is at least as good in every
column. Whoever wants the K best of something may drop an entry with K dominators: whatever can be
made of it, K others make as much. Dominance is transitive, so those K can be found among the kept.

Whoever also wants what *ties* with the K best asks for a margin by which a dominator has to be
better in the columns that count for the result: an entry that K others beat by it cannot tie.

Points of fronts and their hypervolumes, of which less is better, are the work of moocore, which is
called from here only. It is no help to the solvers: they need K dominators, on few entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ipa_energy.arrays import Floats, Ints, Mask

_BLOCK = 128
_PAIRWISE = 160
_EARLIER = np.triu(np.ones((_PAIRWISE, _PAIRWISE), dtype=bool), 1)
"""Row before column, for as many entries as are ever compared with themselves."""


def undominated(
    columns: Sequence[Floats],
    keep: int,
    order: Ints | None = None,
    *,
    margin: float = 0.0,
    counting: int = 1,
    enough: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Ints:
    """Indices of the entries with fewer than ``keep`` dominators, in a good-first order.

    Args:
        columns: one or more arrays of one length N; larger is better in each.
        keep: K, the number of best results wanted.
        order: (N,) the order of the entries in which dominators are looked for, likely dominators
            first; default by the sum of the columns over their ranges. Any order is correct; a bad
            one keeps entries that could have gone.
        margin: by how much a dominator has to be better in the counting columns.
        counting: how many columns, the first, these are.
        enough: later ones may be missing once there are more than so many.
        tick: called now and then; it may raise.
    """
    if order is None:
        order = _good_first(columns)
    if len(order) <= keep:
        return order
    if len(columns) == 1:
        return _largest(columns[0], keep, margin)
    asked = columns
    if margin:
        asked = [*(column + margin for column in columns[:counting]), *columns[counting:]]
    if len(order) <= _PAIRWISE:
        return order[_dominators(columns, asked, order, order, triangular=True) < keep]
    if len(columns) == 2:
        return _staircases(columns, asked, keep)
    offers = [_ranks(column) for column in columns]
    asks = offers
    if margin:
        raised = zip(columns[:counting], offers, strict=False)
        asks = [_raised(column, rank, margin) for column, rank in raised] + offers[counting:]
    most = len(order) if enough is None else enough
    return _filtered(offers, asks, order, keep, enough=most, tick=tick)


def _good_first(columns: Sequence[Floats]) -> Ints:
    if len(columns) == 1:
        return np.argsort(-columns[0])
    total = np.zeros(len(columns[0]))
    for column in columns:
        span = float(np.ptp(column)) if len(column) else 0.0
        if span > 0:
            total -= column / span
    return np.argsort(total, kind="stable")


def _largest(column: Floats, keep: int, margin: float) -> Ints:
    found = np.argpartition(-column, keep - 1)[:keep]
    if margin:
        found = np.flatnonzero(column > column[found[keep - 1]] - margin)
    return found[np.argsort(-column[found])]


def _dominators(
    offers: Sequence[np.ndarray],
    asks: Sequence[np.ndarray],
    above: Ints,
    below: Ints,
    *,
    triangular: bool,
) -> Ints:
    """How many entries of ``above`` offer at least what each of ``below`` asks of a dominator."""
    at_least = offers[0][above][:, None] >= asks[0][below]
    for offer, ask in zip(offers[1:], asks[1:], strict=True):
        at_least &= offer[above][:, None] >= ask[below]
    if triangular:
        at_least &= _EARLIER[: len(above), : len(below)]
    return np.asarray(np.count_nonzero(at_least, axis=0), dtype=np.intp)


def _staircases(offers: Sequence[Floats], asks: Sequence[Floats], keep: int) -> Ints:
    """Two columns: ``keep`` times the staircase of what is left, by a running maximum."""
    first, second = offers
    remaining = np.lexsort((-second, -first))
    kept = []
    for _ in range(keep):
        highest = np.append(-np.inf, np.maximum.accumulate(second[remaining]))
        before = np.arange(len(remaining))
        if asks is not offers:
            before = np.searchsorted(-first[remaining], -asks[0][remaining], side="right")
        on_stairs = asks[1][remaining] > highest[before]
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


def _raised(column: Floats, rank: np.ndarray, margin: float) -> np.ndarray:
    """The least rank of values that are greater by ``margin``, one beyond the last if none is."""
    levels = np.empty(int(rank.max()) + 1)
    levels[rank] = column
    raised: np.ndarray = np.searchsorted(levels, levels + margin).astype(rank.dtype)[rank]
    return raised


def _filtered(
    offers: Sequence[np.ndarray],
    asks: Sequence[np.ndarray],
    order: Ints,
    keep: int,
    *,
    enough: int,
    tick: Callable[[], None],
) -> Ints:
    """Take a block of the best, drop what it dominates, repeat on the rest."""
    offers = [offer[order] for offer in offers]
    asks = [ask[order] for ask in asks]
    position = np.arange(len(order))
    found = np.zeros(len(order), dtype=np.intp)  # dominators found so far
    kept = []
    while len(position) and enough >= 0:
        tick()
        block = np.arange(min(_BLOCK, len(position)))
        counts = found[block] + _dominators(offers, asks, block, block, triangular=True)
        good = block[counts < keep]
        kept.append(position[good])
        enough -= len(good)
        rest = np.arange(len(block), len(position))
        found = found[rest] + _dominators(offers, asks, good, rest, triangular=False)
        stay = found < keep
        rest, found = rest[stay], found[stay]
        position = position[rest]
        offers = [offer[rest] for offer in offers]
        asks = [ask[rest] for ask in asks]
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
