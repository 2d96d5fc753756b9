"""Several pipelines on one pool of GPUs, or under one capacity: planned together.

The pipelines' programs are written side by side as one: every stage keeps its candidates and
penalties, every cap counts its own pipeline's stages only, and what is maximised is the sum of the
pipelines' objectives. Pools and capacities count the stages of all. A pipeline's accuracies are
multiplied by its alpha (over its stages, for an average), so that they add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.errors import ConfigError, InfeasibleError
from ipa_energy.gpu_partitions import GpuPool
from ipa_energy.optimizer.conflict import find_conflict, least_of
from ipa_energy.optimizer.plan import Choice, Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.pools import Cut, cuts_of, require_slices
from ipa_energy.optimizer.problem import Candidates, Problem
from ipa_energy.optimizer.settings import Cap, Settings, caps_of
from ipa_energy.registries import SOLVERS, named


@dataclass(frozen=True, slots=True)
class Together:
    """Plans that fit side by side.

    Attributes:
        plans: one a pipeline, each with its own certificate.
        cuts: pool → how its GPUs are cut for all of them.
        objective: the sum of the plans'.
    """

    plans: tuple[Plan, ...]
    cuts: Mapping[str, Cut]
    objective: float


def plan_together(
    problems: Sequence[Problem],
    gpus: Sequence[GpuPool] = (),
    capacity: Mapping[str, float] = MappingProxyType({}),
    method: str = "highs",
    names: Sequence[str] = (),
) -> Together:
    """The best plans of several pipelines that share GPUs and other resources. Exact.

    Args:
        problems: one a pipeline, each at its own moment; what it has of pools is left out.
        gpus: pools that all of them share.
        capacity: resource → units of it that all of them together may hold.
        method: the solver.
        names: of the pipelines, for messages; numbers where there are none.

    Raises:
        ConfigError: a pipeline mixes options, or multiplies accuracies of several stages; or the
            method cannot plan for pools, or no pipeline can hold what is shared.
        InfeasibleError: a pipeline has no plan of its own, or nothing fits side by side; the
            message has the cheapest way out.
    """
    alone = [replace(each, settings=replace(each.settings, gpus=())) for each in problems]
    _require_use(alone, gpus, capacity)
    solve = named(SOLVERS, method, kind="method")

    def solved(joint: Problem) -> list[Choice]:
        return [] if joint.is_empty() else solve(joint, 1)

    choices = solved(_joint(alone, gpus, capacity))
    if not choices:
        for number, problem in enumerate(alone):
            if not solved(problem):
                name = names[number] if names else f"pipeline {number + 1}"
                raise InfeasibleError(f"{name} has no plan of its own: {find_conflict(problem)}")
        ways = " or ".join(_ways_out(alone, gpus, capacity, solved))
        raise InfeasibleError(
            f"{len(problems)} pipelines do not fit side by side; needs"
            f" {ways or 'more of several things that they share, or looser SLAs of one of them'}"
        )
    left, plans = list(choices[0]), []
    for problem in alone:
        count = len(problem.stages)
        plans.append(build_plan(problem, tuple(left[:count])))
        left = left[count:]
    running = [(stage.option, stage.replicas) for plan in plans for stage in plan.stages]
    cuts = {name: cut for name, cut in cuts_of(gpus, running).items() if cut is not None}
    return Together(tuple(plans), cuts, math.fsum(plan.objective for plan in plans))


def _require_use(
    problems: Sequence[Problem], gpus: Sequence[GpuPool], capacity: Mapping[str, float]
) -> None:
    """Refuse to share what nothing can hold: most likely a name that is written otherwise."""
    stages = [stage.stage for problem in problems for stage in problem.stages]
    require_slices(gpus, stages)
    options = [option for stage in stages for option in stage.options]
    kinds = dict.fromkeys(option.hardware for option in options)
    resources = dict.fromkeys(name for o in options for name, _ in o.allocation.resources)
    for name, known in (
        *((pool.name, kinds) for pool in gpus),
        *((name, resources) for name in capacity),
    ):
        if name not in known:
            raise ConfigError(
                f"nothing in the pipelines holds {name}",
                where="--pool",
                allowed=", ".join(dict.fromkeys([*resources, *kinds])),
            )


_MOST_GPUS = 1024
"""More of them are not looked for in a pool."""


def _ways_out(
    problems: Sequence[Problem],
    gpus: Sequence[GpuPool],
    capacity: Mapping[str, float],
    solved: Callable[[Problem], list[Choice]],
) -> Iterator[str]:
    """The least of each shared thing that is enough, if all else stays."""
    for at, pool in enumerate(gpus):

        def helps(count: int, at: int = at) -> bool:
            more = [replace(one, gpus=count) if i == at else one for i, one in enumerate(gpus)]
            return bool(solved(_joint(problems, more, capacity)))

        found = least_of(range(pool.gpus + 1, _MOST_GPUS + 1), helps)
        if found is not None:
            yield f"{found} GPUs of {pool.name} instead of {pool.gpus}"
    for name, units in capacity.items():
        others = {other: most for other, most in capacity.items() if other != name}
        joint = _joint(problems, gpus, others)
        held = [_held(one, name) for one in joint.stages]
        stages = [
            replace(one, accuracy=np.zeros(len(one)), penalty=column)
            for one, column in zip(joint.stages, held, strict=True)
        ]
        choices = solved(replace(joint, stages=tuple(stages)))
        if choices:
            least = sum(float(c[at]) for c, at in zip(held, choices[0], strict=True))
            yield f"{least:g} units of {name} instead of {units:g}"


def _held(candidates: Candidates, resource: str) -> Floats:
    """Units of a resource that all replicas of each candidate hold."""
    options = candidates.stage.options
    units = np.array([options[at].units(resource) for at in candidates.option_index])
    return np.asarray(units * candidates.replicas, dtype=np.float64)


def _joint(
    problems: Sequence[Problem], gpus: Sequence[GpuPool], capacity: Mapping[str, float]
) -> Problem:
    settings = Settings(
        alpha=1.0,
        beta=0.0,
        gamma=0.0,
        scaling_cap=max(each.settings.scaling_cap for each in problems),
        batching_cap=max(each.settings.batching_cap for each in problems),
        gpus=tuple(gpus),
        capacity=capacity,
    )
    stages, caps = [], list(caps_of(settings))
    own = [[_own_cap(number, cap) for cap in p.caps] for number, p in enumerate(problems)]
    names = [cap.quantity for of_pipeline in own for cap in of_pipeline]
    for number, problem in enumerate(problems):
        weight = _weight(problem)
        columns = {
            mine.quantity: problem.columns(cap.quantity)
            for mine, cap in zip(own[number], problem.caps, strict=True)
        }
        for at, candidates in enumerate(problem.stages):
            none = dict.fromkeys(names, np.zeros(len(candidates)))
            mine = {name: column[at] for name, column in columns.items()}
            stages.append(
                replace(
                    candidates,
                    accuracy=weight * candidates.accuracy,
                    amounts={**candidates.amounts, **none, **mine},
                )
            )
        caps += own[number]
    return Problem(
        stages=tuple(stages),
        moment=problems[0].moment,
        settings=settings,
        rules=tuple(rule for problem in problems for rule in problem.rules),
        terms=(),
        caps=tuple(caps),
    )


def _own_cap(number: int, cap: Cap) -> Cap:
    return replace(cap, name=f"{number}:{cap.name}", quantity=f"{number}:{cap.quantity}")


def _weight(problem: Problem) -> float:
    """What an accuracy of a stage adds to the objective."""
    settings, count = problem.settings, len(problem.stages)
    if settings.mix:
        raise ConfigError("pipelines that mix options are not planned together", where="mix")
    if settings.accuracy_method == "multiply" and count > 1:
        raise ConfigError(
            "a product of accuracies does not add up with another pipeline's",
            where="accuracy_method",
            allowed="sum or average, where pipelines are planned together",
        )
    return settings.alpha / count if settings.accuracy_method == "average" else settings.alpha
