"""The process of a :class:`.plane.Plane`: does what comes over its socket, until that closes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from ipa_energy.errors import IpaEnergyError
from ipa_energy.records import Option
from ipa_energy.serving.base import StageState
from ipa_energy.serving.local.cpu_ledger import CpuLedger, Sample
from ipa_energy.serving.local.machine_meter import MeteredPrices, Prices, prices_for
from ipa_energy.serving.local.pinning import Cpus
from ipa_energy.serving.local.plane import Job, Report
from ipa_energy.serving.local.replica_process import Launch
from ipa_energy.serving.local.replica_set import ReplicaSet, Server, Wanted
from ipa_energy.serving.local.router import Router
from ipa_energy.serving.local.rpc import run, start_server
from ipa_energy.serving.local.stage_queue import StageQueue
from ipa_energy.serving.local.template import Template

SAMPLE_EVERY_S = 0.5


class _Server:
    """The other end of the socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._over = asyncio.Event()
        self._sets: dict[str, ReplicaSet] = {}
        self._samples: list[Sample] = []
        self._router = Router("", ())
        self._ledger: CpuLedger | None = None
        self._prices: Prices | None = None
        self._front: Any = None
        self._template: Template | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answer until the other end closes, then end everything."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection.fileno(), self._take)
        sampling = loop.create_task(self._sample_for_ever())
        await self._over.wait()
        loop.remove_reader(self._connection.fileno())
        sampling.cancel()
        if self._prices is not None:
            self._prices.close()
        self._router.close()
        if self._template is not None:
            self._template.close()
        await asyncio.gather(*(fleet.close() for fleet in self._sets.values()))
        if self._front is not None:
            await self._front.stop(None)

    def _take(self) -> None:
        try:
            what, arguments = self._connection.recv()
        except (EOFError, OSError):
            self._over.set()
            return
        task = asyncio.get_running_loop().create_task(self._answer(what, arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, what: str, arguments: tuple[Any, ...]) -> None:
        try:
            answer = await getattr(self, f"on_{what}")(*arguments)
        except IpaEnergyError as error:
            answer = error
        with contextlib.suppress(OSError):
            self._connection.send(answer)

    async def on_begin(self, job: Job) -> str:
        """Serve, with no replica yet; the address."""
        prices = prices_for(job.live.meter, job.live.powercap, job.power)
        self._prices = prices
        await prices.begin()
        cpus = Cpus()
        if job.models is not None:
            self._template = Template(job.models)
        queues = []
        for stage, launches in job.stages.items():
            queue = StageQueue(stage, drop_limit_s=job.drop_limit_s)
            queues.append(queue)
            self._sets[stage] = ReplicaSet(queue, _launcher(launches), cpus, self._template)
        self._router = Router(job.pipeline, queues)
        self._ledger = CpuLedger(
            prices,
            list(self._sets.values()),
            {"router": lambda: time.process_time() - prices.cpu_s},
        )
        if self._template is not None:
            self._ledger.add_overhead("template", self._template.cpu_s)
        if isinstance(prices, MeteredPrices):
            self._ledger.add_overhead("meter", lambda: prices.cpu_s)
        self._front, port = await start_server(self._router)
        return f"127.0.0.1:{port}"

    async def on_want(self, wanted: tuple[Wanted, ...]) -> None:
        """Move every stage there."""
        for fleet, one in zip(self._sets.values(), wanted, strict=True):
            fleet.want(one)

    async def on_wait(self, timeout_s: float) -> None:
        """Answer when all is as wanted."""
        await asyncio.gather(*(fleet.settled(timeout_s) for fleet in self._sets.values()))

    async def on_states(self) -> tuple[StageState, ...]:
        """What runs now."""
        return tuple(state for fleet in self._sets.values() for state in fleet.states())

    async def on_report(self) -> Report:
        """What happened since the last one."""
        await self._sample()
        samples, self._samples = self._samples, []
        router, sets = self._router, self._sets.values()
        ledger, prices = self._ledger, self._prices
        return Report(
            router.take_arrived(),
            router.take_finished(),
            samples,
            time.process_time(),
            events=sorted((e for s in sets for e in s.take_events()), key=lambda e: e.at_s),
            changes=[change for fleet in sets for change in fleet.take_changes()],
            spent=ledger.take_spent() if ledger else (),
            notes=tuple(prices.take_notes()) if prices else (),
        )

    async def _sample_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            await self._sample()

    async def _sample(self) -> None:
        if self._ledger is not None:
            self._samples.append(await self._ledger.sample())


def _launcher(launches: Mapping[Server, Launch]) -> Callable[[Option], Launch]:
    return lambda option: launches[(option.variant, option.allocation)]


if __name__ == "__main__":
    run(_Server(Connection(int(sys.argv[1]))).serve())
