"""What a study runs, and what running it came to.

Trial k runs with the seed ``seed + k``: arrivals inside each second and service times differ, the
requests per second do not. Each trial is a whole run, as ``ipa-energy run`` makes it, of a
deployment that stays the same from the first second to the last.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.as_json import fields_of
from ipa_energy.comparing import RunMetrics, metrics
from ipa_energy.experiment import Experiment, run_experiment
from ipa_energy.interval import half_width_95
from ipa_energy.optimizer.dominance import unbeaten
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.quantities import USUAL_INTERVAL_S, Moment
from ipa_energy.planning.planner import Planner
from ipa_energy.records import Quality, joined_meters, weakest_quality
from ipa_energy.serving.deployment import deployment_of
from ipa_energy.workloads import Workload, static_workload

DEFAULT_DURATION_S = 120
"""Length of a constant load: long enough that the start from an empty system does not count."""


@dataclass(frozen=True, slots=True)
class StudyLoad:
    """What the configurations of one case are given.

    Attributes:
        name: ``10 rps``, or the name of the trace.
        workload: requests per second.
        loads: what their plans are made for: replicas carry the peak, batches wait longest where
            the load is lowest, joules are those of the mean. All equal for a constant load.
    """

    name: str
    workload: Workload
    loads: Moment

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-.") or "load"


def constant_load(load_rps: float, duration_s: int = DEFAULT_DURATION_S) -> StudyLoad:
    """A constant load.

    Raises:
        ConfigError: the load is not a positive number, or the duration is out of range.
    """
    workload = static_workload(load_rps, duration_s)
    return StudyLoad(f"{load_rps:g} rps", workload, Moment.at(load_rps))


def trace_load(workload: Workload, interval_s: float = USUAL_INTERVAL_S) -> StudyLoad:
    """A trace, adapted to every ``interval_s``."""
    return StudyLoad(workload.name, workload, Moment.of(workload.counts, interval_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Variant, allocation, batch and replicas of every stage, for one case of the study.

    Attributes:
        key: a short label, unique in its case and free of markup: ``C1``, ``C2`` …
        name: what the user's list calls it; else its plan's label.
        origin: why it is in the study, e.g. ``least energy`` or ``farthest from the others``.
        plan: what it means by the profile at the case's load, certificate included.
    """

    key: str
    name: str
    origin: str
    plan: Plan

    @property
    def label(self) -> str:
        """``yolov5n 1c b4 x3 | resnet18 1c b2 x1``."""
        return self.plan.label

    @property
    def profile_ci95_j(self) -> float:
        """Half width of the profile's 95 % interval of the pipeline's joules per request.

        The stages' own half widths, each times m_s, added in quadrature: they were profiled
        independently of each other. NaN if any of them is unknown.
        """
        parts = [
            stage.requests_per_input
            * (stage.option.provenance.ci95_j if stage.option.provenance else math.nan)
            for stage in self.plan.stages
        ]
        return math.sqrt(math.fsum(part * part for part in parts))

    @property
    def meter(self) -> str | None:
        """Meters behind the profile's joules, joined by ``+``; None without energy."""
        meters = {s.option.provenance.meter for s in self.plan.stages if s.option.provenance}
        return joined_meters(sorted(meters)) or None

    def to_json(self) -> dict[str, Any]:
        """The configuration as ``tradeoff --json`` shows it."""
        return {
            **fields_of(self),
            "label": self.label,
            "profile_ci95_j": self.profile_ci95_j,
            "meter": self.meter,
        }


ONE_TRIAL = "one trial has no spread"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over trials.

    Attributes:
        value: the mean; NaN if any trial lacks the figure.
        ci95: half width of its 95 % t-interval; NaN if it has none.
        trials: how many there were.
        reason: why there is no value, or no interval; None if both are there.
    """

    value: float
    ci95: float
    trials: int
    reason: str | None = None

    @classmethod
    def of(cls, values: Sequence[float], *, absent: str = "not logged") -> Estimate:
        """Mean and Student's t interval of independent trials.

        Args:
            values: one a trial, at least one.
            absent: the reason to give if a value is NaN.
        """
        count = len(values)
        if any(math.isnan(value) for value in values):
            return cls(math.nan, math.nan, count, absent)
        mean = math.fsum(values) / count
        if count == 1:
            return cls(mean, math.nan, 1, ONE_TRIAL)
        return cls(mean, half_width_95(values), count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration as it was run; the definitions are those of :mod:`ipa_energy.comparing`.

    The intervals tell how far the trials (seeds of arrivals and service times) differ. They say
    nothing of how good the profile is: that is ``configuration.profile_ci95_j``.

    Attributes:
        configuration: what was run.
        accuracy: pipeline accuracy of the raw accuracies; the same in every trial.
        cost_cores: cores reserved; the same in every trial.
        latency_s: mean latency of answered requests.
        latency_p99_s: their 99th percentile.
        sla_attainment: share of all requests answered inside the end-to-end latency SLA, 0..1.
        answered: share of all requests that were answered at all, 0..1.
        joules_per_request: all joules, idle included, over answered requests.
        power_w: mean watts over the load.
        meter, quality: provenance of the joules and watts of the run.
        on_front: no other point of the case is at least as good in accuracy, cost, mean latency
            and energy, and better in one; None without energy.
        on_front_without_energy: the same in accuracy, cost and mean latency alone.
        amounts: further quantity → its mean over the requests.
    """

    configuration: Configuration
    accuracy: float
    cost_cores: float
    latency_s: Estimate
    latency_p99_s: Estimate
    sla_attainment: Estimate
    answered: Estimate
    joules_per_request: Estimate
    power_w: Estimate
    meter: str | None
    quality: Quality | None
    on_front: bool | None = None
    on_front_without_energy: bool | None = None
    amounts: Mapping[str, Estimate] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The point as ``tradeoff --json`` shows it, its configuration's figures among its own."""
        own = fields_of(self)
        run = {"run_meter": own.pop("meter"), "run_quality": own.pop("quality")}
        return {**own.pop("configuration").to_json(), **own, **run}


NOBODY = "no request was answered"
PROGRESS_AFTER_S = 2.0


def run_points(
    planner: Planner,
    load: StudyLoad,
    configurations: Sequence[Configuration],
    *,
    trials: int,
    folder: Path | None = None,
    backend: str = "simulate",
    ran: Callable[[], object] = lambda: None,
) -> tuple[Point, ...]:
    """Every configuration run ``trials`` times.

    Args:
        planner: of the pipeline; its config has the seed of the first trial.
        load: what to offer.
        configurations: what to deploy.
        trials: of each, at least 1.
        folder: where the run folders go, ``C1-1`` for the first trial of the first; None: no trial
            is kept.
        backend: what serves.
        ran: called after each trial.

    Raises:
        ConfigError: a run folder is taken or cannot be written.
        ServingError: the backend failed.
    """
    points = []
    for configuration in configurations:
        found = []
        for trial in range(1, trials + 1):
            config = planner.config.model_copy(update={"seed": planner.config.seed + trial - 1})
            run = run_experiment(
                Experiment(replace(planner, config=config), load.workload),
                None if folder is None else folder / f"{configuration.key}-{trial}",
                name=f"{configuration.name}, trial {trial}",
                fixed=deployment_of(configuration.plan),
                backend=backend,
            )
            found.append(metrics(run))
            ran()
        points.append(point_of(configuration, found))
    return with_fronts(points)


def point_of(configuration: Configuration, trials: Sequence[RunMetrics]) -> Point:
    """The averages of one configuration's runs, at least one."""

    def mean(values: Sequence[float], absent: str = NOBODY) -> Estimate:
        return Estimate.of(values, absent=absent)

    qualities = [run.quality for run in trials if run.quality is not None]
    meters = sorted({run.meter for run in trials if run.meter is not None})
    no_joules = NOBODY if qualities else "no energy in the profile"
    return Point(
        configuration=configuration,
        accuracy=configuration.plan.accuracy_raw,
        cost_cores=configuration.plan.cost_cores,
        latency_s=mean([run.latency_mean_s for run in trials]),
        latency_p99_s=mean([run.latency_p99_s for run in trials]),
        sla_attainment=mean([run.sla_attainment for run in trials]),
        answered=mean([run.served / run.requests if run.requests else math.nan for run in trials]),
        joules_per_request=mean([run.joules_per_request for run in trials], no_joules),
        power_w=mean([run.power_mean_w for run in trials], no_joules),
        meter=joined_meters(meters) or None,
        quality=weakest_quality(qualities),
        amounts=_amounts(configuration.plan, trials),
    )


def _amounts(plan: Plan, trials: Sequence[RunMetrics]) -> dict[str, Estimate]:
    """Further quantities as logged, or as planned: a deployment that stays logs no decisions."""
    found = {name: Estimate.of([value] * len(trials)) for name, value in plan.amounts.items()}
    for name in trials[0].amounts:
        found[name] = Estimate.of([run.amount(name) for run in trials])
    return found


def columns_of(points: Sequence[Point]) -> dict[str, Floats]:
    """The objectives of the points as they were run, by the names of :mod:`.correlation`.

    Further quantities come after the four.
    """
    further = points[0].amounts if points else ()
    return {
        "accuracy": np.array([point.accuracy for point in points]),
        "cost_cores": np.array([point.cost_cores for point in points]),
        "latency_s": np.array([point.latency_s.value for point in points]),
        "joules_per_request": np.array([point.joules_per_request.value for point in points]),
        **{name: np.array([point.amounts[name].value for point in points]) for name in further},
    }


def with_fronts(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points with what is undominated among them, by their means; NaN is never on a front."""
    columns = columns_of(points)
    losses = [-columns["accuracy"], columns["cost_cores"], columns["latency_s"]]
    blind = unbeaten(np.stack(losses, axis=1)).tolist()
    joules = columns["joules_per_request"]
    if np.isnan(joules).all():
        return tuple(
            replace(point, on_front_without_energy=on)
            for point, on in zip(points, blind, strict=True)
        )
    seeing = unbeaten(np.stack([*losses, joules], axis=1)).tolist()
    return tuple(
        replace(point, on_front=on, on_front_without_energy=on_blind)
        for point, on, on_blind in zip(points, seeing, blind, strict=True)
    )
