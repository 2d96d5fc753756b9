"""The central queue of one stage: who is served next, where, with whom, and what if that fails.

::

    enter ──▶ waiting ──(a replica is free, and b wait or the oldest waited the time-out)──▶ batch
                 ▲ head                                                                     │
                 └──────── the replica failed, the batch has tries left ────────────────────┤
                                                                                            ▼
              dropped (too old when its batch forms), failed, cancelled                  answered

- First come, first served; a replica has one batch at a time, so nothing waits inside replicas,
  where it could be neither dropped nor given to another. The replica that was free longest is next;
  batch size and time-out are that replica's, so that old and new ones can serve side by side.
- With ``queue_order: in-time-first`` (:mod:`ipa_energy.serving.queue_order`) a replica has ages
  above which its answer comes too late. Who is older is *set aside* as its batch forms: others
  pass, and those set aside, oldest first, take the room that is left, for which no batch waits;
  nor does one wait to fill until somebody in it is too old.
  They are looked at anew when replicas come or change, which may be faster. Who was in a batch that
  failed is not set aside any more.
- Requests that were sent longer ago than the drop limit are dropped one by one when they come into
  a batch, those set aside whenever one forms; it is formed again without them.
- A replica that cannot be reached, hangs longer than its call time-out or answers garbage is out.
  One that works is not hung, only slow, say on a crowded machine: it gets :data:`MAX_WAITS` times
  as long.
  Its batch goes back to the head of the queue, also while the replica was draining, up to
  :data:`MAX_TRIES` times.
- A batch that the model *refuses* (an input it cannot read) says nothing about the replica: its
  requests are served one by one, so that the bad one alone is refused.
- Who was cancelled is skipped; what it is part of already goes on for the others.

A stage that runs several options at once is *divided* into lanes, one an option, each a queue like
this with replicas of its own; requests are dealt out to them as they come
(:mod:`ipa_energy.serving.load`), each class by shares of its own where lanes have such. A lane
that has lost its last replica gives what it has to the others, and gets nothing, until it has one
again.

Time is given as a function, seconds by any steady clock; nothing here knows of gRPC or processes.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, takewhile
from operator import attrgetter
from typing import Protocol

from ipa_energy.errors import ServingError
from ipa_energy.serving.load import next_of
from ipa_energy.serving.local.protocol import (
    BadMessageError,
    DroppedError,
    Payload,
    RefusedError,
    ReplicaLostError,
    StageFailedError,
    joined,
    parted,
)

MAX_TRIES = 5
"""A request that was in that many failed batches is likely what makes them fail."""

MAX_WAITS = 10
"""Call time-outs that a replica gets for one batch as long as it works."""


class Replica(Protocol):
    """Something that serves one batch at a time.

    Attributes:
        name: for messages.
        batch: requests that it serves at once, at most.
        batch_timeout_s: how long the oldest request waits for others while this replica is free.
        call_timeout_s: after how long without an answer it counts as hung.
        in_time_s: class → age up to which a request that it begins with is answered in time; of
            others that of the class without a name. Empty: first come, first served.
    """

    name: str
    batch: int
    batch_timeout_s: float
    call_timeout_s: float
    in_time_s: Mapping[str, float]

    async def infer(self, payload: Payload) -> Payload:
        """Serve a batch.

        Raises:
            ReplicaLostError: it cannot.
            RefusedError: the model refuses the input.
            BadMessageError: what it answered is no answer.
        """
        ...


@dataclass(slots=True, eq=False)
class _Lane:
    """Requests that wait for replicas of one option, or of any, and these.

    Attributes:
        name: of the option; empty for any.
        shares: of the requests of each class where it has shares by class, then of all of them.
        credits: see :mod:`ipa_energy.serving.load`.
        waiting: first come, first served.
        late: set aside, whoever was sent first.
        free: replicas that have nothing to do, longest first.
    """

    name: str
    shares: tuple[float, ...]
    credits: list[float] = field(init=False)
    waiting: deque[Visit] = field(default_factory=deque)
    late: deque[Visit] = field(default_factory=deque)
    free: deque[_Seat] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.credits = [0.0] * len(self.shares)

    @property
    def share(self) -> float:
        """Of all requests."""
        return self.shares[-1]

    def set_aside(self, replica: Replica, now_s: float) -> None:
        """Have those passed that it would answer too late, as far as its next batch looks."""
        kept: list[Visit] = []
        others_s = replica.in_time_s.get("", math.inf)
        while self.waiting and len(kept) < replica.batch:
            visit = self.waiting.popleft()
            visit.due_s = (
                math.inf
                if visit.tries
                else visit.sent_s + replica.in_time_s.get(visit.request_class, others_s)
            )
            visit.is_late = now_s > visit.due_s
            if visit.is_late:
                insort(self.late, visit, key=attrgetter("sent_s"))
            else:
                kept.append(visit)
        self.waiting.extendleft(reversed(kept))

    def look_anew(self) -> None:
        """Nobody is set aside until looked at again: other replicas have other ages, or none."""
        if not self.late:
            return
        self.waiting = deque(sorted([*self.late, *self.waiting], key=attrgetter("queued_s")))
        for visit in self.late:
            visit.is_late = False
        self.late.clear()


@dataclass(slots=True, eq=False)
class Visit:
    """The stay of one request at one stage; times are NaN until then."""

    payload: Payload
    sent_s: float
    queued_s: float
    answer: asyncio.Future[Payload]
    lane: _Lane
    request_class: str = ""
    started_s: float = math.nan
    served_s: float = math.nan
    tries: int = 0
    is_alone: bool = False
    due_s: float = math.inf
    is_late: bool = False

    @property
    def place(self) -> deque[Visit]:
        """Where it waits, if it does."""
        return self.lane.late if self.is_late else self.lane.waiting


@dataclass(slots=True, eq=False)
class _Seat:
    """A replica at the queue, where, and what it is doing."""

    replica: Replica
    lane: _Lane
    task: asyncio.Task[None] | None = None
    is_leaving: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)


def _ignore(_: Replica, *__: object) -> None:
    """Nobody wants to know."""


async def _never(_: Replica) -> bool:
    """Nobody knows."""
    return False


class StageQueue:
    """The queue of one stage, inside a running event loop.

    Args:
        stage: its name, for messages.
        drop_limit_s: age from which a request is dropped.
        on_lost: called with a replica that is out, and why.
        on_served: called with a replica, the seconds that a batch of it took, and the class of
            each of its requests.
        is_working: asked about a replica that has not answered within its call time-out.
        now_s: the clock.

    Attributes:
        dropped, retried, failed: how many requests were.
    """

    def __init__(
        self,
        stage: str,
        *,
        drop_limit_s: float = math.inf,
        on_lost: Callable[[Replica, Exception], None] = _ignore,
        on_served: Callable[[Replica, float, Sequence[str]], None] = _ignore,
        is_working: Callable[[Replica], Awaitable[bool]] = _never,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.stage = stage
        self.drop_limit_s = drop_limit_s
        self.on_lost, self.on_served, self.is_working = on_lost, on_served, is_working
        self.dropped = self.retried = self.failed = 0
        self._served = (0, 0)
        self._now_s = now_s
        self._seats: dict[str, _Seat] = {}
        self._lanes: dict[str, _Lane] = {"": _Lane("", (1.0,))}
        self._kinds: dict[str, int] = {}
        self._dealt_to = list(self._lanes.values())
        self._whole = [1.0]
        self._is_divided = False
        self._is_closed = False

    def __len__(self) -> int:
        return sum(len(lane.waiting) + len(lane.late) for lane in self._lanes.values())

    @property
    def shares(self) -> dict[str, float]:
        """Lane → its share of the requests; empty if any replica serves any."""
        if not self._is_divided:
            return {}
        return {name: lane.share for name, lane in self._lanes.items() if lane.share}

    @property
    def replicas(self) -> tuple[str, ...]:
        """Names of those that take batches."""
        return tuple(name for name, seat in self._seats.items() if not seat.is_leaving)

    def enter(self, payload: Payload, sent_s: float, request_class: str = "") -> Visit:
        """Queue a request, of a class if it has one; await its ``answer``, or cancel it.

        The answer raises :class:`DroppedError`, :class:`RefusedError` or :class:`StageFailedError`.
        """
        (visit,) = self.enter_all((payload,), sent_s, request_class)
        return visit

    def enter_all(
        self, payloads: Iterable[Payload], sent_s: float, request_class: str = ""
    ) -> list[Visit]:
        """The same with several at once, that may share a batch."""
        visits = [self._made(payload, sent_s, request_class) for payload in payloads]
        if not self._is_closed:
            for visit in visits:
                visit.lane.waiting.append(visit)
            for lane in {id(visit.lane): visit.lane for visit in visits}.values():
                self._dispatch(lane)
        return visits

    def _made(self, payload: Payload, sent_s: float, request_class: str) -> Visit:
        answer: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        lane = self._next_lane(request_class)
        visit = Visit(payload, sent_s, self._now_s(), answer, lane, request_class)
        if self._is_closed:
            answer.set_exception(StageFailedError(f"stage {self.stage} is closed"))
        else:
            answer.add_done_callback(lambda done: self._forget(visit) if done.cancelled() else None)
        return visit

    def add(self, replica: Replica, lane: str = "") -> None:
        """A replica is ready for batches, of a lane if the queue is divided."""
        seat = _Seat(replica, self._lane_named(lane))
        self._seats[replica.name] = seat
        seat.lane.free.append(seat)
        self._look_who_serves()
        seat.lane.look_anew()
        self._dispatch(seat.lane)

    def take_served(self) -> tuple[int, int]:
        """The requests that were served since the last call, and in how many batches."""
        served, self._served = self._served, (0, 0)
        return served

    def wake(self) -> None:
        """Look again: what a replica takes, for how long it waits, or its ages have changed."""
        for lane in self._lanes.values():
            lane.look_anew()
        self._dispatch_all()

    def _dispatch_all(self) -> None:
        for lane in list(self._lanes.values()):
            self._dispatch(lane)

    def divide(
        self,
        shares: Mapping[str, float],
        lanes: Mapping[str, str],
        by_class: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """From now on deal out by share whatever waits and comes.

        Args:
            shares: lane → its share; empty: any replica serves any request again.
            lanes: replica → the lane that it serves.
            by_class: lane → class → share of all requests that are of it and go there; None:
                classes are dealt out alike. So is a class that no lane with a replica has.
        """
        known = by_class or {}
        names = list(dict.fromkeys(name for one in known.values() for name in one))
        vectors = {
            lane: (*(known.get(lane, {}).get(name, 0.0) for name in names), share)
            for lane, share in (shares or {"": 1.0}).items()
        }
        places = {
            name: lanes.get(name, seat.lane.name) if shares else ""
            for name, seat in self._seats.items()
        }
        dealt = {name: lane.shares for name, lane in self._lanes.items() if lane.share}
        if (bool(shares), vectors, names) == (self._is_divided, dealt, list(self._kinds)) and all(
            seat.lane.name == places[name] for name, seat in self._seats.items()
        ):
            return
        before = list(self._lanes.values())
        waiting = self._taken_from(before)
        free = [seat for lane in before for seat in lane.free]
        self._is_divided = bool(shares)
        self._kinds = {name: kind for kind, name in enumerate(names)}
        self._lanes = {name: _Lane(name, vector) for name, vector in vectors.items()}
        for name, seat in self._seats.items():
            seat.lane = self._lane_named(places[name])
        for seat in free:
            seat.lane.free.append(seat)
        self._look_who_serves()
        for visit in waiting:
            self._queue(visit)
        self.wake()

    def _taken_from(self, lanes: Iterable[_Lane]) -> list[Visit]:
        """What waits there, oldest first, and no longer does."""
        waiting: list[Visit] = []
        for lane in lanes:
            waiting += chain(lane.waiting, lane.late)
            lane.waiting.clear()
            lane.late.clear()
            self._forget_timer(lane)
        for visit in waiting:
            visit.is_late = False
        return sorted(waiting, key=lambda visit: visit.queued_s)

    def _queue(self, visit: Visit) -> None:
        """To the end of its lane by the shares of now."""
        visit.lane = self._next_lane(visit.request_class)
        visit.lane.waiting.append(visit)

    async def drain(self, name: str) -> None:
        """Give a replica no more batches, and return when its last one is answered."""
        if (seat := self._let_go(name)) is not None:
            await seat.gone.wait()

    def remove(self, name: str) -> None:
        """A replica is known to be dead: what it was serving goes to another at once."""
        seat = self._let_go(name)
        if seat is not None and seat.task is not None:
            seat.task.cancel("dead")

    def _let_go(self, name: str) -> _Seat | None:
        """A replica gets no more batches, and is out if it has none."""
        seat = self._seats.get(name)
        if seat is not None:
            self._close_to_more(seat)
            if seat.task is None:
                self._leave(seat)
        return seat

    def close(self) -> None:
        """Fail whatever waits or is being served."""
        self._is_closed = True
        waiting = self._taken_from(self._lanes.values())
        self._fail(waiting, StageFailedError(f"stage {self.stage} was closed"))
        for seat in list(self._seats.values()):
            if seat.task is not None:
                seat.task.cancel()

    def _lane_named(self, name: str) -> _Lane:
        """The lane that a replica of this name serves; one without a share where nobody has it."""
        if not self._is_divided:
            return self._lanes[""]
        return self._lanes.setdefault(name, _Lane(name, (0.0,) * (len(self._kinds) + 1)))

    def _next_lane(self, request_class: str) -> _Lane:
        """Where the next request of a class goes."""
        lanes = self._dealt_to
        if len(lanes) == 1:
            return lanes[0]
        kind = self._kinds.get(request_class, -1)
        kind = kind if self._whole[kind] else -1
        return next_of(lanes, kind, self._whole[kind])

    def _look_who_serves(self) -> None:
        """Deal out to lanes that have replicas; what waits in others goes there."""
        if not self._is_divided:
            self._dealt_to, self._whole = [self._lanes[""]], [1.0]
            return
        served = {seat.lane.name for seat in self._seats.values() if not seat.is_leaving}
        with_share = [lane for lane in self._lanes.values() if lane.share]
        self._dealt_to = (
            [lane for lane in with_share if lane.name in served]
            or [lane for lane in self._lanes.values() if lane.name in served]
            or with_share
        )
        columns = zip(*(lane.shares for lane in self._dealt_to), strict=True)
        self._whole = [math.fsum(column) for column in columns]
        left = [lane for lane in self._lanes.values() if lane not in self._dealt_to]
        moved = self._taken_from(left)
        for visit in moved:
            self._queue(visit)
        if moved:
            for lane in self._dealt_to:
                lane.waiting = deque(sorted(lane.waiting, key=lambda v: v.queued_s))
                self._dispatch(lane)

    def _close_to_more(self, seat: _Seat) -> None:
        """It gets no more batches."""
        seat.is_leaving = True
        self._look_who_serves()

    @staticmethod
    def _forget_timer(lane: _Lane) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None

    def _dispatch(self, lane: _Lane) -> None:
        """Start every batch of a lane that may start now; else wake up when the next one may."""
        self._forget_timer(lane)
        while lane.free and (lane.waiting or lane.late):
            replica, now_s = lane.free[0].replica, self._now_s()
            if replica.in_time_s:
                lane.set_aside(replica, now_s)
            batch = _next_batch(chain(lane.waiting, lane.late), replica.batch)
            oldest = batch[0]
            if not (lane.late or oldest.is_alone or len(batch) >= replica.batch):
                until_s = oldest.queued_s + replica.batch_timeout_s
                if replica.in_time_s:
                    until_s = min([until_s, *(visit.due_s for visit in batch)])
                wait_s = until_s - now_s
                if wait_s > 0:
                    loop = asyncio.get_running_loop()
                    lane.timer = loop.call_later(wait_s, self._dispatch, lane)
                    return
            old = self._too_old(batch, lane.late, now_s)
            for visit in old:
                self._drop(visit, now_s)
            if not old:
                for visit in batch:
                    visit.place.popleft()
                    visit.is_late = False
                self._start(lane.free.popleft(), batch, now_s)

    def _too_old(self, batch: list[Visit], late: deque[Visit], now_s: float) -> list[Visit]:
        """Of a batch and of all set aside; nobody while none of it is, nor the first of them."""
        limit_s = self.drop_limit_s
        if all(now_s - visit.sent_s <= limit_s for visit in chain(batch, islice(late, 1))):
            return []
        old = [v for v in batch if not v.is_late and now_s - v.sent_s > limit_s]
        return [*old, *takewhile(lambda visit: now_s - visit.sent_s > limit_s, late)]

    def _drop(self, visit: Visit, now_s: float) -> None:
        visit.place.remove(visit)
        self.dropped += 1
        visit.started_s = math.nan
        age_s = now_s - visit.sent_s
        visit.answer.set_exception(
            DroppedError(
                f"dropped at stage {self.stage}: {age_s:.3g} s old, more than the drop limit of"
                f" {self.drop_limit_s:g} s"
            )
        )

    def _start(self, seat: _Seat, batch: list[Visit], now_s: float) -> None:
        for visit in batch:
            visit.started_s = now_s
            visit.tries += 1
        seat.task = asyncio.get_running_loop().create_task(self._serve(seat, batch))
        seat.task.add_done_callback(
            lambda done: self._never_began(seat, batch) if seat.task is done else None
        )

    def _never_began(self, seat: _Seat, batch: list[Visit]) -> None:
        """Its task was cancelled before its first step, and so has cleared nothing away."""
        self._lose(seat, batch, ReplicaLostError(f"replica {seat.replica.name} is dead"))
        self._end(seat, batch, "was closed")

    async def _serve(self, seat: _Seat, batch: list[Visit]) -> None:
        replica = seat.replica
        try:
            answer = await self._answer(replica, joined([visit.payload for visit in batch]))
            answers = parted(answer, len(batch))
        except (ReplicaLostError, BadMessageError) as error:
            self._lose(seat, batch, error)
        except TimeoutError:
            hung = f"replica {replica.name} did not answer in {replica.call_timeout_s:g} s"
            self._lose(seat, batch, ReplicaLostError(hung))
        except asyncio.CancelledError:
            self._lose(seat, batch, ReplicaLostError(f"replica {replica.name} is dead"))
        except RefusedError as error:
            self._refuse(batch, error)
        else:
            served_s = self._now_s()
            self._served = (self._served[0] + len(batch), self._served[1] + 1)
            for visit, answer in zip(batch, answers, strict=True):
                visit.served_s = served_s
                if not visit.answer.done():
                    visit.answer.set_result(answer)
            classes = [visit.request_class for visit in batch]
            self.on_served(replica, served_s - batch[0].started_s, classes)
        finally:
            self._end(seat, batch, "failed unexpectedly")

    def _end(self, seat: _Seat, batch: list[Visit], what: str) -> None:
        """A replica is done with a batch; whatever happened, nobody waits for ever."""
        left = [v for v in batch if not v.answer.done() and v not in v.place]
        self._fail(left, StageFailedError(f"stage {self.stage} {what}"))
        seat.task = None
        if seat.is_leaving:
            self._leave(seat)
        else:
            seat.lane.free.append(seat)
        self._dispatch_all()  # what it had may wait in any lane now

    async def _answer(self, replica: Replica, batch: Payload) -> Payload:
        """What the replica answers; a time-out if that takes too long and it does nothing."""
        call = asyncio.ensure_future(replica.infer(batch))
        try:
            for _ in range(MAX_WAITS):
                await asyncio.wait({call}, timeout=replica.call_timeout_s)
                if call.done() or not await self.is_working(replica):
                    break
            if not call.done():
                raise TimeoutError
            return call.result()
        finally:
            call.cancel()

    def _lose(self, seat: _Seat, batch: list[Visit], error: ServingError) -> None:
        """The replica is out; its batch goes to the head of the queue again, or has failed."""
        self._close_to_more(seat)
        spent = [visit for visit in batch if visit.tries >= MAX_TRIES]
        self._fail(
            spent, StageFailedError(f"stage {self.stage} failed {MAX_TRIES} times, last: {error}")
        )
        self.retried += self._put_back(visit for visit in batch if visit.tries < MAX_TRIES)
        if not self._is_closed:
            self.on_lost(seat.replica, error)

    def _refuse(self, batch: list[Visit], error: RefusedError) -> None:
        """One of them is bad: find out which, unless it is the only one."""
        if len(batch) == 1:
            self._fail(batch, error)
            return
        for visit in batch:
            visit.is_alone = True
        self._put_back(batch)

    def _put_back(self, batch: Iterable[Visit]) -> int:
        """To the head of the queue, in their order; how many still want an answer."""
        wanted = [visit for visit in batch if not visit.answer.done() and not self._is_closed]
        for visit in reversed(wanted):
            if visit.lane not in self._dealt_to:
                visit.lane = self._next_lane(visit.request_class)
            visit.lane.waiting.appendleft(visit)
        return len(wanted)

    def _fail(self, visits: Iterable[Visit], error: ServingError) -> None:
        for visit in visits:
            if not visit.answer.done():
                self.failed += 1
                visit.answer.set_exception(error)

    def _leave(self, seat: _Seat) -> None:
        self._seats.pop(seat.replica.name, None)
        if seat in seat.lane.free:
            seat.lane.free.remove(seat)
        seat.gone.set()

    def _forget(self, visit: Visit) -> None:
        """A request was cancelled: out of the queue with it, if it is still there."""
        if visit in visit.place:
            visit.place.remove(visit)
            self._dispatch(visit.lane)


def _next_batch(waiting: Iterable[Visit], size: int) -> list[Visit]:
    """The oldest that may be served together; whoever is to be alone is."""
    batch: list[Visit] = []
    for visit in waiting:
        if len(batch) == size or (batch and visit.is_alone):
            break
        batch.append(visit)
        if visit.is_alone:
            break
    return batch
