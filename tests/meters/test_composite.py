"""Several meters as one."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.meters.composite import CompositeMeter
from ipa_energy.records import Quality
from ipa_energy.testing import FakeMeter


@dataclass
class Scripted:
    """A meter of constant power that reads at given times."""

    name: str
    power_w: float
    times_s: list[float]
    quality: Quality = "measured"
    min_window_s: float = 0.1
    domain: str = "all"
    order: list[str] = field(default_factory=list)

    def read(self) -> Reading:
        self.order.append(self.name)
        time_s = self.times_s.pop(0)
        return Reading(time_s, {"count": self.power_w * time_s})

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        joules = end.counters["count"] - start.counters["count"]
        duration_s = end.time_s - start.time_s
        return Energy(joules, duration_s, {self.domain: joules}, self.name, self.quality)


def test_the_sum_keeps_its_parts() -> None:
    order: list[str] = []
    gpu = Scripted("nvml", 200.0, [0.0, 10.0], domain="gpu-0", min_window_s=10, order=order)
    cpu = Scripted("rapl", 50.0, [0.2, 10.2], domain="package-0", order=order)
    meter: Meter = CompositeMeter([gpu, cpu])
    start, end = meter.read(), meter.read()
    energy = meter.energy_between(start, end)
    assert energy.domains == pytest.approx({"nvml/gpu-0": 2000.0, "rapl/package-0": 500.0})
    assert energy.energy_j == pytest.approx(2500.0)
    assert energy.duration_s == pytest.approx(10.0)
    assert (energy.meter, energy.quality) == ("nvml+rapl", "measured")
    assert meter.min_window_s == 10
    assert start.counters == {"nvml/count": 0.0, "rapl/count": pytest.approx(10.0)}
    assert order == ["nvml", "rapl", "nvml", "rapl"]


def test_each_part_is_charged_for_its_own_window() -> None:
    gpu = Scripted("nvml", 100.0, [0.0, 10.0])
    cpu = Scripted("rapl", 10.0, [1.0, 12.0])
    meter = CompositeMeter([gpu, cpu])
    start = meter.read()
    energy = meter.energy_between(start, meter.read())
    assert energy.domains == pytest.approx({"nvml/all": 1000.0, "rapl/all": 110.0})
    assert energy.duration_s == pytest.approx(10.5)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("measured", "measured", "measured"),
        ("measured", "estimated", "estimated"),
        ("imported", "measured", "imported"),
        ("imported", "estimated", "estimated"),
    ],
)
def test_quality_is_that_of_the_weakest(first: Quality, second: Quality, expected: Quality) -> None:
    parts = [Scripted("nvml", 1, [0, 1], first), Scripted("rapl", 1, [0, 1], second)]
    meter = CompositeMeter(parts)
    start = meter.read()
    assert meter.quality == expected
    assert meter.energy_between(start, meter.read()).quality == expected


def test_a_part_without_a_figure_leaves_the_sum_without() -> None:
    times = iter([0.0, 0.0, 1.0])
    falls = FakeMeter(lambda elapsed_s: -elapsed_s, clock=lambda: next(times))
    meter = CompositeMeter([Scripted("nvml", 1, [0, 1]), falls])
    start = meter.read()
    with pytest.raises(MeterUnavailableError, match="fell"):
        meter.energy_between(start, meter.read())


@pytest.mark.parametrize(
    "names", [["rapl", "perf"], ["rapl", "cpu-time", "nvml"], ["nvml", "dcgm"], ["fake", "fake"]]
)
def test_the_same_joules_are_not_counted_twice(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="twice"):
        CompositeMeter([Scripted(name, 1, []) for name in names])


@pytest.mark.parametrize("count", [0, 1])
def test_one_meter_is_no_composite(count: int) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        CompositeMeter([FakeMeter()] * count)


def test_readings_of_another_meter_are_refused() -> None:
    meter = CompositeMeter([Scripted("nvml", 1, [0, 1]), Scripted("rapl", 1, [0, 1])])
    with pytest.raises(ConfigError, match=r"not taken by nvml\+rapl"):
        meter.energy_between(Reading(0, {}), meter.read())
