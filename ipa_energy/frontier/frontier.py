"""The two hulls of a pipeline over a trace, without energy and with it, and what lies between."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.comparing.hull import Hull, Outcome, common_reach, hull_of
from ipa_energy.experiment import Experiment, check_feasible
from ipa_energy.frontier.sweep import cached_sweep, least_accuracy
from ipa_energy.frontier.weightings import Weighting, with_energy, without_energy
from ipa_energy.planning.sites import require_one_place
from ipa_energy.records import Quality, joules_from, notice_of
from ipa_energy.tables import Head, Row, Table, Value, counted, percent, share

ROWS = 12
"""Accuracies at which the hulls are shown side by side."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """What a pipeline reaches over a trace at every weight; see :mod:`ipa_energy.comparing.hull`.

    Attributes:
        pipeline: its name.
        workload: the trace's.
        attainment: share of requests in time that a run must have to be on a hull.
        quality: of the joules; None if the profile has none.
        without: every run without energy.
        added: every run with energy. The hull with energy may use those without, too: a weight of 0
            is a weight.
        seeds: of the runs.
        meter: of the profile's joules; None if the profile has none.
        below_floor: runs that are left out, since they break the pipeline's ``accuracy_floor``;
            None: it has none.
        hulls: seed → the hull without energy, and with it.
    """

    pipeline: str
    workload: str
    attainment: float
    quality: Quality | None
    without: tuple[Outcome, ...]
    added: tuple[Outcome, ...]
    seeds: tuple[int, ...]
    meter: str | None = None
    below_floor: int | None = None
    hulls: Mapping[int, tuple[Hull, Hull]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hulls", {seed: self._hulls(seed) for seed in self.seeds})

    @property
    def joules(self) -> str:
        """Where they come from; "" if there are none."""
        return joules_from(self.quality, self.meter)

    def _hulls(self, seed: int) -> tuple[Hull, Hull]:
        without = [outcome for outcome in self.without if outcome.seed == seed]
        added = [outcome for outcome in self.added if outcome.seed == seed]
        return (
            hull_of(without, self.attainment),
            hull_of([*without, *added], self.attainment),
        )

    def accuracies(self) -> list[float]:
        """Where the hulls are shown: evenly over what both reach with every seed."""
        low, high = common_reach([hull for pair in self.hulls.values() for hull in pair])
        if math.isclose(low, high):
            return [low]
        return np.linspace(low, high, ROWS).tolist() if high > low else []

    def line(self, *, added: bool, at: Sequence[float] = ()) -> tuple[list[float], list[float]]:
        """Accuracies and least joules of a hull, the mean over the seeds where all have it.

        Args:
            added: of the hull with energy.
            at: accuracies; empty: those of the corners.
        """
        hulls = [pair[added] for pair in self.hulls.values()]
        low, high = common_reach(hulls)
        places = at or {corner.accuracy for hull in hulls for corner in hull.corners}
        kept = sorted(place for place in places if low <= place <= high)
        return kept, [float(np.mean([hull.joules_at(at) for hull in hulls])) for at in kept]

    def savings_at(self, accuracy: float) -> list[float]:
        """Share of the joules that energy saves at an accuracy, one a seed."""
        return [
            1.0 - added.joules_at(accuracy) / without.joules_at(accuracy)
            for without, added in self.hulls.values()
        ]

    @property
    def mean_saving(self) -> float:
        """Mean over :meth:`accuracies` and seeds; NaN if there are none."""
        values = [value for accuracy in self.accuracies() for value in self.savings_at(accuracy)]
        return sum(values) / len(values) if values else math.nan

    def sentence(self) -> str:
        """The answer in one sentence."""
        savings = [value for accuracy in self.accuracies() for value in self.savings_at(accuracy)]
        if not savings:
            return (
                "No accuracy is reached both with and without energy with"
                f" {share(self.attainment)} of the requests in time{self._left_out()}"
            )
        return (
            f"At equal accuracy, with at least {share(self.attainment)} of the requests in time,"
            f" energy in the objective saves {share(self.mean_saving)} of the joules in the mean"
            f" over all accuracies, {share(min(savings))} to {share(max(savings))}"
            f" ({self.quality or 'no'} joules, {counted(len(self.seeds), 'seed')})"
            f"{self._left_out()}"
        )

    def _left_out(self) -> str:
        """Which runs are not counted, if any."""
        if not self.below_floor:
            return ""
        return f"; {counted(self.below_floor, 'run')} below the accuracy_floor left out"

    def table(self) -> Table:
        """Both hulls at the same accuracies."""
        accuracies = self.accuracies()
        columns = [self.line(added=added, at=accuracies)[1] for added in (False, True)]
        rows = []
        for accuracy, without, added in zip(accuracies, *columns, strict=True):
            saving = float(np.mean(self.savings_at(accuracy)))
            cells: list[Value] = [without, added, percent(-saving)]
            rows.append(Row(f"{accuracy:.4f}", cells))
        heads = [
            Head("without", "J/request", 4),
            Head("with", "J/request", 4),
            Head("difference"),
        ]
        return Table("Least joules by accuracy", "accuracy", heads, rows)

    def to_json(self) -> dict[str, Any]:
        """The frontier as ``frontier --json`` shows it."""
        return {
            "pipeline": self.pipeline,
            "workload": self.workload,
            "sla_attainment_floor": self.attainment,
            "quality": self.quality,
            "meter": self.meter,
            "notice": notice_of(self.meter),
            "seeds": self.seeds,
            **({} if self.below_floor is None else {"below_floor": self.below_floor}),
            "mean_saving": self.mean_saving,
            "by_accuracy": [
                {"accuracy": accuracy, "savings": self.savings_at(accuracy)}
                for accuracy in self.accuracies()
            ],
            "without_energy": self.without,
            "with_energy": self.added,
        }


def frontier_of(
    experiment: Experiment,
    *,
    attainment: float,
    seeds: Sequence[int],
    cache: Path | None = None,
    workers: int | None = None,
    ran: Callable[[], object] = lambda: None,
) -> Frontier:
    """Run the sweep without and with energy.

    Args:
        experiment: pipeline and trace.
        attainment: share of requests in time that counts as keeping the SLA, 0 to 1.
        seeds: of the runs, at least one.
        cache: folder of the sweeps' cache; None: the user's.
        workers: processes; default one a core.
        ran: called after each run, for a progress bar.

    Raises:
        InfeasibleError: no load of the trace has a plan under the pipeline's own limits.
    """
    planner = experiment.planner
    check_feasible(experiment)
    settings = _settings(experiment)
    without, added = (
        cached_sweep(experiment, some, seeds, folder=cache, workers=workers, ran=ran)
        for some in settings
    )
    least = least_accuracy(experiment)
    ran_below = [one for one in (*without, *added) if one.accuracy < least]
    return Frontier(
        pipeline=planner.config.pipeline_name,
        workload=experiment.workload.name,
        attainment=attainment,
        # A simulation measures nothing: joules of measured entries are estimates of a run's.
        quality="estimated" if planner.meter else None,
        without=tuple(one for one in without if one.accuracy >= least),
        added=tuple(one for one in added if one.accuracy >= least),
        seeds=tuple(seeds),
        meter=planner.meter,
        below_floor=None if planner.config.accuracy_floor is None else len(ran_below),
    )


def runs_of_frontier(experiment: Experiment, seeds: Sequence[int]) -> int:
    """How many runs :func:`frontier_of` simulates if nothing is kept."""
    return len(seeds) * sum(len(settings) for settings in _settings(experiment))


def _settings(experiment: Experiment) -> tuple[list[Weighting], list[Weighting]]:
    require_one_place(experiment.planner.config.sites, "frontier")
    planner = experiment.planner
    return without_energy(planner), with_energy(planner.config, planner)


OUTCOME_COLUMNS = (
    *("energy_in_objective", "label", "energy_weight", "seed"),
    *("accuracy", "joules_per_request", "sla_attainment", "joules", "notice"),
)


def outcomes_table(frontier: Frontier) -> Table:
    """Every run, one line each."""
    corner, *titles = OUTCOME_COLUMNS
    rows = [
        Row(
            kind,
            [
                *(getattr(outcome, title) for title in titles[:-2]),
                *(frontier.joules, notice_of(frontier.meter)),
            ],
        )
        for kind, outcomes in (("no", frontier.without), ("yes", frontier.added))
        for outcome in outcomes
    ]
    return Table("Runs", corner, [Head(title) for title in titles], rows)
