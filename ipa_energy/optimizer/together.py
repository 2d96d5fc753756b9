"""Several pipelines on one pool of GPUs, or under one capacity: planned together.

The pipelines' programs are written side by side as one: every stage keeps its candidates and
penalties, every cap counts its own pipeline's stages only, and what is maximised is the sum of the
pipelines' objectives. Pools and capacities count the stages of all. A pipeline's accuracies are
multiplied by its alpha (over its stages, for an average), so that they add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from ipa_energy.errors import ConfigError, InfeasibleError
from ipa_energy.gpu_partitions import GpuPool
from ipa_energy.optimizer.plan import Plan, build_plan
from ipa_energy.optimizer.pools import Cut, cuts_of
from ipa_energy.optimizer.problem import Problem
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
) -> Together:
    """The best plans of several pipelines that share GPUs and other resources. Exact.

    Args:
        problems: one a pipeline, each at its own moment; what it has of pools is left out.
        gpus: pools that all of them share.
        capacity: resource → units of it that all of them together may hold.
        method: the solver.

    Raises:
        ConfigError: a pipeline mixes options, or multiplies accuracies of several stages; or the
            method cannot plan for pools.
        InfeasibleError: nothing fits side by side.
    """
    alone = [replace(each, settings=replace(each.settings, gpus=())) for each in problems]
    joint = _joint(alone, gpus, capacity)
    choices = [] if joint.is_empty() else named(SOLVERS, method, kind="method")(joint, 1)
    if not choices:
        raise InfeasibleError(
            f"{len(problems)} pipelines do not fit side by side; fix: more GPUs or capacity, or"
            " looser SLAs of one of them"
        )
    left, plans = list(choices[0]), []
    for problem in alone:
        count = len(problem.stages)
        plans.append(build_plan(problem, tuple(left[:count])))
        left = left[count:]
    running = [(stage.option, stage.replicas) for plan in plans for stage in plan.stages]
    cuts = {name: cut for name, cut in cuts_of(gpus, running).items() if cut is not None}
    return Together(tuple(plans), cuts, math.fsum(plan.objective for plan in plans))


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
