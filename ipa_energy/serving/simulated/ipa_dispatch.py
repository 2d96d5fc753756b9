"""The simulation as IPA serves: batches close whether or not a replica is free, pods stay a while.

::

    queue ─ b requests, or the time-out ─▶ batch ─ round robin or random ─▶ line ─▶ replica
                                                                           └ one each ┘

IPA's queue sends a batch on as soon as it is full or its oldest request has waited the time-out,
and the mesh hands it to one replica, in turn (``ipa``) or at random (``ipa-random``), where it
waits even if another one is free. A replica that is told to stop serves what waits at it first.
Its pod stays for :data:`POD_STAYS_S` after that, Kubernetes' grace period, with its cores and its
idle watts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ipa_energy.errors import ConfigError
from ipa_energy.records import Option, Stage
from ipa_energy.serving.deployment import Deployment
from ipa_energy.serving.simulated.energy_ledger import held
from ipa_energy.serving.simulated.replicas import Fleet
from ipa_energy.serving.simulated.simulation import COMPLETE, WAKE, Lane, Simulation, Station

POD_STAYS_S = 30.0
"""Kubernetes' terminationGracePeriodSeconds where nobody sets it, as in IPA's deployments."""

Batch = tuple[list[int], list[float]]
"""Ids of requests, and when each was sent."""


@dataclass(slots=True, eq=False)
class Line:
    """One replica that is ready, and the batches that wait at it."""

    busy: bool = False
    closed: bool = False
    waiting: deque[Batch] = field(default_factory=deque)


class IpaSimulation(Simulation):
    """Batch by batch, each replica with a line of its own.

    Args:
        stages, deployment, rest: as of the simulation of a central queue. Of sites there are none:
            IPA's queues are in one place.
        at_random: True if batches go to any replica; else in turn.
        seed: of service times, and of the replicas that get batches.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        deployment: Deployment,
        *,
        at_random: bool,
        seed: int,
        **rest: Any,
    ) -> None:
        _require_one_option(deployment)
        super().__init__(stages, deployment, seed=seed, **rest)
        self._lines: list[dict[Fleet, list[Line]]] = [{} for _ in stages]
        self._turn = [0] * len(stages)
        self._staying: list[list[tuple[Option, float]]] = [[] for _ in stages]
        self._random = np.random.default_rng(np.random.SeedSequence([seed, len(stages), 1]))
        self._at_random = at_random
        for station in self._stations:
            self._sync(station, 0.0)

    def retarget(self, deployment: Deployment, now_s: float) -> None:
        """Start moving every stage to ``deployment``."""
        _require_one_option(deployment)
        super().retarget(deployment, now_s)
        for station in self._stations:
            self._sync(station, now_s)

    def _sync(self, station: Station, now_s: float) -> None:
        """Open and close lines until there are as many as replicas that are ready and stay."""
        by_fleet = self._lines[station.index]
        for fleet in station.lanes[0].replicas:
            by_fleet.setdefault(fleet, [])
        for fleet, lines in list(by_fleet.items()):
            open_ = [line for line in lines if not line.closed]
            staying = fleet.free + fleet.busy - fleet.stopping
            lines += [Line() for _ in range(staying - len(open_))]
            idle_first = sorted(open_, key=lambda one: (one.busy, len(one.waiting)))
            for line in idle_first[: max(0, len(open_) - staying)]:
                line.closed = True
                if not line.busy:
                    self._gone(station, fleet, line, now_s)

    def _gone(self, station: Station, fleet: Fleet, line: Line, now_s: float) -> None:
        """A replica has stopped; its pod stays for a while."""
        self._lines[station.index][fleet].remove(line)
        until_s = now_s + POD_STAYS_S
        self._staying[station.index].append((fleet.option, until_s))
        self._at(until_s, WAKE, station, partial(self._pod_ends, station))
        self._hold(station, now_s)

    def _pod_ends(self, station: Station, now_s: float) -> None:
        left = [one for one in self._staying[station.index] if one[1] > now_s]
        self._staying[station.index] = left
        self._hold(station, now_s)

    def _hold(self, station: Station, now_s: float) -> None:
        there = [
            (fleet.option, fleet.holding, fleet.loading_w) for fleet in station.lanes[0].replicas
        ]
        there += [(option, 1, 0.0) for option, _ in self._staying[station.index]]
        self.ledgers[""].hold(station.index, held(now_s, there))

    def _dispatch(self, station: Station, lane: Lane, now_s: float) -> None:
        """Close every batch that is full or has waited; set the time-out of the next one."""
        fleet, queue = lane.replicas.serving, lane.queue
        batch, limit_s = fleet.option.batch, self._drop_limit_s
        timeout_s = fleet.wait_s if station.timeout_s is None else station.timeout_s
        while (start_s := queue.next_batch_s(batch, timeout_s)) <= now_s:
            ids, sent_s = queue.peek(batch, now_s)
            if now_s - min(sent_s) > limit_s:
                self._drop(station, queue.expel(batch, now_s, limit_s), now_s)
                continue
            queue.pop(len(ids), now_s)
            line = self._next_line(station, fleet)
            line.waiting.append((ids, sent_s))
            if not line.busy:
                fleet.free -= 1
                fleet.busy += 1
                self._serve(station, fleet, line, now_s)
        self._wake(station, lane, start_s)

    def _next_line(self, station: Station, fleet: Fleet) -> Line:
        lines = [line for line in self._lines[station.index][fleet] if not line.closed]
        if self._at_random:
            return lines[int(self._random.integers(len(lines)))]
        self._turn[station.index] += 1
        return lines[self._turn[station.index] % len(lines)]

    def _serve(self, station: Station, fleet: Fleet, line: Line, now_s: float) -> None:
        """A replica begins the batch that waits longest at it."""
        line.busy = True
        batch = line.waiting.popleft()
        end_s = self._begin(station, fleet, batch[0], now_s)
        done = partial(self._done, station, fleet, line, batch)
        self._at(end_s, COMPLETE, station, done)

    def _done(self, station: Station, fleet: Fleet, line: Line, batch: Batch, now_s: float) -> None:
        """A batch is done: its replica takes the next one of its line, waits, or stops."""
        self._go_on(station, *batch, now_s)
        if line.waiting:
            self._serve(station, fleet, line, now_s)
            return
        line.busy = False
        if line.closed:
            station.lanes[0].replicas.release(fleet)
            self._gone(station, fleet, line, now_s)
        else:
            fleet.busy -= 1
            fleet.free += 1

    def _begun(self, station: Station, now_s: float) -> None:
        """Lines for those that are ready now; the old ones' may close."""
        self._sync(station, now_s)


def _require_one_option(deployment: Deployment) -> None:
    if any(len(stage.lanes) > 1 for stage in deployment):
        raise ConfigError("IPA's queues serve one option a stage", where="mix", allowed="false")
