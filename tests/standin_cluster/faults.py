"""What goes wrong at the stand-in API server, on purpose: a script of faults."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .api_errors import ApiError


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request.

    Attributes:
        delay_s: it is answered that much later.
        drop: "before" it has an effect, or "after": the connection is closed without an answer.
        code: it is refused with this HTTP code and has no effect; 0: it is not.
        retry_after_s: what a refusal says of when to come again; 0: nothing.
    """

    delay_s: float = 0.0
    drop: str = ""
    code: int = 0
    retry_after_s: int = 0

    def refusal(self) -> ApiError:
        """What the server answers instead."""
        reason, message = {
            429: ("TooManyRequests", "the server has received too many requests"),
            500: ("InternalError", "Internal error occurred: as the script has it"),
            503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
        }.get(self.code, ("", "as the script has it"))
        headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else None
        details = {"retryAfterSeconds": self.retry_after_s} if self.retry_after_s else None
        return ApiError(self.code, reason, message, details, headers=headers)


FAULTS = (
    Fault(delay_s=0.05),
    Fault(drop="before"),
    Fault(drop="after"),
    Fault(code=429, retry_after_s=1),
    Fault(code=500),
    Fault(code=503),
)
"""One of each kind."""

Matches = Callable[[str, str], bool]


def writes(method: str, path: str) -> bool:
    """Whether a request is a write."""
    return method != "GET"


class FaultScript:
    """What happens to which request; thread-safe. Watches are requests as well.

    ::

        script.next(Fault(code=500), times=3)         the next three writes
        script.at_random(0.1, seed=1)                 one write in ten, one of FAULTS each
        script.outage(60.0)                           503 to everything for a minute
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queued: list[tuple[Fault, Matches]] = []
        self._share = 0.0
        self._kinds: Sequence[Fault] = FAULTS
        self._rng = random.Random(0)
        self._down_until_s = 0.0
        self.happened = 0

    def next(self, fault: Fault, times: int = 1, matches: Matches = writes) -> None:
        """The next ``times`` requests that match have this fault."""
        with self._lock:
            self._queued += [(fault, matches)] * times

    def at_random(self, share: float, seed: int, kinds: Sequence[Fault] = FAULTS) -> None:
        """From now on this share of the writes has one of ``kinds``; 0.0: none."""
        with self._lock:
            self._share, self._kinds = share, kinds
            self._rng = random.Random(seed)

    def clear(self) -> None:
        """Nothing goes wrong from now on."""
        with self._lock:
            self._queued, self._share, self._down_until_s = [], 0.0, 0.0

    def outage(self, duration_s: float) -> None:
        """From now on, for so long, everything is answered 503."""
        with self._lock:
            self._down_until_s = time.monotonic() + duration_s

    def of(self, method: str, path: str) -> Fault | None:
        """What happens to a request; None: nothing."""
        with self._lock:
            fault = self._drawn(method, path)
            self.happened += fault is not None
            return fault

    def _drawn(self, method: str, path: str) -> Fault | None:
        if time.monotonic() < self._down_until_s:
            return Fault(code=503)
        for n, (fault, matches) in enumerate(self._queued):
            if matches(method, path):
                del self._queued[n]
                return fault
        if self._share and writes(method, path) and self._rng.random() < self._share:
            return self._rng.choice(self._kinds)
        return None
