"""The rule by which configurations are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from small_programs import one_stage, program_of, random_small_program, small_option

from ipa_energy.optimizer.plan import Choice
from ipa_energy.tradeoff.plan_space import FARTHEST, Space, selected, space_of


def chosen(space: Space, count: int, seed: int = 0, weight: float = 0.0) -> dict[Choice, str]:
    return selected(space, count, energy_weight=weight, seed=seed)


def rows(space: Space, choices: dict[Choice, str]) -> list[int]:
    places = {tuple(row): index for index, row in enumerate(space.choices.tolist())}
    return [places[choice] for choice in choices]


def grid() -> Space:
    """A hundred plans that fill a square of accuracy and energy, two of the corners best."""
    options = [
        small_option(f"v{a}{e}", accuracy=0.1 * a, dynamic_energy_j=2.0**e)
        for a in range(10)
        for e in range(10)
    ]
    return space_of(program_of(one_stage(*options)).at(10.0))


def test_the_ends_come_first_and_say_why() -> None:
    stages = one_stage(
        small_option("balanced", accuracy=0.7, cpu_cores=2, latency_s=0.3, dynamic_energy_j=3),
        small_option("accurate", accuracy=0.9, cpu_cores=9, latency_s=0.9, dynamic_energy_j=9),
        small_option("cheap", accuracy=0.1, cpu_cores=1, latency_s=0.5, dynamic_energy_j=5),
        small_option("fast", accuracy=0.2, cpu_cores=3, latency_s=0.1, dynamic_energy_j=6),
        small_option("frugal", accuracy=0.3, cpu_cores=4, latency_s=0.4, dynamic_energy_j=1),
        small_option("dull", accuracy=0.15, cpu_cores=5, latency_s=0.6, dynamic_energy_j=7),
    )
    found = chosen(space_of(program_of(stages, beta=0.05).at(10.0)), 5)
    assert found == {
        (0,): "best without energy",
        (1,): "most accurate",
        (2,): "fewest cores",
        (3,): "fastest",
        (4,): "least energy",
    }


def test_a_plan_that_is_two_ends_is_in_once_with_both_reasons() -> None:
    stages = one_stage(small_option("good", accuracy=0.9), small_option("bad", accuracy=0.1))
    found = chosen(space_of(program_of(stages).at(10.0)), 5)
    assert found[0,] == "best without energy, most accurate, fewest cores, fastest, least energy"
    assert found[1,] == FARTHEST


def test_the_yamls_own_weight_has_its_plan() -> None:
    stages = one_stage(
        small_option("large", accuracy=0.9, dynamic_energy_j=3.0),
        small_option("small", accuracy=0.5, dynamic_energy_j=0.5),
    )
    found = chosen(space_of(program_of(stages).at(10.0)), 1, weight=2.0)
    assert list(found.values()) == ["best at energy weight 2, fewest cores, fastest, least energy"]


def test_equal_ends_go_to_the_better_plan() -> None:
    stages = one_stage(
        small_option("v", 2, accuracy=0.9, cpu_cores=5),
        small_option("v", 1, accuracy=0.9, cpu_cores=2),
    )
    found = chosen(space_of(program_of(stages, beta=0.1).at(10.0)), 1)
    assert list(found) == [(1,)]


def test_every_choice_is_as_far_as_can_be_from_those_before_it() -> None:
    space = grid()
    columns = np.stack([space.accuracy, np.log(space.joules_per_request)], axis=1)
    scaled = (columns - columns.min(axis=0)) / np.ptp(columns, axis=0)
    found = chosen(space, 12)
    picked = rows(space, found)
    ends = sum(origin != FARTHEST for origin in found.values())
    for place in range(ends, len(picked)):
        distance = np.linalg.norm(scaled[:, None] - scaled[picked[:place]][None], axis=2)
        assert distance.min(axis=1)[picked[place]] == pytest.approx(distance.min(axis=1).max())


def test_ten_of_a_hundred_lie_apart() -> None:
    """No two are neighbours on the ten by ten grid, where ten neighbours would be a tenth apart."""
    space = grid()
    picked = rows(space, chosen(space, 10))
    columns = np.stack([space.accuracy, np.log(space.joules_per_request)], axis=1)
    scaled = (columns - columns.min(axis=0)) / np.ptp(columns, axis=0)
    distance = np.linalg.norm(scaled[picked][:, None] - scaled[picked][None], axis=2)
    assert distance[~np.eye(10, dtype=bool)].min() > 0.3


def test_one_seed_one_choice_and_the_seed_breaks_ties() -> None:
    space = grid()
    assert list(chosen(space, 10, seed=1)) == list(chosen(space, 10, seed=1))
    assert len({tuple(chosen(space, 10, seed=seed)) for seed in range(8)}) > 1


def test_no_more_come_than_differ() -> None:
    stages = one_stage(*(small_option(f"v{number}") for number in range(5)))
    assert len(chosen(space_of(program_of(stages).at(10.0)), 10)) == 1


def test_one_is_the_best_plan() -> None:
    program, load_rps = random_small_program(1)
    space = space_of(program.at(load_rps))
    (only,) = chosen(space, 1).values()
    assert only.startswith("best without energy")


def test_nothing_feasible_nothing_chosen() -> None:
    stages = one_stage(small_option("slow", latency_s=9.0))
    assert chosen(space_of(program_of(stages, latency_sla_s=1.0).at(10.0)), 10) == {}


@pytest.mark.parametrize("seed", range(20))
def test_choices_are_distinct_and_feasible(seed: int) -> None:
    program, load_rps = random_small_program(seed)
    space = space_of(program.at(load_rps))
    found = chosen(space, 6, weight=0.3)
    assert len(rows(space, found)) == len(found) <= 6
    assert bool(found) == (len(space) > 0)


def test_without_joules_the_other_objectives_choose() -> None:
    stages = one_stage(
        *(
            small_option(f"v{n}", accuracy=0.1 * n, dynamic_energy_j=float("nan"))
            for n in range(1, 9)
        )
    )
    found = chosen(space_of(program_of(stages).at(10.0)), 4)
    assert len(found) == 4
    assert "least energy" not in " ".join(found.values())
