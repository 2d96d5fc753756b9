"""What became of a window's requests, counted: for runs of days, whose times would fill a disk.

Everything is exact but the latencies, which are kept as a histogram whose bins are one percent
wide: a percentile read off it is within half a percent of the true one, from a tenth of a
millisecond on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ipa_energy.arrays import Counts, Floats

BINS_PER_E = 100
"""Bins in which a latency grows e-fold."""

SHORTEST_S = 1e-4
"""All that is faster is in the bin of this."""

LOG_RESOLUTION_S = 1e-6
"""Times are logged to the microsecond, so a latency this much above the SLA may be equal to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Requests that left the pipeline in one window, or in several.

    Attributes:
        first_s: the second in which the first of them was sent.
        sent: (seconds,) how many of them were sent in each second from then on.
        dropped: of each stage, for their age.
        failed: lost for another reason; not among ``dropped``.
        in_sla: answered within the latency SLA; answered at all where there is none.
        latency_sum_s: of the answered ones.
        bins: (K,) bins of their latencies, ascending; see the module.
        counts: (K,) how many are in each.
        by_class: the same of each class of requests; empty where nobody tells them apart.
    """

    first_s: int
    sent: Counts
    dropped: tuple[int, ...]
    failed: int
    in_sla: int
    latency_sum_s: float
    bins: Counts
    counts: Counts
    by_class: Mapping[str, Tally] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.sent.sum())

    @property
    def answered(self) -> int:
        """Those that got an answer."""
        return int(self.counts.sum())

    @property
    def latency_s(self) -> Floats:
        """(K,) the middle of each bin."""
        middle: Floats = np.exp((self.bins + 0.5) / BINS_PER_E)
        return middle

    def percentile_s(self, q: float) -> float:
        """Latency of the answered ones; NaN without any."""
        if not len(self.counts):
            return math.nan
        below = np.cumsum(self.counts)
        rank = q / 100 * (below[-1] - 1)
        return float(self.latency_s[int(np.searchsorted(below, rank, side="right"))])

    def to_json(self) -> dict[str, Any]:
        """For the log."""
        return {
            "first_s": self.first_s,
            "sent": self.sent.tolist(),
            "dropped": list(self.dropped),
            "failed": self.failed,
            "in_sla": self.in_sla,
            "latency_sum_s": round(self.latency_sum_s, 6),
            "latency_bins": self.bins.tolist(),
            "latency_counts": self.counts.tolist(),
            **(
                {"request_classes": {name: one.to_json() for name, one in self.by_class.items()}}
                if self.by_class
                else {}
            ),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From the log.

        Raises:
            KeyError, ValueError: it is none.
        """
        return cls(
            first_s=int(data["first_s"]),
            sent=_counts(data["sent"]),
            dropped=tuple(int(count) for count in data["dropped"]),
            failed=int(data["failed"]),
            in_sla=int(data["in_sla"]),
            latency_sum_s=float(data["latency_sum_s"]),
            bins=_counts(data["latency_bins"]),
            counts=_counts(data["latency_counts"]),
            by_class={
                str(name): cls.from_json(one)
                for name, one in (data.get("request_classes") or {}).items()
            },
        )


def tally(
    sending_s: Floats,
    latency_s: Floats,
    dropped_at: Counts,
    failed: Any,
    *,
    stages: int,
    sla_s: Floats | float | None,
) -> Tally:
    """Requests counted.

    Args:
        sending_s: (R,) when each was sent.
        latency_s: (R,) from sending to answer.
        dropped_at: (R,) stage at which it was lost, −1 if it was answered.
        failed: (R,) mask of those lost for another reason than their age.
        stages: of the pipeline.
        sla_s: latency SLA, or (R,) that of each; None without one.
    """
    second = np.floor(sending_s).astype(np.int64)
    first_s = int(second.min()) if len(second) else 0
    answered = latency_s[dropped_at < 0]
    limit_s = np.broadcast_to(math.inf if sla_s is None else sla_s, latency_s.shape)
    within = answered <= limit_s[dropped_at < 0] + LOG_RESOLUTION_S
    bins, counts = np.unique(
        np.floor(np.log(np.maximum(answered, SHORTEST_S)) * BINS_PER_E).astype(np.int64),
        return_counts=True,
    )
    lost = dropped_at[(dropped_at >= 0) & ~failed]
    return Tally(
        first_s=first_s,
        sent=np.bincount(second - first_s),
        dropped=tuple(np.bincount(lost, minlength=stages).tolist()),
        failed=int(failed.sum()),
        in_sla=int(within.sum()),
        latency_sum_s=float(answered.sum()),
        bins=bins,
        counts=counts.astype(np.int64),
    )


def limits_s(
    common: Floats | float | None, kinds: Counts, own: Mapping[int, float | None]
) -> Floats:
    """(R,) the latency SLA of each request: that of its class, where it has its own.

    Args:
        common: of all others; None if there is none.
        kinds: (R,) positions of the classes.
        own: position of a class → its SLA.
    """
    found: Floats = np.array(
        np.broadcast_to(math.inf if common is None else common, kinds.shape), dtype=np.float64
    )
    for kind, sla_s in own.items():
        if sla_s is not None:
            found[kinds == kind] = sla_s
    return found


def merged(parts: Sequence[Tally]) -> Tally:
    """Several windows as one; at least one."""
    some = [part for part in parts if len(part.sent)] or list(parts[:1])
    first_s = min(part.first_s for part in some)
    sent = np.zeros(max(part.first_s + len(part.sent) for part in some) - first_s, dtype=np.int64)
    for part in some:
        begin = part.first_s - first_s
        sent[begin : begin + len(part.sent)] += part.sent
    bins, place = np.unique(np.concatenate([part.bins for part in parts]), return_inverse=True)
    weights = np.concatenate([part.counts for part in parts])
    return Tally(
        first_s=first_s,
        sent=sent,
        dropped=tuple(sum(counts) for counts in zip(*(p.dropped for p in parts), strict=True)),
        failed=sum(part.failed for part in parts),
        in_sla=sum(part.in_sla for part in parts),
        latency_sum_s=math.fsum(part.latency_sum_s for part in parts),
        bins=bins,
        counts=np.bincount(place, weights=weights, minlength=len(bins)).astype(np.int64),
        by_class={
            name: merged([part.by_class[name] for part in parts if name in part.by_class])
            for name in dict.fromkeys(name for part in parts for name in part.by_class)
        },
    )


def _counts(values: Sequence[int]) -> Counts:
    return np.array(values, dtype=np.int64)
