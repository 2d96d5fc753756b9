"""The optimal plan over the energy weight: by hand, and against every plan there is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from seeds import seeds
from small_programs import every_plan, one_stage, program_of, random_small_program, small_option

from ipa_energy.as_json import as_json
from ipa_energy.optimizer.problem import Problem
from ipa_energy.tradeoff.plan_map import loads_to_map, map_row, most_frugal, optimal_lines, plan_map

SEEDS = seeds(20)


def test_thresholds_computed_by_hand() -> None:
    # lines 0.9 − 3w, 0.8 − w, 0.5 − 0.5w cross at w = 0.05 and w = 0.6
    stages = one_stage(
        small_option("large", accuracy=0.9, dynamic_energy_j=3.0),
        small_option("middle", accuracy=0.8, dynamic_energy_j=1.0),
        small_option("small", accuracy=0.5, dynamic_energy_j=0.5),
    )
    row = map_row(program_of(stages).at(10.0), {})
    assert row.thresholds == pytest.approx((0.05, 0.6))
    variants = [segment.plan.stages[0].option.variant for segment in row.segments]
    assert variants == ["large", "middle", "small"]
    assert row.segments[0].weight_from == 0.0
    assert math.isinf(row.segments[-1].weight_to)
    assert as_json(row)["segments"][-1]["weight_to"] is None


def test_a_plan_under_the_others_lines_is_never_optimal() -> None:
    # at the crossing of the outer two, w = 0.16, "middle" is worth 0.34 and they 0.42
    stages = one_stage(
        small_option("large", accuracy=0.9, dynamic_energy_j=3.0),
        small_option("middle", accuracy=0.5, dynamic_energy_j=1.0),
        small_option("small", accuracy=0.5, dynamic_energy_j=0.5),
    )
    row = map_row(program_of(stages).at(10.0), {})
    assert row.thresholds == pytest.approx((0.16,))


def test_three_lines_through_one_point_make_one_threshold() -> None:
    stages = one_stage(
        small_option("large", accuracy=0.75, dynamic_energy_j=2.0),
        small_option("middle", accuracy=0.5, dynamic_energy_j=1.5),
        small_option("small", accuracy=0.25, dynamic_energy_j=1.0),
    )
    assert map_row(program_of(stages).at(10.0), {}).thresholds == pytest.approx((0.5,))


def test_of_equally_good_plans_without_energy_the_frugal_one_holds_from_0() -> None:
    stages = one_stage(
        small_option("wasteful", accuracy=0.5, dynamic_energy_j=2.0),
        small_option("frugal", accuracy=0.5, dynamic_energy_j=1.0),
    )
    row = map_row(program_of(stages).at(10.0), {})
    assert [segment.plan.stages[0].option.variant for segment in row.segments] == ["frugal"]
    assert row.segments[0].weight_from == 0.0


def test_watts_weigh_by_the_load() -> None:
    stages = one_stage(
        small_option("large", accuracy=0.9, dynamic_energy_j=3.0),
        small_option("small", accuracy=0.5, dynamic_energy_j=1.0),
    )
    program = program_of(stages, energy_metric="watts")
    assert map_row(program.at(10.0), {}).thresholds == pytest.approx((0.2 / 10,))


def test_an_infeasible_load_is_an_empty_row_with_a_reason() -> None:
    stages = one_stage(small_option("v", latency_s=2.0))
    found = plan_map(program_of(stages, latency_sla_s=1.0), [1.0, 5.0])
    assert [row.segments for row in found.rows] == [(), ()]
    assert "latency_sla_s" in (found.rows[0].reason or "")
    assert found.regions == ()


def brute_force(problem: Problem, weight: float, lines: np.ndarray) -> float:
    return float((lines[:, 0] - weight * lines[:, 1]).max())


@pytest.mark.parametrize("seed", SEEDS)
def test_no_plan_beats_the_map_at_any_weight(seed: int) -> None:
    program, load_rps = random_small_program(seed)
    problem = program.at(load_rps)
    plans = every_plan(problem)
    found = optimal_lines(problem)
    assert bool(found) == bool(plans)
    if not plans:
        assert most_frugal(problem) is None
        return
    scale = load_rps if program.settings.energy_metric == "watts" else 1.0
    lines = np.array([(plan.objective, scale * plan.joules_per_request) for plan in plans])
    starts = [start for start, _ in found]
    assert starts[0] == 0.0
    assert starts == sorted(set(starts))
    assert found[-1][1].energy == pytest.approx(float(lines[:, 1].min()), rel=1e-9)
    ends = [*starts[1:], 2 * starts[-1] + 1.0]
    for (start, line), end in zip(found, ends, strict=True):
        for weight in np.linspace(start, end, 7):
            best = brute_force(problem, weight, lines)
            assert line.at(float(weight)) == pytest.approx(best, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("seed", range(0, 150, 10))
def test_thresholds_are_where_the_optimum_changes(seed: int) -> None:
    """On a fine grid of weights the optimal joules change between the same neighbours."""
    program, load_rps = random_small_program(seed)
    problem = program.at(load_rps)
    plans = every_plan(problem)
    if not plans:
        assert optimal_lines(problem) == []
        return
    scale = load_rps if program.settings.energy_metric == "watts" else 1.0
    lines = np.array([(plan.objective, scale * plan.joules_per_request) for plan in plans])
    found = optimal_lines(problem)
    assert found
    for start, line in found:
        later = [weight for weight, _ in found if weight > start]
        middle = (start + (later[0] if later else start + 1.0)) / 2
        worth = lines[:, 0] - middle * lines[:, 1]
        best = lines[worth >= worth.max() - 1e-9 * max(1.0, abs(worth.max())), 1]
        assert np.isclose(best, line.energy, rtol=1e-9).any()


def test_regions_merge_neighbouring_loads() -> None:
    stages = one_stage(
        small_option("large", accuracy=0.9, dynamic_energy_j=3.0, throughput_rps=2.0),
        small_option("small", accuracy=0.5, dynamic_energy_j=1.0),
    )
    found = plan_map(program_of(stages, scaling_cap=1), [1.0, 2.0, 3.0])
    large, small = (next(o for o in found.options if o.startswith(n)) for n in ("large", "small"))
    regions = {found.options[region.options]: region for region in found.regions}
    assert regions[large].loads_rps == (1.0, 2.0)
    assert regions[large].weight_from == 0.0
    assert regions[large].weight_to == pytest.approx(0.2)
    assert regions[small].loads_rps == (1.0, 3.0)
    assert regions[small].weight_from == 0.0


def test_a_region_ends_where_its_plan_is_not_optimal() -> None:
    """Loads 1 and 3 of one plan with another at 2 between them are two regions."""
    stages = one_stage(
        small_option("odd", accuracy=0.9, throughput_rps=1.0, cpu_cores=1.0),
        small_option("even", accuracy=0.8, throughput_rps=2.0, cpu_cores=1.0),
    )
    # cores at 1, 2, 3 rps: odd 1, 2, 3; even 1, 1, 2
    found = plan_map(program_of(stages, beta=0.15), [1.0, 2.0, 4.0])
    labels = [found.options[row.segments[0].options].split()[0] for row in found.rows]
    assert labels == ["odd", "even", "even"]
    assert [region.loads_rps for region in found.regions] == [(1.0, 1.0), (2.0, 4.0)]


@pytest.mark.parametrize(
    ("loads", "largest"), [([10.0], 15.0), ([0.5 + 0.5], 2.0), ([400.0], 600.0)]
)
def test_loads_of_a_map_go_half_as_far_again(loads: list[float], largest: float) -> None:
    found = loads_to_map(loads)
    assert found == tuple(sorted(set(found)))
    assert set(loads) <= set(found)
    assert found[0] == 1.0
    assert largest * 0.95 <= found[-1] <= largest
    assert len(found) <= 26
