"""A thread that calls a function now and then for as long as its owner lives.

A counter that wraps must be looked at before it wraps twice, in the process that adds it up: a
helper process would know of a wrap only some time after it happened.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any


class KeepAlive:
    """Calls a bound method every ``period_s`` seconds, until stopped or until its object is gone.

    Args:
        method: the bound method; its object is not kept alive by this.
        period_s: seconds between calls.
        name: of the thread.
    """

    def __init__(self, method: Callable[[], Any], period_s: float, *, name: str) -> None:
        self.period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_run, args=(weakref.WeakMethod(method), self._stop, period_s), name=name
        )
        self._thread.daemon = True
        self._thread.start()

    def stop(self) -> None:
        """Call no more; returns when a call in progress has ended."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()


def _run(
    method: weakref.WeakMethod[Callable[[], Any]], stop: threading.Event, period_s: float
) -> None:
    while not stop.wait(period_s):
        call = method()
        if call is None:
            return
        call()
        del call  # or the object would live until the next call
