"""Which entries a budget picks."""

import math
from collections import Counter

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.profiling.grid import Entry, parse_share, within_budget

BATCHES, CORES = (1, 2, 4, 8), (1, 2)


def entries(variants=5, cores=CORES, stages=("crop",)):
    return [
        Entry(stage, f"v{number}", "cpu", c, batch)
        for stage in stages
        for number in range(variants)
        for c in cores
        for batch in BATCHES
    ]


@pytest.mark.parametrize("share", [0.2, 0.4, 0.75, 1.0])
def test_the_share_is_kept_in_every_stage(share):
    family = entries(stages=("crop", "name"))
    chosen = within_budget(family, share, seed=0)
    assert len(set(chosen)) == len(chosen)
    for stage, count in Counter(entry.stage for entry in chosen).items():
        assert count == math.ceil(share * 40), stage
    assert chosen == [entry for entry in family if entry in set(chosen)]


def test_corners_are_in_and_every_variant_has_one():
    chosen = within_budget(entries(), 0.4, seed=0)
    places = {(entry.cpu_cores, entry.batch) for entry in chosen}
    assert {(1, 1), (1, 8), (2, 1), (2, 8)} <= places
    for number in range(5):
        mine = {(e.cpu_cores, e.batch) for e in chosen if e.variant == f"v{number}"}
        assert mine & {(1, 1), (1, 8), (2, 1), (2, 8)}
        assert len(mine) >= 2


def test_places_between_the_corners_are_in_too():
    chosen = within_budget(entries(cores=(1,)), 0.4, seed=0)
    assert {entry.batch for entry in chosen} == set(BATCHES)


def test_choice_is_seeded():
    family = entries()
    assert within_budget(family, 0.4, seed=1) == within_budget(family, 0.4, seed=1)
    assert len({tuple(within_budget(family, 0.4, seed)) for seed in range(5)}) > 1


def test_order_of_the_grid_does_not_matter():
    family = entries()
    assert set(within_budget(family[::-1], 0.4, 3)) == set(within_budget(family, 0.4, 3))


@pytest.mark.parametrize("variants", [1, 2, 8])
def test_a_tiny_share_still_leaves_enough_to_fit_and_to_hold_out(variants):
    chosen = within_budget(entries(variants), 0.01, seed=0)
    counts = Counter(entry.variant for entry in chosen)
    assert len(counts) == variants
    assert sum(count for count in counts.values() if count > 1) >= 4


def test_grid_smaller_than_a_fit_needs_is_measured_whole():
    family = entries(1, cores=(1,))[:3]
    assert within_budget(family, 0.1, seed=0) == family


@pytest.mark.parametrize(
    ("text", "share"), [("40%", 0.4), ("40 %", 0.4), ("0.4", 0.4), ("100%", 1.0), (" 2.5% ", 0.025)]
)
def test_shares_are_read(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "40", "-1", "40%%", "half", "nan", "1e-1"])
def test_other_shares_are_refused(text):
    with pytest.raises(ConfigError, match=r"40% or 0\.4"):
        parse_share(text)
