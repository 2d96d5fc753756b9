"""Controllers of the literature to hold ours against: Kubernetes' HPA, InferLine, IPA's own switch.

* **HPA**: the Horizontal Pod Autoscaler of Kubernetes on CPU utilisation, stage by stage, as its
  documentation has it (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale,
  "Algorithm details" and "Default behavior"; the default target of 80 % is that of the API
  reference, HorizontalPodAutoscalerSpec)::

      desired = ceil(current · utilisation / target),   none within a tolerance of 10 %

  down to the largest desired of the last 300 s, up to twice as many or 4 more a time. Variants,
  allocations and batches stay what the YAML starts with. Utilisation is the share of the time that
  replicas are busy at the load of the last interval; one that starts counts as idle.
* **InferLine** (Crankshaw et al., ACM SoCC 2020, sections 4 and 5): a *planner* that sees a sample
  of the load, here the first quarter of the YAML's workload, and starts from what serves it in the
  SLA at any cost; then it takes, one at a time, the step that saves most of what keeps the SLA in
  a simulation of the sample: a larger batch, a replica less, cheaper hardware. A *tuner* compares
  the load with the sample's *envelope*, the most requests in any window of 1, 2, 4 … 60 s: beyond
  it, each stage gets the replicas for the higher rate at the planned utilisation; below, those for
  the busiest 5 s of the last 30 s, at the earliest 15 s after a change. Variants stay.
* **IPA's switch**: of equally good plans the one with the fewest changes of variant and batch,
  whatever the replicas, the first of several (its ``choose_config``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ipa_energy.adaptation.loop import NOT_OBSERVED, Adapter, Observed
from ipa_energy.adaptation.predictor import Predictor
from ipa_energy.arrays import Counts
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.quantities import planned_load_rps
from ipa_energy.planning.planner import Planner
from ipa_energy.planning.policies import initial_deployment
from ipa_energy.records import Option, Stage
from ipa_energy.serving.deployment import Decision, DeployedStage, Deployment
from ipa_energy.serving.load import TraceLoad
from ipa_energy.serving.queue_order import slas_of
from ipa_energy.serving.simulated.backend import SimulatedBackend
from ipa_energy.workloads import workload_from

Signals = Callable[[float, float], Mapping[str, float]]

HPA_TARGET = 0.8
HPA_TOLERANCE = 0.1
HPA_STABILISATION_S = 300
HPA_MOST_MORE = 4

LONGEST_WINDOW_S = 60
DOWN_AFTER_S = 15
DOWN_LOOKS_BACK_S = 30
DOWN_WINDOW_S = 5
SAMPLE = 0.25
"""Share of the workload that InferLine's planner sees."""


def interval_adapter(
    planner: Planner, predictor: Predictor, signals: Signals, kind: type[Adapter] = Adapter
) -> Adapter:
    """The best plan for the load of the next interval."""
    config = planner.config
    return kind(
        planner.program,
        predictor,
        method=config.optimization_method,
        interval_s=config.adaptation_interval,
        limit_s=config.limit_in_runs_s,
        signals=signals,
        levels=config.forecast_levels,
        monitoring_s=int(config.monitoring_duration * 60),
        margin_percent=config.predictor_margin,
    )


class IpaAdapter(Adapter):
    """The same with IPA's choice among equally good plans."""

    def preference(self, plan: Plan, running: Deployment) -> tuple[float, ...]:
        """Changes of variant and batch."""
        changes = 0
        for stage, run in zip(plan.stages, running, strict=True):
            changes += stage.option.variant != run.option.variant
            changes += stage.option.batch != run.option.batch
        return (changes,)


def ipa_adapter(planner: Planner, predictor: Predictor, signals: Signals) -> Adapter:
    """IPA's own switch."""
    return interval_adapter(planner, predictor, signals, IpaAdapter)


class _ByLoad(Adapter):
    """Changes replicas by the load that came; no solver is asked."""

    name = ""

    def __init__(self, planner: Planner, predictor: Predictor, signals: Signals) -> None:
        config = planner.config
        super().__init__(planner.program, predictor, method=self.name, signals=signals)
        self.interval_s = config.adaptation_interval
        self._planner = planner

    @property
    def memory_s(self) -> int:
        """What the tuner looks back at."""
        return LONGEST_WINDOW_S

    def decide(
        self,
        now_s: int,
        received_rps: Counts,
        running: Deployment,
        observed: Observed = NOT_OBSERVED,
    ) -> Decision:
        """The replicas of each stage from now on."""
        begin = time.perf_counter()
        load_rps = float(received_rps[-int(self.interval_s) :].mean())
        wanted = self.wanted(now_s, received_rps, running, observed)
        planned_rps = planned_load_rps(load_rps, self.interval_s)
        plan = self._planner.plan_running(wanted, self._planner.moment(planned_rps, now_s))
        return self.decision(
            received_rps, predicted_rps=load_rps, planned_rps=planned_rps, begin=begin, plan=plan
        )

    def wanted(
        self, now_s: int, received_rps: Counts, running: Deployment, observed: Observed
    ) -> Deployment:
        """What is to run."""
        raise NotImplementedError

    def sized(self, run: DeployedStage, replicas: float) -> DeployedStage:
        """The same on other replicas, within the cap."""
        count = int(min(max(replicas, 1), self.program.settings.scaling_cap))
        return replace(run, option=run.option.at(count), replicas=count)


class HpaAdapter(_ByLoad):
    """Kubernetes' HPA on utilisation; see the module."""

    name = "hpa"

    def __init__(self, planner: Planner, predictor: Predictor, signals: Signals) -> None:
        super().__init__(planner, predictor, signals)
        self._desired: list[tuple[int, tuple[int, ...]]] = []

    def wanted(
        self, now_s: int, received_rps: Counts, running: Deployment, observed: Observed
    ) -> Deployment:
        """What is to run."""
        load_rps = float(received_rps[-int(self.interval_s) :].mean())
        counts = []
        for stage, run in zip(self.program.stages, running, strict=True):
            ready = sum(
                state.ready
                for state in observed.states
                if state.stage == stage.name and state.option.variant == run.option.variant
            )
            busy = stage.requests_per_input * load_rps * run.option.latency_avg_s / run.option.batch
            used = min(busy, ready or run.replicas) / run.replicas
            counts.append(hpa_desired(run.replicas, used))
        self._desired.append((now_s, tuple(counts)))
        self._desired = [one for one in self._desired if one[0] >= now_s - HPA_STABILISATION_S]
        highest = np.array([each for _, each in self._desired]).max(axis=0).tolist()
        return tuple(
            self.sized(run, count if count >= run.replicas else min(run.replicas, high))
            for run, count, high in zip(running, counts, highest, strict=True)
        )


def hpa_desired(current: int, utilisation: float) -> int:
    """Replicas that the autoscaler wants, before it waits to scale down."""
    ratio = utilisation / HPA_TARGET
    if abs(ratio - 1) <= HPA_TOLERANCE:
        return current
    desired = math.ceil(ratio * current - 1e-9)
    return max(1, min(desired, max(2 * current, current + HPA_MOST_MORE)))


@dataclass(frozen=True, slots=True)
class Sampled:
    """What InferLine's planner knows.

    Attributes:
        deployment: its plan.
        envelope: (window in seconds, most requests a second in any such window of the sample).
        used: planned utilisation of each stage.
    """

    deployment: Deployment
    envelope: tuple[tuple[int, float], ...]
    used: tuple[float, ...]


class InferlineAdapter(_ByLoad):
    """InferLine's planner and tuner; see the module."""

    name = "inferline"

    def __init__(self, planner: Planner, predictor: Predictor, signals: Signals) -> None:
        super().__init__(planner, predictor, signals)
        counts = workload_from(planner.config).counts
        sample = counts[: max(LONGEST_WINDOW_S, int(SAMPLE * len(counts)))]
        self.sampled = plan_of_sample(planner, sample)
        self._changed_s = -DOWN_AFTER_S

    def wanted(
        self, now_s: int, received_rps: Counts, running: Deployment, observed: Observed
    ) -> Deployment:
        """What is to run."""
        del observed
        plan = self.sampled.deployment
        is_begun = [_names(run.option) for run in running] == [_names(run.option) for run in plan]
        before = running if is_begun else plan
        recent = envelope_of(received_rps[-LONGEST_WINDOW_S:])
        known = dict(self.sampled.envelope)
        # Fewer replicas than planned stand for as much less of the envelope.
        left = min(
            1.0, *(run.replicas / its.replicas for run, its in zip(before, plan, strict=True))
        )
        beyond = [rate for window, rate in recent if rate > left * known.get(window, math.inf)]
        if beyond:
            after = self._for_rate(before, max(beyond), self.sampled.used, up=True)
        elif now_s - self._changed_s >= DOWN_AFTER_S:
            last = received_rps[-DOWN_LOOKS_BACK_S:]
            rate = dict(envelope_of(last, (DOWN_WINDOW_S,))).get(DOWN_WINDOW_S, last.mean())
            least = (min(self.sampled.used),) * len(before)
            after = self._for_rate(before, float(rate), least, up=False)
        else:
            after = before
        if after != before:
            self._changed_s = now_s
        return after

    def _for_rate(
        self, before: Deployment, rate_rps: float, used: tuple[float, ...], *, up: bool
    ) -> Deployment:
        found = []
        for stage, run, share in zip(self.program.stages, before, used, strict=True):
            one_rps = run.option.throughput_rps * share
            needed = math.ceil(stage.requests_per_input * rate_rps / one_rps - 1e-9)
            more = max(run.replicas, needed) if up else min(run.replicas, needed)
            found.append(self.sized(run, more))
        return tuple(found)


def envelope_of(
    counts_rps: Counts, windows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, LONGEST_WINDOW_S)
) -> tuple[tuple[int, float], ...]:
    """(window in seconds, most requests a second in any such window), of those that fit."""
    sums = np.concatenate([[0], np.cumsum(counts_rps)])
    return tuple(
        (window, float((sums[window:] - sums[:-window]).max()) / window)
        for window in windows
        if window <= len(counts_rps)
    )


def plan_of_sample(planner: Planner, sample: Counts) -> Sampled:
    """InferLine's planner over a sample of the load.

    Raises:
        ConfigError: nothing serves the sample in the latency SLA.
    """
    program = planner.program
    options = [option for option, _ in initial_deployment(planner.config, planner.stages)]
    best = _start(planner, options, sample)
    while True:
        cheaper = [
            plan
            for plan in _steps(planner, best)
            if _price(planner, plan) < _price(planner, best) and _keeps_sla(planner, plan, sample)
        ]
        if not cheaper:
            break
        best = min(cheaper, key=lambda plan: _price(planner, plan))
    mean_rps = float(sample.mean())
    used = tuple(
        min(1.0, stage.requests_per_input * mean_rps / (run.replicas * run.option.throughput_rps))
        for stage, run in zip(program.stages, best, strict=True)
    )
    return Sampled(best, envelope_of(sample), tuple(max(share, 1e-3) for share in used))


def _start(planner: Planner, options: list[Option], sample: Counts) -> Deployment:
    """The fastest allocation of each variant, batches of one, and replicas until it holds."""
    most = planner.program.settings.scaling_cap
    runs = []
    for stage, option in zip(planner.stages, options, strict=True):
        same = [o for o in _siblings(planner, stage, option) if o.variant == option.variant]
        smallest = min(one.batch for one in same)
        fast = min((o for o in same if o.batch == smallest), key=lambda one: one.latency_avg_s)
        needed = math.ceil(stage.requests_per_input * float(sample.mean()) / fast.throughput_rps)
        count = min(max(1, needed), most)
        runs.append(DeployedStage(stage.name, fast.at(count), count))
    for _ in range(len(runs) * most):
        if _keeps_sla(planner, tuple(runs), sample):
            return tuple(runs)
        rates = [
            run.replicas * run.option.throughput_rps / stage.requests_per_input
            for stage, run in zip(planner.stages, runs, strict=True)
        ]
        at = int(np.argmin(rates))
        count = runs[at].replicas + 1
        if count > most:
            break
        runs[at] = DeployedStage(runs[at].stage, runs[at].option.at(count), count)
    raise ConfigError(
        "no number of replicas of the initial variants serves the sample in the latency SLA",
        where="latency_sla_s",
        fix="another variant, or a longer SLA",
    )


def _siblings(planner: Planner, stage: Stage, option: Option) -> list[Option]:
    """Options of the same variant that the rules allow."""
    at = [one.name for one in planner.stages].index(stage.name)
    rule, most = planner.program.rules[at], planner.program.settings.batching_cap
    found = [o for o in stage.options if o.variant == option.variant and o.batch <= most]
    return [one for one in found if rule.allows(one)] or [option]


def _steps(planner: Planner, plan: Deployment) -> list[Deployment]:
    """A replica less, or another batch or allocation on as many replicas or fewer, in one stage."""
    found = []
    for at, (stage, run) in enumerate(zip(planner.stages, plan, strict=True)):
        moves = [(run.option, run.replicas - 1)]
        for other in _siblings(planner, stage, run.option):
            same = other.allocation == run.option.allocation
            if same and other.batch > run.option.batch:
                moves += [(other, run.replicas - 1)]
            elif not same and other.batch == run.option.batch:
                rate = run.replicas * run.option.throughput_rps
                moves += [(other, math.ceil(rate / other.throughput_rps))]
        for option, count in moves:
            if 1 <= count <= planner.program.settings.scaling_cap:
                moved = DeployedStage(stage.name, option.at(count), count)
                found.append((*plan[:at], moved, *plan[at + 1 :]))
    return found


def _price(planner: Planner, plan: Deployment) -> float:
    """What a plan's resources cost in the objective; cores where nothing is priced."""
    config = planner.config
    prices = {"core": config.beta, **(config.prices or {})}
    if not any(prices.values()):
        prices = {"core": 1.0}
    return sum(
        run.replicas * price * run.option.units(name)
        for run in plan
        for name, price in prices.items()
    )


def _keeps_sla(planner: Planner, plan: Deployment, sample: Counts) -> bool:
    """True if 99 % of the sample is answered in time, in a simulation."""
    config = planner.config
    rates = [
        run.replicas * run.option.batch / run.option.latency_avg_s / stage.requests_per_input
        for stage, run in zip(planner.stages, plan, strict=True)
    ]
    if min(rates) < float(sample.mean()):
        return False
    load = TraceLoad(sample, mode=config.mode, seed=config.seed)
    backend = SimulatedBackend(
        planner.stages,
        plan,
        load=load,
        seed=config.seed,
        drop_limit_s=config.drop_limit,
        batch_timeout_s=[stage.batch_timeout_s for stage in config.stages],
        slas_s=slas_of(config, planner.planned.latency_sla_s),
    )
    windows = [backend.collect(float(len(sample))), backend.collect(math.inf)]
    sla_s = planner.planned.latency_sla_s
    in_time = sum(
        int(
            (
                (one.requests.dropped_at < 0)
                & (one.requests.done_s - one.requests.sending_s <= sla_s)
            ).sum()
        )
        for one in windows
    )
    return in_time >= 0.99 * float(sample.sum())


def _names(option: Option) -> tuple[object, ...]:
    return (option.variant, option.allocation, option.batch)
