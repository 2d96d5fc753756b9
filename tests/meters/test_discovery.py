"""Which state each source is in, and which one is chosen."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from powercap_tree import LiveMachine, Machine, two_sockets

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import MeterStatus, Reading, min_window_for
from ipa_energy.meters.cpu_time import CpuTimeMeter
from ipa_energy.meters.discovery import (
    auto_of,
    best_here,
    close_meter,
    discover,
    left_out_of,
    open_meter,
)
from ipa_energy.meters.rapl import RaplMeter
from ipa_energy.meters.sources import Places, source
from ipa_energy.meters.watching import BusyCores, KeepAlive, observe
from ipa_energy.registries import METERS
from ipa_energy.testing import FakeMeter

NOBODY = 65534


@pytest.fixture
def places(tmp_path):
    """Nowhere: no counter of the machine itself is looked at."""
    return Places(powercap=tmp_path / "powercap", pmu=tmp_path / "power")


@pytest.fixture
def unprivileged():
    """A folder of somebody who is not root, for whom a mode counts; the test runs as that user."""
    was_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if was_root:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            if was_root:
                os.seteuid(0)


def status_of(found, name):
    return next(status for status in found.statuses if status.name == name)


def test_a_machine_without_counters_estimates_and_says_how_to_get_them(places):
    found = discover(places)
    assert [status.name for status in found.statuses] == list(METERS)
    for name in ("rapl", "perf", "kepler", "dcgm"):
        status = status_of(found, name)
        assert status.state == "absent"
        assert status.fix
        assert (status.domains, status.update_period_s, status.min_window_s) == ((), None, None)
    estimate = status_of(found, "cpu-time")
    assert estimate.state == "estimated"
    assert "%" in estimate.reason
    if status_of(found, "nvml").state != "measured":
        assert found.auto == "cpu-time"


def test_counters_that_move_are_measured_with_the_period_that_was_seen(places):
    machine = two_sockets(places.powercap)
    with LiveMachine(machine):
        status = source("rapl").status(places)
    assert status.state == "measured"
    assert status.domains == ("package-0", "dram-0", "package-1", "dram-1")
    assert status.update_period_s > 0.0005
    assert status.min_window_s == pytest.approx(100 * status.update_period_s)


def test_counters_that_stand_still_are_dead(places):
    two_sockets(places.powercap)
    status = source("rapl").status(places)
    assert status.state == "dead"
    assert "stood still" in status.reason
    with pytest.raises(MeterUnavailableError, match="stood still"):
        open_meter("rapl", places)


def test_memory_that_stands_still_is_left_out_and_said_so(places):
    machine = two_sockets(places.powercap)
    machine.zones["intel-rapl:0:2"].running = False
    with LiveMachine(machine):
        status = source("rapl").status(places)
    assert status.state == "measured"
    assert status.domains == ("package-0", "package-1", "dram-1")
    assert "dram-0 stood still" in status.reason


def test_one_package_of_two_that_stands_still_makes_the_meter_dead(places):
    machine = two_sockets(places.powercap)
    machine.zones["intel-rapl:1"].running = False
    with LiveMachine(machine):
        status = source("rapl").status(places)
    assert status.state == "dead"
    assert "package-1" in status.reason


def test_a_platform_counter_stands_in_where_there_is_nothing_else(places):
    machine = Machine(places.powercap)
    machine.add("intel-rapl:0", "psys", power_w=100.0)
    with LiveMachine(machine):
        status = source("rapl").status(places)
    assert (status.state, status.domains) == ("measured", ("psys",))


def test_counters_that_may_not_be_read_are_denied(unprivileged):
    two_sockets(unprivileged / "powercap")
    for path in unprivileged.rglob("energy_uj"):
        path.chmod(0)
    status = source("rapl").status(Places(powercap=unprivileged / "powercap"))
    assert (status.state, status.domains) == ("denied", ())
    assert "chmod a+r" in status.fix


def test_a_tree_that_may_not_be_listed_is_denied(unprivileged):
    (unprivileged / "powercap").mkdir(mode=0)
    assert source("rapl").status(Places(powercap=unprivileged / "powercap")).state == "denied"


def test_a_right_taken_away_half_way_is_noticed_though_the_file_is_open(unprivileged):
    machine = two_sockets(unprivileged)
    meter = RaplMeter(unprivileged, **machine.injected)
    meter.read()
    machine.advance(1.0)
    (unprivileged / "intel-rapl:0" / "energy_uj").chmod(0)
    with pytest.raises(MeterUnavailableError, match="may not be read"):
        meter.read()
    meter.close()


def test_an_opened_meter_knows_its_period_and_can_be_closed(places):
    machine = two_sockets(places.powercap)
    with LiveMachine(machine):
        meter = open_meter("rapl", places)
        assert isinstance(meter, RaplMeter)
        start = end = meter.read()
        while any(end.counters[name] <= start.counters[name] for name in meter.domains):
            time.sleep(0.01)  # a busy machine lets the simulated one step when it likes
            end = meter.read()
        assert meter.energy_between(start, end).energy_j > 0
        close_meter(meter)


def test_the_estimate_is_opened_for_the_named_tree(places):
    meter = open_meter("cpu-time", places)
    assert isinstance(meter, CpuTimeMeter)
    assert meter.pid == os.getpid()
    close_meter(meter)


def test_an_unknown_meter_is_refused_with_those_there_are(places):
    with pytest.raises(ConfigError, match="allowed: auto, rapl"):
        open_meter("plug", places)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"rapl": "measured", "perf": "measured", "cpu-time": "estimated"}, "rapl"),
        ({"rapl": "denied", "perf": "measured", "cpu-time": "estimated"}, "perf"),
        ({"rapl": "dead", "perf": "dead", "cpu-time": "estimated"}, "cpu-time"),
        ({"rapl": "measured", "nvml": "measured", "cpu-time": "estimated"}, "nvml+rapl"),
        ({"rapl": "absent", "nvml": "measured", "cpu-time": "estimated"}, "nvml+cpu-time"),
        ({"rapl": "absent", "nvml": "dead", "kepler": "measured"}, None),
        ({"nvml": "measured"}, "nvml"),
        ({"nvml": "measured", "nvml-power": "estimated", "rapl": "measured"}, "nvml+rapl"),
        ({"nvml": "absent", "nvml-power": "estimated", "rapl": "measured"}, "nvml-power+rapl"),
        ({}, None),
    ],
)
def test_auto_is_the_best_that_counts_this_machine(states, expected):
    statuses = [MeterStatus(name, state, "made up") for name, state in states.items()]
    assert auto_of(statuses) == expected


def test_a_window_of_a_hundred_steps_is_good_to_one_percent():
    assert min_window_for(0.001) == pytest.approx(0.1)
    usable = {
        s: MeterStatus("m", s, "").usable for s in ("measured", "estimated", "dead", "denied")
    }
    assert usable == {"measured": True, "estimated": True, "dead": False, "denied": False}


# ------------------------------------------------------------------ watching and keeping busy


def test_the_period_of_each_counter_is_found():
    now = iter(x / 10_000 for x in range(10**7))
    clock = {"s": 0.0}

    def read():
        clock["s"] = next(now)
        steps = {"fast": clock["s"] // 0.001, "slow": clock["s"] // 0.02, "still": 7.0}
        return Reading(clock["s"], steps)

    seen = observe(read, clock=lambda: clock["s"])
    assert seen.period_s == pytest.approx({"fast": 0.001, "slow": 0.02}, rel=0.02)
    assert seen.still == ("still",)
    assert seen.slowest_s == pytest.approx(0.02, rel=0.02)


def test_busy_cores_are_busy_and_then_no_more():
    before_s, deadline_s = time.process_time(), time.perf_counter() + 30
    with BusyCores(1):
        while time.process_time() - before_s < 0.05 and time.perf_counter() < deadline_s:
            time.sleep(0.01)
    assert time.process_time() - before_s >= 0.05
    assert not any(thread.name == "busy" for thread in threading.enumerate())


class Owner:
    def __init__(self):
        self.called = threading.Event()

    def call(self):
        self.called.set()


def test_a_kept_alive_method_is_called_until_stopped():
    owner = Owner()
    watch = KeepAlive(owner.call, 0.001, name="kept")
    assert owner.called.wait(10)
    watch.stop()
    assert not any(thread.name == "kept" for thread in threading.enumerate())


def test_an_owner_that_nobody_holds_is_not_held_by_its_thread():
    owner = Owner()
    called = owner.called
    KeepAlive(owner.call, 0.001, name="orphan")
    assert called.wait(10)
    del owner
    thread = next((t for t in threading.enumerate() if t.name == "orphan"), None)
    if thread is not None:
        thread.join(10)
        assert not thread.is_alive()


def test_a_meter_without_anything_to_close_is_closed_too():
    close_meter(FakeMeter())


def test_importing_the_meters_loads_nothing_heavy():
    heavy = ("torch", "pynvml", "numpy", "pandas", "scipy")
    code = (
        "import sys, ipa_energy.meters.discovery;"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ------------------------------------------------------------------ what auto leaves out


def of(name, state, reason="made up", **more):
    return MeterStatus(name, state, reason, "a fix", **more)


CPU_TIME = of("cpu-time", "estimated")


@pytest.mark.parametrize(
    ("statuses", "auto", "notes"),
    [
        ([of("nvml", "absent"), of("nvml-power", "absent"), CPU_TIME], "cpu-time", []),
        (
            [of("nvml", "absent", "in slices", there=True), of("nvml-power", "absent"), CPU_TIME],
            "cpu-time",
            ["a GPU is there and is not counted: nvml: in slices; fix: a fix"],
        ),
        (
            [
                of("nvml", "absent", "no counter", there=True),
                MeterStatus("nvml-power", "absent", "no power either", there=True),
                CPU_TIME,
            ],
            "cpu-time",
            ["a GPU is there and is not counted: nvml: no counter; nvml-power: no power either"],
        ),
        (
            [of("nvml", "absent", there=True), of("nvml-power", "estimated"), CPU_TIME],
            "nvml-power+cpu-time",
            [],
        ),
        (
            [of("rapl", "denied", "no right", there=True), of("nvml", "measured"), CPU_TIME],
            "nvml+cpu-time",
            ["a counter of the processors may not be read: rapl: no right; fix: a fix"],
        ),
        ([of("rapl", "denied"), of("perf", "measured"), CPU_TIME], "perf", []),
        (
            [of("nvml", "measured", includes_cpu=True), of("rapl", "measured"), CPU_TIME],
            "nvml",
            ["the processor is not added: its joules are in the GPU's counter (one module)"],
        ),
    ],
)
def test_auto_says_what_it_leaves_out(statuses, auto, notes):
    assert auto_of(statuses) == auto
    assert list(left_out_of(auto, statuses)) == notes


def test_a_powercap_folder_that_was_named_must_work(places):
    with pytest.raises(MeterUnavailableError, match="no package zone"):
        best_here(places)
    with pytest.raises(MeterUnavailableError, match="no package zone"):
        open_meter("auto", places)


def test_memory_that_is_left_out_is_said_when_the_meter_is_opened(places, caplog):
    machine = two_sockets(places.powercap)
    machine.zones["intel-rapl:0:2"].running = False
    with LiveMachine(machine):
        close_meter(open_meter("rapl", places))
    assert "dram-0 stood still and is left out" in caplog.text
