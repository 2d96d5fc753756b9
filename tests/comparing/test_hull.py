"""The yardstick against hulls computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ipa_energy.comparing.hull import Outcome, hull_of, saving_of


def outcome(accuracy: float, joules: float, in_time: float = 1.0, seed: int = 0) -> Outcome:
    return Outcome(
        label="made up",
        accuracy=accuracy,
        joules_per_request=joules,
        sla_attainment=in_time,
        seed=seed,
    )


WITHOUT = [outcome(0.5, 1.0), outcome(0.7, 2.0), outcome(0.6, 1.9), outcome(0.9, 5.0)]


@pytest.mark.parametrize(
    ("accuracy", "joules"),
    [(0.4, 1.0), (0.5, 1.0), (0.6, 1.5), (0.7, 2.0), (0.8, 3.5), (0.9, 5.0)],
)
def test_least_joules_by_hand(accuracy: float, joules: float) -> None:
    """(0.6, 1.9) lies above the mixture of its neighbours, which needs 1.5 J there."""
    assert hull_of(WITHOUT, 1.0).joules_at(accuracy) == pytest.approx(joules)


def test_corners_are_by_rising_accuracy_and_none_is_above_a_mixture() -> None:
    corners = hull_of(WITHOUT, 1.0).corners
    assert [corner.accuracy for corner in corners] == [0.5, 0.7, 0.9]


def test_above_every_run_without_energy_there_is_no_figure() -> None:
    assert math.isnan(hull_of(WITHOUT, 1.0).joules_at(0.91))
    assert math.isnan(hull_of([], 1.0).joules_at(0.5))


def test_only_runs_that_answer_as_many_requests_in_time_count() -> None:
    cheap_but_late = outcome(0.9, 0.1, in_time=0.95)
    assert hull_of([*WITHOUT, cheap_but_late], 0.99).joules_at(0.9) == 5.0
    assert hull_of([*WITHOUT, cheap_but_late], 0.95).joules_at(0.9) == 0.1
    almost = outcome(0.9, 0.1, in_time=0.9896)
    assert hull_of([*WITHOUT, almost], 0.99).joules_at(0.9) == 0.1  # prints as 99.0 % too


def test_thirty_percent_is_thirty_percent_and_nothing_is_nothing() -> None:
    """A run on the hull saves nothing; one with 70 % of the hull's joules saves 30 %."""
    assert saving_of([outcome(0.8, 3.5)], WITHOUT).mean == pytest.approx(0.0)
    saving = saving_of([outcome(0.8, 0.7 * 3.5)], WITHOUT)
    assert saving.mean == pytest.approx(0.3)
    assert "30.0 % fewer joules than IPA with its best other weights" in saving.sentence()


def test_what_prints_as_nothing_is_not_called_more() -> None:
    assert saving_of([outcome(0.8, 3.5 * 1.0004)], WITHOUT).change == "0.0 % fewer"
    assert saving_of([outcome(0.8, 3.5 * 1.0006)], WITHOUT).change == "0.1 % more"


def test_the_grams_of_least_joules_are_those_of_their_mixture() -> None:
    """Half of (0.5, 1 J, 2 g) and half of (0.7, 2 J, 1 g); (0.6, 1.9 J) emits less, unasked."""
    grams = {0.5: 2.0, 0.7: 1.0, 0.6: 0.1, 0.9: 9.0}
    without = [replace(one, grams_per_request=grams[one.accuracy]) for one in WITHOUT]
    mine = replace(outcome(0.6, 1.5), grams_per_request=1.2)
    saving = saving_of([mine], without, reads_grams=True)
    assert saving.least_joules == pytest.approx((1.5e6,))
    assert saving.mean == pytest.approx(0.2)
    assert "20.0 % fewer grams" in saving.sentence("grams", "the least joules")


def test_where_nobody_emits_anything_nothing_is_saved() -> None:
    none = [replace(one, joules_per_request=0.0) for one in WITHOUT]
    assert saving_of([outcome(0.7, 0.0)], none).mean == 0.0
    assert saving_of([outcome(0.5, 0.0)], []).sentence("grams").startswith("no other weights")


def test_a_run_that_needs_more_is_said_to() -> None:
    saving = saving_of([outcome(0.7, 2.5)], WITHOUT)
    assert saving.mean == pytest.approx(-0.25)
    assert "25.0 % more joules" in saving.sentence()


def test_seeds_are_held_against_runs_of_their_own_seed() -> None:
    without = [outcome(0.7, 2.0, seed=0), outcome(0.7, 1.0, seed=1)]
    saving = saving_of([outcome(0.7, 1.0, seed=0), outcome(0.7, 1.0, seed=1)], without)
    assert saving.savings == (0.5, 0.0)
    assert (saving.least, saving.mean, saving.most) == (0.0, 0.25, 0.5)
    assert "0.0 % to 50.0 % over 2 seeds" in saving.sentence()


def test_where_none_is_as_punctual_the_most_punctual_count_and_it_is_said() -> None:
    without = [outcome(0.7, 2.0, in_time=0.95), outcome(0.7, 1.8, in_time=0.94)]
    saving = saving_of([outcome(0.7, 1.0, in_time=0.99)], without)
    assert (saving.mean, saving.attainments) == (0.5, (0.95,))
    assert saving.sentence() == (
        "at the same accuracy, 50.0 % fewer joules than IPA with its best other weights (one seed:"
        " 0), which answer only 95.0 % of the requests in time"
    )


def test_nothing_to_compare_with_is_said() -> None:
    assert (
        "nothing to hold its joules against" in saving_of([outcome(0.95, 1.0)], WITHOUT).sentence()
    )


def test_seeds_without_a_figure_are_left_out_and_late_ones_alone_are_named() -> None:
    without = [outcome(0.7, 2.0, seed=0), outcome(0.6, 2.0, seed=1)]
    saving = saving_of([outcome(0.7, 1.0, seed=0), outcome(0.7, 1.0, seed=1)], without)
    assert (saving.mean, saving.least) == (0.5, 0.5)
    assert "(one seed: 0)" in saving.sentence()
    late = [outcome(0.7, 2.0, in_time=0.90, seed=0), outcome(0.7, 2.0, in_time=0.80, seed=1)]
    runs = [outcome(0.7, 1.0, in_time=0.95, seed=0), outcome(0.7, 1.0, in_time=0.80, seed=1)]
    assert "only 90.0 % of the requests" in saving_of(runs, late).sentence()


def test_a_saving_does_not_rest_on_the_last_tenths_of_the_requests_in_time() -> None:
    mine = outcome(0.9, 4.0, in_time=1.0)
    little_later = outcome(0.9, 4.2, in_time=0.9952)
    late = outcome(0.9, 4.1, in_time=0.99)
    saving = saving_of([mine], [*WITHOUT, little_later, late])
    assert saving.mean == pytest.approx(1 - 4.0 / 4.2)
    assert saving.attainments == (1.0,)
    # Whoever the hull counts as punctual is not said to be late, to the last tenth.
    only = saving_of([mine], [outcome(0.9, 4.2, in_time=0.9948)])
    assert "at the same accuracy and SLA attainment" in only.sentence()
    assert hull_of([outcome(0.9, 4.2, in_time=0.9948)], 1.0 - 0.005).corners
    later = saving_of([mine], [outcome(0.9, 4.2, in_time=0.9944)])
    assert "which answer only 99.4 % of the requests in time" in later.sentence()


def test_who_breaks_the_floor_is_no_rival_of_who_keeps_it() -> None:
    without = [outcome(0.7, 2.0), outcome(0.69, 1.0), outcome(0.9, 4.0, in_time=0.99)]
    keeps = saving_of([outcome(0.7, 1.5)], without, least_accuracy=0.7)
    assert keeps.mean == pytest.approx(0.25)
    assert saving_of([outcome(0.7, 1.5)], without[1:], least_accuracy=0.7).attainments == (0.99,)
    breaks = saving_of([outcome(0.69, 1.5)], without, least_accuracy=0.7)
    assert breaks.mean == pytest.approx(-0.5)
    assert breaks == saving_of([outcome(0.69, 1.5)], without)
