"""The three files of a profile, kept in step: table, meta file, journal.

``NAME.csv`` has one row a finished entry, ``NAME.meta.json`` says how it was measured and how good
each row is, ``NAME.trials.jsonl`` holds every trial. The journal comes first: whatever the others
lack can be computed from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, cast

from ipa_energy.errors import ConfigError
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.journal import Journal, write_json
from ipa_energy.profiling.measurement import summarise
from ipa_energy.profiling.table import ProfileRow, append_rows, meta_path, read_profile
from ipa_energy.profiling.trial import Trial
from ipa_energy.records import Quality


class ProfileFiles:
    """The files of one profile.

    Args:
        table: the CSV; the others lie beside it.
        context: what must be equal whenever the profile grows.
        resume: go on with existing files.

    Raises:
        ConfigError: the profile exists and is not to be resumed, or its folder does not exist, or
            it was begun in another context.
    """

    def __init__(self, table: Path, context: Mapping[str, Any], *, resume: bool) -> None:
        self.table = table
        self.meta = meta_path(table)
        journal = table.with_suffix(".trials.jsonl")
        if not table.parent.is_dir():
            raise ConfigError("its folder does not exist", where=table, fix="create the folder")
        if not resume and (table.exists() or journal.exists()):
            raise ConfigError(
                "the profile exists already", where=table, fix="resume it, or choose another output"
            )
        self.journal = Journal(journal, context)
        self._rows = self._keys_of_table()

    def trial_counts(self) -> dict[Entry, int]:
        """Entry → trials on disk."""
        return {entry: len(trials) for entry, trials in self.journal.trials.items()}

    def has_row(self, entry: Entry) -> bool:
        """True if the table has the entry."""
        return _option_key(entry) in self._rows

    def add_row(self, entry: Entry, accuracy: float) -> ProfileRow:
        """Compute an entry's row from its trials and append it to the table."""
        row = profile_row(entry, self.journal.trials[entry], accuracy)
        append_rows(self.table, [row])
        self._rows.add(_option_key(entry))
        return row

    def write_meta(self) -> None:
        """Bring the meta file up to date."""
        journal = self.journal
        everything = [trial for trials in journal.trials.values() for trial in trials]
        write_json(
            self.meta,
            {
                **journal.context,
                "sessions": journal.sessions,
                "started_utc": min((t.started_utc for t in everything), default=None),
                "last_trial_utc": max((t.started_utc for t in everything), default=None),
                "entries": {
                    entry.label: entry_facts(trials, entry.batch)
                    for entry, trials in sorted(journal.trials.items())
                },
            },
        )

    def _keys_of_table(self) -> set[tuple[object, ...]]:
        # A kill in the very first append leaves a header alone, or a header and a torn row.
        if not self.table.exists() or self.table.read_bytes().count(b"\n") < 2:
            return set()
        return {row.option_key for row in read_profile(self.table)}


def profile_row(entry: Entry, trials: Sequence[Trial], accuracy: float) -> ProfileRow:
    """The row of a finished entry: one saturated replica, so the load is its throughput."""
    found = summarise(trials, entry.batch)
    load_rps = _figure(found.throughput_rps)
    dynamic_energy_j, idle_power_w = _figure(found.dynamic_energy_j), _figure(found.idle_power_w)
    return ProfileRow(
        stage=entry.stage,
        variant=entry.variant,
        hardware=entry.hardware,
        cpu_cores=float(entry.cpu_cores),
        gpu_share=0.0,
        batch=entry.batch,
        replicas=1,
        load_rps=load_rps,
        latency_avg_s=_figure(found.latency_avg_s),
        latency_p99_s=_figure(found.latency_p99_s),
        throughput_rps=load_rps,
        accuracy=accuracy,
        dynamic_energy_j=dynamic_energy_j,
        idle_power_w=idle_power_w,
        joules_per_request=_figure(dynamic_energy_j + idle_power_w / load_rps),
        energy_ci95_j=_figure(found.energy_ci95_j),
        trials=found.trials,
        meter=trials[0].meter,
        quality=cast(Quality, trials[0].quality),
    )


def entry_facts(trials: Sequence[Trial], batch: int) -> dict[str, Any]:
    """What the meta file says of one entry: how its row came about and how far to trust it."""
    return {
        "samples_behind_p99": sum(len(trial.latencies_s) for trial in trials),
        "contended": any(trial.contended for trial in trials),
        "settled": all(trial.settled for trial in trials),
        "load_s": _figure(median(trial.load_s for trial in trials)),
        "load_energy_j": _figure(median(trial.load_energy_j for trial in trials)),
        "warm_up_batches": [len(trial.warm_up_s) for trial in trials],
        "peak_memory_bytes": max(trial.peak_memory_bytes for trial in trials),
        "windows": [window_facts(trial, batch) for trial in trials],
    }


def window_facts(trial: Trial, batch: int) -> dict[str, Any]:
    """What the meta file says of one window."""
    requests = batch * len(trial.latencies_s)
    return {
        "started_utc": trial.started_utc,
        "busy_s": _figure(trial.busy_s),
        "batches": len(trial.latencies_s),
        "latency_avg_s": _figure(fmean(trial.latencies_s)),
        "cpu_s": _figure(trial.cpu_s),
        "dynamic_j_per_request": _figure(trial.dynamic_energy_j / requests),
        "foreign_load": round(trial.foreign_load, 4),
        "neighbour_load": round(trial.neighbour_load, 4),
        "repeats": trial.repeats,
    }


def _figure(value: float) -> float:
    """A figure at the six digits that are more than any of these measurements is good to."""
    return float(f"{value:.6g}")


def _option_key(entry: Entry) -> tuple[object, ...]:
    return (
        entry.stage,
        entry.variant,
        entry.hardware,
        float(entry.cpu_cores),
        0.0,
        entry.batch,
    )
