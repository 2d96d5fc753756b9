"""The replicas of one stage where a cluster starts and ends them: the pods that are ready.

What is wanted is written elsewhere; here it only says which pods count and how large their batches
are. A pod takes batches from when its endpoint is ready and its server says what it runs, until
its endpoint is not ready any more or begins to end: then it gets no new batch, finishes its last
one and is let go of. One that is gone at once is treated as a replica that died.

A cluster shows no CPU time. A pod is charged, for the time that it works on a batch, all the cores
that it holds: an estimate, called :data:`BUSY_TIME`, where nothing better is scraped.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ipa_energy.records import Option
from ipa_energy.serving.local.cpu_groups import Cpus, Pinned
from ipa_energy.serving.local.machine_meter import ModelPrices
from ipa_energy.serving.local.replica_process import STOP_GRACE_S, Launch
from ipa_energy.serving.local.replica_set import Member, ReplicaSet, Wanted
from ipa_energy.serving.local.rpc import RemoteReplica
from ipa_energy.serving.local.stage_queue import Replica, StageQueue

BUSY_TIME = "busy-time"

GREETING_S = 5.0
"""For a server to say what it is."""

AGAIN_S = 1.0
"""Until one that did not, or that failed, is asked again."""

HEALTH_S = 1.0
"""For one that is late to say that it lives."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod as the slices of a stage's service list it.

    Attributes:
        pod: its name.
        address: ``host:port`` of its server.
        takes: True if it is ready and not ending.
    """

    pod: str
    address: str
    takes: bool


@dataclass(slots=True)
class PodProcess:
    """What a ledger asks of a process, of a pod.

    Attributes:
        started_s, ended_s: by ``perf_counter``; when it was first and last seen.
        used_s: cores × seconds in which it worked.
    """

    started_s: float
    ended_s: float | None = None
    used_s: float = 0.0

    def cpu_s(self) -> float:
        """The same as if it were CPU seconds."""
        return self.used_s


class BusyPrices(ModelPrices):
    """The price by the power model, said to be of busy time."""

    meter = BUSY_TIME


class PodSet(ReplicaSet):
    """The pods of one stage.

    Args:
        queue: of the stage.
        options: name of a server → an option that it runs, of all that the stage may run.
        now_s: the clock of events.
    """

    def __init__(
        self,
        queue: StageQueue,
        options: Mapping[str, Option],
        *,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(queue, _started_elsewhere, Cpus(), now_s=now_s)
        self._options = options
        self._there: dict[str, Endpoint] = {}
        self._servers: dict[str, str] = {}
        self._greeting: set[str] = set()

    def update(self, endpoints: Iterable[Endpoint]) -> None:
        """What the slices list now."""
        self._there = {one.pod: one for one in endpoints}
        for member in list(self.members):
            one = self._there.get(member.name)
            if one is None or member.remote is None or one.address != member.remote.address:
                self._gone(member)
            elif not one.takes and member.phase == "ready":
                self._leave(member, "its endpoint is not ready any more")
        for one in self._there.values():
            self._meet(one)

    async def close(self, grace_s: float = STOP_GRACE_S) -> None:
        """Let go of every pod; the cluster ends them."""
        del grace_s
        self._is_closed = True
        for member in list(self.members):
            self.queue.remove(member.name)
            if member.remote is not None:
                await member.remote.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _meet(self, one: Endpoint) -> None:
        known = one.pod in self._greeting or any(m.name == one.pod for m in self.members)
        if one.takes and not known and not self._is_closed:
            self._greeting.add(one.pod)
            self._spawn(self._greet(one))

    async def _greet(self, one: Endpoint) -> None:
        """Ask a pod what it runs, and let it take batches once it does."""
        remote, option = RemoteReplica(one.pod, one.address, model=""), None
        try:
            while option is None and self._there.get(one.pod) == one and not self._is_closed:
                name = await remote.server_name(GREETING_S)
                wanted = [part.option for part in self._parts if part.server == name]
                option = wanted[0] if wanted else self._options.get(name or "")
                if option is not None:
                    remote.model = option.variant
                    option = option if await remote.is_ready(GREETING_S) else None
                if option is None:
                    await asyncio.sleep(AGAIN_S)
                elif self._there.get(one.pod) == one:
                    self._servers[one.pod] = name or ""
                    self._welcome_pod(one, remote, option)
                    return
            await remote.close()
        finally:
            self._greeting.discard(one.pod)
            if one.pod in self._there and self._there[one.pod] != one:
                self._meet(self._there[one.pod])

    def _welcome_pod(self, one: Endpoint, remote: RemoteReplica, option: Option) -> None:
        process = cast(Any, PodProcess(self._now_s()))
        member = Member(one.pod, option, process, Pinned(()), "ready", remote)
        self.members.append(member)
        remote.batch = option.batch
        self._assign()
        part = self._part_of(member)
        self.queue.add(remote, "" if part is None else self._lane_of(part))
        self._tell(member, "ready")
        self._reconcile()

    def _run_by(self, part: Wanted) -> Hashable:
        return part.server

    def _server_of(self, member: Member) -> Hashable:
        return self._servers.get(member.name)

    def _leave(self, member: Member, why: str) -> None:
        """No more batches; away with it when the last one is answered."""
        member.phase = "draining"
        self._tell(member, "draining", why)
        self._spawn(self._let_go(member, "stopped", ""))
        self._reconcile()

    def _gone(self, member: Member) -> None:
        """It is not listed any more: its batch is another's."""
        if member.phase == "ready":
            member.phase = "stopping"
            self._spawn(self._let_go(member, "died", "its endpoint is gone"))
        self.queue.remove(member.name)

    async def _let_go(self, member: Member, phase: Any, why: str) -> None:
        await self.queue.drain(member.name)
        if member not in self.members:
            return
        self.members.remove(member)
        self.ended.append(member)
        member.process.ended_s = self._now_s()
        self._servers.pop(member.name, None)
        if member.remote is not None:
            await member.remote.close()
        self._tell(member, phase, why)
        self._reconcile()
        if member.blame:  # it failed, and the cluster may think otherwise
            await asyncio.sleep(AGAIN_S)
        if member.name in self._there:
            self._meet(self._there[member.name])

    def _lost(self, replica: Replica, error: Exception) -> None:
        """The queue could not use it any more."""
        member = self._named(replica.name)
        if member is not None and member.phase == "ready":
            member.phase, member.blame = "stopping", str(error)
            self.repaired += 1
            self._spawn(self._let_go(member, "died", str(error)))

    async def _is_working(self, replica: Replica) -> bool:
        """True if its server still says that it is ready: it is slow then, and not hung."""
        member = self._named(replica.name)
        remote = None if member is None else member.remote
        return remote is not None and await remote.is_ready(HEALTH_S)

    def _served(self, replica: Replica, seconds: float, classes: Sequence[str] = ("",)) -> None:
        """A batch of it took so long, of requests of these classes."""
        member = self._named(replica.name)
        if member is not None:
            self._count(member, classes)
            cast(Any, member.process).used_s += seconds * member.option.cpu_cores

    def _reconcile(self) -> None:
        """See whether what serves is what is wanted."""
        if not self._parts or self._is_closed:
            return
        self._assign()
        ready = Counter(
            member.option.label
            for member in self.members
            if member.phase == "ready" and self._part_of(member) is not None
        )
        if all(ready[part.option.label] >= part.replicas for part in self._parts):
            self._divide()
        count = sum(part.replicas for part in self._parts)
        if ready.total() == count == len(self.members):
            self._settle()


def _started_elsewhere(_: Option) -> Launch:
    raise RuntimeError("pods are started by the cluster")
