"""What is observed of a pipeline's joules: who spent them and for whom, and how a profile's differ.

Records, which the backends fill, the runner passes on, and the log, the exporter, the terminal and
the report show.

Where requests come in classes, a class is charged the dynamic joules of its own requests. What else
a stage takes, its idle watts and the loading of replicas, serves all: each class bears it in
proportion to the idle joules that replicas held while they worked for it. So the joules of the
classes add up to all joules, and a class that needs large replicas for long pays for them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipa_energy.records import Option, Stage


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

    def __add__(self, other: Spent) -> Spent:
        """What the same replica was charged with in two windows."""
        return replace(
            self,
            idle_j=self.idle_j + other.idle_j,
            dynamic_j=self.dynamic_j + other.dynamic_j,
            cpu_s=self.cpu_s + other.cpu_s,
            requests=self.requests + other.requests,
            batches=self.batches + other.batches,
        )


def option_name(option: Option) -> str:
    """``yolov5n 2c``: an option, whatever its batch."""
    return f"{option.variant} {option.allocation.label}"


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


@dataclass(frozen=True, slots=True)
class ClassWork:
    """What one stage did for one class in a window; of batches that began in it.

    Attributes:
        stage: position in the pipeline.
        request_class: its name.
        requests: of the stage that began to be served.
        dynamic_j: joules above idle of these.
        idle_j: joules that replicas held idle while they worked for them.
        accuracy_sum: sum of the accuracies that they were served with.
    """

    stage: int
    request_class: str
    requests: int
    dynamic_j: float
    idle_j: float
    accuracy_sum: float

    def rounded(self) -> ClassWork:
        """As it is logged."""
        sums = {name: round(getattr(self, name), 6) for name in _SUMS}
        return replace(self, **sums)


_SUMS = tuple(each.name for each in fields(ClassWork))[3:]


def added(parts: Iterable[ClassWork]) -> tuple[ClassWork, ...]:
    """Several windows as one, by stage and class in the order in which they come."""
    found: dict[tuple[int, str], ClassWork] = {}
    for part in parts:
        key = (part.stage, part.request_class)
        before = found.get(key)
        if before is None:
            found[key] = part
            continue
        sums = {name: getattr(before, name) + getattr(part, name) for name in _SUMS}
        found[key] = replace(before, requests=before.requests + part.requests, **sums)
    return tuple(found[key] for key in sorted(found, key=lambda key: key[0]))


def served_work(
    stages: Sequence[Stage],
    served: Sequence[Sequence[tuple[str, str, int]]],
    spent: Sequence[Spent],
    names: Sequence[str],
) -> tuple[ClassWork, ...]:
    """What stages that really serve did for each class.

    A meter tells replicas apart and not the requests in a batch: what the replicas of an option
    spent is shared out to classes in proportion to the profile's joules of theirs, and what they
    held idle to the time that the profile has for them.

    Args:
        stages: of the pipeline.
        served: of each stage (what :class:`.observed.Spent` calls an option, class, requests).
        spent: by each replica, in the same window.
        names: of the classes; other clients may say any other.
    """
    found = []
    for at, (stage, mine) in enumerate(zip(stages, served, strict=False)):
        options = {option_name(option): option for option in reversed(stage.options)}
        for label in dict.fromkeys(label for label, _, _ in mine):
            its = [one for one in spent if (one.stage, one.option) == (stage.name, label)]
            by_class: Counter[str] = Counter()  # what was given back comes with what is new
            for option, name, count in mine:
                if option == label and name in names:
                    by_class[name] += count
            if by_class:
                found += _of_option(at, options[label], by_class, its)
    return added(found)


def _of_option(
    stage: int, option: Option, by_class: Mapping[str, int], spent: Sequence[Spent]
) -> list[ClassWork]:
    """What the replicas of one option did."""
    known = {name: option.of_class(name) or option for name in by_class}
    joules = [n * known[name].dynamic_energy_j for name, n in by_class.items()]
    seconds = [n / known[name].throughput_rps for name, n in by_class.items()]
    if not sum(joules) > 0:  # nobody knows them
        joules = [float(n) for n in by_class.values()]
    dynamic_j = math.fsum(one.dynamic_j for one in spent) / math.fsum(joules)
    idle_j = math.fsum(one.idle_j for one in spent) / math.fsum(seconds)
    return [
        ClassWork(stage, name, n, own_j * dynamic_j, own_s * idle_j, n * known[name].accuracy)
        for (name, n), own_j, own_s in zip(by_class.items(), joules, seconds, strict=True)
    ]


def joules_by_class(
    work: Sequence[ClassWork], stage_joules: Sequence[float], names: Sequence[str]
) -> dict[str, float]:
    """Class → its joules of a whole run; they add up to those of the stages.

    Args:
        work: of the run.
        stage_joules: all joules of each stage.
        names: of all classes; one that nothing was done for has none.
    """
    found = dict.fromkeys(names, 0.0)
    for stage, joules in enumerate(stage_joules):
        mine = [part for part in work if part.stage == stage]
        rest_j = joules - sum(part.dynamic_j for part in mine)
        weights = [part.idle_j for part in mine]
        if not sum(weights) > 0:
            weights = [float(part.requests) for part in mine]
        for part, weight in zip(mine, weights, strict=True):
            found[part.request_class] += part.dynamic_j + rest_j * weight / sum(weights)
    return found
