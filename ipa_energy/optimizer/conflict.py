"""Why nothing is feasible, and the nearest way out.

The *conflict* is a smallest set of constraints that no plan meets together, out of each stage's
``scaling_cap:<stage>`` (or ``replicas:<stage>`` where they are fixed), ``batching_cap:<stage>``,
``allocations:<stage>`` and ``variants:<stage>``, and the pipeline's ``latency_sla_s`` and
``energy_sla_joules``. A *relaxation* changes one number and leaves the rest as it is; it is found
by solving the changed program, so it is known to help.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from ipa_energy.optimizer.ground import Ground, is_feasible
from ipa_energy.optimizer.problem import Problem, within
from ipa_energy.optimizer.relaxation import relaxations
from ipa_energy.optimizer.solution import Conflict

_MOST_TRIALS = 300
"""Sets tried when both SLAs take part; each is a program to solve. Beyond, the conflict named is
still one from which nothing can be left out, but a smaller other one may exist."""


def find_conflict(problem: Problem) -> Conflict:
    """The conflict of an infeasible problem and its relaxations, smallest change first."""
    ground = Ground(problem)
    constraints = _smallest_conflict(ground)
    return Conflict(tuple(constraints), tuple(relaxations(problem)))


def _smallest_conflict(ground: Ground) -> list[str]:
    found = [_empty_stage(ground)]
    settings = ground.problem.settings
    if settings.latency_sla_s is not None:
        found.append(_single_sla(ground, "latency_sla_s", "delay_s", settings.latency_sla_s))
    if settings.energy_sla_joules is not None:
        found.append(
            _single_sla(ground, "energy_sla_joules", "energy_j", settings.energy_sla_joules)
        )
    known = min((conflict for conflict in found if conflict), key=len, default=None)
    if settings.latency_sla_s is None or settings.energy_sla_joules is None:
        return known or []
    return _both_slas(ground, known)


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Smallest first, the empty one included."""
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


def _empty_stage(ground: Ground) -> list[str] | None:
    """The fewest limits of one stage that leave it no option."""
    found = []
    for stage, names in enumerate(ground.limits):
        for subset in _subsets(names):
            if len(ground.candidates(stage, subset)) == 0:
                found.append(list(subset))
                break
    return min(found, key=len, default=None)


def _single_sla(ground: Ground, name: str, column: str, cap: float) -> list[str] | None:
    """The fewest limits that together with one SLA leave nothing.

    The least total is a sum over the stages: for each number of limits, the limits that raise it
    most are found stage by stage.
    """
    raised: dict[int, tuple[float, list[str]]] = {0: (0.0, [])}
    for stage, names in enumerate(ground.limits):
        longer: dict[int, tuple[float, list[str]]] = {}
        for subset in _subsets(names):
            use = getattr(ground.candidates(stage, subset), column)
            least = float(use.min()) if len(use) else math.inf
            for count, (total, limits) in raised.items():
                entry = (total + least, [*limits, *subset])
                size = count + len(subset)
                if size not in longer or entry[0] > longer[size][0]:
                    longer[size] = entry
        raised = longer
    for size in sorted(raised):
        total, limits = raised[size]
        if not within(total, cap):
            return [*limits, name]
    return None


def _both_slas(ground: Ground, known: list[str] | None) -> list[str]:
    """A smallest conflict with both SLAs in it, or ``known`` if that is no larger."""
    slas = ["latency_sla_s", "energy_sla_joules"]
    limits = [name for names in ground.limits for name in names]
    if known is None:
        enforced = list(limits)
        for name in limits:  # leave out one after the other what is not needed
            without = [other for other in enforced if other != name]
            if not is_feasible(ground.with_limits(without)):
                enforced = without
        known = [*enforced, *slas]
    trials = 0
    for size in range(len(known) - len(slas)):
        for subset in itertools.combinations(limits, size):
            if not is_feasible(ground.with_limits(subset)):
                return [*subset, *slas]
            trials += 1
            if trials == _MOST_TRIALS:
                return known
    return known
