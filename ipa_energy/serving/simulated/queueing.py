"""The requests inside a pipeline: what waits in front of a stage, in what parts, and all times.

A queue is first come, first served, in batches. Entries may lie in the future: the first stage gets
the sending times of a whole window at once, so that arrivals cost nothing one by one and the clock
jumps from batch to batch.

Some stages see more or fewer requests than the pipeline: two people in a frame, two lookups. A
request spawns as many sub-requests there as m says, and goes on when all of them are done. A
fractional m is rounded at random, request by request, with mean m; a request that gets 0 skips the
stage. The draw depends on the request's id and the seed alone, so that two runs over the same load
see the same people in the same frames.

Times are noted by the batch ("these ids started now" is a few list operations) and turned into
arrays by the window: when it closes the notes are spread over a table with one row a request, from
which the rows of those that left go out. Requests still inside stay, so the table is as long as the
pipeline is full.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Counts, Floats
from ipa_energy.serving.served import Requests

COMPACT_AT = 4096
"""Entries already taken are forgotten when there are this many, and as many as are left."""


class StageQueue:
    """Requests that wait for one stage, in order of entering.

    Three columns of one length: the request's id, when it entered (or will enter) this queue, and
    when it was sent. Everything before ``_head`` has been taken.
    """

    __slots__ = ("_entered_s", "_head", "_ids", "_sent_s")

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._entered_s: list[float] = []
        self._sent_s: list[float] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._ids) - self._head

    def extend(
        self, ids: Sequence[int], entered_s: Sequence[float], sent_s: Sequence[float]
    ) -> None:
        """Put requests at the end; ``entered_s`` ascends and is not before the last one's."""
        self._ids.extend(ids)
        self._entered_s.extend(entered_s)
        self._sent_s.extend(sent_s)

    def take(self) -> list[tuple[float, int, float]]:
        """Everything that waits, out of the queue: (entered, id, sent) each."""
        waiting = slice(self._head, None)
        found = list(
            zip(self._entered_s[waiting], self._ids[waiting], self._sent_s[waiting], strict=True)
        )
        self._ids, self._entered_s, self._sent_s, self._head = [], [], [], 0
        return found

    def next_batch_s(self, batch: int, timeout_s: float) -> float:
        """When the next batch may start, given a free replica; infinity if nothing waits.

        That is when ``batch`` requests wait, or the oldest one has waited ``timeout_s``.
        """
        head = self._head
        if head >= len(self._ids):
            return math.inf
        expires_s = self._entered_s[head] + timeout_s
        last = head + batch - 1
        if last < len(self._ids) and self._entered_s[last] < expires_s:
            return self._entered_s[last]
        return expires_s

    def peek(self, batch: int, now_s: float) -> tuple[list[int], list[float]]:
        """(ids, sending times) of the oldest ``batch`` requests that wait now, or fewer."""
        head, end = self._head, min(self._head + batch, len(self._ids))
        if end > head and self._entered_s[end - 1] > now_s:
            end = bisect_right(self._entered_s, now_s, head, end)
        return self._ids[head:end], self._sent_s[head:end]

    def pop(self, count: int, now_s: float) -> None:
        """Take what :meth:`peek` found, ``count`` requests, out."""
        del now_s
        self._advance(count)

    def oldest_sent_s(self, batch_sent_s: Sequence[float]) -> float:
        """When the oldest was sent of who is looked at for a batch sent at these times."""
        return min(batch_sent_s)

    def _advance(self, count: int) -> None:
        self._head += count
        head = self._head
        if head >= COMPACT_AT and 2 * head >= len(self._ids):
            del self._ids[:head], self._entered_s[:head], self._sent_s[:head]
            self._head = 0

    def expel(self, batch: int, now_s: float, limit_s: float) -> list[int]:
        """Take out requests sent more than ``limit_s`` ago, as far as the next batch looks.

        From the oldest on, until ``batch`` requests are found that stay, or none is left.

        Returns:
            ids of those taken out, oldest first.
        """
        start, at = self._head, self._head
        waiting_end = bisect_right(self._entered_s, now_s, start)
        kept: list[int] = []
        expelled: list[int] = []
        while at < waiting_end and len(kept) < batch:
            if now_s - self._sent_s[at] > limit_s:
                expelled.append(self._ids[at])
            else:
                kept.append(at)
            at += 1
        self._close_gap(at, kept)
        self._advance(len(expelled))
        return expelled

    def _close_gap(self, end: int, kept: Sequence[int]) -> None:
        """Of the entries before ``end`` those kept are its last."""
        gap = slice(end - len(kept), end)
        self._ids[gap] = [self._ids[index] for index in kept]
        self._entered_s[gap] = [self._entered_s[index] for index in kept]
        self._sent_s[gap] = [self._sent_s[index] for index in kept]


class InTimeFirst(StageQueue):
    """The same, but who can no longer be in time is passed by the others.

    What is late already fills up the batches of the others, oldest first, and is served when nobody
    else waits; a batch that has room for it waits no longer to fill, nor does one so long that a
    request of it were late.
    """

    __slots__ = ("_due_s", "_late", "_late_head")

    def __init__(self) -> None:
        super().__init__()
        self._late: list[tuple[float, int, float]] = []
        self._late_head = 0
        self._due_s = math.inf

    def __len__(self) -> int:
        return super().__len__() + len(self._late) - self._late_head

    def take(self) -> list[tuple[float, int, float]]:
        """Everything that waits, out of the queue, as :meth:`StageQueue.take`."""
        late = self._late[self._late_head :]
        self._late, self._late_head = [], 0
        return [*late, *super().take()]

    def look_anew(self) -> None:
        """Nobody is late until looked at again: another option may answer sooner."""
        if self._late_head < len(self._late):
            entered_s, ids, sent_s = map(
                list, zip(*sorted(self.take(), key=itemgetter(0)), strict=True)
            )
            self.extend(ids, entered_s, sent_s)

    def set_aside(self, batch: int, now_s: float, in_time_s: Callable[[int], float]) -> None:
        """Let who can no longer be in time be passed, as far as the next batch looks.

        Args:
            batch: of who serves next.
            now_s: its start.
            in_time_s: of a request's id, the age up to which it is in time.
        """
        at, late = self._head, 0
        kept: list[int] = []
        while at < len(self._ids) and len(kept) < batch and self._entered_s[at] <= now_s:
            sent_s = self._sent_s[at]
            if now_s <= sent_s + in_time_s(self._ids[at]):
                kept.append(at)
            else:
                late += 1
                entry = self._entered_s[at], self._ids[at], sent_s
                insort(self._late, entry, lo=self._late_head, key=itemgetter(2))
            at += 1
        if late:
            self._close_gap(at, kept)
            self._advance(late)
        first = slice(self._head, self._head + batch)
        waiting = zip(self._entered_s[first], self._ids[first], self._sent_s[first], strict=True)
        self._due_s = min(
            (max(entered_s, sent_s + in_time_s(one)) for entered_s, one, sent_s in waiting),
            default=math.inf,
        )

    def next_batch_s(self, batch: int, timeout_s: float) -> float:
        """When the next batch may start, given a free replica: at once if anybody is late.

        And before anybody is whom :meth:`set_aside` looked at.
        """
        if self._late_head < len(self._late):
            return -math.inf
        return min(self._due_s, super().next_batch_s(batch, timeout_s))

    def peek(self, batch: int, now_s: float) -> tuple[list[int], list[float]]:
        """(ids, sending times) of the next batch: who may be in time, then who is late."""
        ids, sent_s = super().peek(batch, now_s)
        late = self._late[self._late_head : self._late_head + batch - len(ids)]
        return [*ids, *(one for _, one, _ in late)], [*sent_s, *(sent for _, _, sent in late)]

    def pop(self, count: int, now_s: float) -> None:
        """Take what :meth:`peek` found, ``count`` requests, out."""
        in_time = len(super().peek(count, now_s)[0])
        self._advance(in_time)
        self._advance_late(count - in_time)

    def oldest_sent_s(self, batch_sent_s: Sequence[float]) -> float:
        """When the oldest was sent of these and of those that are late."""
        oldest = self._late[self._late_head : self._late_head + 1]
        return min([*batch_sent_s, *(sent_s for _, _, sent_s in oldest)])

    def expel(self, batch: int, now_s: float, limit_s: float) -> list[int]:
        """Take out requests sent more than ``limit_s`` ago; of those that are late, all."""
        at = self._late_head
        while at < len(self._late) and now_s - self._late[at][2] > limit_s:
            at += 1
        old = [request for _, request, _ in self._late[self._late_head : at]]
        self._advance_late(len(old))
        return [*old, *super().expel(batch, now_s, limit_s)]

    def _advance_late(self, count: int) -> None:
        self._late_head += count
        if self._late_head >= COMPACT_AT and 2 * self._late_head >= len(self._late):
            del self._late[: self._late_head]
            self._late_head = 0


class FanOut:
    """Sub-requests of the requests inside one stage.

    Args:
        requests_per_input: m, above 0.
        rng: for rounding a fractional m.
    """

    def __init__(self, requests_per_input: float, rng: np.random.Generator) -> None:
        self._whole = math.floor(requests_per_input)
        self._fraction = requests_per_input - self._whole
        self._rng = rng
        self._count: dict[int, int] = {}
        self._left: dict[int, int] = {}

    def draw(self, ids: range) -> None:
        """Settle how many sub-requests each of the new requests ``ids`` will spawn here."""
        extra = self._rng.random(len(ids)) < self._fraction
        self._count.update(zip(ids, (self._whole + extra).tolist(), strict=True))

    def spawn(self, ids: Sequence[int]) -> list[int]:
        """How many sub-requests each of ``ids`` spawns, now that it is here."""
        counts = [self._count.pop(request) for request in ids]
        self._left.update((request, n) for request, n in zip(ids, counts, strict=True) if n)
        return counts

    def complete(self, ids: Sequence[int]) -> list[bool]:
        """For each finished sub-request: whether its request is done with that.

        Sub-requests of a dropped request complete nothing.
        """
        return [self._complete_one(request) for request in ids]

    def _complete_one(self, request: int) -> bool:
        left = self._left.get(request)
        if left is None:
            return False
        if left == 1:
            del self._left[request]
            return True
        self._left[request] = left - 1
        return False

    def drop(self, ids: Sequence[int]) -> list[int]:
        """The requests to which the dropped sub-requests ``ids`` belong, each once."""
        return [request for request in ids if self._left.pop(request, None) is not None]

    def forget(self, ids: Sequence[int]) -> None:
        """Requests ``ids`` were dropped before they came here."""
        for request in ids:
            self._count.pop(request, None)


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
        # Given up are the rows before the oldest request that is still inside.
        self._inside[rows] = False
        inside = self._inside[self._oldest : self._end]
        self._oldest = self._oldest + int(inside.argmax()) if inside.any() else self._end
        return requests

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
