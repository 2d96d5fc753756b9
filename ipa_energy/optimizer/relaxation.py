"""The nearest value of one setting with which an infeasible program becomes feasible."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ipa_energy.optimizer.ground import is_feasible, least_total
from ipa_energy.optimizer.problem import Problem, Program, Settings, StageRules
from ipa_energy.optimizer.solution import Relaxation


def relaxations(problem: Problem) -> list[Relaxation]:
    """Every single change that helps, the smallest relative change first."""
    found = [*_slas(problem), *_caps(problem), *_replicas(problem)]
    return sorted(found, key=_relative_change)


def _relative_change(relaxation: Relaxation) -> float:
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


def _slas(problem: Problem) -> Iterable[Relaxation]:
    settings = problem.settings
    if settings.latency_sla_s is not None:
        needed = least_total(problem, "delay_s")
        if needed is not None:
            text = f"a latency SLA of at least {rounded_up(needed)} s"
            yield Relaxation("latency_sla_s", settings.latency_sla_s, needed, text)
    if settings.energy_sla_joules is not None:
        needed = least_total(problem, "energy_j")
        if needed is not None:
            text = f"an energy SLA of at least {rounded_up(needed)} J"
            if settings.energy_risk == "upper":
                text += " (upper ends of the 95 % intervals)"
            yield Relaxation("energy_sla_joules", settings.energy_sla_joules, needed, text)


def _caps(problem: Problem) -> Iterable[Relaxation]:
    settings = problem.settings
    for name, values in (
        ("scaling_cap", _replicas_needed(problem)),
        ("batching_cap", _batches(problem)),
    ):
        current = getattr(settings, name)

        def helps(cap: int, name: str = name) -> bool:
            changed = dataclasses.replace(settings, **{name: cap})  # type: ignore[arg-type]
            return is_feasible(_rebuilt(problem, changed, problem.rules))

        needed = _least(sorted(value for value in values if value > current), helps)
        if needed is not None:
            text = f"a {name} of at least {needed}"
            yield Relaxation(name, current, needed, text)


def _least(values: Sequence[int], helps: Callable[[int], bool]) -> int | None:
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


def _replicas(problem: Problem) -> Iterable[Relaxation]:
    """For a stage with fixed replicas: the nearest number that helps, more or fewer.

    More replicas let options in only at the numbers that options need, and cost joules in between;
    fewer save joules, so every smaller number is tried.
    """
    for index, rules in enumerate(problem.rules):
        current = rules.replicas
        if current is None:
            continue

        def helps(count: int, index: int = index) -> bool:
            changed = list(problem.rules)
            changed[index] = dataclasses.replace(changed[index], replicas=count)
            return is_feasible(_rebuilt(problem, problem.settings, changed))

        more = sorted(n for n in _needed_by(problem, index) if n > current)
        fewer = range(current - 1, 0, -1)
        found = [next((n for n in side if helps(n)), None) for side in (more, fewer)]
        nearest = min(
            (n for n in found if n is not None), key=lambda n: abs(n - current), default=0
        )
        if nearest:
            name = problem.stages[index].stage.name
            text = f"{nearest} replicas of stage {name} instead of {current}"
            yield Relaxation(f"replicas:{name}", current, nearest, text)


def _rebuilt(problem: Problem, settings: Settings, rules: Sequence[StageRules]) -> Problem:
    stages = [candidates.stage for candidates in problem.stages]
    return Program(stages, settings, rules).at(problem.load_rps)


def _needed_by(problem: Problem, index: int) -> set[int]:
    """Replicas that the options of a stage need, each by equation (2)."""
    stage = problem.stages[index].stage
    load_rps = stage.requests_per_input * problem.load_rps
    return {math.ceil(load_rps / option.throughput_rps) for option in stage.options} | {
        int(n) for n in np.unique(problem.stages[index].replicas)
    }


def _replicas_needed(problem: Problem) -> set[int]:
    stages = range(len(problem.stages))
    return set().union(
        *(_needed_by(problem, index) for index in stages if problem.rules[index].replicas is None)
    )


def _batches(problem: Problem) -> set[int]:
    return {option.batch for candidates in problem.stages for option in candidates.stage.options}
