"""A decision that looks ahead: forecast by step, what runs and waits, the best course's first plan.

::

    load received ──> forecast ──> mean and peak of each step ──┐
    replicas, requests under way ──────────────────────────────>│ best course ──> its first plan

Each step of the horizon is an adaptation interval. Joules, caps and waits are those of its mean
load, the middle quantile, which has to be carried; the quantiles from there to the upper one are
the loads that it may have, and what would be late of them weighs (:mod:`.horizon`).

A silence that says nothing of the load, as when those who send are cut off for a while, is left out
of what is forecast from (:func:`without_cut`): what comes after it is mostly what came before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ipa_energy.adaptation.forecast import LEVELS, MEDIAN, STEP_S, Forecast
from ipa_energy.adaptation.loop import NOT_OBSERVED, Adapter, Observed
from ipa_energy.adaptation.predictor import Predictor
from ipa_energy.arrays import Counts, Floats
from ipa_energy.config import PipelineConfig
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.problem import Program, combine_accuracy
from ipa_energy.optimizer.quantities import Moment, planned_load_rps
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning.horizon import LATE, Prices, Start, best_course
from ipa_energy.planning.lateness import Loads, carrying_rps, dispersion_of
from ipa_energy.planning.planner import Planner
from ipa_energy.registries import CONTROLLERS, named
from ipa_energy.serving.deployment import Decision, DeployedStage, Deployment, StageState, Switching

UPPER = 0.98
"""Level of the highest quantile of the mean load that is looked at."""

LATENESS = 2.0
"""What a late answer costs, in good ones, where the YAML does not say."""

EARLY_AFTER_S = 2
"""Earliest of such decisions after the last one; what is beyond all replicas is met at once."""

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
        import scipy.special  # noqa: F401  (which lateness needs: no part of the first decision)

        config = planner.config
        super().__init__(
            planner.program,
            predictor,
            method=config.optimization_method,
            interval_s=config.adaptation_interval,
            limit_s=config.limit_in_runs_s,
            signals=signals,
        )
        self.middle, self.upper = MEDIAN, UPPER
        self.monitoring_s = int(config.monitoring_duration * 60)
        if config.forecast_levels is not None:
            _, self.middle, self.upper = config.forecast_levels
        between = [level for level in LEVELS if self.middle < level < self.upper]
        self.levels_met = (self.middle, *between, self.upper)
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
        forecast = forecast.with_rise(received_rps)
        means_rps = [self._means_rps(forecast, step) for step in range(self.steps)]
        moments = [self._moment(each, step, now_s, seen) for step, each in enumerate(means_rps)]
        weights, dispersion = weights_of(self.levels_met), dispersion_of(received_rps)
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
            loads=[Loads(self.margin * each, weights, dispersion) for each in means_rps],
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
        """See :meth:`Adapter.most_rps`: what was forecast is outrun, or what a lean plan carries.

        That replicas happen to carry more says nothing of a load; what has to start takes its time.
        """
        if not planned_rps or since_s < EARLY_AFTER_S:
            return super().most_rps(planned_rps, carried_rps, since_s)
        return min(planned_rps, carried_rps)

    def _means_rps(self, forecast: Forecast, step: int) -> Floats:
        """The mean loads that a step may have, from the middle on, (Q,); without the margin."""
        begin_s, end_s = step * self.interval_s, (step + 1) * self.interval_s
        means = [forecast.mean(level, begin_s, end_s) for level in self.levels_met]
        return np.array([planned_load_rps(rps, self.interval_s) for rps in means])

    def _moment(self, means_rps: Floats, step: int, now_s: int, seen: Counts) -> Moment:
        """Of one step: its mean load, and what its replicas are meant for, the margin on top."""
        mean_rps, most_rps = float(means_rps[0]), self.margin * float(means_rps[-1])
        peak_rps = max(mean_rps, carrying_rps(most_rps, self.prices.patience_s, LATE))
        signals = self.signals(now_s + step * self.interval_s, mean_rps)
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
        lateness = LATENESS * config.alpha * combine_accuracy(best, config.accuracy_method)
    return Prices(
        interval_s=config.adaptation_interval,
        switching=config.switching_price,
        lateness=lateness,
        patience_s=sla_s / 2,
        reconfiguration_s=config.told_s,
        in_time_first=config.order == "in-time-first",
    )


def weights_of(levels: Sequence[float]) -> Floats:
    """How likely what is nearest to each of some quantiles is; the outermost stand for the rest."""
    edges = [(one + other) / 2 for one, other in pairwise(levels)]
    found: Floats = np.diff([0.0, *edges, 1.0])
    return found


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


def _as_state(stage: DeployedStage) -> StageState:
    return StageState(stage.stage, stage.option, ready=stage.replicas)


def _states_of(stage: str, states: Sequence[StageState]) -> tuple[StageState, ...]:
    """What of a stage is there to go on with."""
    return tuple(
        state for state in states if state.stage == stage and state.ready + state.starting > 0
    )
