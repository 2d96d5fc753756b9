"""What a profile's meta file says of its rows: how each came about and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.journal import Journal
from ipa_energy.profiling.replica_check import check_replicas
from ipa_energy.profiling.stability import stability
from ipa_energy.profiling.trial import Trial


def profile_facts(
    journal: Journal, rows: Iterable[ProfileRow], fit: dict[str, Any] | None
) -> dict[str, Any]:
    """The whole meta file.

    Args:
        journal: the profile's trials.
        rows: of its table.
        fit: what :mod:`.fit.prediction` says of predicted entries; None if there are none.
    """
    everything = [trial for trials in journal.trials.values() for trial in trials]
    facts: dict[str, Any] = {
        **journal.context,
        "inputs": journal.inputs,
        "sessions": journal.sessions,
        "started_utc": min((t.started_utc for t in everything), default=None),
        "last_trial_utc": max((t.started_utc for t in everything), default=None),
        "stability": stability(journal.trials).to_json(),
    }
    replicas = check_replicas(rows)
    if replicas is not None:
        facts["replica_check"] = replicas
    if fit is not None:
        facts["fit"] = fit
    if journal.superseded:
        facts["superseded"] = {
            entry.label: reasons for entry, reasons in sorted(journal.superseded.items())
        }
    if journal.redone:
        facts["redone"] = {
            entry.label: len(started) for entry, started in sorted(journal.redone.items())
        }
    facts["entries"] = {
        entry.label: entry_facts(entry, trials) for entry, trials in sorted(journal.trials.items())
    }
    return facts


def entry_facts(entry: Entry, trials: Sequence[Trial]) -> dict[str, Any]:
    """What the meta file says of one entry.

    ``load_s``, ``load_energy_j`` and ``peak_memory_bytes`` are of one replica; the first two are
    medians over the trials.
    """
    load_energies_j = [t.load_energy_j for t in trials if not math.isnan(t.load_energy_j)]
    on_gpu = [t.peak_gpu_memory_bytes for t in trials if t.peak_gpu_memory_bytes is not None]
    facts: dict[str, Any] = {
        "samples_behind_p99": sum(len(trial.latencies_s) for trial in trials),
        "contended": any(trial.contended for trial in trials),
        "settled": all(trial.settled for trial in trials),
        "load_s": figure(median(trial.load_s for trial in trials)),
        "load_energy_j": figure(median(load_energies_j)) if load_energies_j else None,
        "warm_up_batches": [len(trial.warm_up_s) for trial in trials],
        "peak_memory_bytes": max(trial.peak_memory_bytes for trial in trials),
    }
    if on_gpu:
        facts["peak_gpu_memory_bytes"] = max(on_gpu)
    if any(trial.settle_s for trial in trials):
        facts["idle_settled"] = all(trial.idle_settled for trial in trials)
    parts = {name: _part_facts(entry, trials, name) for t in trials for name in t.parts}
    if parts:
        facts["parts"] = parts
    facts["windows"] = [window_facts(entry, trial) for trial in trials]
    return facts


def _part_facts(entry: Entry, trials: Sequence[Trial], name: str) -> dict[str, Any]:
    """What one source of joules gave to an entry's figures, means over its trials."""
    found = [(trial, trial.parts[name]) for trial in trials if name in trial.parts]
    joules = [p.dynamic_energy_j / (entry.batch * len(t.latencies_s)) for t, p in found]
    empty_w = [p.empty_power_w for _, p in found if p.empty_power_w is not None]
    facts = {
        "counts": found[0][1].counts,
        "quality": found[0][1].quality,
        "dynamic_j_per_request": figure(fmean(joules)),
        "idle_power_w": figure(fmean(p.idle_power_w for _, p in found)),
        "waiting_power_w": figure(fmean(p.waiting_power_w for _, p in found)),
    }
    return facts | ({"empty_power_w": figure(fmean(empty_w))} if empty_w else {})


def window_facts(entry: Entry, trial: Trial) -> dict[str, Any]:
    """What the meta file says of one window."""
    requests = entry.batch * len(trial.latencies_s)
    facts: dict[str, Any] = {
        "started_utc": trial.started_utc,
        "busy_s": figure(trial.busy_s),
        "batches": len(trial.latencies_s),
        "latency_avg_s": figure(fmean(trial.latencies_s)),
        "cpu_s": figure(trial.cpu_s),
        "dynamic_j_per_request": figure(trial.dynamic_energy_j / requests),
        "foreign_load": round(trial.foreign_load, 4),
        "neighbour_load": round(trial.neighbour_load, 4),
        "repeats": trial.repeats,
    }
    if trial.settle_s:
        facts["settle_s"] = [round(waited_s, 3) for waited_s in trial.settle_s]
    if trial.parts:
        facts["parts_j_per_request"] = {
            name: figure(part.dynamic_energy_j / requests) for name, part in trial.parts.items()
        }
    return facts


def figure(value: float) -> float:
    """A figure at the six digits that are more than any of these measurements is good to."""
    return float(f"{value:.6g}")
