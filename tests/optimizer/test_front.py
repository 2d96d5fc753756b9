"""The exact Pareto front against every plan there is, and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from instances import random_problem, random_program, table_problem, without_energy
from option_maker import make_option as option
from seeds import seeds

from ipa_energy.errors import ConfigError
from ipa_energy.optimizer import front as front_module
from ipa_energy.optimizer.front import Front, FrontTooLargeError, pareto_front, thin
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.records import Stage

SEEDS = seeds(20)
RTOL = 1e-9


def losses_of_every_plan(problem: Problem) -> np.ndarray:
    """(P, 4) −accuracy, cores, latency and joules of every feasible plan, from certificates."""
    plans = [
        build_plan(problem, choice)
        for choice in itertools.product(*(range(len(stage)) for stage in problem.stages))
    ]
    rows = [
        (-plan.accuracy, plan.cost_cores, plan.latency_s, plan.joules_per_request)
        for plan in plans
        if plan.certificate.holds
    ]
    return np.array(rows).reshape(-1, 4)


def undominated(rows: np.ndarray) -> np.ndarray:
    """Distinct rows that no other row beats, one at a time; equal to rounding counts as equal."""
    if not len(rows):
        return rows
    room = RTOL * np.maximum(np.abs(rows).max(axis=0), 1e-12)
    kept: list[np.ndarray] = []
    for row in rows:
        no_worse = (rows <= row + room).all(axis=1)
        better = (rows < row - room).any(axis=1)
        repeated = any((np.abs(row - other) <= room).all() for other in kept)
        if not (no_worse & better).any() and not repeated:
            kept.append(row)
    return np.array(kept).reshape(-1, rows.shape[1])


def rows_of(front: Front) -> np.ndarray:
    return np.stack(front.losses(), axis=1)


def assert_same_rows(found: np.ndarray, expected: np.ndarray) -> None:
    assert len(found) == len(expected)
    unmatched = list(found)
    for row in expected:
        near = [np.allclose(row, other, rtol=1e-8, atol=1e-10) for other in unmatched]
        assert any(near), row
        unmatched.pop(near.index(True))


@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_every_plan_there_is(seed: int) -> None:
    problem = random_problem(seed, stages=1 + seed // 3 % 3)
    front = pareto_front(problem)
    assert_same_rows(rows_of(front), undominated(losses_of_every_plan(problem)))


@pytest.mark.parametrize("method", ["sum", "average", "multiply"])
@pytest.mark.parametrize("seed", range(12))
def test_large_fronts_agree_too(seed: int, method: str) -> None:
    figures = np.random.default_rng(seed).random((2, 20, 3))
    rows = [[(*row, 0.0) for row in stage] for stage in figures.tolist()]
    problem = table_problem(rows, method=method, latency_sla_s=1.5)
    front = pareto_front(problem)
    assert len(front) > 5
    accuracy, delay_s, joules = figures.transpose(2, 0, 1)
    pairs = np.add.outer(*accuracy) if method != "multiply" else np.multiply.outer(*accuracy)
    every = np.stack([-pairs, np.add.outer(*delay_s), np.add.outer(*joules)], axis=-1)
    every = every.reshape(-1, 3)
    expected = undominated(every[every[:, 1] <= 1.5])
    expected[:, 0] /= 2 if method == "average" else 1
    assert_same_rows(rows_of(front)[:, [0, 2, 3]], expected)


@pytest.mark.parametrize("seed", seeds(12))
def test_its_figures_are_those_of_its_plans(seed: int) -> None:
    problem = random_problem(seed, stages=1 + seed // 3 % 3)
    front = pareto_front(problem)
    assert front.full_size == len(front)
    assert front.combinations == math.prod(len(stage) for stage in problem.stages)
    for at in range(len(front)):
        plan = front.plan(at)
        assert plan.certificate.holds
        assert plan.accuracy == pytest.approx(front.accuracy[at])
        assert plan.cost_cores == pytest.approx(front.cost_cores[at])
        assert plan.latency_s == pytest.approx(front.latency_s[at])
        assert plan.joules_per_request == pytest.approx(front.joules_per_request[at])
    assert (np.diff(front.accuracy) <= 0).all()


def test_pieces_of_the_search_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [pareto_front(random_problem(seed, stages=3)) for seed in range(20)]
    monkeypatch.setattr(front_module, "_CHUNK", 7)
    for seed, front in enumerate(whole):
        again = pareto_front(random_problem(seed, stages=3))
        assert (again.choices == front.choices).all()


def test_a_front_computed_by_hand() -> None:
    # (accuracy, delay, joules); one core each: the third is beaten by the second
    problem = table_problem(
        [[(0.9, 0.4, 5.0, 0.0), (0.8, 0.2, 2.0, 0.0), (0.7, 0.2, 3.0, 0.0), (0.5, 0.3, 1.0, 0.0)]]
    )
    front = pareto_front(problem)
    assert front.choices[:, 0].tolist() == [0, 1, 3]
    assert front.combinations == 4


def test_an_sla_leaves_out_what_breaks_it_alone() -> None:
    rows = [(0.9, 0.4, 5.0, 0.0), (0.8, 0.2, 2.0, 0.0), (0.5, 0.3, 1.0, 0.0)]
    assert pareto_front(table_problem([rows], latency_sla_s=0.3)).choices[:, 0].tolist() == [1, 2]
    assert pareto_front(table_problem([rows], energy_sla_joules=4.0)).choices[:, 0].tolist() == [
        1,
        2,
    ]


def test_the_end_of_an_sla_counts_as_inside() -> None:
    stages = [[(0.5, 0.1, 1.0, 0.0)], [(0.5, 0.2, 1.0, 0.0)]]
    assert len(pareto_front(table_problem(stages, latency_sla_s=0.3))) == 1


def one_stage_problem(*options: tuple[str, int, float]) -> Problem:
    """Options of (variant, batch, latency), equal in everything else."""
    made = [
        option(name, batch, latency_s=latency_s, throughput_rps=100.0)
        for name, batch, latency_s in options
    ]
    settings = Settings(alpha=1.0, beta=1.0, gamma=1.0, scaling_cap=5, batching_cap=8)
    return Program([Stage("s", "n", tuple(made))], settings).at(10.0)


def test_of_equal_plans_the_smallest_batch_stays_then_the_first() -> None:
    # at 10 rps a batch of 2 waits 0.1 s: all three take 0.2 s
    problem = one_stage_problem(("large", 2, 0.1), ("first", 1, 0.2), ("second", 1, 0.2))
    assert pareto_front(problem).choices.tolist() == [[1]]


def test_sums_that_differ_by_rounding_alone_are_equal() -> None:
    # 0.1 + 0.2 is a bit more than 0.3 + 0.0: the plan of less joules beats the other
    stages = [
        [(0.5, 0.1, 1.0, 0.0), (0.5, 0.3, 2.0, 0.0)],
        [(0.5, 0.2, 1.0, 0.0), (0.5, 0.0, 1.0, 0.0)],
    ]
    front = pareto_front(table_problem(stages))
    assert front.choices.tolist() == [[0, 1]]
    stages = [[(0.5, 0.1, 1.0, 0.0), (0.5, 0.3, 2.0, 0.0)], [(0.5, 0.2, 1.0, 0.0)]]
    assert pareto_front(table_problem(stages)).choices.tolist() == [[0, 0]]
    ties = [[(0.5, 0.1, 1.0, 0.0)], [(0.5, 0.2, 0.0, 0.0), (0.5, 0.2 + 1e-16, 0.0, 0.0)]]
    assert len(pareto_front(table_problem(ties))) == 1


def test_the_random_problems_are_of_every_kind() -> None:
    fronts = [pareto_front(random_problem(seed, stages=1 + seed // 3 % 3)) for seed in range(150)]
    settings = [front.problem.settings for front in fronts]
    assert {each.accuracy_method for each in settings} == {"sum", "average", "multiply"}
    assert sum(len(front) == 0 for front in fronts) > 5
    assert sum(len(front) > 5 for front in fronts) > 10
    slas = [(each.latency_sla_s is None, each.energy_sla_joules is None) for each in settings]
    assert min(slas.count((a, b)) for a in (True, False) for b in (True, False)) > 5


def test_a_single_plan_is_its_own_front() -> None:
    front = pareto_front(one_stage_problem(("only", 1, 0.2)))
    assert (len(front), front.combinations) == (1, 1)
    assert thin(front, 5) is front


def test_nothing_feasible_is_an_empty_front() -> None:
    rows = [(0.9, 0.4, 5.0, 0.0)]
    front = pareto_front(table_problem([rows, rows], latency_sla_s=0.5))
    assert (len(front), front.full_size, front.combinations) == (0, 0, 1)
    assert len(thin(front, 3)) == 0


def test_a_load_nothing_carries_is_an_empty_front() -> None:
    program = Program(
        [Stage("s", "n", (option(throughput_rps=1.0),))],
        Settings(alpha=1.0, beta=1.0, gamma=1.0, scaling_cap=2, batching_cap=8),
    )
    front = pareto_front(program.at(100.0))
    assert (len(front), front.combinations) == (0, 0)


@pytest.mark.parametrize("seed", seeds(12))
def test_without_joules_it_is_the_front_of_the_other_three(seed: int) -> None:
    program, load_rps = random_program(seed, stages=2)
    settings = settings_without_energy(program.settings)
    problem = Program([without_energy(s) for s in program.stages], settings).at(load_rps)
    front = pareto_front(problem)
    assert np.isnan(front.joules_per_request).all()
    expected = undominated(losses_of_every_plan(problem)[:, :3])
    assert_same_rows(np.stack(front.losses(), axis=1)[:, :3], expected)


def settings_without_energy(settings: Settings) -> Settings:
    return Settings(
        alpha=settings.alpha,
        beta=settings.beta,
        gamma=settings.gamma,
        accuracy_method=settings.accuracy_method,
        latency_sla_s=settings.latency_sla_s,
        scaling_cap=settings.scaling_cap,
        batching_cap=settings.batching_cap,
    )


def test_too_many_points_are_refused_with_a_way_out() -> None:
    rows = [(0.1 * number, 0.1 * number, 1.0, 0.0) for number in range(10)]
    problem = table_problem([rows, rows])
    assert len(pareto_front(problem)) == 19
    with pytest.raises(FrontTooLargeError, match=r"more than 10 points at stage 2 of 2") as caught:
        pareto_front(problem, most=10)
    assert "batching_cap" in str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_thinning_keeps_the_ends(count: int) -> None:
    front = max((pareto_front(random_problem(seed, stages=3)) for seed in range(30)), key=len)
    few = thin(front, count)
    assert len(few) == min(count, len(front))
    assert few.full_size == len(front)
    assert few.accuracy.max() == front.accuracy.max()
    if count >= 4:
        assert few.cost_cores.min() == front.cost_cores.min()
        assert few.latency_s.min() == front.latency_s.min()
        assert few.joules_per_request.min() == front.joules_per_request.min()
    assert len({few.choice(at) for at in range(len(few))}) == len(few)


def test_thinning_to_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 points"):
        thin(pareto_front(random_problem(0)), 0)
