r"""The optimal plan over the energy weight, over the load and over profiles, with exact thresholds.

At a fixed load a plan with gain *G* (the objective without its energy term) and energy term *E*
(per unit of weight) is worth the line :math:`G - wE`, and the optimum over all plans

.. math:: V(w) = \max_{\text{plans}} G - wE

is convex and piecewise linear in the weight *w*. Every kink is found by the exact solver alone:
where the lines of two known optimal plans cross, ask it again; either it finds nothing better and
the crossing is a threshold, or it finds a plan above it and both halves are searched in turn
(Eisner and Severance, Journal of the ACM 23, 1976). No grid of weights is involved.

The line for ever larger weights is that of the plan with the least *E*, and among those the best
*G*: two further exact decisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.arrays import Floats
from ipa_energy.as_json import fields_of
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.plan import Choice, Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem, Program, total_of
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.settings import Cap
from ipa_energy.optimizer.solve import solve
from ipa_energy.optimizer.ties import settled
from ipa_energy.planning.planner import Planner
from ipa_energy.records import Quality
from ipa_energy.tradeoff.plan_space import best_of

ENERGY = "joules_per_request"

TOLERANCE = 1e-10
"""Objectives closer than this share of their terms are equal: rounding, not a better plan."""


@dataclass(frozen=True, slots=True)
class Line:
    """A plan's objective over the energy weight w: ``gain − w·energy``.

    Attributes:
        choice: the plan.
        gain: its objective without the energy term.
        energy: its energy term per unit of weight: joules per request, or watts; or that of
            another quantity.
    """

    choice: Choice
    gain: float
    energy: float

    def at(self, weight: float) -> float:
        """The objective at a weight."""
        return self.gain - weight * self.energy


def optimal_lines(problem: Problem, quantity: str = ENERGY) -> list[tuple[float, Line]]:
    """Every plan that is optimal in a range of weights, with the weight from which it is.

    By rising weight, the first from 0; a range too narrow for an objective to tell it from a single
    weight is left out. Empty if nothing is feasible.

    Args:
        problem: the program with a weight of 0 on the quantity, which it has figures of.
        quantity: what the weight is of.
    """
    first, last = settled(problem, pareto.solve), most_frugal(problem, quantity)
    if not first or last is None:
        return []
    columns = _term(problem, quantity)
    left, right = _line(problem, columns, first[0]), _line(problem, columns, last)
    return _without_points([(0.0, left), *_between(problem, columns, left, right)])


def _between(
    problem: Problem, columns: Sequence[Floats], left: Line, right: Line
) -> list[tuple[float, Line]]:
    """(weight from which it is optimal, line) of those right of ``left``, up to ``right``."""
    if left.energy - right.energy <= TOLERANCE * abs(left.energy):
        return []
    # A plan of equal gain and less energy crosses at 0, up to rounding to its left.
    weight = max(0.0, (left.gain - right.gain) / (left.energy - right.energy))
    pairs = zip(problem.stages, columns, strict=True)
    penalty = [candidates.penalty + weight * column for candidates, column in pairs]
    choice = pareto.solve(problem.with_penalty(penalty))[0]
    middle = _line(problem, columns, choice)
    room = TOLERANCE * max(1.0, abs(left.gain), weight * abs(left.energy))
    better = middle.at(weight) - max(left.at(weight), right.at(weight)) > room
    if not better or not right.energy < middle.energy < left.energy:
        return [(weight, right)]
    return [
        *_between(problem, columns, left, middle),
        *_between(problem, columns, middle, right),
    ]


def most_frugal(problem: Problem, quantity: str = ENERGY) -> Choice | None:
    """The plan of least energy, of those the best without energy; None if nothing is feasible.

    Likewise of any other quantity.
    """
    columns = problem.columns(quantity)
    least = best_of(problem, columns, alpha=0.0)
    if least is None:
        return None
    penalty = [candidates.penalty for candidates in problem.stages]
    most = Cap("least", total_of(columns, least) * (1 + TOLERANCE), quantity, "", "a least amount")
    caps = (*(cap for cap in problem.caps if cap.quantity != quantity), most)
    return best_of(problem, penalty, alpha=problem.settings.alpha, caps=caps) or least


def _line(problem: Problem, columns: Sequence[Floats], choice: Choice) -> Line:
    return Line(choice, problem.worth(choice), total_of(columns, choice))


def _term(problem: Problem, quantity: str) -> Sequence[Floats]:
    """What a weight on a quantity multiplies: of energy joules or watts, as the settings say."""
    counted = problem.settings.energy_metric if quantity == ENERGY else quantity
    return problem.columns(counted)


def _without_points(lines: list[tuple[float, Line]]) -> list[tuple[float, Line]]:
    """Without the lines whose range is a single weight, up to rounding."""
    ends = [weight for weight, _ in lines[1:]] + [math.inf]
    kept: list[tuple[float, Line]] = []
    for (start, line), end in zip(lines, ends, strict=True):
        room = TOLERANCE * max(1.0, abs(line.gain), start * abs(line.energy))
        if (end - start) * max(abs(line.energy), TOLERANCE) > room:
            kept.append((start if kept else 0.0, line))
    return kept


def options_label(plan: Plan) -> str:
    """What a plan runs without its replicas, which follow from the load."""
    return " | ".join(stage.option.label for stage in plan.stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A range of energy weights in which one plan is optimal.

    Attributes:
        weight_from: its lower end, 0 or a threshold.
        weight_to: its upper end; infinity for the last one (null in JSON).
        options: index into :attr:`PlanMap.options`.
        plan: the plan, scored with an energy weight of 0.
    """

    weight_from: float
    weight_to: float
    options: int
    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """The segment as ``tradeoff --json`` shows it: of its plan the figures alone."""
        own, plan = fields_of(self), self.plan
        del own["plan"]
        names = ("label", "accuracy", "accuracy_raw", "cost_cores", "latency_s")
        return {
            **own,
            **{name: getattr(plan, name) for name in names},
            "replicas": [stage.replicas for stage in plan.stages],
            "joules_per_request": plan.joules_per_request,
            "energy_quality": plan.quality,
        }


@dataclass(frozen=True, slots=True)
class MapRow:
    """The optimal plans at one load, of the map or of a case.

    Attributes:
        load_rps: the load; the mean one of a trace.
        segments: by rising weight, without gaps from 0 to infinity; empty if no plan is feasible.
        reason: why it is empty; None if it is not.
    """

    load_rps: float
    segments: tuple[Segment, ...]
    reason: str | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The weights at which the optimal plan changes."""
        return tuple(segment.weight_from for segment in self.segments[1:])

    def to_json(self) -> dict[str, Any]:
        """The row as ``tradeoff --json`` shows it."""
        return {**fields_of(self), "thresholds": self.thresholds}


@dataclass(frozen=True, slots=True)
class Region:
    """Where on the map one set of options is optimal.

    Attributes:
        options: index into :attr:`PlanMap.options`.
        loads_rps: the first and the last load of a run of neighbouring loads of the map.
        weight_from, weight_to: least and greatest weight at any of them.
    """

    options: int
    loads_rps: tuple[float, float]
    weight_from: float
    weight_to: float


@dataclass(frozen=True, slots=True)
class PlanMap:
    """The optimal plan over load and weight.

    Attributes:
        options: every distinct choice of options of the study's rows (variant, allocation and batch
            a stage; replicas follow from the load), in order of first sight. Those of a trace may
            be on no row of the map.
        rows: one a load, ascending.
        energy_metric: what the weight multiplies, ``joules_per_request`` or ``watts``.
    """

    options: tuple[str, ...]
    rows: tuple[MapRow, ...]
    energy_metric: str

    @property
    def regions(self) -> tuple[Region, ...]:
        """The map with neighbouring loads of the same options merged; by options, then by load."""
        found: list[Region] = []
        for options in range(len(self.options)):
            found += _merged(options, self.rows)
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """The map as ``tradeoff --json`` shows it."""
        return {**fields_of(self), "regions": self.regions}


def _merged(options: int, rows: Sequence[MapRow]) -> list[Region]:
    found: list[Region] = []
    was_here = False
    for row in rows:
        here = [segment for segment in row.segments if segment.options == options]
        for segment in here:
            low, high = segment.weight_from, segment.weight_to
            if was_here:
                last = found.pop()
                region = Region(
                    options,
                    (last.loads_rps[0], row.load_rps),
                    min(last.weight_from, low),
                    max(last.weight_to, high),
                )
            else:
                region = Region(options, (row.load_rps, row.load_rps), low, high)
            found.append(region)
            was_here = True
        was_here = bool(here)
    return found


def plan_map(
    program: Program, loads_rps: Sequence[float], options: dict[str, int] | None = None
) -> PlanMap:
    """The map of a program over these loads.

    Args:
        program: with an energy weight of 0, of a profile with joules.
        loads_rps: above 0 each; the rows come in rising order, each load once.
        options: those that other rows of the study have seen already, with their indices; new ones
            are added.
    """
    seen = {} if options is None else options
    rows = [map_row(program.at(load_rps), seen) for load_rps in sorted(set(loads_rps))]
    return PlanMap(tuple(seen), tuple(rows), program.settings.energy_metric)


def map_row(problem: Problem, options: dict[str, int], quantity: str = ENERGY) -> MapRow:
    """The optimal plans of one problem over the energy weight, or that of another quantity.

    Args:
        problem: with a weight of 0 on it; for energy, of a profile with joules.
        options: what was seen already, label → index; new ones are added.
        quantity: what the weight is of.
    """
    lines = optimal_lines(problem, quantity)
    if not lines:
        return MapRow(problem.load_rps, (), str(find_conflict(problem)))
    ends = [weight for weight, _ in lines[1:]] + [math.inf]
    segments = []
    for (start, line), end in zip(lines, ends, strict=True):
        plan = build_plan(problem, line.choice)
        index = options.setdefault(options_label(plan), len(options))
        segments.append(Segment(weight_from=start, weight_to=end, options=index, plan=plan))
    return MapRow(problem.load_rps, tuple(segments))


MOST_LOADS = 24
"""Most integers among the loads of a map that the user did not choose."""


def loads_to_map(loads_rps: Sequence[float]) -> tuple[float, ...]:
    """The loads of the study and integers from 1 to half as much again as the largest of them.

    At most :data:`MOST_LOADS` integers, evenly spread.
    """
    highest = math.ceil(1.5 * max(loads_rps))
    step = max(1, math.ceil(highest / MOST_LOADS))
    return tuple(sorted({*map(float, range(step, highest + 1, step)), 1.0, *loads_rps}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """One of the profiles that are compared.

    Attributes:
        profile: its file name, unique in the comparison.
        hardware: what it was taken on, by its rows.
        meter: meters behind its joules; None without energy.
        quality: weakest quality of them; None without energy.
        options: profiled options of all stages.
        latency_sla_s: the SLA it is planned with; IPA's own rule makes it depend on the profile.
    """

    profile: str
    hardware: str
    meter: str | None
    quality: Quality | None
    options: int
    latency_sla_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """What one profile's optimum is at one load and weight.

    Attributes:
        profile: of :attr:`HardwareComparison.profiles`.
        load_rps: the load.
        energy_weight: the weight; infinity for the least joules that any plan needs (null in JSON).
        plan: the optimal plan; None if there is none.
        reason: why there is none; None if there is one.
    """

    profile: str
    load_rps: float
    energy_weight: float
    plan: Plan | None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The pick as ``tradeoff --json`` shows it."""
        return {**fields_of(self), "label": self.plan.label if self.plan else None}


@dataclass(frozen=True, slots=True)
class HardwareComparison:
    """The profiles and their picks.

    Attributes:
        profiles: two or more, in the order of the command line.
        picks: by load, then by weight, then in the order of the profiles.
    """

    profiles: tuple[Profiled, ...]
    picks: tuple[Pick, ...]


def compare_hardware(
    planners: Sequence[Planner], loads: Sequence[Moment], energy_weight: float
) -> HardwareComparison:
    """What each planner picks at each load without energy, with the weight, and for energy alone.

    Args:
        planners: of one pipeline, each with its own profile; two or more.
        loads: the loads of the study.
        energy_weight: the YAML's; left out if it is 0.
    """
    names = profile_names([planner.profile_path for planner in planners])
    weights = sorted({0.0, energy_weight, math.inf})
    return HardwareComparison(
        profiles=tuple(
            _profiled(name, planner) for name, planner in zip(names, planners, strict=True)
        ),
        picks=tuple(
            _pick(name, planner, load, weight)
            for load in loads
            for weight in weights
            for name, planner in zip(names, planners, strict=True)
        ),
    )


def profile_names(paths: Sequence[Path]) -> list[str]:
    """File names, with as many folders before them as it takes to tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(paths):
            return names
    return [str(path) for path in paths]


def _profiled(name: str, planner: Planner) -> Profiled:
    return Profiled(
        profile=name,
        hardware=planner.hardware,
        meter=planner.meter,
        quality=planner.quality,
        options=len(planner.options),
        latency_sla_s=planner.planned.latency_sla_s,
    )


def _pick(name: str, planner: Planner, loads: Moment, weight: float) -> Pick:
    def picked(plan: Plan | None, reason: str | None = None) -> Pick:
        return Pick(
            profile=name,
            load_rps=loads.mean_rps,
            energy_weight=weight,
            plan=plan,
            reason=reason,
        )

    if weight > 0 and not planner.has_energy:
        return picked(None, "no energy in the profile")
    problem = planner.program.under(energy_weight=weight if math.isfinite(weight) else 0.0).at(
        loads
    )
    if math.isfinite(weight):
        result = solve(problem)
        return picked(result.best) if result.plans else picked(None, str(result.conflict))
    choice = most_frugal(problem)
    if choice is None:
        return picked(None, str(find_conflict(problem)))
    return picked(build_plan(problem, choice))
