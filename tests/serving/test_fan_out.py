import numpy as np
import pytest
from tiny_pipelines import by_id, deployed, option, run, simulate, single, stage

from ipa_energy.serving.simulated.backend import SimulatedBackend


def pipeline(per_input, *, replicas=1, **settings):
    """A stage of one, a stage that sees ``per_input`` times as many, a stage of one."""
    stages = [
        stage(option(1, 0.5), name="a"),
        stage(option(1, 1.0, energy_j=4.0), name="b", per_input=per_input),
        stage(option(1, 0.25), name="c"),
    ]
    choices = (0, 1), (0, replicas), (0, 1)
    return SimulatedBackend(stages, deployed(stages, *choices), seed=0, **settings)


def test_request_goes_on_when_all_its_parts_are_done():
    requests = simulate(pipeline(3.0, replicas=2), [0.0])
    # Parts start at 0.5, 0.5 and 1.5 s.
    assert requests.started_s[0].tolist() == [0.0, 0.5, 2.5]
    assert requests.served_s[0].tolist() == [0.5, 2.5, 2.75]


def test_every_part_costs_its_joules():
    windows = run(pipeline(3.0), [0.0, 0.0], [0.0, 20.0])
    assert windows[0].dynamic_j.tolist() == [4.0, 24.0, 4.0]


def test_parts_of_one_request_share_a_batch():
    backend = single(option(1, 0.5), option(2, 0.75), chosen=1, per_input=2.0)
    requests = simulate(backend, [0.0, 1.0])
    assert requests.started_s[:, 0].tolist() == [0.0, 1.0]
    assert requests.done_s.tolist() == [0.75, 1.75]


def test_request_without_parts_skips_the_stage():
    requests = simulate(pipeline(0.5, replicas=8), np.arange(200) * 1.0)
    skipped = np.isnan(requests.queued_s[:, 1])
    assert 60 < skipped.sum() < 140
    assert np.isnan(requests.served_s[skipped, 1]).all()
    assert (requests.queued_s[skipped, 2] == requests.served_s[skipped, 0]).all()
    assert (requests.dropped_at == -1).all()


def test_request_may_skip_the_only_stage():
    requests = simulate(single(option(), per_input=0.25), np.arange(40) * 1.0)
    skipped = np.isnan(requests.queued_s[:, 0])
    assert skipped.any()
    assert (requests.done_s[skipped] == requests.sending_s[skipped]).all()


@pytest.mark.parametrize("per_input", [0.3, 1.7, 2.5])
def test_fractions_are_rounded_at_random_with_the_right_mean(per_input):
    count = 4000
    backend = single(option(latency_s=0.25, energy_j=1.0), per_input=per_input, replicas=50)
    windows = run(backend, np.arange(count) * 0.125, [0.0, 500.0])
    mean = sum(float(window.dynamic_j[0]) for window in windows) / count
    assert mean == pytest.approx(per_input, abs=0.03)


def test_same_requests_have_the_same_parts_whatever_serves_them():
    sending = np.arange(100) * 0.5
    quick = simulate(pipeline(0.5, replicas=9), sending)
    slow = simulate(pipeline(0.5, replicas=1), sending)
    assert (np.isnan(quick.queued_s) == np.isnan(slow.queued_s)).all()


def test_request_with_an_expired_part_is_dropped_whole_and_once():
    windows = run(pipeline(3.0, drop_limit_s=1.75), [0.0], [0.0, 20.0])
    requests = by_id(windows)
    # Parts start at 0.5 and 1.5 s; at 2.5 s the third is too old.
    assert requests.request_id.tolist() == [0]
    assert requests.dropped_at.tolist() == [1]
    assert requests.done_s.tolist() == [2.5]
    assert windows[0].dynamic_j.tolist() == [2.0, 8.0, 0.0]


def test_part_in_service_of_a_dropped_request_is_paid_and_forgotten():
    stages = [stage(option(1, 1.0), option(2, 3.0, energy_j=1.0), per_input=3.0)]
    backend = SimulatedBackend(
        stages, deployed(stages, (1, 2)), seed=0, drop_limit_s=0.5, batch_timeout_s=[1.0]
    )
    windows = run(backend, [0.0], [0.0, 20.0])
    # Two parts start at 0 s and end at 3 s; the third times out at 1 s, too old.
    requests = by_id(windows)
    assert requests.done_s.tolist() == [1.0]
    assert requests.dropped_at.tolist() == [0]
    assert np.isnan(requests.served_s).all()
    assert windows[0].dynamic_j.tolist() == [2.0]
    assert windows[0].in_flight == 0
