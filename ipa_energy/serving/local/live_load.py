"""The load of a live run: a generator in its own process, started with the run's first second."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ipa_energy.arrays import Counts, Floats
from ipa_energy.errors import ServingError
from ipa_energy.serving.base import LoadSource
from ipa_energy.serving.local.generator import Sent

EVERYTHING_S = 1e18
PAYLOADS = (b"\0" * 1024,)


def generator_job(
    times_s: Floats, *, address: str, model: str, payloads: Sequence[bytes] = PAYLOADS
) -> dict[str, Any]:
    """What :mod:`.generator` is told first: to whom to send what, and when."""
    return {
        "address": address,
        "model": model,
        "times_s": times_s.tolist(),
        "payloads": [base64.b64encode(payload).decode() for payload in payloads],
    }


class LiveLoad:
    """:class:`ipa_energy.serving.base.LoadSource` that really sends.

    Args:
        load: what is to be sent, and when.
        address, model: to whom.
        first_s: second of the run at which sending begins; what was to be sent earlier is not.
        payloads: byte strings to send in turn.
        on_start: called when sending begins, with second 0 by ``perf_counter``.
    """

    def __init__(
        self,
        load: LoadSource,
        *,
        address: str,
        model: str,
        first_s: float = 0.0,
        payloads: Sequence[bytes] = PAYLOADS,
        on_start: Callable[[float], None] | None = None,
    ) -> None:
        self.trace: Counts | None = load.trace
        self.duration_s = load.duration_s
        self.cpu_s = 0.0
        self._times_s = load.sending_s(first_s, EVERYTHING_S)
        self._first_s, self._on_start = first_s, on_start
        self._finished: list[Sent] = []
        self._lock = threading.Lock()
        self._ready, self._done = threading.Event(), threading.Event()
        self._is_ready = False
        self._process = subprocess.Popen(
            (sys.executable, "-m", "ipa_energy.serving.local.generator"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._tell(generator_job(self._times_s, address=address, model=model, payloads=payloads))

    @property
    def pid(self) -> int:
        """Process id of the generator."""
        return self._process.pid

    @property
    def requests(self) -> int:
        """How many it sends in all."""
        return len(self._times_s)

    def start(self) -> None:
        """Second ``first_s`` is when the generator is connected, that is about now.

        Raises:
            ServingError: it cannot reach the server, or has ended.
        """
        self._ready.wait()
        if not self._is_ready:
            raise ServingError("the load generator does not reach the server, or has ended")
        zero_s = time.perf_counter() - self._first_s
        if self._on_start is not None:
            self._on_start(zero_s)
        self._tell({"start_s": zero_s})

    def sending_s(self, start_s: float, until_s: float) -> Floats:
        """When requests are to be sent in [start_s, until_s)."""
        first, last = np.searchsorted(self._times_s, [start_s, until_s])
        return self._times_s[first:last]

    def take_finished(self, until_s: float) -> list[Sent]:
        """What left before ``until_s`` and was not taken yet, in the order of leaving."""
        with self._lock:
            taken = [one for one in self._finished if one.done_s < until_s]
            self._finished = [one for one in self._finished if one.done_s >= until_s]
        return sorted(taken, key=lambda one: one.done_s)

    def wait_for_last(self) -> None:
        """Return when every request has left.

        Raises:
            ServingError: the generator ended before.
        """
        self._done.wait()
        if self.cpu_s == 0.0:
            raise ServingError("the load generator has ended before its last request")

    def check(self) -> None:
        """See that the generator lives, or has done all.

        Raises:
            ServingError: it does not.
        """
        if self._done.is_set() and self.cpu_s == 0.0:
            raise ServingError("the load generator has died")

    def close(self) -> None:
        """Stop sending."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _tell(self, what: object) -> None:
        try:
            if self._process.stdin is None:
                raise BrokenPipeError
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ServingError("the load generator has ended before it began") from error

    def _read(self) -> None:
        times_s = self._times_s.tolist()
        for line in self._process.stdout or ():
            told = json.loads(line)
            if isinstance(told, dict):
                self._is_ready = self._is_ready or told.get("ready", False)
                self._ready.set()
                self.cpu_s = told.get("cpu_s", 0.0)
                continue
            number, sent_s, done_s, trouble = told
            with self._lock:
                self._finished.append(Sent(number, times_s[number], sent_s, done_s, trouble))
        self._ready.set()
        self._done.set()
