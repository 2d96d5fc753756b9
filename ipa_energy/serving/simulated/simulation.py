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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.records import EVERY_CLASS, Option, Stage
from ipa_energy.serving.deployment import DeployedStage, Deployment, StageState, Told, is_in_place
from ipa_energy.serving.load import ClassesOfRequests, next_of
from ipa_energy.serving.observed import ClassWork
from ipa_energy.serving.queue_order import until_answered_s
from ipa_energy.serving.simulated.energy_ledger import EnergyLedger, Held, held
from ipa_energy.serving.simulated.queueing import FanOut, InTimeFirst, RequestLog, StageQueue
from ipa_energy.serving.simulated.replicas import (
    BatchProfiles,
    Cohort,
    Fleet,
    NormalStream,
    Replicas,
    server_of,
)

log = logging.getLogger(__name__)

READY, ENTER, COMPLETE, WAKE = range(4)
"""Ranks of events at one time."""

Event = tuple[float, int, int, Callable[[float], None]]
"""(time, rank and stage, number, what to do then)."""


class Lane:
    """The part of a stage that runs one option: its own queue and replicas.

    Attributes:
        queue: what waits for it.
        replicas: that serve it.
        shares: of the requests of each class that come here.
        credits: requests of each class that it should have had more, up to now.
        wake_s: when its queue is looked at next.
        site: where it is; empty where there is but one place.
        delay_s: what the network takes to get here.
    """

    __slots__ = ("credits", "delay_s", "queue", "replicas", "shares", "site", "wake_s")

    def __init__(
        self,
        replicas: Replicas,
        shares: Sequence[float],
        delay_s: float = 0.0,
        *,
        in_time_first: bool = False,
    ) -> None:
        self.queue = InTimeFirst() if in_time_first else StageQueue()
        self.replicas, self.shares = replicas, shares
        self.site, self.delay_s = replicas.serving.site, delay_s
        self.credits, self.wake_s = [0.0] * len(shares), math.inf


def lane_shares(deployed: DeployedStage, kinds: Sequence[str]) -> list[list[float]]:
    """Of each lane: the share of every class's requests that comes to it.

    A class that the plan has no share for comes to the largest lane that serves it.

    Args:
        deployed: the stage.
        kinds: names of the classes; empty where nobody tells them apart.
    """
    if not kinds:
        return [[shares[EVERY_CLASS]] for shares in deployed.shares]
    found = [[shares.get(kind, shares.get(EVERY_CLASS, 0.0)) for kind in kinds]
             for shares in deployed.shares]  # fmt: skip
    for at, kind in enumerate(kinds):
        total = sum(shares[at] for shares in found)
        for shares in found:
            shares[at] = shares[at] / total if total else 0.0
        if not total:
            serves = [lane.option.of_class(kind) is not None for lane in deployed.lanes]
            found[serves.index(True) if any(serves) else 0][at] = 1.0
    return found


class Station:
    """One stage under simulation: its lanes, one an option, its own random streams.

    Requests are dealt out to the lanes as they come, by the shares of their class
    (:mod:`ipa_energy.serving.load`). What was served at a site goes on there. A batch of several
    classes takes the mean time and joules of its requests, each as in a batch of its own class. A
    change of shares, and whatever stops for it, waits until all that it starts is ready.

    Args:
        index: position in the pipeline.
        stage: with its whole profile.
        deployed: what runs, ready, from the beginning.
        timeout_s: longest wait for a batch to fill; None: that of the running plan.
        reconfiguration_s: time until new replicas serve; None: that of the profile.
        seed: of the whole simulation.
        classes: of the requests; None where nobody tells them apart.
        delays_s: site → seconds on the network until a request is there.
        in_time_first: True if who is late already is passed by the others.
    """

    __slots__ = (
        "_delays_s",
        "_in_time_first",
        "_kinds",
        "_later",
        "_profiles",
        "_told_s",
        "class_names",
        "fan_out",
        "index",
        "lanes",
        "name",
        "normals",
        "timeout_s",
    )

    def __init__(
        self,
        index: int,
        stage: Stage,
        deployed: DeployedStage,
        *,
        timeout_s: float | None,
        reconfiguration_s: Told,
        seed: int,
        classes: ClassesOfRequests | None = None,
        delays_s: Mapping[str, float] | None = None,
        in_time_first: bool = False,
    ) -> None:
        self._in_time_first = in_time_first
        # All of a site's delay is in front of the first stage.
        self._delays_s = {} if index or delays_s is None else delays_s
        times, parts = np.random.SeedSequence([seed, index]).spawn(2)
        self.index = index
        self.name = stage.name
        self._profiles = BatchProfiles(stage.options)
        self._told_s = reconfiguration_s
        self.class_names = classes.names if classes else ()
        self._kinds = classes.of_request.tolist() if classes else None
        shares = lane_shares(deployed, self.class_names)
        self.lanes = [
            self._lane(Replicas(each, self._profiles, reconfiguration_s, self.class_names), own)
            for each, own in zip(deployed.lanes, shares, strict=True)
        ]
        self._later: Callable[[], None] | None = None
        self.normals = NormalStream(np.random.default_rng(times))
        self.fan_out: FanOut | None = None
        if stage.requests_per_input != 1:
            self.fan_out = FanOut(stage.requests_per_input, np.random.default_rng(parts))
        self.timeout_s = timeout_s

    def held(self, now_s: float, site: str) -> Held:
        """What the replicas at a site hold from now on."""
        there = [lane for lane in self.lanes if lane.site == site]
        fleets = [fleet for lane in there for fleet in lane.replicas]
        return held(now_s, ((fleet.option, fleet.holding, fleet.loading_w) for fleet in fleets))

    def enter(
        self,
        ids: Sequence[int],
        entered_s: Sequence[float],
        sent_s: Sequence[float],
        site: str = "",
    ) -> None:
        """Put requests at the end of the queue, or of the queues; those of a site stay there."""
        if len(self.lanes) == 1 and not self._delays_s:
            self.lanes[0].queue.extend(ids, entered_s, sent_s)
            return
        for request, entered, sent in zip(ids, entered_s, sent_s, strict=True):
            lane = self._next_lane(self.kind_of(request), site)
            lane.queue.extend([request], [entered + lane.delay_s], [sent])

    def _next_lane(self, kind: int, site: str) -> Lane:
        if site:
            there = [lane for lane in self.lanes if lane.site == site and lane.shares[kind]]
            if there:  # else it serves no longer, and what is left of it goes elsewhere
                return next_of(there, kind, sum(lane.shares[kind] for lane in there))
        return next_of(self.lanes, kind)

    def kind_of(self, request: int) -> int:
        """Position of its class; 0 where nobody tells them apart."""
        return self._kinds[request] if self._kinds else 0

    def by_class(self, ids: Sequence[int]) -> dict[int, int]:
        """Class → how many of these requests are of it; empty where nobody tells them apart."""
        return Counter(self._kinds[request] for request in ids) if self._kinds else {}

    def retarget(self, deployed: DeployedStage) -> list[tuple[Lane, Fleet, Cohort]]:
        """Start moving to ``deployed``; the replicas that have to start.

        Whoever calls it calls :meth:`settle` next, and whenever replicas have become ready.
        """
        shares = lane_shares(deployed, self.class_names)
        wanted = list(zip(deployed.lanes, shares, strict=True))
        free = list(self.lanes)
        pairs: list[tuple[Lane, DeployedStage, list[float]]] = []
        unmatched = []
        for each, share in wanted:  # who runs it already goes on
            server = server_of(each.option)
            known = next((one for one in free if server_of(one.replicas.target) == server), None)
            if known is None:
                unmatched.append((each, share))
            else:
                free.remove(known)
                pairs.append((known, each, share))
        alone = len(self.lanes) == len(wanted) == 1
        for each, share in unmatched:
            able = (lane for lane in free if self._can_take_over(each.option, lane, alone=alone))
            reused = next(able, None)
            if reused is not None:
                free.remove(reused)
            pairs.append((reused or self._new_lane(each), each, share))
        starting = []
        smaller = []
        for lane, each, _ in pairs:
            runs_it = server_of(lane.replicas.target) == server_of(each.option)
            if len(self.lanes) > 1 and runs_it and each.replicas < lane.replicas.staying:
                smaller.append((lane, each))
            else:
                starting += [(lane, *one) for one in lane.replicas.retarget(each)]

        def later() -> None:
            for lane, each in smaller:
                lane.replicas.retarget(each)
            for lane, _, share in pairs:
                lane.shares = share
            for lane in free:
                lane.shares = [0.0] * len(lane.shares)
                lane.replicas.let_go()
            self._deal_anew()

        self._later = later if len(self.lanes) > 1 else None
        return starting

    def settle(self) -> bool:
        """Let go of what the last change leaves over, once all it starts is ready; True if so."""
        if self._later is None or any(lane.replicas.are_changing for lane in self.lanes):
            return False
        later, self._later = self._later, None
        later()
        return True

    def _can_take_over(self, option: Option, lane: Lane, *, alone: bool) -> bool:
        """True if the lane's replicas may become the option's as soon as they can.

        It is at the lane's site and serves every class that comes to the lane. Unless the lane is
        ``alone`` before and after, only in place: else it would stop before the others are ready.
        """
        if not (alone or is_in_place(option, self._told_s, lane.replicas.serving.option)):
            return False
        return option.allocation.site == lane.site and all(
            option.of_class(kind) is not None
            for kind, share in zip(self.class_names, lane.shares, strict=False)
            if share
        )

    def _new_lane(self, deployed: DeployedStage) -> Lane:
        names = self.class_names
        replicas = Replicas(deployed, self._profiles, self._told_s, names, is_running=False)
        self.lanes.append(self._lane(replicas, [0.0] * max(1, len(names))))
        return self.lanes[-1]

    def _lane(self, replicas: Replicas, shares: Sequence[float]) -> Lane:
        delay_s = self._delays_s.get(replicas.serving.site, 0.0)
        return Lane(replicas, shares, delay_s, in_time_first=self._in_time_first)

    def _deal_anew(self) -> None:
        """Everything that waits, by the new shares; lanes that are empty and over go."""
        waiting = sorted(
            (entered_s - lane.delay_s, request, sent_s, lane.site if self.index else "")
            for lane in self.lanes
            for entered_s, request, sent_s in lane.queue.take()
        )
        self.lanes = [
            lane
            for lane in self.lanes
            if any(lane.shares) or any(fleet.existing for fleet in lane.replicas)
        ]
        for lane in self.lanes:
            lane.credits = [0.0] * len(lane.shares)
        for entered_s, request, sent_s, site in waiting:
            self.enter([request], [entered_s], [sent_s], site)


class Simulation:
    """The moving parts of :class:`.backend.SimulatedBackend`; arguments are checked there.

    Attributes:
        log: times of the requests.
        ledgers: site → joules and cores there; one without a name where there is but one place.
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
        classes: ClassesOfRequests | None = None,
        delays_s: Mapping[str, float] | None = None,
        slas_s: Sequence[float] = (),
        moments: bool = True,
    ) -> None:
        self._drop_limit_s = drop_limit_s
        self._slas_s = slas_s
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
                classes=classes,
                delays_s=delays_s,
                in_time_first=bool(slas_s),
            )
            for index, (stage, deployed, timeout_s) in enumerate(
                zip(stages, deployment, batch_timeout_s, strict=True)
            )
        )
        self.log = RequestLog(len(stages), moments=moments)
        self._queued, self._started, self._served = self.log.notes.values()
        sites = dict.fromkeys(o.allocation.site for stage in stages for o in stage.options)
        self.ledgers = {
            site: EnergyLedger(station.held(0.0, site) for station in self._stations)
            for site in sites
        }

    def retarget(self, deployment: Deployment, now_s: float) -> None:
        """Start moving every stage to ``deployment``."""
        for station, deployed in zip(self._stations, deployment, strict=True):
            for lane, fleet, cohort in station.retarget(deployed):
                ready = partial(self._become_ready, station, lane, fleet, cohort)
                cohort.began_s = now_s
                self._at(now_s + cohort.ready_after_s, READY, station, ready)
            station.settle()
            self._hold(station, now_s)
            for lane in station.lanes:
                self._wake(station, lane, now_s)
        self._look_anew()

    def states(self, now_s: float) -> tuple[StageState, ...]:
        """The replicas of every stage that exist."""
        return tuple(
            StageState(
                station.name,
                fleet.option,
                ready=fleet.free + fleet.busy - fleet.stopping,
                starting=sum(cohort.replicas for cohort in fleet.starting),
                draining=fleet.stopping,
                starting_for_s=tuple(
                    max(0.0, now_s - cohort.began_s)
                    for cohort in fleet.starting
                    for _ in range(cohort.replicas)
                ),
            )
            for station in self._stations
            for lane in station.lanes
            for fleet in lane.replicas
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
            first.enter(ids, times_s, times_s)
            for lane in first.lanes:
                self._wake(first, lane, now_s)
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

    def _enter(
        self, index: int, ids: list[int], sent_s: list[float], now_s: float, site: str = ""
    ) -> None:
        """Requests come to stage ``index``, or to the end of the pipeline.

        Where it splits them, their parts do; those that it gives none go on at once.
        """
        if index == len(self._stations):
            self.log.leave(ids, now_s)
            return
        station = self._stations[index]
        if station.fan_out is not None:
            entries = list(zip(ids, sent_s, station.fan_out.spawn(ids), strict=True))
            skipping = [(request, sent) for request, sent, count in entries if count == 0]
            if skipping:
                on, on_s = map(list, zip(*skipping, strict=True))
                self._enter(index + 1, on, on_s, now_s, site)
            ids = [request for request, _, count in entries for _ in range(count)]
            sent_s = [sent for _, sent, count in entries for _ in range(count)]
        if ids:
            self._queued[index].add(ids, now_s)
            station.enter(ids, [now_s] * len(ids), sent_s, site)
            for lane in station.lanes:
                self._dispatch(station, lane, now_s)

    def _dispatch(self, station: Station, lane: Lane, now_s: float) -> None:
        """Start every batch that may start now; else set the time-out of the next one."""
        fleet, queue = lane.replicas.serving, lane.queue
        batch = fleet.option.batch
        timeout_s = fleet.wait_s if station.timeout_s is None else station.timeout_s
        limit_s = self._drop_limit_s
        while fleet.free:
            if isinstance(queue, InTimeFirst):
                queue.set_aside(batch, now_s, self._in_time_s(station, fleet))
            start_s = queue.next_batch_s(batch, timeout_s)
            if start_s > now_s:
                self._wake(station, lane, start_s)
                return
            ids, sent_s = queue.peek(batch, now_s)
            if now_s - queue.oldest_sent_s(sent_s) > limit_s:
                self._drop(station, queue.expel(batch, now_s, limit_s), now_s)
                continue
            queue.pop(len(ids), now_s)
            fleet.free -= 1
            fleet.busy += 1
            end_s = self._begin(station, fleet, ids, now_s)
            done = partial(self._complete, station, lane, fleet, (ids, sent_s))
            self._at(end_s, COMPLETE, station, done)

    def _in_time_s(self, station: Station, fleet: Fleet) -> Callable[[int], float]:
        """Of a request: the age up to which it is in time if its batch begins then."""
        later = [
            [lane.replicas.serving.option for lane in other.lanes]
            for other in self._stations[station.index + 1 :]
        ]
        answered_s = until_answered_s(fleet.option, later)
        return lambda request: self._slas_s[station.kind_of(request)] - answered_s

    def _begin(self, station: Station, fleet: Fleet, ids: list[int], now_s: float) -> float:
        """A batch begins, is noted and charged; when it will be done."""
        size, kinds, ledger = len(ids), station.by_class(ids), self.ledgers[fleet.site]
        self._started[station.index].add(ids, now_s)
        if not kinds:
            end_s = now_s + fleet.profile.draw_s(size, station.normals)
            ledger.batch(station.index, now_s, end_s, fleet.profile.energy_j[size])
            return end_s
        batches = {kind: fleet.by_class[kind] for kind in kinds}
        is_random = any(each.log_deviation[size] for each in batches.values())
        normal = station.normals.next() if is_random else 0.0
        energy_j = length_s = 0.0
        for kind, count in kinds.items():
            name, share = station.class_names[kind], count / size
            part_s = share * batches[kind].time_s(size, normal)
            part_j = share * batches[kind].energy_j[size]
            idle_j = part_s * fleet.option.idle_power_w
            served = fleet.option.of_class(name) or fleet.option
            accuracy = count * served.accuracy
            ledger.worked(ClassWork(station.index, name, count, part_j, idle_j, accuracy))
            length_s, energy_j = length_s + part_s, energy_j + part_j
        ledger.batch(station.index, now_s, now_s + length_s, energy_j)
        return now_s + length_s

    def _complete(
        self,
        station: Station,
        lane: Lane,
        fleet: Fleet,
        batch: tuple[list[int], list[float]],
        now_s: float,
    ) -> None:
        """A batch is done: its requests go on, its replica takes the next or stops."""
        self._go_on(station, *batch, now_s, lane.site)
        if lane.replicas.release(fleet):
            self._hold(station, now_s)
        elif fleet is lane.replicas.serving:
            self._dispatch(station, lane, now_s)

    def _hold(self, station: Station, now_s: float) -> None:
        """From now on the station's replicas hold what they hold."""
        for site, ledger in self.ledgers.items():
            ledger.hold(station.index, station.held(now_s, site))

    def _go_on(
        self, station: Station, ids: list[int], sent_s: list[float], now_s: float, site: str = ""
    ) -> None:
        """Requests of a batch that is done come to the next stage."""
        if station.fan_out is not None:
            done = station.fan_out.complete(ids)
            sent_s = [sent for sent, is_done in zip(sent_s, done, strict=True) if is_done]
            ids = [request for request, is_done in zip(ids, done, strict=True) if is_done]
        if ids:
            self._served[station.index].add(ids, now_s)
            self._enter(station.index + 1, ids, sent_s, now_s, site)

    def _drop(self, station: Station, ids: list[int], now_s: float) -> None:
        if station.fan_out is not None:
            ids = station.fan_out.drop(ids)
        for later in self._stations[station.index + 1 :]:
            if later.fan_out is not None:
                later.fan_out.forget(ids)
        self.log.drop(station.index, ids, now_s)

    def _become_ready(
        self, station: Station, lane: Lane, fleet: Fleet, cohort: Cohort, now_s: float
    ) -> None:
        if lane.replicas.become_ready(fleet, cohort):
            log.debug("%g s: %s serves %s", now_s, station.name, fleet.option.label)
            self._look_anew()
            lanes = station.lanes if station.settle() else [lane]
            self._hold(station, now_s)
            self._begun(station, now_s)
            for each in lanes:
                self._dispatch(station, each, now_s)

    def _look_anew(self) -> None:
        """Who is late depends on what its stage and the later ones run, which has changed."""
        for station in self._stations:
            for lane in station.lanes:
                if isinstance(lane.queue, InTimeFirst):
                    lane.queue.look_anew()

    def _begun(self, station: Station, now_s: float) -> None:
        """More replicas are ready than before."""

    def _wake(self, station: Station, lane: Lane, at_s: float) -> None:
        """Look at a queue at ``at_s``, in place of any earlier appointment."""
        if at_s not in (lane.wake_s, math.inf):
            lane.wake_s = at_s
            self._at(at_s, WAKE, station, partial(self._wake_up, station, lane))

    def _wake_up(self, station: Station, lane: Lane, now_s: float) -> None:
        if lane.wake_s == now_s:
            lane.wake_s = math.inf
            self._dispatch(station, lane, now_s)

    def _at(self, time_s: float, rank: int, station: Station, act: Callable[[float], None]) -> None:
        self._event_count += 1
        order = rank * len(self._stations) + station.index
        heappush(self._events, (time_s, order, self._event_count, act))
