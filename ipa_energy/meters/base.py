"""What every energy meter is: something read twice around a window of work.

::

    meter.read() ── work ── meter.read()          joules = meter.energy_between(first, second)

A meter reads *cumulative* counters, so one :class:`Reading` can begin many windows and nothing has
to be started or stopped. Windows shorter than ``min_window_s`` mean nothing on that meter and are
refused by those who measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ipa_energy.records import Quality


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a meter's cumulative counters.

    Attributes:
        time_s: ``time.perf_counter()`` at the read.
        counters: counter name → its cumulative value in the meter's own unit.
    """

    time_s: float
    counters: dict[str, float]


@dataclass(frozen=True, slots=True)
class Energy:
    """What a window cost.

    Attributes:
        energy_j: joules of the window, total over domains, idle share included.
        duration_s: length of the window.
        domains: joules by domain (``package-0``, ``dram-0``, ``gpu-0`` …), summing to ``energy_j``.
        meter: the meter's name.
        quality: ``measured``, ``estimated`` or ``imported``.
    """

    energy_j: float
    duration_s: float
    domains: dict[str, float]
    meter: str
    quality: Quality

    @property
    def power_w(self) -> float:
        """Mean watts over the window."""
        return self.energy_j / self.duration_s


class Meter(Protocol):
    """A source of joules. Implementations: one module each in :mod:`ipa_energy.meters`."""

    @property
    def name(self) -> str:
        """Name for provenance, e.g. ``rapl``."""
        ...

    @property
    def quality(self) -> Quality:
        """Quality of every figure this meter gives."""
        ...

    @property
    def min_window_s(self) -> float:
        """Shortest window whose joules are good to 1 % as far as the counter's steps go."""
        ...

    def read(self) -> Reading:
        """Read all counters now.

        Raises:
            MeterUnavailableError: the counters cannot be read (any more).
        """
        ...

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window from ``start`` to ``end``, wraps accounted for.

        Raises:
            MeterUnavailableError: a counter went backwards, or the window has no length.
        """
        ...
