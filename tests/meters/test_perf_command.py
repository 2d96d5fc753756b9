"""``perf stat`` around a command: joules, status, output, and every way perf refuses."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from power_pmu import TEN_WATTS, write_pmu

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.perf.command import measure_command
from ipa_energy.meters.perf.lines import parse_line
from ipa_energy.meters.perf.output import refusal
from ipa_energy.meters.perf.program import output_form, perf_version, refused

WATTS = {"power/energy-pkg/": 120.0, "power/energy-ram/": 20.0, "power/energy-psys/": 300.0}

real_perf = pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")


@pytest.fixture
def perf(tmp_path, monkeypatch):
    """Makes a stand-in for perf that behaves as told, and returns its path."""

    def make(**about):
        monkeypatch.setenv("FAKE_PERF", json.dumps({"watts": WATTS, **about}))
        program = tmp_path / "perf"
        fake = Path(__file__).with_name("fake_perf.py")
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{fake}" "$@"\n')
        program.chmod(0o755)
        return str(program)

    return make


@pytest.fixture
def pmu(tmp_path):
    """A server's events; only their names matter here."""
    return write_pmu(tmp_path / "power", pkg=TEN_WATTS, ram=TEN_WATTS, psys=TEN_WATTS)


@pytest.mark.parametrize("version", ["6.1.0", "5.15.0"])
def test_a_commands_joules_status_and_output(perf, pmu, capfd, version):
    found = measure_command(
        ["sh", "-c", "echo out; echo err >&2; sleep 0.1; exit 3"],
        perf=perf(version=version),
        pmu=pmu,
    )
    assert found.exit_status == 3
    assert found.energy.duration_s >= 0.1
    # Before 5.19 there is no JSON, and figures are rounded to 0.01 J.
    allowed_j = 0.02 if version == "5.15.0" else 1e-5
    assert found.energy.domains == pytest.approx(
        {"package": 120 * found.energy.duration_s, "dram": 20 * found.energy.duration_s},
        abs=allowed_j,
    )
    assert capfd.readouterr() == ("out\n", "err\n")


def test_the_platform_or_part_of_it_can_be_asked_for(perf, pmu):
    assert set(measure_command(["true"], psys=True, perf=perf(), pmu=pmu).energy.domains) == {
        "psys"
    }
    only = measure_command(["true"], leave_out=["dram"], perf=perf(), pmu=pmu)
    assert set(only.energy.domains) == {"package"}


def test_a_killed_command_is_no_success(perf, pmu):
    found = measure_command(["sh", "-c", "kill -KILL $$"], perf=perf(), pmu=pmu)
    assert found.exit_status == 128 + signal.SIGKILL


def test_a_command_that_is_not_there_has_the_shells_status(perf, pmu, capfd):
    found = measure_command(["no-such-command"], perf=perf(), pmu=pmu)
    assert found.exit_status == 127
    assert "no-such-command" in capfd.readouterr().err


@pytest.mark.parametrize("locale", [None, "C.UTF-8"])
def test_the_command_keeps_its_own_locale(perf, pmu, capfd, monkeypatch, locale):
    monkeypatch.delenv("LC_ALL", raising=False)
    if locale is not None:
        monkeypatch.setenv("LC_ALL", locale)
    measure_command(["sh", "-c", "echo ${LC_ALL-none}"], perf=perf(), pmu=pmu)
    assert capfd.readouterr().out == f"{locale or 'none'}\n"


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"watts": {"power/energy-pkg/": 5.0}}, "dram stood at 0.00 J"),
        ({"uncounted": "<not supported>"}, "not supported"),
        ({"uncounted": "<not counted>"}, "not counted"),
        ({"refuse": {"status": 255, "says": "No permission to enable"}}, "paranoid"),
        ({"refuse": {"status": 1, "says": "out of luck"}}, "status 1: out of luck"),
        ({"version": "unknown"}, "--version"),
    ],
)
def test_a_command_gets_no_figure_where_none_is_due(perf, pmu, about, says, capfd):
    with pytest.raises(MeterUnavailableError, match=says):
        measure_command(["true"], perf=perf(**about), pmu=pmu)
    assert capfd.readouterr().err == ""


def test_no_command_and_no_perf_are_refused(pmu, tmp_path):
    with pytest.raises(ConfigError, match="no command"):
        measure_command([], pmu=pmu)
    with pytest.raises(MeterUnavailableError, match="linux-perf"):
        measure_command(["true"], perf=str(tmp_path / "missing"), pmu=pmu)


def test_json_is_asked_of_those_that_have_it():
    assert output_form((6, 1)) == ("-j",)
    assert output_form((5, 15)) == ("-x", ";")


# ------------------------------------------------------------------ the real perf


@real_perf
@pytest.mark.parametrize("form", [["-j"], ["-x", ";"], []])
@pytest.mark.parametrize("interval", [[], ["-I", "50"]])
def test_every_form_of_the_real_perf_is_read(form, interval):
    done = subprocess.run(
        ["perf", "stat", "-a", *form, *interval, "-e", "cpu-clock", "--", "sleep", "0.12"],
        capture_output=True, text=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"perf may not count here: {done.stderr.strip()}")
    counts = [found[1] for found in map(parse_line, done.stderr.splitlines()) if found]
    assert len(counts) >= (3 if interval else 1) - 1
    assert all(count.unit == "msec" and count.event == "cpu-clock" for count in counts)
    # All CPUs were counted for as long as the command slept.
    assert sum(count.value for count in counts) >= 120


@real_perf
def test_the_real_perf_without_power_events_says_so_in_words_we_know():
    assert perf_version() >= (3, 0)
    if Path("/sys/bus/event_source/devices/power/events/energy-pkg").exists():
        pytest.skip("this machine has power events")
    done = subprocess.run(
        ["perf", "stat", "-a", "-e", "power/energy-pkg/", "--", "true"],
        capture_output=True, text=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 129
    assert refusal(done.stderr) == "absent"
    assert "power" in refused(done.stderr, done.returncode).reason


@real_perf
def test_the_real_perf_counts_joules_here_or_its_event_is_called_dead():
    """Some virtual machines list energy-psys, let it be read, and keep it at 0.00 J."""
    try:
        found = measure_command(["sleep", "0.3"])
    except MeterUnavailableError as error:
        if error.state in ("absent", "denied"):
            pytest.skip(f"no power event to count: {error}")
        assert error.state == "dead"
        assert "stood at 0.00 J" in str(error)
        return
    assert found.energy.energy_j > 0
    assert found.exit_status == 0
