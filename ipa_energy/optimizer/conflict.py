"""Why nothing is feasible, and the nearest way out.

The *conflict* is a smallest set of constraints that no plan meets together, out of each stage's
``scaling_cap:<stage>`` (or ``replicas:<stage>`` where they are fixed), ``batching_cap:<stage>``,
``allocations:<stage>`` and ``variants:<stage>``, and the problem's caps (``latency_sla_s``,
``energy_sla_joules``, ``accuracy_floor``, ``capacity:<resource>``, ``gpus:<pool>`` …). A
*relaxation* changes one number and leaves the rest as it is; it is found by solving the changed
program, so it is known to help. Where no single one does, several that do *together* are looked
for, the least in all.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Mask
from ipa_energy.energy import replicas_needed
from ipa_energy.gpu_partitions import GpuPool
from ipa_energy.optimizer import highs, pareto
from ipa_energy.optimizer.deadline import Deadline, OutOfTimeError
from ipa_energy.optimizer.mix_solving import solve_mixed
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.pools import held
from ipa_energy.optimizer.problem import (
    Candidates,
    Problem,
    Program,
    total_of,
    within,
)
from ipa_energy.optimizer.quantities import CAPPED_JOULES
from ipa_energy.optimizer.queue_wait import EXTRA_REPLICAS
from ipa_energy.optimizer.settings import Cap, Settings
from ipa_energy.optimizer.stage_columns import StageRules, serves_all, throughputs
from ipa_energy.records import AT_SITE

_MOST_TRIALS = 300
"""Sets tried when several caps take part; each is a program to solve. Beyond, the conflict named is
still one from which nothing can be left out, but a smaller other one may exist."""

_MOST_TOGETHER = 200
"""Sets of changes tried together; beyond, a smaller change that helps too may exist."""

_MOST_SETS = 20_000
"""Sets of numbers that are put in order."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One way out of a conflict: change one limit to ``needed``, everything else as it is.

    Attributes:
        constraint: the key to change (``latency_sla_s``, ``energy_sla_joules``, ``scaling_cap`` …).
        current: its value now.
        needed: the nearest value with which some plan is feasible.
        text: the same as a sentence with units.
    """

    constraint: str
    current: float
    needed: float
    text: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why nothing is feasible.

    Attributes:
        constraints: a smallest set of constraints that cannot hold together.
        relaxations: the cheapest single changes that make the program feasible; empty if none does.
        together: changes that do so together, where no single one does; empty if nothing helps.
    """

    constraints: tuple[str, ...]
    relaxations: tuple[Relaxation, ...]
    together: tuple[Relaxation, ...] = ()

    def __str__(self) -> str:
        if not self.constraints:  # numbers that arithmetic cannot hold together, or no time
            return "no plan was found, and no constraint that stands in the way"
        names = [_in_words(name) for name in self.constraints]
        text = f"no plan can meet {' and '.join(names)}{' together' if len(names) > 1 else ''}"
        ways = " or ".join(relaxation.text for relaxation in self.relaxations)
        if self.together:
            ways = " and ".join(relaxation.text for relaxation in self.together) + ", together"
        return f"{text}; needs {ways}" if ways else text


def _in_words(constraint: str) -> str:
    """``capacity:core@GB`` as ``the capacity of core at site GB``; others are keys of the YAML."""
    resource, at, site = constraint.removeprefix("capacity:").partition(AT_SITE)
    return f"the capacity of {resource} at site {site}" if at else constraint


def find_conflict(problem: Problem, deadline: Deadline | None = None) -> Conflict:
    """The conflict of an infeasible problem and its relaxations, smallest change first.

    With a deadline what is not known by then is left out.
    """
    constraints: Sequence[str] = ()
    single: tuple[Relaxation, ...] = ()
    several: tuple[Relaxation, ...] = ()
    token = _deadline.set(deadline)
    try:
        constraints = _smallest_conflict(StageLimits(problem))
        single = tuple(relaxations(problem))
        several = () if single else tuple(together(problem))
    except OutOfTimeError:
        pass
    finally:
        _deadline.reset(token)
    return Conflict(tuple(constraints), single, several)


_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)
"""Of the search for a conflict that is going on: it solves many programs, deep down."""


def _best(problem: Problem) -> list[Choice]:
    """The best choice, if there is one.

    Raises:
        OutOfTimeError: it is not known before the deadline.
    """
    deadline = _deadline.get()
    pools = bool(problem.settings.gpus)  # which pareto does not know of
    if deadline is None:
        return highs.solve(problem) if pools else pareto.solve(problem)
    deadline.check()
    within_time = highs.within if pools else pareto.within
    found = within_time(problem, 1, deadline)
    if found.bound > -math.inf and not found.choices:
        raise OutOfTimeError
    return found.choices


def is_feasible(problem: Problem) -> bool:
    """True if some plan meets every constraint."""
    nothing = [np.zeros(len(candidates)) for candidates in problem.stages]
    return _least(problem, nothing) is not None


def least_total(problem: Problem, cap: Cap) -> float | None:
    """The least total of a cap that the other constraints allow; None if nothing does."""
    column = problem.columns(cap.quantity)
    choice = _least(problem, column, without=[cap.name])
    return None if choice is None else total_of(column, choice)


def _least(
    problem: Problem, column: Sequence[Floats], without: Collection[str] = ()
) -> Choice | None:
    """The choice with the least total of a column, whatever its accuracy, without some caps."""
    if problem.is_empty():
        return None
    caps = tuple(cap for cap in problem.caps if cap.name not in without)
    changed = dataclasses.replace(problem.with_penalty(column, alpha=0.0), caps=caps)
    return next(iter(_best(changed)), None)


class StageLimits:
    """A problem with any of its limits taken away: every option, and what each limit takes away.

    Attributes:
        problem: the problem as it is.
        names: per stage, the names of the limits that take something away.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        stages = [candidates.stage for candidates in problem.stages]
        unlimited = dataclasses.replace(
            problem.settings, scaling_cap=sys.maxsize, batching_cap=sys.maxsize
        )
        free = [StageRules(any_class=True) for _ in stages]
        fixed = [StageRules(replicas=each.replicas, any_class=True) for each in problem.rules]
        self._free = Program(stages, unlimited, free).at(problem.moment).stages
        self._fixed = Program(stages, unlimited, fixed).at(problem.moment).stages
        self._allowed: list[dict[str, Mask]] = []
        self._kept_of_fixed = [
            _allowed(candidates, rules, problem.settings)
            for candidates, rules in zip(self._fixed, problem.rules, strict=True)
        ]
        self.names: list[tuple[str, ...]] = []
        for candidates, rules in zip(self._free, problem.rules, strict=True):
            allowed = _allowed(candidates, rules, problem.settings)
            self._allowed.append(allowed)
            self.names.append(tuple(name for name, kept in allowed.items() if not kept.all()))
            if rules.replicas is not None:
                self.names[-1] += (f"replicas:{candidates.stage.name}",)

    def candidates(self, stage: int, limits: Collection[str]) -> Candidates:
        """What a stage has left under these limits (names of other stages' limits are ignored)."""
        fixed = f"replicas:{self._free[stage].stage.name}" in limits
        base = self._fixed[stage] if fixed else self._free[stage]
        kept = np.ones(len(base), dtype=bool)
        for name, allowed in (self._kept_of_fixed if fixed else self._allowed)[stage].items():
            if name in limits:
                kept &= allowed
        return base.select(np.flatnonzero(kept))

    def enforced(self, names: Collection[str]) -> Problem:
        """The problem with only these limits, caps and pools."""
        settings = self.problem.settings
        return dataclasses.replace(
            self.problem,
            stages=tuple(self.candidates(stage, names) for stage in range(len(self._free))),
            caps=tuple(cap for cap in self.problem.caps if cap.name in names),
            settings=dataclasses.replace(
                settings, gpus=tuple(each for each in settings.gpus if _pool_name(each) in names)
            ),
        )


def _pool_name(pool: GpuPool) -> str:
    return f"gpus:{pool.name}"


def _allowed(candidates: Candidates, rules: StageRules, settings: Settings) -> dict[str, Mask]:
    stage = candidates.stage
    options = [stage.options[index] for index in candidates.option_index]

    def each(kept: Iterable[bool]) -> Mask:
        return np.fromiter(kept, dtype=bool)  # an empty list alone would make an array of floats

    batches = each(o.batch <= settings.batching_cap for o in options)
    allowed = {f"batching_cap:{stage.name}": batches}
    if rules.replicas is None:
        allowed[f"scaling_cap:{stage.name}"] = candidates.replicas <= settings.scaling_cap
    if settings.request_classes:
        serving = each(serves_all(option, settings) for option in options)
        allowed[f"request_classes:{stage.name}"] = serving
    if rules.variants is not None:
        allowed[f"variants:{stage.name}"] = each(o.variant in rules.variants for o in options)
    if rules.allocations is not None:
        allowed[f"allocations:{stage.name}"] = each(rules.allows_allocation(o) for o in options)
    return allowed


def _smallest_conflict(limits: StageLimits) -> list[str]:
    caps = limits.problem.caps
    found = [_empty_stage(limits), *(_single_cap(limits, cap) for cap in caps)]
    known = min((conflict for conflict in found if conflict), key=len, default=None)
    if len(caps) < 2 and not limits.problem.settings.gpus:
        return known or []
    return _several_caps(limits, known)


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Smallest first, the empty one included."""
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


def _empty_stage(limits: StageLimits) -> list[str] | None:
    """The fewest limits of one stage that leave it no option."""
    found = []
    for stage, names in enumerate(limits.names):
        for subset in _subsets(names):
            if len(limits.candidates(stage, subset)) == 0:
                found.append(list(subset))
                break
    return min(found, key=len, default=None)


def _single_cap(limits: StageLimits, cap: Cap) -> list[str] | None:
    """The fewest limits that together with one cap leave nothing.

    The least total is a sum over the stages: for each number of limits, the limits that raise it
    most are found stage by stage.
    """
    raised: dict[int, tuple[float, list[str]]] = {0: (0.0, [])}
    for stage, names in enumerate(limits.names):
        longer: dict[int, tuple[float, list[str]]] = {}
        for subset in _subsets(names):
            use = limits.candidates(stage, subset).amounts[cap.quantity]
            least = float(use.min()) if len(use) else math.inf
            for count, (total, chosen) in raised.items():
                entry = (total + least, [*chosen, *subset])
                size = count + len(subset)
                if size not in longer or entry[0] > longer[size][0]:
                    longer[size] = entry
        raised = longer
    for size in sorted(raised):
        total, chosen = raised[size]
        if not within(total, cap.limit):
            return [*chosen, cap.name]
    return None


def _several_caps(limits: StageLimits, known: list[str] | None) -> list[str]:
    """A smallest conflict with two caps or more in it, or ``known`` if that is no larger."""
    names = [name for of_stage in limits.names for name in of_stage]
    pools = limits.problem.settings.gpus
    caps = [*(cap.name for cap in limits.problem.caps), *map(_pool_name, pools)]
    least = 1 if pools else 2  # a single cap is judged already, a single pool is not
    if known is None:
        known = [*names, *caps]
        for name in (*names, *caps):  # leave out one after the other what is not needed
            without = [other for other in known if other != name]
            if not is_feasible(limits.enforced(without)):
                known = without
    trials = 0
    for size in range(least, len(known)):
        for capped in range(min(size, len(caps)), least - 1, -1):
            for chosen in itertools.product(
                itertools.combinations(names, size - capped), itertools.combinations(caps, capped)
            ):
                conflict = [*chosen[0], *chosen[1]]
                if not is_feasible(limits.enforced(conflict)):
                    return conflict
                trials += 1
                if trials == _MOST_TRIALS:
                    return known
    return known


def relaxations(problem: Problem) -> list[Relaxation]:
    """Every single change that helps, the smallest relative change first."""
    found = [*_larger_caps(problem), *_larger_settings(problem), *_replicas(problem)]
    found += [*_more_gpus(problem), *_classes(problem)]
    return sorted(found, key=relative_change)


def _classes(problem: Problem) -> Iterator[Relaxation]:
    """Where no option of a stage serves every class of requests: without one, or with a mix."""
    settings, stages = problem.settings, [each.stage for each in problem.stages]
    classes = [each for each in settings.request_classes if each.share > 0]
    served = {
        each.name: all(any(o.of_class(each.name) for o in stage.options) for stage in stages)
        for each in classes
    }
    if all(any(serves_all(o, settings) for o in stage.options) for stage in stages):
        return
    for each in classes:
        others = tuple(
            dataclasses.replace(one, share=0.0) if one.name == each.name else one
            for one in settings.request_classes
        )
        changed = dataclasses.replace(settings, request_classes=others)
        if len(classes) > 1 and is_feasible(_rebuilt(problem, changed, problem.rules)):
            what = "" if served[each.name] else f"an option that is profiled for {each.name}, or "
            text = f"{what}a share of 0 for class {each.name} instead of {each.share:g}"
            yield Relaxation(f"request_classes:{each.name}", each.share, 0.0, text)
    if all(served.values()) and settings.accuracy_method != "multiply":
        mixed = dataclasses.replace(settings, mix=True)
        found = solve_mixed(highs.HighsSolver, _rebuilt(problem, mixed, problem.rules))
        if found.parts is not None:
            text = "mix: true, with method highs, gurobi or auto, so that each class goes where it"
            yield Relaxation("mix", 0.0, 1.0, f"{text} is served")


def together(problem: Problem) -> list[Relaxation]:
    """Changes of several numbers that help together, the least in all; empty if nothing does.

    For each set of larger numbers, the least change first, and each set of caps to be raised, the
    plan that uses least of these, each relative to its limit, within the other caps.
    """
    axes = [
        _axis("scaling_cap", problem.settings.scaling_cap, _replicas_needed(problem)),
        batching_axis(problem),
        *(
            _axis(_pool_name(pool), pool.gpus, range(_gpus_ever_needed(problem, pool) + 1))
            for pool in problem.settings.gpus
        ),
        *replica_axes(problem),
    ]
    best: tuple[float, list[Relaxation]] = (math.inf, [])
    caps = [cap.name for cap in problem.caps]
    trials = 0
    for change, numbers in by_change(axes):
        if change >= best[0] or trials >= _MOST_TOGETHER:
            break
        larger = with_numbers(problem, numbers)
        for names in () if larger.is_empty() else _subsets(caps):
            trials += 1
            raised = _raised_caps(larger, names)
            if raised is not None:
                found = [*numbers, *raised]
                best = min(best, (total_change(found), found), key=lambda way: way[0])
    return best[1] or _farthest(problem, axes)


Axis = Sequence[Relaxation]
"""What one number may be changed to."""


def _farthest(problem: Problem, axes: Sequence[Axis]) -> list[Relaxation]:
    """Everything as far as it goes: a way out where the near ones are too many to be tried."""
    numbers = [axis[-1] for axis in axes if axis]
    raised = _raised_caps(with_numbers(problem, numbers), [cap.name for cap in problem.caps])
    return [] if raised is None else [*numbers, *raised]


def by_change(axes: Sequence[Axis]) -> Iterator[tuple[float, list[Relaxation]]]:
    """Every set of changes of some of these numbers, with its total change, the least first."""
    axes = [axis for axis in axes if axis]
    most = max(2, int(_MOST_SETS ** (1 / max(1, len(axes)))))
    ways = [
        [None, *sorted(axis, key=relative_change)[: None if len(axes) < 3 else most]]
        for axis in axes
    ]
    sets = ([each for each in one if each is not None] for one in itertools.product(*ways))
    yield from sorted(((total_change(one), one) for one in sets), key=lambda each: each[0])


def _axis(name: str, current: int, values: Iterable[int]) -> Axis:
    """Larger values of a number."""
    return [number(name, current, value) for value in sorted(set(values)) if value > current]


def batching_axis(problem: Problem) -> Axis:
    """The larger batches that there are."""
    batches = {option.batch for each in problem.stages for option in each.stage.options}
    return _axis("batching_cap", problem.settings.batching_cap, batches)


def replica_axes(problem: Problem) -> Iterator[Axis]:
    """Other numbers of replicas, of each stage where they are fixed."""
    for index, rules in enumerate(problem.rules):
        if rules.replicas is not None:
            name = f"replicas:{problem.stages[index].stage.name}"
            others = {*_numbers(problem, index)} - {rules.replicas}
            yield [number(name, rules.replicas, other) for other in sorted(others)]


def with_numbers(problem: Problem, numbers: Iterable[Relaxation]) -> Problem:
    """The problem with other numbers: what :func:`number` names."""
    settings, rules = problem.settings, list(problem.rules)
    names = [each.stage.name for each in problem.stages]
    for change in numbers:
        kind, _, of = change.constraint.partition(":")
        value = int(change.needed)
        if kind == "replicas":
            at = names.index(of)
            rules[at] = dataclasses.replace(rules[at], replicas=value)
        elif kind == "gpus":
            pools = tuple(
                dataclasses.replace(pool, gpus=value) if pool.name == of else pool
                for pool in settings.gpus
            )
            settings = dataclasses.replace(settings, gpus=pools)
        else:
            settings = dataclasses.replace(settings, **{kind: value})  # type: ignore[arg-type]
    return _rebuilt(problem, settings, rules)


def number(name: str, current: int, needed: int) -> Relaxation:
    """Another ``scaling_cap``, ``batching_cap``, ``gpus:<pool>`` or ``replicas:<stage>``."""
    kind, _, of = name.partition(":")
    text = {
        "gpus": f"{needed} GPUs of {of} instead of {current}",
        "replicas": f"{needed} replicas of stage {of} instead of {current}",
    }.get(kind, f"a {name} of at least {needed}")
    return Relaxation(name, current, needed, text)


def total_change(found: Iterable[Relaxation]) -> float:
    """Sum of the relative changes; one from 0 on counts as a very large one."""
    return sum(min(relative_change(one), 1e3) for one in found)


def _raised_caps(problem: Problem, names: Collection[str]) -> list[Relaxation] | None:
    """What these caps have to be, the others kept; None if that is not enough."""
    raised = [cap for cap in problem.caps if cap.name in names]
    columns = {cap.name: problem.columns(cap.quantity) for cap in raised}
    shares = [
        sum(
            (columns[cap.name][stage] / cap.scale for cap in raised),
            start=np.zeros(len(candidates)),
        )
        for stage, candidates in enumerate(problem.stages)
    ]
    choice = _least(problem, shares, without=names)
    if choice is None:
        return None
    totals = [(cap, total_of(columns[cap.name], choice)) for cap in raised]
    return [
        other_limit(problem, cap, total) for cap, total in totals if not within(total, cap.limit)
    ]


def relative_change(relaxation: Relaxation) -> float:
    """How far a limit has to give way, on a scale where twice and half are as far."""
    if relaxation.current <= 0 or relaxation.needed <= 0:
        return math.inf
    return abs(math.log(relaxation.needed / relaxation.current))


def rounded_up(value: float, digits: int = 4) -> str:
    """``value`` with few significant digits and never less than it is: 0.83333 → ``0.8334``."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    step = 10.0**-decimals
    shown = round(value, decimals)
    if shown < value:
        shown = round(value + step, decimals)
    return f"{shown:.{max(decimals, 0)}f}".rstrip("0").rstrip(".") if decimals > 0 else f"{shown:g}"


def _larger_caps(problem: Problem) -> Iterator[Relaxation]:
    for cap in problem.caps:
        needed = least_total(problem, cap)
        if needed is not None:
            yield other_limit(problem, cap, needed)


def _more_gpus(problem: Problem) -> Iterator[Relaxation]:
    """For each pool, the fewest GPUs that help."""
    for pool in problem.settings.gpus:
        more = _axis(_pool_name(pool), pool.gpus, range(_gpus_ever_needed(problem, pool) + 1))
        yield from _least_that_helps(problem, more)


def _least_that_helps(problem: Problem, more: Axis) -> list[Relaxation]:
    """The least of ascending numbers that helps, where all above it do too."""
    found = least_of(range(len(more)), lambda at: is_feasible(with_numbers(problem, [more[at]])))
    return [] if found is None else [more[found]]


def _gpus_ever_needed(problem: Problem, pool: GpuPool) -> int:
    """So many GPUs have every slice that any plan may hold: one a slice is enough."""
    most = 0
    for stage in problem.stages:
        held_by = (
            int(stage.replicas[at])
            * sum(held(pool, name, stage.option(at)) for name in pool.slices)
            for at in range(len(stage))
        )
        most += max(held_by, default=0)
    return most


def other_limit(problem: Problem, cap: Cap, needed: float) -> Relaxation:
    """The limit that a cap would need for this total."""
    shown, current = cap.shown(needed), cap.shown(cap.limit)
    return Relaxation(cap.name, current, shown, _cap_text(problem, cap, shown))


def _cap_text(problem: Problem, cap: Cap, needed: float) -> str:
    if cap.floor is not None:
        return f"{cap.noun} of at most {-float(rounded_up(-needed)):g}"
    text = f"{cap.noun} of at least {rounded_up(needed)} {cap.unit}".rstrip()
    if cap.quantity == CAPPED_JOULES:
        text += f" (at {problem.moment.energy_cap_rps:.4g} rps, which may come)"
    if cap.name == "energy_sla_joules" and problem.settings.energy_risk == "upper":
        text += " (upper ends of the 95 % intervals)"
    return text


def _larger_settings(problem: Problem) -> Iterator[Relaxation]:
    current = problem.settings.scaling_cap
    yield from _least_that_helps(problem, _axis("scaling_cap", current, _replicas_needed(problem)))
    yield from _least_that_helps(problem, batching_axis(problem))


def least_of(values: Sequence[int], helps: Callable[[int], bool]) -> int | None:
    """The least of ascending values that helps, where all above one that helps do too."""
    if not values or not helps(values[-1]):
        return None
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if helps(values[middle]):
            high = middle
        else:
            low = middle + 1
    return values[low]


def _replicas(problem: Problem) -> Iterator[Relaxation]:
    """For a stage with fixed replicas: the nearest number that helps, more or fewer.

    More replicas let options in only at the numbers that options need, and cost joules in between,
    but for what the profile measured with more at once; fewer save joules, so every smaller number
    is tried.
    """
    for axis in replica_axes(problem):
        nearest = sorted(axis, key=lambda way: (abs(way.needed - way.current), -way.needed))
        helps = (way for way in nearest if is_feasible(with_numbers(problem, [way])))
        yield from itertools.islice(helps, 1)


def _numbers(problem: Problem, index: int) -> set[int]:
    """Replicas that a stage may be given in place of a fixed number."""
    most = max(option.most_measured for option in problem.stages[index].stage.options)
    current = problem.rules[index].replicas or 1
    return _needed_by(problem, index).union(range(1, max(most, current) + 1))


def _rebuilt(problem: Problem, settings: Settings, rules: Sequence[StageRules]) -> Problem:
    stages = [candidates.stage for candidates in problem.stages]
    return Program(stages, settings, rules).at(problem.moment)


def _needed_by(problem: Problem, index: int) -> set[int]:
    """Replicas that the options of a stage need, each by equation (2)."""
    stage = problem.stages[index].stage
    load_rps = stage.requests_per_input * problem.moment.peak_rps
    needed = replicas_needed(load_rps, throughputs(stage.options))
    queues = problem.settings.latency_model == "queue"
    more = range(EXTRA_REPLICAS + 1 if queues else 1)
    found = {int(n) + extra for n in needed for extra in more}
    return found.union(int(n) for n in problem.stages[index].replicas)


def _replicas_needed(problem: Problem) -> set[int]:
    stages = range(len(problem.stages))
    return set().union(
        *(_needed_by(problem, index) for index in stages if problem.rules[index].replicas is None)
    )
