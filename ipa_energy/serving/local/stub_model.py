"""A model server whose model only takes its time: a profile served without its models.

::

    python -m ipa_energy.serving.local.stub_model '{"name": "yolov5n", "batch_s": {"1": 0.05}}'

It answers every request with what it got, after the time that the profile gives a batch of that
size: asleep, or with ``work`` at one core's full load. With ``yields`` an element becomes so many,
in the mean, as where the next stage is to see several of one. When it listens it writes
``{"port": …}`` on standard output. It ends when standard input does, that is when who started it is
gone.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import ctypes
import json
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ipa_energy.serving.local.protocol import Named, requests_in, spread
from ipa_energy.serving.local.rpc import run, start_server

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class StubModel:
    """:class:`.rpc.Service` that takes its time.

    Attributes:
        name: of the model.
        batch_s: batch size → seconds; between two sizes linear, outside like the nearest.
        works: True if the time is spent computing.
        yields: elements that one becomes, in the mean: a fraction is rounded at random.
    """

    name: str
    batch_s: Mapping[int, float]
    works: bool = False
    yields: float = 1.0

    def is_ready(self, model: str) -> bool:
        """Always."""
        return model in ("", self.name)

    def seconds(self, batch: int) -> float:
        """What a batch of this size takes."""
        sizes = sorted(self.batch_s)
        at = bisect.bisect_left(sizes, batch)
        if at == 0 or at == len(sizes):
            return self.batch_s[sizes[min(at, len(sizes) - 1)]]
        low, high = sizes[at - 1], sizes[at]
        share = (batch - low) / (high - low)
        return self.batch_s[low] * (1 - share) + self.batch_s[high] * share

    async def infer(self, named: Named) -> Named:
        """The same again, later."""
        payload = named.payload
        seconds = self.seconds(requests_in(payload))
        if self.works:
            await asyncio.to_thread(_work, seconds)
        elif seconds:
            await asyncio.sleep(seconds)
        if self.yields != 1:
            payload = spread(payload, [[e] * rounded(self.yields) for e in payload.elements])
        return Named(self.name, named.request_id, payload)


def rounded(mean: float) -> int:
    """A whole number beside it, at random, so that the mean is right."""
    return math.floor(mean + random.random())


def _work(seconds: float) -> None:
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


def end_with_parent() -> None:
    """End this process when the one that started it does, however that ends.

    Standard input is a pipe whose other end only the parent holds. A process that is stopped cannot
    notice that it closes, so the kernel is asked to kill it, too; the pipe remains where it cannot.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


async def serve(model: StubModel) -> None:
    """Serve until told to stop: then finish what is under way, for five seconds at most."""
    server, port = await start_server(model)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop(5.0)


def main() -> None:
    """Serve what the only argument says."""
    end_with_parent()
    told = json.loads(sys.argv[1])
    batch_s = {int(size): float(seconds) for size, seconds in told["batch_s"].items()}
    works, yields = bool(told.get("work", False)), float(told.get("yields", 1))
    run(serve(StubModel(told["name"], batch_s, works, yields)))


if __name__ == "__main__":
    main()
