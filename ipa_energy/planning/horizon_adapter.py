"""A decision that looks ahead: forecast by step, what runs and waits, the best course's first plan.

::

    load received ──> forecast ──> mean and peak of each step ──┐
    replicas, requests under way ──────────────────────────────>│ best course ──> its first plan

Each step of the horizon is an adaptation interval. Joules, caps and waits are those of its mean
load, the middle quantile. What its replicas have to carry is less than its busiest second, as long
as nobody waits longer than *patience*, half the latency SLA; it is the larger of two loads:

* of bursts (:func:`needed_share`): the upper quantile of the mean load, and so much of what the
  busiest second has beyond it as had to be carried in the load that came; all of it while the load
  rises (:func:`rising`), since a start then meets a higher load than the one that it was begun at;
* of chance (:func:`carrying_rps`): the mean load with the room that random arrivals need.

A silence that says nothing of the load, as when those who send are cut off for a while, is left out
of what is forecast from (:func:`without_cut`): what comes after it is mostly what came before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ipa_energy.adaptation.forecast import STEP_S, Forecast
from ipa_energy.adaptation.loop import NOT_OBSERVED, Adapter, Observed
from ipa_energy.adaptation.predictor import Predictor
from ipa_energy.arrays import Counts
from ipa_energy.config import PipelineConfig
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.problem import Program, combine_accuracy
from ipa_energy.optimizer.quantities import Moment, planned_load_rps
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning.horizon import Prices, Start, best_course
from ipa_energy.planning.planner import Planner
from ipa_energy.registries import CONTROLLERS, named
from ipa_energy.serving.deployment import Decision, DeployedStage, Deployment, StageState, Switching

UPPER = 0.98
"""Level of the quantiles, of the mean load and of the busiest second, that replicas carry."""

MIDDLE = 0.5
"""Level of the quantile of the mean load that joules are counted at."""

LATE = 0.02
"""Most of the arrivals that would wait longer than they have patience if they were random.

Counts of seconds in IPA's trace vary less than random ones, so that fewer do.
"""

EARLY_AT = 0.9
"""Share of the load that a plan was made for; more is not waited out, since starts take time."""

EARLY_AFTER_S = 2
"""Earliest of such decisions after the last one; what is beyond all replicas is met at once."""

RISE_S, BEFORE_S = 5, 60
"""Seconds whose mean load says whether it rises, beside the busiest ten of those before them."""

RISES = (1.1, 1.3)
"""Times that load, from which on it may rise and from which on it does; chance seldom does as much:
six of IPA's counts a second, say, stray by one."""

Signals = Callable[[float, float], Mapping[str, float]]


def adapter_for(
    planner: Planner, predictor: Predictor, signals: Signals, ahead_s: float
) -> Adapter:
    """The adapter that the YAML asks for.

    Args:
        planner: config, profile and program.
        predictor: of the load.
        signals: as of :class:`Adapter`.
        ahead_s: until when a plan has to do.
    """
    make = named(CONTROLLERS, planner.config.controller, kind="controller", where="controller")
    adapter: Adapter = make(planner, predictor, signals)
    adapter.ahead_s = ahead_s
    return adapter


def _refuse_what_cannot_look_ahead(settings: Settings) -> None:
    for key, is_set in (("mix: true", settings.mix), ("gpus", bool(settings.gpus))):
        if is_set:
            raise ConfigError(
                f"horizon does not know {key}",
                where="controller",
                allowed="interval",
                fix="leave one of them out",
            )


class HorizonAdapter(Adapter):
    """Decides by the best course over the next intervals.

    Args:
        planner: config, profile and program.
        predictor: of the load.
        signals: as of :class:`Adapter`.
    """

    def __init__(self, planner: Planner, predictor: Predictor, signals: Signals) -> None:
        _refuse_what_cannot_look_ahead(planner.program.settings)
        config = planner.config
        super().__init__(
            planner.program,
            predictor,
            method=config.optimization_method,
            interval_s=config.adaptation_interval,
            limit_s=config.limit_in_runs_s,
            signals=signals,
        )
        self.middle, self.upper = MIDDLE, UPPER
        self.monitoring_s = int(config.monitoring_duration * 60)
        if config.forecast_levels is not None:
            _, self.middle, self.upper = config.forecast_levels
        self.margin = 1 + config.predictor_margin / 100
        self.steps = max(1, round(config.horizon_s / config.adaptation_interval))
        self.prices = prices_of(config, planner.program, planner.planned.latency_sla_s)

    @property
    def memory_s(self) -> int:
        """What the forecast looks at."""
        return self.predictor.memory_s

    def decide(
        self,
        now_s: int,
        received_rps: Counts,
        running: Deployment,
        observed: Observed = NOT_OBSERVED,
    ) -> Decision:
        """See :meth:`Adapter.decide`; what is observed counts, where somebody looked."""
        begin = time.perf_counter()
        horizon_s = math.ceil(self.steps * self.interval_s / STEP_S) * STEP_S
        seen = received_rps[-self.monitoring_s :]
        received_rps = without_cut(received_rps, 1 - self.upper)
        forecast = self.predictor.forecast(received_rps, now_s, horizon_s)
        share = needed_share(received_rps, self.prices.patience_s)
        share += (1 - share) * rising(received_rps)
        moments = [self._moment(forecast, step, share, now_s, seen) for step in range(self.steps)]
        states = [
            _states_of(stage.stage, observed.states) or (_as_state(stage),) for stage in running
        ]
        waiting = max(0.0, observed.in_pipeline - self._usually_inside(moments[0], running))
        start = Start(states, waiting, self._usual_rps(received_rps, moments))
        course = best_course(
            self.program,
            moments,
            start,
            self.prices,
            method=self.method,
            limit_s=None if self.limit_s is None else self.limit_s / 2,
        )
        first = moments[0]
        told = forecast.told(self.interval_s) | {"planned_levels": (self.middle, self.upper)}
        decision = self.decision(
            seen,
            predicted_rps=forecast.peak(self.upper, 0.0, self.interval_s),
            planned_rps=first.peak_rps,
            begin=begin,
            capped_load_rps=first.capped_rps,
            forecast=told,
        )
        if course is None:
            return self._without_course(decision, first)
        paid = Switching(course.loading_j, course.held_j, course.late_s, course.penalty)
        return replace(decision, plan=course.plans[0], switching=paid)

    def most_rps(self, planned_rps: float, carried_rps: float, since_s: float) -> float:
        """See :meth:`Adapter.most_rps`: that replicas happen to carry more says nothing of a load.

        What was forecast is outrun all the same, and what has to start takes its time.
        """
        if not planned_rps or since_s < EARLY_AFTER_S:
            return super().most_rps(planned_rps, carried_rps, since_s)
        return EARLY_AT * planned_rps

    def _moment(
        self, forecast: Forecast, step: int, share: float, now_s: int, seen: Counts
    ) -> Moment:
        """Of one step: its mean load, and what its replicas have to carry."""
        begin_s, end_s = step * self.interval_s, (step + 1) * self.interval_s
        mean = forecast.mean(self.middle, begin_s, end_s)
        busiest = forecast.peak(self.upper, begin_s, end_s)
        steady = min(busiest, forecast.mean(self.upper, begin_s, end_s))
        bursts = steady + share * (busiest - steady)
        peak = self.margin * max(bursts, carrying_rps(mean, self.prices.patience_s))
        peak_rps, mean_rps = (planned_load_rps(rps, self.interval_s) for rps in (peak, mean))
        mean_rps = min(mean_rps, peak_rps)
        signals = self.signals(now_s + begin_s, mean_rps)
        return Moment(mean_rps, mean_rps, peak_rps, signals, self._low_end_rps(seen, mean_rps))

    def _usual_rps(self, received_rps: Counts, moments: Sequence[Moment]) -> float | None:
        """The mean load of the time that was seen and that is looked ahead to."""
        if not self.prices.switching:
            return None  # every interval for itself
        ahead = math.fsum(each.mean_rps for each in moments) * self.interval_s
        length_s = len(received_rps) + len(moments) * self.interval_s
        return (float(received_rps.sum()) + ahead) / length_s

    def _usually_inside(self, moment: Moment, running: Deployment) -> float:
        """Requests that are under way although none of them has to wait."""
        stay_s = math.fsum(
            stage.option.latency_s + (stage.option.batch - 1) / moment.mean_rps for stage in running
        )
        return moment.mean_rps * stay_s

    def _without_course(self, decision: Decision, first: Moment) -> Decision:
        """Why nothing carries the load."""
        result = self._best(first)
        if result.status == "unknown":
            trouble = f"no plan was found in {self.limit_s:g} s"
            return replace(decision, status="kept", trouble=trouble)
        conflict = str(result.conflict) if result.conflict else None
        plan = result.plans[0] if result.plans else None
        return replace(decision, status=result.status, plan=plan, conflict=conflict)


def prices_of(config: PipelineConfig, program: Program, sla_s: float) -> Prices:
    """What changes weigh by the YAML."""
    lateness = config.lateness_weight
    if lateness is None:
        best = [float(each.accuracy.max()) for each in program.at(1e-3).stages]
        lateness = config.alpha * combine_accuracy(best, config.accuracy_method)
    return Prices(
        interval_s=config.adaptation_interval,
        switching=config.switching_price,
        lateness=lateness,
        patience_s=sla_s / 2,
        reconfiguration_s=config.told_s,
    )


def without_cut(counts: Counts, level: float) -> Counts:
    """The load, with what came before the longest silence in its place, if that was no lull.

    It was one if as long a silence was there before or since, or if one is found at random, at the
    mean of all other seconds, in as long a time with a probability of ``level`` or more. So a load
    that comes and goes is left as it is.

    Args:
        counts: requests of each second.
        level: the share of what is not planned for.
    """
    edges = np.flatnonzero(np.diff(np.pad((counts == 0).astype(np.int8), 1)))
    begins, lengths = edges[::2], edges[1::2] - edges[::2]
    if not len(lengths):
        return counts
    length = int(lengths.max())
    begin = int(begins[lengths.argmax()])
    heard_s = len(counts) - length
    if not begin or (lengths == length).sum() > 1:
        return counts
    mean_rps = float(counts.sum()) / heard_s
    if len(counts) * math.exp(-mean_rps * length) >= level:
        return counts
    found = counts.copy()
    found[begin : begin + length] = np.resize(counts[:begin][-length:], length)
    return found


def needed_share(counts: Counts, patience_s: float) -> float:
    """What has to be carried of what the busiest second of a step has beyond the step's mean.

    A queue that begins empty makes nobody wait longer than ``patience_s`` as long as of every k
    seconds in a row so much is served as comes in them in k and the patience. What comes in a whole
    step is served in it: the next one has its own.

    Args:
        counts: requests of each second.
        patience_s: longest wait that makes no request late.
    """
    steps = counts[len(counts) % STEP_S :].reshape(-1, STEP_S)
    beyond = float((steps.max(axis=1) - steps.mean(axis=1)).sum()) if len(steps) else 0.0
    if not beyond:
        return 1.0
    sums = np.cumsum(np.pad(steps, ((0, 0), (1, 0))), axis=1)
    needed = [
        (sums[:, length:] - sums[:, :-length]).max(axis=1)
        / (length + (patience_s if length < STEP_S else 0.0))
        for length in range(1, STEP_S + 1)
    ]
    return float((np.max(needed, axis=0) - steps.mean(axis=1)).sum()) / beyond


def rising(counts: Counts) -> float:
    """Whether a load rises beyond what it was, from 0, as chance may have it, to 1 (:data:`RISES`).

    Args:
        counts: requests of each second.
    """
    before = counts[-RISE_S - BEFORE_S : -RISE_S]
    steps = before[len(before) % STEP_S :].reshape(-1, STEP_S)
    now_rps = float(counts[-RISE_S:].mean())
    if not len(steps) or not now_rps:
        return 0.0
    least, most = (times * float(steps.mean(axis=1).max()) for times in RISES)
    return min(1.0, max(0.0, (now_rps - least) / (most - least))) if most else 1.0


def carrying_rps(mean_rps: float, patience_s: float) -> float:
    """What a stage has to sustain for random arrivals to wait no longer, but for :data:`LATE`.

    A wait is longer than t with a probability of exp(−θ·t) at most, for the θ at which a service
    time less the time between two arrivals has E exp(θ·(S − A)) = 1 (Kingman 1970, "Inequalities in
    the theory of queues"). With a Poisson process and steady services that is
    exp(θ/c) = 1 + θ/λ for a capacity of c.

    Args:
        mean_rps: λ.
        patience_s: t.
    """
    if mean_rps <= 0:
        return 0.0
    theta = math.log(1 / LATE) / patience_s
    return theta / math.log1p(theta / mean_rps)


def _as_state(stage: DeployedStage) -> StageState:
    return StageState(stage.stage, stage.option, ready=stage.replicas)


def _states_of(stage: str, states: Sequence[StageState]) -> tuple[StageState, ...]:
    """What of a stage is there to go on with."""
    return tuple(
        state for state in states if state.stage == stage and state.ready + state.starting > 0
    )
