"""One configuration of a trade-off study: what every stage runs, and why it is in the study."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ipa_energy.as_json import or_none
from ipa_energy.optimizer.solution import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Variant, allocation, batch and replicas of every stage, for one case of the study.

    Attributes:
        key: a short label, unique in its case and free of markup: ``C1``, ``C2`` …
        name: what the user's list calls it; else its plan's label.
        origin: why it is in the study, e.g. ``least energy`` or ``farthest from the others``.
        plan: what it means by the profile at the case's load, certificate included.
    """

    key: str
    name: str
    origin: str
    plan: Plan

    @property
    def label(self) -> str:
        """``yolov5n 1c b4 x3 | resnet18 1c b2 x1``."""
        return self.plan.label

    @property
    def profile_ci95_j(self) -> float:
        """Half width of the profile's 95 % interval of the pipeline's joules per request.

        The stages' own half widths, each times m_s, added in quadrature: they were profiled
        independently of each other. NaN if any of them is unknown.
        """
        parts = [
            stage.requests_per_input
            * (stage.option.provenance.ci95_j if stage.option.provenance else math.nan)
            for stage in self.plan.stages
        ]
        return math.sqrt(math.fsum(part * part for part in parts))

    @property
    def meter(self) -> str | None:
        """Meters behind the profile's joules, joined by ``+``; None without energy."""
        meters = {s.option.provenance.meter for s in self.plan.stages if s.option.provenance}
        return "+".join(sorted(meters)) or None

    def to_json(self) -> dict[str, Any]:
        """The configuration as ``tradeoff --json`` shows it."""
        return {
            "key": self.key,
            "name": self.name,
            "origin": self.origin,
            "label": self.label,
            "profile_ci95_j": or_none(self.profile_ci95_j),
            "meter": self.meter,
            "plan": self.plan.to_json(),
        }
