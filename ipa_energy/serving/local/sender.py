"""Who starts a load generator, tells it what to send, and keeps what it reports until it is taken.

A plane has one, which sends on whoever decides: an adapter that is killed costs neither a request
nor an answer. So has a load test (:mod:`.load_test`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import Sequence

from ipa_energy.arrays import Floats
from ipa_energy.errors import ServingError
from ipa_energy.meters.cpu_time import process_tree_cpu_s
from ipa_energy.serving.load import ClassesOfRequests

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
