"""IPA's SLA rule and base allocation, by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
from option_maker import make_option

from ipa_energy.errors import ConfigError
from ipa_energy.planning.base_allocation import base_allocation, by_price, stage_sla_s
from ipa_energy.records import Allocation, Option, Stage

Throughputs = dict[float, list[float]]
"""Cores → throughput at batch 1, 2, 4 …"""


def option(
    variant: str,
    accuracy: float,
    cores: float,
    batch: int,
    *,
    latency_s: float = 0.1,
    throughput_rps: float = 10.0,
) -> Option:
    return make_option(
        variant,
        batch,
        latency_s=latency_s,
        throughput_rps=throughput_rps,
        accuracy=accuracy,
        dynamic_energy_j=math.nan,
        idle_power_w=math.nan,
        cpu_cores=cores,
    )


def stage_of(variants: dict[str, Throughputs]) -> Stage:
    """Variants in rising accuracy; latency 0.1 s throughout."""
    options = [
        option(variant, (rank + 1) / 10, cores, 2**power, throughput_rps=throughput)
        for rank, (variant, by_cores) in enumerate(variants.items())
        for cores, throughputs in by_cores.items()
        for power, throughput in enumerate(throughputs)
    ]
    return Stage("crop", "yolo", tuple(options))


def test_stage_sla_uses_the_smallest_batch_at_the_last_allocation() -> None:
    options = (
        option("a", 0.1, 1, 1, latency_s=0.2),
        option("a", 0.1, 1, 2, latency_s=0.3),
        option("a", 0.1, 2, 4, latency_s=0.9),
        option("a", 0.1, 2, 2, latency_s=0.1),
        option("b", 0.2, 1, 1, latency_s=0.5),
        option("b", 0.2, 2, 1, latency_s=0.3),
    )
    # a: 0.1 s (batch 2 on 2 cores), b: 0.3 s; 5 · 2 · mean(0.1, 0.3) = 2 s.
    assert stage_sla_s(Stage("crop", "yolo", options), 2) == pytest.approx(2.0, rel=1e-12)


def test_last_allocation_is_by_the_order_of_the_profile() -> None:
    options = (option("a", 0.1, 2, 1, latency_s=0.1), option("a", 0.1, 1, 1, latency_s=0.2))
    assert stage_sla_s(Stage("crop", "yolo", options), 1) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        pytest.param(
            {"lo": {1: [3, 3], 2: [4, 4], 4: [9, 9]}}, {"lo": 2}, id="smallest-that-sustains"
        ),
        pytest.param({"lo": {1: [3, 5], 2: [5, 5]}}, {"lo": 1}, id="no-rise-for-the-first"),
        pytest.param(
            {"lo": {1: [5, 5], 2: [6, 6], 4: [7, 7]}, "hi": {1: [3, 5], 2: [4, 5], 4: [9, 9]}},
            {"lo": 1, "hi": 2},
            id="one-step-rise",
        ),
        pytest.param(
            {
                "lo": {1: [5, 5, 5], 2: [5, 5, 5], 4: [5, 5, 5]},
                "hi": {1: [1, 1, 4], 2: [1, 4, 4], 4: [4, 4, 4]},
            },
            {"lo": 1, "hi": 2},
            id="rise-is-one-step-only",
        ),
        pytest.param(
            {"lo": {1: [3], 2: [5]}, "hi": {1: [9], 2: [9]}}, {"lo": 2, "hi": 2}, id="never-falls"
        ),
        pytest.param(
            {"lo": {1: [5], 2: [5], 4: [5]}, "hi": {1: [1], 2: [2], 4: [4]}},
            {"lo": 1, "hi": 4},
            id="climbs-until-one-sustains",
        ),
        pytest.param(
            {"hi-order-does-not-matter": {4: [9], 2: [9], 1: [3]}},
            {"hi-order-does-not-matter": 2},
            id="allocations-are-tried-by-size",
        ),
        pytest.param(
            {"lo": {1: [3], 2: [5]}, "hi": {1: [9], 4: [9], 8: [9]}},
            {"lo": 2, "hi": 4},
            id="lists-differ",
        ),
    ],
)
def test_base_allocation(variants: dict[str, Throughputs], expected: dict[str, float]) -> None:
    found = base_allocation(stage_of(variants), 4, sla_s=1.0)
    assert found.allocations == {name: (Allocation.of(cores),) for name, cores in expected.items()}
    assert list(found.allocations) == list(expected)
    assert found.excluded == {}


def test_variants_are_taken_by_accuracy_not_by_the_order_of_the_profile() -> None:
    options = (
        option("hi", 0.9, 1, 1, throughput_rps=9),
        option("hi", 0.9, 2, 1, throughput_rps=9),
        option("lo", 0.1, 1, 1, throughput_rps=1),
        option("lo", 0.1, 2, 1, throughput_rps=9),
    )
    found = base_allocation(Stage("crop", "yolo", options), 4, sla_s=1.0)
    assert list(found.allocations.items()) == [
        ("lo", (Allocation.of(2),)),
        ("hi", (Allocation.of(2),)),
    ]


@pytest.mark.parametrize("weak", ["a", "b", "c"])
def test_a_variant_without_allocation_is_out_and_the_others_are_as_without_it(weak: str) -> None:
    good: Throughputs = {1: [3, 5], 2: [5, 5]}
    bad: Throughputs = {1: [3, 3], 2: [3, 3.5]}
    found = base_allocation(
        stage_of({name: bad if name == weak else good for name in "abc"}), 4, sla_s=1.0
    )
    first, second = (name for name in "abc" if name != weak)
    assert found.allocations == {first: (Allocation.of(1),), second: (Allocation.of(2),)}
    assert list(found.excluded) == [weak]
    assert "threshold 4 rps" in found.excluded[weak]
    assert "3.5 rps" in found.excluded[weak]


def test_a_variant_that_only_sustains_below_the_floor_is_out() -> None:
    found = base_allocation(
        stage_of({"lo": {1: [3], 2: [5]}, "hi": {1: [9], 2: [3]}}), 4, sla_s=1.0
    )
    assert found.allocations == {"lo": (Allocation.of(2),)}
    assert "from 2 cores on" in found.excluded["hi"]


def test_latency_beyond_the_stage_sla_does_not_sustain() -> None:
    options = (
        option("a", 0.1, 1, 1, latency_s=1.1, throughput_rps=9),
        option("a", 0.1, 2, 1, latency_s=1.0, throughput_rps=4),
    )
    found = base_allocation(Stage("crop", "yolo", options), 4, sla_s=1.0)
    assert found.allocations == {"a": (Allocation.of(2),)}


def test_no_variant_left_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError) as caught:
        base_allocation(stage_of({"a": {1: [1], 2: [2]}, "b": {1: [1.5]}}), 4, sla_s=0.5)
    told = str(caught.value)
    for part in ("stage crop", "threshold 4 rps", "0.5 s", "2 rps", "a 2c b1", "lower threshold"):
        assert part in told


def test_gpu_shares_are_allocations_too() -> None:
    small = option("a", 0.1, 1, 1, throughput_rps=1)
    options = (small, *(
        Option(
            "a", Allocation.of(1, share, "gpu"),
            1, 0.1, 0.1, 0.1, rps, 0.1, math.nan, math.nan, None,
        )
        for share, rps in ((0.5, 5.0), (1.0, 9.0))
    ))  # fmt: skip
    found = base_allocation(Stage("crop", "yolo", options), 4, sla_s=1.0)
    assert found.allocations == {"a": (Allocation.of(1, 0.5, "gpu"),)}


def test_each_kind_of_hardware_follows_the_rule_on_its_own() -> None:
    """The board's variants climb among boards, whatever cores the others need."""

    def on(variant: str, accuracy: float, allocation: Allocation, rps: float) -> Option:
        plain = option(variant, accuracy, 1, 1, throughput_rps=rps)
        return dataclasses.replace(plain, allocation=allocation)

    def board(units: float) -> Allocation:
        return Allocation.of(hardware="nano", resources={"board": units})

    options = (
        on("lo", 0.1, Allocation.of(1), 3), on("lo", 0.1, Allocation.of(2), 5),
        on("lo", 0.1, board(1), 9), on("hi", 0.2, board(1), 4), on("hi", 0.2, board(2), 8),
        on("hi", 0.2, Allocation.of(1), 9), on("hi", 0.2, Allocation.of(2), 3),
    )  # fmt: skip
    found = base_allocation(Stage("crop", "yolo", options), 4, sla_s=1.0)
    assert found.allocations == {"lo": (Allocation.of(2), board(1)), "hi": (board(1),)}
    assert list(found.excluded) == ["hi (hardware cpu)"]
    assert "from 2 cores on" in found.excluded["hi (hardware cpu)"]


def test_what_is_smaller_is_a_matter_of_price() -> None:
    """A quarter of a dear GPU is less than a whole one; unpriced, fewer cores are less."""
    half, whole = Allocation.of(4, 0.25), Allocation.of(1, 1)
    assert sorted([half, whole], key=by_price({"core": 1})) == [whole, half]
    assert sorted([half, whole], key=by_price({"core": 0.1, "gpu": 1})) == [half, whole]
    assert sorted([half, whole], key=by_price({})) == [whole, half]
