"""The process of a :class:`.plane.Plane`: serves, and does what comes over its socket."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import pickle
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ipa_energy.errors import GiveUpError, IpaEnergyError
from ipa_energy.records import Option
from ipa_energy.serving.deployment import StageState
from ipa_energy.serving.local import control
from ipa_energy.serving.local.cpu_groups import CpuGroups, Cpus
from ipa_energy.serving.local.cpu_ledger import CpuLedger, Sample
from ipa_energy.serving.local.machine_meter import MeteredPrices, Prices, prices_for
from ipa_energy.serving.local.plane import (
    ASKS,
    COLUMNS,
    Collected,
    Job,
    Report,
    Sending,
    Standing,
)
from ipa_energy.serving.local.replica_process import STOP_GRACE_S, Launch
from ipa_energy.serving.local.replica_set import ReplicaSet, Server, Wanted, server_of
from ipa_energy.serving.local.router import Router, Trip
from ipa_energy.serving.local.rpc import run, start_server
from ipa_energy.serving.local.sender import Line, Sender
from ipa_energy.serving.local.stage_queue import StageQueue
from ipa_energy.serving.local.template import Template
from ipa_energy.serving.observed import AdapterFigures

if TYPE_CHECKING:
    from ipa_energy.serving.local.exporter import Exporter

SAMPLE_EVERY_S = 0.5
LOOK_EVERY_S = 0.1
REMEMBERED_S = 3600
"""For so long it is known how many requests came in each second."""

FOREIGN_TRIP_S = 300.0
"""After so long a trip that none of our own requests made is forgotten."""


class PlanePipeline:
    """What is served, and what is asked about it."""

    listens_at = "127.0.0.1:0"

    def __init__(self, job: Job) -> None:
        self.job = job
        self.standing: Standing | None = None
        self.sender = Sender()
        self._sets: dict[str, ReplicaSet] = {}
        self._samples: list[Sample] = []
        self._router = Router("", ())
        self._ledger: CpuLedger | None = None
        self._prices: Prices | None = None
        self._exporter: Exporter | None = None
        self._exporter_port: int | None = None
        self._front: Any = None
        self._template: Template | None = None
        self._notes: list[str] = []
        self._wanted: tuple[tuple[Wanted, ...], ...] = ()
        self._groups: CpuGroups | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._trips: dict[str, Trip] = {}
        self._received: Counter[int] = Counter()
        self._given: tuple[float, list[Line], Report, dict[str, Trip]] | None = None
        self._returned: tuple[list[Line], Report] | None = None

    @property
    def has_begun(self) -> bool:
        """True once something was to be sent."""
        return self.standing is not None and self.standing.zero_s is not None

    async def close(self, *, grace_s: float) -> None:
        """End everything; who is asked to and does not is killed after so long."""
        if self._sampling is not None:
            self._sampling.cancel()
        for part in (self.sender, self._prices, self._exporter, self._router, self._template):
            if part is not None:
                part.close()
        await asyncio.gather(*(fleet.close(grace_s) for fleet in self._sets.values()))
        if self._groups is not None:
            self._groups.close()
        if self._front is not None:
            await self._front.stop(None)

    async def on_standing(self, _: None) -> Standing:
        """Serve, with no replica yet."""
        if self.standing is None:
            self.standing = Standing(await self._serve(), os.getpid())
        return self.standing

    async def on_adopt(self, logged_until_s: float) -> Standing:
        """Somebody else decides from now on, and knows what was logged up to then."""
        if self.standing is None or self._given is None:
            return await self.on_standing(None)
        given_until_s, lines, report, trips = self._given
        self._given = None
        if given_until_s > logged_until_s:
            self._returned = lines, report
            self._trips.update(trips)
            self.sender.taken -= len(lines)
        return self.standing

    async def on_want(self, wanted: tuple[tuple[Wanted, ...], ...]) -> None:
        """Move every stage there, and remember it for whoever takes over."""
        self._wanted = wanted
        for fleet, parts in zip(self._sets.values(), wanted, strict=True):
            fleet.want(*parts)

    async def on_wanted(self, _: None) -> tuple[tuple[Wanted, ...], ...]:
        """What every stage is to run; nothing before anybody said so."""
        return self._wanted

    async def on_wait(self, timeout_s: float) -> None:
        """Answer when all is as wanted."""
        await asyncio.gather(*(fleet.settled(timeout_s) for fleet in self._sets.values()))

    async def on_states(self, _: None) -> tuple[StageState, ...]:
        """What runs now."""
        return tuple(state for fleet in self._sets.values() for state in fleet.states())

    async def on_prepare(self, sending: Sending) -> None:
        """Start the load generator."""
        await self.sender.prepare(sending.job)
        standing = await self.on_standing(None)
        first_s, first_id = sending.first_s, sending.first_id
        self.standing = replace(standing, zero_s=None, first_s=first_s, first_id=first_id)
        if self._ledger is not None:
            self._ledger.add_overhead("generator", self.sender.cpu_s)

    async def on_begin(self, zero_s: float) -> None:
        """What happened before is not the run's."""
        await self.on_report(None)
        self._received.clear()
        standing = await self.on_standing(None)
        self.standing = replace(standing, zero_s=zero_s)
        await self.sender.begin(zero_s)

    async def on_received(self, window_s: int) -> list[int]:
        """What came in each of the last seconds."""
        self._note_received(self._router.take_arrived())
        zero_s, first_s = self._since
        now_s = int(time.perf_counter() - zero_s)
        return [self._received[s] for s in range(max(math.ceil(first_s), now_s - window_s), now_s)]

    async def on_report(self, _: None) -> Report:
        """What happened since the last one."""
        report = await self._report()
        self._samples.clear()
        return report

    async def on_collect(self, until_s: float) -> Collected:
        """What left of our own load; what was given before needs not be kept any more."""
        self._given = None
        if until_s == math.inf:
            await self.sender.wait_for_last()
        lines, report = self.sender.take(until_s), await self._report()
        self._note_received(report.arrived_s)
        for trip in report.trips:
            self._trips[trip.request_id] = trip
        report.trips.clear()
        report.arrived_s.clear()
        if self._returned is not None:
            earlier, before = self._returned
            self._returned = None
            self.sender.taken += len(earlier)
            lines, report = earlier + lines, before.then(report)
        # The next window begins with the last sample before it.
        before_it = [s for s in self._samples if s.at_s - self._since[0] <= until_s]
        self._samples = [*before_it[-1:], *self._samples[len(before_it) :]]
        trips = {str(line[0]): self._trips.pop(str(line[0]), None) for line in lines}
        known = {name: trip for name, trip in trips.items() if trip is not None}
        self._given = until_s, lines, report, known
        self._forget_foreign()
        rows = [_row(line, trips[str(line[0])], len(self._sets)) for line in lines]
        table = np.array(rows, dtype=np.float64).reshape(len(rows), COLUMNS + 3 * len(self._sets))
        troubles = [(row, line[3]) for row, line in enumerate(lines) if line[3] is not None]
        return Collected(control.packed(table), troubles, self.sender.taken, report)

    async def on_tell(self, figures: AdapterFigures) -> None:
        """What only the adapter knows."""
        if self._exporter is not None:
            self._exporter.told(figures)

    async def on_exporter(self, _: None) -> int | None:
        """Where figures are offered."""
        return self._exporter_port

    async def _serve(self) -> str:
        job = self.job
        prices = self._prices = self._prices_now()
        await prices.begin()
        queues = [StageQueue(stage, drop_limit_s=job.drop_limit_s) for stage in job.stages]
        self._sets = self._fleets(queues)
        self._router = Router(job.pipeline, queues, apart=job.apart)

        def exporting_s() -> float:
            return self._exporter.cpu_s if self._exporter else 0.0

        self._ledger = CpuLedger(
            prices,
            list(self._sets.values()),
            {"router": lambda: time.process_time() - prices.cpu_s - exporting_s()},
        )
        if self._template is not None:
            self._ledger.add_overhead("template", self._template.cpu_s)
        if isinstance(prices, MeteredPrices):
            self._ledger.add_overhead("meter", lambda: prices.cpu_s)
        if job.live.exporter_port is not None:
            await self._export(self._ledger, prices, job.live.exporter_port)
        self._front, port = await start_server(self._router, self.listens_at)
        self._sampling = asyncio.create_task(self._sample_for_ever())
        return f"{self.listens_at.rpartition(':')[0]}:{port}"

    def _prices_now(self) -> Prices:
        """What CPU time costs."""
        live = self.job.live
        return prices_for(live.meter, live.powercap, self.job.power)

    def _fleets(self, queues: Sequence[StageQueue]) -> dict[str, ReplicaSet]:
        """The replicas of each stage: processes of this machine."""
        job, self._groups = self.job, CpuGroups()
        cpus = Cpus(groups=self._groups)
        if job.models is not None:
            self._template = Template(job.models, self._note)
        return {
            queue.stage: ReplicaSet(queue, _launcher(job.stages[queue.stage]), cpus, self._template)
            for queue in queues
        }

    async def _export(self, ledger: CpuLedger, prices: Prices, port: int) -> None:
        """Offer figures to Prometheus."""
        from ipa_energy.serving.local.exporter import Exporter

        exporter = Exporter(
            self.job.pipeline,
            list(self._sets.values()),
            ledger,
            latency_sla_s=self.job.latency_sla_s,
            energy_sla_j=self.job.energy_sla_j,
            meter=prices.meter,
        )
        host = self.listens_at.rpartition(":")[0]
        self._exporter_port = await exporter.listen(port, host)
        self._exporter, self._router.on_left = exporter, exporter.left
        ledger.add_overhead("exporter", lambda: exporter.cpu_s)

    async def _report(self) -> Report:
        await self._sample()
        router, sets = self._router, self._sets.values()
        ledger, prices = self._ledger, self._prices
        notes, self._notes = self._notes, []
        return Report(
            router.take_arrived(),
            router.take_finished(),
            list(self._samples),
            time.process_time(),
            events=sorted((e for s in sets for e in s.take_events()), key=lambda e: e.at_s),
            changes=[change for fleet in sets for change in fleet.take_changes()],
            spent=ledger.take_spent() if ledger else (),
            notes=(*(prices.take_notes() if prices else ()), *notes),
            batches=tuple(fleet.queue.take_served() for fleet in sets),
            held_by=self._groups.told if self._groups else "",
            by_class=tuple(fleet.take_by_class() for fleet in sets),
        )

    def _note(self, what: str) -> None:
        """Say it with the next report; at once while nobody asks for one."""
        if self.has_begun:
            self._notes.append(what)
        else:
            sys.stderr.write(f"ipa-energy: warning: {what}\n")

    @property
    def _since(self) -> tuple[float, float]:
        """Second 0 of the run by ``perf_counter``, and the one at which sending began."""
        standing = self.standing
        if standing is None or standing.zero_s is None:
            raise GiveUpError("nothing is being sent yet")
        return standing.zero_s, standing.first_s

    def _note_received(self, arrived_s: list[float]) -> None:
        zero_s, _ = self._since
        self._received.update(int(at_s - zero_s) for at_s in arrived_s)
        if len(self._received) > 2 * REMEMBERED_S:
            oldest = max(self._received) - REMEMBERED_S
            self._received = Counter({s: n for s, n in self._received.items() if s > oldest})

    def _forget_foreign(self) -> None:
        """Trips of other clients, whose requests nobody here asks for."""
        oldest_s = time.perf_counter() - FOREIGN_TRIP_S
        if any(trip.left_s < oldest_s for trip in self._trips.values()):
            self._trips = {n: t for n, t in self._trips.items() if t.left_s >= oldest_s}

    async def _sample_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            await self._sample()

    async def _sample(self) -> None:
        if self._ledger is not None:
            sample = await self._ledger.sample()
            self._samples.append(sample)
            if self._exporter is not None:
                self._exporter.sampled(sample)


class PlaneControl:
    """The sockets at which the pipeline is asked, and the lease."""

    asks = ASKS

    def __init__(self, pipeline: PlanePipeline) -> None:
        self._pipeline = pipeline
        self._over = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._asking = 0
        self._heard_s = time.perf_counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_asked_to_end = False

    async def serve(self, first: socket.socket, listening: socket.socket | None) -> None:
        """Answer until told to end, or until the lease does; then end everything."""
        server = None
        if listening is not None:
            server = await asyncio.start_unix_server(self._talk, sock=listening)
        reader, writer = await asyncio.open_unix_connection(sock=first)
        talking = asyncio.create_task(self._talk(reader, writer))
        watching = asyncio.create_task(self._watch(has_socket=listening is not None))
        await self._over.wait()
        watching.cancel()
        if server is not None and listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # now, whenever the loop closes it
            server.close()
            if (lease := self._pipeline.job.lease) is not None:
                control.clear_away(lease.folder)
        await self._pipeline.close(grace_s=STOP_GRACE_S if self._is_asked_to_end else 0.0)
        talking.cancel()
        for task in self._tasks:
            task.cancel()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await self._admits(reader, writer) or self._writer is not None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, GiveUpError):
                await control.next_message(reader)
                busy = GiveUpError("another process decides what this pipeline runs")
                writer.write(control.frame(control.error_in(busy)))
                await writer.drain()
            writer.close()
            return
        self._writer = writer
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, GiveUpError):
            while True:
                message = await control.next_message(reader)
                task = asyncio.create_task(self._answer(message, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._writer = None
        writer.close()

    async def _admits(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True if the other end may tell this pipeline what to do."""
        del reader
        return control.is_ours(writer.get_extra_info("socket"))

    async def _answer(self, message: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
        what = str(message.get("ask"))
        if what == "end":
            self._is_asked_to_end = True
            self._over.set()
            return
        self._asking += 1
        try:
            if what not in self.asks:
                raise GiveUpError(f"nobody can be asked for {what!r}")
            takes, gives = self.asks[what]
            value = control.loaded(takes, message.get("with"))
            answer = await getattr(self._pipeline, f"on_{what}")(value)
            told: Mapping[str, Any] = {"answer": control.dumped(gives, answer)}
        except IpaEnergyError as error:
            told = control.error_in(error)
        finally:
            self._asking -= 1
            self._heard_s = time.perf_counter()
        with contextlib.suppress(OSError):
            if not writer.is_closing():  # who asked may be gone
                writer.write(control.frame(told))
                await writer.drain()

    async def _watch(self, *, has_socket: bool) -> None:
        """Who is gone may come back while the lease lasts, if there is anything to come back to."""
        while not self._over.is_set():
            await asyncio.sleep(LOOK_EVERY_S)
            lease = self._pipeline.job.lease
            is_alone, has_begun = self._writer is None, self._pipeline.has_begun
            silent_s = time.perf_counter() - self._heard_s
            if lease is None or not has_socket or not has_begun:
                ends = is_alone
            else:
                ends = silent_s > lease.seconds and (is_alone or not self._asking)
            if ends:
                self._over.set()


def _row(line: Line, trip: Trip | None, stages: int) -> list[float]:
    number, sent_s, done_s, trouble = line
    stopped_at = -1 if trouble is None else max(0, trip.stopped_at) if trip else 0
    failed = trouble is not None and not (trip is not None and trip.is_dropped)
    row = [math.nan] * (COLUMNS + 3 * stages)
    row[:COLUMNS] = [number, sent_s, done_s, stopped_at, failed]
    if trip is not None:
        times_s = zip(trip.queued_s, trip.started_s, trip.served_s, strict=True)
        known = [time_s for stage in times_s for time_s in stage]
        row[COLUMNS : COLUMNS + len(known)] = known
    return row


def _launcher(launches: Mapping[Server, Launch]) -> Callable[[Option], Launch]:
    return lambda option: launches[server_of(option)]


async def _main() -> None:
    job: Job = pickle.load(sys.stdin.buffer)
    first, *others = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    await PlaneControl(PlanePipeline(job)).serve(first, others[0] if others else None)


if __name__ == "__main__":
    run(_main())
