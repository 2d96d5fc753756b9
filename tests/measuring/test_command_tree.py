"""A command's tree: its CPU time is complete, its streams are its own, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.measuring.command_tree import CommandTree, TreeMeter
from ipa_energy.meters.base import Meter
from ipa_energy.meters.power_model import PowerModel

pytestmark = pytest.mark.measures

PYTHON = [sys.executable, "-I", "-S", "-c"]
SPIN = """
import os, sys, time
def spin(cpu_s):
    end_s = time.process_time() + cpu_s
    while time.process_time() < end_s:
        pass
"""
OVERHEAD_S = 0.2
"""CPU seconds that starting a few interpreters may take; the work is well apart from it."""


def python(code: str) -> list[str]:
    return [*PYTHON, SPIN + code]


@pytest.fixture
def tree() -> Iterator[CommandTree]:
    with CommandTree() as tree:
        yield tree


def used_s(tree: CommandTree, command: list[str]) -> float:
    before_s = tree.cpu_s()
    assert tree.run(command) == 0
    return tree.cpu_s() - before_s


# ------------------------------------------------------------------ CPU time


def test_time_of_the_command_itself_is_exact(tree: CommandTree, tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = f"spin(0.2); open({str(said)!r}, 'w').write(str(time.process_time()))"
    found_s = used_s(tree, python(code))
    assert 0 <= found_s - float(said.read_text()) < 0.02


def test_time_of_children_that_were_waited_for_is_in_it(tree: CommandTree) -> None:
    code = "pid = os.fork()\nif not pid: spin(0.4); os._exit(0)\nos.waitpid(pid, 0)"
    assert 0.4 <= used_s(tree, python(code)) < 0.4 + OVERHEAD_S


def test_time_of_a_child_that_nobody_waited_for_is_in_it(tree: CommandTree) -> None:
    code = (
        "readable, writable = os.pipe()\n"
        "if not os.fork(): spin(0.4); os._exit(0)\n"
        "os.close(writable); os.read(readable, 1)"
    )
    assert 0.4 <= used_s(tree, python(code)) < 0.4 + OVERHEAD_S


def test_time_of_an_orphan_that_ended_is_in_it(tree: CommandTree) -> None:
    code = (
        "readable, writable = os.pipe()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    if not os.fork(): os.setsid(); spin(0.4); os._exit(0)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0); os.close(writable); os.read(readable, 1)"
    )
    assert 0.4 <= used_s(tree, python(code)) < 0.4 + OVERHEAD_S


def test_a_daemon_is_counted_so_far_and_named(tree: CommandTree, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "readable, writable = os.pipe()\n"
        "if not os.fork():\n"
        "    os.setsid(); spin(0.4)\n"
        f"    open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
        "    os.write(writable, b'x'); os.close(writable); time.sleep(60)\n"
        "os.read(readable, 1)"
    )
    found_s = used_s(tree, python(code))
    pid = int(pid_file.read_text())
    try:
        assert 0.4 <= found_s < 0.4 + OVERHEAD_S
        assert [name.split()[-1] for name in tree.left_running()] == [f"({pid})"]
        seen_s = tree.cpu_s()
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_until_nothing_is_left(tree)
    assert tree.cpu_s() >= seen_s


def wait_until_nothing_is_left(tree: CommandTree) -> None:
    while tree.left_running():
        time.sleep(0.005)


def test_time_goes_on_over_commands(tree: CommandTree) -> None:
    first_s = used_s(tree, python("spin(0.1)"))
    second_s = used_s(tree, python("spin(0.3)"))
    assert second_s - first_s == pytest.approx(0.2, abs=0.05)


def test_waiting_costs_the_tree_nothing(tree: CommandTree) -> None:
    before_s = tree.cpu_s()
    time.sleep(0.2)
    assert tree.cpu_s() == before_s


def test_meter_charges_the_whole_idle_machine(tree: CommandTree) -> None:
    model = PowerModel(idle_w=40.0, max_w=200.0, cores=16, source="made up for the test")
    meter: Meter = TreeMeter(model, tree)
    start = meter.read()
    tree.run(python("spin(0.2)"))
    energy = meter.energy_between(start, meter.read())
    assert energy.domains["cpu-idle"] == pytest.approx(40.0 * energy.duration_s)
    assert energy.domains["cpu-dynamic"] == pytest.approx(0.2 * 10, rel=0.5)
    assert energy.domains["cpu-dynamic"] >= 0.2 * 10


# ------------------------------------------------------------------ streams and environment

HARNESS = """
import sys
from ipa_energy.measuring.command_tree import CommandTree
with CommandTree(stdout_to_stderr=sys.argv[1] == "swap") as tree:
    for _ in range(int(sys.argv[2])):
        print(tree.run(sys.argv[3:]), file=sys.stderr)
"""


def through(
    command: list[str], *, swap: bool = False, runs: int = 1, **how: object
) -> subprocess.CompletedProcess[bytes]:
    """Run ``command`` in a tree in a process of its own."""
    mode = "swap" if swap else "keep"
    return subprocess.run(
        [sys.executable, "-c", HARNESS, mode, str(runs), *command],
        capture_output=True,
        check=True,
        **how,  # type: ignore[call-overload]
    )


def test_output_and_input_pass_through_byte_by_byte() -> None:
    every_byte = bytes(range(256)) * 4096  # 1 MiB, far more than a pipe holds
    assert through(["cat"], input=every_byte).stdout == every_byte


def test_standard_error_passes_through() -> None:
    code = "sys.stderr.buffer.write(bytes(range(256)) * 1024)"
    assert through(python(code)).stderr == bytes(range(256)) * 1024 + b"0\n"


def test_output_goes_to_standard_error_where_asked() -> None:
    done = through(["printf", "hello"], swap=True)
    assert (done.stdout, done.stderr) == (b"", b"hello0\n")


def test_environment_reaches_the_command_unchanged() -> None:
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C.UTF-8",
        "ODD": "a b\n'c'",
    }  # fmt: skip
    done = through(["env", "-0"], env=environment)
    seen = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
    assert seen == environment


def test_descriptors_that_the_caller_opened_reach_the_command(tmp_path: Path) -> None:
    with (tmp_path / "extra").open("wb") as extra:
        fd = extra.fileno()
        done = through(python(f"os.write({fd}, b'kept')"), pass_fds=[fd])
    assert done.stderr == b"0\n"
    assert (tmp_path / "extra").read_bytes() == b"kept"


def test_arguments_that_are_no_text_reach_the_command() -> None:
    done = through(["printf", "%s", os.fsdecode(b"\xff\xfe")])
    assert done.stdout == b"\xff\xfe"


def test_a_command_dies_of_a_closed_pipe_as_it_would_without_us() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, "keep", "1", "sh", "-c", "yes | head -n 1; exit 0"],
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == (b"y\n", b"0\n")


# ------------------------------------------------------------------ ends


def test_exit_codes_and_signals(tree: CommandTree) -> None:
    assert tree.run(["sh", "-c", "exit 200"]) == 200
    assert tree.run(["sh", "-c", "kill -TERM $$"]) == -signal.SIGTERM


def test_what_cannot_start_is_refused_and_the_tree_goes_on(tree: CommandTree) -> None:
    with pytest.raises(ConfigError, match="no-such-program"):
        tree.run(["no-such-program"])
    assert tree.run(["true"]) == 0


def test_a_tree_that_was_killed_gives_no_figure(tree: CommandTree) -> None:
    os.kill(tree.pid, signal.SIGKILL)
    with pytest.raises(MeterUnavailableError, match="killed"):
        tree.cpu_s()


def test_close_is_safe_to_call_twice() -> None:
    tree = CommandTree()
    tree.close()
    tree.close()


def test_a_killed_measurer_leaves_no_command_running(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 60"
    measurer = subprocess.Popen([sys.executable, "-c", HARNESS, "keep", "1", "sh", "-c", script])
    while not pid_file.exists():
        time.sleep(0.01)
    measurer.kill()
    measurer.wait()
    pid = int(pid_file.read_text())
    while is_running(pid):
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_command_may_end_in_its_own_way_when_interrupted(tmp_path: Path) -> None:
    flag, saved = tmp_path / "flag", tmp_path / "saved"
    code = (
        f"try: open({str(flag)!r}, 'w').close(); time.sleep(60)\n"
        f"except KeyboardInterrupt: open({str(saved)!r}, 'w').close()\n"
    )
    measurer = subprocess.Popen(
        [sys.executable, "-c", HARNESS, "keep", "1", *python(code)], stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not flag.exists():
        time.sleep(0.01)
    measurer.send_signal(signal.SIGINT)
    measurer.wait(timeout=30)
    assert saved.exists()


def test_a_command_that_ignores_every_request_is_killed(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    code = (
        "import signal\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
        f"open({str(flag)!r}, 'w').close()\n"
        "time.sleep(60)"
    )
    measurer = subprocess.Popen(
        [sys.executable, "-c", HARNESS, "keep", "1", *python(code)],
        stderr=subprocess.PIPE,
    )
    while not flag.exists():
        time.sleep(0.01)
    measurer.send_signal(signal.SIGINT)
    time.sleep(0.1)
    measurer.send_signal(signal.SIGINT)
    _, errors = measurer.communicate(timeout=30)
    assert measurer.returncode != 0
    assert b"KeyboardInterrupt" in errors
