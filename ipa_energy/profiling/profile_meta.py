"""What a profile's meta file says: the machine, how each row came about, and how good it is.

It holds the model J = e + n·p/λ against several replicas at once, and against lower loads. The
optimizer plans n replicas at any load from what one does back to back. Entries of several replicas,
or of a load below saturation, say how far that is off: the model's J at the row's own load, with e
and p of one saturated replica, against the J that was measured; and n times the throughput of one
against that of all. No host names and no paths are in it.

It says what moved while the profile was measured: drift over the rounds, and windows that stand
out. Nothing is left out because of it: an outlier stays in its row's mean and interval. A window
stands out by its deviation from its entry's median, in units of the spread that windows of this
profile usually have: with three windows an entry has no spread of its own to speak of. ::

    r  =  x / median of the entry − 1            z  =  r / (1.4826 · median |r|)

An entry's median window itself is left out of the spread (its r is 0 by construction).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from ipa_energy.energy import joules_per_request
from ipa_energy.profile_table.profile_row import ProfileRow, rounded
from ipa_energy.profiling.grid import Entry, entry_of
from ipa_energy.profiling.trial import Trial
from ipa_energy.profiling.trial_journal import Journal
from ipa_energy.tables import counted, signed


def profile_meta(
    journal: Journal, rows: Iterable[ProfileRow], fit: dict[str, Any] | None
) -> dict[str, Any]:
    """The whole meta file.

    Args:
        journal: the profile's trials.
        rows: of its table.
        fit: what :mod:`.entry_rows` says of predicted entries; None if there are none.
    """
    everything = [trial for trials in journal.trials.values() for trial in trials]
    meta: dict[str, Any] = {
        **journal.context,
        "inputs": journal.inputs,
        "sessions": journal.sessions,
        "started_utc": min((t.started_utc for t in everything), default=None),
        "last_trial_utc": max((t.started_utc for t in everything), default=None),
        "stability": stability(journal.trials).to_json(),
    }
    replicas = check_replicas(rows)
    if replicas is not None:
        meta["replica_check"] = replicas
    if fit is not None:
        meta["fit"] = fit
    if journal.superseded:
        meta["superseded"] = {
            entry.label: reasons for entry, reasons in sorted(journal.superseded.items())
        }
    if journal.redone:
        meta["redone"] = {
            entry.label: len(started) for entry, started in sorted(journal.redone.items())
        }
    meta["entries"] = {
        entry.label: entry_meta(entry, trials) for entry, trials in sorted(journal.trials.items())
    }
    return meta


def entry_meta(entry: Entry, trials: Sequence[Trial]) -> dict[str, Any]:
    """What the meta file says of one entry.

    ``load_s``, ``load_energy_j`` and ``peak_memory_bytes`` are of one replica; the first two are
    medians over the trials.
    """
    load_energies_j = [t.load_energy_j for t in trials if not math.isnan(t.load_energy_j)]
    on_gpu = [t.peak_gpu_memory_bytes for t in trials if t.peak_gpu_memory_bytes is not None]
    meta: dict[str, Any] = {
        "samples_behind_p99": sum(len(trial.latencies_s) for trial in trials),
        "contended": any(trial.contended for trial in trials),
        "settled": all(trial.settled for trial in trials),
        "load_s": rounded(median(trial.load_s for trial in trials)),
        "load_energy_j": rounded(median(load_energies_j)) if load_energies_j else None,
        "warm_up_batches": [len(trial.warm_up_s) for trial in trials],
        "peak_memory_bytes": max(trial.peak_memory_bytes for trial in trials),
    }
    if on_gpu:
        meta["peak_gpu_memory_bytes"] = max(on_gpu)
    if any(trial.settle_s for trial in trials):
        meta["idle_settled"] = all(trial.idle_settled for trial in trials)
    parts = {name: _part_meta(entry, trials, name) for t in trials for name in t.parts}
    if parts:
        meta["parts"] = parts
    meta["windows"] = [window_meta(entry, trial) for trial in trials]
    return meta


def _part_meta(entry: Entry, trials: Sequence[Trial], name: str) -> dict[str, Any]:
    """What one source of joules gave to an entry's figures, means over its trials."""
    found = [(trial, trial.parts[name]) for trial in trials if name in trial.parts]
    joules = [p.dynamic_energy_j / (entry.batch * len(t.latencies_s)) for t, p in found]
    empty_w = [p.empty_power_w for _, p in found if p.empty_power_w is not None]
    meta = {
        "counts": found[0][1].counts,
        "quality": found[0][1].quality,
        "dynamic_j_per_request": rounded(fmean(joules)),
        "idle_power_w": rounded(fmean(p.idle_power_w for _, p in found)),
        "waiting_power_w": rounded(fmean(p.waiting_power_w for _, p in found)),
    }
    return meta | ({"empty_power_w": rounded(fmean(empty_w))} if empty_w else {})


def window_meta(entry: Entry, trial: Trial) -> dict[str, Any]:
    """What the meta file says of one window."""
    requests = entry.batch * len(trial.latencies_s)
    meta: dict[str, Any] = {
        "started_utc": trial.started_utc,
        "busy_s": rounded(trial.busy_s),
        "batches": len(trial.latencies_s),
        "latency_avg_s": rounded(fmean(trial.latencies_s)),
        "cpu_s": rounded(trial.cpu_s),
        "dynamic_j_per_request": rounded(trial.dynamic_energy_j / requests),
        "foreign_load": round(trial.foreign_load, 4),
        "neighbour_load": round(trial.neighbour_load, 4),
        "repeats": trial.repeats,
    }
    if trial.settle_s:
        meta["settle_s"] = [round(waited_s, 3) for waited_s in trial.settle_s]
    if trial.parts:
        meta["parts_j_per_request"] = {
            name: rounded(part.dynamic_energy_j / requests) for name, part in trial.parts.items()
        }
    return meta


def check_replicas(rows: Iterable[ProfileRow]) -> dict[str, Any] | None:
    """How well one saturated replica foretells the other rows; None without others.

    Returns:
        ``entries``: label → ``predicted_j``, ``measured_j``, ``relative_error`` of the joules
        (positive: the model promises too many), ``throughput_ratio`` and ``latency_avg_ratio``
        (the row over that of one), or ``unchecked`` with the reason; then
        ``relative_error_mean_abs`` and ``relative_error_max_abs``, None if nothing could be
        checked.
    """
    everything = [row for row in rows if row.has_energy and row.trials > 0]
    alone = {row.option_key: row for row in everything if row.replicas == 1 and row.is_saturated}
    others = [row for row in everything if row.replicas > 1 or not row.is_saturated]
    if not others:
        return None
    entries = {entry_of(row).label: _compare(row, alone.get(row.option_key)) for row in others}
    errors = [
        abs(found["relative_error"]) for found in entries.values() if "unchecked" not in found
    ]
    return {
        "model": "joules_per_request = e + n p / load, e and p of one saturated replica",
        "entries": entries,
        "relative_error_mean_abs": fmean(errors) if errors else None,
        "relative_error_max_abs": max(errors, default=None),
    }


def _compare(row: ProfileRow, one: ProfileRow | None) -> dict[str, Any]:
    if one is None:
        return {"unchecked": "no measured row of one saturated replica"}
    predicted_j = joules_per_request(
        one.dynamic_energy_j, one.idle_power_w, row.replicas, row.load_rps
    )
    return {
        "predicted_j": predicted_j,
        "measured_j": row.joules_per_request,
        "relative_error": predicted_j / row.joules_per_request - 1,
        "throughput_ratio": row.throughput_rps / one.throughput_rps,
        "latency_avg_ratio": row.latency_avg_s / one.latency_avg_s,
    }


# ------------------------------------------------------------------ how steady the windows were

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
        kept = f"{counted(len(self.outliers), 'outlier')} kept" if self.outliers else "no outliers"
        worst = max(self.outliers, key=lambda outlier: abs(outlier.z), default=None)
        if worst is not None:
            kept += f" (worst: {worst.entry} window {worst.window}, {worst.quantity}"
            kept += f" {signed(worst.relative, '+.0%')}, z {signed(worst.z, '+.1f')})"
        drift = ", ".join(
            f"{name} {signed(change, '+.1%')}"
            for name, change in self.drift.items()
            if change is not None
        )
        moved = f"{'DRIFT' if self.drifted else 'drift'} first to last round: {drift}"
        moved = moved if drift else "one round, no drift known"
        return f"{counted(self.windows, 'window')}, {self.contended} contended, {kept}; {moved}"

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
