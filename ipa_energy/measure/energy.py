"""What measuring a command found: each run, and all of them together.

A run that failed is kept and shown, and so is one that was too short for the meter; neither enters
a mean by stealth. Failed runs count only where every run failed, and a run without a figure that
ought to count leaves the mean without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.interval import half_width_95
from ipa_energy.meters.base import Energy
from ipa_energy.records import Quality

FOREIGN_LOAD_LIMIT = 0.05
"""Others may use this share of the cores more, or less, than in the idle windows around."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandTrial:
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

    @property
    def energy_j(self) -> float:
        """Joules of the run; NaN if it was too short for the meter."""
        return math.nan if self.energy is None else self.energy.energy_j

    @property
    def dynamic_energy_j(self) -> float:
        """Joules above idle; NaN if it was too short, or there were no idle windows."""
        return self.energy_j - self.idle_power_w * self.duration_s


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
