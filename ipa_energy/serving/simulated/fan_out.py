"""Stages that see more or fewer requests than the pipeline: two people in a frame, two lookups.

A request spawns as many sub-requests at such a stage as m says, and goes on when all of them are
done. A fractional m is rounded at random, request by request, with mean m; a request that gets 0
skips the stage. The draw depends on the request's id and the seed alone, so that two runs over the
same load see the same people in the same frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


class FanOut:
    """Sub-requests of the requests inside one stage.

    Args:
        requests_per_input: m, above 0.
        rng: for rounding a fractional m.
    """

    def __init__(self, requests_per_input: float, rng: np.random.Generator) -> None:
        self._whole = math.floor(requests_per_input)
        self._fraction = requests_per_input - self._whole
        self._rng = rng
        self._count: dict[int, int] = {}
        self._left: dict[int, int] = {}

    def draw(self, ids: range) -> None:
        """Settle how many sub-requests each of the new requests ``ids`` will spawn here."""
        extra = self._rng.random(len(ids)) < self._fraction
        self._count.update(zip(ids, (self._whole + extra).tolist(), strict=True))

    def spawn(self, ids: Sequence[int]) -> list[int]:
        """How many sub-requests each of ``ids`` spawns, now that it is here."""
        counts = [self._count.pop(request) for request in ids]
        self._left.update((request, n) for request, n in zip(ids, counts, strict=True) if n)
        return counts

    def complete(self, ids: Sequence[int]) -> list[bool]:
        """For each finished sub-request: whether its request is done with that.

        Sub-requests of a dropped request complete nothing.
        """
        return [self._complete_one(request) for request in ids]

    def _complete_one(self, request: int) -> bool:
        left = self._left.get(request)
        if left is None:
            return False
        if left == 1:
            del self._left[request]
            return True
        self._left[request] = left - 1
        return False

    def drop(self, ids: Sequence[int]) -> list[int]:
        """The requests to which the dropped sub-requests ``ids`` belong, each once."""
        return [request for request in ids if self._left.pop(request, None) is not None]

    def forget(self, ids: Sequence[int]) -> None:
        """Requests ``ids`` were dropped before they came here."""
        for request in ids:
            self._count.pop(request, None)
