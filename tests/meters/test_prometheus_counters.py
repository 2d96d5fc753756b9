"""What a scraped counter gained in a window: hand-computed tables."""

from __future__ import annotations

import math

import pytest

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.prometheus.counters import (
    Window,
    covered,
    gained,
    interval_between_scrapes_s,
    merged,
    period_between_steps_s,
)
from ipa_energy.meters.prometheus.server import CounterSeries


def counter(*samples: tuple[float, float], **labels: str) -> CounterSeries:
    times_s, values = zip(*samples, strict=True)
    return CounterSeries({"__name__": "joules_total", **labels}, times_s, values)


STEADY = counter((0, 100), (10, 200), (20, 300), (30, 400))
UNEVEN = counter((0, 0), (10, 100), (20, 100), (30, 400))
RESTARTED = counter((0, 500), (10, 600), (20, 30), (30, 130))


@pytest.mark.parametrize(
    ("series", "start_s", "end_s", "expected"),
    [
        (STEADY, 0, 30, 300),  # from sample to sample
        (STEADY, 5, 25, 200),  # half of the first and of the last interval
        (STEADY, 11, 13, 20),  # within one interval
        (UNEVEN, 5, 25, 50 + 0 + 150),
        (UNEVEN, 10, 20, 0),  # a stretch at rest
        (RESTARTED, 0, 30, 100 + 30 + 100),  # all of the value after a restart is gain
        (RESTARTED, 15, 30, 15 + 100),  # the restart lies on the line it is drawn on
    ],
)
def test_gain_is_read_on_the_line_between_samples(
    series: CounterSeries, start_s: float, end_s: float, expected: float
) -> None:
    assert gained(series, Window(start_s, end_s, 10), "test") == pytest.approx(expected)


def test_gains_of_adjoining_windows_add_up() -> None:
    parts = [gained(RESTARTED, Window(a, b, 10), "t") for a, b in ((2, 9), (9, 17), (17, 28))]
    assert sum(parts) == pytest.approx(gained(RESTARTED, Window(2, 28, 10), "t"))


@pytest.mark.parametrize(
    ("start_s", "end_s", "words"),
    [(-1, 20, "begins after"), (10, 31, "ends before"), (-9, 99, "do not cover")],
)
def test_a_window_beyond_the_samples_has_no_figure(
    start_s: float, end_s: float, words: str
) -> None:
    with pytest.raises(MeterUnavailableError, match=words):
        gained(STEADY, Window(start_s, end_s, 10), "test")


def test_one_missed_scrape_is_bridged_and_two_are_not() -> None:
    one = counter((0, 0), (10, 10), (30, 30), (40, 40))
    two = counter((0, 0), (10, 10), (40, 40), (50, 50))
    assert gained(one, Window(5, 35, 10), "test") == pytest.approx(30)
    with pytest.raises(MeterUnavailableError, match="no sample for 30 s"):
        gained(two, Window(5, 45, 10), "test")
    assert gained(two, Window(41, 49, 10), "test") == pytest.approx(8)


def test_an_old_sample_does_not_open_a_window() -> None:
    series = counter((0, 0), (100, 10), (110, 20))
    with pytest.raises(MeterUnavailableError, match="do not cover"):
        covered(series, Window(90, 105, 10), "test")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_value_that_no_counter_has_gives_no_figure(value: float) -> None:
    with pytest.raises(MeterUnavailableError, match="no counter's"):
        gained(counter((0, 0), (10, value), (20, 20)), Window(1, 19, 10), "test")


def test_a_counter_that_comes_back_elsewhere_than_at_zero_gives_no_figure() -> None:
    """Kepler restarts at what RAPL shows: increase() would take all of that for gain."""
    with pytest.raises(MeterUnavailableError, match="not at 0"):
        gained(counter((0, 9000), (10, 9100), (20, 7000), (30, 7100)), Window(0, 30, 10), "t")


def test_a_restart_with_nothing_to_compare_gives_no_figure() -> None:
    with pytest.raises(MeterUnavailableError, match="restarted"):
        gained(counter((0, 9000), (10, 50)), Window(1, 9, 10), "test")


def test_series_of_one_counter_are_joined() -> None:
    parts = [
        counter((0, 0), (10, 10), UUID="a", pod="x"),
        counter((20, 20), (30, 30), UUID="a", pod="y"),
        counter((10, 10), (20, 20), UUID="a", slice="1"),
        counter((0, 5), (10, 6), UUID="b"),
    ]
    first, second = merged(parts, ("UUID",), "test")
    assert (first.times_s, first.values) == ((0, 10, 20, 30), (0, 10, 20, 30))
    assert second.values == (5, 6)


def test_series_that_contradict_each_other_are_refused() -> None:
    parts = [counter((0, 0), (10, 10), UUID="a"), counter((0, 0), (10, 11), UUID="a", pod="x")]
    with pytest.raises(MeterUnavailableError, match="same counter"):
        merged(parts, ("UUID",), "test")


def test_periods_are_those_of_the_slowest_series() -> None:
    fast = counter(*((t, t) for t in range(0, 60, 2)))
    slow = counter(*((t, t // 15) for t in range(0, 60, 5)))
    assert interval_between_scrapes_s([fast, slow]) == 5
    assert period_between_steps_s([fast, slow]) == 15
    assert interval_between_scrapes_s([fast]) == period_between_steps_s([fast]) == 2


def test_periods_are_unknown_without_samples_or_steps() -> None:
    assert math.isnan(interval_between_scrapes_s([counter((0, 1))]))
    assert math.isnan(period_between_steps_s([counter((0, 1), (1, 1), (2, 1))]))
