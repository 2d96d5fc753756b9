"""What a change costs, against the simulation that charges it and against known answers."""

import numpy as np
import pytest
from option_maker import make_option
from seeds import seeds

from ipa_energy.planning.switching import switches
from ipa_energy.records import Option, Stage
from ipa_energy.serving.deployment import DeployedStage, Deployment
from ipa_energy.serving.simulated.backend import SimulatedBackend


def option(variant: str, batch: int, idle_w: float, load_s: float, load_j: float) -> Option:
    return make_option(
        variant, batch, idle_power_w=idle_w, throughput_rps=4.0 * batch, load_s=load_s,
        load_energy_j=load_j,
    )  # fmt: skip


SMALL, PAIR = option("small", 1, 2.0, 3.0, 30.0), option("small", 2, 2.0, 3.0, 30.0)
LARGE = option("large", 1, 5.0, 6.0, 90.0)
STAGES = (
    Stage("one", "n1", (SMALL, PAIR, LARGE)),
    Stage("two", "n2", (SMALL, PAIR, LARGE), requests_per_input=2.0),
)


def runs(*choices: tuple[Option, int]) -> Deployment:
    pairs = zip(STAGES, choices, strict=False)
    return tuple(DeployedStage(stage.name, option, n) for stage, (option, n) in pairs)


def one_change(before: tuple[Option, int], after: tuple[Option, int], **how: float | None) -> tuple:
    told = {"reconfiguration_s": None, **how}
    found = switches(STAGES[:1], [runs(before)], [runs(after)], **told)
    figures = (found.load_j, found.held_j, found.ready_after_s, found.meanwhile_rps)
    return tuple(float(one[0, 0]) for one in figures)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((SMALL, 3), (SMALL, 3), (0.0, 0.0, 0.0, 12.0)),
        ((SMALL, 3), (PAIR, 3), (0.0, 0.0, 0.0, 24.0)),
        ((SMALL, 3), (SMALL, 5), (60.0, 0.0, 3.0, 12.0)),
        ((SMALL, 3), (SMALL, 1), (0.0, 0.0, 0.0, 4.0)),
        ((SMALL, 3), (LARGE, 2), (180.0, 3 * 2.0 * 6.0, 6.0, 12.0)),
    ],
)
def test_known_changes(before: tuple, after: tuple, expected: tuple) -> None:
    assert one_change(before, after) == expected


def test_stopped_replicas_that_stay_hold_their_watts() -> None:
    assert one_change((SMALL, 3), (SMALL, 1), drain_s=30.0)[1] == 2 * 2.0 * 30.0
    assert one_change((SMALL, 3), (LARGE, 2), drain_s=30.0)[1] == 3 * 2.0 * (6.0 + 30.0)


def test_the_yaml_overrules_the_profile_and_what_is_ready_at_once_loads_for_nothing() -> None:
    assert one_change((SMALL, 3), (LARGE, 2), reconfiguration_s=8.0)[1:3] == (48.0, 8.0)
    assert one_change((SMALL, 3), (LARGE, 2), reconfiguration_s=0.0) == (0.0, 0.0, 0.0, 12.0)


@pytest.mark.parametrize("seed", seeds(8))
def test_the_simulation_charges_the_same(seed: int) -> None:
    draw = np.random.default_rng(seed)
    options = (SMALL, PAIR, LARGE)
    plans = [
        runs(*((options[draw.integers(3)], int(draw.integers(1, 6))) for _ in STAGES))
        for _ in range(6)
    ]
    told_s = None if seed % 2 else 4.0
    found = switches(STAGES, plans, plans, reconfiguration_s=told_s)
    for b, before in enumerate(plans):
        for a, after in enumerate(plans):
            backend = SimulatedBackend(STAGES, before, seed=0, reconfiguration_s=told_s)
            backend.deploy(after)
            served = backend.collect(20.0)
            own_j = 20.0 * sum(one.replicas * one.option.idle_power_w for one in after)
            spent_j = float(served.idle_j.sum() + served.dynamic_j.sum())
            assert spent_j - own_j == pytest.approx(found.joules[b, a])


def test_capacity_meanwhile_is_that_of_the_weakest_stage_in_pipeline_requests() -> None:
    before, after = runs((SMALL, 3), (SMALL, 3)), runs((SMALL, 3), (LARGE, 3))
    found = switches(STAGES, [before], [after], reconfiguration_s=None)
    assert found.meanwhile_rps[0, 0] == 3 * 4.0 / 2.0
