"""Quantities from outside, capacities and prices: in terms, caps, certificates and ways out."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from instances import objective, random_program
from option_maker import make_option

from ipa_energy import registries
from ipa_energy.as_json import as_json
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer import exhaustive
from ipa_energy.optimizer.conflict import StageLimits, find_conflict
from ipa_energy.optimizer.front import pareto_front
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import decide, solve
from ipa_energy.optimizer.supported import supported
from ipa_energy.records import Allocation, Option, Stage
from ipa_energy.registries import Quantity

EURO_PER_CORE = 0.02


def money(option: Option, replicas: int, stage: Stage, moment: Moment) -> float:
    """Rent by the core and electricity, per pipeline request; dearer models cost a licence."""
    rent = replicas * option.cpu_cores * EURO_PER_CORE / moment.mean_rps
    licence = 0.001 * len(option.variant) if option.accuracy > 0.5 else 0.0
    price = moment.signals.get("price_per_kwh", 0.3)
    joules = stage.requests_per_input * option.dynamic_energy_j
    return rent + licence + joules * price / 3.6e6


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    quantity = Quantity(
        "money", money, unit="euro", weight_key="money_weight", cap_key="money_cap",
        needs_joules=True,
    )  # fmt: skip
    monkeypatch.setitem(registries.QUANTITIES, "money", quantity)
    yield


def with_allocations(stage: Stage, rng: np.random.Generator) -> Stage:
    """Some options on half a GPU or on boards beside their cores."""
    options = []
    for option in stage.options:
        kind = rng.integers(3)
        share = 0.5 if kind == 1 else 0.0
        boards = {"board": float(rng.integers(1, 3))} if kind == 2 else {}
        held = Allocation.of(option.cpu_cores, share, resources=boards)
        options.append(dataclasses.replace(option, allocation=held))
    return dataclasses.replace(stage, options=tuple(options))


@functools.cache
def capped_program(seed: int) -> tuple[Program, Moment]:
    """A random program with money, prices and one to three capacities besides."""
    program, load_rps = random_program(seed)
    rng = np.random.default_rng(seed)
    stages = [with_allocations(stage, rng) for stage in program.stages]
    moment = Moment.at(load_rps, price_per_kwh=float(rng.uniform(0.1, 0.5)))
    settings = dataclasses.replace(
        program.settings,
        weights={"money": float(rng.choice([0.0, 5.0, 200.0]))},
        prices={"gpu": float(rng.choice([0.0, 1.5])), "board": 0.7},
    )
    free = Program(stages, settings, program.rules).at(moment)
    if free.is_empty():
        return Program(stages, settings, program.rules), moment

    def between(quantity: str) -> float:
        columns = free.columns(quantity)
        least, most = (sum(float(f(c)) for c in columns) for f in (np.min, np.max))
        return least + float(rng.uniform(-0.05, 0.7)) * (most - least) + 1e-6

    capacity = {name: between(f"units:{name}") for name in ("core", "gpu", "board")}
    kept = {name: units for name, units in capacity.items() if rng.random() < 0.6 and units > 0}
    caps = {"money": between("money")} if rng.random() < 0.6 else {}
    settings = dataclasses.replace(settings, capacity=kept, caps=caps)
    return Program(stages, settings, program.rules), moment


@functools.cache
def capped(seed: int) -> tuple[Problem, list[Choice]]:
    """Such a program's problem and its two best choices."""
    program, moment = capped_program(seed)
    problem = program.at(moment)
    return problem, exhaustive.solve(problem, 2)


@pytest.mark.parametrize("method", ["pareto", "gurobi", "highs"])
@pytest.mark.parametrize("first", [0, 60, 120])
def test_every_solver_keeps_every_cap(method: str, first: int) -> None:
    for seed in range(first, first + 60):
        problem, best = capped(seed)
        result = solve(problem, method, 2)
        assert [plan.objective for plan in result.plans] == pytest.approx(
            [objective(problem, choice) for choice in best], rel=1e-9, abs=1e-9
        )
        assert all(plan.certificate.holds for plan in result.plans)


def test_instances_cover_what_they_should() -> None:
    problems, best = zip(*map(capped, range(180)), strict=True)
    found = [{cap.name for cap in problem.caps} for problem in problems]
    assert {"money_cap", "capacity:core", "capacity:gpu", "capacity:board"} <= set().union(*found)
    assert max(len(names) for names in found) >= 5
    assert 0.2 < best.count([]) / 180 < 0.7


def feasible_under(problem: Problem, names: tuple[str, ...]) -> bool:
    return bool(exhaustive.solve(StageLimits(problem).enforced(names)))


def test_conflicts_over_any_number_of_caps_are_smallest() -> None:
    sizes = set()
    for seed in range(60):
        problem, best = capped(seed)
        if best:
            continue
        conflict = find_conflict(problem).constraints
        sizes.add(sum(name in {cap.name for cap in problem.caps} for name in conflict))
        assert not feasible_under(problem, conflict)
        names = [name for limits in StageLimits(problem).names for name in limits]
        names += [cap.name for cap in problem.caps]
        for size in range(len(conflict)):
            for subset in itertools.combinations(names, size):
                assert feasible_under(problem, subset)
    assert {1, 2} <= sizes


def relaxed(settings: Settings, name: str, value: float) -> Settings:
    if name.startswith("capacity:"):
        resource = name.removeprefix("capacity:")
        return dataclasses.replace(settings, capacity={**settings.capacity, resource: value})
    return dataclasses.replace(settings, caps={**settings.caps, "money": value})


def test_relaxations_of_further_caps_help_and_nothing_less_does() -> None:
    kinds = set()
    for seed in range(180):
        program, moment = capped_program(seed)
        problem, best = capped(seed)
        if problem.is_empty() or best:
            continue
        for relaxation in find_conflict(problem).relaxations:
            name = relaxation.constraint
            if not name.startswith(("capacity:", "money_cap")):
                continue
            kinds.add(name)
            for value, helps in ((relaxation.needed, True), (relaxation.needed - 1e-7, False)):
                changed = Program(
                    program.stages, relaxed(program.settings, name, value), program.rules
                )
                assert bool(exhaustive.solve(changed.at(moment))) == helps
    assert kinds == {"capacity:core", "capacity:gpu", "capacity:board", "money_cap"}


STAGES = (
    Stage("crop", "yolo", (make_option("a"), make_option("bb", accuracy=0.9, cpu_cores=2.0))),
    Stage("cls", "resnet", (make_option("ccc"),), requests_per_input=2.0),
)
PLAIN = Settings(alpha=1, beta=0.01, gamma=0, scaling_cap=9, batching_cap=1)


def test_a_quantity_from_outside_is_in_terms_amounts_and_certificate() -> None:
    """5 rps: one replica of each; cls sees 10 rps."""
    settings = dataclasses.replace(PLAIN, weights={"money": 2.0}, caps={"money": 0.02})
    plan = decide(Program(STAGES, settings), Moment.at(5.0, price_per_kwh=0.36)).best
    assert [stage.option.variant for stage in plan.stages] == ["bb", "ccc"]
    # 3 cores · 0.02 euro / 5 rps, 0.002 of licence, (1 + 2) J at 1e-7 euro a joule.
    euro = 3 * 0.02 / 5 + 0.002 + 3e-7
    assert plan.amounts == {"money": pytest.approx(euro, rel=1e-12)}
    assert plan.terms["money"] == pytest.approx(2 * euro, rel=1e-12)
    assert plan.objective == pytest.approx(0.9 + 0.5 - 0.03 - 2 * euro, rel=1e-12)
    check = plan.certificate.checks[-1]
    assert (check.constraint, check.limit, check.holds) == ("money_cap", 0.02, True)
    assert check.value == pytest.approx(euro, rel=1e-12)
    told = as_json(plan)
    assert set(told["terms"]) == {"accuracy", "cost", "batch", "energy", "money"}


def test_a_plain_plan_says_nothing_of_it() -> None:
    told = as_json(decide(Program(STAGES, PLAIN), 5.0).best)
    assert "amounts" not in told
    assert list(told["terms"]) == ["accuracy", "cost", "batch", "energy"]
    assert told["certificate"]["checks"][-1]["constraint"] == "energy_sla_joules"


@pytest.mark.parametrize("method", ["pareto", "gurobi", "highs", "brute-force"])
def test_a_cap_that_cannot_be_met_is_named_with_what_it_needs(method: str) -> None:
    """The cheapest: two cores of rent, no licence, 3 J at 0.3 euro a kWh."""
    settings = dataclasses.replace(PLAIN, caps={"money": 0.001})
    conflict = decide(Program(STAGES, settings), 5.0, method).conflict
    assert (
        str(conflict) == "no plan can meet money_cap; needs a money_cap of at least 0.008001 euro"
    )


def test_a_capacity_over_all_stages_keeps_cheaper_plans() -> None:
    """bb and ccc take three cores together; with two there is only a."""
    settings = dataclasses.replace(PLAIN, capacity={"core": 2})
    plan = decide(Program(STAGES, settings), 5.0).best
    assert [stage.option.variant for stage in plan.stages] == ["a", "ccc"]
    assert plan.certificate.checks[-1].constraint == "capacity:core"
    settings = dataclasses.replace(PLAIN, capacity={"core": 1})
    assert str(decide(Program(STAGES, settings), 5.0).conflict) == (
        "no plan can meet capacity:core; needs a capacity of at least 2 units of core"
    )


def test_a_price_makes_the_cpu_worth_it() -> None:
    """The same variant on two kinds of hardware: what the GPU costs decides."""
    slow = make_option("v", accuracy=0.5, cpu_cores=4.0)
    held = Allocation.of(1, 0.5, "gpu")
    options = (slow, dataclasses.replace(slow, allocation=held))
    stage = Stage("s", "n", options)
    for prices, hardware in (({}, "gpu"), ({"gpu": 0.05}, "gpu"), ({"gpu": 0.07}, "cpu")):
        settings = dataclasses.replace(PLAIN, prices=prices)
        plan = decide(Program((stage,), settings), 5.0).best
        assert plan.stages[0].option.hardware == hardware
    assert plan.terms["price:gpu"] == 0


def test_a_price_of_cores_beside_beta_is_refused() -> None:
    with pytest.raises(ConfigError, match="beta is the price of a core"):
        Program(STAGES, dataclasses.replace(PLAIN, prices={"core": 1.0}))


def test_a_quantity_without_a_figure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    none = Quantity("none", lambda *given: math.nan, unit="x")
    monkeypatch.setitem(registries.QUANTITIES, "nothing", none)
    program = Program(STAGES, dataclasses.replace(PLAIN, weights={"nothing": 1.0}))
    with pytest.raises(ConfigError, match="stage crop, a 1c b1: nothing is nan"):
        program.at(1.0)
    with pytest.raises(ConfigError, match="unknown quantity 'nobody'"):
        Program(STAGES, dataclasses.replace(PLAIN, weights={"nobody": 1.0}))


def test_joules_are_asked_for_where_a_quantity_needs_them() -> None:
    bare = dataclasses.replace(STAGES[0], options=(make_option(dynamic_energy_j=math.nan),))
    with pytest.raises(ConfigError, match="the profile has no joules"):
        Program([bare], dataclasses.replace(PLAIN, weights={"money": 1.0}))


def test_a_front_of_chosen_quantities_keeps_every_cap() -> None:
    """Against all feasible plans, pair by pair; figures nearer than 1e-9 count as equal."""
    sizes = set()
    for seed in range(40):
        program, moment = capped_program(seed)
        problem = program.at(moment)
        if math.prod(len(candidates) for candidates in problem.stages) > 3000:
            continue
        names = ("money", "units:core")
        front = pareto_front(problem, objectives=names)
        assert all(front.plan(at).certificate.holds for at in range(min(3, len(front))))
        losses = set()
        for choice in exhaustive.solve(problem, 3000):
            scores = [float(c.accuracy[at]) for c, at in zip(problem.stages, choice, strict=True)]
            totals = [
                sum(float(column[at]) for column, at in zip(columns, choice, strict=True))
                for columns in map(problem.columns, names)
            ]
            point = (-problem.combined_accuracy(scores), *totals)
            losses.add(tuple(round(value, 9) for value in point))
        best = {
            point
            for point in losses
            if not any(
                other != point and all(a <= b for a, b in zip(other, point, strict=True))
                for other in losses
            )
        }
        found = {
            tuple(round(float(value), 9) for value in point)
            for point in zip(*front.losses(), strict=True)
        }
        assert found == best
        sizes.add(len(found))
    assert max(sizes) >= 5
    assert 0 in sizes


def test_weights_of_a_quantity_from_outside_choose_the_points_they_are_said_to() -> None:
    """Each point's weights, put into the program, make a plan with its figures the best."""
    checked = passed_over = 0
    for seed in range(40):
        program, moment = capped_program(seed)
        settings = dataclasses.replace(
            program.settings, gamma=0, energy_weight=0, prices={}, weights={}
        )
        problem = Program(program.stages, settings, program.rules).at(moment)
        front = pareto_front(problem, objectives=("cost", "money"))
        found = supported(front)
        assert found.names == ("alpha", "beta", "money_weight")
        passed_over += int((~found.mask).sum())
        for at in np.flatnonzero(found.mask).tolist():
            witness = found.witness(at)
            assert witness is not None
            weighed = dataclasses.replace(
                settings,
                alpha=witness["alpha"],
                beta=witness["beta"],
                weights={"money": witness["money_weight"]},
            )
            problem = Program(program.stages, weighed, program.rules).at(moment)
            best = solve(problem).best.objective
            assert objective(problem, front.choice(at)) == pytest.approx(best, rel=1e-8, abs=1e-9)
            checked += 1
    assert checked > 30
    assert passed_over > 3
