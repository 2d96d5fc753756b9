"""Layouts, troubles and clocks on a tree that another thread advances in real time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from powercap_tree import LiveMachine, Machine, two_sockets

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.base import Energy
from ipa_energy.meters.rapl import RaplMeter

pytestmark = pytest.mark.measures

ATTEMPTS = 8
REGISTERS_APART_S = 0.001
"""Two registers of one counter are never so far apart; a thread that was held up is."""


def intel(root: Path) -> tuple[Machine, dict[str, str]]:
    """Two sockets with memory, and psys, core and uncore that must not be added."""
    names = {"package-0": "intel-rapl:0", "dram-0": "intel-rapl:0:2"}
    return two_sockets(root), {**names, "package-1": "intel-rapl:1", "dram-1": "intel-rapl:1:2"}


def amd(root: Path) -> tuple[Machine, dict[str, str]]:
    """Two packages with their cores, and a small range."""
    machine = Machine(root)
    for socket in range(2):
        top = f"intel-rapl:{socket}"
        machine.add(top, f"package-{socket}", power_w=180.0, range_uj=65_532_610_987)
        machine.add(f"{top}:0", "core", power_w=150.0, range_uj=65_532_610_987)
    return machine, {"package-0": "intel-rapl:0", "package-1": "intel-rapl:1"}


def dies(root: Path) -> tuple[Machine, dict[str, str]]:
    """A package whose second die repeats the first, and one whose dies count their own."""
    machine, starts_uj = Machine(root), [(4e9, 4e9), (6e9, 9e9)]
    for package, pair in enumerate(starts_uj):
        for die, start_uj in enumerate(pair):
            name = f"package-{package}-die-{die}"
            machine.add(f"intel-rapl:{2 * package + die}", name, power_w=60.0, start_uj=start_uj)
    names = {"package-0-die-0": "intel-rapl:0", "package-1-die-0": "intel-rapl:2"}
    return machine, {**names, "package-1-die-1": "intel-rapl:3"}


@pytest.mark.parametrize("layout", [intel, amd, dies])
def test_layouts_have_their_true_joules_in_real_time(
    tmp_path: Path, layout: Callable[[Path], tuple[Machine, dict[str, str]]]
) -> None:
    """Every figure is one the tree showed; a window may be refused if the machine stalled."""
    for attempt in range(ATTEMPTS):
        machine, names = layout(tmp_path / str(attempt))
        with LiveMachine(machine) as live, RaplMeter(machine.root) as meter:
            start = meter.read()
            time.sleep(0.3)
            end = meter.read()
            try:
                energy = meter.energy_between(start, end)
            except MeterUnavailableError as error:
                assert "still" in str(error)
                continue
        if set(energy.domains) != set(names) and live.longest_step_s > REGISTERS_APART_S:
            continue  # one zone was written so long after the other that they looked like two
        assert set(energy.domains) == set(names)
        total_j = 0.0
        for domain, folder in names.items():
            shown = live.shown[folder]
            seconds = shown[int(end.counters[domain])] - shown[int(start.counters[domain])]
            total_j += machine.zones[folder].power_w * seconds
        assert energy.energy_j == pytest.approx(total_j, rel=1e-3)
        return
    pytest.skip("this machine stalls for longer than a counter may stand still")


def refused(machine: Machine, disturb: Callable[[LiveMachine], None]) -> str:
    """What the meter says of a window with a disturbance in it."""
    with LiveMachine(machine) as live, RaplMeter(machine.root) as meter:
        start = meter.read()
        time.sleep(0.05)
        disturb(live)
        time.sleep(0.1)
        with pytest.raises(MeterUnavailableError) as caught:
            meter.energy_between(start, meter.read())
    return str(caught.value)


def test_a_counter_that_freezes_half_way_gives_no_figure(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)

    def freeze(_: LiveMachine) -> None:
        machine.zones["intel-rapl:1"].running = False

    assert "package-1 stands still" in refused(machine, freeze)


def test_a_counter_that_goes_back_half_way_gives_no_figure(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)

    def back(live: LiveMachine) -> None:
        live._starts_uj["intel-rapl:0"] -= 500e6  # half of what it had at the start

    assert "package-0 went back" in refused(machine, back)


# ------------------------------------------------------------------ clocks


def joules(meter: RaplMeter, seconds: float) -> Energy:
    start = meter.read()
    time.sleep(seconds)
    return meter.energy_between(start, meter.read())


def test_a_wall_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows are on the clock that nobody sets."""
    jumps_s = iter(range(0, -10_000_000, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps_s)))
    machine = two_sockets(tmp_path)
    for _ in range(ATTEMPTS):
        with LiveMachine(machine), RaplMeter(machine.root) as meter:
            try:
                energy = joules(meter, 0.3)
            except MeterUnavailableError as error:
                assert "still" in str(error)
                continue
        assert 0.3 <= energy.duration_s < 5.0
        assert energy.power_w == pytest.approx(235.0, rel=0.5)  # a busy machine's writer is late
        return
    pytest.skip("this machine stalls for longer than a counter may stand still")


@pytest.mark.parametrize("jump_s", [600.0, 86_400.0])
def test_a_machine_that_slept_within_the_window_gives_no_figure(
    tmp_path: Path, jump_s: float
) -> None:
    """The clock is far ahead at once, and the counters may have gone round or restarted."""
    machine = two_sockets(tmp_path)
    meter = RaplMeter(tmp_path, **machine.injected)
    start = meter.read()
    machine.advance(0.5)
    meter.look()
    machine.now_s += jump_s
    machine.advance(0.5)
    with pytest.raises(MeterUnavailableError, match="not looked at for"):
        meter.energy_between(start, meter.read())


def test_a_clock_that_runs_backwards_gives_no_figure(tmp_path: Path) -> None:
    machine = two_sockets(tmp_path)
    meter = RaplMeter(tmp_path, **machine.injected)
    start = meter.read()
    machine.advance(1.0)
    machine.now_s -= 2.0
    with pytest.raises(MeterUnavailableError, match="no length"):
        meter.energy_between(start, meter.read())
