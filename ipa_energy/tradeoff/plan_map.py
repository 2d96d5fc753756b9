r"""The optimal plan over the energy weight and over the load, with exact thresholds.

At a fixed load a plan with gain *G* (the objective without its energy term) and energy term *E*
(per unit of weight) is worth the line :math:`G - wE`, and the optimum over all plans

.. math:: V(w) = \max_{\text{plans}} G - wE

is convex and piecewise linear in the weight *w*. Every kink is found by the exact solver alone:
where the lines of two known optimal plans cross, ask it again; either it finds nothing better and
the crossing is a threshold, or it finds a plan above it and both halves are searched in turn
(Eisner and Severance, Journal of the ACM 23, 1976). No grid of weights is involved.

The line for ever larger weights is that of the plan with the least *E*, and among those the best
*G*: two further exact decisions (:mod:`.thresholds`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ipa_energy.as_json import or_none
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.solution import Plan, build_plan
from ipa_energy.tradeoff.thresholds import optimal_lines


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
        """The segment as ``tradeoff --json`` shows it."""
        plan = self.plan
        return {
            "weight_from": self.weight_from,
            "weight_to": None if math.isinf(self.weight_to) else self.weight_to,
            "options": self.options,
            "label": plan.label,
            "replicas": [stage.replicas for stage in plan.stages],
            "accuracy": plan.accuracy,
            "accuracy_raw": plan.accuracy_raw,
            "cost_cores": plan.cost_cores,
            "latency_s": plan.latency_s,
            "joules_per_request": or_none(plan.joules_per_request),
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
        return {
            "load_rps": self.load_rps,
            "thresholds": list(self.thresholds),
            "segments": [segment.to_json() for segment in self.segments],
            "reason": self.reason,
        }


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

    def to_json(self) -> dict[str, Any]:
        """The region as ``tradeoff --json`` shows it."""
        return {
            "options": self.options,
            "loads_rps": list(self.loads_rps),
            "weight_from": self.weight_from,
            "weight_to": None if math.isinf(self.weight_to) else self.weight_to,
        }


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
        return {
            "energy_metric": self.energy_metric,
            "options": list(self.options),
            "rows": [row.to_json() for row in self.rows],
            "regions": [region.to_json() for region in self.regions],
        }


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
        loads_rps: at least 1 rps each; the rows come in rising order, each load once.
        options: those that other rows of the study have seen already, with their indices; new ones
            are added.
    """
    seen = {} if options is None else options
    rows = [map_row(program.at(load_rps), seen) for load_rps in sorted(set(loads_rps))]
    return PlanMap(tuple(seen), tuple(rows), program.settings.energy_metric)


def map_row(problem: Problem, options: dict[str, int]) -> MapRow:
    """The optimal plans of one problem over the energy weight.

    Args:
        problem: with an energy weight of 0, of a profile with joules.
        options: what was seen already, label → index; new ones are added.
    """
    lines = optimal_lines(problem)
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
