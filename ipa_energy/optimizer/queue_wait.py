r"""How long requests wait for a free replica, in a closed form: ``latency_model: queue``.

A stage's n replicas serve batches of b from one queue; batches come at λ/b, each takes s = b/h.
With single requests at random (Poisson), b of them make a batch after an Erlang time, so that the
squared coefficients of variation are :math:`c_a^2 = 1/b` between batches and
:math:`c_s^2 = ((l_{99}/l_{avg} - 1)/2.33)^2` of their service. With ρ = λ/(n·h) and C the
probability of Erlang's delay formula that all n replicas work, Allen and Cunneen's approximation is

.. math::

    E[W] = C(n, nρ)\,\frac{s}{n(1 - ρ)}\,\frac{c_a^2 + c_s^2}{2}

and whoever waits does so for a time that is nearly exponential, with mean E[W]/C, so that the p
quantile is E[W]/C · ln(C/(1 − p)), or 0 where C ≤ 1 − p. Planned is the 99 % quantile: that of each
stage, added up, is at least as cautious as that of the pipeline.

A batch that fills slowly meets a free replica, one that waits for a replica fills meanwhile, so the
longer of two times counts: W, and what filling takes beyond the (b − 1)/λ that is planned anyway.
The j-th of b requests waits for b − j further ones, an Erlang time; over all of them the quantile
is :math:`c_b/λ` with
:math:`\frac{1}{b} \sum_j P(\mathrm{Erlang}_{b-j} > c_b) = 1 - p`.

ρ near 1 waits for ever; room is left up to :data:`MOST_BUSY`, so that numbers stay finite. More
replicas than the load needs shorten the wait, so up to :data:`EXTRA_REPLICAS` more are candidates.

Sources: A. O. Allen, *Probability, Statistics, and Queueing Theory*, 2nd ed. 1990, section 5.3.5
(Allen-Cunneen G/G/c); Erlang 1917 for C. ``experiments/benchmarks/queue_wait.py`` holds it against
the simulator.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.records import Option

LEVEL = 0.99
"""Share of the requests that wait no longer than planned."""

NORMAL_99 = 2.326
MOST_BUSY = 1 - 1e-6
EXTRA_REPLICAS = 4


@lru_cache
def fill_quantile(batch: int) -> float:
    """c_b: the :data:`LEVEL` quantile of the time to fill a batch, in times between requests."""

    def longer(x: float) -> float:
        """Share of the requests that wait longer: the j-th, if fewer than b − j came."""
        terms = [math.exp(-x) * x**count / math.factorial(count) for count in range(batch - 1)]
        few = [math.fsum(terms[: batch - j]) for j in range(1, batch + 1)]
        return math.fsum(few[:-1]) / batch  # the last one waits for nobody

    if batch < 2:
        return 0.0
    low, high = 0.0, 10.0 * batch
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if longer(middle) > 1 - LEVEL else (low, middle)
    return high


def delay_probability(replicas: Floats, busy: Floats) -> Floats:
    """C: probability that all replicas work.

    Args:
        replicas: (N,) whole numbers from 1.
        busy: (N,) ρ of each, below 1.
    """
    offered = replicas * busy
    blocked = np.ones(len(replicas))
    for count in range(1, int(replicas.max(initial=0)) + 1):
        next_ = offered * blocked / (count + offered * blocked)
        blocked = np.where(count <= replicas, next_, blocked)
    found: Floats = blocked / (1 - busy * (1 - blocked))
    return found


def wait_s(
    option: Any, replicas: Floats, load_rps: float | Floats, lowest_rps: float | Floats
) -> Floats:
    """What requests wait beyond the time to fill a batch, (N,) seconds, at :data:`LEVEL`.

    Args:
        option: columns of options with ``batch``, ``throughput_rps``, ``latency_avg_s`` and
            ``latency_p99_s`` as arrays.
        replicas: of each.
        load_rps: of the stage, for which replicas wait.
        lowest_rps: of the stage, at which batches fill.
    """
    busy = np.minimum(load_rps / (replicas * option.throughput_rps), MOST_BUSY)
    all_busy = delay_probability(replicas, busy)
    spread = np.maximum(0.0, option.latency_p99_s / option.latency_avg_s - 1) / NORMAL_99
    variation = (1 / option.batch + spread**2) / 2
    service_s = option.batch / option.throughput_rps
    mean_of_waiting_s = service_s / (replicas * (1 - busy)) * variation
    queued_s = mean_of_waiting_s * np.log(np.maximum(1.0, all_busy / (1 - LEVEL)))
    quantiles = np.array([fill_quantile(int(batch)) for batch in option.batch])
    found: Floats = np.maximum(queued_s, (quantiles - (option.batch - 1)) / lowest_rps)
    return found


def planned_wait_s(option: Option, replicas: int, load_rps: float) -> float:
    """The same of one option, on a way of its own: the second opinion of a plan's certificate."""
    filling_s = (fill_quantile(option.batch) - (option.batch - 1)) / load_rps
    return max(filling_s, replica_wait_s(option, replicas, load_rps))


def replica_wait_s(option: Option, replicas: int, load_rps: float) -> float:
    """The wait for a free replica alone.

    C from its sum in logarithms instead of the recursion over replicas.
    """
    busy = min(load_rps / (replicas * option.throughput_rps), MOST_BUSY)
    offered = replicas * busy
    log_terms = [k * math.log(offered) - math.lgamma(k + 1) for k in range(replicas + 1)]
    top = max(log_terms)
    terms = [math.exp(each - top) for each in log_terms]
    last = terms[-1] / (1 - busy)
    all_busy = last / (math.fsum(terms[:-1]) + last)
    if all_busy <= 1 - LEVEL:
        return 0.0
    spread = max(0.0, option.latency_p99_s / option.latency_avg_s - 1) / NORMAL_99
    variation = (1 / option.batch + spread * spread) / 2
    mean_s = option.batch / option.throughput_rps / (replicas * (1 - busy)) * variation
    return mean_s * math.log(all_busy / (1 - LEVEL))
