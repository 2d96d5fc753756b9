"""What a profile's meta file says: the machine, how each row came about, and how good it is.

It holds the model J = e + n·p/λ against several replicas at once, and against lower loads. The
optimizer plans n replicas at any load from what one does back to back. Entries of several replicas,
or of a load below saturation, say how far that is off: the model's J at the row's own load, with e
and p of one saturated replica, against the J that was measured; and n times the throughput of one
against that of all. No host names and no paths are in it.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ipa_energy.energy import joules_per_request
from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.profiling.entry_rows import rounded
from ipa_energy.profiling.grid import Entry, entry_of
from ipa_energy.profiling.stability import stability
from ipa_energy.profiling.trial import Trial
from ipa_energy.profiling.trial_journal import Journal


def profile_meta(
    journal: Journal, rows: Iterable[ProfileRow], fit: dict[str, Any] | None
) -> dict[str, Any]:
    """The whole meta file.

    Args:
        journal: the profile's trials.
        rows: of its table.
        fit: what :mod:`.fit.prediction` says of predicted entries; None if there are none.
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


PROC = Path("/proc")


def describe_machine(proc: Path = PROC) -> dict[str, Any]:
    """CPU, cores, memory, kernel, and whether a hypervisor is in between."""
    cpu = _first_cpu(proc / "cpuinfo")
    memory_kib = next(
        (
            int(line.split()[1])
            for line in (proc / "meminfo").read_text().splitlines()
            if line.startswith("MemTotal:")
        ),
        0,
    )
    return {
        "cpu": cpu.get("model name", platform.processor() or "unknown"),
        "cpu_family": cpu.get("cpu family"),
        "cpu_model": cpu.get("model"),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "architecture": platform.machine(),
        "virtualised": "hypervisor" in cpu.get("flags", "").split(),
        "python": platform.python_version(),
    }


def _first_cpu(cpuinfo: Path) -> dict[str, str]:
    meta: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        if not line.strip():
            break
        key, _, value = line.partition(":")
        meta[key.strip()] = value.strip()
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
