"""What runs in a thread beside a test: begun when it is made, ended by ``close`` or ``with``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Beside:
    """Something in a thread of its own.

    Attributes:
        is_closing: set once it is to end.
        errors: what went wrong in it.
    """

    def __init__(self) -> None:
        self.is_closing = threading.Event()
        self.errors: list[Exception] = []

    def _begin(self, run: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it.

        Raises:
            Exception: what went wrong in it meanwhile.
        """
        self.is_closing.set()
        self._wake()
        self._thread.join()
        for each in self.errors:
            raise each

    def _wake(self) -> None:
        """Make the thread look whether it is to end."""
