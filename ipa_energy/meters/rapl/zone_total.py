"""A counter that wraps, made into a total that only grows, with every doubt about it kept.

At each look the counter has moved by ``(now − last) mod (range + 1)``. This is its true movement if
it was looked at before it could wrap twice, and if no more energy went through than the hardware
can draw. Where either does not hold, or where it stood still, the time since the last good look is
a :class:`Doubt`, and no window that touches it gets a figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipa_energy.meters.rapl.powercap import Kind, Zone

MAX_POWER_W: dict[Kind, float] = {"package": 1000.0, "dram": 500.0, "psys": 5000.0}
"""More than any such zone draws: twice the largest processors (500 W), and a machine of eight."""

FROZEN_AFTER_S = 0.25
"""Counters step about every millisecond; one that stands for this long has stopped."""

STEP_ALLOWANCE_S = 0.1
"""A look may see a value this old, when a step was late."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A stretch of time over which a counter cannot be believed.

    Attributes:
        start_s, end_s: on the meter's clock.
        reason: what happened, naming the zone.
    """

    start_s: float
    end_s: float
    reason: str


class ZoneTotal:
    """The total of one zone.

    Args:
        zone: whose counter it is.
        raw_uj: its value at ``time_s``.
        time_s: the first look, on the meter's clock.
        max_power_w: watts that the zone can never exceed.
    """

    def __init__(self, zone: Zone, raw_uj: int, time_s: float, max_power_w: float) -> None:
        self.zone = zone
        self.total_uj = raw_uj
        self.moved_s = time_s
        self.doubts: list[Doubt] = []
        self._modulus_uj = zone.range_uj + 1
        self._max_power_uw = max_power_w * 1e6
        self._allowance_uj = min(self._max_power_uw * STEP_ALLOWANCE_S, self._modulus_uj / 4)
        self._raw_uj = raw_uj
        self._looked_s = time_s

    @property
    def look_period_s(self) -> float:
        """Looks at least this often cannot miss a wrap: half of the time to go round once."""
        return self._modulus_uj / (2 * self._max_power_uw)

    def look(self, raw_uj: int, time_s: float) -> None:
        """Take in the counter's value at ``time_s``."""
        last_uj, last_s = self._raw_uj, self._looked_s
        step_uj = (raw_uj - last_uj) % self._modulus_uj
        most_uj = self._max_power_uw * (time_s - last_s)
        if most_uj > self._modulus_uj:
            self._doubt(
                last_s,
                time_s,
                f"was not looked at for {time_s - last_s:.3g} s, in which it may have gone round "
                "more than once",
            )
        elif step_uj > most_uj + self._allowance_uj:
            went = "back" if raw_uj < last_uj else "forward"
            self._doubt(
                last_s,
                time_s,
                f"went {went} from {last_uj} to {raw_uj} µJ in {time_s - last_s:.3g} s, which no "
                "power explains",
            )
        self.total_uj += step_uj
        self._raw_uj, self._looked_s = raw_uj, time_s
        if step_uj:
            self.moved_s = time_s
        elif time_s - self.moved_s >= FROZEN_AFTER_S:
            self._doubt(self.moved_s, time_s, f"stood still for {time_s - self.moved_s:.3g} s")

    def lost(self, time_s: float, reason: str) -> None:
        """Believe nothing between the last look and this time."""
        self._doubt(self._looked_s, time_s, reason)

    def doubt_in(self, start_s: float, end_s: float) -> Doubt | None:
        """The first doubt that touches a window."""
        return next((d for d in self.doubts if d.start_s < end_s and d.end_s > start_s), None)

    def _doubt(self, start_s: float, end_s: float, reason: str) -> None:
        if self.doubts and start_s <= self.doubts[-1].end_s:  # what lasts stays one entry
            start_s = min(start_s, self.doubts.pop().start_s)
        self.doubts.append(Doubt(start_s, end_s, f"{self.zone.domain} {reason}"))
