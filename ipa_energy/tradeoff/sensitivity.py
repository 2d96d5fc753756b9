"""How the chosen plan depends on what was asked for and on what was measured.

Four analyses of one load, each exact for the profile it is given: the Pareto front of accuracy,
cores, latency and joules; what giving up some of the first three saves
(:func:`.exchanges_of`); what the SLAs cost (:func:`.shadow_price`); and whether the plan survives
the uncertainty of the profile's joules (:mod:`.robustness`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipa_energy.as_json import fields_of
from ipa_energy.errors import ConfigError, InfeasibleError
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.front import Front, FrontTooLargeError, pareto_front, thin
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem, Program, within
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.ties import settled
from ipa_energy.planning.planner import Planner
from ipa_energy.records import EnergyRisk, Quality
from ipa_energy.tradeoff.plan_space import PlanFigures, figures_of
from ipa_energy.tradeoff.prices import (
    LATENCY_S,
    Exchanges,
    ShadowPrice,
    capped,
    exchanges_of,
    shadow_price,
)
from ipa_energy.tradeoff.robustness import DRAWS, Robustness, robustness_of

POINTS_SHOWN = 20
"""Points of the front in the record; they cover it, its ends included."""

POINTS_DRAWN = 2000
"""Points of the front in its figure and CSV."""

NO_JOULES = "the profile has no joules, or not of every option"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSummary:
    """The front of raw accuracy, cores, latency and joules; without joules of the first three.

    Attributes:
        size: points.
        combinations: plans there are, feasible or not.
        has_energy: whether joules took part.
        ranges: objective → (least, most) over the front.
        shown: some of the points, by falling accuracy; objectives are those of the program.
        plans: as many of them as a figure and its CSV hold, of most fronts all.
        holds_plan: the chosen plan is on it: no feasible plan beats it in the objectives.
    """

    size: int
    combinations: int
    has_energy: bool
    ranges: dict[str, tuple[float, float]]
    shown: tuple[PlanFigures, ...]
    plans: tuple[PlanFigures, ...]
    holds_plan: bool

    def to_json(self) -> dict[str, Any]:
        """The summary as ``tradeoff --json`` shows it: without the many plans."""
        return {name: value for name, value in fields_of(self).items() if name != "plans"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """All analyses at one load.

    Attributes:
        load_rps: the load, the mean one of a trace.
        plan: the chosen plan.
        quality: of its joules; None without energy in the profile.
        energy_weight: the weight it was chosen with.
        energy_risk: the end of the joules' intervals it was chosen with; joules are those of this
            end, but for the draws of ``robustness``.
        accuracy_is_raw: False where raw accuracies cannot be multiplied and ranks stand for them.
        front, exchanges, robustness: None where ``reasons`` says why, by these names.
        shadow_prices: one an SLA or other cap.
        reasons: analysis → why it is missing.
    """

    load_rps: float
    plan: PlanFigures
    quality: Quality | None
    energy_weight: float
    energy_risk: EnergyRisk
    accuracy_is_raw: bool
    front: FrontSummary | None
    exchanges: Exchanges | None
    shadow_prices: tuple[ShadowPrice, ...]
    robustness: Robustness | None
    reasons: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The analyses as ``tradeoff --json`` shows them."""
        own = fields_of(self)
        return {"energy_quality": own.pop("quality"), **own}


def analyse(planner: Planner, load: float | Moment, *, draws: int = DRAWS) -> Sensitivity:
    """Every analysis of the plan that a pipeline's program chooses.

    Args:
        planner: the pipeline, its weights and SLAs as they are.
        load: pipeline requests per second, or the loads of a trace.
        draws: of the profile.

    Raises:
        InfeasibleError: no plan is feasible.
        ConfigError: the load is not a positive finite number.
    """
    return analyse_program(planner.program, load, seed=planner.config.seed, draws=draws)


def analyse_program(
    program: Program, load: float | Moment, *, seed: int = 0, draws: int = DRAWS
) -> Sensitivity:
    """:func:`analyse` for a program; ``seed`` is that of the draws."""
    loads = load if isinstance(load, Moment) else Moment.at(load)
    problem = program.at(loads)
    found = settled(problem, pareto.solve)
    if not found:
        raise InfeasibleError(f"at {problem.load_rps:g} rps {find_conflict(problem)}")
    choice = found[0]
    raw, is_raw = _raw_program(program)
    plan = figures_of(problem, choice)
    if not is_raw:
        plan = dataclasses.replace(plan, accuracy=build_plan(problem, choice).accuracy)
    reasons: dict[str, str] = {}
    has_energy = not any(np.isnan(stage.energy_j).any() for stage in problem.stages)
    if not has_energy:
        reasons |= {"exchanges": NO_JOULES, "robustness": NO_JOULES}
    front = exchanges = None
    try:
        whole, inside = _fronts(raw, loads)
        front = _summary(inside, problem, plan)
        exchanges = exchanges_of(whole, inside, plan) if whole.has_energy else None
    except FrontTooLargeError as error:
        reasons |= {"front": str(error), "exchanges": str(error)}
    return Sensitivity(
        load_rps=problem.load_rps,
        plan=plan,
        quality=build_plan(problem, choice).quality,
        energy_weight=program.settings.energy_weight,
        energy_risk=program.settings.energy_risk,
        accuracy_is_raw=is_raw,
        front=front,
        exchanges=exchanges,
        shadow_prices=tuple(shadow_price(problem, sla, choice) for sla in capped(problem)),
        robustness=robustness_of(problem, choice, draws=draws, seed=seed) if has_energy else None,
        reasons=reasons,
    )


def _raw_program(program: Program) -> tuple[Program, bool]:
    """The program with raw accuracies, if they can be combined as it combines them."""
    try:
        return program.under(normalize_accuracy=False), True
    except ConfigError:
        return program, False


def _fronts(program: Program, loads: Moment) -> tuple[Front, Front]:
    """The front with a latency SLA looser by what is given up of it, and its part inside the SLA.

    A point inside can only be beaten by points inside, so that part is the front as it is.
    """
    sla_s = program.settings.latency_sla_s
    looser = None if sla_s is None else sla_s + LATENCY_S
    whole = pareto_front(program.under(latency_sla_s=looser).at(loads))
    kept = [at for at, used_s in enumerate(whole.latency_s.tolist()) if within(used_s, sla_s)]
    inside = whole.select(np.array(kept, dtype=np.intp))
    return whole, dataclasses.replace(inside, full_size=len(inside))


def _summary(front: Front, problem: Problem, plan: PlanFigures) -> FrontSummary:
    columns = {
        "accuracy": front.accuracy,
        "cost_cores": front.cost_cores,
        "latency_s": front.latency_s,
    }
    if front.has_energy:
        columns["joules_per_request"] = front.joules_per_request
    same = np.ones(len(front), dtype=bool)
    for name, column in columns.items():
        same &= np.isclose(column, getattr(plan, name), rtol=EQUAL_OBJECTIVE_RTOL, atol=1e-12)

    def plans(most: int) -> tuple[PlanFigures, ...]:
        few = thin(front, most)
        return tuple(
            dataclasses.replace(
                figures_of(problem, few.choice(at)), accuracy=float(few.accuracy[at])
            )
            for at in range(len(few))
        )

    return FrontSummary(
        size=len(front),
        combinations=front.combinations,
        has_energy=front.has_energy,
        ranges={name: (float(c.min()), float(c.max())) for name, c in columns.items()},
        shown=plans(POINTS_SHOWN),
        plans=plans(POINTS_DRAWN),
        holds_plan=bool(same.any()),
    )
