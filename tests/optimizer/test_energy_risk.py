"""Planning with the upper ends of the joules' intervals: ``energy_risk: upper``."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from instances import objective, random_program
from option_maker import make_option as option
from seeds import seeds

from ipa_energy.as_json import as_json
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer import exhaustive
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.problem import Program, require_intervals
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import checked_plans, decide
from ipa_energy.records import Option, Provenance, Stage
from ipa_energy.registries import SOLVERS

EVERY = pytest.mark.parametrize("method", SOLVERS)


def with_interval(found: Option, ci95_j: float) -> Option:
    return dataclasses.replace(found, provenance=Provenance("fake", "measured", 3, ci95_j))


def uncertain(variant: str, dynamic_energy_j: float, ci95_j: float, **further: float) -> Option:
    made = option(variant, dynamic_energy_j=dynamic_energy_j, **further)  # type: ignore[arg-type]
    return with_interval(made, ci95_j)


SURE = uncertain("sure", 2.0, 0.1)
NOISY = uncertain("noisy", 1.8, 0.5)
"""2 W a replica and 10 rps: at 25 rps three replicas wait for 3·2/25 = 0.24 J a request."""


def program(*options: Option, requests_per_input: float = 1.0, **settings: object) -> Program:
    given = {"alpha": 1.0, "beta": 0.0, "gamma": 0.0, "scaling_cap": 10, "batching_cap": 8}
    return Program(
        [Stage("crop", "yolo", options, requests_per_input)],
        Settings(**{**given, **settings}),  # type: ignore[arg-type]
    )


def risky(found: Program, half_widths: np.random.Generator | float) -> Program:
    """The same program planning with upper ends, of random intervals or all of one width."""
    stages = [
        dataclasses.replace(
            stage,
            options=tuple(
                with_interval(
                    each,
                    half_widths
                    if isinstance(half_widths, float)
                    else float(half_widths.uniform(0, 2)),
                )
                for each in stage.options
            ),
        )
        for stage in found.stages
    ]
    settings = dataclasses.replace(found.settings, energy_risk="upper")
    return Program(stages, settings, found.rules)


def moved_up(found: Program) -> Program:
    """A program of mean joules whose means are the upper ends of ``found``."""
    stages = [
        dataclasses.replace(
            stage,
            options=tuple(
                dataclasses.replace(
                    each, dynamic_energy_j=each.dynamic_energy_j + each.energy_ci95_j
                )
                for each in stage.options
            ),
        )
        for stage in found.stages
    ]
    settings = dataclasses.replace(found.settings, energy_risk="mean")
    return Program(stages, settings, found.rules)


@EVERY
def test_the_less_certain_of_two_options_loses(method: str) -> None:
    """Means 2.24 and 2.04 J; upper ends 2.34 and 2.54 J."""
    by_mean = decide(program(SURE, NOISY, energy_weight=1.0), 25.0, method).best
    assert by_mean.stages[0].option.variant == "noisy"
    assert by_mean.planned_joules_per_request == by_mean.joules_per_request
    by_upper = decide(
        program(SURE, NOISY, energy_weight=1.0, energy_risk="upper"), 25.0, method
    ).best
    assert by_upper.stages[0].option.variant == "sure"
    assert by_upper.joules_per_request == pytest.approx(2.24)
    assert by_upper.planned_joules_per_request == pytest.approx(2.34)
    assert by_upper.terms["energy"] == pytest.approx(2.34)
    assert by_upper.power_w == pytest.approx(25 * 2.24)


@EVERY
def test_watts_and_requests_per_input_count_the_interval(method: str) -> None:
    """2 a frame at 10 rps: λ_s = 20, n = 2, J = 4 + 2·2/20 ± 0.5 = 4.7 J, 9.4 J a frame, 94 W."""
    one = program(
        uncertain("v", 4.0, 0.5),
        requests_per_input=2.0,
        energy_weight=1.0,
        energy_metric="watts",
        energy_risk="upper",
    )
    plan = decide(one, 10.0, method).best
    assert plan.stages[0].planned_joules_per_request == pytest.approx(4.7)
    assert plan.planned_joules_per_request == pytest.approx(9.4)
    assert plan.joules_per_request == pytest.approx(8.4)
    assert plan.terms["energy"] == pytest.approx(94.0)


@EVERY
def test_the_energy_sla_holds_for_the_upper_end(method: str) -> None:
    """The better variant's 2.04 J fit into 2.4 J, its upper end of 2.54 J does not."""
    better = dataclasses.replace(NOISY, accuracy=0.9)
    assert (
        decide(program(SURE, better, energy_sla_joules=2.4), 25.0, method).best.label
        == "noisy 1c b1 x3"
    )
    capped = program(SURE, better, energy_sla_joules=2.4, energy_risk="upper")
    plan = decide(capped, 25.0, method).best
    assert plan.label == "sure 1c b1 x3"
    check = next(c for c in plan.certificate.checks if c.constraint == "energy_sla_joules")
    assert check.value == pytest.approx(2.34)
    assert check.holds


def test_a_conflict_and_its_way_out_speak_of_upper_ends() -> None:
    result = decide(
        program(SURE, NOISY, energy_sla_joules=2.2, energy_risk="upper"), 25.0, "pareto"
    )
    assert result.conflict is not None
    (relaxation,) = [
        way for way in result.conflict.relaxations if way.constraint == "energy_sla_joules"
    ]
    assert relaxation.needed == pytest.approx(2.34)
    assert "an energy SLA of at least 2.34 J (upper ends of the 95 % intervals)" in str(
        result.conflict
    )
    by_mean = decide(program(SURE, NOISY, energy_sla_joules=2.0), 25.0, "pareto")
    assert "upper" not in str(by_mean.conflict)


def test_the_plan_shows_both_joules() -> None:
    plan = as_json(decide(program(SURE, energy_weight=1.0, energy_risk="upper"), 25.0).best)
    assert plan["energy_risk"] == "upper"
    assert plan["joules_per_request"] == pytest.approx(2.24)
    assert plan["planned_joules_per_request"] == pytest.approx(2.34)
    assert plan["stages"][0]["planned_joules_per_request"] == pytest.approx(2.34)


def test_an_entry_without_an_interval_is_refused_by_name() -> None:
    once = uncertain("once", 1.0, math.nan)
    for key in ("energy_weight", "energy_sla_joules"):
        with pytest.raises(ConfigError) as caught:
            program(SURE, once, energy_risk="upper", **{key: 5.0})
        told = str(caught.value)
        assert "stage crop, once 1c b1 on cpu: its joules have no 95 % interval" in told
        assert "--trials 3, or set energy_risk: mean" in told
        assert program(SURE, once, **{key: 5.0}).at(1.0).settings.energy_risk == "mean"


def test_joules_shown_at_weight_zero_need_intervals_too() -> None:
    stages = program(SURE, uncertain("once", 1.0, math.nan), option("bare")).stages
    with pytest.raises(ConfigError, match=r"once 1c b1 on cpu.* nor have 1 other entries"):
        require_intervals(stages, "upper")
    require_intervals(stages, "mean")
    require_intervals(program(SURE, NOISY).stages, "upper")
    without = option("no joules", dynamic_energy_j=math.nan, idle_power_w=math.nan)
    require_intervals(program(without).stages, "upper")


@pytest.mark.parametrize("seed", seeds(15))
def test_nothing_changes_where_joules_do_not_count(seed: int) -> None:
    """Even for joules without an interval, which is what the instances have."""
    found, load_rps = random_program(seed)
    settings = dataclasses.replace(found.settings, energy_weight=0.0, energy_sla_joules=None)
    mean = decide(Program(found.stages, settings, found.rules), load_rps, top_k=3)
    upper_settings = dataclasses.replace(settings, energy_risk="upper")
    upper = decide(Program(found.stages, upper_settings, found.rules), load_rps, top_k=3)
    assert [plan.label for plan in upper.plans] == [plan.label for plan in mean.plans]
    assert [plan.terms for plan in upper.plans] == [plan.terms for plan in mean.plans]
    assert upper.conflict == mean.conflict


@pytest.mark.parametrize("seed", seeds(15))
def test_intervals_of_zero_are_the_mean(seed: int) -> None:
    found, load_rps = random_program(seed)
    mean, upper = found.at(load_rps), risky(found, 0.0).at(load_rps)
    for one, other in zip(mean.stages, upper.stages, strict=True):
        for column in ("option_index", "replicas", "accuracy", "delay_s", "energy_j", "penalty"):
            assert np.array_equal(getattr(one, column), getattr(other, column))
    choices = exhaustive.solve(mean, 3)
    assert exhaustive.solve(upper, 3) == choices
    plans = checked_plans(mean, choices, "mean"), checked_plans(upper, choices, "upper")
    for by_mean, by_upper in zip(*plans, strict=True):
        assert by_mean.terms == by_upper.terms
        assert by_mean.certificate == by_upper.certificate


def test_the_mean_is_blind_to_intervals() -> None:
    for seed in range(60):
        found, load_rps = random_program(seed)
        wide = risky(found, np.random.default_rng(seed))
        settings = dataclasses.replace(wide.settings, energy_risk="mean")
        for one, other in zip(
            found.at(load_rps).stages,
            Program(wide.stages, settings, wide.rules).at(load_rps).stages,
            strict=True,
        ):
            assert np.array_equal(one.energy_j, other.energy_j)
            assert np.array_equal(one.penalty, other.penalty)


@pytest.mark.slow
@EVERY
def test_solvers_agree_with_brute_force_over_upper_ends(method: str) -> None:
    solved = capped = 0
    for seed in range(250):
        found, load_rps = random_program(seed)
        upper = risky(found, np.random.default_rng(seed))
        problem = upper.at(load_rps)
        reference = moved_up(upper).at(load_rps)
        best = [] if reference.is_empty() else exhaustive.solve(reference, 1)
        choices = [] if problem.is_empty() else SOLVERS[method].load()(problem, 1)
        assert len(choices) == len(best)
        if not best:
            continue
        solved += 1
        assert objective(problem, choices[0]) == pytest.approx(
            objective(reference, best[0]), rel=1e-9, abs=1e-9
        )
        (plan,) = checked_plans(problem, choices, method)
        upper_j = sum(
            stage.requests_per_input
            * (
                stage.option.dynamic_energy_j
                + stage.option.energy_ci95_j
                + stage.replicas * stage.option.idle_power_w / stage.load_rps
            )
            for stage in plan.stages
        )
        assert plan.planned_joules_per_request == pytest.approx(upper_j, rel=1e-12)
        cap = upper.settings.energy_sla_joules
        if cap is not None:
            capped += 1
            assert upper_j <= cap * (1 + 1e-9)
    assert solved > 100
    assert capped > 30


@pytest.mark.slow
def test_relaxations_under_upper_ends_are_just_enough() -> None:
    hopeless = (
        (risky(found, np.random.default_rng(seed)), load_rps)
        for seed in range(3000)
        for found, load_rps in [random_program(seed)]
        if found.settings.energy_sla_joules is not None
    )
    checked = 0
    for found, load_rps in itertools.islice(hopeless, 400):
        problem = found.at(load_rps)
        if problem.is_empty() or exhaustive.solve(problem):
            continue
        for way in find_conflict(problem).relaxations:
            if way.constraint != "energy_sla_joules":
                continue
            for cap, feasible in ((way.needed, True), (way.needed * (1 - 1e-9), False)):
                settings = dataclasses.replace(found.settings, energy_sla_joules=cap)
                changed = Program(found.stages, settings, found.rules).at(load_rps)
                assert bool(exhaustive.solve(changed)) is feasible
            checked += 1
    assert checked > 20
