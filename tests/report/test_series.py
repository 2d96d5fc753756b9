"""Series of runs keep their means, lengths and ends when they are thinned."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ipa_energy.report import run_series
from ipa_energy.runlog import Run, read_run
from ipa_energy.testing import write_fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder: Path = tmp_path_factory.mktemp("run") / "run"
    return read_run(write_fake_run(folder, seconds=60))


def test_thinning_keeps_the_mean_and_the_length() -> None:
    values = np.arange(9999.0)
    thinned = run_series.per_second(values, 9999.0)
    assert len(thinned) == 2000
    assert thinned.x[1] == 5.0
    assert thinned.y[0] == 2.0
    assert thinned.y[-1] == pytest.approx(np.mean([9995.0, 9996.0, 9997.0, 9998.0]))


def test_latency_windows_by_hand(run: Run) -> None:
    requests = run.requests
    drops, (p50,) = run_series.latency_percentiles(run, (50,))
    assert drops.sum() == np.sum(requests.dropped_at >= 0)
    first = (requests.sending_s < 10) & (requests.dropped_at < 0)
    expected = np.median((requests.done_s - requests.sending_s)[first])
    assert p50.y[0] == pytest.approx(expected)
    assert p50.x.tolist() == [0, 10, 20, 30, 40, 50]


def test_distribution_ends_at_the_share_that_was_answered(run: Run) -> None:
    answered = np.mean(run.requests.dropped_at < 0)
    assert run_series.latency_distribution(run).y[-1] == pytest.approx(answered)


def test_segments_cover_the_run_without_overlap(run: Run) -> None:
    found = run_series.segments(run, 0)
    assert found[0].start_s == 0
    assert found[-1].end_s == 60
    for before, after in itertools.pairwise(found):
        assert before.end_s == after.start_s
        assert before.label != after.label


@pytest.mark.parametrize(
    ("duration_s", "hours"),
    [
        (1200, []),
        (4 * 3600, ["0", "1", "2", "3", "4"]),
        (86_400, ["0", "3", "6", "9", "12", "15", "18", "21", "24"]),
        (7 * 86_400, ["0", "24", "48", "72", "96", "120", "144", "168"]),
        (100 * 86_400, ["0", "2400"]),
    ],
)
def test_long_runs_have_hours_at_their_axis_and_seconds_in_their_data(
    duration_s: float, hours: list[str]
) -> None:
    axis = run_series.time_axis([SimpleNamespace(metrics=SimpleNamespace(duration_s=duration_s))])
    assert axis.title == "time since the start (s)"
    assert [text for _, text in axis.ticks] == hours
    assert [place for place, _ in axis.ticks] == [3600.0 * int(hour) for hour in hours]
    assert axis.shown == ("time since the start (h)" if hours else "")
