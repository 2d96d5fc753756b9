"""How requests are dealt out to the options that a stage runs at once, in every backend.

Always to the one that is furthest behind its share: after n requests no option has got a whole
request more or less than its share of them for two options, and hardly more for several. Nothing is
random, so that the simulation and what serves deal alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Dealt(Protocol):
    """What requests are dealt out to."""

    @property
    def shares(self) -> Sequence[float]:
        """Of the requests of each class."""
        ...

    @property
    def credits(self) -> list[float]:
        """Requests of each class that it should have had more, up to now; 0 at the beginning."""
        ...


Lane = TypeVar("Lane", bound=Dealt)


def next_of(lanes: Sequence[Lane], kind: int = 0, whole: float = 1.0) -> Lane:
    """The one that gets the next request; of several as far behind the first.

    Args:
        lanes: at least one.
        kind: class of the request; 0 where nobody tells them apart.
        whole: sum of their shares.
    """
    for lane in lanes:
        lane.credits[kind] += lane.shares[kind]
    # Where a lane has gone with what it was ahead, the others are all behind one without a share.
    chosen = max(lanes, key=lambda lane: (lane.shares[kind] > 0, lane.credits[kind]))
    chosen.credits[kind] -= whole
    return chosen
