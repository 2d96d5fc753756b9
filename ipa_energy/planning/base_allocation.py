r"""IPA's two rules that are computed from the profile: the latency SLA and the base allocation.

SLA. With :math:`V` the variants of a stage and :math:`l_v` the latency of variant *v* at its
smallest batch on its *last* allocation in the order of the profile::

    stage SLA = 5 · sla_factor · mean over v ∈ V of l_v        pipeline SLA = Σ stage SLAs

The 5 is IPA's, beside the configurable factor. In a profile sorted by rising cores the last
allocation is the largest.

Base allocation. An allocation *sustains* a batch if its throughput is at least the threshold and
its latency at most the stage SLA. Variants are taken by rising accuracy, and the allocation never
falls from one to the next::

    first variant    the smallest allocation that sustains a batch
    each later one   starts at the allocation of the one before; goes up one step if the next
                     allocation sustains more batches; then up until one sustains a batch, the
                     one-step rise being tried again after each step

so a more accurate variant may get one allocation more than it needs. IPA stops with an error at a
variant that has none; here such a variant is left out, with the reason, and the others get what
they would get without it. Which of two allocations is the smaller is a matter of their price
(:func:`by_price`), and where a stage has several kinds of hardware (or of clocks, power caps …) the
rule holds within each kind on its own: a variant gets one allocation of each that has one for it.

Source: IPA, Journal of Systems Research 2024, and the behaviour of its ``optimizer/models.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.records import Allocation, Option, Stage

Labels = tuple[tuple[str, str | float], ...]

IPA_SLA_MULTIPLE = 5.0


@dataclass(frozen=True, slots=True)
class BaseAllocation:
    """What the rule found for one stage.

    Attributes:
        allocations: variant → its allocations, one a kind of hardware; by rising accuracy.
        excluded: variant → why it has none; ``VARIANT (KIND)`` for one that has none of one kind.
    """

    allocations: Mapping[str, tuple[Allocation, ...]]
    excluded: Mapping[str, str]


def stage_sla_s(stage: Stage, sla_factor: float) -> float:
    """IPA's latency SLA of a stage, seconds."""
    slas_s = []
    for options in _by_variant(stage).values():
        last = options[-1].allocation
        smallest = min(
            (option for option in options if option.allocation == last),
            key=lambda option: option.batch,
        )
        slas_s.append(smallest.latency_s * sla_factor)
    # In this order the rounding is IPA's too, for latencies that meet the SLA exactly.
    return sum(slas_s) / len(slas_s) * IPA_SLA_MULTIPLE


def by_price(prices: Mapping[str, float]) -> Callable[[Allocation], tuple[object, ...]]:
    """A sort key: what one replica costs in the objective, then cores, GPU share and the rest.

    Args:
        prices: resource → price of a unit; what has none costs nothing.
    """

    def key(allocation: Allocation) -> tuple[object, ...]:
        price = sum(prices.get(name, 0.0) * units for name, units in allocation.resources)
        return (price, allocation.cpu_cores, allocation.gpu_share, allocation.resources)

    return key


def base_allocation(
    stage: Stage,
    threshold_rps: float,
    sla_s: float,
    prices: Mapping[str, float] = MappingProxyType({}),
) -> BaseAllocation:
    """IPA's base allocation of every variant of a stage.

    Args:
        stage: the stage.
        threshold_rps: throughput that one replica must sustain.
        sla_s: latency that it must stay within, see :func:`stage_sla_s`.
        prices: resource → price of a unit, for :func:`by_price`.

    Raises:
        ConfigError: no variant of the stage has one.
    """
    price = by_price(prices)
    kinds = list(dict.fromkeys(option.allocation.labels for option in stage.options))
    found: dict[str, list[Allocation]] = {}
    reasons: dict[str, dict[Labels, str]] = {}
    for kind in kinds:
        floor: Allocation | None = None
        for variant, options in by_rising_accuracy(stage).items():
            of_kind = [option for option in options if option.allocation.labels == kind]
            if not of_kind:
                continue
            counts = _sustained(of_kind, threshold_rps, sla_s, price)
            open_ = [
                item for item in counts.items() if floor is None or price(item[0]) >= price(floor)
            ]
            settled = _climb(open_, may_rise=floor is not None)
            if settled is None:
                reason = _reason(of_kind, counts, threshold_rps, sla_s, floor)
                reasons.setdefault(variant, {})[kind] = reason
            else:
                found.setdefault(variant, []).append(settled)
                floor = settled
    if not found:
        best = max(stage.options, key=lambda option: option.throughput_rps)
        raise ConfigError(
            f"stage {stage.name}: no variant has an allocation that sustains threshold"
            f" {threshold_rps:g} rps within the stage SLA of {sla_s:.4g} s; the best throughput is"
            f" {best.throughput_rps:.4g} rps at {best.latency_s:.4g} s ({best.label})",
            where="threshold",
            fix="lower threshold, raise sla_factor, set allocation_mode: variable, or profile"
            " larger allocations",
        )
    ranked = by_rising_accuracy(stage)
    return BaseAllocation(
        {variant: tuple(found[variant]) for variant in ranked if variant in found},
        dict(_excluded(reasons, found)),
    )


def _excluded(
    reasons: Mapping[str, Mapping[Labels, str]], found: Collection[str]
) -> Iterator[tuple[str, str]]:
    for variant, by_kind in reasons.items():
        if variant not in found:
            yield variant, next(iter(by_kind.values()))
        else:
            for kind, reason in by_kind.items():
                shown = ", ".join(f"{name} {value}" for name, value in kind)
                yield f"{variant} ({shown})", reason


def by_rising_accuracy(stage: Stage) -> dict[str, list[Option]]:
    """Variant → its options in the order of the profile; variants by rising accuracy.

    Of two equally accurate variants the one that the profile has first comes first.
    """
    grouped = _by_variant(stage)
    return dict(sorted(grouped.items(), key=lambda item: item[1][0].accuracy))


def _by_variant(stage: Stage) -> dict[str, list[Option]]:
    grouped: dict[str, list[Option]] = {}
    for option in stage.options:
        grouped.setdefault(option.variant, []).append(option)
    return grouped


def _sustained(
    options: Sequence[Option],
    threshold_rps: float,
    sla_s: float,
    key: Callable[[Allocation], Any],
) -> dict[Allocation, int]:
    """Allocation → how many batches it sustains; smallest allocation first."""
    counts = dict.fromkeys(sorted((option.allocation for option in options), key=key), 0)
    for option in options:
        if option.throughput_rps >= threshold_rps and option.latency_s <= sla_s:
            counts[option.allocation] += 1
    return counts


def _climb(counts: Sequence[tuple[Allocation, int]], *, may_rise: bool) -> Allocation | None:
    """The allocation the rule settles on, out of those open to a variant; None if there is none."""
    index = 0
    while index < len(counts):
        if may_rise and index + 1 < len(counts) and counts[index + 1][1] > counts[index][1]:
            index += 1
        allocation, sustained = counts[index]
        if sustained:
            return allocation
        index += 1
    return None


def _amount(allocation: Allocation) -> str:
    plain = not allocation.resources or allocation.resources[0][0] == "core"
    return f"{allocation.cpu_cores:g} cores" if plain else allocation.label


def _reason(
    options: Sequence[Option],
    counts: Mapping[Allocation, int],
    threshold_rps: float,
    sla_s: float,
    floor: Allocation | None,
) -> str:
    if floor is not None and any(counts.values()):
        return (
            f"no allocation from {_amount(floor)} on, which a less accurate variant has, sustains"
            f" threshold {threshold_rps:g} rps within the stage SLA of {sla_s:.4g} s"
        )
    best = max(options, key=lambda option: option.throughput_rps)
    return (
        f"no allocation sustains threshold {threshold_rps:g} rps within the stage SLA of"
        f" {sla_s:.4g} s; the best throughput is {best.throughput_rps:.4g} rps at"
        f" {best.latency_s:.4g} s ({best.label})"
    )
