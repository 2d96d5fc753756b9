"""Whose joules a meter counts, and what replicas are charged."""

import time

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.cpu_time import PowerModel
from ipa_energy.meters.fake import FakeMeter
from ipa_energy.profiling.account import Account
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.metering import (
    MeterChoice,
    SumMeter,
    check_settings,
    check_window,
    cpu_time_choice,
    machine_choice,
)
from ipa_energy.profiling.settings import TrialSettings

ENTRY = Entry("work", "steady", "cpu", 2, 4)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_sum_of_meters_is_the_sum_of_their_joules():
    clock = Clock()
    meter = SumMeter([FakeMeter(power_w, clock=clock) for power_w in (3.0, 4.0)])
    start = meter.read()
    clock.now_s = 2.0
    energy = meter.energy_between(start, meter.read())
    assert (energy.energy_j, energy.duration_s, energy.power_w) == (14.0, 2.0, 7.0)
    assert (energy.meter, energy.quality) == ("fake", "measured")
    assert energy.domains == {"fake": 14.0}


def test_a_part_that_fails_fails_the_sum():
    clock = Clock()
    meter = SumMeter([FakeMeter(1.0, clock=clock), FakeMeter(lambda s: -s, clock=clock)])
    start = meter.read()
    clock.now_s = 1.0
    with pytest.raises(MeterUnavailableError):
        meter.energy_between(start, meter.read())


class Group:
    """Two replicas of one core each, that take a second to load."""

    core_ids = (0, 1)

    def __init__(self, clock):
        self.clock = clock

    def load(self, each):
        for core in self.core_ids:
            each(FakeReplica(core, self.clock))


class FakeReplica:
    def __init__(self, core, clock):
        self.pid = 100 + core
        self.spec = type("Spec", (), {"core_ids": (core,)})
        self.clock = clock

    def load(self):
        self.clock.now_s += 1.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "sleep", lambda s: setattr(clock, "now_s", clock.now_s + s))
    return clock


def test_replicas_of_a_machine_meter_are_charged_their_share_of_the_empty_machine(clock):
    # 8 W empty, 12 W in each second of loading: one meter for everything.
    def joules(elapsed_s):
        return 8.0 * min(elapsed_s, 0.5) + 12.0 * max(0.0, elapsed_s - 0.5)

    meter = FakeMeter(joules, clock=clock)
    account = Account(Group(clock), lambda pid, cores: meter, 0.5, machine_cores=4)
    assert account.load() is meter
    # 9 W while both wait: half of 8 W for half of the cores, and 1 W that the models added, by two.
    assert account.idle_power_w(9.0) == pytest.approx((8.0 * 2 / 4 + 1.0) / 2)
    # Above idle: 12 − 8 J for the first, 12 − 8.5 J for the second, beside the loaded first.
    assert account.load_energy_j(9.0) == pytest.approx((4.0 + 3.5) / 2)


def test_replicas_of_their_own_meters_are_charged_what_these_show(clock):
    made = []

    def meter_for(pid, cores):
        made.append((pid, cores))
        return FakeMeter(3.0, clock=clock)

    account = Account(Group(clock), meter_for, 0.5, machine_cores=None)
    total = account.load()
    assert made == [(100, 1.0), (101, 1.0)]
    start = total.read()
    clock.now_s += 1.0
    assert total.energy_between(start, total.read()).energy_j == pytest.approx(6.0)
    assert account.idle_power_w(2.0) == 1.0
    assert account.load_energy_j(2.0) == pytest.approx(3.0 - 1.0)


def test_loading_too_short_for_the_meter_has_no_joules(clock):
    meter = FakeMeter(3.0, clock=clock, min_window_s=1.5)
    account = Account(Group(clock), lambda pid, cores: meter, 0.5, machine_cores=None)
    account.load()
    assert account.load_energy_j(2.0) != account.load_energy_j(2.0)  # NaN


def test_window_too_short_for_the_meter_is_refused_with_both_lengths():
    with pytest.raises(MeterUnavailableError, match=r"b4: a window of 2 s .* fake, .* 10 s"):
        check_window(2.0, FakeMeter(min_window_s=10.0), ENTRY.label)
    check_window(10.0, FakeMeter(min_window_s=10.0), ENTRY.label)


def test_settings_that_no_window_could_fill_are_refused_before_anything_runs():
    slow = machine_choice(FakeMeter(min_window_s=10.0))
    with pytest.raises(ConfigError, match=r"work/steady cpu 2c b4: .*at most 2 s.*needs 10 s"):
        check_settings(slow, TrialSettings().quick(), [ENTRY])
    check_settings(slow, TrialSettings().with_window(10.0), [ENTRY])


def test_longer_windows_leave_room_for_a_batch_in_progress():
    settings = TrialSettings().with_window(12.0)
    assert (settings.min_window_s, settings.max_window_s) == (12.0, 24.0)
    assert TrialSettings().with_window(0.5).max_window_s == TrialSettings().max_window_s
    for window_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="more than 0"):
            settings.with_window(window_s)


def test_choices_say_what_they_are():
    own = cpu_time_choice(PowerModel(1.0, 5.0, 2, "made up"))
    assert own.machine_cores is None
    assert own.facts["quality"] == "estimated"
    everything = machine_choice(FakeMeter(), {"domains": ["package-0"]})
    assert everything.machine_cores >= 1
    assert everything.facts == {
        "name": "fake",
        "quality": "measured",
        "scope": "machine",
        "domains": ["package-0"],
    }
    assert isinstance(everything, MeterChoice)
