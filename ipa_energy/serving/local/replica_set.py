"""The replicas of one stage: moved to what is wanted, and mended.

::

    want(other variant) ──▶ start new ──▶ all ready ──▶ they take batches ──▶ drain old ──▶ stop

Whatever happens ends in the same question (:meth:`ReplicaSet._reconcile`): who is missing, who is
too many. A replica that dies, hangs or answers garbage is killed and replaced, after a wait that
grows with every failure in a row. Old replicas serve until the new ones are ready, however often
these fail. Batch size and time-outs are the router's and change without touching a replica.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from ipa_energy.errors import ServingError
from ipa_energy.records import Allocation, Option
from ipa_energy.serving.base import StageState
from ipa_energy.serving.local.replica_process import Launch, ReplicaProcess
from ipa_energy.serving.local.rpc import RemoteReplica
from ipa_energy.serving.local.stage_queue import Replica, StageQueue

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 0.1, 10.0

Phase = Literal["starting", "ready", "draining", "stopping"]
Server = tuple[str, Allocation]


class Cpus:
    """CPUs lent to replicas: those with the fewest tenants are next."""

    def __init__(self) -> None:
        self._tenants = Counter(dict.fromkeys(sorted(os.sched_getaffinity(0)), 0))

    def take(self, count: int) -> tuple[int, ...]:
        """As many CPUs as that, or all there are."""
        taken = tuple(cpu for cpu, _ in self._tenants.most_common()[::-1][: max(1, count)])
        self._tenants.update(taken)
        return taken

    def give_back(self, cpus: tuple[int, ...]) -> None:
        """They are free again."""
        self._tenants.subtract(cpus)


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
    """

    name: str
    option: Option
    process: ReplicaProcess
    cpus: tuple[int, ...]
    phase: Phase = "starting"
    remote: RemoteReplica | None = None

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
    """

    option: Option
    replicas: int
    batch_timeout_s: float = 0.0
    call_timeout_s: float = 60.0


class ReplicaSet:
    """The replicas of one stage.

    Args:
        queue: of the stage; replicas that are ready join it.
        launch: how a replica of an option is started.
        cpus: to pin them to, shared by all stages.

    Attributes:
        members: those that exist.
        ended: those that have ended, until :meth:`take_ended`.
        repaired: how many were replaced.
    """

    def __init__(self, queue: StageQueue, launch: Callable[[Option], Launch], cpus: Cpus) -> None:
        self.queue = queue
        queue.on_lost = self._lost
        self.members: list[Member] = []
        self.ended: list[Member] = []
        self.repaired = 0
        self._launch, self._cpus = launch, cpus
        self._wanted: Wanted | None = None
        self._started = self._failures = self._missing = 0
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._is_closed = False

    def want(self, wanted: Wanted) -> None:
        """Move there from now on; returns at once."""
        self._wanted, self._failures = wanted, 0
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
            raise ServingError(
                f"stage {self.queue.stage} is not ready after {timeout_s:g} s: {self.states()}"
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

    async def close(self) -> None:
        """End every replica."""
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
        mine = [m for m in self.members if m.server == server and m.phase in ("starting", "ready")]
        self._missing = max(0, wanted.replicas - len(mine))
        if self._missing and self._retry is None:
            for _ in range(self._missing):
                self._start(wanted)
            self._missing = 0 if self._retry is None else self._missing
        ready = [m for m in mine if m.phase == "ready"]
        if len(ready) >= wanted.replicas:
            self._drop_all(ready[wanted.replicas :])
            self._drop_all([m for m in mine if m.phase == "starting"])
            self._drop_all(
                [m for m in self.members if m.server != server and m.phase != "stopping"]
            )
        else:
            starting = [m for m in self.members if m.server != server and m.phase == "starting"]
            surplus = [m for m in mine if m.phase == "starting"]
            self._drop_all([*starting, *surplus[wanted.replicas - len(ready) :]])
        if len(ready) == wanted.replicas == len(self.members):
            self._settled.set()

    def _drop_all(self, members: list[Member]) -> None:
        for member in members:
            if member.phase in ("starting", "ready"):
                member.phase = "draining" if member.phase == "ready" else "stopping"
                self._spawn(self._stop(member))

    def _start(self, wanted: Wanted) -> None:
        self._started += 1
        name = f"{self.queue.stage}-{self._started}"
        cpus = self._cpus.take(round(wanted.option.cpu_cores))
        launch = self._launch(wanted.option)
        try:
            process = ReplicaProcess(launch, cpus, lambda: self._exited(member))
        except ServingError as error:
            self._cpus.give_back(cpus)
            self._failures += 1  # no sense in doing the same again at once
            self._failed(str(error))
            return
        member = Member(name, wanted.option, process, cpus)
        self.members.append(member)
        self._spawn(self._welcome(member, launch.model))

    async def _welcome(self, member: Member, model: str) -> None:
        """Wait until a new replica is ready, then let it take batches."""
        try:
            port = await member.process.port()
            remote = RemoteReplica(member.name, f"127.0.0.1:{port}", model=model)
            member.remote = remote
            if not await remote.is_ready(5.0):
                raise ServingError("it does not serve its model")
        except ServingError as error:
            if member.process.is_running:
                logger.warning("replica %s: %s", member.name, error)
                member.process.kill()
            return
        if member.phase == "starting" and member.process.is_running and self._wanted is not None:
            member.phase = "ready"
            self._failures = 0
            _set(remote, self._wanted)
            self.queue.add(remote)
            self._reconcile()

    async def _stop(self, member: Member) -> None:
        """Give it no more batches, wait for its last one, and end it."""
        await self.queue.drain(member.name)
        member.phase = "stopping"
        await member.process.stop()

    def _lost(self, replica: Replica, error: Exception) -> None:
        """The queue could not use it any more."""
        member = next((m for m in self.members if m.name == replica.name), None)
        if member is not None:
            if member.phase in ("starting", "ready"):
                logger.warning("stage %s: %s", self.queue.stage, error)
            member.process.kill()

    def _exited(self, member: Member) -> None:
        """Its process has ended, wanted or not."""
        is_wanted = member.phase in ("starting", "ready")
        self.members.remove(member)
        self.ended.append(member)
        self._cpus.give_back(member.cpus)
        self.queue.remove(member.name)
        if member.remote is not None:
            self._spawn(member.remote.close())
        if is_wanted and not self._is_closed:
            self.repaired += 1
            self._failed(f"replica {member.name} ended with status {member.process.status}")
        self._reconcile()

    def _failed(self, why: str) -> None:
        """One more failure in a row: the first is mended at once, the next ones a little later."""
        self._failures += 1
        logger.warning("stage %s: %s; it is replaced", self.queue.stage, why)
        if self._failures > 1 and self._retry is None and not self._is_closed:
            wait_s = min(FIRST_RETRY_S * 2 ** (self._failures - 2), LAST_RETRY_S)
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(wait_s, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._reconcile()

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
