"""The objective as a whole run comes to it, for runs of a simulation and of a log alike.

A decision maximises (6) of :mod:`ipa_energy.optimizer.problem` at one load. A run comes to::

    mean over time of [ alpha·A − gamma·b − prices ] of the plans in force
        − beta · core seconds / seconds of the workload
        − energy_weight · joules / answered requests              (or / seconds, or grams)

with the joules and core seconds that were really spent, replicas that start or drain included, and
the drain after the workload's end. It says nothing of lateness: hold it beside the share in the
SLA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy import energy
from ipa_energy.arrays import Floats
from ipa_energy.carbon.run_carbon import RunCarbon
from ipa_energy.comparing import RunMetrics
from ipa_energy.experiment import Experiment
from ipa_energy.frontier.courses import Course, Outturn
from ipa_energy.optimizer.settings import Settings
from ipa_energy.planning.hindsight import Steps, Weights, steady_worth
from ipa_energy.planning.relaxed_bound import BoundWeights, Promptness, objective_bound
from ipa_energy.runlog import Run
from ipa_energy.runner import configuration_of
from ipa_energy.serving.deployment import Deployment

GRAMS = "grams_per_request"


def is_known(settings: Settings) -> bool:
    """True if an objective counts nothing but what a run is known to spend.

    Not with a budget of grams, whose price follows what was emitted so far, nor with quantities of
    one's own; nor are mixes of options and slices of GPUs known to those who plan over time.
    """
    if settings.mix or settings.gpus:
        return False
    metrics = ("joules_per_request", "watts", GRAMS)
    return settings.energy_metric in metrics and set(settings.weights) <= {GRAMS}


def joule_weight(settings: Settings, requests: float, seconds: float) -> float:
    """Of a joule of a run with so many answered requests; grams aside."""
    if settings.energy_metric == GRAMS:
        return 0.0
    return settings.energy_weight / (seconds if settings.energy_metric == "watts" else requests)


def gram_weight(settings: Settings, requests: float) -> float:
    """Of a gram of it."""
    weight = settings.weights.get(GRAMS, 0.0)
    weight += settings.energy_weight if settings.energy_metric == GRAMS else 0.0
    return weight / requests


def worth(experiment: Experiment, course: Course, found: Outturn) -> float:
    """The objective of a course that came to this; NaN if nothing was answered."""
    settings = experiment.planner.program.settings
    seconds = experiment.workload.duration_s
    if not found.answered:
        return math.nan
    total = _steady(experiment, course.deployments)
    total -= settings.beta * found.core_s / seconds
    total -= _weighted(joule_weight(settings, found.answered, seconds), found.energy_j)
    return total - _weighted(gram_weight(settings, found.answered), found.grams)


def _weighted(weight: float, amount: float) -> float:
    return weight * amount if weight else 0.0


def _steady(experiment: Experiment, deployments: Sequence[tuple[int, Deployment]]) -> float:
    """Mean over time of what of the objective no load changes."""
    ends_s = [second for second, _ in deployments[1:]] + [experiment.workload.duration_s]
    lengths_s = [end_s - begin_s for (begin_s, _), end_s in zip(deployments, ends_s, strict=True)]
    values = [steady_worth(experiment.planner.program, what) for _, what in deployments]
    return float(np.average(values, weights=lengths_s))


def course_of_run(experiment: Experiment, run: Run) -> Course:
    """What a run had in force."""
    planner, seconds = experiment.planner, experiment.workload.duration_s
    found: list[tuple[int, Deployment]] = []
    known: dict[str, Deployment] = {}
    for step in run.steps:
        if step.start_s >= seconds or not step.stages:
            continue
        label = " | ".join(stage.label for stage in step.stages)
        if label not in known:  # a profile may have thousands of options
            known[label] = configuration_of(planner, step)
        deployment = known[label]
        if not found or deployment != found[-1][1]:
            found.append((int(step.start_s), deployment))
    return Course(tuple(found), math.nan)


def outturn_of_run(figures: RunMetrics) -> Outturn:
    """What a run came to, by its figures."""
    in_time = figures.sla_attainment * figures.requests
    return Outturn(
        energy_j=figures.energy_j,
        core_s=figures.core_hours * 3600,
        grams=figures.grams,
        sent=figures.requests,
        answered=figures.served,
        in_time=0 if math.isnan(in_time) else round(in_time),
        latency_p99_s=figures.latency_p99_s,
    )


@dataclass(frozen=True, slots=True)
class CourseWeights:
    """The weights of an objective over the steps of a trace, for :func:`.hindsight.course_of`.

    Attributes:
        experiment: pipeline and trace.
        cap_share: of its caps on joules and grams, that are kept; infinity: none are.
    """

    experiment: Experiment
    cap_share: float = 1.0

    def __call__(self, steps: Steps) -> Weights:
        """Of each step."""
        planner, settings = self.experiment.planner, self.experiment.planner.program.settings
        seconds = float(steps.lengths_s.sum())
        requests = max(1.0, float(steps.requests.sum()))
        joule = np.full(len(steps.starts_s), joule_weight(settings, requests, seconds))
        gram, most_g = gram_weight(settings, requests), settings.caps.get(GRAMS)
        most_j = np.full(len(joule), settings.energy_sla_joules or np.inf)
        if planner.carbon is not None and (gram or most_g is not None):
            grams = _grams_of_a_joule(planner.carbon, steps)
            joule += gram * grams
            if most_g is not None:
                most_j = np.minimum(most_j, most_g / np.maximum(grams, 1e-300))
        most_j *= self.cap_share
        is_capped = bool(np.isfinite(most_j).any())
        core_s, second = settings.beta / seconds, 1.0 / seconds
        return Weights(joule, core_s, second, most_j if is_capped else None)


def _grams_of_a_joule(carbon: RunCarbon, steps: Steps) -> Floats:
    """In each step."""
    ends_s = (steps.starts_s + steps.lengths_s).tolist()
    means = map(carbon.mean_g_per_kwh, steps.starts_s.tolist(), ends_s)
    return np.array([energy.grams(1.0, mean, carbon.pue) for mean in means])


def bound_of(experiment: Experiment, found: Outturn) -> float:
    """The objective that no run can exceed which answers as promptly as this one.

    Infinite if it answered nothing.
    """
    planner, counts = experiment.planner, experiment.workload.counts
    settings, config = planner.program.settings, planner.config
    if not found.answered:
        return math.inf
    seconds = float(len(counts))
    joule = joule_weight(settings, found.answered, seconds)
    gram = gram_weight(settings, found.answered)
    if gram and planner.carbon is not None:
        least = float(planner.carbon.series.g_per_kwh.min())
        joule += gram * energy.grams(1.0, least, planner.carbon.pue)
    run = Promptness(
        answered=found.answered,
        delay_s=found.latency_p99_s,
        late=math.ceil(found.answered / 100),
        lost=found.sent - found.answered,
    )
    return objective_bound(
        planner.stages,
        settings,
        counts,
        BoundWeights(joule, settings.beta / seconds),
        run,
        interval_s=1 if config.is_early else config.adaptation_interval,
        reconfiguration_s=config.told_s,
    )
