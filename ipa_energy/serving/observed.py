"""What is observed of a live pipeline's joules: who spent them, and how a profile's differ.

Records only, which the backends fill, the runner passes on, and the log, the exporter, the terminal
and the report show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipa_energy.records import Option


@dataclass(frozen=True, slots=True)
class Spent:
    """Joules that one replica was charged with.

    Attributes:
        stage: task name of the stage.
        option: what it runs, by :func:`option_name`.
        replica: its name; no two of a run's have the same.
        idle_j, dynamic_j: joules held while it existed, and above that.
        cpu_s: CPU seconds.
        requests, batches: that it answered.
    """

    stage: str
    option: str
    replica: str
    idle_j: float
    dynamic_j: float
    cpu_s: float
    requests: int = 0
    batches: int = 0


def option_name(option: Option) -> str:
    """``yolov5n 2c``: an option, whatever its batch."""
    return f"{option.variant} {option.allocation.label}"


def added(one: Spent, other: Spent) -> Spent:
    """What the same replica was charged with in two windows."""
    return replace(
        one,
        idle_j=one.idle_j + other.idle_j,
        dynamic_j=one.dynamic_j + other.dynamic_j,
        cpu_s=one.cpu_s + other.cpu_s,
        requests=one.requests + other.requests,
        batches=one.batches + other.batches,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageJoules:
    """One stage in one window.

    Attributes:
        stage: task name of the stage.
        variant, allocation: what it ran; the allocation as its label.
        requests: that it served.
        load_rps: these, each second.
        batch_fill: requests in a batch, mean.
        live_j: joules per request as spent.
        profile_j: the same as the profile has it, without any correction; NaN without joules.
        live_idle_j, profile_idle_j: the idle part of each.
        is_clean: False if the stage was being changed, or served too few to say anything.
    """

    stage: str
    variant: str
    allocation: str
    requests: float
    load_rps: float
    batch_fill: float
    live_j: float
    profile_j: float
    is_clean: bool
    live_idle_j: float = math.nan
    profile_idle_j: float = math.nan

    @property
    def ratio(self) -> float:
        """live_j / profile_j; NaN if either is not known."""
        known = self.profile_j > 0 and self.live_j > 0
        return self.live_j / self.profile_j if known else math.nan


def of_stage(joules: Iterable[StageJoules], stage: str) -> StageJoules | None:
    """A stage's own; of one that ran several options at once, the mean of their requests."""
    mine = [one for one in joules if one.stage == stage]
    requests = math.fsum(one.requests for one in mine)
    if len(mine) < 2 or not requests:
        return mine[0] if mine else None

    def mean(name: str) -> float:
        used = [one for one in mine if one.requests]
        return math.fsum(one.requests * getattr(one, name) for one in used) / requests

    return StageJoules(
        stage=stage,
        variant=" + ".join(one.variant for one in mine),
        allocation=" + ".join(dict.fromkeys(one.allocation for one in mine)),
        requests=requests,
        load_rps=math.fsum(one.load_rps for one in mine),
        batch_fill=requests / math.fsum(o.requests / o.batch_fill for o in mine if o.requests),
        live_j=mean("live_j"),
        profile_j=mean("profile_j"),
        live_idle_j=mean("live_idle_j"),
        profile_idle_j=mean("profile_idle_j"),
        is_clean=all(one.is_clean for one in mine),
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """By how much the joules of a variant on an allocation differ from its profile's.

    Attributes:
        stage: task name of the stage.
        variant, allocation: what it is of; the allocation as its label.
        factor: joules of a request over the profile's, when it was found.
        dynamic, idle: what e and p of the profile are multiplied by.
    """

    stage: str
    variant: str
    allocation: str
    factor: float
    dynamic: float
    idle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A drift that was found.

    Attributes:
        stage: task name of the stage.
        variant, allocation: whose joules drifted; the allocation as its label.
        found_s: when, seconds since the start of the run.
        windows: for how many windows it had gone on.
        factor: joules now over joules expected before.
        scale: joules now over the profile's.
        dynamic, idle: the same of the dynamic and of the idle part.
        is_applied: True if decisions from now on count with it.
    """

    stage: str
    variant: str
    allocation: str
    found_s: float
    windows: int
    factor: float
    scale: float
    dynamic: float
    idle: float
    is_applied: bool = True

    @property
    def told(self) -> str:
        """In a sentence."""
        what = "decisions count with it" if self.is_applied else "not corrected"
        return (
            f"stage {self.stage}: {self.variant} {self.allocation} costs {self.scale:.2f} times"
            f" the joules of its profile (dynamic {self.dynamic:.2f}, idle {self.idle:.2f},"
            f" {self.windows} windows); {what}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFigures:
    """What who decides knows and who serves does not: for an exporter that lives with the latter.

    Attributes:
        status: of a decision that was just made; None after an interval.
        is_feasible: whether the last decision found a plan.
        told_at_s: seconds since the epoch.
        plan: what runs, in short.
        accuracy: of the pipeline, by its plan.
        predicted_load_rps, planned_load_rps: NaN before the first decision.
        decision_s: how long it took; NaN without one.
        objective: term → its part of the objective; empty if nothing was decided.
        scales: of the profile's joules.
        joules: the last interval's, beside the profile's.
    """

    status: str | None = None
    is_feasible: bool = True
    told_at_s: float = math.nan
    plan: str = ""
    accuracy: float = math.nan
    predicted_load_rps: float = math.nan
    planned_load_rps: float = math.nan
    decision_s: float = math.nan
    objective: Mapping[str, float] = field(default_factory=dict)
    scales: tuple[Scale, ...] = ()
    joules: tuple[StageJoules, ...] = ()
