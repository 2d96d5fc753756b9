"""RAPL on trees whose true energy is known: what is added up, and what wraps."""

import random
import time

import pytest
from powercap_tree import SERVER_RANGE_UJ, LiveMachine, Machine, two_sockets, window

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Meter
from ipa_energy.meters.rapl import RaplMeter

# ------------------------------------------------------------------ what is added up


def test_two_sockets_are_packages_plus_memory_and_nothing_else(tmp_path):
    machine = two_sockets(tmp_path)
    meter: Meter = RaplMeter(tmp_path, **machine.injected)
    energy = window(machine, meter, 2.0)
    assert energy.domains == pytest.approx(
        {"package-0": 240.0, "dram-0": 40.0, "package-1": 160.0, "dram-1": 30.0}, rel=1e-7
    )
    assert energy.energy_j == pytest.approx(470.0, rel=1e-7)
    assert energy.duration_s == pytest.approx(2.0)
    assert (energy.meter, energy.quality) == ("rapl", "measured")


def test_platform_stands_alone(tmp_path):
    machine = two_sockets(tmp_path)
    energy = window(machine, RaplMeter(tmp_path, psys=True, **machine.injected), 1.0)
    assert energy.domains == pytest.approx({"psys": 400.0})


def test_children_inside_their_parents_are_found_once(tmp_path):
    machine = Machine(tmp_path)
    machine.add("intel-rapl:0", "package-0", power_w=50.0)
    machine.add("intel-rapl:0/intel-rapl:0:0", "dram", power_w=5.0)
    (tmp_path / "intel-rapl:0:0").symlink_to(tmp_path / "intel-rapl:0" / "intel-rapl:0:0")
    meter = RaplMeter(tmp_path, **machine.injected)
    assert meter.domains == ("package-0", "dram-0")
    assert window(machine, meter, 1.0).energy_j == pytest.approx(55.0)


def test_more_than_ten_packages_are_numbered_in_hexadecimal(tmp_path):
    machine = Machine(tmp_path)
    for package in range(16):
        start_uj = 1e9 * (package + 1)
        top = f"intel-rapl:{package:x}"
        machine.add(top, f"package-{package}", power_w=100.0, start_uj=start_uj)
        machine.add(f"{top}/{top}:0", "dram", power_w=10.0, start_uj=start_uj / 10)
    energy = window(machine, RaplMeter(tmp_path, **machine.injected), 3.0)
    assert energy.energy_j == pytest.approx(16 * (100 + 10) * 3.0)
    assert {"package-15", "dram-15", "package-10"} <= set(energy.domains)


def test_the_folder_of_the_devices_themselves_has_memory_too(tmp_path):
    """What a container mounts: /sys/devices/virtual/powercap, a level deeper than the class."""
    machine = Machine(tmp_path)
    machine.add("intel-rapl/intel-rapl:0", "package-0", power_w=50.0)
    machine.add("intel-rapl/intel-rapl:0/intel-rapl:0:0", "dram", power_w=5.0)
    meter = RaplMeter(tmp_path, **machine.injected)
    assert window(machine, meter, 1.0).domains == pytest.approx({"package-0": 50.0, "dram-0": 5.0})


def test_amd_has_packages_and_cores_only(tmp_path):
    machine = Machine(tmp_path)
    for socket in range(2):
        top = f"intel-rapl:{socket}"
        machine.add(top, f"package-{socket}", power_w=200.0, range_uj=65_532_610_987)
        machine.add(f"{top}:0", "core", power_w=150.0, range_uj=65_532_610_987)
    energy = window(machine, RaplMeter(tmp_path, **machine.injected), 1.0)
    assert energy.domains == pytest.approx({"package-0": 200.0, "package-1": 200.0})


def test_zones_are_told_by_name_not_by_number(tmp_path):
    machine = Machine(tmp_path)
    machine.add("intel-rapl:0", "psys", power_w=300.0)
    machine.add("intel-rapl:1", "package-1", power_w=30.0)
    machine.add("intel-rapl:1:0", "dram", power_w=3.0)
    machine.add("intel-rapl:7", "package-0", power_w=70.0)
    energy = window(machine, RaplMeter(tmp_path, **machine.injected), 1.0)
    assert energy.domains == pytest.approx({"package-1": 30.0, "dram-1": 3.0, "package-0": 70.0})


def test_one_package_under_two_control_types_counts_once(tmp_path):
    machine = Machine(tmp_path)
    machine.add("intel-rapl-mmio:0", "package-0", power_w=40.0, start_uj=77e6)
    machine.add("intel-rapl:0", "package-0", power_w=40.0, start_uj=5e9)
    assert window(machine, RaplMeter(tmp_path, **machine.injected), 1.0).energy_j == pytest.approx(
        40
    )


def test_mirrored_dies_count_once_and_own_ones_are_added(tmp_path):
    machine = Machine(tmp_path)
    for package, (first_uj, second_uj) in enumerate([(4e9, 4e9), (6e9, 9e9)]):
        for die, start_uj in enumerate([first_uj, second_uj]):
            top = f"intel-rapl:{2 * package + die}"
            name = f"package-{package}-die-{die}"
            machine.add(top, name, power_w=60.0, start_uj=start_uj)
            machine.add(f"{top}:0", "dram", power_w=6.0, start_uj=start_uj / 10)
    energy = window(machine, RaplMeter(tmp_path, **machine.injected), 1.0)
    assert energy.domains == pytest.approx(
        {
            "package-0-die-0": 60.0, "dram-0-die-0": 6.0,
            "package-1-die-0": 60.0, "dram-1-die-0": 6.0,
            "package-1-die-1": 60.0, "dram-1-die-1": 6.0,
        }
    )  # fmt: skip


def test_a_memory_counter_can_be_left_out(tmp_path):
    machine = two_sockets(tmp_path)
    meter = RaplMeter(tmp_path, leave_out=["dram-0", "dram-1"], **machine.injected)
    assert window(machine, meter, 1.0).energy_j == pytest.approx(200.0)
    with pytest.raises(ConfigError, match="dram-7"):
        RaplMeter(tmp_path, leave_out=["dram-7"], **machine.injected)
    with pytest.raises(ConfigError, match="not all"):
        RaplMeter(tmp_path, leave_out=[*meter.domains, "dram-0", "dram-1"], **machine.injected)


# ------------------------------------------------------------------ wraps


def test_a_wrap_is_modulo_range_plus_one(tmp_path):
    machine = Machine(tmp_path)
    zone = machine.add("intel-rapl:0", "package-0", start_uj=SERVER_RANGE_UJ - 500)
    meter = RaplMeter(tmp_path, **machine.injected)
    start = meter.read()
    machine.now_s += 1.0
    zone.total_uj += 1000
    zone.write()
    assert int((zone.path / "energy_uj").read_text()) == 499
    end = meter.read()
    zone.power_w = 1.0  # goes on, so that the window's end is believed
    assert meter.energy_between(start, end).energy_j == 0.001


def test_a_window_with_many_wraps_is_right_if_it_was_looked_at(tmp_path):
    machine = Machine(tmp_path)
    machine.add("intel-rapl:0", "package-0", power_w=280.0, range_uj=65_532_610_987)
    meter = RaplMeter(tmp_path, **machine.injected)
    assert 10.0 < meter.look_period_s * 65.6 < 100.0 or meter.look_period_s == 1.0
    hours_s = 3600.0 * 2  # 30.8 rounds of the counter
    looks = int(hours_s / 30.0)
    assert window(machine, meter, hours_s, looks).energy_j == pytest.approx(
        280.0 * hours_s, rel=1e-9
    )


def test_a_counter_out_of_sight_for_a_whole_round_gives_no_figure(tmp_path):
    machine = Machine(tmp_path)
    machine.add("intel-rapl:0", "package-0", power_w=280.0, range_uj=65_532_610_987)
    meter = RaplMeter(tmp_path, **machine.injected)
    with pytest.raises(MeterUnavailableError, match="not looked at for 600 s"):
        window(machine, meter, 600.0)
    assert window(machine, meter, 10.0).energy_j == pytest.approx(2800.0)


def test_looks_come_twice_a_round_at_the_highest_power(tmp_path):
    machine = Machine(tmp_path)
    machine.add("intel-rapl:0", "package-0", range_uj=100_000_000 - 1)
    meter = RaplMeter(tmp_path, max_power_w={"package": 500.0}, **machine.injected)
    assert meter.look_period_s == pytest.approx(100 / (2 * 500))


@pytest.mark.parametrize("seed", range(20))
def test_random_powers_ranges_and_looks_agree_with_the_truth(tmp_path, seed):
    dice = random.Random(seed)
    machine = Machine(tmp_path)
    for socket in range(dice.randint(1, 4)):
        range_uj = dice.randint(50_000_000, 500_000_000)
        machine.add(
            f"intel-rapl:{socket}",
            f"package-{socket}",
            power_w=dice.uniform(5, 300),
            start_uj=dice.randint(0, range_uj),
            range_uj=range_uj,
        )
    watts = {"package": 400.0}
    meter = RaplMeter(tmp_path, max_power_w=watts, **machine.injected)
    for _ in range(dice.randint(0, 5)):
        machine.advance(meter.look_period_s * dice.random())
        meter.look()
    truth_j = {zone: z.total_uj / 1e6 for zone, z in machine.zones.items()}
    start = meter.read()
    for _ in range(dice.randint(5, 60)):
        machine.advance(meter.look_period_s * dice.uniform(0.3, 1.9))
        meter.look()
    end = meter.read()
    expected_j = sum(z.total_uj / 1e6 - truth_j[zone] for zone, z in machine.zones.items())
    energy = meter.energy_between(start, end)
    assert energy.energy_j == pytest.approx(expected_j, abs=1e-5)


@pytest.mark.parametrize("before_uj", [0, 1500, 3500, 5500])
def test_a_wrap_during_a_read_is_seen_once(tmp_path, before_uj):
    """Time goes on within a read; the counter wraps before it, in it, or after it."""
    machine = Machine(tmp_path)
    for socket in range(2):
        start_uj = SERVER_RANGE_UJ - 200e6 - before_uj
        machine.add(f"intel-rapl:{socket}", f"package-{socket}", power_w=100.0, start_uj=start_uj)

    def clock():
        machine.advance(20e-6)  # 2000 µJ
        return machine.now_s

    meter = RaplMeter(tmp_path, clock=clock, sleep=machine.sleep, keep_alive=False)
    start = meter.read()
    machine.advance(2.0)
    end = meter.read()
    energy = meter.energy_between(start, end)
    assert all(zone.shown_uj < zone.total_uj for zone in machine.zones.values())
    assert energy.energy_j == pytest.approx(200.0 * energy.duration_s, rel=1e-3)
    later = window(machine, meter, 1.0)
    assert later.energy_j == pytest.approx(200.0 * later.duration_s, rel=1e-3)


def test_a_tree_that_runs_in_real_time_with_wraps_in_the_window(tmp_path):
    """Every figure is one the tree showed; a window may be refused if the machine stalled."""
    machine = Machine(tmp_path)
    for socket, watts in enumerate((100.0, 60.0)):
        top = f"intel-rapl:{socket}"
        machine.add(top, f"package-{socket}", power_w=watts, start_uj=3e6, range_uj=40_000_000)
        machine.add(f"{top}:0", "dram", power_w=10.0, start_uj=1e6, range_uj=40_000_000)
    names = {
        "package-0": "intel-rapl:0", "dram-0": "intel-rapl:0:0",
        "package-1": "intel-rapl:1", "dram-1": "intel-rapl:1:0",
    }  # fmt: skip
    watts = {"package": 150.0, "dram": 150.0}
    for _ in range(10):
        for zone in machine.zones.values():
            zone.total_uj = zone.total_uj % (zone.range_uj + 1)
        with LiveMachine(machine) as live, RaplMeter(tmp_path, max_power_w=watts) as meter:
            start = meter.read()
            time.sleep(1.0)
            end = meter.read()
            try:
                energy = meter.energy_between(start, end)
            except MeterUnavailableError as error:
                assert "not looked at" in str(error) or "still" in str(error)
                continue
        expected_j = {}
        for domain, folder in names.items():
            shown = live.shown[folder]
            begin_s = shown[int(start.counters[domain])]  # a KeyError: a value never shown
            until_s = shown[int(end.counters[domain])]
            expected_j[domain] = machine.zones[folder].power_w * (until_s - begin_s)
        assert expected_j["package-0"] > 80  # the counter went round at least twice
        assert energy.domains == pytest.approx(expected_j, abs=5e-6)
        return
    pytest.skip("this machine stalls for longer than the counters take to go round")
