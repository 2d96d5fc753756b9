r"""IPA's ``Optimizer`` with energy in it: its objective, its constraints, its brute force.

The class is decorated, and a pipeline without energy settings goes through to the method as it was.

=================  ============================================================================
``objective``      minus energy_weight·E; the joules of each task beside it
``constraints``    and the energy SLA; with ``strict_latency`` also the waits
``all_states``     the parts of the objective as columns of their own
``brute_force``    every state, and the best of them: as it stands it fails comparing mappings
``optimize``       times the decision, checks what comes out again, and knows ``ipa-energy``
=================  ============================================================================

IPA's model has binaries :math:`aux_{s,v,b}` (stage s runs variant v at batch b) and integers
:math:`n_s`. With e, p and l of the entry that (v, b) means on the variant's base allocation::

    joules of a stage       J_s = Σ_{v,b} aux·(e + n_s·p / λ_s)              objective, energy SLA
    latency of a stage      L_s = Σ_{v,b} aux·(l + (b − 1) / λ_s)            strict_latency

Nothing but products of variables that are there already: no variable is added, so that IPA's
decoding of solutions by substrings of names finds only its own. λ_s is the planned load, at least
one request per second.

IPA's default gap of 1e-4 of the objective is more than most energy weights are worth, so the gap is
zero where energy or strict latency is in the program; without them the model is left alone.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Plan
from ipa_energy.optimizer.problem import Program, within
from ipa_energy.optimizer.quantities import Moment, amount_of
from ipa_energy.optimizer.settings import caps_of, terms_of
from ipa_energy.optimizer.solve import DEFAULT_METHOD
from ipa_energy.optimizer.solve import decide as solve
from ipa_energy.optimizer.stage_columns import StageRules
from ipa_energy.plugin.hooks.pipeline_energy import (
    EXACT_METHODS,
    GRAMS,
    EnergySettings,
    LastAnswer,
    PipelineEnergy,
    allocation_of,
    attach,
    current,
    energy_of,
    of_state,
)
from ipa_energy.records import Allocation, Option, Stage

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Method = Callable[..., Any]
SOLVER_ATOL = 1e-9
"""Feasibility tolerance Gurobi is given where energy is in the program."""


def _objective(inner: Method) -> Method:
    def objective(self: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        parts: dict[str, float] = inner(self, *args, **kwargs)
        energy = energy_of(self.pipeline)
        if energy is None or not energy.has_joules:
            return parts
        plan = energy.plan(current(self.pipeline))
        return parts if plan is None else with_energy(parts, plan)

    return objective


def with_energy(parts: dict[str, float], plan: Plan) -> dict[str, float]:
    """IPA's parts of the objective and energy's, and the joules of each task."""
    penalty = plan.terms["energy"]
    grams = plan.terms.get(GRAMS, 0.0)
    return {
        **parts,
        "energy_objective": penalty,
        **({"carbon_objective": grams} if GRAMS in plan.terms else {}),
        "objective": parts["objective"] - penalty - grams,
        "pipeline_joules_per_request": plan.joules_per_request,
        **{
            f"task_{index}_joules_per_request": stage.joules_per_request
            for index, stage in enumerate(plan.stages)
        },
    }


def _constraints(inner: Method) -> Method:
    def constraints(self: Any, *args: Any, **kwargs: Any) -> bool:
        if not inner(self, *args, **kwargs):
            return False
        energy = energy_of(self.pipeline)
        if energy is None or not energy.settings.changes_decisions:
            return True
        plan = energy.plan(current(self.pipeline))
        if plan is None or not energy.keeps_energy_sla(plan):
            return False
        return not energy.settings.strict_latency or within(plan.latency_s, self.pipeline.sla)

    return constraints


def _planning_for_load(inner: Method) -> Method:
    """Tell the pipeline's energy the load that a method plans for; where it counts, at least 1."""
    signature = inspect.signature(inner)

    def planning(self: Any, *args: Any, **kwargs: Any) -> Any:
        energy = energy_of(self.pipeline)
        if energy is None:
            return inner(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        energy.plan_for(bound.arguments["arrival_rate"])
        if energy.settings.changes_decisions:
            # Joules per request and waits have no meaning without requests.
            bound.arguments["arrival_rate"] = max(1, bound.arguments["arrival_rate"])
        return inner(*bound.args, **bound.kwargs)

    return planning


def _all_states(inner: Method) -> Method:
    planning = _planning_for_load(inner)

    def all_states(self: Any, *args: Any, **kwargs: Any) -> pd.DataFrame:
        states: pd.DataFrame = planning(self, *args, **kwargs)
        return states if energy_of(self.pipeline) is None else _flat(states)

    return all_states


def _flat(states: pd.DataFrame) -> pd.DataFrame:
    """The mappings in column ``objective`` as columns; IPA's brute force leaves them so."""
    if "objective" not in states or not isinstance(states["objective"].iloc[0], dict):
        return states
    import pandas as pd  # IPA has it; this package needs it nowhere else

    parts = pd.DataFrame(states["objective"].tolist(), index=states.index)
    rest = states.drop(columns="objective")
    return rest.drop(columns=[name for name in parts if name in rest]).join(parts)


def _brute_force(inner: Method) -> Method:
    signature = inspect.signature(inner)

    def brute_force(self: Any, *args: Any, **kwargs: Any) -> pd.DataFrame:
        given = signature.bind(self, *args, **kwargs).arguments
        limit = given.get("num_state_limit")
        call = {key: value for key, value in given.items() if key != "self"}
        # A limit on the states looked at would make the first one the best.
        call["num_state_limit"] = limit if self.random_sample else None
        states = _flat(self.all_states(check_constraints=True, **call))
        energy = energy_of(self.pipeline)
        if states.empty:
            return states
        if energy is not None:
            batches = states[[f"task_{index}_batch" for index in range(self.pipeline.num_nodes)]]
            states = states[(batches <= energy.settings.batching_cap).all(axis="columns")]
        if states.empty:
            return states.iloc[:0, :0]
        best = states["objective"].max()
        room = EQUAL_OBJECTIVE_RTOL * max(1.0, abs(best))
        optimal: pd.DataFrame = states[states["objective"] >= best - room]
        return optimal.iloc[:limit].reset_index(drop=True)

    return brute_force


def _optimize(inner: Method) -> Method:
    signature = inspect.signature(inner)

    def optimize(self: Any, *args: Any, **kwargs: Any) -> pd.DataFrame:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        method = given["optimization_method"]
        energy = energy_of(self.pipeline)
        if energy is None and method in EXACT_METHODS:
            energy = attach(self.pipeline, EnergySettings())
        if energy is None:
            plain: pd.DataFrame = inner(self, *args, **kwargs)
            return plain
        start = time.perf_counter()
        energy.begin(given)
        conflict = None
        if method in EXACT_METHODS:
            import pandas as pd

            states, conflict = decided(self, energy, given)
            penalty = states[0].get("energy_objective") if states else None
            optimal = pd.DataFrame(states)
        else:
            optimal = _checked(inner(self, *args, **kwargs), self.pipeline, energy)
            penalties = optimal.get("energy_objective")
            penalty = None if penalties is None else float(penalties.iloc[0])
        decision_s = time.perf_counter() - start
        energy.last_answer = LastAnswer(method, decision_s, penalty, conflict)
        return optimal

    return optimize


OPTIMIZER: dict[str, Callable[[Method], Method]] = {
    "objective": _objective,
    "constraints": _constraints,
    "all_states": _all_states,
    "brute_force": _brute_force,
    "gurobi_optmizer": _planning_for_load,
    "optimize": _optimize,
}
"""Methods of IPA's ``Optimizer`` → what wraps them."""


def _checked(optimal: pd.DataFrame, pipeline: Any, energy: PipelineEnergy) -> pd.DataFrame:
    """The plans that keep every constraint of ours, recomputed from the profile alone.

    An unstrict plan that breaks the latency SLA stays, as in IPA, with a warning.
    """
    if "objective" not in optimal.columns:
        return optimal
    sla_s = pipeline.sla
    kept = [
        position
        for position, (_, state) in enumerate(optimal.iterrows())
        if _is_kept(energy, energy.plan(of_state(pipeline, state)), sla_s)  # type: ignore[arg-type]
    ]
    if len(kept) == len(optimal):
        return optimal
    # Without a column either, as IPA's own answer where nothing is feasible.
    return optimal.iloc[kept].reset_index(drop=True) if kept else optimal.iloc[:0, :0]


def _is_kept(energy: PipelineEnergy, plan: Plan | None, sla_s: float) -> bool:
    if plan is None:
        return True
    settings = energy.settings
    is_late = plan.latency_s > sla_s + SOLVER_ATOL
    if settings.strict_latency and is_late:
        logger.warning("a plan of %.6g s breaks the latency SLA of %.6g s", plan.latency_s, sla_s)
        return False
    cap_j, joules = settings.energy_sla_joules, plan.planned_joules_per_request
    if cap_j is not None and not joules <= cap_j + SOLVER_ATOL:
        logger.warning("a plan of %s J breaks the energy SLA of %.6g J", joules, cap_j)
        return False
    cap_g = settings.caps.get(GRAMS)
    if cap_g is not None and not plan.amounts[GRAMS] <= cap_g + SOLVER_ATOL:
        logger.warning(
            "a plan of %s g breaks carbon.sla_grams of %.6g g", plan.amounts[GRAMS], cap_g
        )
        return False
    if is_late:
        logger.warning(
            "at %g rps %s takes %.4g s with its waits, over the latency SLA of %.4g s: IPA's"
            " constraint does not see the waits; set strict_latency: true",
            energy.load_rps,
            plan.label,
            plan.latency_s,
            sla_s,
        )
    return True


# ------------------------------------------------------------------ in the Gurobi model


@dataclass(frozen=True, slots=True)
class _Pick:
    """One binary of the model with the entry it stands for, as ``energy_risk`` plans with it.

    The entry is None if the profile has no such.
    """

    binary: Any
    replicas: Any
    stage: Stage
    option: Option | None


def add_to_model(
    pipeline: Any,
    model: Any,
    replicas: Mapping[str, Any],
    picks: Mapping[tuple[str, str, int], Any],
    allocations: Mapping[str, Mapping[str, float]],
) -> None:
    """Add the energy term, the energy SLA and the strict latency constraint that are set.

    Args:
        pipeline: IPA's, with :class:`PipelineEnergy` on it or without.
        model: Gurobi's, updated, its objective set.
        replicas: stage → n.
        picks: (stage, variant, batch) → aux.
        allocations: stage → variant → base allocation.
    """
    energy = energy_of(pipeline)
    if energy is None or not energy.settings.changes_decisions:
        return
    found = list(_picks(energy, replicas, picks, allocations))
    for pick in found:
        if pick.option is None:
            model.addConstr(pick.binary == 0, name="not-profiled")
    moment = energy.moment
    for term in terms_of(energy.settings):
        if term.name in ("energy", GRAMS):
            penalty = term.weight * _total(term.quantity, found, moment)
            model.setObjective(model.getObjective() - penalty, model.ModelSense)
    sla_s = pipeline.sla if energy.settings.strict_latency else None
    for cap in caps_of(replace(energy.settings, latency_sla_s=sla_s)):
        model.addConstr(_total(cap.quantity, found, moment) <= cap.limit, name=cap.name)
    model.Params.MIPGap = 0.0
    model.Params.MIPGapAbs = 0.0
    model.Params.OptimalityTol = SOLVER_ATOL
    model.Params.FeasibilityTol = SOLVER_ATOL
    model.Params.IntFeasTol = SOLVER_ATOL


def _picks(
    energy: PipelineEnergy,
    replicas: Mapping[str, Any],
    picks: Mapping[tuple[str, str, int], Any],
    allocations: Mapping[str, Mapping[str, float]],
) -> Iterator[_Pick]:
    stages = {stage.name: at for at, stage in enumerate(energy.stages)}
    for (name, variant, batch), binary in picks.items():
        at = stages[name]
        held = float(allocations[name][variant])
        option = energy.entries[at].get((variant, held, int(batch)))
        if option is not None:
            option = option.planned(energy.settings.energy_risk)
        yield _Pick(binary, replicas[name], energy.stages[at], option)


def _total(quantity: str, picks: Iterable[_Pick], moment: Moment) -> Any:
    """A quantity of whatever is picked, an expression."""
    amount = amount_of(quantity)
    return sum(
        pick.binary * amount(pick.option, pick.replicas, pick.stage, moment)
        for pick in picks
        if pick.option is not None
    )


# ------------------------------------------------------------------ our own solver


def decided(
    optimizer: Any, energy: PipelineEnergy, given: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], str | None]:
    """The equally good best plans of our solver, at most ``num_state_limit``, as rows of states.

    The pipeline becomes a program once, with IPA's own SLA and base allocations in it; every
    decision then asks that program at a load, and the pipeline is left set to the first plan. The
    latency constraint is the paper's: waits are always charged, whatever ``strict_latency`` says.

    Args:
        optimizer: IPA's.
        energy: of its pipeline, which has begun this decision.
        given: the arguments of IPA's ``optimize``.

    Returns:
        the states, empty if nothing is feasible, and then the conflict.
    """
    method = given["optimization_method"]
    result = solve(
        _program(optimizer, energy),
        energy.moment,
        DEFAULT_METHOD if method == "ipa-energy" else method,
        given["num_state_limit"] or 1,
    )
    if not result.plans:
        return [], str(result.conflict)
    plans = result.equally_good
    if optimizer.complete_profile:
        states = []
        for plan in plans:
            _set_to(optimizer.pipeline, plan)
            states.append(_complete(optimizer.pipeline, given) | _state(optimizer.pipeline, plan))
    else:
        states = [_state(optimizer.pipeline, plan) for plan in plans]
    _set_to(optimizer.pipeline, plans[0])
    return states, None


def _program(optimizer: Any, energy: PipelineEnergy) -> Program:
    """The program of these weights and caps, built when they are first asked for."""
    pipeline, mode, settings = optimizer.pipeline, optimizer.baseline_mode, energy.settings
    fixed = {"scale": "active_variant", "switch": "replicas"}.get(mode)
    key = (
        (settings.alpha, settings.beta, settings.gamma),
        (settings.scaling_cap, settings.batching_cap),
        *(getattr(task, fixed) for task in pipeline.inference_graph if fixed),
        optimizer.allocation_mode,
        mode,
    )
    if key not in energy.programs:
        settings = replace(settings, latency_sla_s=float(pipeline.sla))
        energy.programs[key] = Program(energy.stages, settings, _rules(optimizer))
    program: Program = energy.programs[key]
    return program


def _rules(optimizer: Any) -> list[StageRules]:
    """IPA's allocation and baseline modes."""
    graph, mode = optimizer.pipeline.inference_graph, optimizer.baseline_mode
    base = optimizer.base_allocations() if optimizer.allocation_mode == "base" else {}
    gpu = optimizer.pipeline.gpu_mode
    rules = []
    for task in graph:
        allocations = None
        if optimizer.allocation_mode == "base":
            allocations = {
                variant: (_held(held, gpu),) for variant, held in base[task.name].items()
            }
        elif optimizer.allocation_mode == "fix":
            initial = task.initial_allocation
            allocations = dict.fromkeys(task.variant_names, (allocation_of(initial),))
        rules.append(
            StageRules(
                allocations=allocations,
                variants=frozenset({task.active_variant}) if mode == "scale" else None,
                replicas=int(task.replicas) if mode == "switch" else None,
            )
        )
    return rules


def _held(amount: float, gpu: bool) -> Allocation:
    amount = float(amount)
    return Allocation.of(0.0, amount, "gpu") if gpu else Allocation.of(amount)


def _state(pipeline: Any, plan: Plan) -> dict[str, Any]:
    """A plan as a row of IPA's states; its objective counts each stage once."""
    state: dict[str, Any] = {}
    for index, (task, stage) in enumerate(zip(pipeline.inference_graph, plan.stages, strict=True)):
        option = stage.option
        resources = _model(task, option).resource_allocation
        state[f"task_{index}_variant"] = option.variant
        state[f"task_{index}_cpu"] = _plain(resources.cpu)
        state[f"task_{index}_gpu"] = _plain(resources.gpu)
        state[f"task_{index}_batch"] = option.batch
        state[f"task_{index}_replicas"] = stage.replicas
    state["accuracy_objective"] = plan.terms["accuracy"]
    state["resource_objective"] = plan.terms["cost"]
    state["batch_objective"] = plan.terms["batch"]
    state["objective"] = plan.objective
    if plan.quality is not None:
        state["energy_objective"] = plan.terms["energy"]
        if GRAMS in plan.terms:
            state["carbon_objective"] = plan.terms[GRAMS]
        state["pipeline_joules_per_request"] = plan.joules_per_request
        for index, stage in enumerate(plan.stages):
            state[f"task_{index}_joules_per_request"] = stage.joules_per_request
    return state


def _plain(amount: Any) -> Any:
    """Cores as Python's own number: IPA's log writer knows few of NumPy's."""
    return amount.item() if hasattr(amount, "item") else amount


def _model(task: Any, option: Option) -> Any:
    for model in task.available_model_profiles:
        held = allocation_of(model.resource_allocation)
        if model.name == option.variant and held == option.allocation:
            return model
    raise LookupError(option.label)  # options were made from these models


def _set_to(pipeline: Any, plan: Plan) -> None:
    """Set IPA's tasks as its own switches would, without computing base allocations again."""
    for task, stage in zip(pipeline.inference_graph, plan.stages, strict=True):
        model = _model(task, stage.option)
        task.active_variant = model.name
        task.active_variant_index = task.available_model_profiles.index(model)
        task.active_allocation = model.resource_allocation
        task.batch = stage.option.batch
        task.replicas = stage.replicas


def _complete(pipeline: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The further columns of ``complete_profile``, of the configuration the pipeline is set to."""
    state: dict[str, Any] = {}
    for index, task in enumerate(pipeline.inference_graph):
        for name in (
            "latency",
            "throughput",
            "throughput_all_replicas",
            "accuracy",
            "measured",
            "cpu_all_replicas",
            "gpu_all_replicas",
        ):
            state[f"task_{index}_{name}"] = getattr(task, name)
    for name in ("accuracy", "latency", "throughput", "cpu", "gpu"):
        state[f"pipeline_{name}"] = getattr(pipeline, f"pipeline_{name}")
    return state | {name: given[name] for name in ("alpha", "beta", "gamma")}
