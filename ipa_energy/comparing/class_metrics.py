"""The figures of runs by class of requests, where requests come in classes.

Each is defined as for a whole run (:mod:`.metrics`), with these differences: ``in SLA`` holds a
class to its own latency SLA where it has one; ``accuracy`` is that of the options that its requests
were served by, averaged stage by stage over the requests and combined by ``accuracy_method``;
joules are shared out as in :mod:`ipa_energy.serving.observed`, so that the classes' add up to the
run's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.runlog.reader import Run
from ipa_energy.serving.observed import added, joules_by_class
from ipa_energy.serving.tally import LOG_RESOLUTION_S


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics:
    """One class of requests in one run; NaN where the log does not say.

    Attributes:
        share: of all requests, as they came; ``planned_share`` as the YAML has it.
        latency_sla_s: its own, or that of the run; None if there is none, or it changes in the run.
    """

    name: str
    requests: int
    served: int
    share: float
    planned_share: float
    latency_sla_s: float | None
    sla_attainment: float
    latency_p50_s: float
    latency_p99_s: float
    latency_mean_s: float
    accuracy: float
    energy_j: float
    joules_per_request: float


def class_metrics(run: Run) -> tuple[ClassMetrics, ...]:
    """The figures of every class of a run; none where its log does not tell them apart."""
    work = added(part for step in run.steps for part in step.work)
    classes = run.info.classes
    if not (work and classes):
        return ()
    stage_joules = [
        math.fsum(step.stages[at].idle_j + step.stages[at].dynamic_j for step in run.steps)
        for at in range(len(run.info.stages))
    ]
    joules = joules_by_class(work, stage_joules, list(classes))
    found = []
    for kind, (name, said) in enumerate(classes.items()):
        seen = seen_of(run, kind)
        total = len(run.requests) if run.tally is None else len(run.tally)
        scores = [part.accuracy_sum / part.requests for part in work if part.request_class == name]
        own = said.get("latency_sla_s")
        steps = run.info.settings.get("latency_sla_s")
        found.append(
            ClassMetrics(
                name=name,
                requests=seen.total,
                served=seen.answered,
                share=seen.total / total if total else math.nan,
                planned_share=said["share"],
                latency_sla_s=own if own is not None else None if steps else run.info.latency_sla_s,
                accuracy=_combined(scores, str(run.info.settings.get("accuracy_method"))),
                energy_j=joules[name],
                joules_per_request=joules[name] / seen.answered if seen.answered else math.nan,
                sla_attainment=seen.sla_attainment,
                latency_p50_s=seen.latency_p50_s,
                latency_p99_s=seen.latency_p99_s,
                latency_mean_s=seen.latency_mean_s,
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of requests, and how long those that were answered took."""

    total: int
    answered: int
    failed: int
    in_sla: int
    latency_p50_s: float
    latency_p99_s: float
    latency_mean_s: float

    @property
    def sla_attainment(self) -> float:
        """Share that was answered within the SLA; NaN of none."""
        return self.in_sla / self.total if self.total else math.nan


def seen_of(run: Run, kind: int | None = None) -> Seen:
    """Of a run's requests, or those of one class, by their times or as the log has counted them."""
    tally, requests = run.tally, run.requests
    if tally is not None and kind is not None:
        tally = tally.by_class.get(list(run.info.classes)[kind])
    if tally is not None:
        return Seen(
            total=len(tally),
            answered=tally.answered,
            failed=tally.failed,
            in_sla=tally.in_sla,
            latency_p50_s=tally.percentile_s(50),
            latency_p99_s=tally.percentile_s(99),
            latency_mean_s=tally.latency_sum_s / tally.answered if tally.answered else math.nan,
        )
    mine = np.ones(len(requests), dtype=bool) if kind is None else requests.kind == kind
    answered = mine & (requests.dropped_at < 0)
    latency_s = (requests.done_s - requests.sending_s)[answered]
    sla_s = run.info.sla_s(requests)
    limit_s = np.broadcast_to(math.inf if sla_s is None else sla_s, answered.shape)[answered]
    known_s = latency_s[~np.isnan(latency_s)]
    p50_s, p99_s = np.percentile(latency_s, [50, 99]) if len(latency_s) else (math.nan, math.nan)
    return Seen(
        total=int(mine.sum()),
        answered=len(latency_s),
        failed=int((mine & requests.failed).sum()),
        in_sla=int((latency_s <= limit_s + LOG_RESOLUTION_S).sum()),
        latency_p50_s=float(p50_s),
        latency_p99_s=float(p99_s),
        latency_mean_s=float(known_s.mean()) if len(known_s) else math.nan,
    )


def _combined(scores: Sequence[float], method: str) -> float:
    if not scores:
        return math.nan
    if method == "multiply":
        return math.prod(scores)
    return math.fsum(scores) / (len(scores) if method == "average" else 1)
