import numpy as np
import pytest
from tiny_pipelines import by_id, deployed, option, run, simulate, single, stage

from ipa_energy.serving.simulated.backend import SimulatedBackend


def test_requests_older_than_the_limit_when_their_turn_comes_are_dropped():
    # One replica, 1 s each, all sent at 0: the request that would start at 3 s is 3 s old.
    requests = simulate(single(option(latency_s=1.0), drop_limit_s=2.5), np.zeros(6))
    assert requests.dropped_at.tolist() == [-1, -1, -1, 0, 0, 0]
    assert requests.done_s.tolist() == [1.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    assert np.isnan(requests.started_s[3:]).all()
    assert np.isnan(requests.served_s[3:]).all()
    assert (requests.queued_s == 0.0).all()


def test_a_request_exactly_as_old_as_the_limit_is_served():
    requests = simulate(single(option(latency_s=1.0), drop_limit_s=2.0), np.zeros(4))
    assert requests.dropped_at.tolist() == [-1, -1, -1, 0]


def test_without_a_limit_nothing_is_dropped():
    requests = simulate(single(option(latency_s=1.0)), np.zeros(200))
    assert (requests.dropped_at == -1).all()
    assert requests.done_s.max() == 200.0


def test_age_counts_from_sending_at_every_stage():
    stages = [stage(option(latency_s=0.5), name="a"), stage(option(latency_s=1.0), name="b")]
    backend = SimulatedBackend(stages, deployed(stages, (0, 1), (0, 1)), seed=0, drop_limit_s=1.25)
    requests = simulate(backend, [0.0, 0.0, 0.0])
    # Stage b is free at 0.5, 1.5, …; the second is then 1.5 s old; the third reaches b at 1.5 s.
    assert requests.dropped_at.tolist() == [-1, 1, 1]
    assert requests.served_s[1].tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    assert requests.queued_s[:, 1].tolist() == [0.5, 1.0, 1.5]


def test_drops_leave_room_for_younger_requests_and_a_part_batch_still_waits():
    backend = single(option(1, 3.0), option(2, 3.0), chosen=1, drop_limit_s=2.0)
    requests = simulate(backend, [0.0, 0.0, 0.25, 0.5, 2.75])
    # At 3 s the third and fourth are too old; the fifth may wait for company until 3.75 s.
    assert requests.dropped_at.tolist() == [-1, -1, 0, 0, -1]
    assert requests.started_s[:, 0].tolist() == pytest.approx(
        [0.0, 0.0, np.nan, np.nan, 3.75], nan_ok=True
    )


def test_an_expired_request_behind_a_younger_one_is_dropped_too():
    # At stage a a request alone takes 4 s and a pair 0.5 s, so that the later pair overtakes.
    stages = [
        stage(option(1, 4.0), option(2, 0.5), name="a"),
        stage(option(1, 3.0), option(4, 3.0), name="b"),
    ]
    backend = SimulatedBackend(
        stages,
        deployed(stages, (1, 2), (1, 1)),
        seed=0,
        drop_limit_s=4.9,
        batch_timeout_s=[0.25, 0.25],
    )
    requests = by_id(run(backend, [0.0, 2.0, 2.0, 4.0], [0.0, 5.0]))
    # The pair comes to b at 2.5 s and is served from 2.75 to 5.75 s; the first comes at 4.25 s and
    # is 5.75 s old when b is free again.
    assert requests.dropped_at.tolist() == [1, -1, -1, -1]
    assert requests.done_s[0] == 5.75


def test_dropping_keeps_every_request_accounted_for_under_heavy_overload():
    windows = run(
        single(option(latency_s=1.0), drop_limit_s=3.0), np.arange(5000) * 0.01, [0.0, 25.0, 60.0]
    )
    requests = by_id(windows)
    assert requests.request_id.tolist() == list(range(5000))
    served = requests.dropped_at == -1
    assert ((requests.started_s[served, 0] - requests.sending_s[served]) <= 3.0).all()
    assert (requests.done_s[~served] - requests.sending_s[~served] > 3.0).all()
    assert windows[-1].in_flight == 0
