r"""How long a batch takes and what it costs, for every batch size, from the profiled ones.

A profile has a few batch sizes; a time-out makes batches of any size up to them. Between two
profiled sizes the mean, the 99th percentile and the dynamic joules *of a batch* are linear in its
size; a batch below the smallest profiled size costs as much as that one.

Times are random: lognormal with the measured mean :math:`m` and 99th percentile :math:`q`. With
:math:`z = \Phi^{-1}(0.99)`, :math:`\ln(q/m) = z\sigma - \sigma^2/2`, hence::

    σ = z − √(z² − 2·ln(q/m)),    μ = ln m − σ²/2

No lognormal has a 99th percentile above e^(z²/2) ≈ 15 times its mean: beyond, the widest one with
that mean (σ = z) stands in. A p99 at or below the mean means a fixed time.

These are the *measured* latencies: margins and the choice of p99 belong to planning. The profile's
throughput is not used: it carries the ``throughput_margin``, and where it was measured at a given
load (IPA's profiling) it says what was offered, not what a replica can do. A replica is thus busy
for the service time of its batch and free right after, and n replicas sustain n·b/l.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.errors import ConfigError
from ipa_energy.records import Allocation, Option

Z99 = 2.3263478740408408
"""99th percentile of the standard normal distribution."""

NORMALS_AT_ONCE = 1024

Server = tuple[str, Allocation]
"""(variant, allocation): what cannot change without starting a new replica."""


def server_of(option: Option) -> Server:
    """What a replica must be to run ``option`` at any batch size."""
    return (option.variant, option.allocation)


def lognormal_parameters(mean: float, p99: float) -> tuple[float, float]:
    """(μ, σ) of the lognormal distribution with this mean and 99th percentile; see the module."""
    if p99 <= mean:
        return math.log(mean), 0.0
    sigma = Z99 - math.sqrt(max(0.0, Z99**2 - 2 * math.log(p99 / mean)))
    return math.log(mean) - sigma**2 / 2, sigma


class NormalStream:
    """Standard normal numbers, one at a time, drawn in blocks because single draws are slow."""

    __slots__ = ("_block", "_rng")

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: list[float] = []

    def next(self) -> float:
        """The next number."""
        if not self._block:
            self._block = self._rng.standard_normal(NORMALS_AT_ONCE).tolist()
            self._block.reverse()
        return self._block.pop()


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """One server's batches; every list is indexed by batch size, entry 0 is never used.

    Attributes:
        mean_s: mean service time.
        log_mean, log_deviation: μ and σ of the service time's logarithm; σ = 0 means a fixed time.
        energy_j: dynamic joules of the whole batch, k·e(k); NaN if the profile has none.
    """

    mean_s: Sequence[float]
    log_mean: Sequence[float]
    log_deviation: Sequence[float]
    energy_j: Sequence[float]

    def draw_s(self, size: int, normals: NormalStream) -> float:
        """A service time of a batch of ``size``; takes one number from ``normals`` if random."""
        deviation = self.log_deviation[size]
        if deviation == 0.0:
            return self.mean_s[size]
        return math.exp(self.log_mean[size] + deviation * normals.next())


def batch_profile(options: Iterable[Option]) -> BatchProfile:
    """The batches of one server.

    Args:
        options: every profiled batch size of one server, in any order, each once.

    Raises:
        ConfigError: a batch size appears twice.
    """
    by_batch: dict[int, Option] = {}
    for option in options:
        if option.batch in by_batch:
            raise ConfigError(
                f"{option.label} is profiled twice", allowed="one entry a variant, cores and batch"
            )
        by_batch[option.batch] = option
    batches = sorted(by_batch)
    sizes = np.arange(batches[-1] + 1)

    def interpolated(values: Iterable[float]) -> list[float]:
        return [float(value) for value in np.interp(sizes, batches, list(values))]

    mean_s = interpolated(by_batch[b].latency_avg_s for b in batches)
    p99_s = interpolated(by_batch[b].latency_p99_s for b in batches)
    logs = [lognormal_parameters(mean, p99) for mean, p99 in zip(mean_s, p99_s, strict=True)]
    return BatchProfile(
        mean_s=mean_s,
        log_mean=[log_mean for log_mean, _ in logs],
        log_deviation=[deviation for _, deviation in logs],
        energy_j=interpolated(b * by_batch[b].dynamic_energy_j for b in batches),
    )


def batch_profiles(options: Iterable[Option]) -> dict[Server, BatchProfile]:
    """The batches of every server among a stage's options."""
    by_server: dict[Server, list[Option]] = {}
    for option in options:
        by_server.setdefault(server_of(option), []).append(option)
    return {server: batch_profile(found) for server, found in by_server.items()}
