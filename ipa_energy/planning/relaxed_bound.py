r"""The objective that nothing can exceed over a trace: every way of serving it, relaxed.

What no controller can avoid in the simulation's world (:mod:`ipa_energy.serving.simulated`), stage
by stage, with x a *server* (variant and allocation) of the profile:

* whatever is in force from t_k to t_{k+1} counts with its accuracy, its smallest batch and its
  price of one replica, and holds at least one replica: p_x watts and c_x cores, D_k seconds long;
* what holds watts is at least what is busy: a batch of k requests takes X seconds of p_x watts and
  c_x cores, and k·e_x(k) joules, so a request costs at least the best batch's k-th part;
* what holds is at least the larger of the two, so at least θ of the one and 1 − θ of the other, for
  every θ from 0 to 1;
* a request whose batch starts within d seconds of its sending is served by what was in force L
  seconds before: what is asked for at t_k serves from t_k + L on, and until t_{k+1} + L at least.
  So a request sent from t_k + L to t_{k+1} + L − d is served by x_k, and one sent in the last d of
  these seconds by x_k or x_{k+1}.

Left out are: that replicas are whole, that they have to carry the load without queues, that
changes cost anything, all caps and all rules. What is left falls apart into stages, and for each
the best sequence x_0 … x_K is found by dynamic programming over the servers; the least bound over
a few θ counts. A product of accuracies is at most the mean over the stages of a stage's own times
the others' greatest.

Service times are random, so their sum is bounded but for one run in :data:`ODDS`. For X ≥ 0 of
mean m and variance v and any s > 0::

    E exp(−sX) ≤ exp(−s·m + v/m²·(exp(s·m) − 1 − s·m))        (Bennett: X ≥ m − m)

whatever was chosen before. So ΣX ≥ Σ (m − v/m²·(exp(s·m) − 1 − s·m)/s) − ln(ODDS)/s by Markov's
inequality on the product of these factors, for every s; a few are tried. Where the number of parts
that a request falls into is random, E exp(−sX) ≤ exp(−s·m + s²·E X²/2) serves as well.

Requests that were served later than d, or never, are the run's own business: each late one may
have cost the cheapest request, r_min, instead of one of the server in force, each lost one nothing.
Whichever they were, for every λ ≥ 0 that saves at most λ apiece, r_min more for a lost one, and
what dearer servers' requests cost beyond r_min + λ. So the bound is that of requests that cost no
more than this, with λ for each late or lost one on top; a few λ are tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Counts, Floats
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.stage_columns import accuracy_scores
from ipa_energy.planning.hindsight import known
from ipa_energy.records import Option, Stage
from ipa_energy.serving.deployment import Told, ready_after_s
from ipa_energy.serving.simulated.replicas import (
    BatchProfile,
    Server,
    batch_profile,
    server_of,
)

ODDS = 1e9
"""One run in so many may have service times that are shorter than any the bound holds for."""

THETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
TILTS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Exponents s·m of the server whose batches weigh most, for which the bound is tried."""


@dataclass(frozen=True, slots=True)
class Promptness:
    """How a run answered its requests.

    Attributes:
        answered: how many.
        delay_s: d, within which the batches of all but the late ones started in every stage.
        late: of the answered, those that waited longer.
        lost: dropped or failed.
    """

    answered: int
    delay_s: float
    late: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class BoundWeights:
    """What a joule and a core second of the run weigh in the objective."""

    joule: float
    core_s: float


@dataclass(frozen=True, slots=True)
class _Servers:
    """The servers of a stage; arrays of one length.

    Attributes:
        steady: accuracy, smallest batch and prices of one replica, as in the objective.
        held: weight of a second of one replica.
        request: least weight of a request of the stage.
        ready_s: until a new replica serves.
    """

    steady: Floats
    held: Floats
    request: Floats
    ready_s: Floats


def objective_bound(
    stages: Sequence[Stage],
    settings: Settings,
    counts_rps: Counts,
    weights: BoundWeights,
    run: Promptness,
    *,
    interval_s: int,
    reconfiguration_s: Told,
) -> float:
    """The greatest objective that any run over a trace can come to; see the module.

    Args:
        stages: the pipeline with its whole profile.
        settings: weights of the objective.
        counts_rps: (seconds,) the trace.
        weights: of joules and core seconds.
        run: how promptly it answered.
        interval_s: between decisions.
        reconfiguration_s: as in the YAML; None: what the profile says of each variant.
    """
    if run.answered == 0:
        return math.inf
    total = 0.0
    for index, stage in enumerate(stages):
        scores = _accuracy_shares(stages, settings, index)
        holders = _holders(stage, scores, settings, weights, reconfiguration_s)
        found = []
        for theta, tilt in _tries(stage, weights, counts_rps):
            in_place = isinstance(reconfiguration_s, Mapping)
            servers = _servers(holders, weights.joule, theta, tilt, in_place=in_place)
            found.append(_StageBound(stage, servers, counts_rps, run, interval_s, theta, tilt))
        # The dearest price first: it says which of them is worth the others.
        best = min(found, key=lambda one: one.at(one.prices[-1]))
        total += _least(best.at, best.prices)
    return total


def _least(at: Callable[[float], float], prices: Sequence[float]) -> float:
    """The least of a convex function at some ascending places.

    :meth:`_StageBound.at` is one: costs that are capped are concave in λ, and what is left of a
    greatest worth is convex in them.
    """
    known: dict[int, float] = {}

    def value(index: int) -> float:
        if index not in known:
            known[index] = at(prices[index])
        return known[index]

    low, high = 0, len(prices) - 1
    while low < high:
        middle = (low + high) // 2
        if value(middle) <= value(middle + 1):
            high = middle
        else:
            low = middle + 1
    return min(value(low), *known.values())


def _accuracy_shares(stages: Sequence[Stage], settings: Settings, index: int) -> list[float]:
    """What each option of a stage adds to alpha·A, at most."""
    scores = [accuracy_scores(stage, normalize=settings.normalize_accuracy) for stage in stages]
    share = settings.alpha
    if settings.accuracy_method != "sum":
        share /= len(stages)
    if settings.accuracy_method == "multiply":
        share *= math.prod(max(other) for at, other in enumerate(scores) if at != index)
    return [share * score for score in scores[index]]


@dataclass(frozen=True, slots=True)
class _StageBound:
    """What no sequence of a stage's servers exceeds, for one θ and one s of the module."""

    stage: Stage
    servers: _Servers
    counts_rps: Counts
    run: Promptness
    interval_s: int
    theta: float
    tilt: float

    @property
    def prices(self) -> list[float]:
        """The λ to be tried, the greatest last: there no cost is capped."""
        found: list[float] = np.unique(self._beyond).tolist()
        return found if self.run.late + self.run.lost else found[-1:]

    @property
    def _beyond(self) -> Floats:
        """What a late request saves at most that has the cheapest server in the place of each."""
        request = self.servers.request
        beyond: Floats = request - request.min()
        return math.ceil(self.stage.requests_per_input) * beyond

    def at(self, price: float) -> float:
        """The bound with a price λ of late and lost requests."""
        parts, request = self.stage.requests_per_input, self.servers.request
        cost, luck = parts * request, math.log(ODDS) / self.tilt if self.tilt else 0.0
        fraction = parts - math.floor(parts)
        if fraction:
            square = parts**2 + fraction * (1 - fraction)
            total = float(request.max()) ** 2 * square * float(self.counts_rps.sum())
            spread = math.sqrt(2 * math.log(ODDS) / total) if total > 0 else 0.0
            cost = cost - spread * request**2 * square / 2
            luck += math.log(ODDS) / spread if spread else 0.0
        best = _best_sequence(
            self.servers,
            cost - np.maximum(0.0, self._beyond - price),
            self.counts_rps,
            self.run,
            interval_s=self.interval_s,
            theta=self.theta,
        )
        late, lost = self.run.late, self.run.lost
        excused = (late + lost) * price + lost * math.ceil(parts) * max(float(request.min()), 0.0)
        return best + luck + excused


def _best_sequence(
    servers: _Servers,
    cost: Floats,
    counts_rps: Counts,
    run: Promptness,
    *,
    interval_s: int,
    theta: float,
) -> float:
    """The greatest worth of any sequence of a stage's servers over the trace."""
    seconds = len(counts_rps)
    sums = np.concatenate([[0.0], np.cumsum(counts_rps, dtype=np.float64)])
    begins = np.arange(0, seconds, interval_s)
    lengths_s = np.minimum(begins + interval_s, seconds) - begins
    gains = np.multiply.outer(
        lengths_s.astype(np.float64), servers.steady / seconds - theta * servers.held
    )
    low_s, high_s = float(servers.ready_s.min()), float(servers.ready_s.max())
    late = high_s >= interval_s or math.ceil(high_s - low_s + run.delay_s) + 1 > interval_s
    if len(cost) > 1 and late:
        # What serves may be older than the interval before: any server, the cheapest.
        return float(gains.max(axis=1).sum() - cost.min() * sums[-1])

    def sent(second: float) -> float:
        return float(sums[min(max(int(second), 0), seconds)])

    if len(cost) == 1:
        return float(gains.sum() - cost[0] * sums[-1])

    # Seconds of the trace in which what is sent may be served before or after a change.
    opens = [math.floor(begin + low_s - run.delay_s) for begin in begins]
    closes = [math.ceil(begin + high_s) for begin in begins]
    for k in range(len(begins)):
        start = 0.0 if k == 0 else sent(closes[k])
        end = sums[-1] if k + 1 == len(begins) else sent(opens[k + 1])
        gains[k] -= cost * max(0.0, end - start)
    either = [0.0, *(sent(closes[k]) - sent(opens[k]) for k in range(1, len(begins)))]
    total: Floats = gains[0]
    for k in range(1, len(begins)):
        # max over y of total_y − n·min(cost_y, cost_x), n ≥ 0: whichever of the two is cheaper.
        before = (total - either[k] * cost).max()
        total = np.maximum(before, total.max() - either[k] * cost) + gains[k]
    return float(total.max())


@dataclass(frozen=True, slots=True)
class _Holder:
    """A server with what of it no θ and no s changes.

    Attributes:
        steady, ready_s: as in :class:`_Servers`.
        ways: by how many replicas work at once: weight of a second of one, and its batches.
    """

    steady: float
    ready_s: float
    ways: list[tuple[float, BatchProfile]]


def _holders(
    stage: Stage,
    scores: Sequence[float],
    settings: Settings,
    weights: BoundWeights,
    reconfiguration_s: Told,
) -> list[_Holder]:
    by_server: dict[Server, list[tuple[Option, float]]] = {}
    for option, score in zip(stage.options, scores, strict=True):
        by_server.setdefault(server_of(option), []).append((option, score))
    holders = []
    for found in by_server.values():
        options = [option for option, _ in found]
        prices = sum(price * options[0].units(name) for name, price in settings.prices.items())
        steady = max(score for _, score in found) - prices
        steady -= settings.gamma * min(option.batch for option in options)
        ways = []
        for replicas in range(1, 1 + max(option.most_measured for option in options)):
            here = [option.at(replicas) for option in options]
            idle_w = min(known(option.idle_power_w) for option in here)
            held = weights.joule * idle_w + weights.core_s * options[0].cpu_cores
            ways.append((held, batch_profile(here)))
        ready_s = max(ready_after_s(option, reconfiguration_s) for option in options)
        if isinstance(reconfiguration_s, Mapping):  # what serves may change in place, or late
            ready_s = math.inf
        holders.append(_Holder(steady, ready_s, ways))
    return holders


def _servers(
    holders: Sequence[_Holder], joule: float, theta: float, tilt: float, *, in_place: bool
) -> _Servers:
    rows = [
        (
            each.steady,
            min(held for held, _ in each.ways),
            min(_least_request(own, joule, (1 - theta) * held, tilt) for held, own in each.ways),
            each.ready_s,
        )
        for each in holders
    ]
    steady, holding, least, ready = np.array(rows, dtype=np.float64).T
    if in_place:  # the old one may hold in the place of the new
        holding = np.full(len(holding), holding.min())
    return _Servers(steady, holding, least, ready)


def _least_request(profile: BatchProfile, joule: float, held: float, tilt: float) -> float:
    """Least weight of one request of a batch of any size, its time tilted; see the module."""
    least = math.inf
    for size in range(1, len(profile.mean_s)):
        busy = tilted(held * profile.mean_s[size], profile.log_deviation[size], tilt)
        least = min(least, (joule * known(profile.energy_j[size]) + busy) / size)
    return least


def tilted(mean: float, log_deviation: float, tilt: float) -> float:
    """No more than −ln E exp(−tilt·X)/tilt of a lognormal X with this mean; see the module."""
    if not tilt:
        return mean
    spread = math.expm1(log_deviation**2)  # variance over the mean squared
    return mean - spread * (math.expm1(tilt * mean) - tilt * mean) / tilt


def _tries(
    stage: Stage, weights: BoundWeights, counts_rps: Counts
) -> Iterator[tuple[float, float]]:
    """The θ and s to try; s from where no server's exponent is far from 0 to where one's is."""
    means = [
        (weights.joule * known(option.idle_power_w) + weights.core_s * option.cpu_cores)
        * option.latency_avg_s
        for option in stage.options
    ]
    largest = max(means, default=0.0)
    for theta in THETAS:
        if theta == 1 or not largest or not counts_rps.any():
            yield theta, 0.0  # no time of service counts
        else:
            yield from ((theta, factor / ((1 - theta) * largest)) for factor in TILTS)
