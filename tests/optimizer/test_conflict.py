"""Conflicts are real and smallest, relaxations help and nothing less does."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from instances import random_program
from option_maker import make_option as option

from ipa_energy.errors import InfeasibleError
from ipa_energy.optimizer import exhaustive
from ipa_energy.optimizer.conflict import (
    Conflict,
    Relaxation,
    StageLimits,
    find_conflict,
    rounded_up,
)
from ipa_energy.optimizer.problem import Problem, Program, combine_accuracy
from ipa_energy.optimizer.settings import AccuracyMethod, Settings
from ipa_energy.optimizer.solve import decide
from ipa_energy.optimizer.stage_columns import StageRules
from ipa_energy.records import Allocation, RequestClass, Stage

SLAS = ("latency_sla_s", "energy_sla_joules")


def infeasible_programs(count: int) -> list[tuple[Program, float]]:
    programs = (random_program(seed) for seed in range(10_000))
    hopeless = (pair for pair in programs if not exhaustive.solve(pair[0].at(pair[1])))
    return list(itertools.islice(hopeless, count))


def relaxed(program: Program, name: str, value: float) -> Program:
    if name.startswith("replicas:"):
        rules = [
            dataclasses.replace(rule, replicas=int(value))
            if name == f"replicas:{stage.name}"
            else rule
            for stage, rule in zip(program.stages, program.rules, strict=True)
        ]
        return Program(program.stages, program.settings, rules)
    settings = dataclasses.replace(program.settings, **{name: value})  # type: ignore[arg-type]
    return Program(program.stages, settings, program.rules)


def just_short_of(relaxation: Relaxation) -> float:
    if relaxation.constraint in SLAS:
        return relaxation.needed - 1e-9 * abs(relaxation.needed)
    step = 1 if relaxation.needed > relaxation.current else -1
    return relaxation.needed - step


def feasible_under(problem: Problem, names: tuple[str, ...]) -> bool:
    """Whether the constraints of these names alone can be met, by brute force."""
    return bool(exhaustive.solve(StageLimits(problem).enforced(names)))


@pytest.mark.slow
def test_relaxations_help_and_nothing_less_does() -> None:
    kinds = set()
    for program, load_rps in infeasible_programs(250):
        conflict = find_conflict(program.at(load_rps))
        for relaxation in conflict.relaxations:
            name = relaxation.constraint
            kinds.add(name.split(":")[0])
            assert exhaustive.solve(relaxed(program, name, relaxation.needed).at(load_rps))
            short = relaxed(program, name, just_short_of(relaxation))
            assert not exhaustive.solve(short.at(load_rps))
    assert kinds == {*SLAS, "scaling_cap", "batching_cap", "replicas"}


@pytest.mark.slow
def test_conflicts_are_conflicts_and_none_is_smaller() -> None:
    for program, load_rps in infeasible_programs(80):
        problem = program.at(load_rps)
        conflict = find_conflict(problem).constraints
        assert conflict
        assert not feasible_under(problem, conflict)
        names = [name for limits in StageLimits(problem).names for name in limits]
        names += [name for name in SLAS if getattr(problem.settings, name) is not None]
        for size in range(len(conflict)):
            for fewer in itertools.combinations(names, size):
                assert feasible_under(problem, fewer)


def test_two_slas_that_fit_alone_but_not_together() -> None:
    """Fast and hungry, or slow and frugal: 0.2 s and 6 J, or 0.8 s and 2 J."""
    stage = Stage(
        "crop",
        "yolo",
        (
            option("fast", latency_s=0.2, dynamic_energy_j=6.0, idle_power_w=0.0),
            option("slow", latency_s=0.8, dynamic_energy_j=2.0, idle_power_w=0.0),
        ),
    )
    settings = Settings(
        alpha=1,
        beta=0,
        gamma=0,
        scaling_cap=10,
        batching_cap=1,
        latency_sla_s=0.5,
        energy_sla_joules=5.0,
    )
    result = decide(Program([stage], settings), 5.0)
    assert result.conflict is not None
    assert result.conflict.constraints == SLAS
    needed = {r.constraint: r.needed for r in result.conflict.relaxations}
    assert needed == pytest.approx({"latency_sla_s": 0.8, "energy_sla_joules": 6.0})
    with pytest.raises(InfeasibleError, match=r"an energy SLA of at least 6 J or a latency SLA of"):
        _ = result.best


def test_load_beyond_the_scaling_cap() -> None:
    """65 rps at 10 rps a replica need 7 replicas."""
    settings = Settings(alpha=1, beta=0, gamma=0, scaling_cap=4, batching_cap=1)
    result = decide(Program([Stage("crop", "yolo", (option(),))], settings), 65.0)
    assert result.conflict is not None
    assert str(result.conflict) == (
        "no plan can meet scaling_cap:crop; needs a scaling_cap of at least 7"
    )


@pytest.mark.parametrize(("load_rps", "throughput_rps"), [(2.1, 0.3), (4.2, 0.6)])
def test_a_whole_multiple_of_the_throughput_needs_no_replica_more(
    load_rps: float, throughput_rps: float
) -> None:
    """All are 7 but for the rounding of the division, which gives 7.000000000000001."""
    settings = Settings(alpha=1, beta=0, gamma=0, scaling_cap=6, batching_cap=1)
    options = (option(throughput_rps=throughput_rps),)
    conflict = decide(Program([Stage("crop", "yolo", options)], settings), load_rps).conflict
    assert conflict is not None
    assert [relaxation.needed for relaxation in conflict.relaxations] == [7]


def test_one_replica_is_a_way_out_of_two() -> None:
    """Two idle replicas use 2·2 + 1 J at 1 rps, one uses 3 J."""
    settings = Settings(
        alpha=1, beta=0, gamma=0, energy_sla_joules=3.5, scaling_cap=9, batching_cap=1
    )
    program = Program([Stage("crop", "yolo", (option(),))], settings, [StageRules(replicas=2)])
    conflict = decide(program, 1.0).conflict
    assert conflict is not None
    found = {way.constraint: way.needed for way in conflict.relaxations}
    assert found == {"replicas:crop": 1, "energy_sla_joules": 5.0}


def test_fixed_replicas_that_carry_no_load_are_named_with_classes_too() -> None:
    """What remains then is an empty list of options, with a mask of its own."""
    classes = (RequestClass("easy", 0.5), RequestClass("hard", 0.5))
    settings = Settings(
        alpha=1, beta=0, gamma=0, scaling_cap=4, batching_cap=1, request_classes=classes
    )
    each = option("a")
    both = dataclasses.replace(each, by_class=(("easy", each), ("hard", each)))
    stage = Stage("crop", "yolo", (both,))
    conflict = decide(Program([stage], settings, [StageRules(replicas=1)]), 1e6).conflict
    assert conflict is not None
    assert conflict.constraints == ("replicas:crop",)


def test_rules_that_leave_no_option_are_named() -> None:
    settings = Settings(alpha=1, beta=0, gamma=0, scaling_cap=4, batching_cap=1)
    stage = Stage("crop", "yolo", (option("a"), option("b")))
    rules = [StageRules(allocations={"a": (Allocation.of(2),)}, variants=frozenset({"b"}))]
    conflict = decide(Program([stage], settings, rules), 1.0).conflict
    assert conflict is not None
    assert conflict.constraints == ("allocations:crop",)
    assert conflict.relaxations == ()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.83331, "0.8334"),
        (0.8333, "0.8333"),
        (6.1, "6.1"),
        (12.0, "12"),
        (0.30000000000000004, "0.3001"),
        (123456.0, "123500"),
        (9.99999, "10"),
    ],
)
def test_shown_values_are_enough(value: float, shown: str) -> None:
    assert rounded_up(value) == shown
    assert float(shown) >= value


def test_a_conflict_of_nothing_is_a_whole_sentence() -> None:
    assert str(Conflict((), ())) == "no plan was found, and no constraint that stands in the way"


def test_several_hopeless_constraints_have_a_joint_way_out() -> None:
    """At 30 rps 3 replicas of 0.2 s and 1 + 3·2/30 J: none of three limits alone is enough."""
    stage = Stage("crop", "crop", (option(latency_s=0.2, throughput_rps=10.0),))
    given = Settings(
        alpha=1.0,
        beta=0.0,
        gamma=0.0,
        latency_sla_s=0.1,
        energy_sla_joules=0.2,
        scaling_cap=1,
        batching_cap=8,
    )
    program = Program([stage], given)
    conflict = find_conflict(program.at(30.0))
    assert conflict.constraints == ("scaling_cap:crop",)
    assert conflict.relaxations == ()
    found = {way.constraint: way.needed for way in conflict.together}
    assert found == {
        "scaling_cap": 3,
        "latency_sla_s": 0.2,
        "energy_sla_joules": pytest.approx(1.2),
    }
    assert str(conflict) == (
        "no plan can meet scaling_cap:crop; needs a scaling_cap of at least 3 and a latency SLA of"
        " at least 0.2 s and an energy SLA of at least 1.2 J, together"
    )
    enough = Program([stage], dataclasses.replace(given, **found))
    assert exhaustive.solve(enough.at(30.0))


def test_of_joint_ways_out_the_least_is_named() -> None:
    """A batch of 8 would carry 20 rps with one replica; two replicas are the smaller change."""
    small = option("small", 1, latency_s=0.2, throughput_rps=10.0)
    large = option("large", 8, latency_s=0.2, throughput_rps=20.0)
    given = Settings(
        alpha=1.0,
        beta=0.0,
        gamma=0.0,
        latency_sla_s=0.1,
        scaling_cap=1,
        batching_cap=1,
    )
    conflict = find_conflict(Program([Stage("only", "only", (small, large))], given).at(20.0))
    assert conflict.relaxations == ()
    found = {way.constraint: way.needed for way in conflict.together}
    assert found == {"scaling_cap": 2, "latency_sla_s": 0.2}


@pytest.mark.parametrize("method", ["sum", "average", "multiply"])
@pytest.mark.parametrize("beyond", [0.7, 0.95, 0.995, 1.0, 1.005, 1.3])
def test_the_joint_way_out_is_the_least_however_high_the_accuracy_floor(
    method: AccuracyMethod, beyond: float
) -> None:
    """A floor as near to a perfect accuracy as may be, or above: against every plan there is."""
    figures = [(0.45, 0.43), (0.55, 0.75), (0.65, 2.5)]
    options = [
        option(f"v{at}", accuracy=accuracy, dynamic_energy_j=energy_j, idle_power_w=0.0)
        for at, (accuracy, energy_j) in enumerate(figures)
    ]
    perfect = 2.0 if method == "sum" else 1.0
    floor = beyond * perfect
    given = Settings(
        alpha=1.0,
        beta=0.0,
        gamma=0.0,
        energy_sla_joules=0.8,
        accuracy_floor=floor,
        accuracy_method=method,
        scaling_cap=1,
        batching_cap=1,
    )
    stages = [Stage(name, name, tuple(options)) for name in ("a", "b")]
    conflict = find_conflict(Program(stages, given).at(5.0))
    needed = {way.constraint: way.needed for way in conflict.together}
    assert list(needed) == ["energy_sla_joules", "accuracy_floor"]

    def change(accuracy: float, energy_j: float) -> float:
        return abs(math.log(energy_j / 0.8)) + abs(math.log(accuracy / floor))

    plans = itertools.product(figures, repeat=2)
    least = min(
        change(combine_accuracy([one[0], two[0]], method), one[1] + two[1]) for one, two in plans
    )
    assert change(needed["accuracy_floor"], needed["energy_sla_joules"]) == pytest.approx(least)


def test_joint_ways_out_help_and_are_looked_for_only_where_no_single_one_does() -> None:
    joint = 0
    for program, load_rps in infeasible_programs(250):
        conflict = find_conflict(program.at(load_rps))
        assert conflict.relaxations or conflict.together, str(conflict)
        if not conflict.together:
            continue
        joint += 1
        assert conflict.relaxations == ()
        assert len(conflict.together) > 1
        changed = program
        for way in conflict.together:
            changed = relaxed(changed, way.constraint, way.needed)
        assert exhaustive.solve(changed.at(load_rps))
    assert joint > 2
