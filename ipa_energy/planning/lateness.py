"""How many requests will be late: of a load that is uncertain, and until a queue is gone.

What a stage serves steadily, at c, of arrivals that vary as random ones of mean λ do has a queue
that is a reflected Brownian motion, of drift λ − c and variance λ a second. Empty at first, it is
above x after a time t with a probability of (Harrison 1985, "Brownian motion and stochastic flow
systems", section 3.6)::

    Φ((μ·t − x)/(σ·√t)) + exp(2·μ·x/σ²)·Φ((−μ·t − x)/(σ·√t))         μ = λ − c, σ² = λ

A request is late that finds more in the queue than is served while it has patience:
x = c·patience. In the long run, if c > λ, that is exp(−2·(c − λ)·c·patience/λ) of all. Arrivals
that vary more or less than random ones have another σ², seen in the counts of past seconds
(:func:`dispersion_of`): σ² = dispersion·λ. One fast server is counted with in the place of several
slower ones, and requests as a flow: where hardly a request or two may wait, too much is late.

Where those that are late are passed by the others (:mod:`ipa_energy.serving.queue_order`), only
what is too much is late: the queue of the others is reflected at x, too, and late is what is turned
away there. That is half the density at x, integrated over the time; with a = μ·x/σ² and
ω = ((n·π)² + a²)·σ²/(2·x²) the density is, empty at first (an expansion in eigenfunctions)::

    (2·a/x)/(1 − exp(−2·a)) + (2/x)·exp(a)·Σ_n (−1)^n·(n·π)²/((n·π)² + a²)·exp(−ω·t)

Of the sum over n = 1, 2, … what does not fall with the time has a closed form, and of the rest a
few terms are enough, unless x is so far away that hardly anything comes there but by the drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Counts, Floats

TIMES = np.array([0.125, 0.375, 0.625, 0.875])
"""Shares of a step at which its queue is looked at."""

LEAST_DRIFT, MOST_DRIFT = 1e-3, 20.0
"""Drifts a that are told from 0, which has no quotient, and from those that alone count."""

TERMS = 12
"""Of the sum over n that are looked at, at most."""

NO_MORE = -40.0
"""Exponent of terms that are not looked at any more."""

FAR = 12.0
"""x²/(2·σ²·t) beyond which the sum is lost to rounding, and random ways hardly reach x."""

DISPERSION_S, LEAST_COUNTS = 120, 20
"""Last seconds in which arrivals are looked at, and how many they are at least."""

LEAST_DISPERSION, MOST_DISPERSION = 0.5, 4.0
"""What is not counted varies, too: services, and how long batches take to fill."""

PATIENCES = np.array([0.05, 0.15, 0.3, 0.45, 0.6, 0.8])
"""Waits in a queue that are told apart, by the SLA."""


@dataclass(frozen=True, slots=True, eq=False)
class Loads:
    """The mean loads that a step may have.

    Attributes:
        rps: (Q,) requests per second, above 0, rising.
        weights: (Q,) how likely each is; they add up to 1.
        dispersion: variance of what arrives in a second, by its mean; 1: as random arrivals.
    """

    rps: Floats
    weights: Floats
    dispersion: float = 1.0


def late_share(
    loads: Loads,
    capacity_rps: Floats,
    *,
    patience_s: float | Floats,
    step_s: float,
    in_time_first: bool = False,
) -> Floats:
    """Share of a step's requests that wait longer than they have patience, (A,).

    Args:
        loads: of the stage.
        capacity_rps: (A,) what it serves, above 0.
        patience_s: wait that makes no request late; an array of K gives results of (K, A).
        step_s: length of the step, whose queue is empty at first.
        in_time_first: True if those that are late are passed by the others.
    """
    limit = np.asarray(patience_s)[..., None, None] * capacity_rps
    share_of = _passed_share if in_time_first else _fifo_share
    load_rps = loads.rps[:, None]
    share = share_of(load_rps, loads.dispersion * load_rps, capacity_rps, limit, step_s)
    found: Floats = np.tensordot(share, loads.weights, axes=(-2, 0))
    return found


def _fifo_share(
    load_rps: Floats, variance: Floats, capacity_rps: Floats, limit: Floats, step_s: float
) -> Floats:
    """Share of a step's requests that find more in the queue than there is patience for."""
    from scipy.special import erfcx, ndtr

    grows_rps = load_rps - capacity_rps
    steady = 2 * grows_rps * limit / variance
    found = np.zeros(np.broadcast_shapes(limit.shape, grows_rps.shape))
    for time_s in step_s * TIMES:
        spread = np.sqrt(variance * time_s)
        # exp(a)·Φ(−z·√2) without overflow where a is large: erfcx(z) = exp(z²)·erfc(z)
        z = (limit + grows_rps * time_s) / spread / math.sqrt(2)
        near = erfcx(np.maximum(z, 0.0)) * np.exp(np.minimum(steady - z * z, 0.0)) / 2
        far = np.exp(np.minimum(steady, 0.0)) * ndtr(-z * math.sqrt(2))
        share = ndtr((grows_rps * time_s - limit) / spread) + np.where(z > 0, near, far)
        found += np.minimum(share, 1.0) / len(TIMES)
    return found


def _passed_share(
    load_rps: Floats, variance: Floats, capacity_rps: Floats, limit: Floats, step_s: float
) -> Floats:
    """Share of a step's requests that find as many before them as there is patience for."""
    from scipy.special import ndtr

    drift = (load_rps - capacity_rps) * limit / variance
    near = np.where(drift < 0, -LEAST_DRIFT, LEAST_DRIFT)
    drift = np.where(np.abs(drift) < LEAST_DRIFT, near, np.clip(drift, -MOST_DRIFT, MOST_DRIFT))
    gone = -np.expm1(-2 * drift)
    length = limit * limit / (2 * variance * step_s)
    turned_away = drift / gone + 2 * length * (1 / (drift * gone) - (2 - gone) / (gone * gone))
    for n in range(1, TERMS + 1):
        turns = (n * math.pi) ** 2
        rate = (turns + drift * drift) / (4 * length)  # ω·t
        if (drift - rate).max() < NO_MORE:
            break
        term = turns / (turns + drift * drift) * np.exp(np.minimum(drift - rate, FAR)) / rate
        turned_away += term if n % 2 else -term
    share = turned_away * variance / (load_rps * limit)
    spread = np.sqrt(variance * step_s)  # far away: what a normal value is above x, by its mean
    beyond = (load_rps - capacity_rps) * step_s - limit
    z = beyond / spread
    density = np.exp(-np.minimum(z * z, 1e3) / 2) / math.sqrt(2 * math.pi)
    far = (spread * density + beyond * ndtr(z)) / (load_rps * step_s)
    found: Floats = np.clip(np.where((length > FAR) | (drift >= MOST_DRIFT), far, share), 0.0, 1.0)
    return found


def dispersion_of(counts: Counts) -> float:
    """Variance of what arrives in a second by its mean, of the last counts of seconds.

    From what they differ by from one to the next, so that a load that rises or falls does not
    count. At least :data:`LEAST_DISPERSION`; 1 where too few are known.
    """
    last = np.asarray(counts[-DISPERSION_S:], dtype=np.float64)
    if len(last) < LEAST_COUNTS or not last.any():
        return 1.0
    found = float((np.diff(last) ** 2).mean() / 2 / last.mean())
    return min(max(found, LEAST_DISPERSION), MOST_DISPERSION)


def carrying_rps(mean_rps: float, patience_s: float, late: float) -> float:
    """What a stage has to sustain for no more than a share of random arrivals to be late."""
    room = 2 * mean_rps * math.log(1 / late) / patience_s
    return (mean_rps + math.sqrt(mean_rps**2 + room)) / 2


def late_seconds(
    load_rps: Floats | float,
    meanwhile_rps: Floats,
    capacity_rps: Floats,
    ready_s: Floats,
    *,
    waiting: float,
    patience_s: float,
    most_s: float,
) -> Floats:
    """For how long arriving requests wait longer than they have patience, first come, first served.

    A queue of ``waiting`` requests, with ``load_rps`` arriving, is served by ``meanwhile_rps`` for
    ``ready_s`` and by ``capacity_rps`` from then on; it is looked at as a fluid.

    Args:
        load_rps: what arrives; an array of loads gives one of results, each (B, A).
        meanwhile_rps: (B, A).
        capacity_rps: (A,).
        ready_s: (B, A).
        waiting: requests in the queue at first.
        patience_s: wait that makes no request late.
        most_s: how far to look ahead.
    """
    grows_rps = load_rps - meanwhile_rps
    queue = np.maximum(0.0, waiting + grows_rps * ready_s)
    first_s = _above(waiting, grows_rps, meanwhile_rps * patience_s, ready_s)
    left_s = np.maximum(0.0, most_s - ready_s)
    then_s = _above(queue, load_rps - capacity_rps, capacity_rps * patience_s, left_s)
    return np.minimum(most_s, first_s + then_s)


def _above(queue: Floats | float, grows_rps: Floats, limit: Floats, seconds: Floats) -> Floats:
    """For how much of some seconds a queue that grows or shrinks steadily is above a limit."""
    room = limit - queue
    with np.errstate(divide="ignore", invalid="ignore"):
        crosses = (room * grows_rps > 0) | ((room == 0) & (grows_rps > 0))
        crossing_s = np.where(crosses, room / grows_rps, np.inf)
    before_s = np.minimum(crossing_s, seconds)
    return np.where(room < 0, before_s, seconds - before_s)
