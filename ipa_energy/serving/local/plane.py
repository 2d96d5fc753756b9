"""The plane: queues, router and replicas of one pipeline, in a process beside who decides.

::

    Plane ──socket──▶ python -m ipa_energy.serving.local.plane_process FD

Solving a program for a second must not hold up a request, so the data path has a process to itself.
It does what it is told over the socket, one answer a question, and closes everything when the other
end does: nothing that it started outlives who started it.
"""

from __future__ import annotations

import math
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ipa_energy.errors import GiveUpError, IpaEnergyError
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.serving.base import Change, Event, LiveOptions, Spent, StageState
from ipa_energy.serving.local.cpu_ledger import Sample
from ipa_energy.serving.local.replica_process import Launch
from ipa_energy.serving.local.replica_set import Server, Wanted
from ipa_energy.serving.local.router import Trip


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
    """

    pipeline: str
    stages: Mapping[str, Mapping[Server, Launch]]
    power: PowerModel
    drop_limit_s: float = math.inf
    models: str | None = None
    live: LiveOptions = field(default_factory=LiveOptions)


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
    """

    arrived_s: list[float]
    trips: list[Trip]
    samples: list[Sample]
    cpu_s: float
    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    spent: tuple[Spent, ...] = ()
    notes: tuple[str, ...] = ()


class Plane:
    """A plane in a process of its own, and what it can be asked.

    Every method may raise a :class:`~ipa_energy.errors.ServingError`: the plane's, or that it died.

    Attributes:
        address: where the pipeline is served.
    """

    def __init__(self, job: Job) -> None:
        mine, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "ipa_energy.serving.local.plane_process", str(its.fileno())),
                pass_fds=(its.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = Connection(mine.detach())
        self.address: str = self._ask("begin", job)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def want(self, wanted: Sequence[Wanted]) -> None:
        """Move every stage there; returns at once."""
        self._ask("want", tuple(wanted))

    def wait(self, timeout_s: float) -> None:
        """Return when what was wanted serves, and nothing else."""
        self._ask("wait", timeout_s)

    def states(self) -> tuple[StageState, ...]:
        """What really runs."""
        states: tuple[StageState, ...] = self._ask("states")
        return states

    def report(self) -> Report:
        """What happened since the last report."""
        report: Report = self._ask("report")
        return report

    def close(self) -> None:
        """End it and everything that it started; safe to call twice."""
        self._socket.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, what: str, *arguments: object) -> Any:
        try:
            self._socket.send((what, arguments))
            answer = self._socket.recv()
        except (EOFError, OSError) as error:
            raise GiveUpError("the process that serves the pipeline has died") from error
        if isinstance(answer, IpaEnergyError):
            raise answer
        return answer
