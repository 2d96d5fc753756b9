"""The load generator: an open loop in a process of its own.

::

    python -m ipa_energy.serving.local.generator      by :mod:`.sender`

Every request is sent at its time, whatever is outstanding, and its latency counts from that time,
the *intended* one: a client that waits for answers, or that starts its watch when it gets round to
sending, hides exactly the requests that a slow server delayed. How late the generator itself was is
reported beside it. Requests are encoded once, before the first is sent, and an answer is not
decoded: the generator shares the machine that is metered.

It reads one JSON line, ``{"address", "model", "times_s", "payloads", "classes", "kinds"}``, from
standard input (``classes`` are names and ``kinds`` the position of each request's among them, both
empty where requests are all alike), connects, writes ``{"ready": …}`` and waits for a second line,
``{"start_s": …}``: second 0 by the machine's monotonic clock, which all processes share. For every
request that left it writes a line ``[number, sent_s, done_s, trouble]`` in seconds since then, and
when all are done ``{"cpu_s": …}``. It ends when standard input does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ipa_energy.errors import ServingError
from ipa_energy.serving.local.protocol import (
    INPUT,
    REQUEST_CLASS,
    Named,
    Payload,
    request_bytes,
    with_id,
)
from ipa_energy.serving.local.rpc import RemoteReplica, run
from ipa_energy.serving.local.stub_model import end_with_parent

ANSWER_TIMEOUT_S = 120.0
"""After so long without an answer a request counts as failed, so that a run ends."""

READY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one request.

    Attributes:
        number: position in the order of sending.
        intended_s, sent_s: when it was to be sent, and was.
        done_s: when its answer, or the refusal, was there.
        trouble: why it was not answered; None if it was.
    """

    number: int
    intended_s: float
    sent_s: float
    done_s: float
    trouble: str | None = None

    @property
    def latency_s(self) -> float:
        """What a client waited, counted from the intended time."""
        return self.done_s - self.intended_s

    @property
    def lateness_s(self) -> float:
        """What the generator was late by."""
        return self.sent_s - self.intended_s


class OpenLoop:
    """Sends payloads in turn at given times.

    Args:
        server: whom to ask.
        times_s: when, in seconds since ``start_s``, ascending.
        start_s: second 0 by ``perf_counter``.
        payloads: what, one after the other and again from the first.
        classes: names of the classes of requests.
        kinds: of each request the position of its class; empty where they are all alike.
        tensor: how the server calls what it takes.
    """

    def __init__(
        self,
        server: RemoteReplica,
        times_s: Sequence[float],
        *,
        start_s: float,
        payloads: Sequence[Payload],
        classes: Sequence[str] = (),
        kinds: Sequence[int] = (),
        tensor: str = INPUT,
    ) -> None:
        self.server = server
        self.times_s = times_s
        self.start_s = start_s
        self.kinds = kinds
        self.requests = [
            [
                request_bytes(Named(server.model, "", replace(payload, parameters=said)), tensor)
                for payload in payloads
            ]
            for said in ([{REQUEST_CLASS: name} for name in classes] or [{}])
        ]
        self.finished: asyncio.Queue[Sent] = asyncio.Queue()

    async def send_all(self) -> None:
        """Return when the last request has left; each is in :attr:`finished` as it does."""
        async with asyncio.TaskGroup() as group:
            for number, intended_s in enumerate(self.times_s):
                # uvloop's timers have whole milliseconds and may be early by less than one.
                while (wait_s := self.start_s + intended_s - time.perf_counter()) > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(self._send(number, intended_s))

    async def _send(self, number: int, intended_s: float) -> None:
        sent_s = time.perf_counter() - self.start_s
        trouble = None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                mine = self.requests[self.kinds[number] if self.kinds else 0]
                encoded = mine[number % len(mine)]
                await self.server.answer(with_id(encoded, str(number)))
        except ServingError as error:
            trouble = str(error)
        except TimeoutError:
            trouble = f"no answer in {ANSWER_TIMEOUT_S:g} s"
        done_s = time.perf_counter() - self.start_s
        self.finished.put_nowait(Sent(number, intended_s, sent_s, done_s, trouble))


async def _main() -> None:
    job = json.loads(sys.stdin.readline() or "null")
    if job is None:
        return
    server = RemoteReplica("server", job["address"], model=job["model"])
    payloads = [Payload((base64.b64decode(text),)) for text in job["payloads"]]
    is_ready = await server.is_ready(READY_TIMEOUT_S)
    tensor = await server.input_name() if is_ready else INPUT
    _write({"ready": is_ready})
    sys.stdout.flush()
    begin = json.loads(await asyncio.to_thread(sys.stdin.readline) or "null")
    if begin is None:
        return
    end_with_parent()
    loop = OpenLoop(
        server,
        job["times_s"],
        start_s=begin["start_s"],
        payloads=payloads,
        classes=job["classes"],
        kinds=job["kinds"],
        tensor=tensor,
    )

    async def report() -> None:
        while True:
            sent = await loop.finished.get()
            lines = [sent]
            with contextlib.suppress(asyncio.QueueEmpty):
                while True:
                    lines.append(loop.finished.get_nowait())
            for one in lines:
                _write([one.number, one.sent_s, one.done_s, one.trouble])
            sys.stdout.flush()

    reporting = asyncio.create_task(report())
    await loop.send_all()
    while not loop.finished.empty():
        await asyncio.sleep(0)
    reporting.cancel()
    _write({"cpu_s": time.process_time()})
    sys.stdout.flush()
    await server.close()


def _write(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    run(_main())
