"""Who starts a load generator, tells it what to send, and keeps what it reports until it is taken.

A plane has one, which sends on whoever decides: an adapter that is killed costs neither a request
nor an answer. So has a load test, a load sent to somebody else's server (:func:`load_test`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.errors import ConfigError, ServingError, in_words
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.serving.load import ClassesOfRequests, TraceLoad
from ipa_energy.serving.local.generator import Sent

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 60.0
EVERYTHING_S = 1e18
PAYLOADS = (b"\0" * 1024,)

Line = tuple[int, float, float, str | None]
"""``number, sent_s, done_s, trouble`` of a request that left, as :mod:`.generator` writes it."""


class NotReadyError(ServingError):
    """The generator does not reach whom it is to send to."""


def generator_job(
    times_s: Floats,
    *,
    address: str,
    model: str,
    payloads: Sequence[bytes] = PAYLOADS,
    classes: ClassesOfRequests | None = None,
) -> str:
    """What :mod:`.generator` is told first: to whom to send what, and when.

    Args:
        times_s: when; the last ones of the trace, where that has begun.
        address: of the server.
        model: that is asked for.
        payloads: byte strings to send in turn.
        classes: of the requests of the whole trace; None where they are all alike.
    """
    job = {
        "address": address,
        "model": model,
        "times_s": times_s.tolist(),
        "payloads": [base64.b64encode(payload).decode() for payload in payloads],
        "classes": list(classes.names) if classes else [],
        "kinds": classes.last(len(times_s)).tolist() if classes else [],
    }
    return json.dumps(job)


class Sender:
    """A load generator; prepared, then begun.

    Attributes:
        pid: its process id; None before it exists.
        taken: how many requests have been taken so far.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self.taken = 0
        self._process: asyncio.subprocess.Process | None = None
        self._lines: list[Line] = []
        self._cpu_s = 0.0
        self._is_done = False
        self._over = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def prepare(self, job: str) -> None:
        """Start it with the line that says what to send, and return when it reaches the server.

        Args:
            job: see :func:`generator_job`.

        Raises:
            NotReadyError: it does not.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "ipa_energy.serving.local.generator"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        told: object = None
        with contextlib.suppress(TimeoutError, OSError, ValueError):
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._tell(job)
                told = json.loads(await self._output.readline())
        if not (isinstance(told, dict) and told.get("ready")):
            self.close()
            raise NotReadyError("the load generator does not reach the server, or has ended")
        self._reading = asyncio.create_task(self._read())

    async def begin(self, zero_s: float) -> None:
        """Second 0 of what is sent was at ``zero_s`` by ``perf_counter``."""
        with contextlib.suppress(OSError):
            await self._tell(json.dumps({"start_s": zero_s}))

    def take(self, until_s: float) -> list[Line]:
        """What left before ``until_s`` and was not taken yet, in the order of leaving.

        Raises:
            ServingError: the generator died before it had sent everything.
        """
        if self._over.is_set() and not self._is_done:
            raise ServingError("the load generator has died")
        taken = sorted(
            (line for line in self._lines if line[2] < until_s), key=lambda line: line[2]
        )
        self._lines = [line for line in self._lines if line[2] >= until_s]
        self.taken += len(taken)
        return taken

    async def wait_for_last(self) -> None:
        """Return when every request has left, or the generator has died."""
        if self._process is not None:
            await self._over.wait()

    def cpu_s(self) -> float:
        """CPU seconds that it has used so far."""
        if self.pid is not None and not self._over.is_set():
            with contextlib.suppress(OSError, IndexError, ValueError):
                self._cpu_s = max(self._cpu_s, process_tree_cpu_s(self.pid))
        return self._cpu_s

    def close(self) -> None:
        """Stop sending; safe to call twice."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> None:
        """Stop sending, and return when the generator has ended."""
        self.close()
        if self._process is not None:
            await self._process.wait()

    @property
    def _output(self) -> asyncio.StreamReader:
        if self._process is None or self._process.stdout is None:
            raise ServingError("nothing is being sent")
        return self._process.stdout

    async def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()

    async def _read(self) -> None:
        try:
            async for data in self._output:
                told = json.loads(data)
                if isinstance(told, dict):
                    self._cpu_s = max(self._cpu_s, told.get("cpu_s", 0.0))
                    self._is_done = "cpu_s" in told
                else:
                    self._lines.append((told[0], told[1], told[2], told[3]))
        finally:
            self._over.set()
            if self._process is not None:
                await self._process.wait()


CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTest:
    """What a server made of a load; latencies count from the intended times, NaN without answers.

    Attributes:
        target, model: whom was asked.
        duration_s: length of the load.
        requests, answered, failed: sent in all, of these answered, and not.
        first_failure: why the first was not; None if all were answered.
        latency_mean_s, latency_p50_s, latency_p95_s, latency_p99_s, latency_max_s: of answers.
        latency_sla_s: within which an answer is in time; None: nobody said.
        sla_attainment: answers in time over requests; NaN without an SLA.
        late_p50_s, late_p99_s: how much later than intended requests were sent.
        generator_cores: CPU seconds of the generator over those of the load, its start included.
    """

    target: str
    model: str
    duration_s: float
    requests: int
    answered: int
    failed: int
    first_failure: str | None
    latency_mean_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    latency_max_s: float
    latency_sla_s: float | None
    sla_attainment: float
    late_p50_s: float
    late_p99_s: float
    generator_cores: float


def load_test(
    load: TraceLoad,
    *,
    target: str,
    model: str,
    payloads: Sequence[bytes],
    latency_sla_s: float | None = None,
) -> LoadTest:
    """Send a load and wait for the last answer.

    Raises:
        ConfigError: ``target`` is no address.
        ServingError: nobody listens there, or the model is not ready.
    """
    _connect(target)
    times_s = load.sending_s(0.0, EVERYTHING_S)
    began_s = time.perf_counter()
    try:
        sent, cpu_s = asyncio.run(send_all(times_s, address=target, model=model, payloads=payloads))
    except NotReadyError as error:
        raise ServingError(
            f"{target} listens, but does not say over gRPC that its model {model} is ready;"
            " fix: name the model as the server does (--model), and the port of its gRPC"
        ) from error
    logger.info("sent and answered in %.1f s", time.perf_counter() - began_s)
    whom = (target, model)
    return summed(sent, whom, float(load.duration_s), cpu_s, latency_sla_s=latency_sla_s)


async def send_all(
    times_s: Floats, *, address: str, model: str, payloads: Sequence[bytes] = PAYLOADS
) -> tuple[list[Sent], float]:
    """Send requests, second 0 being now, and return when the last has left.

    Args:
        times_s: when to send, ascending.
        address: to whom.
        model: of that server.
        payloads: byte strings to send in turn.

    Returns:
        what came of each in the order of leaving, and the generator's CPU seconds.

    Raises:
        NotReadyError: the server is not reached, or does not have the model.
        ServingError: the generator ended before.
    """
    sender = Sender()
    try:
        job = generator_job(times_s, address=address, model=model, payloads=payloads)
        await sender.prepare(job)
        await sender.begin(time.perf_counter())
        await sender.wait_for_last()
        try:
            return sent_of(sender.take(math.inf), times_s), sender.cpu_s()
        except ServingError as error:
            raise ServingError("the load generator has ended before its last request") from error
    finally:
        await sender.ended()


def sent_of(lines: Sequence[Line], times_s: Floats) -> list[Sent]:
    """What became of requests, with the times at which they were to be sent."""
    return [
        Sent(number, float(times_s[number]), sent_s, done_s, trouble)
        for number, sent_s, done_s, trouble in lines
    ]


def summed(
    sent: Sequence[Sent],
    whom: tuple[str, str],
    duration_s: float,
    cpu_s: float,
    *,
    latency_sla_s: float | None,
) -> LoadTest:
    """The figures of what was sent to ``whom``, address and model."""
    answered_s = np.array([one.latency_s for one in sent if one.trouble is None])
    late_s = [one.lateness_s for one in sent] or [math.nan]
    troubles = [one.trouble for one in sorted(sent, key=lambda one: one.number) if one.trouble]
    p50_s, p95_s, p99_s = (
        np.quantile(answered_s, [0.5, 0.95, 0.99]) if len(answered_s) else [math.nan] * 3
    )
    in_time = 0 if latency_sla_s is None else int((answered_s <= latency_sla_s).sum())
    return LoadTest(
        target=whom[0],
        model=whom[1],
        duration_s=duration_s,
        requests=len(sent),
        answered=len(answered_s),
        failed=len(troubles),
        first_failure=troubles[0] if troubles else None,
        latency_mean_s=float(answered_s.mean()) if len(answered_s) else math.nan,
        latency_p50_s=float(p50_s),
        latency_p95_s=float(p95_s),
        latency_p99_s=float(p99_s),
        latency_max_s=float(answered_s.max(initial=-math.inf)) if len(answered_s) else math.nan,
        latency_sla_s=latency_sla_s,
        sla_attainment=in_time / len(sent) if latency_sla_s is not None and sent else math.nan,
        late_p50_s=float(np.quantile(late_s, 0.5)),
        late_p99_s=float(np.quantile(late_s, 0.99)),
        generator_cores=cpu_s / duration_s,
    )


def _connect(target: str) -> None:
    """See that somebody listens: gRPC itself would try for long and not say why."""
    host, colon, port = target.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(f"{target!r} is no address", where="--target", allowed="HOST:PORT")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S):
            pass
    except OSError as error:
        raise ServingError(f"{target} cannot be reached: {in_words(error)}") from error
