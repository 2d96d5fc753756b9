"""The replicas of one stage: moved to what is wanted, and mended.

::

    want(other variant) ──▶ start new ──▶ all ready ──▶ they take batches ──▶ drain old ──▶ stop

Whatever happens ends in the same question (:meth:`ReplicaSet._reconcile`): who is missing, who is
too many. A replica that dies, hangs or answers garbage is killed and replaced, after a wait that
grows with every failure in a row. One that is slow again and again serves until another is ready in
its place, a few times at most: if the next ones are slow too, the machine is. Old replicas serve
until the new ones are ready, however often these fail; while none serves, whoever is ready first
does. Batch size and time-outs are the router's and change without touching a replica.

What happens to each replica is told as it happens (:class:`~ipa_energy.serving.base.Event`), and of
each change how long it took (:class:`~ipa_energy.serving.base.Change`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Literal

from ipa_energy.errors import ServingError
from ipa_energy.records import Allocation, Option
from ipa_energy.serving.base import Change, Event, Phase, StageState
from ipa_energy.serving.local.pinning import Cpus, Pinned
from ipa_energy.serving.local.replica_process import STOP_GRACE_S, Launch, ReplicaProcess
from ipa_energy.serving.local.rpc import RemoteReplica
from ipa_energy.serving.local.stage_queue import Replica, StageQueue
from ipa_energy.serving.local.template import Template

WATCHED_S = 0.3
"""How long a replica that does not answer is watched for CPU time."""

FIRST_RETRY_S, LAST_RETRY_S = 0.1, 10.0

SLOW_BATCHES = 3
"""So many slow batches in a row make a replica slow."""

SLOW_TRIES = 2
"""So many replicas are replaced for being slow before it is put down to the machine."""

Life = Literal["starting", "ready", "draining", "stopping"]
Server = tuple[str, Allocation]


@dataclass(slots=True, eq=False)
class Member:
    """One replica, from its start to its end.

    Attributes:
        name: of the replica; no two have the same.
        option: what it runs.
        process: its process.
        cpus: it is pinned to.
        phase: where in its life it is.
        remote: its connection; None while it starts.
        replaces: why there is a place for it to take; empty if it was simply wanted.
        slow_batches: those in a row, up to now.
        is_slow: True if it serves only until another is ready in its place.
        blame: what it is killed for; empty if it ends by itself or as wanted.
    """

    name: str
    option: Option
    process: ReplicaProcess
    cpus: Pinned
    phase: Life = "starting"
    remote: RemoteReplica | None = None
    replaces: str = ""
    slow_batches: int = 0
    is_slow: bool = False
    blame: str = ""

    @property
    def server(self) -> Server:
        """What cannot change without another process."""
        return (self.option.variant, self.option.allocation)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a stage is to run.

    Attributes:
        option: on every replica.
        replicas: how many.
        batch_timeout_s, call_timeout_s: see :class:`.stage_queue.Replica`.
        slow_after_s: a batch that took longer was a slow one.
        server: what the servers that run it call themselves, where others start them; empty here.
    """

    option: Option
    replicas: int
    batch_timeout_s: float = 0.0
    call_timeout_s: float = 60.0
    slow_after_s: float = math.inf
    server: str = ""


class ReplicaSet:
    """The replicas of one stage.

    Args:
        queue: of the stage; replicas that are ready join it.
        launch: how a replica of an option is started.
        cpus: to pin them to, shared by all stages.
        now_s: the clock of events.
        template: to fork them from, where ``launch`` says so.

    Attributes:
        members: those that exist.
        ended: those that have ended, until :meth:`take_ended`.
        repaired: how many were replaced.
    """

    def __init__(
        self,
        queue: StageQueue,
        launch: Callable[[Option], Launch],
        cpus: Cpus,
        template: Template | None = None,
        *,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.queue = queue
        queue.on_lost, queue.on_served = self._lost, self._served
        queue.is_working = self._is_working
        self.members: list[Member] = []
        self.ended: list[Member] = []
        self.repaired = 0
        self._launch, self._cpus, self._now_s = launch, cpus, now_s
        self._template = template
        self._wanted: Wanted | None = None
        self._started = self._failures = self._missing = self._slow_tries = 0
        self._vacant: list[str] = []
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._is_closed = False
        self._grace_s = STOP_GRACE_S
        self._events: list[Event] = []
        self._change: Change | None = None
        self._changes: list[Change] = []

    def want(self, wanted: Wanted) -> None:
        """Move there from now on; returns at once."""
        self._note_change(wanted)
        self._wanted, self._failures, self._slow_tries = wanted, 0, 0
        self._settled.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for member in self.members:
            if member.server == _server(wanted.option):
                member.option = wanted.option
                if member.remote is not None:
                    _set(member.remote, wanted)
        self._reconcile()
        self.queue.wake()

    async def settled(self, timeout_s: float) -> None:
        """Return when what is wanted is what serves, and nothing else.

        Raises:
            ServingError: it took longer.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        except TimeoutError as error:
            runs = ", ".join(
                f"{state.option.label}: {state.ready} ready, {state.starting} starting,"
                f" {state.failed} failed"
                for state in self.states()
            )
            raise ServingError(
                f"stage {self.queue.stage} is not ready after {timeout_s:g} s"
                f" ({runs or 'nothing runs'})"
            ) from error

    def states(self) -> tuple[StageState, ...]:
        """What exists now, option by option."""
        options: dict[str, tuple[Option, Counter[str]]] = {}
        for member in self.members:
            counts = options.setdefault(member.option.label, (member.option, Counter()))[1]
            counts["draining" if member.phase == "stopping" else member.phase] += 1
        if self._missing and self._wanted is not None:
            option = self._wanted.option
            options.setdefault(option.label, (option, Counter()))[1]["failed"] = self._missing
        return tuple(
            StageState(self.queue.stage, option, **counts) for option, counts in options.values()
        )

    def take_ended(self) -> list[Member]:
        """Those that ended since the last call; their CPU time is final."""
        ended, self.ended = self.ended, []
        return ended

    def take_events(self) -> list[Event]:
        """What happened to replicas since the last call."""
        events, self._events = self._events, []
        return events

    def take_changes(self) -> list[Change]:
        """The changes that ended since the last call."""
        changes, self._changes = self._changes, []
        return changes

    async def close(self, grace_s: float = STOP_GRACE_S) -> None:
        """End every replica; one that was asked to and has not is killed after ``grace_s``."""
        self._grace_s = grace_s
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
        for member in list(self.members):
            if member.phase != "stopping":
                self._spawn(self._stop(member))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reconcile(self) -> None:
        """Start who is missing; once nobody is, let go of who is too many."""
        wanted = self._wanted
        if wanted is None or self._is_closed:
            return
        server = _server(wanted.option)
        mine = [
            m
            for m in self.members
            if m.server == server and m.phase in ("starting", "ready") and not m.is_slow
        ]
        others = [m for m in self.members if m.server != server or m.is_slow]
        self._missing = max(0, wanted.replicas - len(mine))
        if self._missing and self._retry is None:
            for _ in range(self._missing):
                self._start(wanted)
            self._missing = 0 if self._retry is None else self._missing
        ready = [m for m in mine if m.phase == "ready"]
        if len(ready) >= wanted.replicas:
            if self._change is not None and math.isnan(self._change.ready_s):
                self._change = replace(self._change, ready_s=self._now_s())
            self._drop_all(ready[wanted.replicas :])
            self._drop_all([m for m in mine if m.phase == "starting"])
            self._drop_all(others)
        else:
            starting = [m for m in others if m.phase == "starting"]
            surplus = [m for m in mine if m.phase == "starting"]
            # Where nobody serves, whoever is ready first may: else changes that come faster than
            # replicas start would end in nobody ever serving.
            spared = 0 if any(m.phase == "ready" for m in self.members) else wanted.replicas
            self._drop_all([*starting[spared:], *surplus[wanted.replicas - len(ready) :]])
        if len(ready) == wanted.replicas == len(self.members):
            self._settled.set()
            if self._change is not None:
                self._changes.append(replace(self._change, gone_s=self._now_s()))
                self._change = None

    def _drop_all(self, members: list[Member]) -> None:
        for member in members:
            if member.phase in ("starting", "ready"):
                member.phase = "draining" if member.phase == "ready" else "stopping"
                self._tell(member, "draining", "slow" if member.is_slow else "")
                self._spawn(self._stop(member))

    def _start(self, wanted: Wanted) -> None:
        self._started += 1
        name = f"{self.queue.stage}-{self._started}"
        why = self._vacant.pop(0) if self._vacant else ""
        self._tell_of(name, wanted.option, "asked", why)
        cpus = self._cpus.take(round(wanted.option.cpu_cores), name)
        launch = self._launch(wanted.option)
        try:
            process = ReplicaProcess(
                launch, cpus.cpus, lambda: self._exited(member), self._template, group=cpus.group
            )
        except ServingError as error:
            self._cpus.give_back(cpus)
            self._failures += 1  # no sense in doing the same again at once
            self._tell_of(name, wanted.option, "died", str(error))
            self._vacant.append(str(error))
            self._failed()
            return
        cpus.move = process.pin
        member = Member(name, wanted.option, process, cpus, replaces=why)
        self.members.append(member)
        self._tell(member, "starting")
        self._spawn(self._welcome(member))

    async def _welcome(self, member: Member) -> None:
        """Wait until a new replica is ready, then let it take batches."""
        try:
            port = await member.process.port()
            address, model = f"127.0.0.1:{port}", member.process.model
            remote = RemoteReplica(member.name, address, model=model)
            member.remote = remote
            if not await remote.is_ready(5.0):
                raise ServingError("it does not serve its model")
        except ServingError as error:
            if member.process.is_running:
                member.blame = str(error)
                member.process.kill()
            return
        if member.phase == "starting" and member.process.is_running and self._wanted is not None:
            member.phase = "ready"
            self._failures = 0
            _set(remote, self._wanted)
            self.queue.add(remote)
            self._tell(member, "ready")
            if member.replaces:
                self._tell(member, "repaired", member.replaces)
            self._reconcile()

    async def _stop(self, member: Member) -> None:
        """Give it no more batches, wait for its last one, and end it."""
        await self.queue.drain(member.name)
        member.phase = "stopping"
        await member.process.stop(self._grace_s)

    def _lost(self, replica: Replica, error: Exception) -> None:
        """The queue could not use it any more."""
        member = self._named(replica.name)
        if member is not None:
            member.blame = str(error)
            member.process.kill()

    async def _is_working(self, replica: Replica) -> bool:
        """True if its process uses CPU time: it is slow then, and not hung."""
        member = self._named(replica.name)
        if member is None:
            return False
        before_s = member.process.cpu_s()
        await asyncio.sleep(WATCHED_S)
        return member.process.cpu_s() > before_s

    def _served(self, replica: Replica, seconds: float) -> None:
        """A batch of it took so long."""
        member, wanted = self._named(replica.name), self._wanted
        if member is None or wanted is None or member.server != _server(wanted.option):
            return
        is_slow = seconds > wanted.slow_after_s
        member.slow_batches = member.slow_batches + 1 if is_slow else 0
        if not is_slow and member.replaces:
            self._slow_tries = 0  # its successor shows that it was not the machine
        if member.slow_batches < SLOW_BATCHES or member.is_slow or member.phase != "ready":
            return
        if self._slow_tries < SLOW_TRIES:
            self._slow_tries += 1
            self.repaired += 1
            member.is_slow = True
            self._vacant.append(
                f"{member.name} was slow: {seconds:.3g} s a batch,"
                f" {SLOW_BATCHES} times more than {wanted.slow_after_s:.3g} s"
            )
            self._settled.clear()
            self._reconcile()

    def _exited(self, member: Member) -> None:
        """Its process has ended, wanted or not."""
        is_wanted = member.phase in ("starting", "ready")
        self.members.remove(member)
        self.ended.append(member)
        self._cpus.give_back(member.cpus)
        self.queue.remove(member.name)
        if member.remote is not None:
            self._spawn(member.remote.close())
        status = member.process.status
        if is_wanted and not self._is_closed:
            self.repaired += 1
            why = member.blame or f"replica {member.name} ended with status {status}"
            self._tell(member, "died", why)
            self._vacant.append(f"{member.name}: {why}")
            self._failed()
        else:
            self._tell(member, "stopped", member.blame)
        self._reconcile()

    def _failed(self) -> None:
        """One more failure in a row: the first is mended at once, the next ones a little later."""
        self._failures += 1
        if self._failures > 1 and self._retry is None and not self._is_closed:
            wait_s = min(FIRST_RETRY_S * 2 ** (self._failures - 2), LAST_RETRY_S)
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(wait_s, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._reconcile()

    def _note_change(self, wanted: Wanted) -> None:
        """A change begins here, unless it is the same as before; one under way ends unfinished."""
        before = self._wanted
        if before is not None and (before.option, before.replicas) == (
            wanted.option,
            wanted.replicas,
        ):
            return
        if self._change is not None:
            self._changes.append(self._change)
        self._vacant.clear()
        self._change = Change(
            self.queue.stage, f"{wanted.option.label} x{wanted.replicas}", self._now_s()
        )

    def _named(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)

    def _tell(self, member: Member, phase: Phase, why: str = "") -> None:
        self._tell_of(member.name, member.option, phase, why)

    def _tell_of(self, name: str, option: Option, phase: Phase, why: str) -> None:
        self._events.append(Event(self._now_s(), self.queue.stage, option.label, name, phase, why))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _server(option: Option) -> Server:
    return (option.variant, option.allocation)


def _set(remote: RemoteReplica, wanted: Wanted) -> None:
    remote.batch = wanted.option.batch
    remote.batch_timeout_s = wanted.batch_timeout_s
    remote.call_timeout_s = wanted.call_timeout_s
