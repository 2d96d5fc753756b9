"""The meters of several replicas read as one."""

from __future__ import annotations

from collections.abc import Sequence

from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.records import Quality


class SumMeter:
    """Several meters of one kind read together; a :class:`~ipa_energy.meters.base.Meter`.

    Args:
        meters: at least one, all of the same name and quality.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = tuple(meters)
        self.name: str = meters[0].name
        self.quality: Quality = meters[0].quality
        self.min_window_s: float = max(meter.min_window_s for meter in meters)

    def read(self) -> Reading:
        """All counters now, named ``INDEX:COUNTER``, at the time of the first.

        Raises:
            MeterUnavailableError: one of them cannot be read.
        """
        readings = [meter.read() for meter in self._meters]
        counters = {
            f"{index}:{name}": value
            for index, reading in enumerate(readings)
            for name, value in reading.counters.items()
        }
        return Reading(readings[0].time_s, counters)

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, summed over the meters by domain.

        Raises:
            MeterUnavailableError: one of them cannot tell.
        """
        domains: dict[str, float] = {}
        duration_s = 0.0
        for index, meter in enumerate(self._meters):
            part = meter.energy_between(_part(start, index), _part(end, index))
            duration_s = part.duration_s
            for name, energy_j in part.domains.items():
                domains[name] = domains.get(name, 0.0) + energy_j
        return Energy(sum(domains.values()), duration_s, domains, self.name, self.quality)


def _part(reading: Reading, index: int) -> Reading:
    prefix = f"{index}:"
    return Reading(
        reading.time_s,
        {
            name.removeprefix(prefix): value
            for name, value in reading.counters.items()
            if name.startswith(prefix)
        },
    )
