"""The plane: queues, router, replicas and load of one pipeline, in a process beside who decides.

::

    Plane ──socket──▶ python -m ipa_energy.serving.local.plane_process FD [LISTENING_FD]

Solving a program for a second must not hold up a request, so the data path has a process to itself.
It does what it is told over the socket (:mod:`.control`), one answer a question.

Without a lease it ends, and everything that it started with it, as soon as the other end does. With
one, from the first request on, it goes on serving and sending: whoever comes to the socket in the
run folder in time takes the pipeline over, with everything that was answered meanwhile and all that
was given to the one before and not logged. Otherwise it ends with the lease.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ipa_energy.arrays import Floats
from ipa_energy.errors import GiveUpError, ServingError
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.serving.base import LiveOptions
from ipa_energy.serving.deployment import StageState
from ipa_energy.serving.local import control
from ipa_energy.serving.local.cpu_groups import sweep_left
from ipa_energy.serving.local.cpu_ledger import Sample
from ipa_energy.serving.local.replica_process import Launch
from ipa_energy.serving.local.replica_set import Server, Wanted
from ipa_energy.serving.local.router import Trip
from ipa_energy.serving.observed import AdapterFigures, Spent
from ipa_energy.serving.served import Change, Event

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 60.0
BEGIN_TIMEOUT_S = 180.0
"""Until a new process has imported what it needs, on a machine that is busy with much else."""

END_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Lease:
    """For how long a pipeline goes on when nobody decides.

    Attributes:
        folder: where its socket is.
        seconds: after the last word of the adapter.
    """

    folder: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """What a plane serves.

    Attributes:
        pipeline: the model that clients ask for.
        stages: name → how each server that it may run is started.
        power: of this machine.
        drop_limit_s: see :class:`.stage_queue.StageQueue`.
        models: folder, file or module of the pipeline whose models are forked
            (:class:`.template.Template`); None where every server is a program of its own.
        live: how it is watched.
        lease: None: it ends with who started it.
        latency_sla_s, energy_sla_j: limits of a request, for the exporter; None without.
        apart: see :class:`.router.Router`.
    """

    pipeline: str
    stages: Mapping[str, Mapping[Server, Launch]]
    power: PowerModel
    drop_limit_s: float = math.inf
    models: str | None = None
    live: LiveOptions = field(default_factory=LiveOptions)
    lease: Lease | None = None
    latency_sla_s: float | None = None
    energy_sla_j: float | None = None
    apart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What happened since the last report; times by ``perf_counter``.

    Attributes:
        arrived_s: when each request came.
        trips: those that ended.
        samples: of the joules so far.
        cpu_s: CPU seconds of the plane itself, since it started.
        events: what happened to replicas.
        changes: those of stages that ended.
        spent: what each replica was charged with.
        notes: what happened to the meter, in words.
        batches: of each stage the requests that it served, and in how many batches.
        held_by: what keeps replicas to their CPUs, in words.
        by_class: of each stage (option, class, requests) that were served.
    """

    arrived_s: list[float]
    trips: list[Trip]
    samples: list[Sample]
    cpu_s: float
    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    spent: tuple[Spent, ...] = ()
    notes: tuple[str, ...] = ()
    batches: tuple[tuple[int, int], ...] = ()
    held_by: str = ""
    by_class: tuple[tuple[tuple[str, str, int], ...], ...] = ()

    def then(self, later: Report) -> Report:
        """This one and the next as one."""
        return replace(
            later,
            arrived_s=self.arrived_s + later.arrived_s,
            trips=self.trips + later.trips,
            samples=self.samples + later.samples,
            events=self.events + later.events,
            changes=self.changes + later.changes,
            spent=(*self.spent, *later.spent),
            notes=(*self.notes, *later.notes),
            batches=tuple(
                (mine[0] + new[0], mine[1] + new[1])
                for mine, new in zip(self.batches, later.batches, strict=True)
            ),
            by_class=tuple(
                (*mine, *new) for mine, new in zip(self.by_class, later.by_class, strict=True)
            ),
        )


COLUMNS = 5
"""Of a :class:`Collected` table before the times: number, sent_s, done_s, stopped_at, failed; then
for each stage queued_s, started_s, served_s."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The requests of the plane's own load that left, and what else happened.

    Attributes:
        table: a row a request, :func:`.control.packed`; ``sent_s`` and ``done_s`` are seconds of
            the run, the stages' times by ``perf_counter``, NaN for what did not happen.
        troubles: (row, why it was not answered).
        left: how many have left since sending began.
        report: no trips in it.
    """

    table: str
    troubles: list[tuple[int, str]]
    left: int
    report: Report

    def rows(self, stages: int) -> Floats:
        """The table."""
        return control.unpacked(self.table, COLUMNS + 3 * stages)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a plane serves already, for whoever takes it over.

    Attributes:
        address: where the pipeline is served.
        pid: its process id.
        zero_s: second 0 of the run by ``perf_counter``; None if nothing was sent yet.
        first_s: second of the run at which its sending began.
        first_id: number in the run of the first request that it sent.
    """

    address: str
    pid: int
    zero_s: float | None = None
    first_s: float = 0.0
    first_id: int = 0


@dataclass(frozen=True, slots=True)
class Sending:
    """What is to be sent.

    Attributes:
        job: the line for :mod:`.generator`.
        first_s, first_id: see :class:`Standing`.
    """

    job: str
    first_s: float
    first_id: int


ASKS: Mapping[str, tuple[Any, Any]] = {
    "standing": (None, Standing),
    "adopt": (float, Standing),
    "want": (tuple[tuple[Wanted, ...], ...], None),
    "wanted": (None, tuple[tuple[Wanted, ...], ...]),
    "wait": (float, None),
    "states": (None, tuple[StageState, ...]),
    "report": (None, Report),
    "received": (int, list[int]),
    "prepare": (Sending, None),
    "begin": (float, None),
    "collect": (float, Collected),
    "tell": (AdapterFigures, None),
    "exporter": (None, int | None),
    "end": (None, None),
}
"""Question → what it takes, and what it gives."""


class Plane:
    """A plane in a process of its own, and what it can be asked.

    Every method may raise a :class:`~ipa_energy.errors.ServingError`: the plane's, or that it died.

    Attributes:
        standing: what it served when it was begun or taken over.
        clock_ahead_s: by how much its ``perf_counter`` is ahead of ours: on this machine there is
            one.
    """

    asks = ASKS
    clock_ahead_s = 0.0

    def __init__(self, job: Job) -> None:
        self._process: subprocess.Popen[bytes] | None
        self._process, self._line = process, _ = _started(job)
        try:
            self._pidfd = os.pidfd_open(process.pid)
            self.standing: Standing = self._ask("standing", timeout_s=BEGIN_TIMEOUT_S)
        except BaseException:
            self._line.close()
            process.kill()
            process.wait()
            raise
        self._folder = job.lease.folder if job.lease else None

    @classmethod
    def taken_over(cls, folder: Path, logged_until_s: float) -> Plane | None:
        """The plane that serves the run in a folder; None if none does.

        Args:
            folder: of the run.
            logged_until_s: up to where its log has what was collected.
        """
        found = control.connected(folder)
        if found is None:
            return None
        plane = cls.__new__(cls)
        plane._process, plane._line, plane._folder = None, control.Line(found), folder
        try:
            plane.standing = plane._ask("adopt", logged_until_s)
            plane._pidfd = os.pidfd_open(plane.standing.pid)
        except (GiveUpError, ProcessLookupError):
            plane._line.close()
            raise
        return plane

    @property
    def address(self) -> str:
        """Where the pipeline is served."""
        return self.standing.address

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.standing.pid

    def want(self, wanted: Sequence[Sequence[Wanted]]) -> None:
        """Move every stage to its parts; returns at once."""
        self._ask("want", tuple(tuple(parts) for parts in wanted))

    def wanted(self) -> tuple[tuple[Wanted, ...], ...]:
        """What every stage is to run, an entry for each option, as it was told last."""
        told: tuple[tuple[Wanted, ...], ...] = self._ask("wanted")
        return told

    def wait(self, timeout_s: float) -> None:
        """Return when what was wanted serves, and nothing else."""
        self._ask("wait", timeout_s, timeout_s=timeout_s + ANSWER_TIMEOUT_S)

    def states(self) -> tuple[StageState, ...]:
        """What really runs."""
        states: tuple[StageState, ...] = self._ask("states")
        return states

    def report(self) -> Report:
        """What happened since the last report."""
        report: Report = self._ask("report")
        return report

    def received_rps(self, window_s: int) -> list[int]:
        """Requests that came in each of the last whole seconds of the run."""
        received: list[int] = self._ask("received", window_s)
        return received

    def prepare(self, sending: Sending) -> None:
        """Have a load generator ready, which reaches the router."""
        self._ask("prepare", sending, timeout_s=2 * ANSWER_TIMEOUT_S)

    def begin(self, zero_s: float) -> None:
        """Second 0 of the run was at ``zero_s`` by ``perf_counter``: send what is to be sent."""
        self._ask("begin", zero_s + self.clock_ahead_s)

    def collect(self, until_s: float) -> Collected:
        """What left before ``until_s`` seconds of the run; infinity: all, when it has.

        With this, what was collected before counts as logged.
        """
        timeout_s = ANSWER_TIMEOUT_S if until_s < math.inf else None
        collected: Collected = self._ask("collect", until_s, timeout_s=timeout_s)
        return collected

    def tell(self, figures: AdapterFigures) -> None:
        """What only the adapter knows, for the exporter."""
        self._ask("tell", figures)

    def exporter_port(self) -> int | None:
        """Where its figures are offered to Prometheus; None: nowhere."""
        port: int | None = self._ask("exporter")
        return port

    def close(self) -> None:
        """End it and everything that it started; safe to call twice."""
        if self._pidfd < 0:
            return
        self._line.tell({"ask": "end", "with": None})
        self._line.close()
        if not select.select([self._pidfd], [], [], END_TIMEOUT_S)[0]:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [], END_TIMEOUT_S)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._process is not None:
            self._process.wait()
        sweep_left()
        if self._folder is not None:
            control.clear_away(self._folder)  # what it could not clear away itself

    def _ask(self, what: str, value: object = None, *, timeout_s: float | None = None) -> Any:
        takes, gives = self.asks[what]
        message = {"ask": what, "with": control.dumped(takes, value)}
        if timeout_s is None and what != "collect":
            timeout_s = ANSWER_TIMEOUT_S
        answer = self._line.ask(message, timeout_s)
        return control.loaded(gives, answer.get("answer"))


def _started(job: Job) -> tuple[subprocess.Popen[bytes], control.Line]:
    mine, its = socket.socketpair()
    passed = [its]
    if job.lease is not None:
        listening = control.listening(job.lease.folder)
        passed += [listening] if listening else []
        if listening is None:
            logger.warning(
                "%s cannot hold a socket: if this command is killed, the pipeline ends with it",
                job.lease.folder,
            )
    numbers = [end.fileno() for end in passed]
    try:
        process = subprocess.Popen(
            (sys.executable, "-m", "ipa_energy.serving.local.plane_process", *map(str, numbers)),
            pass_fds=numbers,
            stdin=subprocess.PIPE,
            # Whatever is started there begins with a new program, never with gRPC.
            env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "false"},
            start_new_session=True,
        )
    except OSError as error:
        mine.close()
        raise ServingError(f"cannot start a process: {error.strerror}") from error
    finally:
        for end in passed:
            end.close()
    with contextlib.suppress(BrokenPipeError), process.stdin or contextlib.nullcontext() as pipe:
        if pipe is not None:  # nobody but us can write to it
            pipe.write(pickle.dumps(job))
    return process, control.Line(mine)
