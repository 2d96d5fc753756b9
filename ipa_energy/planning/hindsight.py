"""The best course over a load that is known: which plan when, every change charged.

Time goes in the steps of the adaptation interval. A *course* names one of P plans for each step; a
plan that is wanted from t_k on serves from t_k + L on, and until then what is there already serves
(:mod:`.switching`). With N_k the requests of a step of D_k seconds out of T, and w what a joule
weighs (``energy_weight`` over all requests, or over T for watts), the course maximises::

    Σ_k [ D_k/T · (alpha·A − beta·cores − gamma·b − prices) − w·(N_k·e + D_k·n·p) ]
        − Σ changes [ w·(loading + held + N_early·(e_before − e)) + beta/T · held core seconds ]

which is the objective as a whole run comes to it (:mod:`ipa_energy.frontier.worth`) and
not the mean of the decisions': joules of the run over requests of the run. It is exact over the
plans that it is given, by dynamic programming (Viterbi): P² a step.

A plan has to carry the load from t_k + L to t_{k+1}, and what is there before it the load until
then, both as the busiest stretch of half the latency SLA: what waits so long is still in time.
Where nothing can, what lacks least goes first. Of what carries the load as well, that goes first
which keeps a cap on joules (``energy_sla_joules``, a cap of grams) in most steps, changes counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipa_energy.arrays import Counts, Floats, Ints
from ipa_energy.energy import replicas_needed
from ipa_energy.optimizer.plan_building import plan_of
from ipa_energy.optimizer.problem import CONSTRAINT_RTOL, Program
from ipa_energy.optimizer.quantities import AT_LOW_END, Moment, planned_load_rps
from ipa_energy.optimizer.solve import solve
from ipa_energy.optimizer.stage_columns import throughputs
from ipa_energy.planning.switching import Switches, switches
from ipa_energy.records import Option
from ipa_energy.serving.deployment import DeployedStage, Deployment, Told, ready_after_s
from ipa_energy.workloads.trace import busiest_rps

MOST_LEVELS = 10
"""Loads across the trace at which plans are looked for."""

PLANS_A_LEVEL = 12
"""So many of the best plans at each of these loads are open at all of them."""

LACKING = 1e6
"""Weight of a request a second that a plan cannot carry: nothing in an objective comes near it."""

OVER_CAP = 0.01
"""A step beyond a cap on joules lacks as much as one that so many requests a second are too many
for: such a cap is kept at any price but that of requests."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A trace by adaptation interval; arrays of one length K.

    Attributes:
        starts_s: when each begins.
        lengths_s: how long it is.
        requests: sent in it.
        early: sent in it before new replicas can serve.
        early_rps: busiest stretch of these.
        late_rps: busiest stretch of the others.
        mean_rps: over the step.
    """

    starts_s: Ints
    lengths_s: Floats
    requests: Floats
    early: Floats
    early_rps: Floats
    late_rps: Floats
    mean_rps: Floats


def steps_of(counts_rps: Counts, interval_s: int, ready_s: float, stretch_s: float) -> Steps:
    """A trace of per-second counts by interval.

    Args:
        counts_rps: (seconds,) the trace.
        interval_s: between decisions.
        ready_s: until new replicas serve.
        stretch_s: of which the busiest counts, whole seconds from 1.
    """
    starts = np.arange(0, len(counts_rps), interval_s)
    lead = min(math.ceil(ready_s), interval_s)
    rows = []
    for start in starts:
        end = min(int(start) + interval_s, len(counts_rps))
        mine, split = counts_rps[start:end], min(int(start) + lead, end)
        early, late = counts_rps[start:split], counts_rps[split:end]
        busiest = (busiest_rps(early, stretch_s), busiest_rps(late, stretch_s))
        rows.append((end - start, mine.sum(), early.sum(), *busiest, mine.mean()))
    columns = np.array(rows, dtype=np.float64).T
    return Steps(starts, *columns)


@dataclass(frozen=True, slots=True)
class Plans:
    """What may run; arrays of one length P.

    Attributes:
        deployments: each one's configuration.
        steady: alpha·A − gamma·b − prices, its objective without cores and joules.
        cores: reserved.
        capacity_rps: pipeline requests a second that it sustains.
        latency_s: of its models.
        filling: Σ (b − 1)/m: divided by the load it is the wait for batches to fill.
        dynamic_j: above idle, of a pipeline request.
        capped_j: the same as ``energy_risk`` plans with it, which a cap counts.
        idle_w: of all replicas.
    """

    deployments: tuple[Deployment, ...]
    steady: Floats
    cores: Floats
    capacity_rps: Floats
    latency_s: Floats
    filling: Floats
    dynamic_j: Floats
    capped_j: Floats
    idle_w: Floats

    def __len__(self) -> int:
        return len(self.deployments)


def plans_of(program: Program, deployments: Sequence[Deployment]) -> Plans:
    """Configurations with their figures; joules that the profile does not have count as none."""
    rows = [_figures(program, deployment) for deployment in deployments]
    return Plans(tuple(deployments), *np.array(rows, dtype=np.float64).T)


def _figures(program: Program, deployment: Deployment) -> list[float]:
    stages = list(zip(program.stages, deployment, strict=True))
    risk = program.settings.energy_risk
    picks = [(stage, run.option, run.replicas) for stage, run in stages]
    return [
        steady_worth(program, deployment),
        sum(n * option.cpu_cores for _, option, n in picks),
        min(n * option.throughput_rps / stage.requests_per_input for stage, option, n in picks),
        sum(option.latency_s for _, option, _ in picks),
        sum((option.batch - 1) / stage.requests_per_input for stage, option, _ in picks),
        sum(s.requests_per_input * known(option.dynamic_energy_j) for s, option, _ in picks),
        sum(s.requests_per_input * known(o.planned(risk).dynamic_energy_j) for s, o, _ in picks),
        sum(n * known(option.idle_power_w) for _, option, n in picks),
    ]


def known(joules: float) -> float:
    """0 where nothing is known: only objectives without joules come so far without them."""
    return 0.0 if math.isnan(joules) else joules


def steady_worth(program: Program, deployment: Deployment) -> float:
    """alpha·A − gamma·b − prices of a configuration: what no load changes."""
    picks = [
        (stage, run.option, run.replicas)
        for stage, run in zip(program.stages, deployment, strict=True)
    ]
    terms = plan_of(picks, program.settings, program.rules, 1.0).terms
    prices = sum(value for name, value in terms.items() if name.startswith("price:"))
    return terms["accuracy"] - terms["batch"] - prices


def open_plans(program: Program, steps: Steps, margin: float) -> list[Deployment]:
    """Plans to choose from: the best at loads across the trace, and each with the replicas of all.

    Args:
        program: the pipeline's.
        steps: the trace.
        margin: by which plans carry more than the load.
    """
    demand_rps = np.maximum(steps.early_rps, steps.late_rps) * margin
    levels = np.unique(np.quantile(demand_rps, np.linspace(0, 1, MOST_LEVELS), method="higher"))
    method = "highs" if program.settings.gpus else "pareto"  # which cannot cut GPUs
    levels_rps = [planned_load_rps(float(level)) for level in levels]
    combinations: dict[tuple[tuple[str, str, int], ...], tuple[Option, ...]] = {}
    quietest_rps = planned_load_rps(float(steps.mean_rps.min()), float(steps.lengths_s.max()))
    for level in levels_rps:
        near = steps.mean_rps[demand_rps >= level]
        means = {level, min(level, planned_load_rps(float(near.min())))}
        loads: list[tuple[float, float | None]] = [(mean_rps, None) for mean_rps in means]
        if any(cap.quantity in AT_LOW_END for cap in program.caps):  # in every step
            loads += [(mean_rps, min(mean_rps, quietest_rps)) for mean_rps in means]
        for mean_rps, capped_rps in loads:
            moment = Moment(mean_rps, mean_rps, level, capped_rps=capped_rps)
            problem = program.at(moment)
            if problem.settings.mix:  # this yardstick has one option a stage
                problem = problem.under(replace(problem.settings, mix=False))
            for plan in solve(problem, method=method, top_k=PLANS_A_LEVEL).plans:
                options = tuple(stage.option for stage in plan.stages)
                key = tuple((o.variant, o.allocation.label, o.batch) for o in options)
                combinations.setdefault(key, options)
    found: dict[tuple[tuple[str, int], ...], Deployment] = {}
    for options in combinations.values():
        for level in levels_rps:
            deployment = sized(program, options, level)
            if deployment is not None:
                found.setdefault(
                    tuple((r.option.label, r.replicas) for r in deployment), deployment
                )
    return list(found.values())


def sized(program: Program, options: Sequence[Option], load_rps: float) -> Deployment | None:
    """The fewest replicas of some options that carry a load; None if they are more than allowed."""
    runs = []
    for stage, rule, chosen in zip(program.stages, program.rules, options, strict=True):
        option = next(o for o in stage.options if _names(o) == _names(chosen))
        if rule.replicas is None:
            needed = replicas_needed(stage.requests_per_input * load_rps, throughputs([option]))
            replicas, most = int(needed[0]), program.settings.scaling_cap
        else:
            replicas = most = rule.replicas
        if replicas > most:
            return None
        runs.append(DeployedStage(stage.name, option.at(replicas), replicas))
    return tuple(runs) if keeps_limits(program, runs) else None


LIMITS = ("accuracy_floor", "capacity:", "gpus:")
"""Constraints that hold or break whatever the load is."""


def keeps_limits(program: Program, deployment: Sequence[DeployedStage]) -> bool:
    """Whether a configuration is accurate enough and fits what there is."""
    settings = program.settings
    if settings.accuracy_floor is None and not (settings.capacity or settings.gpus):
        return True
    picks = [
        (stage, run.option, run.replicas)
        for stage, run in zip(program.stages, deployment, strict=True)
    ]
    checks = plan_of(picks, settings, program.rules, 1.0).certificate.checks
    return all(check.holds for check in checks if check.constraint.startswith(LIMITS))


def _names(option: Option) -> tuple[object, ...]:
    return (option.variant, option.allocation, option.batch)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a run's joules and core seconds weigh in its objective.

    Attributes:
        joule: (K,) of a joule in each step.
        core_s: of a core second.
        second: of a second at a plan's steady worth.
        most_j: (K,) joules that a request may take in each step; None: as many as it likes.
    """

    joule: Floats
    core_s: float
    second: float
    most_j: Floats | None = None


def best_course(
    steps: Steps,
    plans: Plans,
    weights: Weights,
    changes: Switches,
    *,
    first: int,
    margin: float,
    latency_sla_s: float | None,
) -> list[int]:
    """The best plan of each step, by dynamic programming; see the module.

    Args:
        steps: the trace, K steps.
        plans: what may run.
        weights: of the objective.
        changes: from each plan to each other.
        first: plan of the first step, which runs already.
        margin: by which plans carry more than the load.
        latency_sla_s: of models and waits to fill a batch.
    """
    held = weights.core_s * changes.held_core_s
    gains = gains_of(steps, plans, weights, margin=margin, latency_sla_s=latency_sla_s)
    more_j, joules_j = changes.meanwhile_j - plans.dynamic_j, changes.joules
    beyond_j = None if weights.most_j is None else beyond_cap_j(steps, plans, weights.most_j)
    least_rps = float(changes.meanwhile_rps.min())

    def cost(step: int) -> Floats:
        found: Floats = steps.early[step] * more_j
        found += joules_j
        over = None if beyond_j is None else found + beyond_j[step] > 0
        found *= weights.joule[step]
        found += held
        needed_rps = margin * steps.early_rps[step]
        if needed_rps > least_rps:
            found += LACKING * np.maximum(0.0, needed_rps - changes.meanwhile_rps)
        if over is not None:
            found += LACKING * OVER_CAP * over
        return found

    return viterbi(gains, cost, first)


def gains_of(
    steps: Steps, plans: Plans, weights: Weights, *, margin: float, latency_sla_s: float | None
) -> Floats:
    """(K, P) what each plan adds to the objective in each step, changes aside."""
    seconds, joule = steps.lengths_s[:, None], weights.joule[:, None]
    spent_j = steps.requests[:, None] * plans.dynamic_j + seconds * plans.idle_w
    steady = seconds * (weights.second * plans.steady - weights.core_s * plans.cores)
    lacking = np.maximum(0.0, margin * steps.late_rps[:, None] - plans.capacity_rps)
    if latency_sla_s is not None:
        load_rps = np.maximum(steps.mean_rps, 1.0 / steps.lengths_s)[:, None]
        delay_s = plans.latency_s + plans.filling / load_rps
        lacking = lacking + np.maximum(0.0, delay_s - latency_sla_s * (1 + 1e-12))
    found: Floats = steady - joule * spent_j - LACKING * lacking
    return found


def beyond_cap_j(steps: Steps, plans: Plans, most_j: Floats) -> Floats:
    """(K, P) joules that a plan takes beyond those that each step may; below 0 if it takes less.

    Without what changes take. A step without a request may take as many as one with one.
    """
    requests, seconds = steps.requests[:, None], steps.lengths_s[:, None]
    spent_j = requests * plans.capped_j + seconds * plans.idle_w
    found: Floats = spent_j - np.maximum(1.0, requests) * most_j[:, None] * (1 + CONSTRAINT_RTOL)
    return found


def viterbi(gains: Floats, cost: Callable[[int], Floats], first: int) -> list[int]:
    """The states of greatest total gain less costs of moving, from ``first`` on.

    Args:
        gains: (K, P) of being in a state at a step.
        cost: (P, P) of moving into a step, from row to column; asked once a step, in order.
        first: state of step 0.
    """
    best = np.full(gains.shape[1], -np.inf)
    best[first] = gains[0, first]
    came: list[Ints] = []
    states = np.arange(len(best))
    for step in range(1, len(gains)):
        through = best[:, None] - cost(step)
        came.append(through.argmax(axis=0))
        best = through[came[-1], states] + gains[step]
    at = int(best.argmax())
    course = [at]
    for back in reversed(came):
        at = int(back[at])
        course.append(at)
    return course[::-1]


def course_of(
    program: Program,
    counts_rps: Counts,
    weights: Callable[[Steps], Weights],
    start: Deployment,
    *,
    interval_s: int,
    reconfiguration_s: Told,
    drain_s: float = 0.0,
    margin: float = 1.0,
    besides: Sequence[Deployment] = (),
) -> tuple[tuple[int, Deployment], ...]:
    """What to run from which second on, had the load been known.

    Args:
        program: the pipeline's.
        counts_rps: (seconds,) the trace.
        weights: of the objective, given the steps.
        start: what runs in the first interval.
        interval_s: between decisions.
        reconfiguration_s: as :func:`~.switching.switches` takes it.
        drain_s: likewise.
        margin: by which plans carry more than the load.
        besides: configurations that may run, too.
    """
    sla_s = program.settings.latency_sla_s
    ready_s = max(ready_after_s(o, reconfiguration_s) for s in program.stages for o in s.options)
    steps = steps_of(counts_rps, interval_s, ready_s, (sla_s or 1.0) / 2)
    deployments = [start, *besides, *open_plans(program, steps, margin)]
    plans = plans_of(program, deployments)
    # What the run begins with may break a limit: it carries nothing from the first decision on.
    keep = [keeps_limits(program, each) for each in deployments]
    plans = replace(plans, capacity_rps=np.where(keep, plans.capacity_rps, -1.0))
    told = {"reconfiguration_s": reconfiguration_s, "drain_s": drain_s}
    changes = switches(program.stages, deployments, deployments, **told)  # type: ignore[arg-type]
    chosen = best_course(
        steps, plans, weights(steps), changes, first=0, margin=margin, latency_sla_s=sla_s
    )
    found = [(0, start)]
    for second, index in zip(steps.starts_s.tolist(), chosen, strict=True):
        if deployments[index] != found[-1][1]:
            found.append((second, deployments[index]))
    return tuple(found)
