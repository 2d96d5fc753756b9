"""RAPL where no figure is due: counters that rest, go back or leap, and rights that are gone."""

import os
import threading
from pathlib import Path

import pytest
from powercap_tree import two_sockets, window

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Reading
from ipa_energy.meters.rapl import RaplMeter


@pytest.fixture
def machine(tmp_path):
    return two_sockets(tmp_path)


@pytest.fixture
def meter(machine):
    return RaplMeter(machine.root, **machine.injected)


def test_a_frozen_counter_is_no_zero(machine, meter):
    machine.zones["intel-rapl:1:2"].running = False
    with pytest.raises(MeterUnavailableError, match="dram-1"):
        window(machine, meter, 1.0)


def test_a_window_shorter_than_a_step_is_no_zero(machine, meter):
    start = meter.read()
    machine.now_s += 0.0004
    end = meter.read()
    with pytest.raises(MeterUnavailableError, match="did not move"):
        meter.energy_between(start, end)


def test_a_counter_that_stops_before_the_end_gives_no_figure(machine, meter):
    start = meter.read()
    machine.advance(0.5)
    machine.zones["intel-rapl:0"].running = False
    machine.advance(0.5)
    end = meter.read()
    with pytest.raises(MeterUnavailableError, match="package-0 stands still"):
        meter.energy_between(start, end)


def test_a_counter_that_rested_within_the_window_gives_no_figure(machine, meter):
    start = meter.read()
    machine.advance(1.0)
    meter.look()
    machine.zones["intel-rapl:0"].running = False
    machine.advance(1.0)
    meter.look()
    machine.zones["intel-rapl:0"].running = True
    machine.advance(1.0)
    with pytest.raises(MeterUnavailableError, match="package-0 stood still for 1 s"):
        meter.energy_between(start, meter.read())
    assert window(machine, meter, 1.0).energy_j == pytest.approx(235.0, rel=1e-6)


@pytest.mark.parametrize("jump_uj", [-1, -5_000_000, -900_000_000, 3_000_000_000])
def test_a_counter_that_goes_back_or_leaps_gives_no_figure(machine, meter, jump_uj):
    start = meter.read()
    zone = machine.zones["intel-rapl:0"]
    zone.power_w = 0.0
    machine.advance(0.2)
    zone.total_uj += jump_uj
    zone.power_w = 120.0
    zone.write()
    end = meter.read()
    with pytest.raises(MeterUnavailableError, match="package-0 went"):
        meter.energy_between(start, end)
    assert window(machine, meter, 1.0).energy_j == pytest.approx(235.0, rel=1e-6)


def test_windows_without_length_are_refused(machine, meter):
    first = meter.read()
    machine.advance(1.0)
    second = meter.read()
    for start, end in [(first, first), (second, first)]:
        with pytest.raises(MeterUnavailableError, match="no length"):
            meter.energy_between(start, end)
    with pytest.raises(ConfigError, match="not taken by"):
        meter.energy_between(first, Reading(second.time_s, {"package-0": 1.0}))


# ------------------------------------------------------------------ rights and broken files


class Gate:
    """Opens files until it is shut: root may read what chmod forbids."""

    def __init__(self):
        self.shut = False

    def __call__(self, path):
        if self.shut:
            raise PermissionError(13, "Permission denied", str(path))
        return os.open(path, os.O_RDONLY)


def test_denied_says_how_to_get_the_right(machine, tmp_path):
    gate = Gate()
    gate.shut = True
    with pytest.raises(MeterUnavailableError, match="chmod a\\+r") as caught:
        RaplMeter(tmp_path, opener=gate, **machine.injected)
    assert caught.value.state == "denied"


def test_a_right_taken_away_half_way_gives_no_figure(machine, tmp_path):
    gate = Gate()
    meter = RaplMeter(tmp_path, opener=gate, **machine.injected)
    meter.read()
    machine.advance(1.0)
    gate.shut = True
    (tmp_path / "intel-rapl:1" / "energy_uj").chmod(0)
    with pytest.raises(MeterUnavailableError, match="may not be read"):
        meter.read()


def test_a_right_that_was_gone_for_a_while_spoils_the_windows_it_touches(machine, tmp_path):
    gate = Gate()
    meter = RaplMeter(tmp_path, opener=gate, **machine.injected)
    start = meter.read()
    machine.advance(1.0)
    gate.shut = True
    (tmp_path / "intel-rapl:1" / "energy_uj").chmod(0)
    meter._watch()
    gate.shut = False
    machine.advance(1.0)
    with pytest.raises(MeterUnavailableError, match="could not be read"):
        meter.energy_between(start, meter.read())
    assert window(machine, meter, 1.0).energy_j == pytest.approx(235.0, rel=1e-6)


def test_a_file_that_is_replaced_is_followed(machine, meter):
    start = meter.read()
    machine.advance(1.0)
    for zone in machine.zones.values():
        zone.replace()
    assert meter.energy_between(start, meter.read()).energy_j == pytest.approx(235.0, rel=1e-6)


@pytest.mark.parametrize("content", ["", "many\n", "-5\n", "1e9\n"])
def test_a_file_that_holds_no_energy_gives_no_figure(machine, meter, tmp_path, content):
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text(content)
    with pytest.raises(MeterUnavailableError, match="energy_uj holds"):
        meter.read()


def test_a_file_that_went_away_gives_no_figure(machine, meter, tmp_path):
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(MeterUnavailableError, match="cannot be read"):
        meter.read()


@pytest.mark.parametrize("present", [False, True])
def test_no_tree_and_an_empty_one_are_absent(tmp_path, present):
    root = tmp_path / "powercap"
    if present:
        (root / "intel-rapl").mkdir(parents=True)
    with pytest.raises(MeterUnavailableError, match="no package zone") as caught:
        RaplMeter(root)
    assert caught.value.state == "absent"


@pytest.mark.parametrize("content", ["", "0\n", "-1\n", "wide\n"])
def test_a_counter_without_a_range_is_refused(machine, tmp_path, content):
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").write_text(content)
    with pytest.raises(MeterUnavailableError, match="max_energy_range_uj"):
        RaplMeter(tmp_path, **machine.injected)


def test_the_smallest_window_is_a_hundred_steps(machine, tmp_path):
    assert RaplMeter(tmp_path, **machine.injected).min_window_s == pytest.approx(0.1)
    slow = RaplMeter(tmp_path, update_period_s=0.02, **machine.injected)
    assert slow.min_window_s == pytest.approx(2.0)


def test_a_closed_meter_leaves_no_thread_and_no_file(tmp_path):
    two_sockets(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with RaplMeter(tmp_path) as meter:
        meter.read()
        assert any(thread.name == "rapl" for thread in threading.enumerate())
    assert not any(thread.name == "rapl" for thread in threading.enumerate())
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_links_that_lead_nowhere_are_named_with_a_mount_that_helps(tmp_path):
    """A container in which the host's /sys/class/powercap is mounted, and what it links to not."""
    zones = {"intel-rapl:0": "intel-rapl:0", "intel-rapl:0:0": "intel-rapl:0/intel-rapl:0:0"}
    root = tmp_path / "mounted"
    root.mkdir()
    for name, place in zones.items():
        (root / name).symlink_to(f"../../devices/virtual/powercap/intel-rapl/{place}")
    with pytest.raises(MeterUnavailableError, match="lead nowhere") as caught:
        RaplMeter(root)
    assert "/sys/devices/virtual/powercap" in caught.value.fix
    assert "mount the host's /sys/class/powercap" not in caught.value.fix


def test_one_link_that_leads_nowhere_is_not_left_out_unsaid(tmp_path):
    two_sockets(tmp_path)
    (tmp_path / "intel-rapl:a").symlink_to(tmp_path / "gone" / "intel-rapl:a")
    with pytest.raises(MeterUnavailableError, match="lead nowhere: intel-rapl:a"):
        RaplMeter(tmp_path)


def test_the_advice_where_there_is_nothing_does_not_lead_to_links(tmp_path):
    with pytest.raises(MeterUnavailableError, match="no package zone") as caught:
        RaplMeter(tmp_path)
    assert "mount the host's /sys/devices/virtual/powercap" in caught.value.fix
