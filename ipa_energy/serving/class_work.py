"""What was done for each class of requests, where requests come in classes.

A class is charged the dynamic joules of its own requests. What else a stage takes, its idle watts
and the loading of replicas, serves all: each class bears it in proportion to the idle joules that
replicas held while they worked for it. So the joules of the classes add up to all joules, and a
class that needs large replicas for long pays for them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from ipa_energy.arrays import Counts, Floats
from ipa_energy.records import Option, Stage
from ipa_energy.serving.observed import Spent, option_name


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
