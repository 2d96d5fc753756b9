"""A counter is believed after it moved, and only as far as it moved.

A meter is made, watched for a moment under load, and handed over with the period that was seen.
Memory that stands still is left out and said so (some processors list a memory counter that they do
not have); a package or a platform that stands still makes the whole meter dead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.base import Meter
from ipa_energy.meters.discovery.observation import Observation, observe
from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.status import MeterStatus, min_window_for

OPTIONAL = "dram"


class CounterMeter(Meter, Protocol):
    """A meter of hardware counters that may be closed and whose period may be found out."""

    update_period_s: float

    @property
    def domains(self) -> tuple[str, ...]:
        """What it adds up."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


M = TypeVar("M", bound=CounterMeter)


def tried(make: Callable[[Collection[str]], M]) -> tuple[M, MeterStatus]:
    """A meter whose counters moved while it was watched, and what was seen.

    Args:
        make: makes the meter without the domains that it is given. Keep the machine busy meanwhile.

    Raises:
        MeterUnavailableError: it cannot be made or read, or a counter stands still.
    """
    meter = make(())
    try:
        seen = observe(meter.read)
        vital = [name for name in seen.still if not name.startswith(OPTIONAL)]
        if vital or not seen.period_s:
            raise _dead(meter.name, seen)
        if seen.still:
            meter.close()
            meter = make(seen.still)
    except MeterUnavailableError:
        meter.close()
        raise
    meter.update_period_s = seen.slowest_s
    left_out = f"; {', '.join(seen.still)} stood still and is left out" if seen.still else ""
    return meter, MeterStatus(
        meter.name,
        "measured",
        f"moved under load: {', '.join(meter.domains)}{left_out}",
        domains=meter.domains,
        update_period_s=seen.slowest_s,
        min_window_s=min_window_for(seen.slowest_s),
    )


def _dead(name: str, seen: Observation) -> MeterFault:
    return MeterFault(
        name,
        "dead",
        f"{', '.join(seen.still)} can be read and stood still under load for "
        f"{seen.watched_s:.2g} s",
        "none: the machine, most likely a virtual one, lists a counter that it does not have",
    )
