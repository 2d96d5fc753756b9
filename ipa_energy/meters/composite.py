"""Several meters read as one: a CPU's and a GPU's joules in one figure that keeps its parts.

Parts are read one after the other, in the order given. Put the one that waits for a GPU first, so
that the others are read when the work is done. Each part's window has the length that its own reads
give it, microseconds apart from the others'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.meters.sources import source
from ipa_energy.records import Quality, joined_meters, weakest_quality
from ipa_energy.registries import METERS


@dataclass(frozen=True, slots=True)
class CompositeReading(Reading):
    """One look at every part.

    Attributes:
        parts: each part's own reading, in the order of the parts.
    """

    parts: tuple[Reading, ...]


class CompositeMeter:
    """The sum of several meters. A :class:`~ipa_energy.meters.base.Meter`.

    Its name is that of its parts joined by ``+``; its quality that of the weakest; its domains are
    the parts' own, each behind the part's name: ``rapl/package-0``, ``nvml/gpu-0``.

    Args:
        parts: two or more meters that count different things.

    Raises:
        ConfigError: fewer than two parts, or two that count the same joules.
    """

    def __init__(self, parts: Sequence[Meter]) -> None:
        names = [part.name for part in parts]
        if len(parts) < 2:
            raise ConfigError(f"a composite meter of {names}", allowed="two or more meters")
        kinds = [_counted(part) for part in parts]
        twice = sorted(kind for kind in set(kinds) if kinds.count(kind) > 1)
        if twice:
            raise ConfigError(
                f"{joined_meters(names)} counts the joules of {', '.join(twice)} twice",
                allowed="one meter for the CPU and one for the GPU",
            )
        module = next((part.name for part in parts if getattr(part, "includes_cpu", False)), None)
        if module is not None and "CPU" in kinds:
            raise ConfigError(
                f"{joined_meters(names)} counts the joules of CPU twice: {module} counts a module "
                "of GPU and processor",
                allowed=module,
            )
        self.parts = tuple(parts)

    @property
    def name(self) -> str:
        """Names of the parts: ``rapl+nvml``."""
        return joined_meters(part.name for part in self.parts)

    @property
    def quality(self) -> Quality:
        """Quality of the weakest part."""
        return _weakest([part.quality for part in self.parts])

    @property
    def min_window_s(self) -> float:
        """Shortest window that is good for every part."""
        return max(part.min_window_s for part in self.parts)

    def read(self) -> CompositeReading:
        """Read every part, in order; counters carry the part's name in front.

        Raises:
            MeterUnavailableError: a part cannot be read.
        """
        readings = tuple(part.read() for part in self.parts)
        counters = {
            f"{part.name}/{name}": value
            for part, reading in zip(self.parts, readings, strict=True)
            for name, value in reading.counters.items()
        }
        middle_s = math.fsum(reading.time_s for reading in readings) / len(readings)
        return CompositeReading(middle_s, counters, readings)

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, total and by part.

        Raises:
            ConfigError: a reading is not this meter's own.
            MeterUnavailableError: a part has no figure for its window; then the sum has none.
        """
        domains: dict[str, float] = {}
        qualities: list[Quality] = []
        notes: list[str] = []
        pairs = zip(_parts_of(start, self), _parts_of(end, self), strict=True)
        for part, (first, last) in zip(self.parts, pairs, strict=True):
            energy = part.energy_between(first, last)
            qualities.append(energy.quality)
            notes += energy.notes
            domains |= {f"{part.name}/{name}": joules for name, joules in energy.domains.items()}
        duration_s = end.time_s - start.time_s
        total_j = math.fsum(domains.values())
        quality = _weakest(qualities)
        return Energy(total_j, duration_s, domains, self.name, quality, notes=tuple(notes))


def _weakest(qualities: list[Quality]) -> Quality:
    weakest = weakest_quality(qualities)
    if weakest is None:
        raise ConfigError("a composite meter without parts")
    return weakest


class SumMeter:
    """Several meters of one kind read together; a :class:`~ipa_energy.meters.base.Meter`.

    Args:
        meters: at least one, all of the same name and quality.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self.parts = tuple(meters)
        self.name: str = meters[0].name
        self.quality: Quality = meters[0].quality
        self.min_window_s: float = max(meter.min_window_s for meter in meters)

    def read(self) -> CompositeReading:
        """All counters now, named ``INDEX:COUNTER``, at the time of the first.

        Raises:
            MeterUnavailableError: one of them cannot be read.
        """
        readings = tuple(meter.read() for meter in self.parts)
        counters = {
            f"{index}:{name}": value
            for index, reading in enumerate(readings)
            for name, value in reading.counters.items()
        }
        return CompositeReading(readings[0].time_s, counters, readings)

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window, summed over the meters by domain.

        Raises:
            ConfigError: a reading is not this meter's own.
            MeterUnavailableError: one of them cannot tell.
        """
        domains: dict[str, float] = {}
        duration_s = 0.0
        notes: list[str] = []
        pairs = zip(_parts_of(start, self), _parts_of(end, self), strict=True)
        for meter, (first, last) in zip(self.parts, pairs, strict=True):
            part = meter.energy_between(first, last)
            duration_s = part.duration_s
            notes += part.notes
            for name, energy_j in part.domains.items():
                domains[name] = domains.get(name, 0.0) + energy_j
        total_j = sum(domains.values())
        return Energy(
            total_j, duration_s, domains, self.name, self.quality, notes=tuple(dict.fromkeys(notes))
        )


def _parts_of(reading: Reading, meter: CompositeMeter | SumMeter) -> tuple[Reading, ...]:
    if not isinstance(reading, CompositeReading) or len(reading.parts) != len(meter.parts):
        raise ConfigError(f"a reading that was not taken by {meter.name}")
    return reading.parts


def _counted(meter: Meter) -> str:
    """Whose joules a meter counts; its own name where that is not known."""
    counts = source(meter.name).counts if meter.name in METERS else None
    return counts or getattr(meter, "counts", None) or meter.name
