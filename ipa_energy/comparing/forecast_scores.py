"""How good the forecasts of a run were: what was said of each interval against what came.

A run that plans with quantiles logs those of the coming interval at every decision, of its largest
second and of its mean. What came are the requests that were sent in it:

- ``coverage`` of a level is the share of the intervals whose load was at most that quantile: of a
  good forecast the level itself. Levels that were planned with and not logged are interpolated
  between those that were, as the planner does.
- ``smape_median`` is IPA's symmetric error of the median, 0 to 2.
- ``pinball_rps`` is the mean loss over the logged levels, which honest quantiles make least.

An interval that the workload, or an unfinished run, ends in is not scored, nor one whose forecast
was not logged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipa_energy.adaptation.forecast import pinball_rps, smape
from ipa_energy.arrays import Floats
from ipa_energy.runlog.reader import Run
from ipa_energy.tables import Cell, Head, Row, Table, fixed

KINDS = {"peak_rps": "largest second", "mean_rps": "mean"}
"""What of an interval's load is forecast: key of the log → for people."""

ROUNDED_RPS = 1e-6
"""Quantiles are logged to six decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastScore:
    """Of one kind of load over one run; see the module.

    Attributes:
        of: ``peak_rps``, the largest second of an interval, or ``mean_rps``.
        intervals: how many forecasts were scored.
        levels: of the quantiles, ascending.
        coverage: of each level.
        smape_median: 0 to 2.
        pinball_rps: requests a second.
    """

    of: str
    intervals: int
    levels: tuple[float, ...]
    coverage: tuple[float, ...]
    smape_median: float
    pinball_rps: float


def forecast_scores(run: Run) -> tuple[ForecastScore, ...]:
    """One for the largest second and one for the mean; none if no forecast was logged."""
    length_s = int(run.info.interval_s)
    end_s = min(len(run.offered_rps), math.floor(run.duration_s))
    told = [step for step in run.steps if step.forecast and step.start_s + length_s <= end_s]
    if not told or length_s < 1:
        return ()
    offered_rps = run.offered_rps
    came = [offered_rps[int(step.start_s) : int(step.start_s) + length_s] for step in told]
    came_of = {"peak_rps": np.max(came, axis=1), "mean_rps": np.mean(came, axis=1)}
    planned = told[0].forecast.get("planned_levels") or run.config.get("forecast_levels") or ()
    return tuple(
        _score(
            kind,
            came_of[kind],
            np.array([step.forecast[kind] for step in told]),
            told[0].forecast["levels"],
            planned,
        )
        for kind in KINDS
    )


def _score(
    kind: str,
    came: Floats,
    quantiles_rps: Floats,
    logged: tuple[float, ...],
    planned: Sequence[float],
) -> ForecastScore:
    """Of (intervals,) loads against (intervals, levels) quantiles."""

    def at(level: float) -> Floats:
        return np.array([np.interp(level, logged, row) for row in quantiles_rps])

    levels = tuple(sorted({*logged, *planned}))
    return ForecastScore(
        of=kind,
        intervals=len(came),
        levels=levels,
        coverage=tuple(float((came <= at(level) + ROUNDED_RPS).mean()) for level in levels),
        smape_median=smape(came, at(0.5)),
        pinball_rps=pinball_rps(came, quantiles_rps, logged),
    )


def forecast_table(scores: Mapping[str, Sequence[ForecastScore]]) -> Table | None:
    """Scores of runs by name, a row for each kind of load; None if no run has any."""
    told = {name: each for name, each in scores.items() if each}
    if not told:
        return None
    levels = sorted({level for each in told.values() for score in each for level in score.levels})
    heads = [
        Head("forecast of"),
        Head("error of the median", "SMAPE, %", 1),
        Head("pinball loss", "requests/s", 3),
        Head("intervals"),
        *(Head(f"below {100 * level:g} %", "% of them") for level in levels),
    ]
    rows = [
        Row(name, _cells(score, levels), color=f"run{index}")
        for index, name in enumerate(scores)
        for score in told.get(name, ())
    ]
    return Table(
        "How good the forecasts were",
        "run",
        heads,
        rows,
        note="Forecasts of the load of the coming interval, by quantile, against what came: below a"
        " good 90 % quantile are 90 % of the intervals. SMAPE is |came − median| over the mean of"
        " both, as IPA has it; the pinball loss is the mean over all quantiles.",
        together=3,
    )


def _cells(score: ForecastScore, levels: Sequence[float]) -> list[Any]:
    covered = dict(zip(score.levels, score.coverage, strict=True))
    shares = [100 * covered.get(level, math.nan) for level in levels]
    return [
        KINDS[score.of],
        100 * score.smape_median,
        score.pinball_rps,
        score.intervals,
        *(Cell(fixed(share, 1), key=None if math.isnan(share) else share) for share in shares),
    ]
