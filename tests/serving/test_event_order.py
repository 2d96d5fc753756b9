"""What happens first when several things happen at one time; see ``simulated/simulation.py``."""

import numpy as np
from tiny_pipelines import deployed, option, simulate, single, stage

from ipa_energy.serving.simulated.backend import SimulatedBackend


def two_stages(first, second, *, replicas, timeout_s):
    stages = [stage(first, name="a"), stage(second, name="b")]
    start = deployed(stages, (0, replicas), (0, 1))
    return SimulatedBackend(stages, start, seed=0, batch_timeout_s=[0.0, timeout_s])


def test_batches_end_before_timeouts_fire():
    """Stage a hands on at 0.5 and 1.0 s; at 1.0 s the time-out of b fires too: one batch."""
    backend = two_stages(option(1, 0.5), option(2, 0.25), replicas=1, timeout_s=0.5)
    requests = simulate(backend, [0.0, 0.0])
    assert requests.queued_s[:, 1].tolist() == [0.5, 1.0]
    assert requests.started_s[:, 1].tolist() == [1.0, 1.0]


def test_requests_enter_before_batches_end():
    """Two parts wait since 0.5 s, two more come at 1.0 s, when the replica gets free: one batch."""
    backend = single(option(4, 1.0), timeout_s=0.0, per_input=2.0)
    requests = simulate(backend, [0.0, 0.5, 1.0])
    assert requests.started_s[:, 0].tolist() == [0.0, 1.0, 1.0]
    assert requests.done_s.tolist() == [1.0, 2.0, 2.0]


def test_of_two_batches_that_end_the_first_stage_s_is_first():
    """One request waits at b; at 1.0 s a hands on another and b gets free: one batch."""
    backend = two_stages(option(1, 0.5), option(2, 0.5), replicas=3, timeout_s=0.0)
    requests = simulate(backend, [0.0, 0.25, 0.5])
    assert requests.started_s[:, 1].tolist() == [0.5, 1.0, 1.0]


def test_replicas_get_ready_before_requests_enter():
    """New, faster replicas serve what comes in the second in which they are ready."""
    fast, slow = option(1, 0.25, variant="fast"), option(1, 1.0, variant="slow")
    backend = single(slow, fast, timeout_s=0.0, per_input=2.0, reconfiguration_s=4.0)
    backend.deploy(deployed([stage(slow, fast)], (1, 2)))
    served = backend.serve(np.array([4.0]), 10.0)
    assert served.requests.done_s.tolist() == [4.25]
