"""Whose joules a meter counts, and what replicas are charged."""

import math
import os
import time

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy
from ipa_energy.meters.composite import SumMeter
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profiling.charging import (
    ReplicaCharges,
    check_window,
)
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.replica_meter import (
    MeterChoice,
    MeterPart,
    check_settings,
    cpu_time_choice,
    gpu_choice,
    joined,
    machine_choice,
)
from ipa_energy.profiling.trial_windows import EmptyMachine, Idle, TrialSettings
from ipa_energy.testing import FakeMeter

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


def window(energy_j, duration_s):
    return Energy(energy_j, duration_s, {"fake": energy_j}, "fake", "measured")


IDLE = TrialSettings(idle_s=0.5)


class Group:
    """Two replicas of one core and half a GPU each, that take a second to load."""

    core_ids = (0, 1)
    gpu_shares = 1.0

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
    part = MeterPart(lambda pid, cores: meter, "CPU", shared_by=4)
    charges = ReplicaCharges(Group(clock), [part], IDLE, EmptyMachine())
    assert charges.load() is meter
    # A window of 2 s at 30 W; 9 W while both wait.
    charged = charges.charge(window(60.0, 2.0), {"fake": 9.0}, 0.01)["fake"]
    assert charged.dynamic_energy_j == pytest.approx(60.0 - 2 * 9.0)
    # Half of 8 W for half of the cores, and 1 W that the models added, by two.
    assert charged.idle_power_w == pytest.approx((8.0 * 2 / 4 + 1.0) / 2)
    # Above idle: 12 − 8 J for the first, 12 − 8.5 J for the second, beside the loaded first.
    assert charged.load_energy_j == pytest.approx((4.0 + 3.5) / 2)
    assert (charged.empty_power_w, charged.waiting_power_w) == (pytest.approx(8.0), 9.0)
    assert (charges.of_machine, charges.settles) == (True, False)


def test_replicas_of_their_own_meters_are_charged_what_these_show(clock):
    made = []

    def meter_for(pid, cores):
        made.append((pid, cores))
        return FakeMeter(3.0, clock=clock)

    charges = ReplicaCharges(Group(clock), [MeterPart(meter_for)], IDLE, EmptyMachine())
    total = charges.load()
    assert made == [(100, 1.0), (101, 1.0)]
    start = total.read()
    clock.now_s += 1.0
    assert total.energy_between(start, total.read()).energy_j == pytest.approx(6.0)
    charged = charges.charge(window(60.0, 2.0), {"fake": 2.0}, 0.01)["fake"]
    assert (charged.idle_power_w, charged.empty_power_w) == (1.0, None)
    assert charged.load_energy_j == pytest.approx(3.0 - 1.0)
    assert not charges.of_machine


def test_loading_too_short_for_the_meter_has_no_joules(clock):
    meter = FakeMeter(3.0, clock=clock, min_window_s=1.5)
    part = MeterPart(lambda pid, cores: meter)
    charges = ReplicaCharges(Group(clock), [part], IDLE, EmptyMachine())
    charges.load()
    assert math.isnan(charges.charge(window(9.0, 2.0), {"fake": 2.0}, 1.5)["fake"].load_energy_j)


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
    assert [part.shared_by for part in own.parts] == [None]
    assert own.meta["quality"] == "estimated"
    everything = machine_choice(FakeMeter(), {"domains": ["package-0"]})
    assert [part.shared_by for part in everything.parts] == [os.cpu_count()]
    assert everything.meta == {
        "name": "fake",
        "quality": "measured",
        "scope": "machine",
        "domains": ["package-0"],
    }
    assert isinstance(everything, MeterChoice)


def test_gpu_and_processor_are_each_charged_by_their_own_rule(clock):
    # The GPUs: 40 W empty, 5 W more with each model, which takes a second to load. Two replicas
    # reserve one GPU of two. Each replica's own meter shows 3 W.
    def joules(elapsed_s):
        return 45.0 * elapsed_s + 5.0 * max(0.0, elapsed_s - 1.0)

    gpu = FakeMeter(joules, clock=clock)
    gpu.name = "nvml"
    parts = [
        MeterPart(lambda pid, cores: gpu, "GPU", shared_by=2),
        MeterPart(lambda pid, cores: Estimate(3.0, clock=clock)),
    ]
    charges = ReplicaCharges(Group(clock), parts, IDLE, Empty())
    meter = charges.load()
    assert (meter.name, meter.quality) == ("nvml+cpu-time", "estimated")
    assert (charges.settles, charges.of_machine) == (True, False)
    found = Energy(
        500.0,
        4.0,
        {"nvml/gpu-0": 400.0, "nvml/gpu-1": 60.0, "cpu-time/cpu-dynamic": 40.0},
        meter.name,
        meter.quality,
    )
    charged = charges.charge(found, {"nvml": 50.0, "cpu-time": 6.0}, 0.01)
    assert charged["nvml"].dynamic_energy_j == pytest.approx(460.0 - 4 * 50.0)
    assert charged["cpu-time"].dynamic_energy_j == pytest.approx(40.0 - 4 * 6.0)
    # Half of the empty GPUs' 40 W and the 10 W that two models add, between two replicas.
    assert charged["nvml"].idle_power_w == pytest.approx((40.0 / 2 + 10.0) / 2)
    assert charged["cpu-time"].idle_power_w == pytest.approx(3.0)
    # Loading: 45 W beside 40 W idle, then 50 W beside 45 W.
    assert charged["nvml"].load_energy_j == pytest.approx(5.0)
    assert charged["cpu-time"].load_energy_j == pytest.approx(0.0)
    assert (charged["nvml"].quality, charged["cpu-time"].quality) == ("measured", "estimated")


class Empty(EmptyMachine):
    """A machine that drew 40 W before the replicas were there."""

    def idle(self, meter, settings, *, settle):
        assert settle
        return Idle(Energy(40.0, 1.0, {"gpu-0": 40.0}, meter.name, meter.quality), 0.0, True)


class Estimate(FakeMeter):
    name = "cpu-time"

    def __init__(self, power_w, clock):
        super().__init__(power_w, clock=clock, quality="estimated")


def test_joined_choices_are_as_good_as_the_worst():
    gpu = gpu_choice(FakeMeter(), 1, {"gpus": "1 × Fake"})
    both = joined([gpu, cpu_time_choice(PowerModel(1.0, 5.0, 2, "made up"))])
    assert (both.meta["name"], both.meta["quality"]) == ("fake+cpu-time", "estimated")
    assert both.meta["parts"]["fake"]["scope"] == "GPU"
    assert both.counts == {"CPU", "GPU"}
    assert [part.counts for part in both.parts_for(1.0)] == ["GPU", "CPU"]
    assert [part.counts for part in both.parts_for(0.0)] == ["CPU"]
    assert joined([gpu]) is gpu
