"""Options of a stage whose requests come in classes: their figures by class, and means over all.

A profile's rows with a ``request_class`` hold for requests of that class; rows without one hold for
every class that has none of its own. An option that serves all classes alone has these means, with
:math:`w_k` the share of class *k*: latency the longest, throughput :math:`1 / Σ w_k/h_k` (what one
replica sustains of the mixture), accuracy, joules and tokens :math:`Σ w_k·a_k` and the like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.records import Option, ReplicaFigures, RequestClass


def by_class(
    rows: Sequence[ProfileRow],
    classes: Sequence[RequestClass],
    option_of: Callable[[Sequence[ProfileRow]], Option],
) -> Option:
    """One option of rows that differ in class, replicas or load alone.

    Args:
        rows: of the option.
        classes: that the YAML names; rows of others are left out.
        option_of: makes an option of rows of one class.
    """
    common = [row for row in rows if not row.request_class]
    found: dict[str, Option] = {}
    for each in classes:
        mine = [row for row in rows if row.request_class == each.name] or common
        if mine:
            found[each.name] = option_of(mine)
    if not found:
        return option_of(rows)
    return mixture(found, classes)


def mixture(found: Mapping[str, Option], classes: Sequence[RequestClass]) -> Option:
    """The option as all of its requests together find it, with the figures by class."""
    weights = {each.name: each.share for each in classes if each.name in found and each.share > 0}
    weights = weights or dict.fromkeys(found, 1.0)
    total = sum(weights.values())
    parts = [(found[name], share / total) for name, share in weights.items()]
    numbers = sorted({figures.replicas for option, _ in parts for figures in option.at_once})
    first = parts[0][0]
    base = _figures(1, parts)
    return replace(
        first,
        **{name: getattr(base, name) for name in _AVERAGED},
        accuracy=sum(share * option.accuracy for option, share in parts),
        tokens_per_request=sum(share * option.tokens_per_request for option, share in parts),
        at_once=tuple(_figures(n, [(o.at(n), share) for o, share in parts]) for n in numbers),
        by_class=tuple(found.items()),
    )


_AVERAGED = (
    "latency_s",
    "latency_avg_s",
    "latency_p99_s",
    "throughput_rps",
    "dynamic_energy_j",
    "idle_power_w",
    "provenance",
)


def _figures(replicas: int, parts: Sequence[tuple[Option, float]]) -> ReplicaFigures:
    return ReplicaFigures(
        replicas=replicas,
        latency_s=max(option.latency_s for option, _ in parts),
        latency_avg_s=sum(share * option.latency_avg_s for option, share in parts),
        latency_p99_s=max(option.latency_p99_s for option, _ in parts),
        throughput_rps=1 / sum(share / option.throughput_rps for option, share in parts),
        dynamic_energy_j=sum(share * option.dynamic_energy_j for option, share in parts),
        idle_power_w=max(option.idle_power_w for option, _ in parts),
        provenance=parts[0][0].provenance,
    )
