"""Drift and outliers: shown, never dropped."""

import json
import math
import random

import pytest

from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.profile_meta import stability


@pytest.fixture
def profile(make_trial):
    """Entries whose windows take these times the entry's own batch time, 4 J a second."""

    def make(*relative):
        trials = {}
        for number, windows in enumerate(relative):
            entry = Entry("s", f"v{number}", "cpu", 1, 1)
            base_s = 0.1 * (number + 1)
            trials[entry] = [
                make_trial(latencies_s=[base_s * r], dynamic_energy_j=4 * base_s * r)
                for r in windows
            ]
        return trials

    return make


def test_a_window_far_from_its_entry_stands_out(profile):
    steady = [(1.0, 1.01, 0.99)] * 6
    found = stability(profile(*steady, (1.0, 1.3, 1.01)))
    assert found.windows == 21
    # Spread: the median of |r| is 1 %, so 1.3 / 1.01 − 1 is 19 robust standard deviations off.
    assert {(o.entry, o.window, o.quantity) for o in found.outliers} == {
        ("s/v6 cpu 1c b1", 1, "latency_avg_s"),
        ("s/v6 cpu 1c b1", 1, "dynamic_j_per_request"),
    }
    assert found.outliers[0].relative == pytest.approx(1.3 / 1.01 - 1)
    assert found.outliers[0].z == pytest.approx(0.287 / (1.4826 * 0.01), rel=0.01)
    assert "2 outliers kept" in found.summary
    assert "s/v6 cpu 1c b1 window 1" in found.summary


def test_ordinary_spread_has_no_outliers_whatever_its_size(profile):
    rng = random.Random(1)
    for spread in (0.0001, 0.01, 0.05):
        windows = [[1 + rng.uniform(-spread, spread) for _ in range(3)] for _ in range(20)]
        assert stability(profile(*windows)).outliers == ()


def test_drift_is_the_last_round_over_the_first(profile):
    found = stability(profile(*[(1.0, 1.1, 1.2)] * 5))
    assert found.drift == {
        "latency_avg_s": pytest.approx(0.2),
        "dynamic_j_per_request": pytest.approx(0.2),
    }
    assert found.drifted
    assert "DRIFT first to last round: latency_avg_s +20.0%" in found.summary
    assert not stability(profile(*[(1.0, 1.1, 1.01)] * 5)).drifted


def test_contended_windows_are_counted(make_trial):
    entry = Entry("s", "v", "cpu", 1, 1)
    trials = [make_trial(contended=contended) for contended in (True, False, True)]
    assert "3 windows, 2 contended" in stability({entry: trials}).summary


def test_idle_power_before_and_after_is_compared(make_trial):
    entry = Entry("s", "v", "cpu", 1, 1)
    changes_w = (0.0, 0.1, -0.5)
    trials = [make_trial(idle_power_w=2.0, idle_drift_w=change) for change in changes_w]
    assert stability({entry: trials}).idle_drift == {"median": 0.0, "largest": -0.25}


def test_one_window_and_none_say_that_nothing_is_known(profile):
    for trials in ({}, profile((1.0,))):
        found = stability(trials)
        assert found.drift == {"latency_avg_s": None, "dynamic_j_per_request": None}
        assert not found.drifted
        assert "no drift known" in found.summary
        json.dumps(found.to_json(), allow_nan=False)
    assert stability({}).idle_drift is None


def test_meter_without_idle_power_gives_no_ratio(make_trial):
    entry = Entry("s", "v", "cpu", 1, 1)
    assert stability({entry: [make_trial(idle_power_w=0.0)]}).idle_drift is None


def test_negative_joules_of_a_window_do_not_become_a_ratio(make_trial):
    entry = Entry("s", "v", "cpu", 1, 1)
    trials = [make_trial(dynamic_energy_j=value) for value in (-1.0, -1.0, -1.0)]
    found = stability({entry: trials})
    assert found.drift["dynamic_j_per_request"] is None
    assert not any(math.isnan(outlier.z) for outlier in found.outliers)


def test_the_spread_leaves_out_each_entrys_median_window_by_hand(profile):
    found = stability(profile((1.0, 1.01, 0.97), (1.0, 1.02, 0.96), (1.0, 1.5, 1.01)))
    # |r| without the medians' zeros: 0.0099 0.01 0.02 0.03 0.04 0.485, whose median is 0.025; with
    # them it would be 0.01.
    (outlier,) = (o for o in found.outliers if o.quantity == "latency_avg_s")
    assert (outlier.entry, outlier.window) == ("s/v2 cpu 1c b1", 1)
    assert outlier.z == pytest.approx((1.5 / 1.01 - 1) / (1.4826 * 0.025))
