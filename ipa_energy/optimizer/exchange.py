"""Good plans quickly: a plan is mended until it is feasible, then bettered by one or two changes.

A change gives one stage another candidate. Two at once find what one cannot: room that one stage
gives up and another takes, which is what is left to win near a limit.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.optimizer.deadline import Deadline
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.table import Table

_MOST_MENDED = 200
_ROWS = 250_000
"""Most pairs of changes looked at at once: bounds the memory."""


class Exchange:
    """All single changes of a table's choices, one entry each."""

    def __init__(self, table: Table) -> None:
        sizes = [len(gain) for gain in table.gain]
        self._table = table
        self._stage = np.repeat(np.arange(len(sizes)), sizes)
        self._first = np.cumsum([0, *sizes[:-1]])
        self._gain = np.concatenate(table.gain)
        self._factor = None if table.factor is None else np.concatenate(table.factor)
        self._use = [np.concatenate(resource.use) for resource in table.resources]
        self._limits = [resource.limit for resource in table.resources]

    def improved(self, starts: Iterable[Choice], deadline: Deadline) -> list[Choice]:
        """The feasible ends of these starts; fewer when time is up."""
        found = []
        for start in starts:
            at = self._mended(self._first + np.array(start), deadline)
            if at is None:
                continue
            while deadline.left_s > 0:
                better = self._better_pair(at, deadline)
                if better is None:
                    break
                at = better
            choice = tuple((at - self._first).tolist())
            if self._table.fits(choice):
                found.append(choice)
        return found

    def _mended(self, at: Ints, deadline: Deadline) -> Ints | None:
        """A feasible choice near this one, or None."""
        for _ in range(_MOST_MENDED):
            over = float(self._excess(self._used(at)))
            if over <= 0:
                return at
            changed = [
                total - use[at][self._stage] + use
                for use, total in zip(self._use, self._used(at), strict=True)
            ]
            excess = self._excess(changed)
            lost = self._gain[at][self._stage] - self._gain
            fits = np.flatnonzero(excess <= 0)
            if len(fits):
                move = int(fits[np.argmin(lost[fits])])
            else:
                move = int(np.argmin(excess))
                if excess[move] >= over or deadline.left_s <= 0:
                    return None
            at = self._with(at, move)
        return None

    def _used(self, at: Ints) -> list[float]:
        return [float(use[at].sum()) for use in self._use]

    def _excess(self, used: Iterable[Floats | float]) -> Floats:
        """How far sums are beyond the limits, relative to these and added up."""
        total = np.zeros(())
        for one, limit in zip(used, self._limits, strict=True):
            total = total + np.maximum(0.0, one - limit) / (abs(limit) or 1.0)
        return total

    def _with(self, at: Ints, *moves: int) -> Ints:
        at = at.copy()
        for move in moves:
            at[self._stage[move]] = move
        return at

    def _better_pair(self, at: Ints, deadline: Deadline) -> Ints | None:
        """The choice after the best two changes (one of them may be none); None if none helps."""
        now = at[self._stage]
        idle = now == np.arange(len(now))
        gain = self._gain - self._gain[now]
        ratio = None
        if self._factor is not None:
            # A stage that has a factor of 0 takes part in no ratio: its changes count as none.
            known = self._factor[now]
            ratio = np.divide(self._factor, known, out=np.ones(len(now)), where=known > 0)
        room = [limit - total for limit, total in zip(self._limits, self._used(at), strict=True)]
        uses = [use - use[now] for use in self._use]
        product = self._table.scale * self._product(at)
        best, found = 1e-12 * max(1.0, float(np.abs(self._gain[at]).sum())), None
        rows = max(1, _ROWS // len(gain))
        for start in range(0, len(gain), rows):
            if deadline.left_s <= 0:
                break
            block = slice(start, start + rows)
            worth = gain[block, None] + gain
            if ratio is not None:
                worth += product * (ratio[block, None] * ratio - 1.0)
            # Two changes of one stage are none, but one beside "no change" is a single one.
            twice = self._stage[block, None] == self._stage
            worth[twice & ~idle[block, None]] = -np.inf
            for use, left in zip(uses, room, strict=True):
                worth[use[block, None] + use > left] = -np.inf
            top = int(worth.argmax())
            if worth.flat[top] > best:
                best = float(worth.flat[top])
                found = (start + top // len(gain), top % len(gain))
        if found is None:
            return None
        return self._with(at, *sorted(found, key=lambda move: move != now[move]))

    def _product(self, at: Ints) -> float:
        return 0.0 if self._factor is None else float(self._factor[at].prod())
