import math

import numpy as np
import pytest
from tiny_pipelines import deployed, option, single, stage

from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.settings import Settings
from ipa_energy.serving.deployment import DeployedStage, deployment_of
from ipa_energy.serving.simulated.backend import SimulatedBackend

STAGES = [stage(option(1), option(2), name="a"), stage(option(1), name="b")]
START = deployed(STAGES, (0, 1), (0, 1))


def plan():
    settings = Settings(alpha=1, beta=1, gamma=0.1, scaling_cap=100, batching_cap=8)
    return build_plan(Program(STAGES, settings).at(2.0), (1, 0))


def test_plan_is_deployed_with_its_options_replicas_and_waits():
    # 2 rps on replicas of 0.1 rps: 20; a batch of 2 waits for 1 request at 2 rps.
    assert deployment_of(plan()) == (
        DeployedStage("a", STAGES[0].options[1], 20, 0.5),
        DeployedStage("b", STAGES[1].options[0], 20, 0.0),
    )


def test_plan_may_be_the_start_and_may_be_applied():
    backend = SimulatedBackend(STAGES, deployment_of(plan()), seed=0)
    assert backend.serve(np.empty(0), 1.0).cores.tolist() == [40.0]
    backend = SimulatedBackend(STAGES, START, seed=0)
    backend.deploy(deployment_of(plan()))
    assert backend.serve(np.empty(0), 1.0).cores.tolist() == [40.0]
    backend.close()
    backend.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed of -1"),
        ({"drop_limit_s": -1.0}, "drop limit of -1 s"),
        ({"drop_limit_s": math.nan}, "drop limit of nan s"),
        ({"reconfiguration_s": -1.0}, "reconfiguration of -1 s"),
        ({"reconfiguration_s": math.inf}, "reconfiguration of inf s"),
        ({"batch_timeout_s": [1.0]}, "1 batch time-outs; allowed: one a stage, 2"),
        ({"batch_timeout_s": [1.0, -1.0]}, "time-out of -1 s"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SimulatedBackend(STAGES, START, **{"seed": 0, **settings})


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (START[:1], "a plan for the stages a; allowed: a, b"),
        (START[::-1], "a plan for the stages b, a"),
        ((DeployedStage("a", option(4), 1), START[1]), "small 1c b4, which is not in the profile"),
        (
            (DeployedStage("a", option(1, variant="huge"), 1), START[1]),
            "huge 1c b1, which is not in the profile",
        ),
        ((DeployedStage("a", option(1), 0), START[1]), "0 replicas"),
    ],
)
def test_deployment_that_does_not_fit_is_refused(start, message):
    with pytest.raises(ConfigError, match=message):
        SimulatedBackend(STAGES, start, seed=0)
    backend = SimulatedBackend(STAGES, START, seed=0)
    with pytest.raises(ConfigError, match=message):
        backend.deploy(start)


@pytest.mark.parametrize("sending", [[3.0, 2.5], [1.5], [4.0], [2.0, math.nan]])
def test_sending_times_outside_the_window_or_out_of_order_are_refused(sending):
    backend = single(option())
    backend.serve(np.empty(0), 2.0)
    with pytest.raises(ConfigError, match="sending times"):
        backend.serve(np.array(sending), 4.0)


@pytest.mark.parametrize("until_s", [1.0, math.nan, math.inf])
def test_window_that_ends_before_it_begins_is_refused(until_s):
    backend = single(option())
    backend.serve(np.empty(0), 2.0)
    with pytest.raises(ConfigError, match="window from 2 s"):
        backend.serve(np.empty(0), until_s)


def test_backend_says_its_name_and_time():
    backend = single(option())
    assert (backend.name, backend.now_s) == ("simulate", 0.0)
    backend.serve(np.empty(0), 2.5)
    assert backend.now_s == 2.5
