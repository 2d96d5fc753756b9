"""Joules of a block of code in this process.

::

    with measure_block() as m:           idle │ block ........ │ idle        with ``idle_s``
        work()                                │ start ──── end │
    print(m.energy_j, m.meter, m.quality)

A counter charges the block with whatever the machine does meanwhile; cpu-time charges it with the
CPU time of this process and those it started, and with the idle power of the whole machine.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.measuring.command import WindowJoules, energy_of
from ipa_energy.meters.base import Energy, Meter
from ipa_energy.meters.discovery import AUTO, close_meter, open_meter
from ipa_energy.meters.sources import Places
from ipa_energy.records import Quality

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class MeasuredBlock(WindowJoules):
    """What a block took. Every figure is NaN while it runs.

    Attributes:
        meter: name of the meter.
        quality: ``measured`` or ``estimated``, of every figure.
        min_window_s: shortest block that the meter can measure.
        duration_s: length of the block.
        energy: its joules by domain; None if it was too short for the meter.
        idle_power_w: watts of the idle machine before and after; NaN without ``idle_s``.
    """

    meter: str
    quality: Quality
    min_window_s: float
    duration_s: float = math.nan
    energy: Energy | None = None
    idle_power_w: float = math.nan


@contextmanager
def measure_block(
    meter: str | Meter = AUTO, *, idle_s: float | None = None, places: Places | None = None
) -> Iterator[MeasuredBlock]:
    """Measure the ``with`` block; the figures are complete when it has ended.

    Args:
        meter: ``auto`` for the best that works here, names of meters joined by ``+``, or a meter
            of your own. One that is named is tried first, which takes a second or two.
        idle_s: seconds to wait before and after the block, to see what the idle machine draws;
            None for no wait, and then no dynamic joules.
        places: where meters look; None for the usual places.

    Raises:
        ConfigError: no such meter, or ``idle_s`` is shorter than it can measure.
        MeterUnavailableError: it is dead, denied or absent; or its counter did not move.
    """
    opened = open_meter(meter, places) if isinstance(meter, str) else meter
    try:
        if idle_s is not None and not opened.min_window_s <= idle_s < math.inf:
            raise ConfigError(
                f"idle windows of {idle_s:g} s",
                allowed=f"None, or {opened.min_window_s:g} s and more, which {opened.name} needs",
            )
        found = MeasuredBlock(
            meter=opened.name, quality=opened.quality, min_window_s=opened.min_window_s
        )
        before_w = _idle_w(opened, idle_s)
        start = opened.read()
        yield found
        end = opened.read()
        found.duration_s = end.time_s - start.time_s
        found.energy = energy_of(opened, start, end)
        found.idle_power_w = (before_w + _idle_w(opened, idle_s)) / 2
        if found.energy is None:
            logger.warning(
                "the block took %.3g s, and %s means nothing in windows under %g s: no joules",
                found.duration_s,
                found.meter,
                found.min_window_s,
            )
    finally:
        if isinstance(meter, str):
            close_meter(opened)


def _idle_w(meter: Meter, idle_s: float | None) -> float:
    """Watts of the idle machine over so many seconds."""
    if idle_s is None:
        return math.nan
    start = meter.read()
    time.sleep(idle_s)
    return meter.energy_between(start, meter.read()).power_w
