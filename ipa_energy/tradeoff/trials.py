"""Running the configurations of one case, each several times, and averaging.

Trial k runs with the seed ``seed + k``: arrivals inside each second and service times differ, the
requests per second do not. Each trial is a whole run folder, as ``ipa-energy run`` writes it, of a
deployment that stays the same from the first second to the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.compare import RunMetrics, metrics
from ipa_energy.experiment import Experiment, run_experiment
from ipa_energy.planning.planner import Planner
from ipa_energy.records import weakest_quality
from ipa_energy.serving.base import deployment_of
from ipa_energy.tradeoff.configuration import Configuration
from ipa_energy.tradeoff.load import StudyLoad
from ipa_energy.tradeoff.point import Estimate, Point

NOBODY = "no request was answered"
PROGRESS_AFTER_S = 2.0


def run_points(
    planner: Planner,
    load: StudyLoad,
    configurations: Sequence[Configuration],
    *,
    trials: int,
    folder: Path,
    ran: Callable[[], object] = lambda: None,
) -> tuple[Point, ...]:
    """Every configuration run ``trials`` times.

    Args:
        planner: of the pipeline; its config has the seed of the first trial.
        load: what to offer.
        configurations: what to deploy.
        trials: of each, at least 1.
        folder: where the run folders go, ``C1-1`` for the first trial of the first.
        ran: called after each trial.

    Raises:
        ConfigError: a run folder is taken or cannot be written.
        ServingError: the backend failed.
    """
    points = []
    for configuration in configurations:
        found = []
        for trial in range(trials):
            found.append(_trial(planner, load, configuration, trial, folder))
            ran()
        points.append(point_of(configuration, found))
    return with_fronts(points)


def _trial(
    planner: Planner, load: StudyLoad, configuration: Configuration, trial: int, folder: Path
) -> RunMetrics:
    config = planner.config.model_copy(update={"seed": planner.config.seed + trial})
    name = f"{configuration.key}-{trial + 1}"
    run = run_experiment(
        Experiment(replace(planner, config=config), load.workload),
        folder / name,
        name=f"{configuration.name}, trial {trial + 1}",
        fixed=deployment_of(configuration.plan),
    )
    return metrics(run)


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
        meter="+".join(meters) or None,
        quality=weakest_quality(qualities),
    )


def columns_of(points: Sequence[Point]) -> dict[str, Floats]:
    """The four objectives of the points as they were run, by the names of :mod:`.correlation`."""
    return {
        "accuracy": np.array([point.accuracy for point in points]),
        "cost_cores": np.array([point.cost_cores for point in points]),
        "latency_s": np.array([point.latency_s.value for point in points]),
        "joules_per_request": np.array([point.joules_per_request.value for point in points]),
    }


def with_fronts(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points with what is undominated among them, by their means; NaN is never on a front."""
    columns = columns_of(points)
    losses = [-columns["accuracy"], columns["cost_cores"], columns["latency_s"]]
    blind = _undominated(np.stack(losses, axis=1))
    joules = columns["joules_per_request"]
    if np.isnan(joules).all():
        return tuple(
            replace(point, on_front_without_energy=on)
            for point, on in zip(points, blind, strict=True)
        )
    seeing = _undominated(np.stack([*losses, joules], axis=1))
    return tuple(
        replace(point, on_front=on, on_front_without_energy=on_blind)
        for point, on, on_blind in zip(points, seeing, blind, strict=True)
    )


def _undominated(losses: Floats) -> list[bool]:
    """Of each row whether nothing is at most as large in every column and smaller in one."""
    no_worse = np.all(losses[:, None, :] <= losses[None, :, :], axis=2)
    better = np.any(losses[:, None, :] < losses[None, :, :], axis=2)
    beaten = np.any(no_worse & better, axis=0)
    unknown = np.any(np.isnan(losses), axis=1)
    return [not lost for lost in np.atleast_1d(beaten | unknown)]
