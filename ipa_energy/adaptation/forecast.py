"""What load is to be expected, with its uncertainty: quantiles of every coming step.

::

    now ──10 s──┬──10 s──┬── … ──┬──10 s──> horizon
       step 0   │ step 1 │       │ step 5
                └ largest second and mean of the step, each at levels 0.05 … 0.98

Replicas have to carry the largest second, joules are spent at the mean, so a forecast has both. A
quantile of a step is that of its own distribution: that a row of steps all stay below their 0.9
quantiles is less likely than 0.9, the less the more independent they are. On the first 14 days of
IPA's trace, K steps stray as K^⅔ independent ones would, whatever the level (at 0.9 two stay below
in 0.86 of all cases, six in 0.71), so the largest of K is at the level of each to the power K^-⅔
(:meth:`Forecast.peak`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ipa_energy.arrays import Counts, Floats

STEP_S = 10
"""Length of a step, and of the windows whose maxima the predictors see."""

HORIZON_S = 60
"""How far forecasts look ahead."""

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
"""Levels of the quantiles; others are interpolated, none is beyond them."""

MEDIAN = 0.5
"""Level that a load is as likely above as below."""

ALIKE = 2 / 3
"""K steps stray as K to this power independent ones; see the module."""

RISES_S = (8, 12, 18, 27)
"""Last seconds in which a rise is looked for; it is taken to last twice as long."""

SURE = 3.5
"""Standard errors that the slope of a rise is above 0 at least."""

LEAST_SPREAD = 0.5
"""Of what arrives in a second, in standard deviations of random arrivals."""


def windows_of(counts: Sequence[int] | Counts) -> tuple[Floats, Floats]:
    """Maxima and means of windows of :data:`STEP_S`, the last of which ends now.

    Args:
        counts: requests of each second, at least one; the first window may be shorter.
    """
    loads_rps = np.asarray(counts, dtype=np.float64)
    first = len(loads_rps) % STEP_S
    begins = np.arange(first, len(loads_rps), STEP_S)
    if first:
        begins = np.concatenate([[0], begins])
    lengths = np.diff([*begins, len(loads_rps)])
    return np.maximum.reduceat(loads_rps, begins), np.add.reduceat(loads_rps, begins) / lengths


def pinball_rps(came: Floats, quantiles_rps: Floats, levels: Sequence[float] = LEVELS) -> float:
    """Mean pinball loss of quantiles, their last axis, against what came.

    A request a second too few costs the level, one too many the rest of 1.
    """
    missing = came[..., None] - quantiles_rps
    at = np.array(levels)
    return float(np.maximum(at * missing, (at - 1) * missing).mean())


def smape(came: Floats, forecast: Floats) -> float:
    """IPA's symmetric error, 0 to 2: the mean of |a − f| over the mean of both; 0 of 0 and 0."""
    size = np.maximum((np.abs(came) + np.abs(forecast)) / 2, 1e-9)
    return float(np.mean(np.abs(came - forecast) / size))


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Loads by step and quantile, requests per second; T steps, Q levels.

    Attributes:
        peak_rps: (T, Q) the largest second of the step; never falls along a row.
        mean_rps: (T, Q) the mean of the step; never falls along a row.
        levels: (Q,) of the quantiles, ascending.
        step_s: length of a step.
    """

    peak_rps: Floats
    mean_rps: Floats
    levels: tuple[float, ...] = LEVELS
    step_s: int = STEP_S

    @classmethod
    def flat(cls, load_rps: float, horizon_s: int = HORIZON_S) -> Forecast:
        """One load for certain, at every step."""
        return cls.known(np.full(horizon_s, load_rps))

    @classmethod
    def known(cls, loads_rps: Floats | Counts) -> Forecast:
        """What somebody knows, second by second; the last step may be shorter than the others."""
        begins = np.arange(0, len(loads_rps), STEP_S)
        lengths = np.diff([*begins, len(loads_rps)])
        peaks = np.maximum.reduceat(loads_rps, begins).astype(np.float64)
        means = np.add.reduceat(loads_rps, begins) / lengths
        quantiles = (1, len(LEVELS))
        return cls(np.tile(peaks[:, None], quantiles), np.tile(means[:, None], quantiles))

    @property
    def horizon_s(self) -> int:
        """Seconds that it looks ahead."""
        return len(self.peak_rps) * self.step_s

    def peak(self, level: float, begin_s: float = 0.0, end_s: float = math.inf) -> float:
        """The load to be ready for between two times from now: of the largest second in between.

        Args:
            level: of the quantile; beyond the outermost levels theirs are taken.
            begin_s: seconds from now.
            end_s: seconds from now; a time beyond the horizon is as the last step.
        """
        met = self._seconds(begin_s, end_s) > 0
        of_each = level ** (met.sum() ** -ALIKE)
        return float(self._at(self.peak_rps, of_each)[met].max())

    def mean(self, level: float, begin_s: float = 0.0, end_s: float = math.inf) -> float:
        """The mean load between two times from now; see :meth:`peak`."""
        weights = self._seconds(begin_s, end_s)
        return float(np.average(self._at(self.mean_rps, level), weights=weights))

    def with_rise(self, received_rps: Counts) -> Forecast:
        """Where the load rises, the upper half of the quantiles is at least on the rise's line.

        Predictors take a steep rise for smaller than it is until it is over, since few are in any
        history. What is certain, or does not rise, stays as it is.

        Args:
            received_rps: requests of each second up to now.
        """
        rise = _rise(received_rps)
        if rise is None or bool((self.mean_rps[:, :1] == self.mean_rps[:, -1:]).all()):
            return self
        now_rps, slope_rps, until_s = rise
        seconds = np.minimum(1.0 + np.arange(self.horizon_s), until_s).reshape(-1, self.step_s)
        line_rps = now_rps + slope_rps * seconds
        is_upper = np.array(self.levels) >= MEDIAN
        peak_rps = np.maximum(self.peak_rps, line_rps.max(axis=1)[:, None])
        mean_rps = np.maximum(self.mean_rps, line_rps.mean(axis=1)[:, None])
        return replace(
            self,
            peak_rps=np.where(is_upper, peak_rps, self.peak_rps),
            mean_rps=np.where(is_upper, mean_rps, self.mean_rps),
        )

    def told(self, until_s: float) -> dict[str, tuple[float, ...]]:
        """The quantiles of the time until then, for a log."""
        told_of = {"peak_rps": self.peak, "mean_rps": self.mean}
        return {
            "levels": self.levels,
            **{
                name: tuple(round(of(level, 0.0, until_s), 6) for level in self.levels)
                for name, of in told_of.items()
            },
        }

    def _seconds(self, begin_s: float, end_s: float) -> Floats:
        """(T,) how long each step lies between two times; the last one goes on for ever."""
        if not 0 <= begin_s < end_s:
            raise ValueError(f"from second {begin_s:g} to second {end_s:g}: nothing in between")
        edges_s = np.arange(len(self.peak_rps) + 1) * float(self.step_s)
        edges_s[-1] = max(edges_s[-1], begin_s + self.step_s)
        if end_s < math.inf:
            edges_s[-1] = max(edges_s[-1], end_s)
        seconds: Floats = np.diff(np.clip(edges_s, begin_s, end_s))
        return seconds

    def _at(self, quantiles_rps: Floats, level: float) -> Floats:
        """(T,) one level of every step."""
        return np.array([np.interp(level, self.levels, row) for row in quantiles_rps])


def _rise(received_rps: Counts) -> tuple[float, float, float] | None:
    """Load of now, its slope per second, and how long it goes on; None if nothing is sure to rise.

    Of the windows it is the one whose slope is surest, by least squares.
    """
    surest, found = SURE, None
    for window_s in RISES_S:
        if len(received_rps) < window_s:
            break
        counts = np.asarray(received_rps[-window_s:], dtype=np.float64)
        times_s = np.arange(1.0 - window_s, 1.0)
        apart_s = times_s - times_s.mean()
        slope = float(apart_s @ counts / (apart_s @ apart_s))
        left = counts - counts.mean() - slope * apart_s
        spread = max(left @ left / (window_s - 2), LEAST_SPREAD**2 * counts.mean())
        sure = slope * math.sqrt(apart_s @ apart_s / spread) if spread > 0 else 0.0
        if sure > surest:
            now_rps = float(counts.mean()) - slope * float(times_s.mean())
            surest, found = sure, (now_rps, slope, 2.0 * window_s)
    return found


QuantileForecast = Callable[[Counts, int], Forecast]
"""Requests of each second up to now, at least one, and how far to look ahead in seconds."""

_Function = TypeVar("_Function", bound=Callable[..., Forecast])


def takes_counts(forecast: _Function) -> _Function:
    """Mark a :data:`QuantileForecast` as what :data:`ipa_energy.registries.PREDICTORS` names.

    It is given all the load so far, and no backup stands beside it.
    """
    forecast.takes_counts = True  # type: ignore[attr-defined]
    return forecast


PRIOR_SIGMA = 0.1
"""Standard deviation of the log of load over forecast, one step ahead, before any was seen."""

_PRIOR_Z = np.array([-1.53, -0.89, -0.49, -0.16, 0.16, 0.49, 0.89, 1.53])
"""Eight normal values of equal weight: so many residuals the prior counts for."""


def with_residuals(
    point: Callable[[Floats], float],
    counts: Counts,
    windows: int,
    *,
    horizon_s: int = HORIZON_S,
) -> Forecast:
    """A point forecast with the quantiles that its own errors had lately.

    The forecast is made anew at every step of the history from what was known then, and what came,
    step by step ahead, is divided by it; the quantiles of these ratios times the forecast of now
    are the forecast. While there are few, some of a normal distribution stand beside them.

    Args:
        point: of the maxima of steps, oldest first, the load to be ready for; a finite number.
        counts: requests of each second up to now, at least one.
        windows: how many maxima ``point`` gets.
        horizon_s: how far to look ahead.
    """
    maxima, means = windows_of(counts)
    seen = {"peak": maxima, "mean": means}
    made = np.array([point(maxima[max(0, n - windows) : n]) for n in range(1, len(maxima) + 1)])
    room = 1.0  # keeps ratios of small counts finite
    found = {}
    for kind, came in seen.items():
        usual = (came.sum() + room) / (maxima.sum() + room)
        rows = []
        for ahead in range(1, horizon_s // STEP_S + 1):
            ratios = (came[ahead:] + room) / (made[: max(0, len(made) - ahead)] + room)
            prior = usual * np.exp(_PRIOR_Z * PRIOR_SIGMA * math.sqrt(ahead))
            quantiles = np.quantile(np.concatenate([ratios, prior]), LEVELS)
            rows.append(np.maximum(0.0, quantiles * (made[-1] + room) - room))
        found[kind] = np.array(rows)
    return Forecast(found["peak"], found["mean"])
