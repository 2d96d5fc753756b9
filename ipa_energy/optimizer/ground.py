"""A problem with any of its limits taken away: the ground on which conflicts are looked for."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from ipa_energy.arrays import Floats, Ints, Mask
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.problem import Candidates, Problem, Program, Settings, StageRules
from ipa_energy.records import Stage

Resource = Literal["delay_s", "energy_j"]


def is_feasible(problem: Problem) -> bool:
    """True if some plan meets every constraint."""
    if problem.is_empty():
        return False
    stages = [
        dataclasses.replace(candidates, penalty=np.zeros(len(candidates)))
        for candidates in problem.stages
    ]
    return bool(pareto.solve(_with(problem, stages, alpha=0.0)))


def least_total(problem: Problem, resource: Resource) -> float | None:
    """The least seconds or joules in all that the other constraints allow; None if nothing does."""
    if problem.is_empty():
        return None
    stages = [
        dataclasses.replace(candidates, penalty=getattr(candidates, resource))
        for candidates in problem.stages
    ]
    own = {"delay_s": "latency_sla_s", "energy_j": "energy_sla_joules"}[resource]
    choices = pareto.solve(_with(problem, stages, alpha=0.0, **{own: None}))
    if not choices:
        return None
    return sum(
        float(candidates.penalty[index])
        for candidates, index in zip(stages, choices[0], strict=True)
    )


def _with(problem: Problem, stages: Sequence[Candidates], **settings: float | None) -> Problem:
    changed = dataclasses.replace(problem.settings, **settings)  # type: ignore[arg-type]
    return dataclasses.replace(problem, stages=tuple(stages), settings=changed)


class Ground:
    """Every option of every stage, and which of them each limit takes away.

    Attributes:
        problem: the problem as it is.
        limits: per stage, the names of the limits that take something away.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        stages = [candidates.stage for candidates in problem.stages]
        unlimited = dataclasses.replace(
            problem.settings, scaling_cap=sys.maxsize, batching_cap=sys.maxsize
        )
        free = [StageRules() for _ in stages]
        fixed = [StageRules(replicas=rules.replicas) for rules in problem.rules]
        self._free = Program(stages, unlimited, free).at(problem.load_rps).stages
        self._fixed = Program(stages, unlimited, fixed).at(problem.load_rps).stages
        self._allowed: list[dict[str, Mask]] = []
        self.limits: list[tuple[str, ...]] = []
        for candidates, rules in zip(self._free, problem.rules, strict=True):
            allowed = _allowed(candidates, rules, problem.settings)
            self._allowed.append(allowed)
            self.limits.append(tuple(name for name, kept in allowed.items() if not kept.all()))
            if rules.replicas is not None:
                self.limits[-1] += (f"replicas:{candidates.stage.name}",)

    def candidates(self, stage: int, limits: Collection[str]) -> Candidates:
        """What a stage has left under these limits (names of other stages' limits are ignored)."""
        fixed = f"replicas:{self._free[stage].stage.name}" in limits
        base = self._fixed[stage] if fixed else self._free[stage]
        kept = np.ones(len(self._free[stage]), dtype=bool)
        for name, allowed in self._allowed[stage].items():
            if name in limits:
                kept &= allowed
        # Every option is in the free table, in order: its position is the option's index.
        return _select(base, np.flatnonzero(kept[base.option_index]))

    def with_limits(self, limits: Collection[str]) -> Problem:
        """The problem with only these limits, and its SLAs."""
        stages = tuple(self.candidates(stage, limits) for stage in range(len(self._free)))
        return dataclasses.replace(self.problem, stages=stages)


def _allowed(candidates: Candidates, rules: StageRules, settings: Settings) -> dict[str, Mask]:
    stage: Stage = candidates.stage
    options = stage.options
    allowed = {
        f"batching_cap:{stage.name}": _bools([o.batch <= settings.batching_cap for o in options])
    }
    if rules.replicas is None:
        allowed[f"scaling_cap:{stage.name}"] = candidates.replicas <= settings.scaling_cap
    if rules.variants is not None:
        allowed[f"variants:{stage.name}"] = _bools([o.variant in rules.variants for o in options])
    if rules.allocations is not None:
        allowed[f"allocations:{stage.name}"] = _bools([rules.allows_allocation(o) for o in options])
    return allowed


def _bools(values: Sequence[bool]) -> Mask:
    return np.array(values, dtype=bool)


def _select(candidates: Candidates, index: Ints) -> Candidates:
    def some(column: Floats) -> Floats:
        return column[index]

    return Candidates(
        stage=candidates.stage,
        option_index=candidates.option_index[index],
        replicas=candidates.replicas[index],
        accuracy=some(candidates.accuracy),
        delay_s=some(candidates.delay_s),
        energy_j=some(candidates.energy_j),
        penalty=some(candidates.penalty),
    )
