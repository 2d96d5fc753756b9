"""Why no mix is feasible, and the nearest way out: :mod:`.conflict` for ``mix: true``.

The same names and the same promise: nothing can be left out of the conflict, and a relaxation is
found by solving the changed program, one in which a cap is elastic. HiGHS does it for all methods.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.energy import replicas_needed
from ipa_energy.optimizer.conflict import (
    Conflict,
    Relaxation,
    batching_axis,
    by_change,
    least_of,
    number,
    other_limit,
    relative_change,
    replica_axes,
    total_change,
    with_numbers,
)
from ipa_energy.optimizer.deadline import Deadline, OutOfTimeError
from ipa_energy.optimizer.highs import HighsSolver
from ipa_energy.optimizer.mix_rows import Layout, linear_mix
from ipa_energy.optimizer.mix_uses import BUSY
from ipa_energy.optimizer.mixing import MixProgram
from ipa_energy.optimizer.plan import SHARE_RTOL
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.queue_wait import EXTRA_REPLICAS
from ipa_energy.optimizer.stage_columns import throughputs

_MOST_SETS = 120
"""Sets of one and two constraints that are tried before others are left out one by one."""


def find_mix_conflict(problem: Problem, deadline: Deadline | None = None) -> Conflict:
    """The conflict of an infeasible problem and its relaxations, smallest change first.

    With a deadline what is not known by then is left out.
    """
    unserved = tuple(_unserved(problem))
    if unserved:
        names = tuple(dict.fromkeys(way.constraint for way in unserved))
        return Conflict(names, unserved) if len(names) == 1 else Conflict(names, (), unserved)
    search = _Search(problem, deadline)
    constraints: tuple[str, ...] = ()
    single: list[Relaxation] = []
    together: tuple[Relaxation, ...] = ()
    try:
        constraints = tuple(search.conflict())
        single.extend(search.relaxations())
        if not single:
            together = tuple(search.together())
    except OutOfTimeError:
        pass
    return Conflict(constraints, tuple(sorted(single, key=relative_change)), together)


def _unserved(problem: Problem) -> Iterator[Relaxation]:
    """Classes of requests that no option of some stage serves, whatever the limits."""
    free = MixProgram(problem, lambda name: False)
    for index, each in free.unserved:
        stage = free.stages[index].name
        text = (
            f"an option of stage {stage} that is profiled for class {each.name}, or a share of 0"
            f" for that class instead of {each.share:g}"
        )
        yield Relaxation(f"request_classes:{each.name}", each.share, 0.0, text)


class _Search:
    """Programs with other limits, until a deadline."""

    def __init__(self, problem: Problem, deadline: Deadline | None) -> None:
        self.problem, self.deadline = problem, deadline

    def conflict(self) -> list[str]:
        """Constraints that no mix meets together, none of which can be left out."""
        names = list(_names(self.problem))
        small = itertools.chain(itertools.combinations(names, 1), itertools.combinations(names, 2))
        for few in itertools.islice(small, _MOST_SETS):
            if not self._is_feasible(few):
                return list(few)
        known = names
        for name in names:
            without = [other for other in known if other != name]
            if not self._is_feasible(without):
                known = without
        return known

    def relaxations(self) -> Iterator[Relaxation]:
        """Every single change that helps."""
        problem = self.problem
        for name in self._elastic():
            yield from self.elastic([name]) or ()
        settings = problem.settings
        batches = {option.batch for each in problem.stages for option in each.stage.options}
        found = least_of(
            sorted(batch for batch in batches if batch > settings.batching_cap),
            self._batching_helps,
        )
        if found is not None:
            yield number("batching_cap", settings.batching_cap, found)
        for index, rules in enumerate(problem.rules):
            yield from () if rules.replicas is None else self._fixed(index, rules.replicas)

    def together(self) -> list[Relaxation]:
        """Changes of several numbers that help together, the least in all that was found."""
        best: tuple[float, list[Relaxation]] = (math.inf, [])
        axes = [batching_axis(self.problem), *replica_axes(self.problem)]
        for change, numbers in itertools.islice(by_change(axes), _MOST_SETS):
            if change >= best[0]:
                break
            changed = with_numbers(self.problem, numbers)
            raised = self.elastic(self._elastic(), changed)
            if raised is not None:
                found = [*numbers, *raised]
                best = min(best, (total_change(found), found), key=lambda way: way[0])
        return best[1]

    def _elastic(self) -> list[str]:
        """Limits that a program can exceed by as little as can be."""
        pools = (f"gpus:{pool.name}" for pool in self.problem.settings.gpus)
        return [*(cap.name for cap in self.problem.caps), "scaling_cap", *pools]

    def elastic(
        self, names: Collection[str], problem: Problem | None = None
    ) -> list[Relaxation] | None:
        """What these limits have to be, by the least sum of shares of them; None: no way."""
        problem = problem or self.problem
        program = MixProgram(problem, elastic=tuple(names))
        values = self._values(program)
        if values is None:
            return None
        needed = _exceeded(program, values)
        caps = {cap.name: cap for cap in problem.caps}
        return [
            other_limit(problem, caps[name], total)
            if name in caps
            else number(name, _current(problem, name), round(total))
            for name, total in needed.items()
        ]

    def _batching_helps(self, value: int) -> bool:
        changed = with_numbers(self.problem, [number("batching_cap", 0, value)])
        return self._values(MixProgram(changed)) is not None

    def _fixed(self, index: int, current: int) -> Iterator[Relaxation]:
        """The nearest number of replicas of a stage that helps."""
        name = self.problem.stages[index].stage.name
        most = max(_replicas(self.problem), default=current) + 1
        for count in sorted(range(1, most + 1), key=lambda n: (abs(n - current), n)):
            rules = list(self.problem.rules)
            rules[index] = dataclasses.replace(rules[index], replicas=count)
            changed = dataclasses.replace(self.problem, rules=tuple(rules))
            if self._values(MixProgram(changed)) is not None:
                yield number(f"replicas:{name}", current, count)
                return

    def _is_feasible(self, names: Collection[str]) -> bool:
        program = MixProgram(self.problem, lambda name: name in names)
        return self._values(program) is not None

    def _values(self, program: MixProgram) -> Floats | None:
        """Of a program that asks for feasibility, or for the least excess of its elastic caps."""
        if self.deadline is not None:
            self.deadline.check()
        made = linear_mix(program)
        if made is None:
            return None
        solver = HighsSolver(made)
        try:
            if self.deadline is None:
                values = solver.best()
            else:
                answer = solver.best_within(self.deadline.left_s, None)
                values = answer.values
                if values is None and not answer.finished:
                    raise OutOfTimeError
        finally:
            solver.close()
        return None if values is None else np.asarray(values)


def _exceeded(mix: MixProgram, values: Floats) -> dict[str, float]:
    """Elastic limit → its total in a solution, of those that are exceeded."""
    over = values[Layout(mix).over]
    limits = {cap.name: cap.limit for cap in mix.caps}
    limits |= {name: _current(mix.problem, name) for name in mix.elastic if name not in limits}
    return {
        name: limits[name] + share * (abs(limits[name]) or 1.0)
        for name, share in zip(mix.elastic, over.tolist(), strict=True)
        if share > SHARE_RTOL
    }


def _current(problem: Problem, name: str) -> int:
    """The limit on replicas, or the GPUs of a pool."""
    pools = {f"gpus:{pool.name}": pool.gpus for pool in problem.settings.gpus}
    return pools.get(name, problem.settings.scaling_cap)


def _names(problem: Problem) -> Iterator[str]:
    """Everything that may take part in a conflict."""
    yield from (cap.name for cap in problem.caps)
    yield from (f"gpus:{pool.name}" for pool in problem.settings.gpus)
    for candidates, rules in zip(problem.stages, problem.rules, strict=True):
        name = candidates.stage.name
        yield f"batching_cap:{name}"
        yield f"{'scaling_cap' if rules.replicas is None else 'replicas'}:{name}"
        if rules.variants is not None:
            yield f"variants:{name}"
        if rules.allocations is not None:
            yield f"allocations:{name}"


def _replicas(problem: Problem) -> set[int]:
    """Replicas that single options need; a mix needs no more than the most of them.

    With room for the wait for a replica where that is planned.
    """
    queued = problem.settings.latency_model == "queue"
    room = (1 / BUSY[0], EXTRA_REPLICAS) if queued else (1.0, 1)
    found: set[int] = set()
    for candidates in problem.stages:
        stage = candidates.stage
        load_rps = stage.requests_per_input * problem.moment.peak_rps
        needed = replicas_needed(load_rps, throughputs(stage.options))
        found.update(range(1, int(needed.max() * room[0]) + room[1] + 1))
    return found
