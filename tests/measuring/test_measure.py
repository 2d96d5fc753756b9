"""Joules of commands: known work, failures, and what is refused."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.measuring import command
from ipa_energy.measuring.command import CommandEnergy, CommandTrial, measure_command
from ipa_energy.measuring.command_tree import CommandTree, TreeMeter
from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.meters.cpu_time import CoreTimes
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.testing import FakeMeter

pytestmark = pytest.mark.measures

MODEL = PowerModel(idle_w=8.0, max_w=40.0, cores=4, source="made up for the test")
W_PER_CPU_SECOND = 8.0  # (40 − 8) / 4

PYTHON = [sys.executable, "-I", "-S", "-c"]
SPIN = "import sys, time\nwhile time.process_time() < float(sys.argv[1]): pass\n"
SHORT_IDLE_S = 0.1


def spin(cpu_s: float) -> list[str]:
    """A command that uses ``cpu_s`` CPU seconds, however long that takes."""
    return [*PYTHON, SPIN, str(cpu_s)]


def at_once(count: int, cpu_s: float) -> list[str]:
    """``count`` of them at the same time."""
    code = (
        "import subprocess, sys\n"
        "alive = [subprocess.Popen(sys.argv[2:]) for _ in range(int(sys.argv[1]))]\n"
        "[process.wait() for process in alive]\n"
    )
    return [*PYTHON, code, str(count), *spin(cpu_s)]


def by_tree(tree: CommandTree) -> Meter:
    return TreeMeter(MODEL, tree)


def measure(words: list[str], trials: int = 1, **how: object) -> CommandEnergy:
    return measure_command(
        words,
        by_tree,
        trials=trials,
        idle_s=SHORT_IDLE_S,
        **how,  # type: ignore[arg-type]
    )


def sleeping(status: int = 0) -> list[str]:
    return ["sh", "-c", f"sleep 0.15; exit {status}"]


# ------------------------------------------------------------------ known work


def test_twice_the_work_is_twice_the_dynamic_energy() -> None:
    once, twice = measure(spin(0.2), trials=3), measure(spin(0.4), trials=3)
    assert once.dynamic_energy_j == pytest.approx(0.2 * W_PER_CPU_SECOND, rel=0.15)
    difference = twice.dynamic_energy_j - 2 * once.dynamic_energy_j
    # A process also starts and ends, which is not doubled: 20 ms of CPU time at most.
    interval = twice.dynamic_ci95_j + 2 * once.dynamic_ci95_j
    assert abs(difference) <= interval + 0.02 * W_PER_CPU_SECOND


def test_two_busy_processes_are_twice_one() -> None:
    one, two = measure(at_once(1, 0.3)), measure(at_once(2, 0.3))
    more_j = two.dynamic_energy_j - one.dynamic_energy_j
    assert more_j == pytest.approx(0.3 * W_PER_CPU_SECOND, rel=0.15)


def test_sleep_costs_idle_power_only() -> None:
    found = measure(["sleep", "0.3"])
    # What starting a process takes: a few milliseconds of CPU time.
    assert 0 <= found.dynamic_energy_j < 0.02 * W_PER_CPU_SECOND
    assert found.idle_power_w == pytest.approx(MODEL.idle_w)
    assert found.energy_j == pytest.approx(MODEL.idle_w * found.duration_s + found.dynamic_energy_j)
    assert found.power_w == pytest.approx(found.energy_j / found.duration_s)


def test_quality_and_meter_come_with_the_figures() -> None:
    found = measure(spin(0.15))
    assert (found.meter, found.quality) == ("cpu-time", "estimated")


# ------------------------------------------------------------------ a machine-wide counter


class Scripted:
    """A meter that gives scripted cumulative joules at scripted seconds."""

    name = "scripted"
    quality = "measured"
    min_window_s = 0.1

    def __init__(self, *reads: tuple[float, float]) -> None:
        self._reads = iter(reads)

    def read(self) -> Reading:
        try:
            time_s, joules = next(self._reads)
        except StopIteration:
            raise MeterUnavailableError("the script ran out") from None
        return Reading(time_s, {"j": joules})

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        joules = end.counters["j"] - start.counters["j"]
        return Energy(joules, end.time_s - start.time_s, {"all": joules}, "scripted", "measured")


def test_idle_is_interpolated_between_the_windows_before_and_after() -> None:
    # idle 10 W, run 2 s at 50 W, idle 20 W, run 4 s at 50 W, idle 40 W
    meter = Scripted(
        (0, 0), (1, 10), (1, 10), (3, 110), (3, 110), (4, 130),
        (4, 130), (8, 330), (8, 330), (9, 370),
    )  # fmt: skip
    found = measure_command(["true"], lambda _: meter, trials=2, idle_s=0.1)
    assert [trial.idle_power_w for trial in found.trials] == [15.0, 30.0]
    assert [trial.idle_drift_w for trial in found.trials] == [10.0, 20.0]
    assert [trial.energy_j for trial in found.trials] == [100.0, 200.0]
    assert [trial.dynamic_energy_j for trial in found.trials] == [70.0, 80.0]
    assert (found.energy_j, found.dynamic_energy_j, found.duration_s) == (150.0, 75.0, 3.0)
    assert (found.idle_power_w, found.power_w) == (22.5, 50.0)
    # t(0.975, 1 degree of freedom) = 12.7062; standard errors 50 and 5
    assert found.energy_ci95_j == pytest.approx(12.7062 * 50, rel=1e-4)
    assert found.dynamic_ci95_j == pytest.approx(12.7062 * 5, rel=1e-4)


def test_energy_below_idle_is_shown_and_not_made_zero() -> None:
    meter = Scripted((0, 0), (1, 10), (1, 10), (2, 19), (2, 19), (3, 29))
    found = measure_command(["true"], lambda _: meter, idle_s=0.1)
    assert found.dynamic_energy_j == -1.0


def test_a_counter_that_does_not_move_is_dead() -> None:
    with pytest.raises(MeterUnavailableError, match="dead"):
        measure_command(["sleep", "0.05"], lambda _: FakeMeter(0.0), idle_s=0.05)


def test_without_idle_windows_there_is_no_dynamic_energy() -> None:
    found = measure_command(["sleep", "0.05"], lambda _: FakeMeter(5.0), idle_s=0)
    assert found.power_w == pytest.approx(5.0)
    assert math.isnan(found.dynamic_energy_j)
    assert math.isnan(found.idle_power_w)


def test_a_meter_that_fails_half_way_leaves_what_was_measured() -> None:
    meter = Scripted((0, 0), (1, 10), (1, 10), (3, 110), (3, 110), (4, 130), (4, 130), (5, 130))
    found = measure_command(["true"], lambda _: meter, trials=2, idle_s=0.1)
    assert [trial.energy_j for trial in found.trials] == [100.0]
    assert found.fault is not None
    assert "ran out" in found.fault


def test_what_others_used_is_told_apart_from_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    # One core: others use 10 % of it while idle, and 50 % during the run.
    cores = iter(
        CoreTimes(time_s, {0: busy_s}, {0: 0.0})
        for time_s, busy_s in [(0, 0.0), (2, 0.2), (2, 0.2), (4, 1.2), (4, 1.2), (6, 1.4)]
    )
    monkeypatch.setattr(command, "read_core_times", lambda: next(cores))
    meter = Scripted((0, 0), (2, 20), (2, 20), (4, 120), (4, 120), (6, 140))
    found = measure_command(["true"], lambda _: meter, idle_s=0.1)
    assert found.trials[0].foreign_load == pytest.approx(0.4, abs=0.02)


def test_one_trial_has_no_interval() -> None:
    assert math.isnan(measure(["sleep", "0.15"]).energy_ci95_j)


# ------------------------------------------------------------------ what is refused


def test_a_window_too_short_for_the_meter_gives_no_figure_and_ends_the_series() -> None:
    found = measure_command(["true"], lambda _: FakeMeter(5.0, min_window_s=60), trials=5, idle_s=0)
    assert found.too_short
    assert len(found.trials) == 1
    assert math.isnan(found.energy_j)
    assert math.isnan(found.power_w)


def test_one_trial_too_short_leaves_no_mean() -> None:
    meter = Scripted((0, 0), (1, 10), (1, 10), (1.01, 11))
    found = measure_command(["true"], lambda _: meter, trials=2, idle_s=0)
    assert [trial.energy is None for trial in found.trials] == [True]
    meter = Scripted((0, 0), (0, 0), (1, 10), (1, 10), (1, 10), (1.01, 11), (2, 20))
    found = measure_command(["true"], lambda _: meter, trials=2, idle_s=0)
    assert [trial.energy is None for trial in found.trials] == [False, True]
    assert found.too_short
    assert math.isnan(found.energy_j)


@pytest.mark.parametrize("idle_s", [0.01, -1.0, math.nan, math.inf])
def test_idle_windows_too_short_for_the_meter_are_refused(idle_s: float) -> None:
    with pytest.raises(ConfigError, match="idle"):
        measure_command(["true"], by_tree, idle_s=idle_s)


@pytest.mark.parametrize(
    ("command", "how", "says"),
    [
        ([], {}, "no command"),
        ([""], {}, "no command"),
        (["true"], {"trials": 0}, "trials"),
        (["true"], {"warm_up": -1}, "warm-up"),
        (["no-such-program-anywhere"], {}, "No such file"),
        (["/"], {}, "Permission denied"),
    ],
)
def test_what_cannot_run_is_refused(command: list[str], how: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        measure_command(command, by_tree, idle_s=SHORT_IDLE_S, **how)  # type: ignore[arg-type]


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("nothing to run\n")
    with pytest.raises(ConfigError, match="Permission denied"):
        measure([str(path)])
    path.chmod(0o755)
    with pytest.raises(ConfigError, match="Exec format"):
        measure([str(path)])


# ------------------------------------------------------------------ commands that fail


def test_exit_statuses_are_those_of_a_shell() -> None:
    assert measure(sleeping(7)).exit_status == 7
    killed = measure(["sh", "-c", "sleep 0.15; kill -9 $$"])
    assert killed.exit_status == 128 + signal.SIGKILL
    assert killed.energy_j > 0


def test_failed_trials_are_shown_and_kept_out_of_the_mean(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    script = f"echo x >> {counter}; sleep 0.15; test $(wc -l < {counter}) -ne 2"
    found = measure(["sh", "-c", script], trials=3)
    assert [trial.exit_status for trial in found.trials] == [0, 1, 0]
    assert len(found.counted) == 2
    assert found.exit_status == 1
    good = [found.trials[0].energy_j, found.trials[2].energy_j]
    assert found.energy_j == pytest.approx(sum(good) / 2)


def test_a_command_that_always_fails_has_its_mean() -> None:
    found = measure(sleeping(3), trials=2)
    assert len(found.counted) == 2
    assert found.energy_j > 0


def test_a_failure_too_short_to_measure_does_not_hide_the_others(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"if test -e {flag}; then sleep 0.15; else touch {flag}; exit 1; fi"
    found = measure(["sh", "-c", script], trials=2)
    while found.trials[0].duration_s >= found.min_window_s:  # a busy machine took that long
        flag.unlink()
        found = measure(["sh", "-c", script], trials=2)
    assert [trial.energy is None for trial in found.trials] == [True, False]
    assert not found.too_short
    assert found.energy_j > 0


# ------------------------------------------------------------------ order of events


def test_warm_up_runs_are_not_trials(tmp_path: Path) -> None:
    log = tmp_path / "log"
    trials: list[CommandTrial] = []
    before: list[None] = []
    found = measure(
        ["sh", "-c", f"echo run >> {log}; sleep 0.15"],
        trials=2,
        warm_up=3,
        before_run=lambda: before.append(None),
        on_trial=trials.append,
    )
    assert log.read_text().count("run") == 5
    assert len(before) == 5
    assert tuple(trials) == found.trials
    assert len(trials) == 2


def interrupt_when_filled(path: Path) -> None:
    """Send Ctrl-C to this process, as a signal, once the file has something in it."""
    while not path.read_text():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_interrupt_stops_the_command_and_keeps_finished_trials(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = (
        f"if test -e {flag}; then echo $$ > {flag}; exec sleep 60; fi; touch {flag}; sleep 0.15"
    )
    found = measure(
        ["sh", "-c", script],
        trials=3,
        on_trial=lambda _: threading.Thread(target=interrupt_when_filled, args=(flag,)).start(),
    )
    assert found.interrupted
    assert len(found.trials) == 1
    assert found.energy_j > 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(flag.read_text()), 0)
