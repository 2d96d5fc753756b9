"""When new replicas serve, when old ones stop, and what both hold meanwhile."""

import numpy as np
import pytest
from tiny_pipelines import by_id, deployed, option, run, single, stage

FAST, SLOW = option(1, 0.25, variant="fast"), option(1, 1.0, variant="slow", cores=4.0)
FOUR = option(4, 0.5, variant="fast")
STAGES = [stage(SLOW, FAST, FOUR)]


def to(index, replicas):
    return deployed(STAGES, (index, replicas))


def cores_of(windows):
    return np.concatenate([window.cores for window in windows]).tolist()


def test_old_replicas_serve_until_the_new_are_ready():
    backend = single(SLOW, FAST, FOUR)
    sending = np.arange(0.0, 30.0, 1.5)
    windows = run(backend, sending, [0.0, 10.0, 30.0], {10.0: to(1, 2)})
    requests = by_id(windows)
    service_s = requests.served_s[:, 0] - requests.started_s[:, 0]
    assert service_s.tolist() == [1.0] * 12 + [0.25] * 8
    assert (requests.started_s[:, 0] == sending).all()
    # Sent at 16.5, served to 17.5: old replica idle at 18, so it stops there and then.
    assert cores_of(windows[:2]) == [4.0] * 10 + [6.0] * 8 + [2.0] * 12


def test_old_replica_finishes_its_batch_and_holds_its_cores_so_long():
    windows = run(single(SLOW, FAST, FOUR), [17.5], [0.0, 10.0, 20.0], {10.0: to(1, 2)})
    assert by_id(windows).done_s.tolist() == [18.5]
    assert cores_of(windows[:2])[17:] == [6.0, 4.0, 2.0]
    # 3 W of the old one until 18.5 s, 6 W of the two new ones from 10 s.
    assert windows[1].idle_j.tolist() == [3 * 8.5 + 6 * 10]


def test_new_replicas_take_what_waits_when_an_old_batch_ends_just_as_they_are_ready():
    windows = run(single(SLOW, FAST, FOUR), [17.0, 17.5], [0.0, 10.0, 20.0], {10.0: to(1, 1)})
    assert by_id(windows).done_s.tolist() == [18.0, 18.25]


def test_more_replicas_join_when_ready():
    windows = run(single(SLOW, FAST, FOUR), [0.0] * 20, [0.0, 2.0, 12.0], {2.0: to(0, 3)})
    done_s = sorted(by_id(windows).done_s.tolist())
    # One a second until 10 s (ready at 2 + 8), three a second after.
    assert done_s == [float(t) for t in range(1, 11)] + [11.0] * 3 + [12.0] * 3 + [13.0] * 3 + [
        14.0
    ]
    assert cores_of(windows)[:4] == [4.0, 4.0, 12.0, 12.0]


def test_fewer_replicas_stop_waiting_ones_at_once_and_busy_ones_after_their_batch():
    backend = single(SLOW, FAST, FOUR, replicas=4)
    windows = run(backend, [1.5, 1.5, 1.5], [0.0, 2.0, 5.0], {2.0: to(0, 1)})
    # One of four waits and stops; of three busy ones two stop at 2.5 s.
    assert cores_of(windows[:2]) == [16.0, 16.0, (12 + 4) / 2, 4.0, 4.0]
    assert by_id(windows).done_s.tolist() == [2.5] * 3


def test_surplus_replicas_take_no_further_batch():
    windows = run(single(SLOW, FAST, replicas=2), [0.0] * 6, [0.0, 0.5, 9.0], {0.5: to(0, 1)})
    assert by_id(windows).done_s.tolist() == [1.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_another_batch_size_holds_at_once():
    backend = single(SLOW, FAST, FOUR, chosen=1)
    windows = run(backend, [0.0, 2.0, 2.0, 2.0, 2.0], [0.0, 1.0, 9.0], {1.0: to(2, 1)})
    requests = by_id(windows)
    assert requests.done_s.tolist() == [0.25, 2.5, 2.5, 2.5, 2.5]
    assert set(cores_of(windows[:2])) == {1.0}


def test_smaller_batch_releases_those_who_wait_to_fill_one():
    backend = single(SLOW, FAST, FOUR, chosen=2, timeout_s=100.0)
    windows = run(backend, [0.0, 0.0], [0.0, 3.0, 9.0], {3.0: to(1, 1)})
    assert by_id(windows).started_s[:, 0].tolist() == [3.0, 3.25]


def test_old_replicas_keep_their_batch_size_until_replaced():
    stages = [stage(option(2, 0.5, variant="old"), option(1, 0.5, variant="new"))]
    backend = single(*stages[0].options, timeout_s=100.0)
    plan = deployed(stages, (1, 1))
    windows = run(backend, [11.0, 12.0, 13.0], [0.0, 10.0, 20.0], {10.0: plan})
    assert by_id(windows).started_s[:, 0].tolist() == [12.0, 12.0, 18.0]


def test_going_back_stops_the_replicas_that_were_starting():
    backend = single(SLOW, FAST)
    plans = {10.0: to(1, 3), 12.0: to(0, 1)}
    windows = run(backend, [11.0, 25.0], [0.0, 10.0, 12.0, 30.0], plans)
    requests = by_id(windows)
    assert (requests.served_s - requests.started_s).tolist() == [[1.0], [1.0]]
    assert cores_of(windows[:3]) == [4.0] * 10 + [7.0] * 2 + [4.0] * 18


def test_a_third_variant_replaces_the_one_that_was_starting():
    third = option(1, 0.5, variant="third", cores=2.0)
    stages = [stage(SLOW, FAST, third)]
    plans = {10.0: deployed(stages, (1, 1)), 14.0: deployed(stages, (2, 1))}
    windows = run(single(*stages[0].options), [19.0, 21.0, 23.0], [0.0, 10.0, 14.0, 30.0], plans)
    requests = by_id(windows)
    assert (requests.served_s - requests.started_s)[:, 0].tolist() == [1.0, 1.0, 0.5]
    assert cores_of(windows[:3]) == [4.0] * 10 + [5.0] * 4 + [6.0] * 8 + [2.0] * 8


def test_more_of_the_variant_that_is_starting_keeps_the_early_ones_early():
    plans = {10.0: to(1, 1), 14.0: to(1, 3)}
    windows = run(single(SLOW, FAST), [19.0], [0.0, 10.0, 14.0, 30.0], plans)
    assert by_id(windows).done_s.tolist() == [19.25]
    assert cores_of(windows[:3]) == [4.0] * 10 + [5.0] * 4 + [7.0] * 4 + [3.0] * 12


def test_fewer_of_the_variant_that_is_starting():
    plans = {10.0: to(1, 3), 14.0: to(1, 1)}
    windows = run(single(SLOW, FAST), [19.0], [0.0, 10.0, 14.0, 30.0], plans)
    assert by_id(windows).done_s.tolist() == [19.25]
    assert cores_of(windows[:3]) == [4.0] * 10 + [7.0] * 4 + [5.0] * 4 + [1.0] * 12


def test_scaling_up_and_down_while_starting():
    plans = {10.0: to(0, 4), 12.0: to(0, 2)}
    windows = run(single(SLOW, FAST), [], [0.0, 10.0, 12.0, 20.0], plans)
    assert cores_of(windows[:3]) == [4.0] * 10 + [16.0] * 2 + [8.0] * 8


def test_change_of_variant_stops_replicas_of_the_old_one_that_were_starting():
    plans = {10.0: to(0, 4), 12.0: to(1, 1)}
    windows = run(single(SLOW, FAST), [], [0.0, 10.0, 12.0, 25.0], plans)
    assert cores_of(windows[:3]) == [4.0] * 10 + [16.0] * 2 + [5.0] * 8 + [1.0] * 5


def test_same_plan_again_changes_nothing():
    sending = np.sort(np.random.default_rng(0).uniform(0, 40, 50))
    edges = [0.0, 10.0, 20.0, 40.0]
    quiet = run(single(SLOW, FAST), sending, edges)
    again = run(single(SLOW, FAST), sending, edges, {10.0: to(0, 1), 20.0: to(0, 1)})
    assert by_id(again).done_s.tolist() == by_id(quiet).done_s.tolist()
    assert cores_of(again) == cores_of(quiet)


@pytest.mark.parametrize("reconfiguration_s", [0.0, 2.5, 30.0])
def test_reconfiguration_time_is_kept(reconfiguration_s):
    backend = single(SLOW, FAST, reconfiguration_s=reconfiguration_s)
    sending = np.arange(5.0, 60.0, 1.25)
    requests = by_id(run(backend, sending, [0.0, 10.0, 60.0], {10.0: to(1, 2)}))
    fast = requests.served_s[:, 0] - requests.started_s[:, 0] == 0.25
    assert (fast == (requests.started_s[:, 0] >= 10.0 + reconfiguration_s)).all()


def test_constant_change_still_serves():
    """Plans that change faster than replicas start leave the old ones serving."""
    plans = {float(t): to(1 + t % 2 if t % 3 else 0, 1 + t % 4) for t in range(1, 40)}
    sending = np.arange(0.0, 40.0, 2.0)
    windows = run(single(SLOW, FAST, FOUR), sending, [float(t) for t in range(41)], plans)
    assert len(by_id(windows)) == len(sending)
