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
they would get without it.

Source: IPA, Journal of Systems Research 2024, and the behaviour of its ``optimizer/models.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.records import Option, Stage

Allocation = tuple[float, float]
"""(cpu_cores, gpu_share) of one replica."""

IPA_SLA_MULTIPLE = 5.0


@dataclass(frozen=True, slots=True)
class BaseAllocation:
    """What the rule found for one stage.

    Attributes:
        allocations: variant → its allocation, by rising accuracy.
        excluded: variant → why it has none.
    """

    allocations: Mapping[str, Allocation]
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


def base_allocation(stage: Stage, threshold_rps: float, sla_s: float) -> BaseAllocation:
    """IPA's base allocation of every variant of a stage.

    Args:
        stage: the stage.
        threshold_rps: throughput that one replica must sustain.
        sla_s: latency that it must stay within, see :func:`stage_sla_s`.

    Raises:
        ConfigError: no variant of the stage has one.
    """
    allocations: dict[str, Allocation] = {}
    excluded: dict[str, str] = {}
    floor: Allocation | None = None
    for variant, options in by_rising_accuracy(stage).items():
        counts = _sustained(options, threshold_rps, sla_s)
        open_ = [item for item in counts.items() if floor is None or item[0] >= floor]
        found = _climb(open_, may_rise=floor is not None)
        if found is None:
            excluded[variant] = _reason(options, counts, threshold_rps, sla_s, floor)
        else:
            allocations[variant] = floor = found
    if not allocations:
        best = max(stage.options, key=lambda option: option.throughput_rps)
        raise ConfigError(
            f"stage {stage.name}: no variant has an allocation that sustains threshold"
            f" {threshold_rps:g} rps within the stage SLA of {sla_s:.4g} s; the best throughput is"
            f" {best.throughput_rps:.4g} rps at {best.latency_s:.4g} s ({best.label})",
            where="threshold",
            fix="lower threshold, raise sla_factor, set allocation_mode: variable, or profile"
            " larger allocations",
        )
    return BaseAllocation(allocations, excluded)


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
    options: Sequence[Option], threshold_rps: float, sla_s: float
) -> dict[Allocation, int]:
    """Allocation → how many batches it sustains; smallest allocation first."""
    counts = dict.fromkeys(sorted(option.allocation for option in options), 0)
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


def _reason(
    options: Sequence[Option],
    counts: Mapping[Allocation, int],
    threshold_rps: float,
    sla_s: float,
    floor: Allocation | None,
) -> str:
    if floor is not None and any(counts.values()):
        return (
            f"no allocation from {floor[0]:g} cores on, which a less accurate variant has, sustains"
            f" threshold {threshold_rps:g} rps within the stage SLA of {sla_s:.4g} s"
        )
    best = max(options, key=lambda option: option.throughput_rps)
    return (
        f"no allocation sustains threshold {threshold_rps:g} rps within the stage SLA of"
        f" {sla_s:.4g} s; the best throughput is {best.throughput_rps:.4g} rps at"
        f" {best.latency_s:.4g} s ({best.label})"
    )
