"""What a pipeline runs over a trace at some weights, decided once, and what that comes to.

Decisions see the requests of each second; the seed says when in the second they come and how long
they are served. So what a setting decides holds for all seeds, and settings that decide alike serve
alike::

    settings ──decide──> courses ──simulate, each once a seed──> outcomes
      46                   44  (boards: 58 and 14)

The runner decides over a backend that serves nothing; plans and forecasts are kept by what they
were asked for. Nothing is logged, and no joule is rounded as a log rounds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipa_energy.adaptation.predictor import HistoryPredictor, PointForecast
from ipa_energy.arrays import Counts, Floats
from ipa_energy.comparing.hull import Outcome
from ipa_energy.errors import ConfigError, InfeasibleError
from ipa_energy.experiment import Experiment, check_feasible, classes_of
from ipa_energy.frontier.weightings import Weighting, reweighted
from ipa_energy.optimizer.problem import CONSTRAINT_RTOL
from ipa_energy.optimizer.solve import Result
from ipa_energy.planning.planner import Planner
from ipa_energy.records import Option, Stage
from ipa_energy.runner import Runner, initial_configuration
from ipa_energy.serving.base import Resumes, Serving, Setting, VirtualClock
from ipa_energy.serving.deployment import (
    DeployedStage,
    Deployment,
    StageState,
    deployment_of,
)
from ipa_energy.serving.load import TraceLoad
from ipa_energy.serving.served import Requests, Served, with_grams
from ipa_energy.serving.simulated.backend import SimulatedBackend
from ipa_energy.serving.simulated.replicas import server_of
from ipa_energy.serving.tally import LOG_RESOLUTION_S, limits_s
from ipa_energy.workloads.trace import busiest_rps

WINDOW_S = 600
"""About so long is simulated before what was noted of requests is put together."""


@dataclass(frozen=True, slots=True)
class Course:
    """What runs over a trace.

    Attributes:
        deployments: (second from which it is wanted, what) by rising second, the first at 0.
        accuracy: of the pipeline, mean over the time of the trace.
    """

    deployments: tuple[tuple[int, Deployment], ...]
    accuracy: float


class Rehearsal:
    """A backend of which all that is wanted runs at once, and that serves nothing.

    Args:
        start: what runs at first.
        counts_rps: requests that arrive in each second.

    Attributes:
        told: (second, what was to run from then on).
    """

    name = "rehearsal"
    resumes: Resumes = "replay"

    def __init__(self, start: Deployment, counts_rps: Counts) -> None:
        self.told: list[tuple[int, Deployment]] = [(0, start)]
        self._counts_rps = counts_rps
        self._now_s = 0.0

    def deploy(self, wanted: Deployment) -> None:
        """Note it."""
        self.told.append((int(self._now_s), wanted))

    def wanted(self) -> Deployment:
        """What was noted last."""
        return self.told[-1][1]

    def deployed(self) -> tuple[StageState, ...]:
        """All of it."""
        lanes = [lane for stage in self.wanted() for lane in stage.lanes]
        return tuple(StageState(s.stage, s.option, ready=s.replicas) for s in lanes)

    def received_rps(self, window_s: int) -> Counts:
        """What arrives in the last seconds before now."""
        now_s = int(self._now_s)
        return self._counts_rps[max(0, now_s - window_s) : now_s]

    def collect(self, until_s: float) -> Served:
        """Nothing was served."""
        start_s, self._now_s = self._now_s, min(until_s, float(len(self._counts_rps)))
        stages = len(self.told[0][1])
        none, times = np.empty(0), np.empty((0, stages))
        ids = np.empty(0, dtype=np.int64)
        return Served(
            start_s=start_s,
            end_s=self._now_s,
            requests=Requests(ids, none, none, ids, times, times, times),
            idle_j=np.zeros(stages),
            dynamic_j=np.zeros(stages),
            power_w=none,
            cores=none,
            in_flight=0,
            meter=None,
            quality=None,
        )

    def close(self) -> None:
        """Nothing to release."""


class Rehearser:
    """Decides courses of one pipeline over one trace, and keeps forecasts between them.

    Args:
        experiment: pipeline and trace.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._forecasts: dict[tuple[str, bytes], float] = {}

    def courses(self, weightings: Sequence[Weighting]) -> list[Course | None]:
        """Of settings with equal programs, which share their plans: :func:`alike`.

        None where no load of the trace has a plan, or none for a baseline's fixed variants.
        """
        plans: dict[str, Result] = {}
        planner = reweighted(self._experiment.planner, weightings[0])
        try:
            check_feasible(replace(self._experiment, planner=planner))
        except InfeasibleError:
            return [None] * len(weightings)
        base = self._experiment.planner
        found: list[Course | None] = []
        for weighting in weightings:
            if weighting.static_room is not None:
                found.append(self._static(planner, weighting.static_room))
                continue
            margin = weighting.changes.get("predictor_margin", base.config.predictor_margin)
            config = planner.config.model_copy(update={"predictor_margin": margin})
            try:
                found.append(self._course(replace(planner, config=config), plans))
            except ConfigError:
                if weighting.policy is None:
                    raise
                found.append(None)
        return found

    def _course(self, planner: Planner, plans: dict[str, Result]) -> Course:
        counts = self._experiment.workload.counts
        load = TraceLoad(counts, mode="step", seed=0)
        backend = Rehearsal(initial_configuration(planner), counts)
        runner = Runner(planner, Serving(backend, load, VirtualClock()))
        runner.adapter.known = plans
        predictor = runner.adapter.predictor
        if isinstance(predictor, HistoryPredictor):
            forecasts = tuple((name, self._kept(name, f)) for name, f in predictor.forecasts)
            runner.adapter.predictor = replace(predictor, forecasts=forecasts)
        *intervals, _ = runner.intervals()
        accuracies = [interval.plan.accuracy_raw for interval in intervals]
        lengths_s = [one.served.end_s - one.served.start_s for one in intervals]
        return Course(
            tuple((second, _without_waits(what)) for second, what in backend.told),
            float(np.average(accuracies, weights=lengths_s)),
        )

    def _static(self, planner: Planner, room: float) -> Course | None:
        """The plan for so many times the load of the busiest interval; None if there is none."""
        counts, config = self._experiment.workload.counts, planner.config
        load_rps = room * busiest_rps(counts, config.adaptation_interval)
        plans = planner.decide(load_rps, limit_s=config.limit_in_runs_s).plans
        if not plans:
            return None
        return Course(((0, _without_waits(deployment_of(plans[0]))),), plans[0].accuracy_raw)

    def _kept(self, name: str, forecast: PointForecast) -> PointForecast:
        def kept(maxima: Floats) -> float:
            key = (name, maxima.tobytes())
            if key not in self._forecasts:
                self._forecasts[key] = forecast(maxima)
            return self._forecasts[key]

        return kept


def _without_waits(deployment: Deployment) -> Deployment:
    """Without the waits that plans count with: every stage of a YAML has a time-out of its own."""
    return tuple(
        replace(
            stage,
            wait_s=0.0,
            parts=tuple(replace(part, wait_s=0.0, queue_s=0.0) for part in stage.parts),
        )
        for stage in deployment
    )


def alike(weightings: Sequence[Weighting]) -> list[list[Weighting]]:
    """Settings in groups of equal programs: those that differ in the margin of the load alone."""
    groups: dict[str, list[Weighting]] = {}
    for weighting in weightings:
        changes = {k: v for k, v in weighting.changes.items() if k != "predictor_margin"}
        groups.setdefault(repr((weighting.policy, sorted(changes.items()))), []).append(weighting)
    return list(groups.values())


@dataclass(frozen=True, slots=True)
class Outturn:
    """What a simulation of a course comes to, drain included.

    Attributes:
        energy_j: of the run.
        core_s: core seconds reserved.
        grams: of CO2 equivalent; NaN where nobody says what a joule emits.
        sent: requests.
        answered: not dropped.
        in_time: answered within the latency SLA.
        latency_p99_s: of the answered; NaN without any.
        over: intervals beyond a cap on joules.
    """

    energy_j: float
    core_s: float
    grams: float
    sent: int
    answered: int
    in_time: int
    latency_p99_s: float
    over: int = 0

    @property
    def joules_per_request(self) -> float:
        """All joules over answered requests; NaN without any."""
        return self.energy_j / self.answered if self.answered else math.nan

    @property
    def attainment(self) -> float:
        """Share of the requests that were answered in time; NaN without any."""
        return self.in_time / self.sent if self.sent else math.nan


def served(experiment: Experiment, course: Course, seed: int) -> tuple[float, float, float | None]:
    """(joules per answered request, share answered in time, grams a request) of a simulation."""
    found = outturn(experiment, course, seed)
    has_grams = found.answered > 0 and not math.isnan(found.grams)
    grams = found.grams / found.answered if has_grams else None
    return found.joules_per_request, found.attainment, grams


def outturn(
    experiment: Experiment, course: Course, seed: int, most_j: Floats | None = None
) -> Outturn:
    """What serving a course over the trace comes to.

    The definitions are those of :mod:`ipa_energy.comparing.metrics`.

    Args:
        experiment: pipeline and trace.
        course: what runs.
        seed: of the simulation.
        most_j: joules that a request may take, interval by interval; None: as many as it likes.
    """
    planner, counts = experiment.planner, experiment.workload.counts
    config = planner.config.model_copy(update={"seed": seed})
    load = TraceLoad(counts, mode=config.mode, seed=seed)
    stages = tuple(_only_used(stage, course) for stage in planner.stages)
    classes = classes_of(config, experiment.workload)
    start = course.deployments[0][1]
    sla_s = planner.planned.latency_sla_s
    setting = Setting(config, stages, start, load, latency_sla_s=sla_s, classes=classes)
    backend = SimulatedBackend.of(setting, moments=False)
    changes = dict(course.deployments[1:])
    interval_s = config.adaptation_interval
    intervals_s = range(interval_s, len(counts), interval_s) if most_j is not None else ()
    windows, closed_s = [], 0
    for end_s in sorted({*changes, *intervals_s, len(counts)}):
        backend.advance(float(end_s))
        if end_s in intervals_s or end_s - closed_s >= WINDOW_S:
            windows.append(backend.collect(float(end_s)))
            closed_s = end_s
        if end_s in changes:
            backend.deploy(changes[end_s])
    windows.append(backend.collect(math.inf))
    answered = [one.requests.dropped_at < 0 for one in windows]
    sent_s, done_s = (
        np.concatenate(
            [
                getattr(one.requests, name)[there]
                for one, there in zip(windows, answered, strict=True)
            ]
        )
        for name in ("sending_s", "done_s")
    )
    latency_s = done_s - sent_s
    steps = planner.config.sla_steps
    common_s = sla_s if steps is None else steps.at(sent_s)
    own = {kind: each.latency_sla_s for kind, each in enumerate(planner.config.classes)}
    kinds = [one.requests.kind[ok] for one, ok in zip(windows, answered, strict=True)]
    late_s = limits_s(common_s, np.concatenate(kinds), own) + LOG_RESOLUTION_S
    return Outturn(
        energy_j=math.fsum(float(one.idle_j.sum() + one.dynamic_j.sum()) for one in windows),
        core_s=math.fsum(_core_seconds(one) for one in windows),
        grams=math.fsum(_grams(planner, one) for one in windows),
        sent=sum(len(one.requests) for one in windows),
        answered=len(latency_s),
        in_time=int((latency_s <= late_s).sum()),
        latency_p99_s=float(np.percentile(latency_s, 99)) if len(latency_s) else math.nan,
        over=0 if most_j is None else _over(windows, most_j, interval_s),
    )


def _over(windows: Sequence[Served], most_j: Floats, interval_s: int) -> int:
    """Intervals whose joules are more than the requests that left in them may take.

    What is served after the last one is part of it; one without a request may take those of one.
    """
    joules, left = np.zeros(len(most_j)), np.zeros(len(most_j))
    for window in windows:
        at = min(int(window.start_s) // interval_s, len(most_j) - 1)
        joules[at] += window.idle_j.sum() + window.dynamic_j.sum()
        left[at] += len(window.requests)
    return int((joules > most_j * np.maximum(1.0, left) * (1 + CONSTRAINT_RTOL)).sum())


def _core_seconds(window: Served) -> float:
    """Core seconds of a window, whose last second may be shorter."""
    if not len(window.cores):
        return 0.0
    rest_s = window.end_s - window.start_s - (len(window.cores) - 1)
    return float(window.cores[:-1].sum() + window.cores[-1] * rest_s)


def _grams(planner: Planner, window: Served) -> float:
    if planner.carbon is None:
        return math.nan
    return with_grams(window, planner.carbon).grams or 0.0


def _only_used(stage: Stage, course: Course) -> Stage:
    """The stage with the options of the servers that run: all that a simulation needs."""
    runs = [stages for _, stages in course.deployments]
    mine: list[DeployedStage] = [
        one for stages in runs for one in stages if one.stage == stage.name
    ]
    servers = {server_of(lane.option) for one in mine for lane in one.lanes}
    used: tuple[Option, ...] = tuple(o for o in stage.options if server_of(o) in servers)
    return replace(stage, options=used)


def outcome(
    weighting: Weighting, course: Course, seed: int, came_to: tuple[float, float, float | None]
) -> Outcome:
    """What a setting came to with a seed."""
    joules, attainment, grams = came_to
    return Outcome(
        label=weighting.label,
        accuracy=course.accuracy,
        joules_per_request=joules,
        sla_attainment=attainment,
        energy_weight=weighting.energy_weight,
        seed=seed,
        grams_per_request=grams,
    )
