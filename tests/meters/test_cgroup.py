"""Joules of one control group: real ones where they can be made, else trees built here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Reading
from ipa_energy.meters.cgroup import Cgroup, CgroupMeter, find_cgroup, hierarchies
from ipa_energy.meters.discovery import open_meter
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.meters.sources import CGROUPS, Places, source

MODEL = PowerModel(idle_w=8.0, max_w=40.0, cores=4, source="made up")
J_PER_CPU_S = (40.0 - 8.0) / 4

SPIN = "import sys, time\nwhile time.process_time() < float(sys.argv[1]): pass\n"


def v2_group(folder: Path, used_us: int, quota: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("")
    (folder / "cpu.stat").write_text(f"usage_usec {used_us}\nuser_usec 1\nsystem_usec 2\n")
    if quota is not None:
        (folder / "cpu.max").write_text(f"{quota} 100000\n")
    return folder


def v1_group(folder: Path, used_ns: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpuacct.usage").write_text(f"{used_ns}\n")
    # The cpu controller of version 1 has a file of this name too, without CPU time in it.
    (folder / "cpu.stat").write_text("nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
    (folder / "cgroup.procs").write_text("")
    return folder


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """A machine with version 2."""
    v2_group(tmp_path, 9_000_000)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    return tmp_path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """A machine with version 1, limits in a hierarchy of their own, and an idle version 2."""
    v1_group(tmp_path / "cpuacct", 9_000_000_000)
    (tmp_path / "cpu").mkdir()
    v2_group(tmp_path / "unified", 0)
    (tmp_path / "unified" / "cgroup.controllers").write_text("\n")
    return tmp_path


# ------------------------------------------------------------------ built trees


def test_version_2_counts_microseconds(v2: Path) -> None:
    folder = v2_group(v2 / "kubepods.slice/pod1.slice", 1_500_000)
    group = find_cgroup("/kubepods.slice/pod1.slice", v2)
    assert group == Cgroup(folder, v2, 2)
    assert group.cpu_s() == 1.5
    assert group.name == "/kubepods.slice/pod1.slice"
    assert find_cgroup("kubepods.slice/pod1.slice", v2) == group
    assert find_cgroup(str(folder), v2) == group


def test_version_1_counts_nanoseconds_and_is_preferred_to_an_idle_version_2(v1: Path) -> None:
    v1_group(v1 / "cpuacct/docker/abc", 2_500_000_000)
    v2_group(v1 / "unified/docker/abc", 0)
    group = find_cgroup("/docker/abc", v1)
    assert (group.version, group.cpu_s()) == (1, 2.5)


def test_the_root_group_is_the_whole_machine(v2: Path) -> None:
    group = find_cgroup("/", v2)
    assert (group.name, group.cpu_s()) == ("/", 9.0)


def test_a_folder_outside_the_mounted_hierarchies_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = v2_group(tmp_path / "host/cgroup/pod", 4_000_000)
    group = find_cgroup(str(folder), tmp_path / "empty")
    assert (group.cpu_s(), group.name) == (4.0, "/")


def test_a_process_names_its_group(v2: Path, v1: Path, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "42").mkdir(parents=True)
    v2_group(v2 / "user.slice/a:b", 3_000_000)  # a colon in the name is no separator
    (proc / "42/cgroup").write_text("0::/user.slice/a:b\n")
    assert find_cgroup("pid:42", v2, proc).cpu_s() == 3.0


def test_a_process_names_its_group_of_version_1(v1: Path, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "42").mkdir(parents=True)
    v1_group(v1 / "cpuacct/docker/abc", 7_000_000_000)
    (proc / "42/cgroup").write_text("5:memory:/other\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    assert find_cgroup("pid:42", v1, proc) == Cgroup(v1 / "cpuacct/docker/abc", v1 / "cpuacct", 1)


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("/nowhere", "no cgroup '/nowhere'"),
        ("", "empty name"),
        ("pid:x", "pid:N"),
        ("pid:99", "no process 99"),
        ("pid:7", "not mounted here: /elsewhere"),
    ],
)
def test_what_names_no_group_is_bad_input(v2: Path, which: str, says: str) -> None:
    proc = v2 / "proc"
    (proc / "7").mkdir(parents=True)
    (proc / "7/cgroup").write_text("0::/elsewhere\n")
    with pytest.raises(ConfigError, match=says):
        find_cgroup(which, v2, proc)


def test_a_machine_without_cpu_time_of_groups_says_so(tmp_path: Path) -> None:
    with pytest.raises(MeterUnavailableError, match="no cgroup hierarchy with CPU time"):
        find_cgroup("/docker/abc", tmp_path)
    status = source("cpu-time").status(Places(cgroups=tmp_path))
    assert status.state == "estimated"
    assert "no cgroups with CPU time" in status.reason


def test_the_tightest_limit_above_a_group_is_its_share(v2: Path) -> None:
    v2_group(v2 / "pods", 0, "150000")
    v2_group(v2 / "pods/one", 0, "max")
    v2_group(v2 / "pods/two", 0, "50000")
    v2_group(v2 / "free", 0)
    limits = [find_cgroup(name, v2).limit_cores() for name in ("pods/one", "pods/two", "free")]
    assert limits == [1.5, 0.5, None]


def test_limits_of_version_1_may_lie_in_a_hierarchy_of_their_own(v1: Path) -> None:
    v1_group(v1 / "cpuacct/docker", 0)
    limits = v1 / "cpu/docker"
    limits.mkdir()
    (limits / "cpu.cfs_period_us").write_text("100000\n")
    (limits / "cpu.cfs_quota_us").write_text("-1\n")
    assert find_cgroup("/docker", v1).limit_cores() is None
    (limits / "cpu.cfs_quota_us").write_text("250000\n")
    assert find_cgroup("/docker", v1).limit_cores() == 2.5


@pytest.mark.parametrize(
    ("quota", "asked", "idle_cores"), [("max", None, 4), ("200000", None, 2), ("200000", 3, 3),
                                       ("800000", None, 4)]
)  # fmt: skip
def test_joules_are_cpu_seconds_and_the_reserved_share_of_idle(
    v2: Path, quota: str, asked: float | None, idle_cores: float
) -> None:
    folder = v2_group(v2 / "pod", 1_000_000, quota)
    meter = CgroupMeter(MODEL, find_cgroup("/pod", v2), reserved_cores=asked)
    start = meter.read()
    v2_group(folder, 4_000_000)
    end = meter.read()
    energy = meter.energy_between(start, Reading(start.time_s + 10.0, end.counters))
    # 3 CPU seconds at 8 J each; 10 s of 2 W for each reserved core
    assert energy.domains == pytest.approx({"cpu-dynamic": 24.0, "cpu-idle": 20.0 * idle_cores})
    assert (energy.meter, energy.quality) == ("cpu-time", "estimated")


@pytest.mark.parametrize("cores", [0, -1, 5])
def test_cores_that_the_machine_does_not_have_are_refused(v2: Path, cores: float) -> None:
    with pytest.raises(ConfigError, match="reserved cores"):
        CgroupMeter(MODEL, find_cgroup("/", v2), reserved_cores=cores)


def test_a_group_whose_time_falls_gives_no_figure(v2: Path) -> None:
    meter = CgroupMeter(MODEL, find_cgroup(str(v2_group(v2 / "pod", 5_000_000)), v2))
    start = meter.read()
    v2_group(v2 / "pod", 10_000)  # its container was started anew
    with pytest.raises(MeterUnavailableError, match=r"cgroup /pod fell by 4\.99 s"):
        meter.energy_between(start, meter.read())


def test_a_window_without_length_gives_no_figure(v2: Path) -> None:
    meter = CgroupMeter(MODEL, find_cgroup("/", v2))
    start = meter.read()
    with pytest.raises(MeterUnavailableError, match="no length"):
        meter.energy_between(start, start)


def test_a_group_that_ends_is_unavailable_not_zero(v2: Path) -> None:
    folder = v2_group(v2 / "pod", 5_000_000)
    meter = CgroupMeter(MODEL, find_cgroup("/pod", v2))
    (folder / "cpu.stat").unlink()
    with pytest.raises(MeterUnavailableError, match="cannot be read any more"):
        meter.read()


@pytest.mark.parametrize("text", ["", "usage_usec\n", "usage_usec many\n", "nr_periods 0\n"])
def test_a_file_without_cpu_time_gives_no_figure(v2: Path, text: str) -> None:
    (v2_group(v2 / "pod", 0) / "cpu.stat").write_text(text)
    with pytest.raises(MeterUnavailableError, match="holds no CPU time"):
        find_cgroup("/pod", v2).cpu_s()


def test_discovery_names_the_hierarchies_and_opens_the_group(
    v2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert f"version 2 at {v2}" in source("cpu-time").status(Places(cgroups=v2)).reason
    v2_group(v2 / "pod", 5_000_000, "50000")
    places = Places(cgroups=v2, cgroup="/pod")
    status = source("cpu-time").status(places)
    assert status.state == "estimated"
    assert "cgroup /pod, idle power of 0.5 cores" in status.reason
    assert open_meter("cpu-time", places).read().counters == {"cpu_s": 5.0}
    missing = source("cpu-time").status(Places(cgroups=v2, cgroup="/gone"))
    assert (missing.state, missing.min_window_s) == ("absent", None)


# ------------------------------------------------------------------ the kernel's own groups

Make = Callable[[str], Cgroup]


@pytest.fixture(params=[1, 2], ids=["version-1", "version-2"])
def real_groups(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes groups of the kernel's, removed afterwards."""
    tops = [top for top, version in hierarchies() if version == request.param]
    if not tops:
        pytest.skip(f"no cgroup hierarchy of version {request.param} under {CGROUPS}")
    made: list[Path] = []

    def make(name: str) -> Cgroup:
        folder = tops[0] / f"ipa-energy-test-{os.getpid()}-{name}"
        try:
            folder.mkdir()
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        made.append(folder)
        return find_cgroup(str(folder))

    yield make
    for folder in made:
        for _ in range(100):
            try:
                folder.rmdir()
                break
            except OSError:  # its last process has not left it yet
                time.sleep(0.02)


def work_in(group: Cgroup, cpu_s: float) -> subprocess.Popen[bytes]:
    """A process that burns CPU time in a group, started by a shell that moves there first."""
    join = f'echo $$ > {group.folder}/cgroup.procs && exec "$@"'
    try:
        return subprocess.Popen(
            ["sh", "-c", join, "sh", sys.executable, "-I", "-S", "-c", SPIN, str(cpu_s)]
        )
    except OSError as error:
        pytest.skip(f"no process can be put into a cgroup here: {error}")


def test_one_replica_is_told_from_another_beside_it(real_groups: Make) -> None:
    busy, busier = real_groups("a"), real_groups("b")
    meters = [CgroupMeter(MODEL, group, reserved_cores=1) for group in (busy, busier)]
    starts = [meter.read() for meter in meters]
    processes = [work_in(busy, 0.3), work_in(busier, 0.3), work_in(busier, 0.3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    one, two = (
        meter.energy_between(start, meter.read()).domains["cpu-dynamic"]
        for meter, start in zip(meters, starts, strict=True)
    )
    # Besides the 0.3 s, starting Python costs some 20 ms; a tick may be missing or too many.
    assert one == pytest.approx(0.32 * J_PER_CPU_S, rel=0.2)
    assert two == pytest.approx(2 * one, rel=0.15)


def test_processes_that_have_ended_and_groups_below_are_in_it(real_groups: Make) -> None:
    group = real_groups("parent")
    below = Cgroup(group.folder / "child", group.top, group.version)
    below.folder.mkdir()
    try:
        assert work_in(below, 0.2).wait(60) == 0
        assert group.cpu_s() >= 0.2 - 0.02
        assert find_cgroup(below.name).cpu_s() == pytest.approx(group.cpu_s(), abs=0.02)
    finally:
        time.sleep(0.05)
        below.folder.rmdir()


def test_a_living_process_names_its_group(real_groups: Make) -> None:
    group = real_groups("named")
    process = work_in(group, 60.0)
    try:
        # Until the shell has moved itself into the group.
        for _ in range(200):
            if (group.folder / "cgroup.procs").read_text().split() == [str(process.pid)]:
                break
            time.sleep(0.01)
        found = find_cgroup(f"pid:{process.pid}")
        if group.version == hierarchies()[0][1]:
            assert found.folder == group.folder
        else:  # a machine with both: engines use version 1, where this process stayed at the top
            assert found.name == "/"
    finally:
        process.kill()
        process.wait()
