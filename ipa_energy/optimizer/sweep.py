"""The Pareto front of many points in up to four columns, less being better in each.

Points are visited in lexicographic order, so whatever beats or equals a point comes before it. Two
columns are the order itself and a value; the other two, those with the fewest distinct values, span
a grid whose cell (a, c) holds the least value met so far among points that are no worse than a and
c. A point is beaten if its cell holds no more than its own value, and a point that is not lowers
the cells behind its own. With few accuracies and numbers of cores this takes one look-up a point
and one small array operation a point of the front.

Where the grid would be large its rows and columns are bands of several values. A cell then speaks
for the bands before its own, and the points of the same two bands are compared one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats, Ints

_BLOCK = 512
_LARGEST_GRID = 200_000
"""Cells with a row and a column for each value; beyond, there are bands."""

_BANDS = 400
_UNMET = np.iinfo(np.int32).max


def pareto_points(columns: Sequence[Floats], tie_break: Floats, most: int) -> Ints | None:
    """Indices, ascending, of the points that no other one beats; one of each set of equal ones.

    Args:
        columns: two to four arrays of one length; a point is beaten by another that is at most as
            large in each and smaller in one.
        tie_break: of equal points the one with the least of this stays, of those the first.
        most: None is returned as soon as there are more of them.
    """
    if len(tie_break) == 0:
        return np.arange(0)
    ranked = [np.unique(column, return_inverse=True)[1] for column in columns]
    ranked.sort(key=lambda ranks: -int(ranks.max()))
    order = np.lexsort((tie_break, *reversed(ranked)))
    while len(ranked) < 4:
        ranked.append(np.zeros_like(ranked[0]))
    _, value, row, cell = (ranks[order] for ranks in ranked)
    whole = (int(row.max()) + 1) * (int(cell.max()) + 1) <= _LARGEST_GRID
    grid = _Grid(row, cell) if whole else _BandedGrid(row, cell)
    kept: list[int] = []
    for start in range(0, len(value), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(value)))
        for at in block[grid.unbeaten(block, value)].tolist():
            if grid.add(at, int(value[at])):
                kept.append(at)
        if len(kept) > most:
            return None
    return np.sort(order[kept])


class _Grid:
    """Least value met so far in a cell's row and column and all before."""

    def __init__(self, row: Ints, cell: Ints) -> None:
        self._row, self._cell = row, cell
        self._least = _empty(row, cell)

    def unbeaten(self, points: Ints, value: Ints) -> npt.NDArray[np.bool_]:
        """Which of some points nothing met so far is known to beat."""
        cells = self._least[self._row[points], self._cell[points]]
        return np.asarray(cells > value[points])

    def add(self, at: int, value: int) -> bool:
        """Take the point in, if nothing met so far beats or equals it."""
        row, cell = self._row[at], self._cell[at]
        if self._least[row, cell] <= value:
            return False
        behind = self._least[row:, cell:]
        np.minimum(behind, value, out=behind)
        return True


class _BandedGrid(_Grid):
    """The same with bands: a cell holds the least value of the bands before its own."""

    def __init__(self, row: Ints, cell: Ints) -> None:
        row_band, cell_band = _bands(row), _bands(cell)
        super().__init__(row_band, cell_band)
        self._exact = np.stack([row, cell])
        self._of_rows = [_Met() for _ in range(int(row_band.max()) + 1)]
        self._of_cells = [_Met() for _ in range(int(cell_band.max()) + 1)]

    def add(self, at: int, value: int) -> bool:
        row_band, cell_band = self._row[at], self._cell[at]
        if self._least[row_band, cell_band] <= value:
            return False
        row, cell = self._exact[:, at]
        neighbours = self._of_rows[row_band], self._of_cells[cell_band]
        if any(met.beat(row, cell, value) for met in neighbours):
            return False
        for met in neighbours:
            met.append(row, cell, value)
        behind = self._least[row_band + 1 :, cell_band + 1 :]
        np.minimum(behind, value, out=behind)
        return True


class _Met:
    """Points of the front in one band."""

    def __init__(self) -> None:
        self._points = np.empty((3, 16), dtype=np.int64)
        self._count = 0

    def beat(self, row: int, cell: int, value: int) -> bool:
        """True if one of them is at most as large in all three."""
        rows, cells, values = self._points[:, : self._count]
        return bool(((rows <= row) & (cells <= cell) & (values <= value)).any())

    def append(self, row: int, cell: int, value: int) -> None:
        if self._count == self._points.shape[1]:
            self._points = np.concatenate([self._points, np.empty_like(self._points)], axis=1)
        self._points[:, self._count] = row, cell, value
        self._count += 1


def _empty(row: Ints, cell: Ints) -> npt.NDArray[np.int32]:
    return np.full((int(row.max()) + 1, int(cell.max()) + 1), _UNMET, np.int32)


def _bands(ranks: Ints) -> Ints:
    """The band of each rank: at most :data:`_BANDS`, about as many points in each."""
    distinct = int(ranks.max()) + 1
    if distinct <= _BANDS:
        return ranks
    before = np.cumsum(np.bincount(ranks, minlength=distinct))
    band_of_rank = (before - 1) * _BANDS // len(ranks)
    return np.asarray(band_of_rank[ranks])
