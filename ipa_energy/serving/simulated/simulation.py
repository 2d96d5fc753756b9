"""What happens inside a simulated pipeline, event by event.

Events, not seconds, move the clock, and there are a few a batch rather than some a request. Their
order at one time is fixed: replicas get ready, requests enter, batches end, time-outs fire; at
equal rank the first stage first, then the older event. A stretch is [now, until): what happens at
``until_s`` belongs to the next one, so that results do not depend on where stretches end. Nothing
is random but through the seed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.records import Stage
from ipa_energy.serving.base import DeployedStage, Deployment, StageState, Told
from ipa_energy.serving.simulated.energy_ledger import EnergyLedger, Held, held
from ipa_energy.serving.simulated.queueing import FanOut, StageQueue
from ipa_energy.serving.simulated.replicas import (
    BatchProfiles,
    Cohort,
    Fleet,
    NormalStream,
    Replicas,
)
from ipa_energy.serving.simulated.request_log import RequestLog

log = logging.getLogger(__name__)

READY, ENTER, COMPLETE, WAKE = range(4)
"""Ranks of events at one time."""

Event = tuple[float, int, int, Callable[[float], None]]
"""(time, rank and stage, number, what to do then)."""


class Station:
    """One stage under simulation: its queue, its replicas, its own random streams.

    Args:
        index: position in the pipeline.
        stage: with its whole profile.
        deployed: what runs, ready, from the beginning.
        timeout_s: longest wait for a batch to fill; None: that of the running plan.
        reconfiguration_s: time until new replicas serve; None: that of the profile.
        seed: of the whole simulation.
    """

    __slots__ = ("fan_out", "index", "name", "normals", "queue", "replicas", "timeout_s", "wake_s")

    def __init__(
        self,
        index: int,
        stage: Stage,
        deployed: DeployedStage,
        *,
        timeout_s: float | None,
        reconfiguration_s: Told,
        seed: int,
    ) -> None:
        times, parts = np.random.SeedSequence([seed, index]).spawn(2)
        self.index = index
        self.name = stage.name
        self.queue = StageQueue()
        self.replicas = Replicas(deployed, BatchProfiles(stage.options), reconfiguration_s)
        self.normals = NormalStream(np.random.default_rng(times))
        self.fan_out: FanOut | None = None
        if stage.requests_per_input != 1:
            self.fan_out = FanOut(stage.requests_per_input, np.random.default_rng(parts))
        self.timeout_s = timeout_s
        self.wake_s = math.inf

    def held(self, now_s: float) -> Held:
        """What the replicas hold from now on."""
        return held(
            now_s, ((fleet.option, fleet.holding, fleet.loading_w) for fleet in self.replicas)
        )


class Simulation:
    """The moving parts of :class:`.simulated.SimulatedBackend`; arguments are checked there.

    Attributes:
        log: times of the requests.
        ledger: joules and cores.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        deployment: Deployment,
        *,
        seed: int,
        drop_limit_s: float,
        reconfiguration_s: Told,
        batch_timeout_s: Sequence[float | None],
    ) -> None:
        self._drop_limit_s = drop_limit_s
        self._events: list[Event] = []
        self._event_count = 0
        self._stations = tuple(
            Station(
                index,
                stage,
                deployed,
                timeout_s=timeout_s,
                reconfiguration_s=reconfiguration_s,
                seed=seed,
            )
            for index, (stage, deployed, timeout_s) in enumerate(
                zip(stages, deployment, batch_timeout_s, strict=True)
            )
        )
        self.log = RequestLog(len(stages))
        self.ledger = EnergyLedger(station.held(0.0) for station in self._stations)

    def retarget(self, deployment: Deployment, now_s: float) -> None:
        """Start moving every stage to ``deployment``."""
        for station, deployed in zip(self._stations, deployment, strict=True):
            for fleet, cohort in station.replicas.retarget(deployed):
                ready = partial(self._become_ready, station, fleet, cohort)
                self._at(now_s + cohort.ready_after_s, READY, station, ready)
            self._hold(station, now_s)
            self._wake(station, now_s)

    def states(self) -> tuple[StageState, ...]:
        """The replicas of every stage that exist."""
        return tuple(
            StageState(
                station.name,
                fleet.option,
                ready=fleet.free + fleet.busy - fleet.stopping,
                starting=sum(cohort.replicas for cohort in fleet.starting),
                draining=fleet.stopping,
            )
            for station in self._stations
            for fleet in station.replicas
        )

    def send(self, sending_s: Floats, now_s: float) -> None:
        """Put requests in front of the first stage, at the times they are (or will be) sent."""
        ids = self.log.send(sending_s)
        for station in self._stations:
            if station.fan_out is not None:
                station.fan_out.draw(ids)
        first, times_s = self._stations[0], sending_s.tolist()
        if first.fan_out is None:
            self.log.queue_at_sending(ids)
            first.queue.extend(ids, times_s, times_s)
            self._wake(first, now_s)
            return
        for request, time_s in zip(ids, times_s, strict=True):
            self._at(time_s, ENTER, first, partial(self._enter, 0, [request], [time_s]))

    def run_before(self, until_s: float) -> None:
        """Everything that happens before ``until_s``."""
        events = self._events
        while events and events[0][0] < until_s:
            now_s, _, _, act = heappop(events)
            act(now_s)

    def drain(self, now_s: float) -> float:
        """Everything until the last request leaves; returns when that is."""
        while self.log.in_flight:
            now_s, _, _, act = heappop(self._events)
            act(now_s)
        return now_s

    def _enter(self, index: int, ids: list[int], sent_s: list[float], now_s: float) -> None:
        """Requests come to stage ``index``, or to the end of the pipeline."""
        if index == len(self._stations):
            self.log.leave(ids, now_s)
            return
        station = self._stations[index]
        if station.fan_out is not None:
            ids, sent_s = self._spawn(station, station.fan_out, ids, sent_s, now_s)
        if ids:
            self.log.notes["queued"][index].add(ids, now_s)
            station.queue.extend(ids, [now_s] * len(ids), sent_s)
            self._dispatch(station, now_s)

    def _spawn(
        self,
        station: Station,
        fan_out: FanOut,
        ids: list[int],
        sent_s: list[float],
        now_s: float,
    ) -> tuple[list[int], list[float]]:
        """Sub-requests of ``ids`` with their sending times; those without any go on at once."""
        counts = fan_out.spawn(ids)
        entries = list(zip(ids, sent_s, counts, strict=True))
        skipping = [(request, sent) for request, sent, count in entries if count == 0]
        if skipping:
            on_s = [sent for _, sent in skipping]
            self._enter(station.index + 1, [request for request, _ in skipping], on_s, now_s)
        return (
            [request for request, _, count in entries for _ in range(count)],
            [sent for _, sent, count in entries for _ in range(count)],
        )

    def _dispatch(self, station: Station, now_s: float) -> None:
        """Start every batch that may start now; else set the time-out of the next one."""
        fleet, queue = station.replicas.serving, station.queue
        batch = fleet.option.batch
        timeout_s = fleet.wait_s if station.timeout_s is None else station.timeout_s
        limit_s = self._drop_limit_s
        while fleet.free:
            start_s = queue.next_batch_s(batch, timeout_s)
            if start_s > now_s:
                self._wake(station, start_s)
                return
            ids, sent_s = queue.peek(batch, now_s)
            if now_s - min(sent_s) > limit_s:
                self._drop(station, queue.expel(batch, now_s, limit_s), now_s)
                continue
            queue.pop(len(ids))
            self._start(station, fleet, ids, sent_s, now_s)

    def _start(
        self, station: Station, fleet: Fleet, ids: list[int], sent_s: list[float], now_s: float
    ) -> None:
        """One free replica begins a batch."""
        fleet.free -= 1
        fleet.busy += 1
        size = len(ids)
        end_s = now_s + fleet.profile.draw_s(size, station.normals)
        self.log.notes["started"][station.index].add(ids, now_s)
        self.ledger.batch(station.index, now_s, end_s, fleet.profile.energy_j[size])
        self._at(end_s, COMPLETE, station, partial(self._complete, station, fleet, ids, sent_s))

    def _complete(
        self, station: Station, fleet: Fleet, ids: list[int], sent_s: list[float], now_s: float
    ) -> None:
        """A batch is done: its requests go on, its replica takes the next or stops."""
        self._go_on(station, ids, sent_s, now_s)
        if station.replicas.release(fleet):
            self._hold(station, now_s)
        elif fleet is station.replicas.serving:
            self._dispatch(station, now_s)

    def _hold(self, station: Station, now_s: float) -> None:
        """From now on the station's replicas hold what they hold."""
        self.ledger.hold(station.index, station.held(now_s))

    def _go_on(self, station: Station, ids: list[int], sent_s: list[float], now_s: float) -> None:
        """Requests of a batch that is done come to the next stage."""
        if station.fan_out is not None:
            done = station.fan_out.complete(ids)
            sent_s = [sent for sent, is_done in zip(sent_s, done, strict=True) if is_done]
            ids = [request for request, is_done in zip(ids, done, strict=True) if is_done]
        if ids:
            self.log.notes["served"][station.index].add(ids, now_s)
            self._enter(station.index + 1, ids, sent_s, now_s)

    def _drop(self, station: Station, ids: list[int], now_s: float) -> None:
        if station.fan_out is not None:
            ids = station.fan_out.drop(ids)
        for later in self._stations[station.index + 1 :]:
            if later.fan_out is not None:
                later.fan_out.forget(ids)
        self.log.drop(station.index, ids, now_s)

    def _become_ready(self, station: Station, fleet: Fleet, cohort: Cohort, now_s: float) -> None:
        if station.replicas.become_ready(fleet, cohort):
            log.debug("%g s: %s serves %s", now_s, station.name, fleet.option.label)
            self._hold(station, now_s)
            self._begun(station, now_s)
            self._dispatch(station, now_s)

    def _begun(self, station: Station, now_s: float) -> None:
        """More replicas are ready than before."""

    def _wake(self, station: Station, at_s: float) -> None:
        """Look at the station's queue at ``at_s``, in place of any earlier appointment."""
        if at_s not in (station.wake_s, math.inf):
            station.wake_s = at_s
            self._at(at_s, WAKE, station, partial(self._wake_up, station))

    def _wake_up(self, station: Station, now_s: float) -> None:
        if station.wake_s == now_s:
            station.wake_s = math.inf
            self._dispatch(station, now_s)

    def _at(self, time_s: float, rank: int, station: Station, act: Callable[[float], None]) -> None:
        self._event_count += 1
        order = rank * len(self._stations) + station.index
        heappush(self._events, (time_s, order, self._event_count, act))
