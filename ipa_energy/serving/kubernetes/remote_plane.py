"""The router's pod as who decides sees it: a :class:`~ipa_energy.serving.local.plane.Plane`."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from ipa_energy.errors import GiveUpError, ServingError, TryAgainError
from ipa_energy.serving.kubernetes.router_pod import POD_ASKS, PodJob
from ipa_energy.serving.local import control
from ipa_energy.serving.local.plane import Plane, Standing

CONNECT_S = 5.0
ANSWER_S = 10.0
CLOCK_LOOKS = 5
TOKEN_FILE = "control.token"


class RemotePlane(Plane):
    """A router that was reached.

    Args:
        host, port: of its control.
        token: that it asks for.

    Raises:
        TryAgainError: it does not answer, or is another run's that is about to end.
    """

    asks = POD_ASKS

    def __init__(self, host: str, port: int, token: str) -> None:
        self._lock = threading.Lock()
        self._process, self._folder = None, None
        try:
            made = socket.create_connection((host, port), CONNECT_S)
        except OSError as error:
            raise TryAgainError(
                f"the router's pod at {host} cannot be reached ({error.strerror or error});"
                " fix: run this in the cluster (configs/kubernetes/run.yaml), or where the"
                " pods' network leads"
            ) from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line = control.Line(made)
        try:
            self._ask("hello", token, timeout_s=ANSWER_S)
            self.is_busy = bool(self._ask("busy", timeout_s=ANSWER_S))
            self.clock_ahead_s = self._clock_ahead_s()
        except GiveUpError as error:
            self._line.close()
            raise TryAgainError(f"the router at {host}: {error}") from error

    def serve(self, job: PodJob) -> None:
        """Have it serve this, with no replica yet."""
        self._ask("job", job)
        self.standing: Standing = self._ask("standing")

    def adopt(self, logged_until_s: float) -> None:
        """Go on with what it serves; its log has everything up to then."""
        standing: Standing = self._ask("adopt", logged_until_s)
        zero_s = None if standing.zero_s is None else standing.zero_s - self.clock_ahead_s
        first = standing.first_s, standing.first_id
        self.standing = Standing(standing.address, standing.pid, zero_s, *first)

    def close(self) -> None:
        """Tell it to end; safe to call twice."""
        self._line.tell({"ask": "end", "with": None})
        self._line.close()

    def _clock_ahead_s(self) -> float:
        """The router's clock less ours, by the quickest of some answers."""
        found = []
        for _ in range(CLOCK_LOOKS):
            before_s = time.perf_counter()
            theirs_s = float(self._ask("clock"))
            after_s = time.perf_counter()
            found.append((after_s - before_s, theirs_s - (before_s + after_s) / 2))
        return min(found)[1]

    def _ask(self, what: str, value: object = None, *, timeout_s: float | None = None) -> Any:
        with self._lock:
            return super()._ask(what, value, timeout_s=timeout_s)


def token_of(folder: Path | None) -> str:
    """The word between a run and its router, kept in the run folder for whoever resumes it."""
    path = None if folder is None else folder / TOKEN_FILE
    if path is not None and path.exists():
        return path.read_text(encoding="ascii").strip()
    token = secrets.token_hex(16)
    if path is not None:
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(made, "w", encoding="ascii") as file:
                file.write(token + "\n")
        except OSError as error:
            raise ServingError(f"{path}: cannot be written: {error.strerror}") from error
    return token
