"""Decisions in bounded time: what is found is feasible, what is proven holds, nothing changes
where there is time enough."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator

import numpy as np
import pytest
from experiment_scripts import script
from instances import objective, random_problem
from seeds import seeds

from ipa_energy.as_json import as_json
from ipa_energy.optimizer import exhaustive, gurobi, highs, pareto, portfolio, search
from ipa_energy.optimizer.deadline import Bounded, Deadline, InTime, gap_of
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.solve import checked_plans, decide, solve
from ipa_energy.optimizer.table import Exchange, Table, grid_step

families, realistic = script("benchmarks/hard_families"), script("benchmarks/realistic")
FAMILIES, LOAD_RPS = families.FAMILIES, families.LOAD_RPS

INSTANCES = len(seeds(150))
PART = 50
WITHIN: dict[str, InTime] = {
    "pareto": pareto.within,
    "gurobi": gurobi.within,
    "highs": highs.within,
    "brute-force": exhaustive.within,
    "auto": portfolio.within,
}


@functools.cache
def best_of(seed: int) -> list[Choice]:
    return exhaustive.solve(random_problem(seed), 1)


def ticking(looks: int) -> Deadline:
    """Time that goes on by one whenever somebody looks at the clock."""
    clock: Iterator[int] = iter(range(10**9))
    return Deadline(float(looks), lambda: float(next(clock)))


def assert_true(problem: Problem, bounded: Bounded, best: float | None) -> None:
    """The choices hold, and the bound is one."""
    checked_plans(problem, bounded.choices, "test")
    worth = [objective(problem, choice) for choice in bounded.choices]
    assert worth == sorted(worth, reverse=True)
    if best is None:
        assert not bounded.choices
        return
    room = 1e-9 * max(1.0, abs(best))
    assert bounded.bound >= best - room
    assert all(each <= best + room for each in worth)


@pytest.mark.parametrize("first", range(0, INSTANCES, PART))
@pytest.mark.parametrize("name", WITHIN)
def test_with_time_enough_the_best_is_found_and_proven(name: str, first: int) -> None:
    for seed in range(first, first + PART):
        problem = random_problem(seed)
        best = best_of(seed)
        bounded = WITHIN[name](problem, 1, Deadline.after(60.0))
        assert_true(problem, bounded, objective(problem, best[0]) if best else None)
        assert bool(best) == bool(bounded.choices)
        if best:
            worth = objective(problem, bounded.choices[0])
            assert worth == pytest.approx(objective(problem, best[0]), rel=1e-9, abs=1e-9)
            assert bounded.bound - worth <= 3e-9 * max(1.0, abs(worth))
        else:
            assert bounded.bound == -math.inf


@pytest.mark.parametrize("first", range(0, INSTANCES, PART))
def test_whenever_time_is_up_bounds_hold(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pareto, "SMALL_COMBINATIONS", 0)
    monkeypatch.setattr(pareto, "FIRST_WIDTH", 2)
    unproven = proven = 0
    for seed in range(first, first + PART):
        problem = random_problem(seed, stages=2 + seed % 3)
        best = exhaustive.solve(problem, 1)
        worth = objective(problem, best[0]) if best else None
        for looks in (3, 10, 30, 100, 100_000):
            bounded = pareto.within(problem, 1 + seed % 4, ticking(looks))
            assert_true(problem, bounded, worth)
            if best and bounded.choices:
                found = objective(problem, bounded.choices[0])
                if bounded.is_proven(found):
                    proven += 1
                    assert found == pytest.approx(worth, rel=1e-8, abs=1e-8)
                else:
                    unproven += 1
            if looks == 100_000:
                assert bool(best) == bool(bounded.choices)
    assert proven > PART
    assert unproven > 0


@pytest.mark.parametrize("room", [3, 1000])
def test_bounds_brought_down_step_by_step_end_at_the_best_plan(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pareto, "SMALL_COMBINATIONS", 0)
    monkeypatch.setattr(pareto, "_EXACT_SHARE", 0.0)
    monkeypatch.setattr(pareto, "_QUICK_WIDTH", 1)
    monkeypatch.setattr(pareto, "_WIDEST", 0)
    monkeypatch.setattr(search, "MOST_UNCOMPARED", room)
    aims = []
    aim_at = pareto._Best.aim_at
    monkeypatch.setattr(
        pareto._Best, "aim_at", lambda best, aim: (aims.append(aim), aim_at(best, aim))
    )
    hard = [families.hard_program(family, seed, 4, 7) for family in FAMILIES for seed in range(10)]
    problems = [program.at(LOAD_RPS) for program in hard]
    problems += [random_problem(seed, stages=2 + seed % 3) for seed in range(100)]
    for problem in problems:
        best = exhaustive.solve(problem, 1)
        bounded = pareto.within(problem, 1, Deadline.after(60.0))
        assert bool(best) == bool(bounded.choices)
        if best:
            worth = objective(problem, best[0])
            assert bounded.is_proven(objective(problem, bounded.choices[0]))
            assert abs(bounded.bound - worth) <= 3e-9 * max(1.0, abs(worth))
    assert sum(map(math.isfinite, aims)) > 50
    assert (aims.count(-math.inf) > 50) == (room == 3), aims.count(-math.inf)


@pytest.mark.parametrize("method", WITHIN)
@pytest.mark.parametrize("seed", range(3))
def test_a_limit_that_is_not_reached_changes_nothing(method: str, seed: int) -> None:
    size = (2, 3, 3) if method == "brute-force" else (3, 4, 4)
    program = realistic.realistic_program(seed, *size)
    for top_k in (1, 4):
        free = decide(program, 20.0, method, top_k)
        limited = decide(program, 20.0, method, top_k, limit_s=60.0)
        assert limited.plans[0] == free.plans[0]
        assert limited.status == free.status == "optimal"
        assert (limited.gap, limited.bound) == (0.0, pytest.approx(free.plans[0].objective))
        if method in ("pareto", "brute-force", "auto"):
            assert limited.plans == free.plans


@pytest.mark.parametrize("family", FAMILIES)
def test_small_hard_programs_are_solved(family: str) -> None:
    problem = families.hard_program(family, 1, 3, 12).at(LOAD_RPS)
    (best,) = exhaustive.solve(problem, 1)
    for name in ("pareto", "auto"):
        result = solve(problem, name, limit_s=60.0)
        assert result.status == "optimal"
        assert result.best.objective == pytest.approx(objective(problem, best), rel=1e-9)


def test_large_hard_programs_end_in_time_with_a_small_gap() -> None:
    problem = families.hard_program("correlated", 0, 20, 50).at(LOAD_RPS)
    clock = iter(np.arange(0.0, 1e4, 0.01).tolist())
    bounded = pareto.within(problem, 1, Deadline(2.0, lambda: next(clock)))
    worth = problem.worth(bounded.choices[0])
    assert 0 < gap_of(bounded.bound, worth) < 1e-3
    assert next(clock) < 2.2


def test_a_large_product_ends_in_time_with_a_small_gap() -> None:
    problem = families.hard_program("product", 0, 20, 50).at(LOAD_RPS)
    start_s = time.process_time()
    bounded = pareto.within(problem, 1, Deadline.after(1.5, time.process_time))
    assert time.process_time() - start_s < 2.0
    assert gap_of(bounded.bound, problem.worth(bounded.choices[0])) < 1e-3


def test_a_result_says_how_far_it_may_be_from_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(3, stages=3)
    best = solve(problem).best
    short = Bounded([pareto.solve(problem, 5)[-1]], best.objective)

    def within(problem: Problem, top_k: int, deadline: Deadline) -> Bounded:
        del problem, top_k, deadline
        return short

    monkeypatch.setattr(pareto.solve, "within", within)
    result = solve(problem, limit_s=1.0)
    assert result.status == "feasible"
    assert result.gap == pytest.approx(
        (best.objective - result.best.objective) / abs(result.best.objective)
    )
    shown = as_json(result)
    assert (shown["status"], shown["decision_limit_s"]) == ("feasible", 1.0)
    assert (shown["gap"], shown["bound"]) == (result.gap, best.objective)
    short = Bounded([], math.inf)
    result = solve(problem, limit_s=1.0)
    assert (result.status, result.plans, result.conflict) == ("unknown", (), None)
    assert as_json(result)["gap"] is None
    short = Bounded([], -math.inf)
    assert solve(problem, limit_s=1.0).status == "infeasible"
    assert "gap" not in as_json(solve(problem))


def test_grids_of_gains_are_seen() -> None:
    assert grid_step(Table.of(families.hard_program("lattice", 0, 4, 9).at(LOAD_RPS))) == 0.01
    assert grid_step(Table.of(families.hard_program("correlated", 0, 4, 9).at(LOAD_RPS))) == 0.0
    assert grid_step(Table.of(families.hard_program("product", 0, 4, 9).at(LOAD_RPS))) == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_changes_of_two_stages_leave_none_that_would_help(family: str) -> None:
    problem = families.hard_program(family, 2, 5, 8).at(LOAD_RPS)
    table = Table.of(problem)
    start = tuple(int(gain.argmax()) for gain in table.gain)
    (found,) = Exchange(table).improved([start], Deadline.after(60.0))
    assert table.fits(found)
    for one in range(5):
        for other in range(one + 1, 5):
            for first in range(8):
                for second in range(8):
                    changed = list(found)
                    changed[one], changed[other] = first, second
                    if table.fits(changed):
                        assert table.worth(changed) <= table.worth(found) + 1e-9
