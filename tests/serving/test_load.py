import numpy as np
import pytest
from scipy import stats

from ipa_energy.errors import ConfigError
from ipa_energy.serving.load import MODES, arrival_times_s


@pytest.mark.parametrize("mode", MODES)
def test_every_second_has_its_count(mode):
    counts = np.random.default_rng(0).integers(0, 40, 500)
    times_s = arrival_times_s(counts, mode=mode, seed=1)
    assert (np.diff(times_s) >= 0).all()
    assert np.bincount(times_s.astype(int), minlength=500).tolist() == counts.tolist()


def test_equal_is_evenly_spaced():
    assert arrival_times_s([4, 0, 2], mode="equal", seed=0).tolist() == [0, 0.25, 0.5, 0.75, 2, 2.5]


def test_step_sends_all_at_the_beginning_of_the_second():
    assert arrival_times_s([2, 0, 1], mode="step", seed=0).tolist() == [0, 0, 2]


def test_exponential_is_uniform_within_the_second():
    times_s = arrival_times_s([20] * 500, mode="exponential", seed=5)
    assert stats.kstest(times_s % 1, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("rps", "share"), [(5, 0.72), (10, 0.91), (20, 0.99), (30, 1.0)])
def test_ipa_bunches_at_the_beginning_of_the_second(rps: int, share: float):
    times_s = arrival_times_s([rps] * 2000, mode="ipa", seed=5)
    assert np.mean(times_s % 1 < 0.25) == pytest.approx(share, abs=0.015)
    assert np.bincount(times_s.astype(int)).tolist() == [rps] * 2000


def test_exponential_has_exponential_gaps_when_counts_are_poisson():
    counts = np.random.default_rng(1).poisson(10, 2000)
    gaps_s = np.diff(arrival_times_s(counts, mode="exponential", seed=2))
    assert stats.kstest(gaps_s, "expon", args=(0, gaps_s.mean())).pvalue > 0.01


def test_first_seconds_do_not_depend_on_the_later_ones():
    counts = [5, 9, 0, 7, 12]
    whole = arrival_times_s(counts, seed=3)
    assert whole[whole < 3].tolist() == arrival_times_s(counts[:3], seed=3).tolist()


def test_seed_decides():
    assert arrival_times_s([9], seed=1).tolist() == arrival_times_s([9], seed=1).tolist()
    assert arrival_times_s([9], seed=1).tolist() != arrival_times_s([9], seed=2).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_no_requests_no_times(mode):
    assert arrival_times_s([0, 0], mode=mode, seed=0).tolist() == []
    assert arrival_times_s([], mode=mode, seed=0).tolist() == []


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, -2], "count -2 in second 1"),
        ([1.5], "count 1.5 in second 0"),
        ([float("nan")], "count nan in second 0"),
        ([float("inf")], "count inf in second 0"),
        (["many"], "not numbers"),
        ([[1, 2]], "2 dimensions"),
    ],
)
def test_counts_that_are_none_are_refused(counts, message):
    with pytest.raises(ConfigError, match=message):
        arrival_times_s(counts, seed=0)


def test_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="'poisson'; allowed: exponential, equal, step, ipa"):
        arrival_times_s([1], mode="poisson", seed=0)


def test_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="seed of -1"):
        arrival_times_s([1], seed=-1)
