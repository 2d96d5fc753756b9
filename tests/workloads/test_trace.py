import numpy as np
import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.workloads import Workload, damped, static_workload
from ipa_energy.workloads.trace import LONGEST_DURATION_S


def test_record_describes_its_counts() -> None:
    workload = Workload("t", np.array([2, 0, 7]), "here")
    assert (len(workload), workload.duration_s) == (3, 3)
    assert (workload.requests, workload.mean_rps, workload.peak_rps) == (9, 3.0, 7)
    assert workload.counts.dtype == np.int64


def test_counts_cannot_be_changed_from_either_side() -> None:
    given = np.array([1, 2])
    workload = Workload("t", given, "here")
    given[0] = 99
    assert workload.counts.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        workload.counts[0] = 5


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "no seconds"),
        ([[1, 2]], "no seconds"),
        ([1, -3, 2], "-3 requests in second 1"),
        ([0, 0], "nothing to serve"),
    ],
)
def test_useless_counts_are_refused(counts: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Workload("t", np.array(counts, dtype=np.int64), "trace.csv")
    assert caught.value.where == "trace.csv"


@pytest.mark.parametrize(
    ("damping_factor", "expected"),
    [(None, [0, 7, 8, 17]), (1, [0, 7, 8, 17]), (8, [0, 0, 1, 2])],
)
def test_damping_divides_and_rounds_down(damping_factor: int | None, expected: list[int]) -> None:
    assert damped(np.array([0, 7, 8, 17]), damping_factor).tolist() == expected


@pytest.mark.parametrize("damping_factor", [0, -8])
def test_damping_below_one_is_refused(damping_factor: int) -> None:
    with pytest.raises(ConfigError, match=f"damping_factor is {damping_factor}"):
        damped(np.array([1]), damping_factor)


@pytest.mark.parametrize(
    ("load_rps", "duration_s", "expected"),
    [
        (3, 4, [3, 3, 3, 3]),
        (0.5, 5, [0, 1, 0, 1, 0]),
        (2.5, 4, [2, 3, 2, 3]),
        (0.1, 10, [0] * 9 + [1]),
    ],
)
def test_static_load_is_spread_evenly(
    load_rps: float, duration_s: int, expected: list[int]
) -> None:
    assert static_workload(load_rps, duration_s).counts.tolist() == expected


@pytest.mark.parametrize("load_rps", [0, -1, float("nan"), float("inf"), 1e12])
def test_static_load_out_of_range_is_refused(load_rps: float) -> None:
    with pytest.raises(ConfigError, match="the load is"):
        static_workload(load_rps, 10)


@pytest.mark.parametrize("duration_s", [0, -5, LONGEST_DURATION_S + 1])
def test_static_duration_out_of_range_is_refused(duration_s: int) -> None:
    with pytest.raises(ConfigError, match=f"duration of the load is {duration_s} s"):
        static_workload(1, duration_s)


def test_static_load_that_never_sends_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to serve"):
        static_workload(0.01, 10)
