"""The scripted meter."""

import pytest

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.base import Meter
from ipa_energy.testing import FakeMeter


def clock(*times_s):
    iterator = iter(times_s)
    return lambda: next(iterator)


def test_constant_power_integrates_over_the_window():
    meter: Meter = FakeMeter(5.0, clock=clock(100.0, 101.0, 103.0))
    energy = meter.energy_between(meter.read(), meter.read())
    assert (energy.energy_j, energy.duration_s, energy.power_w) == (10.0, 2.0, 5.0)
    assert energy.domains == {"fake": 10.0}


def test_scripted_joules_are_given_as_they_are():
    meter = FakeMeter(lambda elapsed_s: elapsed_s**2, clock=clock(0.0, 1.0, 3.0))
    assert meter.energy_between(meter.read(), meter.read()).energy_j == 8.0


@pytest.mark.parametrize("times_s", [(0.0, 1.0, 1.0), (0.0, 2.0, 1.0)])
def test_window_without_length_is_refused(times_s):
    meter = FakeMeter(clock=clock(*times_s))
    first, second = meter.read(), meter.read()
    with pytest.raises(MeterUnavailableError, match="no length"):
        meter.energy_between(first, second)


def test_counter_that_falls_is_refused():
    meter = FakeMeter(lambda elapsed_s: -elapsed_s, clock=clock(0.0, 1.0, 2.0))
    with pytest.raises(MeterUnavailableError, match="fell"):
        meter.energy_between(meter.read(), meter.read())
