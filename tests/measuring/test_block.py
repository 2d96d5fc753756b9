"""Joules of a block of code in this process."""

from __future__ import annotations

import math
import time

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.measuring import block
from ipa_energy.measuring.block import measure_block
from ipa_energy.meters.power_model import PowerModel, power_model_for_this_machine
from ipa_energy.meters.sources import Places
from ipa_energy.testing import FakeMeter


class Clock:
    """Time that passes when somebody sleeps, or when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(block.time, "sleep", self.advance)

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def steps(*segments: tuple[float, float]) -> object:
    """Joules so far of powers that each last so many seconds: (seconds, watts)."""

    def joules(elapsed_s: float) -> float:
        total_j = 0.0
        for seconds, watts in segments:
            total_j += watts * max(0.0, min(seconds, elapsed_s))
            elapsed_s -= seconds
        return total_j

    return joules


def test_the_block_has_its_own_joules_and_those_above_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    # 2 s of 10 W before, 4 s of 50 W, 2 s of 20 W after: the idle machine draws 15 W on average.
    meter = FakeMeter(steps((2.0, 10.0), (4.0, 50.0), (2.0, 20.0)), clock=clock)  # type: ignore[arg-type]
    with measure_block(meter, idle_s=2.0) as found:
        assert math.isnan(found.energy_j)
        clock.advance(4.0)
    assert found.energy_j == pytest.approx(200.0)
    assert found.duration_s == pytest.approx(4.0)
    assert found.power_w == pytest.approx(50.0)
    assert found.idle_power_w == pytest.approx(15.0)
    assert found.dynamic_energy_j == pytest.approx(200.0 - 15.0 * 4.0)
    assert (found.meter, found.quality) == ("fake", "measured")


def test_without_idle_windows_nobody_waits_and_nothing_is_subtracted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    with measure_block(FakeMeter(10.0, clock=clock)) as found:
        clock.advance(3.0)
    assert clock.now_s == 3.0
    assert found.energy_j == pytest.approx(30.0)
    assert math.isnan(found.idle_power_w)
    assert math.isnan(found.dynamic_energy_j)


def test_a_block_too_short_for_the_meter_has_no_joules_and_is_told_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    with measure_block(FakeMeter(10.0, clock=clock, min_window_s=1.0)) as found:
        clock.advance(0.5)
    assert found.energy is None
    assert math.isnan(found.energy_j)
    assert "windows under 1 s" in caplog.text


def test_a_counter_that_does_not_move_is_dead_and_not_0_j(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with (
        pytest.raises(MeterUnavailableError, match="dead"),
        measure_block(FakeMeter(0.0, clock=clock)),
    ):
        clock.advance(1.0)


def test_what_the_block_raises_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with (
        pytest.raises(KeyError, match="of the block"),
        measure_block(FakeMeter(0.0, clock=clock)),
    ):
        raise KeyError("of the block")


def test_an_idle_window_that_means_nothing_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="idle windows of 0"),
        measure_block(FakeMeter(10.0, min_window_s=0.1), idle_s=0.0),
    ):
        pass


def test_the_estimate_charges_this_process_and_says_what_it_is() -> None:
    model: PowerModel = power_model_for_this_machine()
    with measure_block("cpu-time", places=Places()) as found:
        start_s, used_s = time.process_time(), 0.0
        while used_s < 0.2:
            used_s = time.process_time() - start_s
    assert (found.meter, found.quality) == ("cpu-time", "estimated")
    idle_j = model.idle_w * found.duration_s
    # All threads of this process are charged, and whatever pytest does around the block.
    assert found.energy_j - idle_j >= 0.2 * model.dynamic_w_per_core * 0.99
