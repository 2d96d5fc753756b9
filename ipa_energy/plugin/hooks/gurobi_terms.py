r"""What energy adds to the program IPA gives to Gurobi.

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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ipa_energy.plugin.hooks.optimizing import SOLVER_ATOL
from ipa_energy.plugin.hooks.pipeline_energy import Chosen, PipelineEnergy, energy_of, find


@dataclass(frozen=True, slots=True)
class _Pick:
    """One binary of the model with the entry it stands for; None if the profile has no such."""

    stage_index: int
    stage: str
    chosen: Any
    entry: Chosen | None


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
    found = list(_picks(pipeline, picks, allocations))
    settings = energy.settings
    for pick in found:
        if pick.entry is None:
            model.addConstr(pick.chosen == 0, name="not-profiled")
    if settings.needs_energy:
        joules = sum(_joules(energy, pick, replicas[pick.stage]) for pick in found if pick.entry)
        scale = energy.load_rps if settings.energy_metric == "watts" else 1.0
        if settings.energy_weight != 0:
            penalty = settings.energy_weight * scale * joules
            model.setObjective(model.getObjective() - penalty, model.ModelSense)
        if settings.energy_sla_joules is not None:
            model.addConstr(joules <= settings.energy_sla_joules, name="energy-sla")
    if settings.strict_latency:
        delay_s = sum(_delay_s(energy, pick) for pick in found if pick.entry)
        model.addConstr(delay_s <= pipeline.sla, name="strict-latency")
    model.Params.MIPGap = 0.0
    model.Params.MIPGapAbs = 0.0
    model.Params.OptimalityTol = SOLVER_ATOL
    model.Params.FeasibilityTol = SOLVER_ATOL
    model.Params.IntFeasTol = SOLVER_ATOL


def _picks(
    pipeline: Any,
    picks: Mapping[tuple[str, str, int], Any],
    allocations: Mapping[str, Mapping[str, float]],
) -> Iterator[_Pick]:
    tasks = {task.name: (index, task) for index, task in enumerate(pipeline.inference_graph)}
    for (stage, variant, batch), chosen in picks.items():
        index, task = tasks[stage]
        entry = find(
            task, variant, float(allocations[stage][variant]), int(batch), 1, gpu=pipeline.gpu_mode
        )
        yield _Pick(index, stage, chosen, entry)


def _joules(energy: PipelineEnergy, pick: _Pick, replicas: Any) -> Any:
    """m_s·J_s of a pick, an expression."""
    if pick.entry is None or pick.entry.energy is None:
        return 0.0
    figures, share = pick.entry.energy, energy.share(pick.stage_index)
    dynamic_energy_j = figures.dynamic_energy_j + energy.risk_j(figures)
    return pick.chosen * (share * dynamic_energy_j) + replicas * pick.chosen * (
        figures.idle_power_w / energy.load_rps
    )


def _delay_s(energy: PipelineEnergy, pick: _Pick) -> Any:
    if pick.entry is None:
        return 0.0
    load_rps = energy.share(pick.stage_index) * energy.load_rps
    return pick.chosen * (pick.entry.latency_s + (pick.entry.batch - 1) / load_rps)
