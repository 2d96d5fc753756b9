"""Joules, waits and decisions of a pipeline, worked out by hand and against our own solver."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import gurobipy as gp
import pytest
from pipeline_double import Chain, Planner, chain, entry_joules

from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.plan import Plan
from ipa_energy.plugin import hooks
from ipa_energy.plugin.hooks import optimizing
from ipa_energy.plugin.hooks.joules import Joules
from ipa_energy.plugin.hooks.optimizing import add_to_model, with_energy
from ipa_energy.plugin.hooks.pipeline_energy import (
    Configuration,
    EnergySettings,
    PipelineEnergy,
    attach,
    current,
    energy_of,
)
from ipa_energy.profile_table.ipa_results import EntryJoules
from ipa_energy.records import Provenance
from ipa_energy.registries import QUANTITIES, Quantity

STAGES = [("crop", ["n", "m"]), ("name", ["r18", "r1"])]


def by_variant(variant: str, batch: int) -> tuple[float, float]:
    """e and p: dearer by variant, cheaper by batch."""
    return {"n": 1.0, "m": 3.0, "r18": 0.5, "r1": 2.0}[variant] / batch, 4.0


def plan_of(energy: PipelineEnergy, configurations: list[Configuration]) -> Plan:
    plan = energy.plan(configurations)
    assert plan is not None
    return plan


def test_joules_and_waits_by_hand() -> None:
    pipeline = chain(STAGES, by_variant)
    energy = attach(pipeline, EnergySettings(energy_weight=2.0))
    energy.plan_for(8)
    plan = plan_of(energy, [("m", 2.0, 2, 3), ("r18", 1.0, 4, 1)])
    # 3/2 + 3·4/8 and 0.5/4 + 1·4/8 J; 0.05·2·2 + 1/8 and 0.05·4 + 3/8 s.
    assert plan.stages[0].joules_per_request == pytest.approx(3.0)
    assert plan.stages[1].joules_per_request == pytest.approx(0.625)
    assert plan.joules_per_request == pytest.approx(3.625)
    assert plan.terms["energy"] == pytest.approx(7.25)
    assert plan.latency_s == pytest.approx(0.325 + 0.575)


def test_watts_and_shares_by_hand() -> None:
    pipeline = chain(STAGES, by_variant)
    settings = EnergySettings(
        energy_weight=1.0, energy_metric="watts", requests_per_input=(1.0, 2.0)
    )
    energy = attach(pipeline, settings)
    energy.plan_for(8)
    plan = plan_of(energy, [("n", 1.0, 1, 1), ("r18", 1.0, 1, 2)])
    # 1 + 4/8 J, and two requests of 0.5 + 2·4/16 J: 3.5 J, at 8 a second 28 W.
    assert plan.joules_per_request == pytest.approx(3.5)
    assert plan.terms["energy"] == pytest.approx(28.0)


def test_upper_ends_are_planned_with_and_means_are_logged() -> None:
    """3/2 + 3·4/8 and 0.5/4 + 1·4/8 J are 3.625 J; each stage's interval is ±0.1 J."""
    pipeline = chain(STAGES, by_variant)
    settings = EnergySettings(energy_weight=2.0, energy_risk="upper", energy_sla_joules=3.7)
    energy = attach(pipeline, settings)
    energy.plan_for(8)
    plan = plan_of(energy, [("m", 2.0, 2, 3), ("r18", 1.0, 4, 1)])
    assert plan.joules_per_request == pytest.approx(3.625)
    assert plan.planned_joules_per_request == pytest.approx(3.825)
    assert plan.terms["energy"] == pytest.approx(7.65)
    assert not energy.keeps_energy_sla(plan)
    by_mean = attach(pipeline, EnergySettings(energy_weight=2.0, energy_sla_joules=3.7))
    by_mean.plan_for(8)
    plan = plan_of(by_mean, [("m", 2.0, 2, 3), ("r18", 1.0, 4, 1)])
    assert plan.planned_joules_per_request == plan.joules_per_request
    assert by_mean.keeps_energy_sla(plan)


@pytest.mark.parametrize("key", ["energy_weight", "energy_sla_joules"])
def test_upper_ends_need_an_interval_of_every_entry(key: str) -> None:
    pipeline = chain(STAGES, by_variant)
    model = pipeline.inference_graph[1].available_model_profiles[0]
    once = Provenance("rapl", "measured", 1, float("nan"))
    model.joules = Joules({2: entry_joules(1.0, 1.0, once), **dict(_others(model.joules))})
    with pytest.raises(ConfigError, match="r18 at 1 cores, batch 2, have none"):
        attach(pipeline, EnergySettings(**{key: 1.0}, energy_risk="upper"))  # type: ignore[arg-type]
    attach(pipeline, EnergySettings(**{key: 1.0}))  # type: ignore[arg-type]
    attach(pipeline, EnergySettings(energy_risk="upper"))


def _others(joules: Joules) -> list[tuple[int, EntryJoules]]:
    return [(batch, figures) for batch, figures in joules.entries.items() if batch != 2]


def test_a_load_under_one_is_planned_as_one() -> None:
    energy = attach(chain(STAGES, by_variant), EnergySettings())
    for load in (0, 0.3, 1):
        energy.plan_for(load)
        assert energy.load_rps == 1.0


def test_joules_are_not_copied_with_a_pipeline() -> None:
    pipeline = chain(STAGES, by_variant)
    copied = copy.deepcopy(pipeline.inference_graph)
    assert copied[0].available_model_profiles[0] is not pipeline.inference_graph[0].active_model
    assert copied[0].active_model.joules is pipeline.inference_graph[0].active_model.joules


def test_entries_without_joules_are_refused_where_they_count() -> None:
    def partly(variant: str, batch: int) -> tuple[float, float] | None:
        return None if (variant, batch) == ("m", 4) else (1.0, 1.0)

    with pytest.raises(ConfigError, match="no joules for 1 entry, the first m at 2 cores, batch"):
        attach(chain(STAGES, partly), EnergySettings(energy_weight=1.0))
    assert attach(chain(STAGES, partly), EnergySettings()).has_joules is False


def test_a_latency_sla_is_that_pipelines_alone() -> None:
    one, other = chain(STAGES, by_variant), chain(STAGES, by_variant)
    hooks.configure(one, {"latency_sla_s": 0.7})
    assert one.sla == 0.7
    assert other.sla == 5.0
    assert energy_of(other) is None


def test_each_pipeline_of_a_list_is_configured() -> None:
    pipelines = [chain(STAGES, by_variant), chain(STAGES[:1], by_variant)]
    hooks.configure(pipelines, {"energy_weight": 1})
    assert all(energy_of(pipeline) is not None for pipeline in pipelines)


def brute(pipeline: Chain, settings: EnergySettings, load: float, given: dict[str, Any]) -> float:
    """The best objective over every configuration, by the formulas alone."""
    energy = attach(pipeline, settings)
    energy.plan_for(load)
    options = [
        [
            (model, entry)
            for model in task.available_model_profiles
            for entry in model.profiles
            if entry.batch <= given["batching_cap"]
        ]
        for task in pipeline.inference_graph
    ]
    best = float("-inf")
    for picks in itertools.product(*options):
        for replicas in itertools.product(range(1, given["scaling_cap"] + 1), repeat=len(picks)):
            plan = plan_of(
                energy,
                [
                    (model.name, model.resource_allocation.cpu, entry.batch, n)
                    for (model, entry), n in zip(picks, replicas, strict=True)
                ],
            )
            if any(
                n * entry.throughput < energy.load_rps
                for (_, entry), n in zip(picks, replicas, strict=True)
            ):
                continue
            if plan.latency_s > pipeline.sla or not energy.keeps_energy_sla(plan):
                continue
            parts = {
                "objective": given["alpha"] * sum(model.accuracy for model, _ in picks)
                - given["beta"]
                * sum(
                    n * m.resource_allocation.cpu for (m, _), n in zip(picks, replicas, strict=True)
                )
                - given["gamma"] * sum(entry.batch for _, entry in picks)
            }
            best = max(best, with_energy(parts, plan)["objective"])
    return best


@pytest.mark.parametrize("seed", range(12))
def test_our_solver_on_their_pipeline_is_exact(seed: int) -> None:
    rng = random.Random(seed)
    figures = {
        (variant, batch): (rng.uniform(0.1, 4), rng.uniform(0, 5))
        for _, variants in STAGES
        for variant in variants
        for batch in (1, 2, 4)
    }
    pipeline = chain(STAGES, lambda variant, batch: figures[variant, batch])
    settings = EnergySettings(
        energy_weight=rng.choice([0, 0.5, 5]),
        energy_sla_joules=rng.choice([None, rng.uniform(2, 12)]),
        energy_risk="upper" if seed % 2 else "mean",
        latency_sla_s=rng.uniform(0.3, 2),
    )
    given = {
        "optimization_method": "ipa-energy",
        "alpha": rng.choice([1, 30]),
        "beta": 0.3,
        "gamma": 1e-6,
        "scaling_cap": 3,
        "batching_cap": rng.choice([2, 4]),
        "num_state_limit": 1,
    }
    load = rng.randint(1, 50)
    expected = brute(pipeline, settings, load, given)
    energy = attach(pipeline, settings)
    energy.begin({**given, "arrival_rate": load})
    states, conflict = optimizing.decided(Planner(pipeline), energy, given)
    if expected == float("-inf"):
        assert states == []
        assert conflict is not None
        return
    assert states[0]["objective"] == pytest.approx(expected, rel=1e-9)
    assert conflict is None
    plan = energy.plan(current(pipeline))  # the pipeline is left set to the plan
    assert plan is not None
    assert [stage.option.batch for stage in plan.stages] == [
        states[0]["task_0_batch"],
        states[0]["task_1_batch"],
    ]
    assert plan.joules_per_request == pytest.approx(states[0]["pipeline_joules_per_request"])


def gurobi_model(pipeline: Chain) -> tuple[Any, Any, Any]:
    """Binaries that name an entry and replicas, all free, with an objective of their own."""
    model = gp.Model("test")
    model.Params.OutputFlag = 0
    keys = [
        (task.name, network.name, entry.batch)
        for task in pipeline.inference_graph
        for network in task.available_model_profiles
        for entry in network.profiles
    ]
    picks = model.addVars([*keys, ("crop", "n", 99)], vtype=gp.GRB.BINARY, name="aux")
    replicas = model.addVars(["crop", "name"], vtype=gp.GRB.INTEGER, lb=2, ub=3, name="n")
    for stage in ("crop", "name"):
        model.addConstr(picks.sum(stage, "*", "*") == 1)
    model.setObjective(
        picks.sum("*", "m", "*") * 10 + picks.sum("*", "*", 4) - replicas.sum(), gp.GRB.MAXIMIZE
    )
    model.update()
    return model, replicas, picks


@pytest.mark.parametrize(
    "settings",
    [
        EnergySettings(energy_weight=1.0),
        EnergySettings(energy_weight=0.3, energy_metric="watts"),
        EnergySettings(energy_sla_joules=3.4),
        EnergySettings(energy_weight=1.0, energy_sla_joules=3.4, energy_risk="upper"),
        EnergySettings(energy_weight=0.3, energy_metric="watts", energy_risk="upper"),
        EnergySettings(strict_latency=True, latency_sla_s=0.75),
        EnergySettings(energy_weight=1.0, energy_sla_joules=4.0, strict_latency=True),
    ],
)
def test_terms_in_a_gurobi_model_are_those_of_the_formulas(settings: EnergySettings) -> None:
    pipeline = chain(STAGES, by_variant)
    energy = attach(pipeline, settings)
    energy.plan_for(8)
    model, replicas, picks = gurobi_model(pipeline)
    before = model.NumVars
    add_to_model(pipeline, model, replicas, picks, Planner(pipeline).base_allocations())
    model.optimize()
    assert model.NumVars == before
    best = float("-inf")
    for crop, name, n, m in itertools.product(
        itertools.product(("n", "m"), (1, 2, 4)),
        itertools.product(("r18", "r1"), (1, 2, 4)),
        (2, 3),
        (2, 3),
    ):
        cores = {"n": 1.0, "m": 2.0, "r18": 1.0, "r1": 2.0}
        plan = plan_of(energy, [(*_of(crop, cores), n), (*_of(name, cores), m)])
        late = settings.strict_latency and plan.latency_s > pipeline.sla
        if late or not energy.keeps_energy_sla(plan):
            continue
        own = 10 * (crop[0] == "m") + (crop[1] == 4) + (name[1] == 4) - n - m
        best = max(best, own - plan.terms["energy"])
    assert model.ObjVal == pytest.approx(best, rel=1e-9)
    assert picks["crop", "n", 99].X == 0  # a batch that the profile does not have


def _of(pick: tuple[str, int], cores: dict[str, float]) -> tuple[str, float, int]:
    return pick[0], cores[pick[0]], pick[1]


def test_a_quantity_from_outside_is_weighed_in_their_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Money that one replica costs by its idle watts, entered while the program runs."""

    def euros(option: Any, replicas: Any, stage: Any, moment: Any) -> Any:
        return replicas * option.idle_power_w / 100

    entry = Quantity("money", euros, "€", weight_key="energy_weight", needs_joules=True)
    monkeypatch.setitem(QUANTITIES, "euros", entry)
    pipeline = chain(STAGES, by_variant)
    hooks.configure(pipeline, {"energy_weight": 50, "energy_metric": "euros"})
    energy = energy_of(pipeline)
    assert energy is not None
    plan = plan_of(energy, [("n", 1.0, 1, 2), ("r1", 2.0, 4, 2)])
    # 50·(2 + 2)·4/100; without it: 11 for m at batch 4, 1 for batch 4, −4 for replicas.
    assert plan.terms["energy"] == pytest.approx(8.0)
    model, replicas, picks = gurobi_model(pipeline)
    add_to_model(pipeline, model, replicas, picks, Planner(pipeline).base_allocations())
    model.optimize()
    assert model.ObjVal == pytest.approx(11 + 1 - 4 - 8.0)


@pytest.mark.parametrize("settings", [None, EnergySettings(), EnergySettings(latency_sla_s=1.0)])
def test_a_model_without_energy_is_left_alone(settings: EnergySettings | None) -> None:
    pipeline = chain(STAGES, by_variant)
    if settings is not None:
        attach(pipeline, settings)
    model, replicas, picks = gurobi_model(pipeline)
    before = model.Fingerprint
    add_to_model(pipeline, model, replicas, picks, Planner(pipeline).base_allocations())
    model.update()
    assert model.Fingerprint == before
    assert model.Params.MIPGap == 1e-4
