r"""Our own traces with the statistics of the four windows IPA is evaluated on.

IPA's windows are cut from a trace of tweets and divided by 8, rounded down. That trace is a Poisson
process whose rate moves slowly: within one minute its variance is 1.1 times its mean, and after the
division the counts are far less noisy than a Poisson count of the same mean. So the model is::

    counts_t = ⌊ Poisson(8·r_t + 3.5) / 8 ⌋,  clipped to the range of IPA's window
    r_t      = level_t · exp(u_t)                                   requests per second
    u_t      = an Ornstein-Uhlenbeck process (AR(1) a second): mean 0, standard deviation ``sway``,
               time constant ``sway_s``

(3.5 is what rounding down takes away on average.) ``level_t`` is piecewise exponential: straight
lines in log rate between corners, whose times and heights are drawn per seed::

    steady-low    one level near 5.1 rps                 IPA's window: 3..8, mean 5.1
    steady-high   one level near 28.8 rps                23..34, mean 28.8
    bursty        ___/‾‾‾\____  every 20 minutes a burst from about 5 to 28 rps: up within 30 to
                  75 s, 5 minutes at the top, down in 3 to 4           3..34, mean 12.0
    fluctuating   ___/‾\___/‾‾\__  parts of 10 minutes, each with a rise of its own, shorter and
                  lower or higher, to a rest level of its own          3..34, mean 16.5

and one of our own, for runs of days::

    diurnal       ‾\__/‾‾/\  24 hours, each day at a level of its own: lowest before 5, highest at
                  20 o'clock, second 0 being midnight                  1..40, mean 12

A run shorter than a shape's period squeezes the shape into it, a longer one repeats it with newly
drawn corners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Counts, Floats
from ipa_energy.errors import ConfigError
from ipa_energy.workloads.trace import Workload, checked_duration_s

Corners = list[tuple[float, float]]
"""(second within the period, requests per second), by time; the first at 0."""

DEFAULT_SEED = 0
DEFAULT_DURATION_S = 1200
DAMPING_FACTOR = 8
"""IPA's divisor of its trace in every shipped YAML."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One generator.

    Attributes:
        period_s: seconds after which ``corners`` are drawn anew.
        corners: draws the corners of one period.
        range_rps: smallest and largest count, those of IPA's window.
        sway: standard deviation of the log rate around the level.
        sway_s: time constant of the sway, seconds.
    """

    period_s: int
    corners: Callable[[np.random.Generator], Corners]
    range_rps: tuple[int, int]
    sway: float
    sway_s: float


def _steady_low(random: np.random.Generator) -> Corners:
    return [(0, random.uniform(4.95, 5.2))]


def _steady_high(random: np.random.Generator) -> Corners:
    return [(0, random.uniform(28.5, 29.1))]


def _bursty(random: np.random.Generator) -> Corners:
    rest, top = random.uniform(4.8, 5.4), random.uniform(27, 30)
    up = random.uniform(120, 460)
    hold = up + random.uniform(30, 75)
    down = hold + random.uniform(270, 330)
    calm = down + random.uniform(150, 230)
    return [(0, rest), (up, rest), (hold, top), (down, top * 0.88), (calm, rest)]


def _fluctuating(random: np.random.Generator) -> Corners:
    before, after = random.uniform(5, 10, size=2)
    top = random.uniform(25, 30)
    up = random.uniform(60, 150)
    hold = up + random.uniform(30, 75)
    down = hold + random.uniform(160, 270)
    calm = down + random.uniform(60, 100)
    return [(0, before), (up, before), (hold, top), (down, top * 0.88), (calm, after)]


def _diurnal(random: np.random.Generator) -> Corners:
    level = 11.75 * random.uniform(0.93, 1.07)
    hours = [(0, 0.75), (4.5, 0.45), (8, 0.9), (12, 1.15), (16, 1.2), (20, 1.6), (22, 1.4)]
    return [(3600 * hour, level * share) for hour, share in hours]


SHAPES: dict[str, Shape] = {
    "bursty": Shape(1200, _bursty, (3, 34), sway=0.06, sway_s=20),
    "steady-low": Shape(1200, _steady_low, (3, 8), sway=0.02, sway_s=60),
    "steady-high": Shape(1200, _steady_high, (23, 34), sway=0.01, sway_s=60),
    "fluctuating": Shape(600, _fluctuating, (3, 34), sway=0.06, sway_s=20),
    "diurnal": Shape(86_400, _diurnal, (1, 40), sway=0.06, sway_s=20),
}
"""Name → generator: the names that ``--workload`` and ``workload_type`` accept."""


def named_workload(
    name: str, *, seed: int = DEFAULT_SEED, duration_s: int = DEFAULT_DURATION_S
) -> Workload:
    """A trace of one of :data:`SHAPES`; the same seed and duration give the same counts.

    Raises:
        ConfigError: unknown name, negative seed, or a duration out of range.
    """
    where = f"generator {name}, seed {seed}, {duration_s} s"
    if name not in SHAPES:
        raise ConfigError(f"there is no workload named {name!r}", allowed=", ".join(SHAPES))
    if seed < 0:
        raise ConfigError(f"the seed is {seed}", where=where, allowed="an integer from 0")
    shape = SHAPES[name]
    rate_rps = rate_of(shape, seed=seed, duration_s=checked_duration_s(duration_s, where))
    counts = drawn_counts(rate_rps, DAMPING_FACTOR, np.random.default_rng([seed, 1]))
    return Workload(name, np.clip(counts, *shape.range_rps), where)


def rate_of(shape: Shape, *, seed: int, duration_s: int) -> Floats:
    """r_t of the module's model: (duration_s,) requests per second, before counts are drawn."""
    random = np.random.default_rng([seed, 0])
    period_s = min(shape.period_s, duration_s)
    times_s: list[float] = []
    levels: list[float] = []
    for start_s in range(0, duration_s, period_s):
        for time_s, level_rps in shape.corners(random):
            times_s.append(start_s + time_s * period_s / shape.period_s)
            levels.append(level_rps)
    log_level = np.interp(np.arange(duration_s), times_s, np.log(levels))
    return np.exp(log_level + _sway(shape, duration_s, random))


def _sway(shape: Shape, duration_s: int, random: np.random.Generator) -> Floats:
    keep = np.exp(-1.0 / shape.sway_s)
    shocks = random.standard_normal(duration_s) * shape.sway * np.sqrt(1 - keep**2)
    state = random.standard_normal() * shape.sway
    path = np.empty(duration_s)
    for second, shock in enumerate(shocks):
        state = keep * state + shock
        path[second] = state
    return path


def drawn_counts(rate_rps: Floats, damping_factor: int, random: np.random.Generator) -> Counts:
    """Poisson counts of ``damping_factor`` times the rate, divided by it and rounded down.

    The mean stays ``rate_rps`` (where it is above 1 or so); a larger factor gives less noise.
    """
    lost_by_rounding = (damping_factor - 1) / 2
    counts = random.poisson(rate_rps * damping_factor + lost_by_rounding) // damping_factor
    return counts.astype(np.int64)
