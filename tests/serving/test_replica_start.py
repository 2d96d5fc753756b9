"""What starting a replica takes: time, told, profiled or IPA's, and the joules of loading."""

import numpy as np
import pytest
from tiny_pipelines import by_id, deployed, option, run, single, stage

from ipa_energy.serving.deployment import ready_after_s, replica_start

OLD = option(1, 1.0, variant="old", idle_w=3.0, load_s=2.0, load_energy_j=6.0)
NEW = option(1, 0.25, variant="new", idle_w=3.0, load_s=4.0, load_energy_j=10.0)
UNKNOWN = option(1, 0.25, variant="unknown")
STAGES = [stage(OLD, NEW, UNKNOWN)]


def to(index, replicas):
    return deployed(STAGES, (index, replicas))


def backend(reconfiguration_s=None, **named):
    return single(OLD, NEW, UNKNOWN, reconfiguration_s=reconfiguration_s, **named)


def loads_j(windows):
    """Dynamic joules of each window, in which nothing is sent."""
    return [float(window.dynamic_j[0]) for window in windows]


@pytest.mark.parametrize(("option_", "told_s", "expected_s"), [
    (NEW, None, 4.0), (NEW, 0.5, 0.5), (NEW, 0.0, 0.0), (UNKNOWN, None, 8.0), (UNKNOWN, 3.0, 3.0),
])  # fmt: skip
def test_a_replica_serves_when_told_or_when_the_profile_says_or_after_ipas_time(
    option_, told_s, expected_s
):
    assert ready_after_s(option_, told_s) == expected_s


def test_each_variant_takes_the_time_that_its_load_was_measured_to_take():
    sending = np.arange(0.0, 40.0, 2.0)
    requests = by_id(run(backend(), sending, [0.0, 10.0, 40.0], {10.0: to(1, 1)}))
    assert ((requests.served_s - requests.started_s)[:, 0] == 0.25).tolist() == [
        second >= 14.0 for second in sending
    ]


def test_loading_is_charged_evenly_until_the_replica_serves():
    windows = run(backend(), [], [0.0, 10.0, 12.0, 20.0], {10.0: to(1, 3)})
    assert loads_j(windows) == [0.0, 3 * 5.0, 3 * 5.0, 0.0]
    # 3 W of the old one, 9 W of the new ones, and 7.5 W of loading these.
    assert windows[1].power_w.tolist() == [19.5, 19.5]
    assert windows[2].power_w.tolist() == [19.5, 19.5] + [9.0] * 6


def test_loading_costs_its_joules_however_long_it_is_told_to_take():
    windows = run(backend(5.0), [], [0.0, 10.0, 20.0], {10.0: to(1, 2)})
    assert loads_j(windows) == [0.0, pytest.approx(20.0), 0.0]


def test_more_replicas_of_a_variant_are_loaded_too_and_fewer_are_not():
    plans = {10.0: to(0, 3), 20.0: to(0, 1)}
    windows = run(backend(), [], [0.0, 10.0, 20.0, 30.0], plans)
    assert loads_j(windows) == [0.0, 12.0, 0.0, 0.0]


def test_a_replica_that_is_stopped_while_it_starts_has_spent_its_share():
    plans = {10.0: to(1, 2), 11.0: to(0, 1)}
    windows = run(backend(), [], [0.0, 10.0, 11.0, 20.0], plans)
    assert loads_j(windows) == [0.0, 5.0, 0.0, 0.0]


def test_another_batch_size_takes_no_time_and_no_joules():
    options = [option(batch, load_s=4.0, load_energy_j=10.0) for batch in (1, 4)]
    plan = deployed([stage(*options)], (1, 1))
    windows = run(single(*options, reconfiguration_s=None), [], [0.0, 10.0, 20.0], {10.0: plan})
    assert loads_j(windows) == [0.0, 0.0, 0.0]
    assert windows[1].idle_j.tolist() == [30.0]


def test_joules_of_loading_that_nobody_measured_are_not_made_up():
    windows = run(backend(), [], [0.0, 10.0, 30.0], {10.0: to(2, 2)})
    assert loads_j(windows) == [0.0, 0.0, 0.0]
    assert np.isfinite(windows[1].idle_j).all()


def test_what_is_taken_for_a_start_is_said():
    assert replica_start(STAGES, 8.0) == "8 s, as reconfiguration_s says; 6 to 10 J, as profiled"
    assert replica_start([stage(OLD, NEW)], None) == "2 to 4 s, as profiled; 6 to 10 J, as profiled"
    assert replica_start([stage(UNKNOWN)], None) == (
        "8 s, as IPA's where the profile has none; its joules are not known"
    )


def test_those_that_start_say_for_how_long_they_have():
    made = backend()
    run(made, [], [0.0, 10.0, 11.0, 12.5], {10.0: to(1, 2), 11.0: to(1, 3)})
    old, new = made.deployed()
    assert (old.ready, old.starting_for_s) == (1, ())
    assert (new.starting, new.starting_for_s) == (3, (2.5, 2.5, 1.5))
