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
        requests, served, figures = _latencies(run, kind, name)
        total = len(run.requests) if run.tally is None else len(run.tally)
        scores = [part.accuracy_sum / part.requests for part in work if part.request_class == name]
        own = said.get("latency_sla_s")
        steps = run.info.settings.get("latency_sla_s")
        found.append(
            ClassMetrics(
                name=name,
                requests=requests,
                served=served,
                share=requests / total if total else math.nan,
                planned_share=said["share"],
                latency_sla_s=own if own is not None else None if steps else run.info.latency_sla_s,
                accuracy=_combined(scores, str(run.info.settings.get("accuracy_method"))),
                energy_j=joules[name],
                joules_per_request=joules[name] / served if served else math.nan,
                **figures,
            )
        )
    return tuple(found)


def _latencies(run: Run, kind: int, name: str) -> tuple[int, int, dict[str, float]]:
    """(requests, answered ones, what their latencies came to) of a class."""
    tally = None if run.tally is None else run.tally.by_class.get(name)
    if tally is not None:
        mean_s = tally.latency_sum_s / tally.answered if tally.answered else math.nan
        p50_s, p99_s = tally.percentile_s(50), tally.percentile_s(99)
        requests, answered, in_sla = len(tally), tally.answered, tally.in_sla
    else:
        mine = run.requests.kind == kind
        served = mine & (run.requests.dropped_at < 0)
        latency_s = (run.requests.done_s - run.requests.sending_s)[served]
        sla_s = run.info.sla_s(run.requests)
        limits_s = np.broadcast_to(math.inf if sla_s is None else sla_s, mine.shape)[served]
        in_sla = int((latency_s <= limits_s + LOG_RESOLUTION_S).sum())
        requests, answered = int(mine.sum()), int(served.sum())
        p50_s, p99_s = np.percentile(latency_s, [50, 99]) if answered else (math.nan, math.nan)
        mean_s = float(latency_s.mean()) if answered else math.nan
    figures = {
        "sla_attainment": in_sla / requests if requests else math.nan,
        "latency_p50_s": float(p50_s),
        "latency_p99_s": float(p99_s),
        "latency_mean_s": mean_s,
    }
    return requests, answered, figures


def _combined(scores: Sequence[float], method: str) -> float:
    if not scores:
        return math.nan
    if method == "multiply":
        return math.prod(scores)
    return math.fsum(scores) / (len(scores) if method == "average" else 1)
