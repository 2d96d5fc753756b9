"""Joules of any command, any repeats: what ``perf stat -e power/energy-pkg/`` is used for.

Each trial lies between two idle windows, and one idle window serves both of its neighbours::

      warm-ups │ idle │ trial 1 ........ │ idle │ trial 2 ........ │ idle │
               │      │ start ──── end   │      │                  │      │
    power of a machine-wide counter:
               │      │ ▟██████████████▙ │      │ ▟██████████████▙ │      │
               │▁▁▁▁▁▁│▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁│▁▁▁▁▁▁│▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁│▁▁▁▁▁▁│
                 P₀      ▁ idle, J = d·(P₀+P₁)/2   P₁                  P₂
                         █ dynamic: the rest

The idle power of a trial is interpolated between its two windows (its middle lies half-way, so that
is their mean), and dynamic joules are what the trial took above it. They may come out a little
below zero for a command that does nothing, and are shown so.

A machine-wide counter (rapl, perf) charges the command with whatever else ran meanwhile; others'
share of the cores is measured, and a trial in which it differs from the idle windows' is named.
The cpu-time model charges the command's own process tree with its CPU time, and with the idle power
of the whole machine (:class:`.command_tree.TreeMeter`); others do not enter. It may be told to
charge a control group instead (:class:`~ipa_energy.meters.cgroup.CgroupMeter`), while the command
runs.

A run that failed is kept and shown, and so is one that was too short for the meter; neither enters
a mean by stealth. Failed runs count only where every run failed, and a run without a figure that
ought to count leaves the mean without one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.interval import half_width_95
from ipa_energy.measuring.command_tree import CommandTree, TreeMeterFactory
from ipa_energy.meters.base import Energy, Meter, Reading
from ipa_energy.meters.cpu_time import CoreTimes, load_between, read_core_times
from ipa_energy.records import Quality

DEFAULT_IDLE_S = 1.0
FOREIGN_LOAD_WINDOW_S = 1.0
"""The kernel counts cores' time in ticks of 10 ms: in shorter windows that share means nothing."""

FOREIGN_LOAD_LIMIT = 0.05
"""Others may use this share of the cores more, or less, than in the idle windows around."""


class WindowJoules:
    """What is said of a window with ``energy``, ``idle_power_w`` and ``duration_s``."""

    __slots__ = ()
    energy: Energy | None
    idle_power_w: float
    duration_s: float

    @property
    def energy_j(self) -> float:
        """Joules, idle share included; NaN if it was too short for the meter."""
        return math.nan if self.energy is None else self.energy.energy_j

    @property
    def dynamic_energy_j(self) -> float:
        """Joules above idle; NaN if it was too short, or there were no idle windows."""
        return self.energy_j - self.idle_power_w * self.duration_s

    @property
    def power_w(self) -> float:
        """Mean watts."""
        return self.energy_j / self.duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandTrial(WindowJoules):
    """One run of the command.

    Attributes:
        exit_status: as a shell gives it: 128 + n if signal n killed the command.
        duration_s: from just before its start to just after its end.
        energy: joules of that window; None if it was too short for the meter.
        idle_power_w: interpolated watts of the idle machine; NaN without idle windows.
        idle_drift_w: idle power after minus before; NaN without idle windows.
        cpu_s: CPU seconds of the command and everything it started, or of the control group that
            is charged.
        foreign_load: share of the machine's cores that others used, above the idle windows'.
        left_running: processes of the command that outlived it, as ``name (pid)``.
    """

    exit_status: int
    duration_s: float
    energy: Energy | None
    idle_power_w: float
    idle_drift_w: float
    cpu_s: float
    foreign_load: float
    left_running: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEnergy:
    """What the trials say together.

    The means are over the trials that exited 0, or over all of them if none did.

    Attributes:
        meter, quality: provenance of every joule and watt.
        min_window_s: shortest trial the meter can measure.
        trials: in order; those that failed are among them.
        interrupted: True if Ctrl-C ended the series.
        fault: why the meter failed in the middle of the series; None if it did not.
    """

    meter: str
    quality: Quality
    min_window_s: float
    trials: tuple[CommandTrial, ...]
    interrupted: bool = False
    fault: str | None = None

    @property
    def counted(self) -> tuple[CommandTrial, ...]:
        """The trials behind the means."""
        return tuple(t for t in self.trials if t.exit_status == 0) or self.trials

    @property
    def too_short(self) -> bool:
        """True if a counted trial has no figure: then there is no mean either."""
        return any(trial.energy is None for trial in self.counted)

    @property
    def exit_status(self) -> int:
        """The last exit status that is not zero, else zero."""
        return next((t.exit_status for t in reversed(self.trials) if t.exit_status), 0)

    @property
    def energy_j(self) -> float:
        """Mean joules of a run; NaN if a counted trial was too short."""
        return self._mean([trial.energy_j for trial in self.counted])

    @property
    def energy_ci95_j(self) -> float:
        """Half width of the 95 % t-interval of :attr:`energy_j`; NaN for a single trial."""
        return half_width_95([trial.energy_j for trial in self.counted])

    @property
    def dynamic_energy_j(self) -> float:
        """Mean joules above idle of a run."""
        return self._mean([trial.dynamic_energy_j for trial in self.counted])

    @property
    def dynamic_ci95_j(self) -> float:
        """Half width of the 95 % t-interval of :attr:`dynamic_energy_j`; NaN for one trial."""
        return half_width_95([trial.dynamic_energy_j for trial in self.counted])

    @property
    def idle_power_w(self) -> float:
        """Mean watts of the idle machine around the trials."""
        return self._mean([trial.idle_power_w for trial in self.counted])

    @property
    def duration_s(self) -> float:
        """Mean seconds of a run."""
        return self._mean([trial.duration_s for trial in self.counted])

    @property
    def power_w(self) -> float:
        """Mean watts while the command ran: its joules over its seconds."""
        return self.energy_j / self.duration_s

    @staticmethod
    def _mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else math.nan


def measure_command(
    command: Sequence[str],
    meter_for: TreeMeterFactory,
    *,
    trials: int = 1,
    idle_s: float | None = None,
    warm_up: int = 0,
    stdout_to_stderr: bool = False,
    before_run: Callable[[], None] = lambda: None,
    own_cpu_s: Callable[[CommandTree], float] = CommandTree.cpu_s,
    on_trial: Callable[[CommandTrial], None] = lambda _: None,
) -> CommandEnergy:
    """Run ``command`` and measure it.

    A trial that exits 0 and is too short for the meter ends the series: the next would be as short.
    Ctrl-C stops the command and ends the series, and so does a meter that fails after the first
    trial; finished trials are returned.

    Args:
        command: program and arguments.
        meter_for: makes the meter; see :class:`.command_tree.TreeMeter` for cpu-time.
        trials: measured runs.
        idle_s: length of each idle window; None for a second, or longer if the meter needs it;
            0 for none, and then no dynamic joules.
        warm_up: runs before them that are not measured.
        stdout_to_stderr: see :class:`.command_tree.CommandTree`.
        before_run: called before every run, e.g. to rewind the standard input.
        own_cpu_s: CPU seconds so far of what the meter charges; others' load is the rest.
        on_trial: called with every trial when it is finished.

    Raises:
        ConfigError: the command cannot be run, or an argument is impossible.
        MeterUnavailableError: the meter cannot be read, or does not move.
    """
    _check(command, trials, warm_up)
    finished: list[CommandTrial] = []
    with CommandTree(stdout_to_stderr=stdout_to_stderr) as tree:
        bench = _Bench(command, tree, meter_for(tree), before_run, own_cpu_s)
        idle_s = _idle_s(idle_s, bench.meter)
        interrupted, fault = False, None
        try:
            for _ in range(warm_up):
                bench.run()
            before = bench.idle(idle_s)
            while len(finished) < trials and not _hopeless(finished):
                trial, before = bench.trial(before, idle_s)
                finished.append(trial)
                on_trial(trial)
        except KeyboardInterrupt:
            interrupted = True
        except MeterUnavailableError as error:
            if not finished:
                raise
            fault = str(error)
        return CommandEnergy(
            meter=bench.meter.name,
            quality=bench.meter.quality,
            min_window_s=bench.meter.min_window_s,
            trials=tuple(finished),
            interrupted=interrupted,
            fault=fault,
        )


def _check(command: Sequence[str], trials: int, warm_up: int) -> None:
    if not command or not command[0]:
        raise ConfigError("no command to measure", fix="give it after --")
    if trials < 1:
        raise ConfigError(f"{trials} trials", allowed="1 or more")
    if warm_up < 0:
        raise ConfigError(f"{warm_up} warm-up runs", allowed="0 or more")


def _idle_s(asked_s: float | None, meter: Meter) -> float:
    if asked_s is None:
        return max(DEFAULT_IDLE_S, meter.min_window_s)
    if not (asked_s == 0 or meter.min_window_s <= asked_s < math.inf):
        raise ConfigError(
            f"idle windows of {asked_s:g} s",
            allowed=f"0 for none, or {meter.min_window_s:g} s and more, which {meter.name} needs",
        )
    return asked_s


def _hopeless(finished: Sequence[CommandTrial]) -> bool:
    return bool(finished) and finished[-1].energy is None and finished[-1].exit_status == 0


@dataclass(frozen=True, slots=True)
class _Mark:
    """Everything that is read at the edge of a window."""

    reading: Reading
    cores: CoreTimes
    cpu_s: float


@dataclass(frozen=True, slots=True)
class _Idle:
    """An idle window; ``power_w`` and ``foreign`` are NaN if it has no length."""

    power_w: float
    foreign: float
    end: _Mark


@dataclass(frozen=True, slots=True)
class _Bench:
    """A command with what measures it."""

    command: Sequence[str]
    tree: CommandTree
    meter: Meter
    before_run: Callable[[], None]
    own_cpu_s: Callable[[CommandTree], float]

    def run(self) -> int:
        """One run; its exit status as a shell gives it."""
        self.before_run()
        code = self.tree.run(self.command)
        return 128 - code if code < 0 else code

    def idle(self, idle_s: float) -> _Idle:
        """Wait for ``idle_s`` and see what the machine draws."""
        start = self._mark_start()
        if idle_s == 0:
            return _Idle(math.nan, math.nan, start)
        time.sleep(idle_s)
        end = self._mark_end()
        power_w = self.meter.energy_between(start.reading, end.reading).power_w
        return _Idle(power_w, _foreign(start, end), end)

    def trial(self, before: _Idle, idle_s: float) -> tuple[CommandTrial, _Idle]:
        """One run, and the idle window after it."""
        start = self._mark_start()
        exit_status = self.run()
        end = self._mark_end()
        duration_s = end.reading.time_s - start.reading.time_s
        after = self.idle(idle_s)
        background = (before.foreign + after.foreign) / 2
        trial = CommandTrial(
            exit_status=exit_status,
            duration_s=duration_s,
            energy=energy_of(self.meter, start.reading, end.reading),
            idle_power_w=(before.power_w + after.power_w) / 2,
            idle_drift_w=after.power_w - before.power_w,
            cpu_s=end.cpu_s - start.cpu_s,
            foreign_load=_foreign(start, end) - (0.0 if math.isnan(background) else background),
            left_running=tuple(self.tree.left_running()),
        )
        return trial, after

    def _mark_start(self) -> _Mark:
        cpu_s, cores = self.own_cpu_s(self.tree), read_core_times()
        return _Mark(self.meter.read(), cores, cpu_s)

    def _mark_end(self) -> _Mark:
        reading = self.meter.read()
        return _Mark(reading, read_core_times(), self.own_cpu_s(self.tree))


def energy_of(meter: Meter, start: Reading, end: Reading) -> Energy | None:
    """Joules of a window; None if it was too short for the meter.

    Raises:
        MeterUnavailableError: the meter cannot be read, or a counter did not move.
    """
    if end.time_s - start.time_s < meter.min_window_s:
        return None
    energy = meter.energy_between(start, end)
    if meter.quality == "measured" and not energy.energy_j > 0:
        raise MeterUnavailableError(
            f"{meter.name} shows {energy.energy_j:g} J for {energy.duration_s:.3g} s: the "
            "counter is dead; choose another meter"
        )
    return energy


def _foreign(start: _Mark, end: _Mark) -> float:
    """Share of all cores' time that others than the command used; NaN for a window too short."""
    if end.cores.time_s - start.cores.time_s < FOREIGN_LOAD_WINDOW_S:
        return math.nan
    own_s = end.cpu_s - start.cpu_s
    return load_between(
        start.cores, end.cores, core_ids=list(end.cores.busy_s), own_cpu_s=own_s
    ).foreign
