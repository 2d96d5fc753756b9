"""What can be said about a source of joules before anybody trusts it with a window.

A counter that is listed proves nothing: some virtual machines offer ``power/energy-psys/`` and keep
it at 0.00 J under full load. So each source is tried, and what was found is one of five states ::

    measured    a counter that moved under load
    estimated   a model, or a counter that somebody else's model feeds
    dead        it can be read, and does not move
    denied      it is there, and may not be read
    absent      there is none

``min_window_s`` follows from the counter's step: a reading is at most one step old at either end of
a window, so the worst error is one step of energy at each side, of opposite sign, and a window of
100 steps is good to 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["measured", "dead", "denied", "absent", "estimated"]
"""How a source answered. Only ``measured`` and ``estimated`` sources give figures."""

STATES: tuple[State, ...] = ("measured", "dead", "denied", "absent", "estimated")

STEPS_FOR_ONE_PERCENT = 100
"""Steps of a counter that a window must span so that the step at its edge is 1 % of it."""


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """One source of joules and what is known about it here.

    Attributes:
        name: the meter's name, e.g. ``rapl``.
        state: how it answered.
        reason: why it is in this state, in words.
        fix: what to do to use it; None where nothing need be done, or nothing can be.
        domains: what it counts (``package-0``, ``dram-0``, ``gpu-0`` …), dead ones left out.
        update_period_s: seconds between two steps of the counter, as observed; None if not known.
        min_window_s: smallest window whose joules are good to 1 %; None if not known.
    """

    name: str
    state: State
    reason: str
    fix: str | None = None
    domains: tuple[str, ...] = ()
    update_period_s: float | None = None
    min_window_s: float | None = None

    @property
    def usable(self) -> bool:
        """True if it gives figures, of whatever quality."""
        return self.state in ("measured", "estimated")


def min_window_for(update_period_s: float) -> float:
    """Smallest window in seconds that is good to 1 % on a counter of this period."""
    return STEPS_FOR_ONE_PERCENT * update_period_s
