"""What running a configuration came to, averaged over its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ipa_energy.as_json import or_none
from ipa_energy.interval import half_width_95
from ipa_energy.records import Quality
from ipa_energy.tradeoff.configuration import Configuration

ONE_TRIAL = "one trial has no spread"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over trials.

    Attributes:
        value: the mean; NaN if any trial lacks the figure.
        ci95: half width of its 95 % t-interval; NaN if it has none.
        trials: how many there were.
        reason: why there is no value, or no interval; None if both are there.
    """

    value: float
    ci95: float
    trials: int
    reason: str | None = None

    @property
    def low(self) -> float:
        """Lower end of the interval; NaN without one."""
        return self.value - self.ci95

    @property
    def high(self) -> float:
        """Upper end of the interval; NaN without one."""
        return self.value + self.ci95

    @classmethod
    def of(cls, values: Sequence[float], *, absent: str = "not logged") -> Estimate:
        """Mean and Student's t interval of independent trials.

        Args:
            values: one a trial, at least one.
            absent: the reason to give if a value is NaN.
        """
        count = len(values)
        if any(math.isnan(value) for value in values):
            return cls(math.nan, math.nan, count, absent)
        mean = math.fsum(values) / count
        if count == 1:
            return cls(mean, math.nan, 1, ONE_TRIAL)
        return cls(mean, half_width_95(values), count)

    def to_json(self) -> dict[str, Any]:
        """The estimate as ``tradeoff --json`` shows it."""
        return {
            "value": or_none(self.value),
            "ci95": or_none(self.ci95),
            "trials": self.trials,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration as it was run; the definitions are those of :mod:`ipa_energy.compare`.

    The intervals tell how far the trials (seeds of arrivals and service times) differ. They say
    nothing of how good the profile is: that is ``configuration.profile_ci95_j``.

    Attributes:
        configuration: what was run.
        accuracy: pipeline accuracy of the raw accuracies; the same in every trial.
        cost_cores: cores reserved; the same in every trial.
        latency_s: mean latency of answered requests.
        latency_p99_s: their 99th percentile.
        sla_attainment: share of all requests answered inside the end-to-end latency SLA, 0..1.
        answered: share of all requests that were answered at all, 0..1.
        joules_per_request: all joules, idle included, over answered requests.
        power_w: mean watts over the load.
        meter, quality: provenance of the joules and watts of the run.
        on_front: no other point of the case is at least as good in accuracy, cost, mean latency
            and energy, and better in one; None without energy.
        on_front_without_energy: the same in accuracy, cost and mean latency alone.
    """

    configuration: Configuration
    accuracy: float
    cost_cores: float
    latency_s: Estimate
    latency_p99_s: Estimate
    sla_attainment: Estimate
    answered: Estimate
    joules_per_request: Estimate
    power_w: Estimate
    meter: str | None
    quality: Quality | None
    on_front: bool | None = None
    on_front_without_energy: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The point as ``tradeoff --json`` shows it."""
        return {
            **self.configuration.to_json(),
            "accuracy": or_none(self.accuracy),
            "cost_cores": self.cost_cores,
            "latency_s": self.latency_s.to_json(),
            "latency_p99_s": self.latency_p99_s.to_json(),
            "sla_attainment": self.sla_attainment.to_json(),
            "answered": self.answered.to_json(),
            "joules_per_request": self.joules_per_request.to_json(),
            "power_w": self.power_w.to_json(),
            "run_meter": self.meter,
            "run_quality": self.quality,
            "on_front": self.on_front,
            "on_front_without_energy": self.on_front_without_energy,
        }
