"""The shipped pipeline on measured joules: boards are counted, priced and told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipa_energy.optimizer.solve import decide
from ipa_energy.planning.planner import load_planner

CONFIG = Path(__file__).parent.parent / "configs" / "boards.yaml"


@pytest.mark.parametrize("method", ["pareto", "highs"])
@pytest.mark.parametrize("weight", [0.0, 20.0])
def test_no_plan_uses_more_boards_of_a_kind_than_there_are(method: str, weight: float) -> None:
    planner = load_planner(CONFIG, {"energy_weight": weight})
    for load_rps in (1, 30, 300):
        result = decide(planner.program, load_rps, method)
        assert result.status == "optimal"
        (stage,) = result.best.stages
        ((board, units),) = (
            (name, units)
            for name, units in stage.option.allocation.resources
            if name in planner.config.capacity
        )
        assert stage.replicas * units <= planner.config.capacity[board]
        checks = {check.constraint: check for check in result.best.certificate.checks}
        assert checks[f"capacity:{board}"].holds


def test_a_load_beyond_all_boards_names_the_capacity() -> None:
    planner = load_planner(CONFIG)
    result = decide(planner.program, 100_000)
    assert result.status == "infeasible"
    assert result.conflict is not None
    assert any(name.startswith("capacity:") for name in result.conflict.constraints)


def test_a_unit_of_energy_weight_finds_the_frugal_runtime_of_a_board() -> None:
    """Joules are measured: runtimes of one board differ, which no price of boards can see."""
    blind = decide(load_planner(CONFIG).program, 30).best
    seeing = decide(load_planner(CONFIG, {"energy_weight": 20}).program, 30).best
    assert seeing.joules_per_request < 0.5 * blind.joules_per_request
    assert (blind.quality, seeing.quality) == ("measured", "measured")
