"""Made-up carbon intensities, for those who have none: a day's and a week's shape, and noise.

Hour by hour, with h the hours since a Monday midnight::

    g(h) = mean · (1 + daily(h) + weekend(h) + noise(h))

The shape is the median of least-squares fits to five real weeks (``configs/carbon``, life cycle,
local time, each over its mean; ``experiments/carbon/fit_synthetic.py``): lowest at noon, where the
sun is, with a smaller wave twice a day; noise that forgets a tenth of itself every hour. Grids
differ more from each other than any such curve shows, so that a series of this kind says how a
program behaves, not what a site emits.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.carbon.intensity import IntensitySeries

DAILY = ((0.163, 0.014), (-0.074, -0.023))
"""Cosine and sine of the waves of a day and of half a day."""

WEEKEND = -0.053
PERSISTENCE = 0.908
"""Correlation of the noise from one hour to the next."""

NOISE = 0.232
LEAST = 0.05
"""No hour is below this share of the mean."""

HOUR_S = 3600.0
MONDAY_S = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


def synthetic_intensity(mean_g_per_kwh: float, days: int, seed: int) -> IntensitySeries:
    """A series that begins on a Monday, 2024-01-01 00:00 UTC, and is labelled synthetic.

    Args:
        mean_g_per_kwh: its exact mean.
        days: how many.
        seed: of the noise; the first days do not depend on how many follow.
    """
    hours = np.arange(24 * days)
    shape = 1.0 + WEEKEND * (hours // 24 % 7 >= 5)
    for number, (cosine, sine) in enumerate(DAILY, start=1):
        angle = 2 * np.pi * number * hours / 24
        shape = shape + cosine * np.cos(angle) + sine * np.sin(angle)
    values = np.maximum(shape + _noise(len(hours), seed), LEAST)
    time_s: Floats = MONDAY_S + HOUR_S * hours.astype(np.float64)
    return IntensitySeries(
        time_s=time_s,
        g_per_kwh=values * (mean_g_per_kwh / values.mean()),
        end_s=MONDAY_S + HOUR_S * len(hours),
        kind="average",
        scope="unknown",
        source=f"made up, seed {seed}",
        is_synthetic=True,
    )


def _noise(hours: int, seed: int) -> Floats:
    """A first-order autoregression that has run for ever."""
    rng = np.random.default_rng(seed)
    found = np.empty(hours)
    level = rng.normal(0.0, NOISE)
    for hour, push in enumerate(rng.normal(0.0, NOISE * np.sqrt(1 - PERSISTENCE**2), hours)):
        level = PERSISTENCE * level + push
        found[hour] = level
    return found
