"""Shuffled rounds over the entries of a profile.

Every round visits every entry once, in an order of its own drawn from the seed: an entry's trials
lie far apart, and drift of the machine does not pass for a difference between variants. A trial is
on disk when it ends (:mod:`.trial_journal`), an entry's row joins the table when its last trial is
in, and rounds that were killed go on where they stopped.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import MeterUnavailableError, ServingError
from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.profiling.charging import MeterChoice
from ipa_energy.profiling.grid import Entry, visits
from ipa_energy.profiling.idle import EmptyMachine
from ipa_energy.profiling.profile_files import ProfileFiles
from ipa_energy.profiling.replicas import ReplicaSpec
from ipa_energy.profiling.trial import Trial, run_trial
from ipa_energy.profiling.trial_settings import TrialSettings

logger = logging.getLogger(__name__)


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
