"""The figures of one run.

Each is defined once, here:

- ``sla_attainment`` is the share of *all* requests that were answered within the latency SLA; a
  dropped request missed it.
- ``joules_per_request`` is all joules of the run, idle and drain included, over *answered*
  requests: what a dropped request burnt is charged to those that got through.
- ``accuracy_mean`` weights by *time*: the raw pipeline accuracy of the plan that governed each
  moment of the workload. ``accuracy_objective_mean`` does the same with the accuracy term of the
  objective as IPA logs it (alpha, and ranks if so configured).
- latencies are those of answered requests, from sending to answer; percentiles of a log that only
  counts requests are within half a percent (:mod:`ipa_energy.serving.tally`), the rest is exact.
- ``cores_mean`` and ``power_mean_w`` are over the workload, without the drain.
- a run that served nothing (IPA's own simulation only decides) has the requests its log says were
  offered; all of them count as answered, and what only serving can tell is not known.
- a further quantity (:data:`ipa_energy.registries.QUANTITIES`) is that of the plans as decided,
  weighted by the requests of each step; steps without a decision are left out.
- ``energy_sla_attainment`` is the share of the intervals whose joules, idle included, over the
  requests that left the pipeline in them were within ``energy_sla_joules``; an interval without
  requests counts as if it had served one.
- ``grams`` are those of all joules, each at the intensity of its second and at the site's meter;
  ``grams_per_million_requests`` are over answered requests, as the joules are.
- forecasts are scored where they were logged (:mod:`.forecast_scores`).
- ``joules_per_token`` is all joules over the tokens of the answers: of each step's plan as
  profiled, times its requests. A stage of which some options have tokens in the profile and
  others that served have none counts as one without; of a run without tokens it is not known.
- a reconfiguration is a step at which any stage changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.as_json import fields_of
from ipa_energy.comparing.class_metrics import ClassMetrics, class_metrics, seen_of
from ipa_energy.comparing.forecast_scores import ForecastScore, forecast_scores
from ipa_energy.records import Quality, joined_meters, weakest_quality
from ipa_energy.registries import QUANTITIES
from ipa_energy.runlog.reader import Run
from ipa_energy.runlog.step import IPA_TERMS, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMetrics:
    """The figures of one run or baseline; NaN where the log does not say. See the module.

    Attributes:
        name: what tables call it.
        requests: sent; served and dropped ones.
        latency_sla_s: None if the run had none; then ``sla_attainment`` counts answers.
        energy_j: joules of the run, ``idle_j`` and ``dynamic_j`` its parts.
        reconfigurations: steps at which a stage changed.
        infeasible_steps: decisions that found no plan.
        decisions: steps that were decided.
        meter, quality: provenance of every joule and watt here.
        workload, profile: digest where the run folder has a copy, else the name; "" if unknown.
        not_copied: which of ``workload`` and ``profile`` are names for want of a copy.
        settings: weights and caps of the objective.
        amounts: further quantity → its mean over the requests, by the plans in force.
        energy_sla_joules: cap on the joules per request; None if the run had none, and then
            ``energy_sla_attainment`` is NaN.
        unproven: decisions whose time was up before their plan was proven the best one.
        largest_gap: how much better another plan might have been, at most, of the objective.
        grams: of CO2 equivalent; NaN where nobody said what a joule emits, and then so is the
            next.
        sites: site → its joules and grams, where the pipeline ran in several places; else empty.
        embodied_g: of making the hardware that was held, in none of ``grams``; NaN where the
            profile does not say.
        forecasts: how good the forecasts of the run were; empty where none were logged.
        detail: what a baseline runs, for people.
        stages: of its pipeline; 0 if unknown.
        joules_per_token: NaN without language models; see the module.
        classes: its figures by class of requests; none where nobody tells them apart.
        status: of the run; ``complete`` for baselines.
    """

    name: str
    requests: int
    served: int
    dropped: int
    duration_s: float
    latency_sla_s: float | None
    sla_attainment: float
    latency_p50_s: float
    latency_p99_s: float
    latency_mean_s: float
    accuracy_mean: float
    accuracy_objective_mean: float
    cores_mean: float
    core_hours: float
    energy_j: float
    idle_j: float
    dynamic_j: float
    joules_per_request: float
    power_mean_w: float
    reconfigurations: int
    infeasible_steps: int
    decisions: int
    decision_s_median: float
    decision_s_p99: float
    meter: str | None
    quality: Quality | None
    backend: str = ""
    workload: str = ""
    profile: str = ""
    not_copied: tuple[str, ...] = ()
    hardware: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    amounts: Mapping[str, float] = field(default_factory=dict)
    detail: str | None = None
    status: str = "complete"
    energy_sla_joules: float | None = None
    energy_sla_attainment: float = math.nan
    unproven: int = 0
    largest_gap: float = 0.0
    failed: int = 0
    grams: float = math.nan
    grams_per_million_requests: float = math.nan
    embodied_g: float = math.nan
    forecasts: tuple[ForecastScore, ...] = ()
    sites: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    stages: int = 0
    joules_per_token: float = math.nan
    classes: tuple[ClassMetrics, ...] = ()

    @property
    def is_summed(self) -> bool:
        """True if its accuracy is a sum over stages, and so may be above 1."""
        return self.settings.get("accuracy_method") == "sum" and self.stages != 1

    def amount(self, name: str) -> float:
        """Of a further quantity; NaN if the run has none."""
        return self.amounts.get(name, math.nan)

    @property
    def sci_g_per_million_requests(self) -> float:
        """Software Carbon Intensity, (E·I + M)/R, with a million answered requests for R."""
        grams = self.grams + self.embodied_g
        return grams / self.served * 1e6 if self.served else math.nan

    def called(self, name: str) -> RunMetrics:
        """The same figures under another name."""
        return replace(self, name=name)

    def to_json(self) -> dict[str, Any]:
        """The record as ``compare --json`` shows it."""
        figures = fields_of(self)
        if not self.sites:
            del figures["sites"]
        return {
            **figures,
            "energy_quality": self.quality,
            "sci_g_per_million_requests": self.sci_g_per_million_requests,
        }


def _sites(steps: Sequence[Step]) -> dict[str, dict[str, float]]:
    """Site → joules and grams."""
    sums: dict[str, dict[str, float]] = {}
    for step in steps:
        for site, (joules, grams) in step.sites.items():
            found = sums.setdefault(site, {"joules": 0.0, "grams": 0.0})
            found["joules"] += joules
            found["grams"] += grams
    return sums


def metrics(run: Run) -> RunMetrics:
    """The figures of a run as far as it got."""
    seen = seen_of(run)
    served, total, failed = seen.answered, seen.total, seen.failed
    if total == 0:
        served = total = _offered(run)
    idle_j, dynamic_j = _joules(run, "idle_j"), _joules(run, "dynamic_j")
    energy_j = _sum(step.energy_j for step in run.steps)
    grams = _sum(step.grams for step in run.steps)
    decision_s = _known([step.decision_s for step in run.decisions])
    return RunMetrics(
        name=run.name,
        requests=total,
        served=served,
        dropped=total - served - failed,
        failed=failed,
        duration_s=run.duration_s,
        latency_sla_s=run.info.latency_sla_s,
        sla_attainment=seen.sla_attainment,
        latency_p50_s=seen.latency_p50_s,
        latency_p99_s=seen.latency_p99_s,
        latency_mean_s=seen.latency_mean_s,
        accuracy_mean=_over_time(run, lambda step: step.accuracy_raw),
        accuracy_objective_mean=_over_time(run, lambda step: step.terms["accuracy"]),
        cores_mean=_per_second_mean(run, run.cores, lambda step: step.cores),
        core_hours=_core_seconds(run) / 3600.0,
        energy_j=energy_j,
        idle_j=idle_j,
        dynamic_j=dynamic_j,
        joules_per_request=energy_j / served if served else math.nan,
        power_mean_w=_per_second_mean(run, run.power_w, lambda _: math.nan),
        reconfigurations=count_changes(run.steps),
        infeasible_steps=sum(
            step.status == "infeasible" or (step.status is None and not step.stages)
            for step in run.decisions
        ),
        decisions=len(run.decisions),
        decision_s_median=_percentile(decision_s, 50),
        decision_s_p99=_percentile(decision_s, 99),
        meter=joined_meters(sorted({step.meter for step in run.steps if step.meter})) or None,
        quality=weakest_quality([step.quality for step in run.steps]),
        backend=run.info.backend,
        workload=run.workload_digest or run.info.workload,
        not_copied=tuple(
            name
            for name, digest, known in (
                ("workload", run.workload_digest, run.info.workload),
                ("profile", run.profile_digest, run.info.profile),
            )
            if known and digest is None
        ),
        profile=run.profile_digest or run.info.profile,
        hardware=run.info.hardware,
        settings=dict(run.info.settings),
        amounts=_amounts(run),
        status=run.status,
        stages=len(run.info.stages),
        energy_sla_joules=run.info.settings.get("energy_sla_joules"),
        grams=grams,
        grams_per_million_requests=grams / served * 1e6 if served else math.nan,
        embodied_g=_sum(step.embodied_g for step in run.steps),
        forecasts=forecast_scores(run),
        joules_per_token=_per_token(run, energy_j * total / served if served else math.nan),
        classes=class_metrics(run),
        sites=_sites(run.steps),
        unproven=sum(step.optimality_gap > 0 for step in run.decisions),
        largest_gap=max((step.optimality_gap for step in run.decisions), default=0.0),
        energy_sla_attainment=_mean(
            np.array([step.in_energy_sla for step in run.steps], dtype=np.float64)
        ),
    )


def count_changes(steps: Sequence[Step]) -> int:
    """Steps at which some stage runs something else than in the step before it."""
    configured = [step for step in steps if step.stages]
    return sum(before.label != after.label for before, after in pairwise(configured))


def _offered(run: Run) -> int:
    """Requests offered during the steps, as a log without requests counts them."""
    return int(math.fsum(_known([step.requests for step in run.steps])))


def _amounts(run: Run) -> dict[str, float]:
    """Further quantities of the plans in force, averaged over the requests.

    The log has each as a term of the objective: its weight times its amount.
    """
    found = {}
    requests = _requests_of_steps(run)
    for name in dict.fromkeys(name for step in run.steps for name in step.terms):
        key = QUANTITIES[name].weight_key if name in QUANTITIES else None
        weight = run.info.settings.get(key) if key else None
        if name in IPA_TERMS or not weight:
            continue
        terms = np.array([step.terms.get(name, math.nan) for step in run.steps])
        known = ~np.isnan(terms) & (requests > 0)
        mean = float(np.average(terms[known], weights=requests[known])) if known.any() else math.nan
        found[name] = mean / float(weight)
    return found


def _per_token(run: Run, energy_j: float) -> float:
    """Joules over the tokens that its requests are answered with.

    Args:
        run: the run.
        energy_j: joules, as if every request had been answered.
    """
    tokens: dict[str, float] = {}
    for step, requests in zip(run.steps, _requests_of_steps(run), strict=True):
        if requests > 0:
            for stage in step.stages:
                of_step = requests * stage.tokens_per_request
                tokens[stage.node_name] = tokens.get(stage.node_name, 0.0) + of_step
    total = math.fsum(each for each in tokens.values() if not math.isnan(each))
    return energy_j / total if total > 0 else math.nan


def _requests_of_steps(run: Run) -> Floats:
    """Requests sent during each step."""
    if run.tally is not None:
        sent = np.concatenate([[0.0], np.cumsum(run.offered_rps)])
        edges = [
            (int(step.start_s), min(math.ceil(step.end_s), len(sent) - 1)) for step in run.steps
        ]
        return np.array([sent[end] - sent[min(start, end)] for start, end in edges])
    if len(run.requests) == 0:
        return np.array([step.requests for step in run.steps])
    sending_s = np.sort(run.requests.sending_s)
    ends = [np.searchsorted(sending_s, (step.start_s, step.end_s)) for step in run.steps]
    return np.array([end - start for start, end in ends], dtype=np.float64)


def _over_time(run: Run, value: Callable[[Step], float]) -> float:
    """Mean over the workload, each step weighted by its time in it; steps without a value left out.

    The drain belongs to no second of the workload and has no weight.
    """
    values = np.array([value(step) for step in run.steps])
    weights = np.array(
        [max(0.0, min(step.end_s, run.duration_s) - step.start_s) for step in run.steps]
    )
    known = ~np.isnan(values) & (weights > 0)
    if not known.any():
        return math.nan
    return float(np.average(values[known], weights=weights[known]))


def _per_second_mean(run: Run, series: Floats, otherwise: Callable[[Step], float]) -> float:
    if len(series) == 0:
        return _over_time(run, otherwise)
    return _mean(series[: max(1, math.ceil(run.duration_s))])


def _core_seconds(run: Run) -> float:
    """Core seconds of the run, drain included; its last second counts for as long as it was."""
    if len(run.cores) == 0:
        return _sum(step.cores * step.duration_s for step in run.steps)
    rest_s = run.steps[-1].end_s - (len(run.cores) - 1) if run.steps else 1.0
    return float(run.cores[:-1].sum() + run.cores[-1] * min(1.0, max(0.0, rest_s)))


def _joules(run: Run, part: str) -> float:
    return _sum(getattr(stage, part) for step in run.steps for stage in step.stages)


def _sum(values: Any) -> float:
    """The sum; NaN if there is nothing to add or any part is unknown."""
    parts = list(values)
    return float(math.fsum(parts)) if parts else math.nan


def _known(values: Sequence[float]) -> Floats:
    array = np.array(values, dtype=np.float64)
    return array[~np.isnan(array)]


def _percentile(values: Floats, q: float) -> float:
    return float(np.percentile(values, q)) if len(values) else math.nan


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
