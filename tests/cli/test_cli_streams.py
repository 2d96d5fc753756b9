"""Standard streams that are closed, narrow or shared, signals, and numbers on the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import call, call_json

from ipa_energy.runlog import read_run

pytestmark = pytest.mark.measures

Capture = pytest.CaptureFixture[str]
PROGRAM = [sys.executable, "-m", "ipa_energy"]


def shell(line: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A call through a shell, in which ``"$@"`` is the program with these words."""
    argv = [*PROGRAM, *map(str, words)]
    return subprocess.run(
        ["sh", "-c", line, "sh", *argv], capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_with_closed_streams_is_complete(
    small_pipeline: Path, tmp_path: Path, closed: str
) -> None:
    out = tmp_path / "run"
    done = shell(f'"$@" {closed}', "run", small_pipeline, "--out", out)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert read_run(out).status == "complete"


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_answers_go_to_the_stream_that_is_open(small_pipeline: Path, closed: str) -> None:
    done = shell(f'"$@" {closed}', "optimize", small_pipeline, "--load", "3")
    assert done.returncode == 0
    assert done.stderr == ""
    assert ("best plan" in done.stdout) == (closed == "2>&-")
    refused = shell(f'"$@" {closed}', "optimize", small_pipeline, "--load", "0")
    assert refused.returncode == 2
    assert ("--load" in refused.stderr) == (closed == ">&-")
    assert refused.stdout == ""


def test_a_command_is_measured_with_standard_output_closed(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ("measure", "--json", "--meter", "cpu-time", "--idle", "0", "--out", out)
    done = shell('"$@" >&-', *words, "--", "sh", "-c", "echo hi; sleep 0.2")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert json.loads(out.read_text())["exit_status"] == 0


@pytest.mark.parametrize("lost", ["reader", "room"])
def test_a_measurement_outlives_its_standard_error(tmp_path: Path, lost: str) -> None:
    out = tmp_path / "out.json"
    words = ("measure", "--meter", "cpu-time", "--idle", "0", "--trials", "3", "--out", str(out))
    reading, writing = os.pipe()
    os.close(reading)
    if lost == "room":
        os.close(writing)
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full on this system")
        writing = os.open("/dev/full", os.O_WRONLY)
    argv = [*PROGRAM, *words, "--", "sleep", "0.2"]
    done = subprocess.run(argv, stderr=writing, check=False)
    os.close(writing)
    assert done.returncode == 0
    assert len(json.loads(out.read_text())["trials"]) == 3


@pytest.mark.parametrize(
    "verb", ["measure", "import", "calibrate", "profile", "convert", "tradeoff", "meters"]
)
def test_help_fits_a_terminal_that_knows_ascii_alone(verb: str) -> None:
    done = subprocess.run(
        [*PROGRAM, verb, "--help"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "%%" not in done.stdout


@pytest.mark.parametrize("argv", [("run", "--out", "run"), ("optimize", "--load", "3")])
def test_highs_prints_nothing_on_standard_output(
    small_pipeline: Path, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    verb, *options = argv
    done = subprocess.run(
        [*PROGRAM, verb, small_pipeline, *options, "--method", "highs", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert isinstance(json.loads(done.stdout), dict)


def test_compare_of_a_run_by_highs_prints_json_alone(
    small_pipeline: Path, tmp_path: Path, capfd: Capture
) -> None:
    out = tmp_path / "run"
    assert call(capfd, "run", small_pipeline, "--method", "highs", "--out", out, "--quiet")[0] == 0
    status, found = call_json(capfd, "compare", out, "--no-yardstick")
    assert status == 0
    assert found["runs"][0]["name"] == "run"


# ------------------------------------------------------------------ signals

SLOW_RUN = """
import sys, time
from ipa_energy.cli import main
from ipa_energy.runlog.writer import RunLog

append = RunLog.append_interval

def slowly(log, interval):
    append(log, interval)
    print("appended", file=sys.stderr, flush=True)
    time.sleep(1)

RunLog.append_interval = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_names_the_way_on(
    *, small_pipeline: Path, tmp_path: Path, number: int, status: int, word: str
) -> None:
    out = tmp_path / "run"
    words = ["run", str(small_pipeline), "--out", str(out), "--quiet"]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, *words], stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "appended\n"
        running.send_signal(number)
        err = running.stderr.read()
        assert running.wait(20) == status
    assert err.splitlines()[-1] == (
        f"ipa-energy: {word}; what was finished is kept: the same call with --resume goes on"
        f" with {out}"
    )
    assert subprocess.run([*PROGRAM, *words, "--resume"], check=False).returncode == 0
    assert read_run(out).status == "complete"


def test_a_verb_that_cannot_go_on_does_not_speak_of_it() -> None:
    command = ("sh", "-c", "echo begun; exec sleep 60")
    argv = [*PROGRAM, "measure", "--meter", "cpu-time", "--idle", "0", "--", *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, **pipes) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=60)
    assert running.returncode in (130, 143)
    assert "--resume" not in err
    assert "Traceback" not in err


def workers_are_ready(pid: int) -> bool:
    """True if a process has workers, and they leave signals to it."""
    ignored = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        # Empty between fork and exec, when the child's program is not there yet.
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if not command or b"spawn_main" in command:
            mask = re.search(r"^SigIgn:\s*(\w+)", Path(f"/proc/{child}/status").read_text(), re.M)
            ignored.append(mask is not None and bool(int(mask[1], 16) >> signal.SIGTERM - 1 & 1))
    return bool(ignored) and all(ignored)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_in_processes_ends_without_their_tracebacks(number: int) -> None:
    argv = [*PROGRAM, "frontier", "video", "--no-cache", "--seeds", "20"]
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        deadline = time.monotonic() + 60
        while not workers_are_ready(running.pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(running.pid, number)
        _, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    assert err.splitlines()[-1] in ("ipa-energy: interrupted", "ipa-energy: terminated")


# ------------------------------------------------------------------ numbers


@pytest.mark.parametrize("number", ["١٠", "1_0", "１０"])
@pytest.mark.parametrize("option", ["--load", "--top"])
def test_numbers_are_written_as_in_a_yaml(
    small_pipeline: Path, capsys: Capture, option: str, number: str
) -> None:
    given = {"--load": "10", option: number}
    words = [word for pair in given.items() for word in pair]
    status, out, err = call(capsys, "optimize", small_pipeline, *words)
    assert (status, out) == (2, "")
    kind = "float" if option == "--load" else "int"
    assert f"argument {option}: invalid {kind} value: '{number}'" in err


def test_numbers_of_every_other_form_are_read(small_pipeline: Path, capsys: Capture) -> None:
    for number in ("10", "+10", "1e1", "10.", " 10"):
        status, found = call_json(capsys, "optimize", small_pipeline, "--load", number)
        assert (status, found["load_rps"]) == (0, 10)
