"""``optimization_method: ipa-energy``: IPA's pipeline, our exact solver.

The pipeline becomes a :class:`~ipa_energy.optimizer.problem.Program` once, with IPA's own SLA and
base allocations in it; every decision then asks that program at a load. The answer is a table of
states as IPA's methods give it, and the pipeline is left set to the first of them.

The latency constraint is the paper's: waits are always charged, whatever ``strict_latency`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Program, StageRules
from ipa_energy.optimizer.solve import DEFAULT_METHOD
from ipa_energy.optimizer.solve import decide as solve_at
from ipa_energy.plugin.hooks.pipeline_energy import PipelineEnergy, allocation_of
from ipa_energy.records import Allocation, Option


def decide(
    optimizer: Any, energy: PipelineEnergy, given: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], str | None]:
    """The equally good best plans, at most ``num_state_limit``, as rows of IPA's table of states.

    Args:
        optimizer: IPA's.
        energy: of its pipeline, which has begun this decision.
        given: the arguments of IPA's ``optimize``.

    Returns:
        the states, empty if nothing is feasible, and then the conflict.
    """
    method = given["optimization_method"]
    result = solve_at(
        _program(optimizer, energy),
        energy.load_rps,
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
