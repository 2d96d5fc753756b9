"""What moved while a profile was measured: drift over the rounds, and windows that stand out.

Nothing is left out because of it: an outlier stays in its row's mean and interval. It is said.

A window stands out by its deviation from its entry's median, in units of the spread that windows of
this profile usually have: with three windows an entry has no spread of its own to speak of. ::

    r  =  x / median of the entry − 1            z  =  r / (1.4826 · median |r|)

An entry's median window itself is left out of the spread (its r is 0 by construction).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.trial import Trial

OUTLIER_Z = 3.5
"""Beyond this a window is called an outlier (Iglewicz and Hoaglin 1993)."""

SMALLEST_SPREAD = 0.005
"""Relative: below this, differences between windows are of no interest to anyone."""

DRIFT_LIMIT = 0.05
"""Relative change from the first to the last round beyond which the machine is said to drift."""

MAD_TO_SIGMA = 1.4826
"""Standard deviation over median absolute deviation of a normal distribution."""

QUANTITIES: Mapping[str, Callable[[Entry, Trial], float]] = {
    "latency_avg_s": lambda entry, trial: fmean(trial.latencies_s),
    "dynamic_j_per_request": lambda entry, trial: (
        trial.dynamic_energy_j / (entry.batch * len(trial.latencies_s))
    ),
}


@dataclass(frozen=True, slots=True)
class Outlier:
    """A window that stands out.

    Attributes:
        entry: label of its entry.
        window: its number within the entry, from 0.
        quantity: in what.
        relative: value over the entry's median, minus 1.
        z: the same in robust standard deviations.
    """

    entry: str
    window: int
    quantity: str
    relative: float
    z: float


@dataclass(frozen=True, slots=True)
class Stability:
    """How steady a profile's windows were.

    Attributes:
        windows: all of them.
        contended: those whose cores others used too much, even after every repeat.
        outliers: those that stand out; they are kept.
        drift: quantity → median over entries of last over first window, minus 1; None where no
            entry has two windows.
        idle_drift: median and largest change of idle power from before a window to after it, as a
            share of the idle power; None without windows or idle power.
    """

    windows: int
    contended: int
    outliers: tuple[Outlier, ...]
    drift: dict[str, float | None]
    idle_drift: dict[str, float] | None

    @property
    def drifted(self) -> bool:
        """True if a quantity moved by more than :data:`DRIFT_LIMIT` from first to last round."""
        return any(
            change is not None and abs(change) > DRIFT_LIMIT for change in self.drift.values()
        )

    @property
    def summary(self) -> str:
        """One line for people."""
        kept = f"{len(self.outliers)} outliers kept" if self.outliers else "no outliers"
        worst = max(self.outliers, key=lambda outlier: abs(outlier.z), default=None)
        if worst is not None:
            kept += f" (worst: {worst.entry} window {worst.window}, {worst.quantity}"
            kept += f" {worst.relative:+.0%}, z {worst.z:+.1f})"
        drift = ", ".join(
            f"{name} {change:+.1%}" for name, change in self.drift.items() if change is not None
        )
        moved = f"{'DRIFT' if self.drifted else 'drift'} first to last round: {drift}"
        moved = moved if drift else "one round, no drift known"
        return f"{self.windows} windows, {self.contended} contended, {kept}; {moved}"

    def to_json(self) -> dict[str, Any]:
        """For the meta file."""
        return {**asdict(self), "drifted": self.drifted}


def stability(trials: Mapping[Entry, Sequence[Trial]]) -> Stability:
    """How steady the windows of these trials were."""
    outliers: list[Outlier] = []
    drift: dict[str, float | None] = {}
    for name, quantity in QUANTITIES.items():
        values = {
            entry: [quantity(entry, trial) for trial in found] for entry, found in trials.items()
        }
        outliers += _outliers(name, values)
        changes = [
            found[-1] / found[0] - 1 for found in values.values() if len(found) > 1 and found[0] > 0
        ]
        drift[name] = median(changes) if changes else None
    everything = [trial for found in trials.values() for trial in found]
    return Stability(
        windows=len(everything),
        contended=sum(trial.contended for trial in everything),
        outliers=tuple(outliers),
        drift=drift,
        idle_drift=_idle_drift(everything),
    )


def _outliers(name: str, values: Mapping[Entry, Sequence[float]]) -> list[Outlier]:
    deviations = {
        entry: [value / median(found) - 1 for value in found]
        for entry, found in values.items()
        if len(found) >= 3 and median(found) > 0
    }
    pooled: list[float] = []
    for found in deviations.values():
        sizes = sorted(abs(deviation) for deviation in found)
        pooled += sizes[len(sizes) % 2 :]
    if not pooled:
        return []
    spread = max(SMALLEST_SPREAD, MAD_TO_SIGMA * median(pooled))
    return [
        Outlier(entry.label, window, name, deviation, deviation / spread)
        for entry, found in deviations.items()
        for window, deviation in enumerate(found)
        if abs(deviation) > OUTLIER_Z * spread
    ]


def _idle_drift(trials: Sequence[Trial]) -> dict[str, float] | None:
    changes = [
        trial.idle_drift_w / trial.idle_power_w for trial in trials if trial.idle_power_w > 0
    ]
    if not changes:
        return None
    return {"median": median(changes), "largest": max(changes, key=abs)}
