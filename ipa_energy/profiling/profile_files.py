"""The files of a profile (table, meta file, journal) and the rounds of trials that fill them.

``NAME.csv`` has one row a finished entry, ``NAME.meta.json`` says how it was measured and how good
each row is, ``NAME.trials.jsonl`` holds every trial. The journal comes first: whatever the others
lack can be computed from it.

Every round visits every entry once, in an order of its own drawn from the seed: an entry's trials
lie far apart, and drift of the machine does not pass for a difference between variants. A trial is
on disk when it ends (:mod:`.trial_journal`), an entry's row joins the table when its last trial is
in, and rounds that were killed go on where they stopped.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError, ServingError, in_words
from ipa_energy.files import check_can_be_made, write_json
from ipa_energy.profile_table.profile_csv import append_rows, meta_path, read_profile, write_profile
from ipa_energy.profile_table.profile_row import ProfileRow, columns_of
from ipa_energy.profiling.entry_rows import Predicted, at_load, is_predicted, profile_row
from ipa_energy.profiling.grid import Entry, entry_of, visits
from ipa_energy.profiling.profile_meta import profile_meta
from ipa_energy.profiling.replica_group import ReplicaSpec
from ipa_energy.profiling.replica_meter import MeterChoice
from ipa_energy.profiling.trial import Trial, run_trial
from ipa_energy.profiling.trial_journal import GONE, Inputs, Journal
from ipa_energy.profiling.trial_windows import EmptyMachine, TrialSettings
from ipa_energy.tables import counted

logger = logging.getLogger(__name__)

RowKey = tuple[object, ...]
"""What tells the rows of a profile apart: the option, the replicas, the load below saturation."""


class ProfileFiles:
    """The files of one profile.

    Args:
        table: the CSV; the others lie beside it.
        context: what every figure depends on.
        inputs: what each variant's figures depend on.
        resume: go on with existing files.

    Raises:
        ConfigError: the profile exists and is not to be resumed, or its folder cannot be made, or
            its files hold something else.
    """

    def __init__(
        self, table: Path, context: Mapping[str, Any], inputs: Inputs, *, resume: bool
    ) -> None:
        self.table = table
        self.meta = meta_path(table)
        journal = table.with_suffix(".trials.jsonl")
        check_can_be_made(table.parent, where=table)
        if not resume and (table.exists() or journal.exists()):
            raise ConfigError(
                "the profile exists already" if table.exists() else "trials of it exist already",
                where=table if table.exists() else journal,
                fix="resume it, or choose another output",
            )
        self.journal = Journal(journal, context, inputs)
        rows = read_profile(table, partial=True) if table.exists() else []
        self._rows: dict[RowKey, ProfileRow] = {row_key(row): row for row in rows}
        if len(self._rows) < len(rows):
            raise ConfigError(
                "the table has several saturated rows of one option and number of replicas: "
                "another program wrote it",
                where=table,
                fix="choose another output",
            )
        self._fit = self._fit_of_meta()

    def begin(self, requested: Collection[Entry], *, renew: bool) -> None:
        """Get ready for new trials under the present conditions.

        Args:
            requested: entries that will be in the table in the end.
            renew: set aside what was measured under other conditions, instead of refusing.

        Raises:
            ConfigError: conditions changed and ``renew`` is False, or what changed is not all
                requested, so that it would be lost from the table.
        """
        if renew:
            self._require_all_requested(requested)
            self.journal.begin(self.journal.changes())
        else:
            self.journal.require_unchanged()
            self.journal.begin({})
        stale = {
            entry.key for entry in self.journal.superseded if entry not in self.journal.trials
        } & {key for key, row in self._rows.items() if not is_predicted(row)}
        if stale:
            logger.warning("%s: %d rows of other conditions are taken out", self.table, len(stale))
            self._replace(
                row for key, row in self._rows.items() if key not in stale and not is_predicted(row)
            )

    def trial_counts(self) -> dict[Entry, int]:
        """Entry → trials on disk that count; 0 where all are to be measured again."""
        nothing = dict.fromkeys(self.journal.redone, 0)
        return nothing | {entry: len(trials) for entry, trials in self.journal.trials.items()}

    def has_row(self, entry: Entry) -> bool:
        """True if the table has the entry as measured."""
        row = self._rows.get(entry.key)
        return row is not None and not is_predicted(row)

    @property
    def rows(self) -> list[ProfileRow]:
        """The table."""
        return list(self._rows.values())

    def add_row(self, entry: Entry, accuracy: float) -> ProfileRow:
        """Compute an entry's row from its trials and add it to the table.

        The row of a load below saturation needs that of the saturated entry.
        """
        row = profile_row(entry, self.journal.trials[entry], accuracy)
        if entry.load_rps:
            row = at_load(row, entry.load_rps, self._rows[entry.saturated.key].throughput_rps)
        if entry.key in self._rows or columns_of(self._rows.values()) != columns_of([row]):
            # It was predicted so far, or fills other columns than the table has.
            self._replace({**self._rows, entry.key: row}.values())
        else:
            append_rows(self.table, [row])
            self._rows[entry.key] = row
        return row

    def set_predicted(self, predicted: Predicted) -> None:
        """Put predicted rows in the place of earlier ones; the meta file names them first."""
        if not predicted.rows:
            return
        new = {row_key(row): row for row in predicted.rows}
        families = {entry_of(row).family for row in predicted.rows}
        kept = {
            key: row
            for key, row in self._rows.items()
            if not (is_predicted(row) and entry_of(row).family in families)
        }
        earlier = self._fit or {}
        self._fit = {k: earlier.get(k, {}) | found for k, found in predicted.meta.items()}
        if self._rows != kept | new:
            self.write_meta()
            self._replace((kept | new).values())

    def write_meta(self) -> None:
        """Bring the meta file up to date."""
        write_json(self.meta, profile_meta(self.journal, self.rows, self._fit))

    def _replace(self, rows: Iterable[ProfileRow]) -> None:
        rows = list(rows)
        write_profile(self.table, rows)
        self._rows = {row_key(row): row for row in rows}
        labels = {entry_of(row).label for row in rows if is_predicted(row)}
        if self._fit is not None:
            left = {k: v for k, v in self._fit["entries"].items() if k in labels}
            self._fit = {**self._fit, "entries": left} if left else None

    def _require_all_requested(self, requested: Collection[Entry]) -> None:
        changes = self.journal.changes()
        gone = [entry for entry, reason in changes.items() if reason.startswith(GONE)]
        if gone:
            logger.warning("%s: %s is not in the pipeline any more", self.table, gone[0].label)
        lost = sorted(set(changes) - set(requested) - set(gone))
        if lost:
            raise ConfigError(
                f"{changes[lost[0]]}: {counted(len(lost), 'entry')} not asked for now, such as "
                f"{lost[0].label}, would be lost",
                where=self.table,
                fix="ask for all entries of the profile, or choose another output",
            )

    def _fit_of_meta(self) -> dict[str, Any] | None:
        """What the meta file says of predicted rows, as long as the table has any."""
        if not any(is_predicted(row) for row in self._rows.values()) or not self.meta.exists():
            return None
        try:
            fit = json.loads(self.meta.read_text(encoding="utf-8")).get("fit")
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"not a profile's meta file: {in_words(error)}",
                where=self.meta,
                fix="move it away; it is written anew",
            ) from error
        return fit if isinstance(fit, dict) and "entries" in fit else None


def row_key(row: ProfileRow) -> RowKey:
    """Of a row; :attr:`.grid.Entry.key` is that of its entry."""
    return (*row.option_key, row.replicas, 0.0 if row.is_saturated else row.load_rps)


# ------------------------------------------------------------------ the rounds that fill them


@dataclass(frozen=True, slots=True)
class Work:
    """What to measure and how, and what to predict.

    Attributes:
        specs: entry → its replicas.
        predicted: entries to predict from the others.
        accuracies: (stage, variant) → accuracy.
        meter: where the joules come from.
        settings: lengths and limits of a trial.
        trials: trials an entry, one each round.
        seed: of the order.
        session: what the journal notes of this call.
        empty: knows the idle power of the machine without replicas, for entries on a GPU.
        time_limit_s: no trial begins that would likely end later; None for no limit.
    """

    specs: dict[Entry, tuple[ReplicaSpec, ...]]
    predicted: tuple[Entry, ...]
    accuracies: dict[tuple[str, str], float]
    meter: MeterChoice
    settings: TrialSettings
    trials: int
    seed: int
    session: dict[str, Any]
    empty: EmptyMachine
    time_limit_s: float | None = None

    def trial(self, entry: Entry) -> Trial:
        """Measure an entry once."""
        return run_trial(
            self.specs[entry],
            self.meter.parts_for(entry.gpu_share),
            self.settings,
            load_rps=entry.load_rps,
            empty=self.empty if entry.gpu_share else None,
        )


class Rounds:
    """The rounds of one call, and what came of them so far.

    Attributes:
        kept: entries whose row was there before, of enough trials.
        rows: that joined the table.
        failures: entry → why it has no row.
    """

    def __init__(self, work: Work, files: ProfileFiles) -> None:
        self._work, self._files = work, files
        done = files.trial_counts()
        # A row of fewer trials than are asked for now gets the others.
        self.kept = tuple(
            entry
            for entry in work.specs
            if files.has_row(entry) and done.get(entry, work.trials) >= work.trials
        )
        self.rows: list[ProfileRow] = []
        self.failures: dict[Entry, str] = {}

    def run(self) -> int:
        """Visit every entry that lacks trials; how many trials the time limit left.

        Raises:
            IpaEnergyError: a file cannot be written; what was measured stays.
        """
        from tqdm import tqdm

        work, files = self._work, self._files
        done = files.trial_counts()
        for entry in work.specs:  # those that a kill left between their last trial and their row
            if entry not in self.kept and done.get(entry, 0) >= work.trials:
                self._finish(entry)
        plan = [
            (number, entry)
            for number, entry in visits(list(work.specs), work.trials, work.seed)
            if entry not in self.kept and done.get(entry, 0) <= number
        ]
        if plan:
            files.journal.add_session(work.session)
        clock = _Clock(work.time_limit_s)
        with tqdm(plan, unit="trial", disable=None) as progress:
            for place, (number, entry) in enumerate(progress):
                if entry in self.failures:
                    continue
                if clock.is_over():
                    return sum(other not in self.failures for _, other in plan[place:])
                progress.set_postfix_str(entry.label)
                self._visit(number, entry)
        self._finish_loads()
        return 0

    def _visit(self, number: int, entry: Entry) -> None:
        files = self._files
        try:
            trial = self._work.trial(entry)
        except (ServingError, MeterUnavailableError) as error:
            self.failures[entry] = f"{entry.label}: {error}"
            return
        files.journal.add_trial(entry, trial)
        logger.info("round %d: %s", number + 1, entry.label)
        if len(files.journal.trials[entry]) == self._work.trials:
            self._finish(entry)
        files.write_meta()

    def _finish(self, entry: Entry) -> None:
        files = self._files
        if entry.load_rps and not files.has_row(entry.saturated):
            return  # its row waits for what the replicas serve at most
        try:
            accuracy = self._work.accuracies[entry.stage, entry.variant]
            self.rows.append(files.add_row(entry, accuracy))
        except (MeterUnavailableError, ServingError) as error:
            self.failures[entry] = f"{entry.label}: {error}"

    def _finish_loads(self) -> None:
        """The rows of loads below saturation that waited for the saturated ones."""
        for entry in self._work.specs:
            if entry.load_rps and not self._files.has_row(entry) and entry not in self.failures:
                self._finish(entry)
                if not self._files.has_row(entry):
                    why = f"{entry.label}: the same at saturation has no row"
                    self.failures.setdefault(entry, why)


class _Clock:
    """Says when the next trial would likely end too late.

    Args:
        limit_s: from now; None for never.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = math.inf if limit_s is None else limit_s
        self._start_s = self._last_s = time.perf_counter()
        self._longest_s = 0.0

    def is_over(self) -> bool:
        """Call it before each trial: the longest so far must still fit."""
        now_s = time.perf_counter()
        self._longest_s = max(self._longest_s, now_s - self._last_s)
        self._last_s = now_s
        return now_s - self._start_s + self._longest_s > self._limit_s
