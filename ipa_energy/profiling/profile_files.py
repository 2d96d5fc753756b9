"""The three files of a profile, kept in step: table, meta file, journal.

``NAME.csv`` has one row a finished entry, ``NAME.meta.json`` says how it was measured and how good
each row is, ``NAME.trials.jsonl`` holds every trial. The journal comes first: whatever the others
lack can be computed from it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, in_words
from ipa_energy.files import write_json
from ipa_energy.profile_table.profile_csv import append_rows, meta_path, read_profile, write_profile
from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.profiling.entry_rows import at_load, profile_row
from ipa_energy.profiling.fit.prediction import Predicted, is_predicted
from ipa_energy.profiling.grid import Entry, entry_of
from ipa_energy.profiling.profile_meta import profile_meta
from ipa_energy.profiling.trial_journal import GONE, Inputs, Journal

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
        ConfigError: the profile exists and is not to be resumed, or its folder does not exist, or
            its files hold something else.
    """

    def __init__(
        self, table: Path, context: Mapping[str, Any], inputs: Inputs, *, resume: bool
    ) -> None:
        self.table = table
        self.meta = meta_path(table)
        journal = table.with_suffix(".trials.jsonl")
        if not table.parent.is_dir():
            raise ConfigError("its folder does not exist", where=table, fix="create the folder")
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
        if entry.key in self._rows:  # predicted so far
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
                f"{changes[lost[0]]}: {len(lost)} entries that are not asked for now, such as "
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
