"""``measure`` and ``calibrate`` as a script meets them: streams, exit status, JSON, messages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from ipa_energy.cli import main
from ipa_energy.measuring.graded_load import IDLE, Load, processor_counter
from ipa_energy.meters.base import Meter, Reading
from ipa_energy.meters.calibration import PowerPoint
from ipa_energy.meters.cpu_time import CpuTimeMeter, process_tree_cpu_s
from ipa_energy.meters.power_model import PowerModel, machine_key
from ipa_energy.meters.powercap import CounterFile
from ipa_energy.meters.rapl import RaplMeter
from ipa_energy.meters.sources import Places
from ipa_energy.profiling.replica_meter import replica_meter
from ipa_energy.testing import FakeMeter

pytestmark = pytest.mark.measures

MODEL = PowerModel(idle_w=8.0, max_w=40.0, cores=4, source="made up", relative_error=0.5)
SPIN = "import sys, time\nwhile time.process_time() < float(sys.argv[1]): pass\n"


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(MODEL.to_json()))
    return path


def program(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "ipa_energy", *map(str, argv)]


Call = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    """One call in this process; a command it measures inherits the captured descriptors."""

    def run(*argv: str | Path) -> subprocess.CompletedProcess[bytes]:
        capfdbinary.readouterr()
        try:
            status = main([str(word) for word in argv])
        except SystemExit as stop:
            status = int(stop.code or 0)
        found = capfdbinary.readouterr()
        return subprocess.CompletedProcess(argv, status, found.out, found.err)

    return run


@pytest.fixture
def options(model_file: Path) -> list[str | Path]:
    """Options of a quick measurement."""
    return ["measure", "--meter", "cpu-time", "--power-model", model_file, "--idle", "0.1"]


def spin(cpu_s: float) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", SPIN, str(cpu_s)]


# ------------------------------------------------------------------ figures


def test_json_has_the_documented_shape(call: Call, options: list[str | Path]) -> None:
    done = call(*options, "--trials", "3", "--json", "--", *spin(0.2))
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(found) >= {
        "meter", "quality", "trials", "energy_j", "dynamic_energy_j", "idle_power_w", "power_w",
        "ci95_j",
    }  # fmt: skip
    assert (found["meter"], found["quality"]) == ("cpu-time", "estimated")
    assert found["relative_error"] == 0.5
    assert len(found["trials"]) == 3
    for trial in found["trials"]:
        assert set(trial) >= {"energy_j", "dynamic_energy_j", "duration_s", "exit_status"}
        assert trial["cpu_s"] == pytest.approx(0.2, abs=0.05)
        # (40 − 8) / 4 cores = 8 J a CPU second
        assert trial["dynamic_energy_j"] == pytest.approx(8 * trial["cpu_s"])
    mean_j = sum(trial["energy_j"] for trial in found["trials"]) / 3
    assert found["energy_j"] == pytest.approx(mean_j)
    assert found["ci95_j"] > 0
    assert found["idle_power_w"] == pytest.approx(8.0)


def test_text_says_quality_meter_and_uncertainty_beside_each_figure(
    call: Call,
    options: list[str | Path],
) -> None:
    done = call(*options, "--", *spin(0.15))
    text = done.stderr.decode()
    assert done.stdout == b""
    for line in ("energy", "dynamic", "power"):
        (found,) = [row for row in text.splitlines() if row.strip().startswith(line)]
        assert "estimated" in found
        assert "cpu-time" in found
        assert "±50 %" in found


def test_one_trial_says_that_it_has_no_interval(call: Call, options: list[str | Path]) -> None:
    assert b"no interval" in call(*options, "--", *spin(0.15)).stderr
    found = json.loads(call(*options, "--json", "--", *spin(0.15)).stdout)
    assert found["ci95_j"] is None


def test_figures_are_also_written_to_a_file(
    call: Call, options: list[str | Path], tmp_path: Path
) -> None:
    out = tmp_path / "energy.json"
    done = call(*options, "--out", out, "--", "sh", "-c", "echo mine; sleep 0.15")
    assert done.stdout == b"mine\n"
    assert json.loads(out.read_text())["energy_j"] > 0


def test_auto_names_the_counter_it_took_or_is_an_estimate(call: Call) -> None:
    done = call("measure", "--idle", "0", "--json", "--", "sleep", "0.3")
    found = json.loads(done.stdout)
    estimated = "cpu-time" in found["meter"].split("+")
    assert found["quality"] == ("estimated" if estimated else "measured")
    # A GPU's counter needs longer windows than this one.
    assert done.returncode == (2 if found["energy_j"] is None else 0)


# ------------------------------------------------------------------ streams and exit status


def test_standard_streams_are_the_commands_own(options: list[str | Path]) -> None:
    every_byte = bytes(range(256)) * 2048
    script = "cat; printf '\\377 to stderr' >&2; sleep 0.15"
    words = program(*options, "--quiet", "--", "sh", "-c", script)
    done = subprocess.run(words, input=every_byte, capture_output=True, check=True)
    assert done.stdout == every_byte
    assert done.stderr.startswith(b"\xff to stderr")


def test_with_json_standard_output_holds_the_figures_alone(
    call: Call, options: list[str | Path]
) -> None:
    done = call(*options, "--json", "--", "sh", "-c", "echo from the command; sleep 0.15")
    assert json.loads(done.stdout)["exit_status"] == 0
    assert done.stderr == b"from the command\n"


def test_a_file_as_input_is_read_anew_by_each_run(
    options: list[str | Path], tmp_path: Path
) -> None:
    (tmp_path / "input").write_bytes(b"once\n")
    with (tmp_path / "input").open("rb") as stream:
        done = subprocess.run(
            program(*options, "--warm-up", "2", "--", "sh", "-c", "cat; sleep 0.15"),
            stdin=stream,
            capture_output=True,
            check=True,
        )
    assert done.stdout == b"once\n" * 3


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("sleep 0.15; exit 0", 0),
        ("sleep 0.15; exit 5", 5),
        ("sleep 0.15; kill -TERM $$", 128 + signal.SIGTERM),
    ],
)
def test_exit_status_passes_through_and_failed_trials_have_figures(
    call: Call, script: str, status: int, options: list[str | Path]
) -> None:
    done = call(*options, "--json", "--", "sh", "-c", script)
    found = json.loads(done.stdout)
    assert done.returncode == status
    assert found["trials"][0]["exit_status"] == status
    assert found["energy_j"] > 0
    assert any("failed" in warning for warning in found["warnings"]) == (status != 0)


def test_options_after_the_command_are_its_own(call: Call, options: list[str | Path]) -> None:
    done = call(*options, "--", "sh", "-c", 'echo "$@"; sleep 0.15', "sh", "--json", "--", "-x")
    assert done.stdout == b"--json -- -x\n"
    without_dashes = call(*options, "sh", "-c", 'echo "$@"; sleep 0.15', "sh", "--json")
    assert without_dashes.stdout == b"--json\n"


def test_a_command_that_leaves_a_process_running_is_named(
    call: Call, options: list[str | Path]
) -> None:
    done = call(*options, "--json", "--", "sh", "-c", "sleep 3 >/dev/null 2>&1 & sleep 0.15")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert "sleep (" in warning


# ------------------------------------------------------------------ refused


def test_a_command_too_short_is_refused_with_what_to_do(
    call: Call, options: list[str | Path]
) -> None:
    # A busy machine may take more than 0.1 s over the shortest command: then it is not too short.
    while not (done := call(*options, "--trials", "4", "--", "true")).returncode:
        pass
    assert done.returncode == 2
    assert b"0.1 s" in done.stderr
    assert b"loop" in done.stderr
    found = json.loads(call(*options, "--json", "--", "true").stdout)
    while found["trials"][0]["duration_s"] >= found["min_window_s"]:
        found = json.loads(call(*options, "--json", "--", "true").stdout)
    assert found["energy_j"] is None
    assert found["power_w"] is None
    assert [trial["energy_j"] for trial in found["trials"]] == [None]
    assert found["trials"][0]["exit_status"] == 0


def test_a_command_too_short_and_failed_has_its_own_exit_status(
    call: Call,
    options: list[str | Path],
) -> None:
    assert call(*options, "--", "sh", "-c", "exit 9").returncode == 9


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--"], "no command"),
        (["--", "no-such-program-anywhere"], "No such file"),
        (["--", "/"], "Permission denied"),
        (["--trials", "0", "--", "true"], "trials"),
        (["--trials", "some", "--", "true"], "--trials"),
        (["--warm-up", "-1", "--", "true"], "warm-up"),
        (["--idle", "0.01", "--", "true"], "idle"),
        (["--idle", "nan", "--", "true"], "idle"),
        (["--meter", "guess", "--", "true"], "guess"),
        (["--out", "/dev/null/folder/x.json", "--", "true"], "--out"),
        (["--power-model", "/no/such/model.json", "--", "true"], "model.json"),
    ],
)
def test_bad_input_is_refused_with_one_message(
    call: Call, words: list[str], says: str, options: list[str | Path]
) -> None:
    done = call(*options, *words)
    text = done.stderr.decode()
    assert done.returncode == 2
    assert done.stdout == b""
    assert says in text
    assert "Traceback" not in text
    assert text.count("error:") == 1


def test_interrupt_stops_the_command_and_reports_finished_trials(
    options: list[str | Path], tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    script = (
        f"if test -e {flag}; then echo $$ > {flag}; exec sleep 60; fi; touch {flag}; sleep 0.15"
    )
    measuring = subprocess.Popen(
        program(*options, "--trials", "3", "--json", "--", "sh", "-c", script),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (flag.exists() and flag.read_text().endswith("\n")):
        time.sleep(0.01)
    measuring.send_signal(signal.SIGINT)
    out, _ = measuring.communicate(timeout=60)
    found = json.loads(out)
    assert measuring.returncode == 130
    assert found["interrupted"]
    assert len(found["trials"]) == 1
    assert found["energy_j"] > 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(flag.read_text()), 0)


# ------------------------------------------------------------------ a counter of known truth


class Zone:
    """A RAPL package in files, advanced by a power that the test chooses.

    It draws ``idle_w`` watts and ``joules_per_cpu_s`` for each CPU second of a process tree. A
    thread advances it; or :meth:`step`, for who reads it in this process.
    """

    def __init__(self, root: Path, idle_w: float, joules_per_cpu_s: float) -> None:
        self.root = root
        self._idle_w, self._joules_per_cpu_s = idle_w, joules_per_cpu_s
        folder = root / "intel-rapl:0"
        folder.mkdir(parents=True)
        (folder / "name").write_text("package-0\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")
        self._file = folder / "energy_uj"
        self._file.write_text(f"{0:020d}\n")
        self._pid: int | None = None
        self._start_s, self._cpu_s = time.perf_counter(), 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._advance)
        self._thread.start()

    def follow(self, pid: int) -> None:
        """Draw for the CPU time of this process and its descendants."""
        self._pid = pid

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def step(self) -> None:
        """Bring the file up to this moment."""
        if self._pid is not None:
            with contextlib.suppress(OSError):
                self._cpu_s = max(self._cpu_s, process_tree_cpu_s(self._pid))
        elapsed_s = time.perf_counter() - self._start_s
        joules = self._idle_w * elapsed_s + self._joules_per_cpu_s * self._cpu_s
        fd = os.open(self._file, os.O_WRONLY)
        os.pwrite(fd, f"{round(joules * 1e6):020d}\n".encode(), 0)
        os.close(fd)

    def _advance(self) -> None:
        while not self._stop.wait(0.001):
            self.step()


@pytest.fixture
def zone_of(tmp_path: Path) -> Iterator[Callable[[float, float], Zone]]:
    zones: list[Zone] = []

    def make(idle_w: float, joules_per_cpu_s: float) -> Zone:
        zones.append(Zone(tmp_path / "powercap", idle_w, joules_per_cpu_s))
        return zones[-1]

    yield make
    for zone in zones:
        zone.close()


def test_a_machine_wide_counter_is_measured_above_its_idle_power(
    zone_of: Callable[[float, float], Zone],
) -> None:
    zone = zone_of(2.0, 50.0)
    measuring = subprocess.Popen(
        program("measure", "--meter", "rapl", "--powercap", zone.root, "--json", "--", *spin(0.6)),
        stdout=subprocess.PIPE,
    )
    zone.follow(measuring.pid)
    found = json.loads(measuring.communicate(timeout=60)[0])
    assert (found["meter"], found["quality"]) == ("rapl", "measured")
    # The files are advanced by a thread of this test, late where the machine is busy: hence wide.
    assert found["idle_power_w"] == pytest.approx(2.0, abs=2.0)
    assert found["dynamic_energy_j"] == pytest.approx(0.6 * 50, rel=0.4)
    assert found["energy_j"] == pytest.approx(
        found["dynamic_energy_j"] + found["idle_power_w"] * found["duration_s"]
    )


# ------------------------------------------------------------------ calibrate


def test_a_counter_that_moves_is_found_to_calibrate_against(
    zone_of: Callable[[float, float], Zone],
) -> None:
    zone = zone_of(20.0, 0.0)
    for name in ("rapl", "auto"):
        with processor_counter(name, Places(powercap=zone.root)) as meter:
            assert meter.name == "rapl"


def test_calibrate_finds_the_truth_and_measure_uses_it_from_then_on(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The counter is a model of known truth that charges this test's own tree. How much of the
    # machine this test gets does not matter to it.
    cores = os.cpu_count() or 1
    truth = PowerModel(idle_w=20.0, max_w=20.0 + 10.0 * cores, cores=cores, source="the truth")

    @contextmanager
    def known(*_: object) -> Iterator[Meter]:
        yield CpuTimeMeter(truth, pid=os.getpid(), reserved_cores=cores)

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("ipa_energy.measuring.graded_load.processor_counter", known)
    monkeypatch.setattr("ipa_energy.meters.calibration.MIN_SPAN", 0.02)
    text = call("calibrate", "--window", "0.3", "--rounds", "1").stdout.decode()
    assert "× matrices at 50%" in text
    assert "predicted" in text
    path = next(path for path in tmp_path.rglob("*.json") if ".calibration." not in path.name)
    assert str(path) in text
    model = PowerModel.load(path)
    assert model.idle_w == pytest.approx(20.0, rel=0.15)
    assert model.dynamic_w_per_core == pytest.approx(10.0, rel=0.15)
    done = call("measure", "--meter", "cpu-time", "--idle", "0", "--json", "--", *spin(0.15))
    assert json.loads(done.stdout)["power_model"] == model.to_json()


def stepping(zone: Zone, read_uj: Callable[[CounterFile], int]) -> Callable[[CounterFile], int]:
    """Reading the file advances it first."""

    def read(file: CounterFile) -> int:
        zone.step()
        return read_uj(file)

    return read


def undelayed(read: Callable[[RaplMeter], Reading]) -> Callable[[RaplMeter], Reading]:
    """Figures are those of their moment: where others held a read up, it reads again."""

    def quick(meter: RaplMeter) -> Reading:
        while True:
            start_s = time.perf_counter()
            reading = read(meter)
            if time.perf_counter() - start_s < 0.002:
                return reading

    return quick


def test_calibrate_against_a_counter_in_files_and_everything_uses_the_model(
    call: Call,
    zone_of: Callable[[float, float], Zone],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zone = zone_of(20.0, 10.0)
    zone.follow(os.getpid())
    zone.close()
    monkeypatch.setattr(CounterFile, "read_uj", stepping(zone, CounterFile.read_uj))
    monkeypatch.setattr(RaplMeter, "read", undelayed(RaplMeter.read))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("ipa_energy.meters.calibration.MIN_SPAN", 0.02)  # others work here too
    loads = [IDLE, *(Load("integers", 1, duty) for duty in (1.0, 0.75, 0.5, 0.25))]
    monkeypatch.setattr("ipa_energy.measuring.graded_load.graded_loads", lambda _: loads)
    found = json.loads(
        call(
            "calibrate", "--powercap", zone.root, "--window", "0.3", "--rounds", "1", "--json"
        ).stdout
    )
    assert "error" not in found
    model = found["model"]
    assert Path(found["path"]).parent == tmp_path / "ipa-energy"
    assert model["machine"] == machine_key()
    assert model["idle_w"] == pytest.approx(20.0, rel=0.1)
    assert (model["max_w"] - model["idle_w"]) / model["cores"] == pytest.approx(10.0, rel=0.2)
    assert model["relative_error"] == max(found["total"]["worst"], found["dynamic"]["worst"])
    # From now on: discovery, measure, and profile.
    nowhere = tmp_path / "nowhere"
    rows = json.loads(call("meters", "--powercap", nowhere, "--json").stdout)["meters"]
    (row,) = [row for row in rows if row["name"] == "cpu-time"]
    assert "Calibrated against rapl" in row["reason"]
    assert row["fix"] is None
    done = call("measure", "--meter", "cpu-time", "--idle", "0", "--json", "--", *spin(0.15))
    assert json.loads(done.stdout)["power_model"] == model
    with replica_meter("cpu-time") as choice:
        assert choice.meta["power_model"] == model


def test_calibrate_json_has_model_points_and_errors(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [PowerPoint(f"load {n}", n / 4, 10.0 + 5 * n + n % 2) for n in range(5)]
    monkeypatch.setattr(
        "ipa_energy.measuring.graded_load.processor_counter", lambda *_: nullcontext(FakeMeter())
    )
    monkeypatch.setattr("ipa_energy.measuring.graded_load.record_power", lambda *_, **__: points)
    out = tmp_path / "model.json"
    done = call("calibrate", "--out", out, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["path"] == str(out)
    assert len(found["points"]) == 5
    assert PowerModel.load(out).to_json() == found["model"]
    assert found["model"]["relative_error"] == max(
        found["total"]["worst"], found["dynamic"]["worst"]
    )
    assert found["total"]["worst"] > 0


def test_calibrate_refuses_a_counter_that_does_not_follow_the_load(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [PowerPoint(f"load {n}", n / 4, 10.0) for n in range(5)]
    monkeypatch.setattr(
        "ipa_energy.measuring.graded_load.processor_counter", lambda *_: nullcontext(FakeMeter())
    )
    monkeypatch.setattr("ipa_energy.measuring.graded_load.record_power", lambda *_, **__: points)
    out = tmp_path / "model.json"
    done = call("calibrate", "--out", out)
    assert done.returncode == 4
    assert b"does not follow the load" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--window", "0"], 2, "--window"),
        (["--rounds", "0"], 2, "--rounds"),
        (["--meter", "guess"], 2, "guess"),
        (["--meter", "cpu-time"], 2, "cpu-time"),
    ],
)
def test_calibrate_refuses_bad_input(call: Call, words: list[str], status: int, says: str) -> None:
    done = call("calibrate", *words)
    assert done.returncode == status
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.skipif(
    Path("/sys/class/powercap").exists() or Path("/sys/bus/event_source/devices/power").exists(),
    reason="this machine may have an energy counter",
)
def test_calibrate_without_a_counter_says_so_and_what_that_means(
    call: Call, tmp_path: Path
) -> None:
    out = tmp_path / "model.json"
    done = call("calibrate", "--out", out)
    assert done.returncode == 4
    assert "50 %" in done.stderr.decode()
    assert not out.exists()
