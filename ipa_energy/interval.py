"""95 % intervals of a mean over few trials, by Student's t distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE_ONE_SIDED = 0.975
"""What lies below the upper end of a two-sided 95 % interval."""

SAME_RTOL = 1e-12
"""Values this close, as a share of them, are equal but for the rounding of sums."""


def t_quantile_95(degrees_of_freedom: float) -> float:
    """Standard errors from the middle of a 95 % interval to its end: 4.30 for 2, 1.96 for many."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, CONFIDENCE_ONE_SIDED))


def half_width_95(values: Sequence[float]) -> float:
    """Half width of the 95 % t-interval of a mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    import numpy as np

    if float(np.ptp(values)) <= SAME_RTOL * max(map(abs, values)):
        return 0.0
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return t_quantile_95(len(values) - 1) * error
