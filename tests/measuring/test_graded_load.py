"""Loads of known utilisation, and what they make of a counter."""

from __future__ import annotations

import os
import time

import pytest

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.measuring.graded_load import (
    IDLE,
    Load,
    LoadSettings,
    graded_loads,
    record_power,
    running,
)
from ipa_energy.meters import calibration
from ipa_energy.meters.cpu_time import CpuTimeMeter, process_tree_cpu_s
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.testing import FakeMeter

pytestmark = pytest.mark.measures

SHORT = LoadSettings(window_s=0.3, settle_s=0.05, rounds=1)


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 64, 96])
def test_loads_span_the_machine(cores: int) -> None:
    loads = graded_loads(cores)
    used = {load.workers * load.duty / cores for load in loads}
    assert len(set(loads)) == len(loads)
    assert loads[0] == IDLE
    assert {0.0, 0.25, 0.5, 0.75, 1.0} <= used
    assert all(0 <= share <= 1 for share in used)
    assert {load.work for load in loads} == {"integers", "matrices"}
    assert all(1 <= load.workers <= cores for load in loads[1:])


def test_first_round_begins_with_idle_and_full_load_and_rounds_hold_every_load() -> None:
    loads = [IDLE, Load("integers", 1, 1.0), Load("integers", 1, 0.5), Load("integers", 1, 0.2)]
    settings = LoadSettings(window_s=0.02, settle_s=0.0, rounds=3, seed=1)
    found = [point.load for point in record_power(FakeMeter(5.0), loads, settings)]
    names = [load.name for load in loads]
    assert found[:2] == names[:2]
    for start in (0, 4, 8):
        assert sorted(found[start : start + 4]) == sorted(names)


@pytest.mark.parametrize("work", ["integers", "matrices"])
def test_a_busy_worker_works_and_ends_with_its_block(work: str) -> None:
    with running(Load(work, 1, 1.0)) as pids:
        (pid,) = pids
        while process_tree_cpu_s(pid) < 0.3:
            time.sleep(0.01)
    with pytest.raises(OSError):
        process_tree_cpu_s(pid)


def test_a_worker_with_a_duty_rests_for_the_rest() -> None:
    with running(Load("integers", 1, 0.3)) as (pid,):
        start_s, cpu_s = time.perf_counter(), process_tree_cpu_s(pid)
        time.sleep(0.5)
        share = (process_tree_cpu_s(pid) - cpu_s) / (time.perf_counter() - start_s)
    # However busy the machine is, it never takes more than its duty (and one period's rounding).
    assert 0 < share < 0.3 + 0.1


def test_idle_uses_nothing_and_watts_are_the_counters() -> None:
    (point,) = record_power(FakeMeter(12.5), [IDLE], SHORT)
    assert point.utilisation == 0
    assert point.power_w == pytest.approx(12.5)


def test_a_counter_that_shows_no_joules_is_refused_at_the_first_window() -> None:
    with pytest.raises(MeterUnavailableError, match="dead"):
        record_power(FakeMeter(0.0), [IDLE, Load("integers", 1, 1.0)], SHORT)


def test_calibration_on_real_load_finds_the_model_behind_the_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The counter is the cpu-time model itself, charging this test's own tree: the truth is known.
    # How much of the machine this test gets does not matter to it.
    monkeypatch.setattr(calibration, "MIN_SPAN", 0.02)
    cores = os.cpu_count() or 1
    truth = PowerModel(idle_w=10.0, max_w=10.0 + 20.0 * cores, cores=cores, source="the truth")
    meter = CpuTimeMeter(truth, pid=os.getpid(), reserved_cores=cores)
    usable = len(os.sched_getaffinity(0))
    loads = [IDLE, *(Load("integers", usable, duty) for duty in (1.0, 0.75, 0.5, 0.25))]
    points = record_power(meter, loads, LoadSettings(window_s=0.5, settle_s=0.0, rounds=1))
    found = calibration.calibrate(points, cores=cores, meter="cpu-time", when="2026-01-02")
    assert found.model.idle_w == pytest.approx(truth.idle_w, rel=0.15)
    assert found.model.max_w == pytest.approx(truth.max_w, rel=0.1)
