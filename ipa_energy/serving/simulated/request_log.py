"""Every request's times, written by the batch and turned into arrays by the window.

The simulation notes "these ids started now" with a few list operations a batch; only when a window
closes are the notes spread over a table with one row a request, from which the rows of those that
left go out. Requests still inside stay, so the table is as long as the pipeline is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Counts, Floats
from ipa_energy.serving.served import Requests

Moment = Literal["queued", "started", "served"]
MOMENTS: tuple[Moment, ...] = ("queued", "started", "served")
Cell = TypeVar("Cell", bound=np.generic)


@dataclass(slots=True)
class Notes:
    """Groups of ids, each with one time."""

    ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], time_s: float) -> None:
        """Note that something happened to ``ids`` at ``time_s``."""
        self.ids.extend(ids)
        self.times_s.append(time_s)
        self.sizes.append(len(ids))

    def flush(self) -> tuple[Counts, Floats]:
        """(ids, their times) in order of noting; forgets them."""
        ids = np.array(self.ids, dtype=np.int64)
        times_s = np.repeat(np.array(self.times_s, dtype=np.float64), self.sizes)
        self.ids, self.times_s, self.sizes = [], [], []
        return ids, times_s


class NoNotes(Notes):
    """Where nobody asks."""

    def add(self, ids: Sequence[int], time_s: float) -> None:
        """Forget it."""


class RequestLog:
    """Times of all requests inside a pipeline of ``stages`` stages.

    Without ``moments`` those of sending and leaving alone; the others are NaN.

    The table's rows ``_oldest`` to ``_end`` hold the requests from the oldest that is still inside
    to the latest; the row of a request is its id plus ``_shift``.

    Attributes:
        notes: per moment and stage, what happened since the last close. A request noted twice
            (its sub-requests) keeps the earliest start.
        in_flight: requests sent that have not left.
    """

    def __init__(self, stages: int, *, moments: bool = True) -> None:
        kind = Notes if moments else NoNotes
        self.notes: dict[Moment, tuple[Notes, ...]] = {
            moment: tuple(kind() for _ in range(stages)) for moment in MOMENTS
        }
        self.in_flight = 0
        self._left = Notes()
        self._dropped = tuple(Notes() for _ in range(stages))
        self._oldest = self._end = self._shift = 0
        self._sending_s = np.empty(0, dtype=np.float64)
        self._inside = np.empty(0, dtype=np.bool_)
        self._dropped_at = np.empty(0, dtype=np.int64)
        self._times_s: dict[Moment, Floats] = {
            moment: np.empty((0, stages), dtype=np.float64) for moment in MOMENTS
        }

    def send(self, sending_s: Floats) -> range:
        """New requests; returns their ids."""
        count = len(sending_s)
        if self._end + count > len(self._sending_s):
            self._make_room(count)
        rows = slice(self._end, self._end + count)
        self._sending_s[rows] = sending_s
        self._inside[rows] = True
        self._dropped_at[rows] = -1
        for times_s in self._times_s.values():
            times_s[rows] = np.nan
        self._end += count
        self.in_flight += count
        return range(rows.start - self._shift, rows.stop - self._shift)

    def queue_at_sending(self, ids: range) -> None:
        """Requests ``ids`` enter the first stage's queue when they are sent."""
        rows = slice(ids.start + self._shift, ids.stop + self._shift)
        self._times_s["queued"][rows, 0] = self._sending_s[rows]

    def leave(self, ids: Sequence[int], now_s: float) -> None:
        """Requests got their answer."""
        self._left.add(ids, now_s)
        self.in_flight -= len(ids)

    def drop(self, stage: int, ids: Sequence[int], now_s: float) -> None:
        """Requests were dropped at ``stage``."""
        self._dropped[stage].add(ids, now_s)
        self.leave(ids, now_s)

    def close(self) -> Requests:
        """Those that left since the last close, in the order of leaving."""
        for moment, by_stage in self.notes.items():
            for stage, notes in enumerate(by_stage):
                ids, times_s = notes.flush()
                np.fmin.at(self._times_s[moment][:, stage], ids + self._shift, times_s)
        for stage, notes in enumerate(self._dropped):
            ids, _ = notes.flush()
            self._dropped_at[ids + self._shift] = stage
        left, done_s = self._left.flush()
        rows = left + self._shift
        requests = Requests(
            request_id=left,
            sending_s=self._sending_s[rows],
            done_s=done_s,
            dropped_at=self._dropped_at[rows],
            queued_s=self._times_s["queued"][rows],
            started_s=self._times_s["started"][rows],
            served_s=self._times_s["served"][rows],
        )
        self._forget(rows)
        return requests

    def _forget(self, rows: Counts) -> None:
        """Give up the rows before the oldest request that is still inside."""
        self._inside[rows] = False
        inside = self._inside[self._oldest : self._end]
        self._oldest = self._oldest + int(inside.argmax()) if inside.any() else self._end

    def _make_room(self, count: int) -> None:
        """Move the live rows to the front of a table twice as long as needed.

        So the work a request is constant, however many are inside.
        """
        live = slice(self._oldest, self._end)
        kept = self._end - self._oldest

        def moved(column: npt.NDArray[Cell]) -> npt.NDArray[Cell]:
            longer = np.empty((2 * (kept + count), *column.shape[1:]), dtype=column.dtype)
            longer[:kept] = column[live]
            return longer

        self._sending_s = moved(self._sending_s)
        self._inside = moved(self._inside)
        self._dropped_at = moved(self._dropped_at)
        self._times_s = {moment: moved(times_s) for moment, times_s in self._times_s.items()}
        self._shift -= self._oldest
        self._oldest, self._end = 0, kept
