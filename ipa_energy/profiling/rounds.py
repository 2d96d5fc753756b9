"""Shuffled rounds over the entries of a profile.

Every round visits every entry once, in an order of its own drawn from the seed: an entry's trials
lie far apart, and drift of the machine does not pass for a difference between variants. A trial is
on disk when it ends (:mod:`.journal`), an entry's row joins the table when its last trial is in,
and rounds that were killed go on where they stopped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import MeterUnavailableError, ServingError
from ipa_energy.profiling.fit.prediction import predict
from ipa_energy.profiling.grid import Entry, visits
from ipa_energy.profiling.metering import MeterChoice
from ipa_energy.profiling.output import ProfileFiles
from ipa_energy.profiling.replica import ReplicaSpec
from ipa_energy.profiling.replica_check import check_replicas
from ipa_energy.profiling.row import ProfileRow
from ipa_energy.profiling.settings import TrialSettings
from ipa_energy.profiling.stability import Stability, stability
from ipa_energy.profiling.trial import Trial, run_trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry that could not be measured or predicted, and why."""

    entry: Entry
    reason: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did.

    Attributes:
        rows: measured rows this call added to the table.
        kept: entries that were already complete.
        failures: entries without a row; the others are not affected.
        predicted: rows that a fit gave, in the place of entries beyond the budget.
        stability: drift and outliers over all windows of the profile.
        fit: stage → quantity → the fit behind the predicted rows and its held-out error.
        replica_check: the model J = e + n·p/λ against measured replicas and loads
            (:mod:`.replica_check`); None without such entries.
    """

    rows: tuple[ProfileRow, ...]
    kept: tuple[Entry, ...]
    failures: tuple[Failure, ...]
    predicted: tuple[ProfileRow, ...]
    stability: Stability
    fit: dict[str, Any]
    replica_check: dict[str, Any] | None


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
    """

    specs: dict[Entry, tuple[ReplicaSpec, ...]]
    predicted: tuple[Entry, ...]
    accuracies: dict[tuple[str, str], float]
    meter: MeterChoice
    settings: TrialSettings
    trials: int
    seed: int
    session: dict[str, Any]

    def trial(self, entry: Entry) -> Trial:
        """Measure an entry once."""
        return run_trial(
            self.specs[entry],
            self.meter.meter_for,
            self.settings,
            load_rps=entry.load_rps,
            machine_cores=self.meter.machine_cores,
        )


def measure(work: Work, files: ProfileFiles) -> Sweep:
    """Measure what ``files`` lack, predict the rest, and keep everything as it comes.

    Raises:
        IpaEnergyError: a file cannot be written; what was measured stays.
    """
    from tqdm import tqdm

    done = files.trial_counts()
    kept = tuple(entry for entry in work.specs if files.has_row(entry))
    rows: list[ProfileRow] = []
    failures: dict[Entry, str] = {}

    def finish(entry: Entry) -> None:
        if entry.load_rps and not files.has_row(entry.saturated):
            return  # its row waits for what the replicas serve at most
        try:
            rows.append(files.add_row(entry, work.accuracies[entry.stage, entry.variant]))
        except (MeterUnavailableError, ServingError) as error:
            failures[entry] = f"{entry.label}: {error}"

    for entry in work.specs:  # those that a kill left between their last trial and their row
        if entry not in kept and done.get(entry, 0) >= work.trials:
            finish(entry)
    plan = [
        (number, entry)
        for number, entry in visits(list(work.specs), work.trials, work.seed)
        if entry not in kept and done.get(entry, 0) <= number
    ]
    if plan:
        files.journal.add_session(work.session)
    with tqdm(plan, unit="trial", disable=None) as progress:
        for number, entry in progress:
            if entry in failures:
                continue
            progress.set_postfix_str(entry.label)
            try:
                trial = work.trial(entry)
            except (ServingError, MeterUnavailableError) as error:
                failures[entry] = f"{entry.label}: {error}"
                continue
            files.journal.add_trial(entry, trial)
            logger.info("round %d: %s", number + 1, entry.label)
            if len(files.journal.trials[entry]) == work.trials:
                finish(entry)
            files.write_meta()
    for entry in work.specs:
        if entry.load_rps and not files.has_row(entry) and entry not in failures:
            finish(entry)
            if not files.has_row(entry):
                failures.setdefault(entry, f"{entry.label}: the same at saturation has no row")
    wanted = [entry for entry in work.predicted if not files.has_row(entry)]
    predicted = predict(files.rows, wanted)
    files.set_predicted(predicted)
    files.write_meta()
    failures |= {entry: f"{entry.label}: {why}" for entry, why in predicted.failures.items()}
    for reason in failures.values():
        logger.error("no row: %s", reason)
    return Sweep(
        rows=tuple(rows),
        kept=kept,
        failures=tuple(Failure(entry, why) for entry, why in failures.items()),
        predicted=predicted.rows,
        stability=stability(files.journal.trials),
        fit=predicted.facts["stages"],
        replica_check=check_replicas(files.rows),
    )
