import hashlib

import numpy as np
import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.workloads import SHAPES, named_workload
from ipa_energy.workloads.shapes import drawn_counts

SEEDS = range(30)

# Of IPA's windows of its trace, divided by 8: lowest, highest, mean, standard deviation,
# autocorrelation after 10 s and after 120 s, variance of the change from second to second.
IPA_WINDOWS = {
    "bursty": (3, 34, 12.03, 9.34, 0.97, 0.60, 3.7),
    "steady-low": (3, 8, 5.06, 0.94, 0.04, 0.02, 1.7),
    "steady-high": (23, 34, 28.84, 1.92, -0.02, 0.06, 7.5),
    "fluctuating": (3, 34, 16.53, 9.36, 0.94, 0.11, 5.1),
}


def autocorrelation(counts: np.ndarray, lag_s: int) -> float:
    deviation = counts - counts.mean()
    return float((deviation[:-lag_s] * deviation[lag_s:]).mean() / counts.var())


def test_the_names_are_those_of_ipas_windows_and_a_day() -> None:
    assert set(SHAPES) == {*IPA_WINDOWS, "diurnal"}


@pytest.mark.parametrize("name", IPA_WINDOWS)
def test_statistics_are_those_of_ipas_window(name: str) -> None:
    low, high, mean, deviation, after_10_s, after_120_s, jitter = IPA_WINDOWS[name]
    traces = [named_workload(name, seed=seed).counts for seed in SEEDS]
    assert all(len(counts) == 1200 for counts in traces)
    assert all(low <= counts.min() and counts.max() <= high for counts in traces)
    assert np.mean([counts.min() for counts in traces]) <= low + 1
    assert np.mean([counts.max() for counts in traces]) >= high - 1
    assert np.mean([counts.mean() for counts in traces]) == pytest.approx(mean, rel=0.06)
    assert np.mean([counts.std() for counts in traces]) == pytest.approx(deviation, rel=0.1)
    assert np.mean([autocorrelation(c, 10) for c in traces]) == pytest.approx(after_10_s, abs=0.06)
    assert np.mean([autocorrelation(c, 120) for c in traces]) == pytest.approx(
        after_120_s, abs=0.08
    )
    assert np.mean([np.diff(counts).var() for counts in traces]) == pytest.approx(jitter, rel=0.2)


def test_days_have_their_low_before_five_their_high_at_eight_and_a_level_of_their_own() -> None:
    counts = named_workload("diurnal", seed=4, duration_s=7 * 86_400).counts
    hours = counts.reshape(7, 24, 3600).mean(axis=2)
    assert counts.mean() == pytest.approx(12, rel=0.05)
    assert set(hours.argmin(axis=1)) <= {3, 4}
    assert set(hours.argmax(axis=1)) <= {19, 20}
    assert len(set(np.round(hours.mean(axis=1), 1))) > 3


@pytest.mark.parametrize("name", ["bursty", "fluctuating"])
def test_every_seed_has_a_burst_and_a_rest(name: str) -> None:
    for seed in SEEDS:
        minutes = named_workload(name, seed=seed).counts.reshape(20, 60).mean(axis=1)
        assert minutes.max() > 22
        assert minutes.min() < 11


def test_every_fluctuating_part_has_a_rise_of_its_own() -> None:
    counts = named_workload("fluctuating", seed=3).counts.reshape(2, 10, 60).mean(axis=2)
    assert (counts.max(axis=1) > 2 * counts.min(axis=1)).all()
    assert not np.allclose(counts[0], counts[1], rtol=0.1)


@pytest.mark.parametrize("name", SHAPES)
def test_a_seed_decides_the_counts(name: str) -> None:
    counts = named_workload(name, seed=5).counts
    assert (named_workload(name, seed=5).counts == counts).all()
    assert (named_workload(name, seed=6).counts != counts).any()


def test_counts_do_not_change_between_versions() -> None:
    """Published results name a seed; if this fails, say in the changelog that results change."""
    text = ",".join(str(count) for name in IPA_WINDOWS for count in named_workload(name).counts)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "763a421646b5be5f"


@pytest.mark.parametrize("duration_s", [1, 7, 300, 1199, 1201, 3000])
@pytest.mark.parametrize("name", SHAPES)
def test_any_duration_is_served(name: str, duration_s: int) -> None:
    assert named_workload(name, duration_s=duration_s).duration_s == duration_s


def test_a_short_run_still_has_its_burst_and_a_long_one_several() -> None:
    short = named_workload("bursty", duration_s=240).counts
    assert short.max() > 25
    assert short.min() < 10
    hours = named_workload("bursty", duration_s=3 * 1200).counts.reshape(3, 1200)
    assert (hours.max(axis=1) > 25).all()
    assert len({row.tobytes() for row in hours}) == 3


def test_drawn_counts_keep_the_mean_and_lose_noise_with_damping() -> None:
    rate_rps = np.full(20_000, 12.0)
    plain = drawn_counts(rate_rps, 1, np.random.default_rng(1))
    damped = drawn_counts(rate_rps, 8, np.random.default_rng(1))
    assert plain.mean() == pytest.approx(12, rel=0.02)
    assert damped.mean() == pytest.approx(12, rel=0.02)
    assert plain.var() == pytest.approx(12, rel=0.05)  # Poisson
    assert damped.var() == pytest.approx((12 * 8 + 3.5) / 64 + 63 / 64 / 12, rel=0.05)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"seed": -1}, "the seed is -1"),
        ({"duration_s": 0}, "duration of the load is 0 s"),
        ({"duration_s": -20}, "duration of the load is -20 s"),
    ],
)
def test_impossible_parameters_are_refused(keywords: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named_workload("bursty", **keywords)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bursty, steady-low, steady-high, fluctuating"):
        named_workload("spiky")
