"""Keeping cores busy for a moment, to see whether a counter follows.

Threads suffice: hashing a large buffer runs outside the interpreter's lock, so that each thread
fills a core and the reader beside them still gets its turn.
"""

from __future__ import annotations

import hashlib
import os
import threading

BUFFER_BYTES = 1 << 18
"""About 0.2 ms of hashing: long against the lock's cost, short against a counter's step."""

MAX_THREADS = 4


class BusyCores:
    """Keeps up to four of the cores this process may use busy within a ``with`` block.

    One core that it may use is left to the reader, if there is more than one.
    """

    def __init__(self, threads: int | None = None) -> None:
        usable = len(os.sched_getaffinity(0))
        self._count = threads or max(1, min(MAX_THREADS, usable - 1))
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> BusyCores:
        """Start."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._spin, name="busy", daemon=True)
            for _ in range(self._count)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop; returns when every thread has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _spin(self) -> None:
        buffer = bytes(BUFFER_BYTES)
        while not self._stop.is_set():
            hashlib.sha256(buffer).digest()
