"""Every solver against the referee, on seeded random programs of every kind."""

from __future__ import annotations

import dataclasses
import functools

import pytest
from instances import objective, random_problem, random_program, without_energy
from seeds import seeds

from ipa_energy import registries
from ipa_energy.optimizer import exhaustive, gurobi, highs, pareto
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.solve import Solver, checked_plans
from ipa_energy.optimizer.table import Table

INSTANCES = 4 * len(seeds(100))
PART = 100
TOP_K = (1, 1, 2, 5)


def bounded(problem: Problem, top_k: int) -> list[Choice]:
    """The machinery for large programs on a small one, forced to widen again and again."""
    if problem.is_empty() or Table.of(problem).is_hopeless:
        return []
    return pareto.solve_bounded(Table.of(problem), top_k, 2)


SOLVERS: dict[str, Solver] = {
    **{name: entry.load() for name, entry in registries.SOLVERS.items() if name != "brute-force"},
    "pareto bounded": bounded,
}


@functools.cache
def referee(seed: int) -> tuple[Problem, list[Choice]]:
    problem = random_problem(seed)
    return problem, exhaustive.solve(problem, TOP_K[seed % len(TOP_K)])


def assert_same_objectives(problem: Problem, choices: list[Choice], best: list[Choice]) -> None:
    assert len(set(choices)) == len(choices)
    found = [objective(problem, choice) for choice in choices]
    assert found == pytest.approx([objective(problem, c) for c in best], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("first", range(0, INSTANCES, PART))
@pytest.mark.parametrize("name", SOLVERS)
def test_k_best_objectives_equal_brute_force(name: str, first: int) -> None:
    for seed in range(first, first + PART):
        problem, best = referee(seed)
        choices = SOLVERS[name](problem, TOP_K[seed % len(TOP_K)])
        assert_same_objectives(problem, choices, best)
        plans = checked_plans(problem, choices, name)  # raises if a certificate does not hold
        assert [plan.objective for plan in plans] == pytest.approx(
            [objective(problem, choice) for choice in choices], rel=1e-9, abs=1e-9
        )


def test_instances_cover_what_they_should() -> None:
    problems = [referee(seed)[0] for seed in range(INSTANCES)]
    settings = [problem.settings for problem in problems]
    infeasible = sum(not referee(seed)[1] for seed in range(INSTANCES))
    assert 0.1 < infeasible / INSTANCES < 0.5
    assert {len(problem.stages) for problem in problems} == {1, 2, 3, 4}
    assert {s.accuracy_method for s in settings} == {"sum", "average", "multiply"}
    assert {s.energy_metric for s in settings} == {"joules_per_request", "watts"}
    assert {s.normalize_accuracy for s in settings} == {True, False}
    assert {(s.latency_sla_s is not None, s.energy_sla_joules is not None) for s in settings} == {
        (a, b) for a in (True, False) for b in (True, False)
    }
    assert any(rule.replicas is not None for problem in problems for rule in problem.rules)
    assert any(c.stage.requests_per_input != 1 for p in problems for c in p.stages)


@pytest.mark.parametrize("first", range(0, INSTANCES, PART * 2))
def test_energy_weight_zero_is_the_program_without_energy(first: int) -> None:
    for seed in range(first, first + PART * 2):
        program, load_rps = random_program(seed)
        settings = dataclasses.replace(program.settings, energy_weight=0.0, energy_sla_joules=None)
        with_joules = Program(program.stages, settings, program.rules).at(load_rps)
        no_joules = Program(
            [without_energy(stage) for stage in program.stages], settings, program.rules
        ).at(load_rps)
        plain = exhaustive.solve(no_joules, 2)
        assert_same_objectives(no_joules, pareto.solve(with_joules, 2), plain)
        assert_same_objectives(no_joules, pareto.solve(no_joules, 2), plain)
        assert_same_objectives(no_joules, bounded(no_joules, 2), plain)


@pytest.mark.parametrize("seed", range(12))
def test_wider_programs_agree(seed: int) -> None:
    problem = random_problem(seed + 50_000, stages=4, variants=5)
    best = exhaustive.solve(problem, 8)
    for solve in (pareto.solve, bounded):
        assert_same_objectives(problem, solve(problem, 8), best)
    for solve in (gurobi.solve, highs.solve):
        assert_same_objectives(problem, solve(problem, 1), best[:1])
