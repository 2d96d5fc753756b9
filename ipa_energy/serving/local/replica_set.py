"""The replicas of one stage: moved to what is wanted, and mended.

::

    want(other variant) ──▶ start new ──▶ all ready ──▶ they take batches ──▶ drain old ──▶ stop

Whatever happens ends in the same question (:meth:`ReplicaSet._reconcile`): who is missing, who is
too many. A replica that dies, hangs or answers garbage is killed and replaced, after a wait that
grows with every failure in a row. One that is slow again and again serves until another is ready in
its place, a few times at most: if the next ones are slow too, the machine is. Old replicas serve
until the new ones are ready, however often these fail; while none serves, whoever is ready first
does. Batch size, time-outs and who is served first are the router's and change without touching a
replica.

Several options at once are so many *parts* of what is wanted, each with its replicas and its share
of the requests. All parts' replicas are started before any is let go of, and until all are ready
the old shares hold; then the queue is divided anew (:meth:`.stage_queue.StageQueue.divide`).

What happens to each replica is told as it happens (:class:`~ipa_energy.serving.served.Event`), and
of each change how long it took (:class:`~ipa_energy.serving.served.Change`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ipa_energy.errors import ServingError
from ipa_energy.records import Allocation, Option
from ipa_energy.serving.deployment import StageState
from ipa_energy.serving.local.cpu_groups import Cpus, Pinned
from ipa_energy.serving.local.replica_process import STOP_GRACE_S, Launch, ReplicaProcess
from ipa_energy.serving.local.rpc import RemoteReplica
from ipa_energy.serving.local.stage_queue import Replica, StageQueue
from ipa_energy.serving.local.template import Template
from ipa_energy.serving.observed import option_name
from ipa_energy.serving.served import Change, Event, Phase

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
        requests, batches: that it has answered.
        began_s: when it was started, by the set's clock.
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
    requests: int = 0
    batches: int = 0
    began_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a stage is to run.

    Attributes:
        option: on every replica.
        replicas: how many.
        batch_timeout_s, call_timeout_s: see :class:`.stage_queue.Replica`.
        slow_after_s: a batch that took longer was a slow one.
        server: what the servers that run it call themselves, where others start them; empty here.
        share: of the stage's requests; below 1 where it is one of several options at once.
        by_class: class → share of the stage's requests that are of it and come here; empty where
            classes are dealt out alike.
        in_time_s: see :class:`.stage_queue.Replica`; who does not send it means none.
    """

    option: Option
    replicas: int
    batch_timeout_s: float = 0.0
    call_timeout_s: float = 60.0
    slow_after_s: float = math.inf
    server: str = ""
    share: float = 1.0
    by_class: tuple[tuple[str, float], ...] = ()
    in_time_s: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        """``yolov5n 2c b4 x3``, as one of several options with its share."""
        share = "" if self.share == 1.0 else f" {100 * self.share:.3g}%"
        return f"{self.option.label} x{self.replicas}{share}"


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
        self._parts: tuple[Wanted, ...] = ()
        self._missing: dict[str, int] = {}
        self._started = self._slow_tries = 0
        self._failures: Counter[Hashable] = Counter()
        self._vacant: dict[Hashable, list[str]] = {}
        self._by_class: Counter[tuple[str, str]] = Counter()
        self._retries: dict[Hashable, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._is_closed = False
        self._grace_s = STOP_GRACE_S
        self._events: list[Event] = []
        self._change: Change | None = None
        self._changes: list[Change] = []

    def want(self, *parts: Wanted) -> None:
        """Move there from now on, to one option or to several at once; returns at once."""
        self._note_change(parts)
        self._parts, self._missing, self._slow_tries = parts, {}, 0
        self._failures.clear()
        self._settled.clear()
        self._cancel_retries()
        self._assign()
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
        for part in self._parts:
            label = part.option.label
            if missing := self._missing.get(label):
                options.setdefault(label, (part.option, Counter()))[1]["failed"] = missing
        shares = {
            part.option.label: self.queue.shares.get(self._lane_of(part)) for part in self._parts
        }
        return tuple(
            StageState(
                self.queue.stage,
                option,
                **counts,
                share=shares.get(label),
                starting_for_s=tuple(
                    self._now_s() - member.began_s
                    for member in self.members
                    if member.phase == "starting" and member.option.label == label
                ),
            )
            for label, (option, counts) in options.items()
        )

    def take_ended(self) -> list[Member]:
        """Those that ended since the last call; their CPU time is final."""
        ended, self.ended = self.ended, []
        return ended

    def take_events(self) -> list[Event]:
        """What happened to replicas since the last call."""
        events, self._events = self._events, []
        return events

    def take_by_class(self) -> tuple[tuple[str, str, int], ...]:
        """(option, class, requests of it that it served) since the last call."""
        served, self._by_class = self._by_class, Counter()
        return tuple((option, name, count) for (option, name), count in served.items())

    def take_changes(self) -> list[Change]:
        """The changes that ended since the last call."""
        changes, self._changes = self._changes, []
        return changes

    async def close(self, grace_s: float = STOP_GRACE_S) -> None:
        """End every replica; one that was asked to and has not is killed after ``grace_s``."""
        self._grace_s = grace_s
        self._is_closed = True
        self._cancel_retries()
        for member in list(self.members):
            if member.phase != "stopping":
                self._spawn(self._stop(member))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _assign(self) -> None:
        """Give each member that fits a part that part's option: its own, else one that lacks some.

        Two parts may be of one server, with other batch sizes.
        """
        for server in {self._run_by(part) for part in self._parts}:
            left = {p.option.label: p.replicas for p in self._parts if self._run_by(p) == server}
            mine = [m for m in self.members if self._server_of(m) == server]
            # Those that stay first, and of these those that run one of the parts already.
            mine.sort(
                key=lambda m: (
                    m.phase not in ("starting", "ready") or m.is_slow,
                    m.option.label not in left,
                )
            )
            for member in mine:
                own = member.option.label
                label = own if left.get(own, 0) > 0 else max(left, key=lambda each: left[each])
                left[label] -= 1
                part = next(p for p in self._parts if p.option.label == label)
                member.option = part.option
                if member.remote is not None:
                    _set(member.remote, part)

    def _run_by(self, part: Wanted) -> Hashable:
        """The servers that can run it."""
        return server_of(part.option)

    def _server_of(self, member: Member) -> Hashable:
        """What one of them has to be to be this."""
        return server_of(member.option)

    def _part_of(self, member: Member) -> Wanted | None:
        """What it is one of; None if it is not wanted any more."""
        server = self._server_of(member)
        mine = [part for part in self._parts if self._run_by(part) == server]
        same = [part for part in mine if part.option.batch == member.option.batch]
        return next(iter(same or mine), None)

    def _lane_of(self, part: Wanted) -> str:
        """Where its requests wait; with the batch size only if another part differs by it alone."""
        server = self._run_by(part)
        alike = sum(self._run_by(each) == server for each in self._parts)
        name = option_name(part.option)
        return name if alike == 1 else f"{name} b{part.option.batch}"

    def _reconcile(self) -> None:
        """Start who is missing; once nobody is, let go of who is too many."""
        if not self._parts or self._is_closed:
            return
        parts = {part.option.label: part for part in self._parts}
        mine: dict[str, list[Member]] = {label: [] for label in parts}
        others = []
        for member in self.members:
            part = None if member.is_slow else self._part_of(member)
            if part is None:
                others.append(member)
            elif member.phase in ("starting", "ready"):
                mine[part.option.label].append(member)
        missing = {label: parts[label].replicas - len(its) for label, its in mine.items()}
        self._missing = {label: count for label, count in missing.items() if count > 0}
        self._start_missing(parts)
        ready = {label: [m for m in its if m.phase == "ready"] for label, its in mine.items()}
        if all(len(its) >= parts[label].replicas for label, its in ready.items()):
            self._divide()
            for label, its in mine.items():
                self._drop_all(ready[label][parts[label].replicas :])
                self._drop_all([m for m in its if m.phase == "starting"])
            self._drop_all(others)
        else:
            self._drop_starting(mine, others)
        count = sum(part.replicas for part in self._parts)
        if sum(map(len, ready.values())) == count == len(self.members):
            self._settle()

    def _start_missing(self, parts: Mapping[str, Wanted]) -> None:
        """All but those whose last tries failed, which wait; ``_missing`` is left with these."""
        for label, count in list(self._missing.items()):
            server = self._run_by(parts[label])
            if server in self._retries:
                continue
            for _ in range(count):
                self._start(parts[label])
            if server not in self._retries:
                del self._missing[label]

    def _settle(self) -> None:
        """What is wanted is what serves, and nothing else."""
        self._settled.set()
        if self._change is not None:
            self._changes.append(replace(self._change, gone_s=self._now_s()))
            self._change = None

    def _drop_starting(self, mine: dict[str, list[Member]], others: list[Member]) -> None:
        """Of those that start, let go of who is not wanted, or too many.

        Where nobody serves, whoever is ready first may: else changes that come faster than replicas
        start would end in nobody ever serving.
        """
        starting = [m for m in others if m.phase == "starting"]
        is_served = any(m.phase == "ready" for m in self.members)
        self._drop_all(starting[0 if is_served else sum(p.replicas for p in self._parts) :])
        for part in self._parts:
            its = sorted(mine[part.option.label], key=lambda m: m.phase == "starting")
            self._drop_all([m for m in its[part.replicas :] if m.phase == "starting"])

    def _divide(self) -> None:
        """All parts are ready: deal out by their shares."""
        if self._change is not None and math.isnan(self._change.ready_s):
            self._change = replace(self._change, ready_s=self._now_s())
        parts = self._parts if len(self._parts) > 1 else ()
        lanes = {self._lane_of(part): part.share for part in parts}
        mine = [(member.name, self._part_of(member)) for member in self.members if parts]
        places = {name: self._lane_of(part) for name, part in mine if part is not None}
        by_class = {self._lane_of(part): dict(part.by_class) for part in parts if part.by_class}
        self.queue.divide(lanes, places, by_class)

    def _drop_all(self, members: list[Member]) -> None:
        for member in members:
            if member.phase in ("starting", "ready"):
                member.phase = "draining" if member.phase == "ready" else "stopping"
                self._tell(member, "draining", "slow" if member.is_slow else "")
                self._spawn(self._stop(member))

    def _start(self, wanted: Wanted) -> None:
        self._started += 1
        name = f"{self.queue.stage}-{self._started}"
        vacant = self._vacant.get(self._run_by(wanted))
        why = vacant.pop(0) if vacant else ""
        self._tell_of(name, wanted.option, "asked", why)
        cpus = self._cpus.take(round(wanted.option.cpu_cores), name)
        launch = self._launch(wanted.option)
        try:
            process = ReplicaProcess(
                launch, cpus.cpus, lambda: self._exited(member), self._template, group=cpus.group
            )
        except ServingError as error:
            self._cpus.give_back(cpus)
            server = self._run_by(wanted)
            self._failures[server] += 1  # no sense in doing the same again at once
            self._tell_of(name, wanted.option, "died", str(error))
            self._note_vacant(server, str(error))
            self._failed(server)
            return
        cpus.move = process.pin
        member = Member(name, wanted.option, process, cpus, replaces=why, began_s=self._now_s())
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
        part = self._part_of(member)
        if member.phase == "starting" and member.process.is_running and self._parts:
            member.phase = "ready"
            del self._failures[self._server_of(member)]
            _set(remote, part or self._parts[0])
            self.queue.add(remote, "" if part is None else self._lane_of(part))
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

    def _served(self, replica: Replica, seconds: float, classes: Sequence[str] = ("",)) -> None:
        """A batch of it took so long, of requests of these classes."""
        member = self._named(replica.name)
        if member is not None:
            self._count(member, classes)
        wanted = None if member is None else self._part_of(member)
        if member is None or wanted is None:
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
            self._note_vacant(
                self._server_of(member),
                f"{member.name} was slow: {seconds:.3g} s a batch,"
                f" {SLOW_BATCHES} times more than {wanted.slow_after_s:.3g} s",
            )
            self._settled.clear()
            self._reconcile()

    def _count(self, member: Member, classes: Sequence[str]) -> None:
        """It answered a batch of requests of these classes."""
        member.requests += len(classes)
        member.batches += 1
        self._by_class.update((option_name(member.option), name) for name in classes if name)

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
            self._note_vacant(self._server_of(member), f"{member.name}: {why}")
            self._failed(self._server_of(member))
        else:
            self._tell(member, "stopped", member.blame)
        self._reconcile()

    def _failed(self, server: Hashable) -> None:
        """One more failure of a server in a row: the first is mended at once, the next ones later.

        Other options of the stage do not wait for it.
        """
        self._failures[server] += 1
        count = self._failures[server]
        if count > 1 and server not in self._retries and not self._is_closed:
            wait_s = min(FIRST_RETRY_S * 2 ** (count - 2), LAST_RETRY_S)
            loop = asyncio.get_running_loop()
            self._retries[server] = loop.call_later(wait_s, self._try_again, server)

    def _try_again(self, server: Hashable) -> None:
        del self._retries[server]
        self._reconcile()

    def _cancel_retries(self) -> None:
        for retry in self._retries.values():
            retry.cancel()
        self._retries.clear()

    def _note_vacant(self, server: Hashable, why: str) -> None:
        """The next replica of this server takes somebody's place."""
        self._vacant.setdefault(server, []).append(why)

    def _note_change(self, parts: tuple[Wanted, ...]) -> None:
        """A change begins here, unless it is the same as before; one under way ends unfinished."""
        if self._parts and _what(self._parts) == _what(parts):
            return
        if self._change is not None:
            self._changes.append(self._change)
        self._vacant.clear()
        label = " + ".join(part.label for part in parts)
        self._change = Change(self.queue.stage, label, self._now_s())

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


def server_of(option: Option) -> Server:
    """What a replica has to be to run it, whatever its batch."""
    return option.variant, option.allocation


def _what(parts: tuple[Wanted, ...]) -> list[tuple[object, ...]]:
    """What of it a change is a change of."""
    return [(part.option, part.replicas, part.share, part.by_class) for part in parts]


def _set(remote: RemoteReplica, wanted: Wanted) -> None:
    remote.batch = wanted.option.batch
    remote.batch_timeout_s = wanted.batch_timeout_s
    remote.call_timeout_s = wanted.call_timeout_s
    remote.in_time_s = dict(wanted.in_time_s)
