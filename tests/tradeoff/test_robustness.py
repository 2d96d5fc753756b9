"""A plan over resampled joules: in closed form, and against every plan in every draw."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats
from seeds import seeds
from small_programs import every_plan, one_stage, program_of, random_small_program, small_option

from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.records import Stage
from ipa_energy.tradeoff import robustness as robustness_module
from ipa_energy.tradeoff.robustness import Resampled, Robustness, robustness_of

DRAWS = 4000
"""Enough that a share is known to within 0.025 (three standard errors)."""


def robustness(problem: Problem, draws: int = DRAWS, seed: int = 0) -> Robustness:
    return robustness_of(problem, pareto.solve(problem)[0], draws=draws, seed=seed)


def two_options(ci95_j: float, **settings: object) -> Program:
    """ "sure" needs exactly 1 J, "unsure" 1.1 J ± ``ci95_j`` of three trials."""
    stages = one_stage(
        small_option("sure", dynamic_energy_j=1.0),
        small_option("unsure", dynamic_energy_j=1.1, ci95_j=ci95_j),
    )
    return program_of(stages, **({"energy_weight": 1.0} | settings))


def test_how_often_it_stays_optimal_in_closed_form() -> None:
    # "unsure" wins below 1 J: at less than −0.1/0.2 half widths of a t of 2 degrees of freedom
    found = robustness(two_options(0.2).at(10.0))
    ahead = stats.t.cdf(-0.5 * stats.t.ppf(0.975, 2), 2)
    share = (ahead - 0.025) / 0.95
    assert found.stays_optimal == pytest.approx(1 - share, abs=0.025)
    (other,) = found.replacements
    assert other.label.startswith("unsure")
    assert other.draws == round((1 - found.stays_optimal) * DRAWS)
    assert found.regret_j is not None
    assert 0 < found.regret_j.most <= 0.1
    assert found.regret_j.median == 0.0
    assert found.joules is not None
    assert found.joules.most == pytest.approx(1.0)


def test_regret_is_in_joules_whatever_the_weight() -> None:
    # the metric watts multiplies by the load
    at_one = robustness(two_options(0.2).at(10.0))
    for settings in ({"energy_weight": 7.0}, {"energy_metric": "watts"}):
        other = robustness(two_options(0.2, **settings).at(10.0))
        assert other.regret_j is not None
        assert at_one.regret_j is not None
        assert other.regret_j.mean == pytest.approx(at_one.regret_j.mean)
    assert at_one.regret is not None
    assert at_one.extra_j is not None
    assert at_one.extra_j.mean == pytest.approx(at_one.regret.mean)


def test_intervals_of_nothing_change_nothing() -> None:
    found = robustness(two_options(0.0).at(10.0))
    assert found.stays_optimal == 1.0
    assert found.regret is not None
    assert found.regret.most == 0.0
    assert found.upper_is_same
    assert found.replacements == ()


def test_an_unknown_interval_is_counted_and_held() -> None:
    found = robustness(two_options(math.nan).at(10.0))
    assert (found.unknown_intervals, found.options) == (1, 2)
    assert found.stays_optimal == 1.0


def test_the_upper_end_can_ask_for_another_plan() -> None:
    stages = one_stage(
        small_option("unsure", dynamic_energy_j=1.0, ci95_j=0.5),
        small_option("sure", dynamic_energy_j=1.2),
    )
    found = robustness(program_of(stages, energy_weight=1.0).at(10.0))
    assert not found.upper_is_same
    assert found.upper is not None
    assert found.upper.label.startswith("sure")
    assert found.upper.joules_per_request == pytest.approx(1.2)


def test_an_energy_sla_may_be_broken() -> None:
    stages = one_stage(small_option("unsure", dynamic_energy_j=1.0, ci95_j=0.5))
    found = robustness(program_of(stages, energy_sla_joules=1.0).at(10.0))
    assert found.breaks_energy_sla == pytest.approx(0.5, abs=0.025)
    assert found.draws_without_plan == found.breaks_energy_sla
    assert found.stays_optimal == pytest.approx(1 - found.breaks_energy_sla)
    assert found.upper is None
    assert found.regret_j is None


def test_without_a_part_in_the_decision_joules_change_nothing() -> None:
    found = robustness(two_options(0.5, energy_weight=0.0).at(10.0))
    assert not found.counts_energy
    assert found.stays_optimal == 1.0


def test_the_seed_decides_the_draws() -> None:
    problem = two_options(0.2).at(10.0)
    assert robustness(problem, 200, 1) == robustness(problem, 200, 1)
    assert robustness(problem, 200, 1) != robustness(problem, 200, 2)


def drawn_joules(trials: int, ci95_j: float, mean_j: float = 10.0) -> np.ndarray:
    option = small_option("only", dynamic_energy_j=mean_j, ci95_j=ci95_j)
    provenance = dataclasses.replace(option.provenance, trials=trials)
    option = dataclasses.replace(option, provenance=provenance)
    stages = (Stage("only", "only-node", (option,), 2.0),)
    problem = program_of(stages).at(10.0)
    return Resampled(problem, DRAWS, 0).judged([(0,)]).joules[:, 0]


@pytest.mark.parametrize("trials", [2, 3, 10])
def test_draws_follow_t_within_the_interval(trials: int) -> None:
    # two requests of the stage for one of the pipeline
    units = (drawn_joules(trials, 3.0) / 2 - 10.0) / 3.0
    assert np.abs(units).max() <= 1.0
    end = stats.t.ppf(0.975, trials - 1)

    def cdf(unit: np.ndarray) -> np.ndarray:
        return np.asarray((stats.t.cdf(unit * end, trials - 1) - 0.025) / 0.95)

    assert stats.kstest(units, cdf).pvalue > 0.001


def test_joules_are_never_negative() -> None:
    joules = drawn_joules(3, 100.0)
    assert joules.min() == 0.0
    assert joules.max() > 20.0


@pytest.mark.parametrize("ranked", [1, 3, 100])
@pytest.mark.parametrize("seed", seeds(15))
def test_the_best_of_each_draw_is_that_of_all_plans(
    seed: int, ranked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness_module, "RANKED", ranked)
    program, load_rps = random_small_program(seed)
    program = with_intervals(program, seed)
    problem = program.at(load_rps)
    if not every_plan(problem):
        return
    resampled = Resampled(problem, 40, seed)
    found = resampled.best()
    in_sla = [
        choice
        for choice in itertools.product(*(range(len(stage)) for stage in problem.stages))
        if keeps_latency(problem, choice)
    ]
    worth = resampled.judged(in_sla).worth.max(axis=1)
    feasible = np.isfinite(worth)
    assert (feasible == np.isfinite(found.worth)).all()
    assert found.worth[feasible] == pytest.approx(worth[feasible], rel=1e-9, abs=1e-9)
    for draw, choice in enumerate(found.choices):
        assert (choice is not None) == feasible[draw]
        if choice is not None:
            one = resampled.judged([choice])
            assert one.worth[draw, 0] == pytest.approx(found.worth[draw])
            assert one.joules[draw, 0] == pytest.approx(found.joules[draw])


def with_intervals(program: Program, seed: int) -> Program:
    rng = np.random.default_rng(seed)
    replace = dataclasses.replace
    stages = [
        replace(
            stage,
            options=tuple(
                replace(
                    option,
                    provenance=replace(option.provenance, ci95_j=float(rng.uniform(0, 2))),
                )
                for option in stage.options
            ),
        )
        for stage in program.stages
    ]
    settings = replace(program.settings, energy_weight=float(rng.choice([0.0, 0.3, 2.0])))
    return Program(stages, settings, program.rules)


def keeps_latency(problem: Problem, choice: tuple[int, ...]) -> bool:
    cap = problem.settings.latency_sla_s
    delay_s = sum(stage.delay_s[at] for stage, at in zip(problem.stages, choice, strict=True))
    return cap is None or delay_s <= cap * (1 + 1e-12)
