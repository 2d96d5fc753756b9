"""Plans that are good only because energy counts, against every plan there is."""

from __future__ import annotations

import dataclasses

import pytest
from seeds import seeds
from small_programs import every_plan, one_stage, program_of, random_small_program, small_option

from ipa_energy.as_json import as_json
from ipa_energy.optimizer.front import pareto_front
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.solve import solve
from ipa_energy.tradeoff.energy_added import count_only_energy

Vector = tuple[float, ...]


def vectors(plans: list[Plan], *, with_energy: bool) -> set[Vector]:
    found = set()
    for plan in plans:
        vector = (-plan.accuracy, plan.cost_cores, plan.latency_s)
        if with_energy:
            vector = (*vector, plan.joules_per_request)
        found.add(tuple(float(f"{value:.9g}") for value in vector))
    return found


def undominated(points: set[Vector]) -> set[Vector]:
    return {
        point
        for point in points
        if not any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points
        )
    }


@pytest.mark.parametrize("seed", seeds(15))
def test_fronts_are_those_of_brute_force(seed: int) -> None:
    program, load_rps = random_small_program(seed)
    problem = program.at(load_rps)
    plans = every_plan(problem)
    front = pareto_front(problem)
    if not plans:
        assert len(front) == 0
        return
    counts = count_only_energy(front)
    assert counts.front == len(undominated(vectors(plans, with_energy=True)))
    assert counts.front_without_energy == len(undominated(vectors(plans, with_energy=False)))
    assert counts.only_front == counts.front - counts.front_without_energy >= 0
    assert counts.only_supported <= counts.supported <= counts.front


def test_a_plan_that_only_energy_recommends() -> None:
    stages = one_stage(
        small_option("accurate", accuracy=0.9, cpu_cores=2, dynamic_energy_j=4.0),
        small_option("cheap", accuracy=0.5, cpu_cores=1, dynamic_energy_j=3.0),
        small_option("frugal", accuracy=0.5, cpu_cores=2, dynamic_energy_j=1.0),
        small_option("bad", accuracy=0.4, cpu_cores=3, dynamic_energy_j=5.0),
    )
    counts = count_only_energy(pareto_front(program_of(stages).at(10.0)))
    assert (counts.front, counts.front_without_energy, counts.only_front) == (3, 2, 1)
    assert (counts.supported, counts.only_supported) == (3, 1)
    assert counts.supported_without_energy == 2
    (example,) = counts.examples
    assert example.label == "frugal 2c b1 x1"
    assert as_json(example)["joules_per_request"] == pytest.approx(1.0)


def test_the_weights_of_an_example_choose_it() -> None:
    """With the witness in the program's settings the exact solver picks that plan's figures."""
    tried = 0
    for seed in range(40):
        program, load_rps = random_small_program(seed)
        program = Program(
            program.stages,
            dataclasses.replace(program.settings, gamma=0.0, energy_metric="joules_per_request"),
        )
        front = pareto_front(program.at(load_rps))
        if len(front) == 0:
            continue
        for example in count_only_energy(front).examples:
            assert example.weights["alpha"] == pytest.approx(program.settings.alpha)
            weighted = dataclasses.replace(
                program.settings,
                beta=example.weights["beta"],
                energy_weight=example.weights["energy_weight"],
            )
            best = solve(Program(program.stages, weighted).at(load_rps)).best
            joules = example.joules_per_request
            expected = (
                weighted.alpha * example.accuracy
                - weighted.beta * example.cost_cores
                - weighted.energy_weight * joules
            )
            assert expected == pytest.approx(best.objective, rel=1e-6, abs=1e-6)
            tried += 1
    assert tried > 10


def test_energy_that_follows_cores_adds_no_plan() -> None:
    options = [
        small_option(f"v{n}", accuracy=0.1 * n, cpu_cores=n, latency_s=0.1, dynamic_energy_j=n)
        for n in range(1, 6)
    ]
    counts = count_only_energy(pareto_front(program_of(one_stage(*options)).at(10.0)))
    assert (counts.front, counts.only_front, counts.only_supported) == (5, 0, 0)
    assert counts.examples == ()
