"""Idle windows: as long as the meter needs, and on a GPU after its watts stopped falling."""

import math
import time

import pytest

from ipa_energy.profiling.trial_windows import CALM_SLICES, EmptyMachine, TrialSettings, idle_window
from ipa_energy.testing import FakeMeter

SETTINGS = TrialSettings(idle_s=0.3, settle_slice_s=1.0, settle_max_s=60.0)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when somebody sleeps."""

    class Clock:
        now_s = 0.0

        def __call__(self):
            return self.now_s

    clock = Clock()
    monkeypatch.setattr(time, "sleep", lambda s: setattr(clock, "now_s", clock.now_s + s))
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def cooling(end_w, above_w, time_constant_s):
    """Joules of a power that falls exponentially: P = end + above·exp(−t/τ)."""

    def joules(elapsed_s):
        fallen = 1 - math.exp(-elapsed_s / time_constant_s)
        return end_w * elapsed_s + above_w * time_constant_s * fallen

    return joules


def test_without_settling_it_is_one_window_of_the_length_asked_for(clock):
    idle = idle_window(FakeMeter(7.0, clock=clock), SETTINGS, settle=False)
    assert (idle.energy.duration_s, idle.energy.power_w) == (pytest.approx(0.3), pytest.approx(7.0))
    assert (idle.waited_s, idle.settled) == (0.0, True)


def test_window_is_as_long_as_the_meter_needs(clock):
    meter = FakeMeter(7.0, clock=clock, min_window_s=6.0)
    for settle in (False, True):
        assert idle_window(meter, SETTINGS, settle=settle).energy.duration_s == pytest.approx(6.0)


def test_steady_power_costs_no_wait_but_one_slice(clock):
    idle = idle_window(FakeMeter(50.0, clock=clock), SETTINGS, settle=True)
    assert idle.settled
    assert idle.waited_s == pytest.approx(1.0)  # the first slice has nothing to compare with
    assert idle.energy.duration_s == pytest.approx(CALM_SLICES * 1.0)
    assert clock.now_s == pytest.approx(4.0)


def test_falling_power_is_waited_for(clock):
    # 120 W that fall to 70 W with a time constant of 5 s: 3.4 % above the end after 15 s.
    idle = idle_window(FakeMeter(cooling(70.0, 50.0, 5.0), clock=clock), SETTINGS, settle=True)
    assert idle.settled
    assert 8.0 <= idle.waited_s <= 25.0
    assert idle.energy.power_w == pytest.approx(70.0, rel=0.05)


def test_power_that_falls_slowly_but_on_and_on_is_not_taken_for_steady(clock):
    # 1 % of the present watts a second: no single slice is 2 % lower than the one before.
    meter = FakeMeter(lambda s: 100.0 * 100.0 * (1 - math.exp(-s / 100.0)), clock=clock)
    idle = idle_window(meter, SETTINGS, settle=True)
    assert not idle.settled
    assert idle.waited_s == pytest.approx(60.0, abs=1.5)


def test_wait_has_a_limit_and_the_window_its_length(clock):
    meter = FakeMeter(cooling(10.0, 990.0, 30.0), clock=clock)
    short = TrialSettings(idle_s=0.3, settle_slice_s=1.0, settle_max_s=2.0)
    idle = idle_window(meter, short, settle=True)
    assert not idle.settled
    assert idle.waited_s == pytest.approx(2.0)
    assert idle.energy.duration_s == pytest.approx(3.0)


def test_empty_machine_is_looked_at_again_when_its_figure_is_old(clock):
    power = {"w": 40.0}
    meter = FakeMeter(lambda s: power["w"] * s, clock=clock)
    empty = EmptyMachine(max_age_s=100.0)
    assert empty.idle(meter, SETTINGS, settle=False).energy.power_w == pytest.approx(40.0)
    power["w"] = 60.0
    meter = FakeMeter(60.0, clock=clock)
    clock.now_s += 50.0
    assert empty.idle(meter, SETTINGS, settle=False).energy.power_w == pytest.approx(40.0)
    clock.now_s += 60.0
    assert empty.idle(meter, SETTINGS, settle=False).energy.power_w == pytest.approx(60.0)
