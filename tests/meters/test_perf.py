"""The perf meter, on events of known power that the kernel really counts."""

import os
import time

import pytest
from power_pmu import DEAD, ONE_WATT, TEN_WATTS, UNKNOWN, write_pmu, write_topology

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Meter, Reading
from ipa_energy.meters.perf import (
    COUNTED,
    PerfMeter,
    counted_packages,
    counting_cpus,
    energy_events,
    event_kind,
    open_event,
)
from ipa_energy.meters.watching import moving

pytestmark = pytest.mark.measures

SERVER = {"pkg": TEN_WATTS, "ram": ONE_WATT, "cores": TEN_WATTS, "psys": TEN_WATTS}


@pytest.fixture
def server(tmp_path):
    """A machine of one package; the test is skipped where the kernel lets nobody count."""
    folder = write_pmu(tmp_path / "power", **SERVER)
    try:
        PerfMeter(folder).close()
    except MeterUnavailableError as error:
        pytest.skip(f"this kernel does not let us count: {error}")
    return folder


def bracketed(meter, pause_s):
    """Energy of a window, and the least and the most seconds it can have lasted."""
    first_s = time.perf_counter()
    start = meter.read()
    second_s = time.perf_counter()
    time.sleep(pause_s)
    third_s = time.perf_counter()
    end = meter.read()
    fourth_s = time.perf_counter()
    return meter.energy_between(start, end), third_s - second_s, fourth_s - first_s


def assert_power(energy_j, power_w, least_s, most_s):
    """The kernel's clock and ours may part by the 500 ppm that NTP slews."""
    assert power_w * least_s * 0.999 <= energy_j <= power_w * most_s * 1.001


def test_a_window_between_any_two_moments_has_its_true_joules(server):
    with PerfMeter(server) as meter:
        _: Meter = meter
        for pause_s in (0.02, 0.15):
            energy, least_s, most_s = bracketed(meter, pause_s)
            assert least_s <= energy.duration_s <= most_s
            assert set(energy.domains) == {"package-0", "dram-0"}
            assert_power(energy.domains["package-0"], 10.0, least_s, most_s)
            assert_power(energy.domains["dram-0"], 1.0, least_s, most_s)
            assert energy.energy_j == pytest.approx(sum(energy.domains.values()))
            assert (energy.meter, energy.quality) == ("perf", "measured")


def test_every_package_is_counted_on_its_own_cpu(server, tmp_path):
    (server / "cpumask").write_text("0-1\n")
    topology = write_topology(tmp_path / "cpu", (0, 0), (1, 0))
    try:
        meter = PerfMeter(server, topology=topology)
    except MeterUnavailableError as error:
        pytest.skip(f"this machine has one CPU: {error}")
    with meter:
        assert meter.domains == ("package-0", "package-1", "dram-0", "dram-1")
        energy, least_s, most_s = bracketed(meter, 0.1)
    assert_power(energy.energy_j, 22.0, least_s, most_s)


def test_a_package_that_shows_its_counter_on_every_core_complex_is_counted_once(server, tmp_path):
    (server / "cpumask").write_text("0-1\n")
    topology = write_topology(tmp_path / "cpu", (0, 0), (0, 0))

    def one_counter(pmu_type, config, cpu):
        return open_event(pmu_type, config, 0)

    with PerfMeter(server, opener=one_counter, topology=topology) as meter:
        assert meter.domains == ("package-0", "dram-0")
        energy, least_s, most_s = bracketed(meter, 0.1)
    assert_power(energy.domains["package-0"], 10.0, least_s, most_s)
    assert_power(energy.energy_j, 11.0, least_s, most_s)


@pytest.mark.parametrize(
    ("vendor", "places", "found"),
    [
        # Zen 4 with a kernel that takes each core complex for a die; two packages of two
        ("AuthenticAMD", [(0, 0), (0, 1), (1, 2), (1, 3)], {"0": 0, "1": 2}),
        ("HygonGenuine", [(0, 0), (0, 1)], {"0": 0}),
        ("GenuineIntel", [(0, 0), (1, 0)], {"0": 0, "1": 1}),
        ("GenuineIntel", [(0, 0), (0, 1)], {"0-die-0": 0, "0-die-1": 1}),  # each its counter
        ("GenuineIntel", [(0, 0), (0, 0)], {"0": 0}),
        ("", [], {"0": 0, "1": 1}),
    ],
)
def test_a_counter_is_read_on_one_cpu(tmp_path, vendor, places, found):
    folder = write_pmu(tmp_path / "power", cpus=f"0-{max(1, len(places) - 1)}", pkg=TEN_WATTS)
    topology = write_topology(tmp_path / "cpu", *places)
    assert counted_packages(folder, topology, vendor) == found


def test_the_platform_is_counted_once_on_two_packages(server, tmp_path):
    (server / "cpumask").write_text("0-1\n")
    topology = write_topology(tmp_path / "cpu", (0, 0), (1, 0))
    with PerfMeter(server, psys=True, topology=topology) as meter:
        assert meter.domains == ("psys-0",)


def test_the_platform_stands_alone(server):
    with PerfMeter(server, psys=True) as meter:
        assert meter.domains == ("psys-0",)
        energy, least_s, most_s = bracketed(meter, 0.05)
    assert_power(energy.energy_j, 10.0, least_s, most_s)


def test_platform_alone_if_asked_for_or_if_there_is_nothing_else(tmp_path):
    folder = write_pmu(tmp_path / "power", **SERVER)
    assert energy_events(folder) == {"energy-pkg": "package", "energy-ram": "dram"}
    assert energy_events(folder, psys=True) == {"energy-psys": "psys"}
    for event in ("energy-pkg", "energy-ram", "energy-cores"):
        for path in (folder / "events").glob(f"{event}*"):
            path.unlink()
    assert energy_events(folder) == {"energy-psys": "psys"}
    with pytest.raises(MeterUnavailableError, match="lists only energy-psys under"):
        energy_events(folder, psys=False)
    with pytest.raises(MeterUnavailableError, match="lists no energy event") as caught:
        energy_events(tmp_path / "nowhere")
    assert caught.value.state == "absent"


def test_an_event_that_stands_still_is_no_zero(server, tmp_path):
    folder = write_pmu(tmp_path / "virtual", psys=DEAD)
    with PerfMeter(folder) as meter:
        start = meter.read()
        time.sleep(0.02)
        with pytest.raises(MeterUnavailableError, match="psys-0 did not move"):
            meter.energy_between(start, meter.read())
    with pytest.raises(MeterUnavailableError, match="stood still") as caught:
        moving(lambda leave_out: PerfMeter(folder, leave_out=leave_out))
    assert caught.value.state == "dead"


def test_memory_that_stands_still_is_left_out_after_a_trial(server, tmp_path):
    folder = write_pmu(tmp_path / "desktop", pkg=TEN_WATTS, ram=DEAD)
    meter, status = moving(lambda leave_out: PerfMeter(folder, leave_out=leave_out))
    meter.close()
    assert (status.state, status.domains) == ("measured", ("package-0",))
    assert "dram-0 stood still" in status.reason


class Counters:
    """Stands for the kernel: descriptors of a file that says what a test wants."""

    def __init__(self, path):
        self.path = path
        self.set(0)

    def set(self, count, enabled_ns=1000, counted_ns=1000):
        self.path.write_bytes(COUNTED.pack(count, enabled_ns, counted_ns) * 10_000)

    def __call__(self, pmu_type, config, cpu):
        return os.open(self.path, os.O_RDONLY)


@pytest.fixture
def scripted(tmp_path):
    """A meter whose counts and clock a test sets."""
    counters = Counters(tmp_path / "counters")
    folder = write_pmu(tmp_path / "power", pkg=("event=0x02", "0.5"))
    now = {"s": 5.0}

    def sleep(seconds):
        now["s"] += seconds

    meter = PerfMeter(folder, opener=counters, clock=lambda: now["s"], sleep=sleep)
    yield meter, counters, now
    meter.close()


def test_counts_times_scale_are_joules_and_the_end_is_confirmed(scripted):
    meter, counters, now = scripted
    start = meter.read()
    now["s"] += 2.0
    counters.set(60)
    end = meter.read()
    counters.set(61)
    energy = meter.energy_between(start, end)
    assert (energy.energy_j, energy.duration_s, energy.power_w) == (30.0, 2.0, 15.0)


def test_an_event_that_leaps_gives_no_figure(scripted):
    meter, counters, now = scripted
    start = meter.read()
    now["s"] += 60.0
    counters.set(2 * 262_144)
    end = meter.read()
    counters.set(2 * 262_144 + 1)
    with pytest.raises(MeterUnavailableError, match="no power explains"):
        meter.energy_between(start, end)


def test_an_event_that_stops_before_the_end_gives_no_figure(scripted):
    meter, counters, now = scripted
    start = meter.read()
    now["s"] += 2.0
    counters.set(60)
    with pytest.raises(MeterUnavailableError, match="package-0 stands still"):
        meter.energy_between(start, meter.read())


def test_an_event_counted_part_of_the_time_gives_no_figure(scripted):
    meter, counters, _ = scripted
    counters.set(60, enabled_ns=1000, counted_ns=400)
    with pytest.raises(MeterUnavailableError, match=r"counted 40\.0% of the time"):
        meter.read()
    counters.set(0, enabled_ns=0, counted_ns=0)
    with pytest.raises(MeterUnavailableError, match=r"counted 0\.0% of the time"):
        meter.read()


def test_an_event_that_went_away_gives_no_figure(scripted):
    meter, counters, _ = scripted
    counters.path.write_bytes(b"")
    with pytest.raises(MeterUnavailableError, match="energy-pkg cannot be read"):
        meter.read()


def test_windows_without_length_and_foreign_readings_are_refused(scripted):
    meter, _, now = scripted
    first = meter.read()
    now["s"] += 1.0
    second = meter.read()
    for start, end in [(first, first), (second, first)]:
        with pytest.raises(MeterUnavailableError, match="no length"):
            meter.energy_between(start, end)
    with pytest.raises(ConfigError, match="not taken by"):
        meter.energy_between(first, Reading(second.time_s, {"package-9": 1.0}))


@pytest.mark.parametrize(
    ("error", "state", "says"),
    [
        (PermissionError(13, "Permission denied"), "denied", "perf_event_paranoid=0"),
        (PermissionError(1, "Operation not permitted"), "denied", "CAP_PERFMON"),
        (OSError(19, "No such device"), "absent", "No such device"),
    ],
)
def test_a_kernel_that_refuses_says_why_and_what_to_do(tmp_path, error, state, says):
    def refuse(pmu_type, config, cpu):
        raise error

    with pytest.raises(MeterUnavailableError, match=says) as caught:
        PerfMeter(write_pmu(tmp_path / "power", **SERVER), opener=refuse)
    assert caught.value.state == state


def test_an_event_that_the_kernel_does_not_know_is_absent(server, tmp_path):
    with pytest.raises(MeterUnavailableError, match="does not count energy-pkg") as caught:
        PerfMeter(write_pmu(tmp_path / "odd", pkg=UNKNOWN))
    assert caught.value.state == "absent"


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("events/energy-pkg.unit", "Watts\n", "Watts"),
        ("events/energy-pkg.scale", "much\n", "much"),
        ("events/energy-pkg", "umask=0x01\n", "umask"),
        ("format/event", "config1:0-7\n", "not in config"),
        ("type", "", "energy-pkg is not described"),
        ("cpumask", "all\n", "cpumask"),
    ],
)
def test_a_description_that_is_not_understood_is_refused(tmp_path, path, content, says):
    folder = write_pmu(tmp_path / "power", **SERVER)
    (folder / path).write_text(content)
    with pytest.raises(MeterUnavailableError, match=says):
        PerfMeter(folder)


def test_fields_and_cpu_lists_of_the_kernel_are_read(tmp_path):
    folder = write_pmu(tmp_path / "power", cpus="0,24,48-50", pkg=("event=0x02,umask=0x3", "0.25"))
    (folder / "format" / "umask").write_text("config:8-15\n")
    assert event_kind(folder, "energy-pkg").config == 0x302
    assert counting_cpus(folder) == (0, 24, 48, 49, 50)


def test_an_event_can_be_left_out_but_not_every_one(server):
    with PerfMeter(server, leave_out=["dram-0"]) as meter:
        assert meter.domains == ("package-0",)
    with pytest.raises(ConfigError, match="nothing would remain"):
        PerfMeter(server, leave_out=["package-0", "dram-0"])


def test_this_machines_own_power_event_moves_or_is_called_dead():
    """Some virtual machines list energy-psys and keep it at 0.00."""
    try:
        meter = PerfMeter()
    except MeterUnavailableError as error:
        pytest.skip(f"no power event to try: {error}")
    with meter:
        start = meter.read()
        time.sleep(0.2)
        end = meter.read()
        if all(end.counters[name] > start.counters[name] for name in meter.domains):
            assert meter.energy_between(start, end).energy_j > 0
        else:
            with pytest.raises(MeterUnavailableError, match="did not move"):
                meter.energy_between(start, end)
