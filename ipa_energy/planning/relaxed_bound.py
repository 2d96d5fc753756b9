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

Service times are random, so their sum is bounded but for one run in :data:`ODDS`. For X ≥ 0 and
any s > 0, E exp(−sX) ≤ 1 − s·E X + s²·E X²/2 ≤ exp(−s·E X + s²·E X²/2), whatever was chosen
before; so ΣX ≥ Σ (E X − s·E X²/2) − ln(ODDS)/s by Markov's inequality on the product of these
factors. The same holds for the parts that a request falls into where their number is random.

Requests that were served later than d, or never, are the run's own business: each late one may
have cost the cheapest instead of the dearest request, each lost one nothing, and the bound gives
way by as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Counts, Floats
from ipa_energy.optimizer.problem import accuracy_scores
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning.hindsight import known
from ipa_energy.records import Option, Stage
from ipa_energy.serving.base import Told, ready_after_s
from ipa_energy.serving.simulated.replicas import Server, batch_profile, server_of

ODDS = 1e9
"""One run in so many may have service times that are shorter than any the bound holds for."""

THETAS = (0.0, 0.25, 0.5, 0.75, 1.0)


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
        total += min(
            _stage_bound(
                stage,
                scores,
                settings,
                counts_rps,
                weights=weights,
                run=run,
                interval_s=interval_s,
                reconfiguration_s=reconfiguration_s,
                theta=theta,
            )
            for theta in THETAS
        )
    return total


def _accuracy_shares(stages: Sequence[Stage], settings: Settings, index: int) -> list[float]:
    """What each option of a stage adds to alpha·A, at most."""
    scores = [accuracy_scores(stage, normalize=settings.normalize_accuracy) for stage in stages]
    share = settings.alpha
    if settings.accuracy_method != "sum":
        share /= len(stages)
    if settings.accuracy_method == "multiply":
        share *= math.prod(max(other) for at, other in enumerate(scores) if at != index)
    return [share * score for score in scores[index]]


def _stage_bound(
    stage: Stage,
    scores: Sequence[float],
    settings: Settings,
    counts_rps: Counts,
    *,
    weights: BoundWeights,
    run: Promptness,
    interval_s: int,
    reconfiguration_s: Told,
    theta: float,
) -> float:
    requests, parts = float(counts_rps.sum()), stage.requests_per_input
    busiest = _largest_square(stage, weights, theta) * requests * parts
    tilt = math.sqrt(2 * math.log(ODDS) / busiest) if busiest > 0 else 0.0
    servers = _servers(
        stage,
        scores,
        settings,
        weights,
        reconfiguration_s=reconfiguration_s,
        theta=theta,
        tilt=tilt,
    )
    luck = math.log(ODDS) / tilt if tilt else 0.0
    cost = parts * servers.request
    fraction = parts - math.floor(parts)
    if fraction:
        square = parts**2 + fraction * (1 - fraction)
        most = float(servers.request.max())
        spread = math.sqrt(2 * math.log(ODDS) / (square * most**2 * requests)) if most > 0 else 0.0
        cost = cost - spread * servers.request**2 * square / 2
        luck += math.log(ODDS) / spread if spread else 0.0
    whole = math.ceil(parts) * np.maximum(servers.request, 0.0)
    excused = run.late * float(whole.max() - min(cost.min(), whole.min())) + run.lost * whole.max()
    best = _best_sequence(servers, cost, counts_rps, run, interval_s=interval_s, theta=theta)
    return best + luck + float(excused)


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
    cheaper = np.minimum.outer(cost, cost)
    total: Floats = gains[0]
    for k in range(1, len(begins)):
        total = (total[:, None] - either[k] * cheaper).max(axis=0) + gains[k]
    return float(total.max())


def _servers(
    stage: Stage,
    scores: Sequence[float],
    settings: Settings,
    weights: BoundWeights,
    *,
    reconfiguration_s: Told,
    theta: float,
    tilt: float,
) -> _Servers:
    by_server: dict[Server, list[tuple[Option, float]]] = {}
    for option, score in zip(stage.options, scores, strict=True):
        by_server.setdefault(server_of(option), []).append((option, score))
    rows = []
    for found in by_server.values():
        options = [option for option, _ in found]
        prices = sum(price * options[0].units(name) for name, price in settings.prices.items())
        steady = max(score for _, score in found) - prices
        steady -= settings.gamma * min(option.batch for option in options)
        holds, request = [], []
        for replicas in range(1, 1 + max(option.most_measured for option in options)):
            here = [option.at(replicas) for option in options]
            idle_w = min(known(option.idle_power_w) for option in here)
            held = weights.joule * idle_w + weights.core_s * options[0].cpu_cores
            holds.append(held)
            request.append(_least_request(here, weights.joule, (1 - theta) * held, tilt))
        ready_s = max(ready_after_s(option, reconfiguration_s) for option in options)
        if isinstance(reconfiguration_s, Mapping):  # what serves may change in place, or late
            ready_s = math.inf
        rows.append((steady, min(holds), min(request), ready_s))
    steady, holding, least, ready = np.array(rows, dtype=np.float64).T
    if isinstance(reconfiguration_s, Mapping):  # the old one may hold in the place of the new
        holding = np.full(len(holding), holding.min())
    return _Servers(steady, holding, least, ready)


def _least_request(options: Sequence[Option], joule: float, held: float, tilt: float) -> float:
    """Least weight of one request of a batch of any size, its time tilted; see the module."""
    profile = batch_profile(options)
    least = math.inf
    for size in range(1, len(profile.mean_s)):
        mean_s, deviation = profile.mean_s[size], profile.log_deviation[size]
        square = mean_s**2 * math.exp(deviation**2)
        busy = held * mean_s - tilt * held**2 * square / 2
        least = min(least, (joule * known(profile.energy_j[size]) + busy) / size)
    return least


def _largest_square(stage: Stage, weights: BoundWeights, theta: float) -> float:
    """About E (weight of a batch's time)² a request, to choose the tilt by: any one is right."""
    squares = [
        ((1 - theta) * (weights.joule * known(o.idle_power_w) + weights.core_s * o.cpu_cores)) ** 2
        * o.latency_avg_s**2
        / o.batch
        for o in stage.options
    ]
    return float(np.median(squares))
