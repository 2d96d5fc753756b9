"""What a controller saves at equal accuracy and punctuality, of what knowing the load would save.

For each workload the pipeline is run over a range of energy weights by each controller, and once
without energy by today's loop. Of the runs of a controller that answer as many requests in time (a
tenth of a point less at most), the mixture over the day counts that needs fewest joules at 99 % of
that run's accuracy. The plans that knew the load are held to the same. The bound is the least
joules that any run needs at that accuracy, promptness and load: J ≥ (alpha·A − bound)/w at every
weight w of an objective of accuracy and joules alone.

    python experiments/controller/study.py configs/video.yaml > experiments/controller/result.md
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ipa_energy.comparing import metrics
from ipa_energy.comparing.hull import Outcome, hull_of
from ipa_energy.errors import IpaEnergyError
from ipa_energy.experiment import Experiment, load_experiment, run_experiment
from ipa_energy.frontier.yardsticks import Judge, best_in_hindsight, best_static
from ipa_energy.planning.follower import Schedule
from ipa_energy.planning.relaxed_bound import BoundWeights, Promptness, objective_bound
from ipa_energy.registries import POLICIES

HEAD = """\
# What controllers save, beside plans that knew the load

Printed by `python experiments/controller/study.py PIPELINE…`. Savings are joules per request
against the same pipeline without energy in its objective by `controller: interval`, at 99 % of
its accuracy and with as many requests in time (a tenth of a point less at most), by mixing over
the day runs at the energy weights {weights}. *hindsight* is the best course of plans over the
known load, every change paid for, at least 99.5 % in time; the *bound* is the least joules at
which anything reaches that accuracy and promptness, proven and far from reachable. *Known minute*
is `controller: horizon` with the predictor `oracle`: what a perfect forecast would be worth;
*and no start* has it with `reconfiguration_s: 0` besides. Baselines run once, without
energy, whatever accuracy they come to. Joules are estimated (`cpu-time`); one seed.
"""

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)
STATIC_WEIGHTS = (0.5, 2.0)
"""Fewer, since the best static plan is searched by simulation."""
HINDSIGHT_WEIGHTS = (1.0, 1.5, 2.0, 3.0, 3.5, 4.0, 5.0)
"""Without a price of cores a joule has to weigh more for the same plans."""

WORKLOADS = ("bursty", "fluctuating", "steady-low", "steady-high")
TRACES_DAMPED_BY = 8
LEAST_ACCURACY = 0.99
ROOM = 0.001


@dataclass(frozen=True, slots=True)
class Row:
    """What one way of deciding came to at one weight."""

    joules: float
    accuracy: float
    attainment: float


def run_row(experiment: Experiment) -> Row:
    """A whole run."""
    found = metrics(run_experiment(experiment))
    return Row(found.joules_per_request, found.accuracy_mean, found.sla_attainment)


def course_row(experiment: Experiment, schedule: Schedule) -> Row:
    """A run of plans that were decided in advance."""
    found = metrics(run_experiment(experiment, course=schedule))
    return Row(found.joules_per_request, found.accuracy_mean, found.sla_attainment)


def hindsight_row(experiment: Experiment) -> Row:
    """The best course of plans that knew the load, for accuracy and joules alone."""
    alone = load_alone(experiment)
    return course_row(alone, best_in_hindsight(Judge(alone), None).course.deployments)


def static_row(experiment: Experiment) -> Row:
    """The best plan that never changes."""
    found = best_static(Judge(experiment))
    if found is None:
        return Row(math.nan, math.nan, math.nan)
    ((_, plan),) = found.course.deployments
    done = metrics(run_experiment(experiment, fixed=plan))
    return Row(done.joules_per_request, done.accuracy_mean, done.sla_attainment)


def controlled(controller: str, **keys: object) -> Callable[[Experiment], Row]:
    """A run by one of the values of the YAML's key ``controller``, and other keys."""

    def row(experiment: Experiment) -> Row:
        planner = experiment.planner
        config = planner.config.model_copy(update={"controller": controller, **keys})
        return run_row(replace(experiment, planner=replace(planner, config=config)))

    return row


WAYS: dict[str, Callable[[Experiment], Row]] = {
    "interval": controlled("interval"),
    "horizon": controlled("horizon"),
    "horizon, known minute": controlled("horizon", predictor_type="oracle"),
    "horizon, known minute and no start": controlled(
        "horizon", predictor_type="oracle", reconfiguration_s=0
    ),
    "best static": static_row,
    "hindsight": hindsight_row,
}


def least(rows: Sequence[Row], base: Row) -> Row | None:
    """The mixture over the day of fewest joules that is as accurate and punctual; None if none is.

    Its share in time is the least of its parts.
    """
    outcomes = [
        Outcome(
            label=f"{index}",
            accuracy=row.accuracy,
            joules_per_request=row.joules,
            sla_attainment=row.attainment,
        )
        for index, row in enumerate(rows)
    ]
    hull = hull_of(outcomes, base.attainment - ROOM)
    floor = LEAST_ACCURACY * base.accuracy
    joules = hull.joules_at(floor)
    if math.isnan(joules):
        return None
    below = [one for one in hull.corners if one.accuracy <= floor][-1:]
    above = [one for one in hull.corners if one.accuracy >= floor][:1]
    attainment = min(one.sla_attainment for one in (*below, *above))
    return Row(joules, max(floor, hull.corners[0].accuracy), attainment)


def bound_joules(experiments: Sequence[Experiment], base: Experiment, accuracy: float) -> float:
    """Least joules per request at an accuracy, by the bounds at all weights.

    With accuracy alone and joules in the objective nothing exceeds alpha·A − w·J, so J is at least
    (alpha·A − bound)/w at every w: of decisions on the grid of the interval that answer as many
    requests in time.
    """
    run = metrics(run_experiment(base))
    late = math.ceil((1 - run.sla_attainment + ROOM) * run.requests)
    sla_s = base.planner.planned.latency_sla_s
    prompt = Promptness(answered=run.requests, delay_s=sla_s, late=late)
    least_j = 0.0
    for experiment in experiments:
        settings = experiment.planner.program.settings
        if settings.energy_weight == 0:
            continue
        alone = load_alone(experiment).planner
        bound = objective_bound(
            alone.stages,
            alone.program.settings,
            base.workload.counts,
            BoundWeights(settings.energy_weight / run.requests, 0.0),
            prompt,
            interval_s=alone.config.adaptation_interval,
            reconfiguration_s=alone.config.told_s,
        )
        least_j = max(least_j, (settings.alpha * accuracy - bound) / settings.energy_weight)
    return least_j


def load_alone(experiment: Experiment) -> Experiment:
    """The same with nothing but accuracy and joules in the objective."""
    from ipa_energy.planning.planner import planner_of

    planner = experiment.planner
    changes = {"beta": 0.0, "gamma": 0.0, "prices": None, "normalize_accuracy": False}
    config = planner.config.model_copy(update=changes)
    alone = planner_of(config, planner.stages, planner.profile_path, planner.carbon)
    return replace(experiment, planner=alone)


def section(pipeline: Path, workload: str, baselines: Sequence[str]) -> list[str]:
    """The table of one workload: one of the generators, or a file of IPA's trace."""
    asked: dict[str, object] = {"workload_type": workload}
    if workload.endswith(".csv"):
        read = {"path": str(Path(workload).resolve()), "damping_factor": TRACES_DAMPED_BY}
        asked = {"workload_type": "csv", "workload_config": read}
    at = {
        weight: load_experiment(pipeline, {**asked, "energy_weight": weight})
        for weight in sorted({*WEIGHTS, *STATIC_WEIGHTS, *HINDSIGHT_WEIGHTS})
    }
    base = run_row(at[0.0])
    lines = [
        f"## {pipeline.stem}, {at[0.0].workload.name}",
        "",
        f"Without energy, by intervals: {base.joules:.4f} J a request, accuracy"
        f" {base.accuracy:.4f}, {100 * base.attainment:.1f} % in time.",
        "",
        "| way | J/request | saving | accuracy | in time |",
        "|---|---|---|---|---|",
    ]
    for name, way in WAYS.items():
        weights = {"hindsight": HINDSIGHT_WEIGHTS, "best static": STATIC_WEIGHTS}.get(name, WEIGHTS)
        best = least([way(at[weight]) for weight in weights], base)
        lines.append(_line(name, best, base))
    for policy in baselines:
        try:
            row = run_row(load_experiment(pipeline, asked, policy=policy))
        except IpaEnergyError as error:  # a baseline that cannot run says so in its row
            lines.append(f"| {policy} | {error} | | | |")
            continue
        lines.append(_line(policy, row, base))
    bound_j = bound_joules([*at.values()], at[0.0], LEAST_ACCURACY * base.accuracy)
    lines.append(f"| bound | {bound_j:.4f} | {_saved(bound_j, base)} | | |")
    return [*lines, ""]


def _line(name: str, row: Row | None, base: Row) -> str:
    if row is None:
        return f"| {name} | none is as accurate and punctual | | | |"
    return (
        f"| {name} | {row.joules:.4f} | {_saved(row.joules, base)} |"
        f" {row.accuracy:.4f} | {100 * row.attainment:.2f} % |"
    )


def _saved(joules: float, base: Row) -> str:
    return f"{100 * (1 - joules / base.joules):.1f} %"


def main() -> None:
    """Print a table a workload."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pipeline", type=Path, nargs="+")
    parser.add_argument("--workload", nargs="+", default=list(WORKLOADS), help="name or CSV file")
    options = parser.parse_args()
    baselines = [name for name in POLICIES if name != "ipa"]
    print(HEAD.format(weights=", ".join(f"{weight:g}" for weight in WEIGHTS)))
    for pipeline in options.pipeline:
        for workload in options.workload:
            print("\n".join(section(pipeline, workload, baselines)), flush=True)


if __name__ == "__main__":
    main()
