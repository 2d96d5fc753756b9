"""What a run is held against: plans that knew its load, and the bound that nothing exceeds.

All three maximise the objective of the run as a whole run comes to it (:mod:`.worth`), and are
simulated with its seed:

* the **best static plan**: one plan for the whole trace. It is searched by simulation until no
  neighbour is better: one replica, one batch size, one variant or one allocation in one stage;
* the **hindsight plan**: the best course over the trace, every change charged
  (:mod:`ipa_energy.planning.hindsight`), the best of those that carry a little less or more than
  the load;
* the **bound**: (:mod:`ipa_energy.planning.relaxed_bound`).

The two plans answer :data:`PUNCTUAL` of the requests in time wherever a plan can; else the most
that was found. Of those that do, the ones go first that keep a cap on joules or grams of a request
in most intervals, at the load of each. They do not depend on the run but on what it was made from,
and are kept in the file cache of the sweeps.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.comparing import Comparison, RunMetrics, compare, metrics
from ipa_energy.comparing.hull import HindsightShare, Saving
from ipa_energy.errors import ConfigError, InfeasibleError
from ipa_energy.experiment import Experiment, experiment_of, run_experiment
from ipa_energy.frontier.courses import Course, Outturn, outturn
from ipa_energy.frontier.sweep import cache_key, kept_in_cache
from ipa_energy.frontier.worth import (
    CourseWeights,
    bound_of,
    course_of_run,
    is_known,
    outturn_of_run,
    worth,
)
from ipa_energy.planning.hindsight import (
    beyond_cap_j,
    course_of,
    keeps_limits,
    open_plans,
    plans_of,
    steps_of,
)
from ipa_energy.records import Option, Stage
from ipa_energy.runlog import Run
from ipa_energy.runner import initial_configuration
from ipa_energy.serving.deployment import DeployedStage, Deployment
from ipa_energy.serving.simulated.ipa_dispatch import POD_STAYS_S

logger = logging.getLogger(__name__)

PUNCTUAL = 0.995
"""Share of the requests that yardsticks answer in time."""

MARGINS = (1.0, 0.92, 0.85, 0.7, 1.15, 1.35, 1.7)
"""By which the courses carry more than the busiest stretches; dearer ones only while needed."""

CAP_SHARES = (1.0, 0.9, 0.8, 0.6, math.inf)
"""Shares of a cap on joules that courses keep to, since batches that are not full take more of them
than planned; the others only while intervals are beyond the cap."""

FEW_STARTS = 12
"""So many plans are simulated to begin the search for the best static plan with."""


LUCK = 1.1
"""By which batches may be faster than in the mean before a plan is taken for impossible."""


@dataclass(frozen=True, slots=True)
class Found:
    """A course and what it comes to.

    Attributes:
        course: what runs when.
        outturn: of its simulation.
        worth: its objective.
    """

    course: Course
    outturn: Outturn
    worth: float

    @property
    def rank(self) -> tuple[float, int, float]:
        """The more the better: punctual first, then within the caps, then the objective."""
        return (min(self.outturn.attainment, PUNCTUAL), -self.outturn.over, self.worth)


class Judge:
    """Simulates courses over one trace, each once.

    Args:
        experiment: pipeline and trace; its seed is that of the simulations.
        ran: called after each simulation.
    """

    def __init__(self, experiment: Experiment, ran: Callable[[], object] = lambda: None) -> None:
        self.experiment, self._ran = experiment, ran
        self._known: dict[object, Found] = {}
        interval_s = experiment.planner.config.adaptation_interval
        self._steps = steps_of(experiment.workload.counts, interval_s, 0.0, _stretch_s(experiment))
        self._most_j = CourseWeights(experiment)(self._steps).most_j

    def __call__(self, deployments: Sequence[tuple[int, Deployment]]) -> Found:
        """What a course comes to."""
        key = tuple((at, *(_key(run) for run in what)) for at, what in deployments)
        if key not in self._known:
            planner = self.experiment.planner
            course = Course(tuple(deployments), math.nan)
            found = outturn(self.experiment, course, planner.config.seed, self._most_j)
            self._ran()
            value = worth(self.experiment, course, found)
            self._known[key] = Found(course, found, -math.inf if math.isnan(value) else value)
        return self._known[key]

    def least_over(self, deployment: Deployment) -> int:
        """Intervals in which even full batches of a plan are beyond a cap on joules or grams."""
        if self._most_j is None:
            return 0
        plans = plans_of(self.experiment.planner.program, [deployment])
        return int((beyond_cap_j(self._steps, plans, self._most_j) > 0).sum())

    def static(self, deployment: Deployment) -> Found:
        """What a plan for the whole trace comes to."""
        return self(((0, deployment),))


def _key(run: DeployedStage) -> tuple[object, ...]:
    return (run.option.variant, run.option.allocation, run.option.batch, run.replicas)


def best_static(judge: Judge) -> Found | None:
    """The best plan that never changes: no neighbour of it is better; None if none may run."""
    experiment = judge.experiment
    planner, counts = experiment.planner, experiment.workload.counts
    steps = steps_of(counts, planner.config.adaptation_interval, 0.0, _stretch_s(experiment))
    starts = open_plans(planner.program, steps, 1.0)
    if not starts:
        return None
    starts.sort(key=lambda plan: (judge.least_over(plan), -_most_worth(experiment, plan)))
    best: Found | None = None
    simulated = 0
    for plan in starts:
        is_punctual = best is not None and best.outturn.attainment >= PUNCTUAL
        if best is not None and is_punctual and not _may_be_better(judge, plan, best):
            break
        if is_punctual and simulated >= FEW_STARTS:
            break
        if _is_hopeless(experiment, plan):
            continue
        found, simulated = judge.static(plan), simulated + 1
        best = found if best is None or found.rank > best.rank else best
    if best is None:
        best = judge.static(max(starts, key=lambda plan: _carried_rps(experiment, plan)))
    while (better := _better_neighbour(judge, best)) is not None:
        best = better
    return best


def _better_neighbour(judge: Judge, best: Found) -> Found | None:
    """The first neighbour that is better, those that promise most first."""
    experiment = judge.experiment
    ((_, plan),) = best.course.deployments
    near = sorted(neighbours(experiment, plan), key=lambda one: -_most_worth(experiment, one))
    for one in near:
        if best.outturn.attainment >= PUNCTUAL and (
            not _may_be_better(judge, one, best) or _is_hopeless(experiment, one)
        ):
            continue  # it cannot be better, so it need not be simulated
        found = judge.static(one)
        if found.rank > best.rank:
            return found
    return None


def _may_be_better(judge: Judge, plan: Deployment, best: Found) -> bool:
    """Whether a static plan could be better than one that is punctual, were it punctual too."""
    most = (-judge.least_over(plan), _most_worth(judge.experiment, plan))
    return most > (-best.outturn.over, best.worth)


def neighbours(experiment: Experiment, plan: Deployment) -> Iterator[Deployment]:
    """Plans that differ by one replica, batch size, variant or allocation in one stage."""
    program = experiment.planner.program
    for at, (stage, rule, run) in enumerate(zip(program.stages, program.rules, plan, strict=True)):
        most = program.settings.scaling_cap
        counts = (run.replicas - 1, run.replicas + 1) if rule.replicas is None else ()
        moves = [(run.option, count) for count in counts if 1 <= count <= most]
        moves += [
            (option, run.replicas)
            for option in _next_options(stage, run.option)
            if rule.allows(option) and option.batch <= program.settings.batching_cap
        ]
        for option, replicas in moves:
            moved = DeployedStage(stage.name, option.at(replicas), replicas)
            whole = (*plan[:at], moved, *plan[at + 1 :])
            if keeps_limits(program, whole):
                yield whole


def _next_options(stage: Stage, option: Option) -> list[Option]:
    """The options of the same batch and allocation, variant and allocation, variant and batch."""
    mine = (option.variant, option.allocation, option.batch)
    found = []
    for other in stage.options:
        its = (other.variant, other.allocation, other.batch)
        if sum(one != two for one, two in zip(mine, its, strict=True)) == 1:
            found.append(other)
    return found


def _most_worth(experiment: Experiment, plan: Deployment) -> float:
    """More than a static plan can come to: idle watts for the trace, the cheapest batches."""
    counts = experiment.workload.counts
    requests, seconds = max(1.0, float(counts.sum())), float(len(counts))
    dynamic_j = idle_w = core_s = 0.0
    for stage, run in zip(experiment.planner.stages, plan, strict=True):
        same = [
            option.at(run.replicas)
            for option in stage.options
            if (option.variant, option.allocation) == (run.option.variant, run.option.allocation)
        ]
        least_j = min(option.dynamic_energy_j for option in same)
        parts = math.floor(stage.requests_per_input) or 0.9 * stage.requests_per_input
        dynamic_j += parts * requests * least_j
        idle_w += run.replicas * run.option.idle_power_w
        core_s += run.replicas * run.option.cpu_cores * seconds
    spent_j = dynamic_j + seconds * idle_w
    grams = math.nan
    carbon = experiment.planner.carbon
    if carbon is not None:
        grams = spent_j * float(carbon.series.g_per_kwh.min()) * carbon.pue / 3.6e6
    count = int(requests)
    free = Outturn(spent_j, core_s, grams, count, count, count, 0.0)
    return worth(experiment, Course(((0, plan),), math.nan), free)


def _carried_rps(experiment: Experiment, plan: Deployment) -> float:
    """Pipeline requests a second of full batches."""
    return min(
        run.replicas * run.option.batch / run.option.latency_avg_s / stage.requests_per_input
        for stage, run in zip(experiment.planner.stages, plan, strict=True)
    )


def _is_hopeless(experiment: Experiment, plan: Deployment) -> bool:
    """True if even full batches without a pause leave more requests of a stretch late than allowed.

    With room for luck: service times are random.
    """
    counts = experiment.workload.counts
    sla_s = experiment.planner.planned.latency_sla_s
    rate_rps = _carried_rps(experiment, plan) * LUCK
    sums = np.concatenate([[0], np.cumsum(counts)])
    late, width = 0.0, 5
    while width < 2 * len(counts):
        length = min(width, len(counts))
        busiest = float((sums[length:] - sums[:-length]).max())
        late = max(late, busiest - rate_rps * (length + sla_s))
        width *= 2
    return late > (1 - PUNCTUAL) * float(counts.sum()) + 1


def _stretch_s(experiment: Experiment) -> float:
    return experiment.planner.planned.latency_sla_s / 2


def best_in_hindsight(judge: Judge, static: Found | None) -> Found:
    """The best course over the trace of those that carry a little less or more than its load.

    That from the first decision on the best static plan runs is one of them: a dynamic program that
    keeps to the load of every step may leave out what a simulation finds prompt enough.
    """
    experiment = judge.experiment
    planner, config = experiment.planner, experiment.planner.config
    first = initial_configuration(planner)
    besides = [] if static is None else [static.course.deployments[0][1]]
    best: Found | None = None
    for margin, share in itertools.product(MARGINS, CAP_SHARES):
        is_punctual = best is not None and best.outturn.attainment >= PUNCTUAL
        if margin > 1.0 and is_punctual:
            break
        if share != 1.0 and (best is None or not best.outturn.over):
            continue  # no interval is beyond a cap
        deployments = course_of(
            planner.program,
            experiment.workload.counts,
            CourseWeights(experiment, share),
            first,
            interval_s=config.adaptation_interval,
            reconfiguration_s=config.told_s,
            drain_s=0.0 if config.serving == "central" else POD_STAYS_S,
            margin=margin,
            besides=besides,
        )
        found = judge(deployments)
        best = found if best is None or found.rank > best.rank else best
    decides_s = config.adaptation_interval
    for plan in besides if decides_s < len(experiment.workload.counts) else ():
        found = judge([(0, first), (decides_s, plan)])
        best = found if best is None or found.rank > best.rank else best
    if best is None:
        raise InfeasibleError("no course was tried")
    return best


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """What a run could have been with the load known in advance.

    Attributes:
        static_best: the best plan that never changes; None if no plan may run.
        hindsight: the best course; None if the objective counts what no simulation knows.
        share: what the run got of what was possible.
    """

    static_best: RunMetrics | None = None
    hindsight: RunMetrics | None = None
    share: HindsightShare | None = None


def yardsticks_of(
    run: Run,
    first: Run | None = None,
    *,
    cache: Path | None = None,
    ran: Callable[[], object] = lambda: None,
) -> Yardsticks | None:
    """A run's yardsticks, from the copies of config, profile and trace in its folder.

    None if the folder does not hold them, as IPA's own do not.

    Args:
        run: what is held against them.
        first: another run that gains are counted from.
        cache: folder of the cache; None: the user's.
        ran: called after each simulation, for a progress bar.
    """
    experiment = experiment_of(run)
    if experiment is None:
        return None
    return yardsticks(experiment, run, first, cache=cache, ran=ran)


def yardsticks(
    experiment: Experiment,
    run: Run,
    first: Run | None = None,
    *,
    cache: Path | None = None,
    ran: Callable[[], object] = lambda: None,
) -> Yardsticks:
    """The yardsticks of a run that was made from an experiment; see :func:`yardsticks_of`."""
    if not is_known(experiment.planner.program.settings):
        logger.warning("%s: %s: no hindsight", run.name, why_unknown(experiment))
        return Yardsticks()
    if experiment.planner.config.sites:
        logger.warning("%s: the yardsticks are plans in one place: none for sites", run.name)
        return Yardsticks()
    name = f"hindsight-{cache_key(experiment, [], [experiment.planner.config.seed])}.json"
    found = kept_in_cache(cache, name, lambda: _courses(experiment, ran))
    courses = {kind: _course(experiment, one) for kind, one in found.items() if one}
    figures, worths = {}, {}
    for kind, course in courses.items():
        called = f"{'best static plan' if kind == 'static' else kind} of {run.name}"
        how: dict[str, Any] = {"course": course.deployments}
        if kind == "static":
            how = {"fixed": course.deployments[0][1]}
        made = run_experiment(experiment, name=called, **how)
        detail = _label(course.deployments[0][1]) if kind == "static" else None
        figures[kind] = replace(metrics(made), detail=detail)
        worths[kind] = worth(experiment, course, outturn_of_run(figures[kind]))
    if not found["static"]:
        logger.warning("%s: no plan can run from the first second to the last", run.name)
    told = _share(experiment, run, first, worths)
    return Yardsticks(figures.get("static"), figures.get("hindsight"), told)


def held_against(
    runs: Sequence[Run | RunMetrics],
    yards: Mapping[str, Yardsticks | None],
    savings: Mapping[str, Saving] | None = None,
) -> Comparison:
    """Runs side by side, with the yardsticks and savings of some, by name."""
    known = {name: yard for name, yard in yards.items() if yard is not None}
    return compare(
        runs,
        static_best={name: yard.static_best for name, yard in known.items() if yard.static_best},
        hindsight={name: yard.hindsight for name, yard in known.items() if yard.hindsight},
        shares={name: yard.share for name, yard in known.items() if yard.share},
        savings=savings,
    )


def why_unknown(experiment: Experiment) -> str:
    """Why nobody plans over time for an objective that :func:`.worth.is_known` does not know."""
    settings = experiment.planner.program.settings
    if settings.mix:
        return "plans over time run one option a stage, this run mixes (with mix: false it has one)"
    if settings.gpus:
        return "plans over time do not cut GPUs anew"
    carbon = experiment.planner.config.carbon
    if carbon is not None and carbon.budget_grams_per_day is not None:
        return "a gram of a budget has the price that what was emitted so far gives it"
    return "no simulation says what its objective counts"


def _label(deployment: Deployment) -> str:
    return " | ".join(f"{run.option.label} x{run.replicas}" for run in deployment)


def _courses(experiment: Experiment, ran: Callable[[], object]) -> dict[str, Any]:
    """Both courses as plain JSON."""
    judge = Judge(experiment, ran)
    static = best_static(judge)
    found = {"static": static, "hindsight": best_in_hindsight(judge, static)}
    return {kind: one and _plain(experiment, one.course) for kind, one in found.items()}


def _plain(experiment: Experiment, course: Course) -> list[Any]:
    """(second, [(index of the option, replicas) a stage]) of a course."""
    stages = experiment.planner.stages
    return [
        [
            second,
            [
                [_index(stage, run.option), run.replicas]
                for stage, run in zip(stages, deployment, strict=True)
            ],
        ]
        for second, deployment in course.deployments
    ]


def _index(stage: Stage, option: Option) -> int:
    mine = (option.variant, option.allocation, option.batch)
    keys = [(one.variant, one.allocation, one.batch) for one in stage.options]
    return keys.index(mine)


def _course(experiment: Experiment, plain: Sequence[Any]) -> Course:
    stages = experiment.planner.stages
    return Course(
        tuple(
            (
                second,
                tuple(
                    DeployedStage(stage.name, stage.options[index].at(replicas), replicas)
                    for stage, (index, replicas) in zip(stages, runs, strict=True)
                ),
            )
            for second, runs in plain
        ),
        math.nan,
    )


def _share(
    experiment: Experiment, run: Run, first: Run | None, worths: dict[str, float]
) -> HindsightShare | None:
    """What the run got of what was possible; None if it is not finished, or comes to nothing."""
    reached = _worth_of_run(experiment, run)
    hindsight = worths.get("hindsight", math.nan)
    if run.status != "complete" or math.isnan(reached) or math.isnan(hindsight):
        return None
    settings = experiment.planner.program.settings
    mine = metrics(run)
    base = math.nan
    if first is not None and _is_comparable(mine, metrics(first)):
        base = _worth_of_run(experiment, first)
    found = outturn_of_run(mine)
    in_joules = settings.energy_metric == "joules_per_request"
    # Which classes came is luck that the bound does not count with.
    is_bounded = run.info.backend == "simulate" and not settings.request_classes
    return HindsightShare(
        run=run.name,
        first=None if first is None or math.isnan(base) else first.name,
        objective=reached,
        first_objective=base,
        static_objective=worths.get("static", math.nan),
        hindsight_objective=hindsight,
        bound=bound_of(experiment, found) if is_bounded else math.nan,
        energy_weight=settings.energy_weight if in_joules else 0.0,
    )


def _is_comparable(one: RunMetrics, other: RunMetrics) -> bool:
    """True if both had the same profile and load, and finished."""
    mine = (one.workload, one.profile, one.backend, one.requests)
    its = (other.workload, other.profile, other.backend, other.requests)
    return mine == its and other.status == "complete"


def _worth_of_run(experiment: Experiment, run: Run) -> float:
    """The objective of a run at the weights of an experiment; NaN if it ran what that cannot."""
    try:
        course = course_of_run(experiment, run)
    except ConfigError:
        return math.nan
    return worth(experiment, course, outturn_of_run(metrics(run)))
