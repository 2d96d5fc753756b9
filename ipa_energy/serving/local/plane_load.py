"""The load of a live run, sent by the plane: it goes on while the adapter is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ipa_energy.arrays import Counts, Floats
from ipa_energy.serving.base import LoadSource
from ipa_energy.serving.load import ClassesOfRequests
from ipa_energy.serving.local.plane import Plane, Sending
from ipa_energy.serving.local.sender import EVERYTHING_S, PAYLOADS, generator_job


class PlaneLoad:
    """:class:`ipa_energy.serving.base.LoadSource` that a plane really sends.

    Args:
        load: what is to be sent, and when.
        plane: who sends it; if it was taken over, it is sending already.
        model: to which of its models.
        first_s: second of the run at which sending begins; what was to be sent earlier is not.
        first_id: number in the run of the first request that is sent.
        payloads: byte strings to send in turn.
        classes: of the requests of ``load``; None where they are all alike.
        on_start: called when sending begins, with second 0 by ``perf_counter``.
    """

    def __init__(
        self,
        load: LoadSource,
        plane: Plane,
        *,
        model: str,
        first_s: float = 0.0,
        first_id: int = 0,
        payloads: Sequence[bytes] = PAYLOADS,
        classes: ClassesOfRequests | None = None,
        on_start: Callable[[float], None],
    ) -> None:
        self.trace: Counts | None = load.trace
        self.duration_s = load.duration_s
        self._plane, self._on_start = plane, on_start
        standing = plane.standing
        self._zero_s = standing.zero_s
        self.first_s = first_s if self._zero_s is None else standing.first_s
        self.first_id = first_id if self._zero_s is None else standing.first_id
        self._times_s = load.sending_s(self.first_s, EVERYTHING_S)
        self._classes = classes
        if self._zero_s is None:
            job = generator_job(
                self._times_s,
                address=plane.address,
                model=model,
                payloads=payloads,
                classes=classes,
            )
            plane.prepare(Sending(job, self.first_s, self.first_id))

    def start(self) -> None:
        """Second ``first_s`` is now, unless the load is being sent already."""
        zero_s = self._zero_s
        if zero_s is None:
            zero_s = time.perf_counter() - self.first_s
            self._plane.begin(zero_s)
        self._on_start(zero_s)

    def sending_s(self, start_s: float, until_s: float) -> Floats:
        """When requests are to be sent in [start_s, until_s)."""
        first, last = np.searchsorted(self._times_s, [start_s, until_s])
        return self._times_s[first:last]

    def kinds(self, numbers: Counts) -> Counts:
        """The class of each of these requests, counted from the first that was sent; or none."""
        if self._classes is None:
            return np.zeros(0, dtype=np.int64)
        return self._classes.last(len(self._times_s))[numbers]

    def close(self) -> None:
        """The plane stops sending when it ends."""
