r"""Loads that come back, and several forecasts as one.

**Seasonal.** The period is the first clear peak of the autocorrelation of ten-second means after
its first dip. What is to be expected is what followed the same phase of earlier periods, relative
to the level then and now::

    load(t + h)  ~  (level(t) + 1) · (load(t − kP + s + h) + 1) / (level(t − kP + s) + 1) − 1
                    k = 1 … the periods seen (8 at most), s = −1, 0, 0, 1 steps

one value for each k and s, of which the quantiles are taken; the level is the mean of the last half
minute. A shift of a step either way stands for an onset that is a little early or late. Without a
period it is the network's forecast (:mod:`.lstm`).

**Ensemble.** The quantiles of the network, of ARIMA with the spread of its own errors, and of the
season if there is one, averaged level by level. Weights are each one's pinball loss over the last
minutes to the power −2, so that whoever was right lately counts most.
"""

from __future__ import annotations

import numpy as np

from ipa_energy.adaptation import lstm
from ipa_energy.adaptation.forecast import (
    HORIZON_S,
    LEVELS,
    STEP_S,
    Forecast,
    QuantileForecast,
    pinball_rps,
    windows_of,
)
from ipa_energy.arrays import Counts, Floats

MEMORY_S = 8 * 3600
"""What is looked at, so that a period of an hour is seen often enough."""

LEAST_PERIODS = 3
MOST_PERIODS = 8
CLEAR = 0.5
"""Least autocorrelation of a period."""

NEAR_BEST = 0.9
"""The first peak that reaches so much of the highest is the period, and not a multiple of it."""

LEVEL_STEPS = 3
SHIFTS = (-1, 0, 0, 1)
"""In steps; no shift counts twice."""

ORIGINS, ORIGIN_STEPS = 10, 8
"""Past forecasts by which the members of the ensemble are weighed, and steps between two."""


def period_of(means_rps: Floats) -> int | None:
    """The period of a series, in its own steps; None if it has none that was seen three times."""
    longest = len(means_rps) // LEAST_PERIODS
    if longest < 2 or not np.ptp(means_rps):
        return None
    length = len(means_rps)
    centred = means_rps - means_rps.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * length)) ** 2
    raw = np.fft.irfft(spectrum)[: longest + 2]
    alike = raw / raw[0] * length / (length - np.arange(len(raw)))
    fallen = np.flatnonzero(alike < CLEAR / 2)
    if not len(fallen):
        return None
    lags = np.arange(max(2, fallen[0]), longest + 1)
    tops = lags[(alike[lags] >= alike[lags - 1]) & (alike[lags] >= alike[lags + 1])]
    clear = tops[alike[tops] >= CLEAR]
    if not len(clear):
        return None
    return int(clear[alike[clear] >= NEAR_BEST * alike[clear].max()][0])


def _of_season(counts: Counts, horizon_s: int) -> Forecast | None:
    """The seasonal forecast; None without a period."""
    maxima, means = windows_of(counts[len(counts) % STEP_S :] if len(counts) > STEP_S else counts)
    period = period_of(means)
    if period is None:
        return None
    now, steps = len(means), -(-horizon_s // STEP_S)
    sums = np.concatenate([[0.0], np.cumsum(means)])
    at = np.array(
        [
            now - k * period + shift
            for k in range(1, min(MOST_PERIODS, now // period) + 1)
            for shift in SHIFTS
            if LEVEL_STEPS <= now - k * period + shift < now
        ]
    )
    levels = (sums[at] - sums[at - LEVEL_STEPS]) / LEVEL_STEPS
    level = (sums[now] - sums[now - LEVEL_STEPS]) / LEVEL_STEPS
    later = at[:, None] + np.arange(steps)
    later -= np.maximum(0, -(-(later + 1 - now) // period)) * period  # what is still to come
    rows = []
    for came in (maxima, means):
        followed = (level + 1.0) * (came[later] + 1.0) / (levels[:, None] + 1.0) - 1.0
        rows.append(np.maximum(0.0, np.quantile(followed, LEVELS, axis=0).T))
    return Forecast(*rows)


def seasonal(counts: Counts, horizon_s: int = HORIZON_S) -> Forecast:
    """What followed the same phase of earlier periods; see the module."""
    return _of_season(counts, horizon_s) or lstm.forecast_quantiles(counts, horizon_s)


def ensemble_of(members: list[QuantileForecast]) -> QuantileForecast:
    """The members' quantiles, weighed by how good they were lately; see the module."""

    def combined(counts: Counts, horizon_s: int = HORIZON_S) -> Forecast:
        maxima, means = windows_of(counts)
        losses = np.zeros(len(members))
        ahead = horizon_s // STEP_S
        for back in range(ahead, ahead + ORIGINS * ORIGIN_STEPS, ORIGIN_STEPS):
            if len(maxima) <= back + lstm.STEPS // 2:
                break
            came = np.stack([maxima[-back:][:ahead], means[-back:][:ahead]])
            for index, member in enumerate(members):
                made = member(counts[: len(counts) - back * STEP_S], horizon_s)
                losses[index] += pinball_rps(came, np.stack([made.peak_rps, made.mean_rps]))
        weights = (losses + 1e-3) ** -2.0
        found = [member(counts, horizon_s) for member in members]
        peak = np.average([each.peak_rps for each in found], axis=0, weights=weights)
        mean = np.average([each.mean_rps for each in found], axis=0, weights=weights)
        return Forecast(peak, mean)

    return combined
