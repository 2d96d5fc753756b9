"""SLAs met exactly, ties, zeros and other edges, by hand and for every solver."""

from __future__ import annotations

import math

import pytest
from instances import objective, table_problem

from ipa_energy.errors import ConfigError
from ipa_energy.optimizer import exhaustive
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import solve
from ipa_energy.registries import SOLVERS

EVERY = pytest.mark.parametrize("method", SOLVERS)


@EVERY
@pytest.mark.parametrize(
    ("sla", "expected"),
    [
        (0.3, [(1, 1)]),  # 0.1 + 0.2 is 0.30000000000000004: rounding is not a violation
        (0.3 - 1e-10, [(0, 1)]),
        (0.15, [(0, 0)]),
        (0.15 - 1e-10, []),
    ],
)
def test_latency_sla_is_met_to_the_rounding(
    method: str, sla: float, expected: list[tuple[int, ...]]
) -> None:
    problem = table_problem(
        [[(0.1, 0.05, 1, 0), (0.9, 0.1, 1, 0)], [(0.1, 0.1, 1, 0), (0.95, 0.2, 1, 0)]],
        latency_sla_s=sla,
    )
    assert SOLVERS[method].load()(problem, 1) == expected


@EVERY
@pytest.mark.parametrize(
    ("sla", "expected"), [(0.3, [(1, 1)]), (0.3 - 1e-10, [(0, 1)]), (0.15 - 1e-10, [])]
)
def test_energy_sla_is_met_to_the_rounding(
    method: str, sla: float, expected: list[tuple[int, ...]]
) -> None:
    problem = table_problem(
        [[(0.1, 1, 0.05, 0), (0.9, 1, 0.1, 0)], [(0.1, 1, 0.1, 0), (0.95, 1, 0.2, 0)]],
        energy_sla_joules=sla,
    )
    assert SOLVERS[method].load()(problem, 1) == expected


@EVERY
def test_unknown_joules_are_never_looked_at(method: str) -> None:
    nan = math.nan
    problem = table_problem([[(0.5, 1, nan, 0), (0.7, 2, nan, 0)]] * 3, latency_sla_s=5.0)
    choices = SOLVERS[method].load()(problem, 3)
    assert [sum(choice) for choice in choices] == [2, 2, 2]


@EVERY
def test_ties_are_listed_once_each(method: str) -> None:
    problem = table_problem([[(0.5, 1, 1, 0)] * 3] * 2)
    choices = SOLVERS[method].load()(problem, 20)
    assert sorted(choices) == [(a, b) for a in range(3) for b in range(3)]


@EVERY
@pytest.mark.parametrize("alpha", [3.0, 0.0, -3.0])
def test_product_with_a_zero_accuracy(method: str, alpha: float) -> None:
    rows = [(0.0, 1.0, 1.0, 0.0), (0.5, 2.0, 1.0, 0.3), (0.9, 3.0, 1.0, 1.0)]
    problem = table_problem([rows] * 3, method="multiply", alpha=alpha, latency_sla_s=8.0)
    expected = [objective(problem, choice) for choice in exhaustive.solve(problem, 27)]
    found = [objective(problem, choice) for choice in SOLVERS[method].load()(problem, 27)]
    assert len(expected) == 26  # all but 3 + 3 + 3 s
    assert found == pytest.approx(expected, abs=1e-9)


@EVERY
def test_small_weights_are_not_swallowed_by_a_gap(method: str) -> None:
    """IPA's gamma of 1e-6 decides between otherwise equal options, within no default gap."""
    rows = [(0.9, 1.0, 1.0, 5e-6), (0.9, 1.0, 1.0, 4e-6), (0.9, 1.0, 1.0, 8e-6)]
    problem = table_problem([rows] * 4, alpha=100.0, latency_sla_s=10.0)
    assert SOLVERS[method].load()(problem, 1) == [(1, 1, 1, 1)]


@EVERY
def test_negative_accuracies_of_a_sum(method: str) -> None:
    """Minus a word error rate: the one nearer to 0 is better."""
    problem = table_problem(
        [[(-0.4, 1, 1, 0), (-0.1, 2, 1, 0.1), (-0.05, 9, 1, 0)]], latency_sla_s=3
    )
    assert SOLVERS[method].load()(problem, 2) == [(1,), (0,)]


def test_unknown_method_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="pareto, gurobi, highs, auto, brute-force"):
        solve(table_problem([[(1, 1, 1, 0)]]), method="simplex")


def test_no_plans_asked_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        solve(table_problem([[(1, 1, 1, 0)]]), top_k=0)


def test_brute_force_refuses_what_takes_too_long() -> None:
    problem = table_problem([[(0.5, 1, 1, 0)] * 11] * 7)
    with pytest.raises(ConfigError, match="19,487,171 combinations"):
        exhaustive.solve(problem)


def test_settings_need_energy_only_when_it_counts() -> None:
    plain = Settings(alpha=1, beta=0, gamma=0, scaling_cap=1, batching_cap=1)
    assert not plain.needs_energy
