"""The way of a request through the stages' queues, and what is written down of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from ipa_energy.errors import ServingError
from ipa_energy.serving.local.protocol import (
    REQUEST_CLASS,
    DroppedError,
    Named,
    Payload,
    RefusedError,
)
from ipa_energy.serving.local.stage_queue import StageQueue, Visit


@dataclass(slots=True)
class Trip:
    """One request's way, as :class:`ipa_energy.serving.served.Requests` wants it.

    Attributes:
        request_id: the client's.
        arrived_s: when it came to the router.
        left_s: when its answer, or its refusal, left the router; NaN until then.
        stopped_at: index of the stage where it was dropped or failed; −1 if it was served.
        trouble: why it was not served; None if it was.
        is_dropped: True if that was its age.
        queued_s, started_s, served_s: one a stage that it came to; NaN for what did not happen.
            Of a stage that it visits in parts: the first one's start, the last one's end.
        request_class: that it says it is of, in its parameter :data:`.protocol.REQUEST_CLASS`;
            empty if it says nothing.
    """

    request_id: str
    arrived_s: float
    left_s: float = math.nan
    stopped_at: int = -1
    trouble: str | None = None
    is_dropped: bool = False
    queued_s: list[float] = field(default_factory=list)
    started_s: list[float] = field(default_factory=list)
    served_s: list[float] = field(default_factory=list)
    request_class: str = ""


class Router:
    """Stages in a row; a :class:`.rpc.Service` of the whole pipeline.

    Args:
        name: of the pipeline, which is the model that clients ask for.
        queues: one a stage, first stage first.
        apart: stages at which each element of a request is a request of the stage's own, that may
            be served beside any other. Elsewhere a request's elements stay together.
        now_s: the clock, the queues' own.

    Attributes:
        under_way: requests that have come and not left.
        on_left: called with the trip of every request that leaves.
    """

    def __init__(
        self,
        name: str,
        queues: Sequence[StageQueue],
        *,
        apart: Collection[str] = (),
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = name
        self.queues = tuple(queues)
        self._apart = frozenset(apart)
        self.under_way = 0
        self.on_left: Callable[[Trip], None] | None = None
        self._now_s = now_s
        self._finished: list[Trip] = []
        self._arrived_s: list[float] = []

    def is_ready(self, model: str) -> bool:
        """True if every stage has a replica."""
        return model in ("", self.name) and all(queue.replicas for queue in self.queues)

    async def infer(self, named: Named) -> Named:
        """Take a request through all stages.

        Raises:
            ServingError: it was dropped, refused or has failed; what is told to the client.
        """
        if named.model not in ("", self.name):
            raise RefusedError(f"no model {named.model!r} is served here; allowed: {self.name}")
        request_class = str(named.payload.parameters.get(REQUEST_CLASS, ""))
        trip = Trip(named.request_id, self._now_s(), request_class=request_class)
        self._arrived_s.append(trip.arrived_s)
        payload = named.payload
        self.under_way += 1
        try:
            for index, queue in enumerate(self.queues):
                payload = await self._through(queue, payload, trip, is_first=index == 0)
        except ServingError as error:
            trip.stopped_at, trip.trouble = len(trip.queued_s) - 1, str(error)
            trip.is_dropped = isinstance(error, DroppedError)
            raise
        except asyncio.CancelledError:
            trip.stopped_at, trip.trouble = len(trip.queued_s) - 1, "cancelled by the client"
            raise
        finally:
            self.under_way -= 1
            trip.left_s = self._now_s()
            self._finished.append(trip)
            if self.on_left is not None:
                self.on_left(trip)
        return Named(self.name, named.request_id, payload)

    async def _through(
        self, queue: StageQueue, payload: Payload, trip: Trip, *, is_first: bool
    ) -> Payload:
        """What a stage makes of it; one that has no elements left passes by."""
        parts = [payload]
        if not payload.elements and not is_first:
            parts = []
        elif queue.stage in self._apart:
            parts = [Payload((element,), payload.parameters) for element in payload.elements]
        visits = queue.enter_all(parts, trip.arrived_s, trip.request_class)
        try:
            if len(visits) == 1:
                return await visits[0].answer
            answers = await asyncio.gather(*(visit.answer for visit in visits))
        finally:
            for visit in visits:  # the others of one that was dropped or has failed
                visit.answer.cancel()
            _note(trip, visits)
        elements = tuple(element for answer in answers for element in answer.elements)
        return Payload(elements, payload.parameters)

    def take_finished(self) -> list[Trip]:
        """The trips that ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def take_arrived(self) -> list[float]:
        """When each request came that did since the last call."""
        arrived_s, self._arrived_s = self._arrived_s, []
        return arrived_s

    def close(self) -> None:
        """Fail what is under way."""
        for queue in self.queues:
            queue.close()


def _note(trip: Trip, visits: Sequence[Visit]) -> None:
    """When a stage began with a request, and when it was done with all of it."""
    started_s = [visit.started_s for visit in visits]
    served_s = [visit.served_s for visit in visits]
    begun_s = [second for second in started_s if not math.isnan(second)]
    is_done = bool(visits) and not any(map(math.isnan, served_s))
    trip.queued_s.append(min((visit.queued_s for visit in visits), default=math.nan))
    trip.started_s.append(min(begun_s, default=math.nan))
    trip.served_s.append(max(served_s) if is_done else math.nan)
