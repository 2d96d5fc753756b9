"""A latency SLA that changes along a run, by steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats


@dataclass(frozen=True, slots=True)
class SlaSteps:
    """From each second of the run on, the SLA of what is sent then.

    Attributes:
        from_s: ascending from 0.
        sla_s: as many.
    """

    from_s: tuple[float, ...]
    sla_s: tuple[float, ...]

    @classmethod
    def of(cls, steps: Mapping[int, float] | Mapping[str, float]) -> SlaSteps:
        """Those of second → SLA, in any order; seconds may be texts, as JSON has them."""
        pairs = sorted((float(second), float(sla_s)) for second, sla_s in steps.items())
        return cls(tuple(second for second, _ in pairs), tuple(sla_s for _, sla_s in pairs))

    def at(self, time_s: Floats) -> Floats:
        """The SLA of requests that are sent at these seconds."""
        step = np.searchsorted(np.array(self.from_s), time_s, side="right") - 1
        found: Floats = np.array(self.sla_s)[np.maximum(step, 0)]
        return found

    def tightest(self, begin_s: float, end_s: float) -> float:
        """The least SLA of what is sent between two seconds."""
        inside = [
            sla_s
            for second, sla_s in zip(self.from_s, self.sla_s, strict=True)
            if begin_s < second < end_s
        ]
        return min([float(self.at(np.array([begin_s]))[0]), *inside])

    def to_json(self) -> dict[str, float]:
        """Second → SLA."""
        seconds = (f"{second:g}" for second in self.from_s)
        return dict(zip(seconds, self.sla_s, strict=True))
