"""One adaptation step as the log has it: IPA's keys, and energy beside them.

IPA's parser drops every step after the first node key that it does not know, without a word. So
``config`` holds IPA's seven keys and nothing else, and the joules of a node stand beside it under
``energy``. Logs written by a patched IPA have them inside ``config``; both are read.

Rounding: seconds to the microsecond, joules and watts to six decimals; figures of the plan
(latency, throughput, accuracy) as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from ipa_energy.as_json import as_json, or_none
from ipa_energy.optimizer.plan import Plan, StagePlan, part_json
from ipa_energy.optimizer.problem import within
from ipa_energy.records import EVERY_CLASS, QUALITIES, Allocation, Option, Quality, weakest_quality
from ipa_energy.runlog.live_step import LiveStep, decided_live, parse_live, served_live
from ipa_energy.runlog.record import Interval
from ipa_energy.serving.deployment import Switching
from ipa_energy.serving.observed import ClassWork, added
from ipa_energy.serving.served import Served
from ipa_energy.serving.tally import Tally, merged

NAN = math.nan
TALLY = "requests_counted"
"""Key of what a step's requests came to, where their times are not logged."""

WORK = "request_classes"
"""Key of what was done for each class of requests, stage by stage."""

IPA_TERMS = {
    "accuracy": "accuracy_objective",
    "cost": "resource_objective",
    "batch": "batch_objective",
    "energy": "energy_objective",
    "objective": "objective",
}
"""Term → key of a step; those of further quantities stand under ``terms``."""


def number(value: object) -> float:
    """A logged number; NaN for null, for what is missing, and for what is not a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return NAN


@lru_cache(maxsize=4096)
def _shared(value: float) -> float:
    """The same number for equal ones: a log of days has millions of loads."""
    return float(value)


def _load(value: object) -> float:
    return _shared(value) if type(value) in (int, float) else NAN


def as_quality(value: object) -> Quality | None:
    """A logged quality; None if it is none of the three."""
    return next((quality for quality in QUALITIES if quality == value), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStep:
    """What one stage ran during a step; NaN and None where the log does not say.

    Attributes:
        node_name: IPA's name of the stage's server.
        variant, cpu_cores, gpu_share, batch, replicas: the configuration; cores of one replica.
        allocation: label of what one replica holds, where cores and GPU share do not say it all.
        latency_s: l(o) as planned.
        throughput_rps: n·h(o), all replicas.
        accuracy: score in the objective.
        accuracy_raw: the variant's accuracy as profiled.
        joules_per_request, power_w: as planned at the planned load.
        quality, meter: provenance of these.
        idle_j, dynamic_j: joules of the whole step as served.
        parts: of a stage that ran several options at once, each with its share; the fields above
            are then the largest share's, with all replicas. Empty for one option.
        tokens_per_request: of a language model's answers, as profiled, mean over its requests.
        shares: of a part: class of requests → share of all the stage's requests.
    """

    node_name: str
    variant: str
    cpu_cores: float
    batch: int
    replicas: int
    latency_s: float
    throughput_rps: float
    accuracy: float
    gpu_share: float = 0.0
    allocation: str | None = None
    accuracy_raw: float = NAN
    joules_per_request: float = NAN
    power_w: float = NAN
    quality: Quality | None = None
    meter: str | None = None
    idle_j: float = NAN
    dynamic_j: float = NAN
    parts: tuple[StageStep, ...] = ()
    tokens_per_request: float = NAN
    shares: tuple[tuple[str, float], ...] = ()

    @property
    def cores(self) -> float:
        """Cores reserved by all replicas."""
        if self.parts:
            return sum(part.cores for part in self.parts)
        return self.replicas * self.cpu_cores

    @property
    def label(self) -> str:
        """``yolov5n 2c b4 x3``."""
        if self.parts:
            shares = [sum(share for _, share in part.shares) for part in self.parts]
            each = zip(self.parts, shares, strict=True)
            return " + ".join(f"{part.label} {100 * share:.3g}%" for part, share in each)
        plain = Allocation.of(self.cpu_cores, self.gpu_share).label
        return f"{self.variant} {self.allocation or plain} b{self.batch} x{self.replicas}"

    def is_of(self, option: Option) -> bool:
        """True if it is ``option`` that was logged here."""
        mine = (self.variant, self.cpu_cores, self.gpu_share, self.batch)
        return mine == (
            option.variant, option.cpu_cores, option.gpu_share, option.batch
        ) and self.allocation in (None, option.allocation.label)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision and the time it governed; the first one is the initial configuration.

    Attributes:
        start_s, end_s: the time it governed, drain included for the last one.
        stages: empty if IPA logged no configuration (its infeasible steps).
        status: ``initial``, or that of the decision (``optimal``, ``feasible``, ``infeasible``,
            ``kept``); None if the log has none.
        method: name of the solver, None if unknown.
        accuracy: A of the objective; NaN if unknown.
        accuracy_raw: the same of the raw accuracies.
        terms: ``accuracy``, ``cost``, ``batch``, ``energy``, those of further quantities, and
            ``objective`` as logged, weights included, penalties positive; NaN if unknown.
        monitored_load_rps, predicted_load_rps, planned_load_rps: what the decision knew.
        decision_s: wall time of the decision; NaN if there was none.
        reconfigured: names of the stages it changed.
        energy_j: joules of the step as served; NaN without energy.
        quality, meter: provenance of ``energy_j``.
        conflict: why it was infeasible.
        amounts: quantity or resource that is weighted or capped → the plan's amount, no weight in
            it; those with figures of their own above are not here.
        trouble: what the backend failed at; None if nothing.
        gap_s: seconds before it in which nobody decided or logged.
        optimality_gap: how much better another plan might have been, as a share of the objective,
            where the time for the decision was up.
        requests: offered during it, where a log without requests of its own says so; else NaN.
        in_energy_sla: whether its joules over the requests that left the pipeline in it were within
            the energy SLA; None without one, or without joules.
        signals: what the plan knew beside the load: ``g_per_kwh`` …
        grams: of CO2 equivalent for ``energy_j``; NaN where nobody said what a joule emits.
        embodied_g: of making the hardware, while it was held; NaN where the profile has none.
        sites: site → (joules, grams), where the pipeline ran in several places.
        switching: what the decision expected of its change: ``loading_joules``, ``held_joules``,
            ``late_s``, ``penalty`` (in the objective's unit), and ``loaded_joules``, what loading
            replicas took in fact, NaN where nobody knows; empty where changes played no part.
        forecast: quantiles of the interval's load as they were planned with: ``levels``,
            ``peak_rps`` (the largest second), ``mean_rps``; empty where none were logged.
        overrun_rps: load beyond the plan before, for which its decision came early; NaN if it was
            due.
        live: what only a live run has; None for others.
        tally: of the requests that left in it, where their times are not logged; else None.
        work: by class of requests; empty where nobody tells them apart.
    """

    start_s: float
    end_s: float
    stages: tuple[StageStep, ...]
    status: str | None
    method: str | None
    accuracy: float
    accuracy_raw: float
    terms: Mapping[str, float]
    monitored_load_rps: tuple[float, ...]
    predicted_load_rps: float
    planned_load_rps: float
    decision_s: float
    reconfigured: tuple[str, ...]
    energy_j: float
    quality: Quality | None
    meter: str | None
    conflict: str | None
    amounts: Mapping[str, float] = field(default_factory=dict)
    trouble: str | None = None
    gap_s: float = 0.0
    optimality_gap: float = 0.0
    requests: float = NAN
    in_energy_sla: bool | None = None
    signals: Mapping[str, float] = field(default_factory=dict)
    grams: float = NAN
    embodied_g: float = NAN
    sites: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    switching: Mapping[str, float] = field(default_factory=dict)
    forecast: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    overrun_rps: float = NAN
    live: LiveStep | None = None
    tally: Tally | None = None
    work: tuple[ClassWork, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the time it governed."""
        return self.end_s - self.start_s

    @property
    def cores(self) -> float:
        """Cores reserved by all stages; NaN if the log has no configuration."""
        return sum(stage.cores for stage in self.stages) if self.stages else NAN

    @property
    def label(self) -> str:
        """``yolov5n 2c b4 x3 | resnet18 1c b2 x1``."""
        return " | ".join(stage.label for stage in self.stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An interval that an earlier, killed run finished.

    Attributes:
        start_s, end_s: its window.
        requests: how many left the pipeline in it.
        step: the decision that began it; None if it continues the one before.
    """

    start_s: float
    end_s: float
    requests: int
    step: Step | None


def further_terms(terms: Mapping[str, float]) -> dict[str, float]:
    """Those of quantities that IPA does not know."""
    return {name: value for name, value in terms.items() if name not in IPA_TERMS}


def log_entry(interval: Interval) -> dict[str, Any]:
    """The timestep of ``adaptation_log.json`` for an interval that begins a step."""
    plan, decision, served = interval.plan, interval.decision, interval.served
    # A plan that is kept was never scored at this load.
    decided = decision is not None and decision.status not in ("infeasible", "kept")
    terms = {**plan.terms, "objective": plan.objective}
    entry: dict[str, Any] = {
        "duration": or_none(round(decision.decision_s, 6)) if decision else None,
        "config": {stage.node_name: _ipa_config(stage) for stage in plan.stages},
        **{key: or_none(terms[term]) if decided else None for term, key in IPA_TERMS.items()},
        "time_interval": _whole(interval.timestep_s),
        "monitored_load": [_whole(load) for load in decision.monitored_load_rps]
        if decision
        else [0],
        "predicted_load": _whole(decision.predicted_load_rps) if decision else 0,
        "planned_load": _whole(decision.planned_load_rps) if decision else None,
        "status": decision.status if decision else "initial",
        "method": decision.method if decision else None,
        "conflict": decision.conflict if decision else None,
        "reconfigured": list(interval.reconfigured),
        "accuracy": plan.accuracy,
        "accuracy_raw": plan.accuracy_raw,
        "energy": {stage.node_name: _node_energy(stage) for stage in plan.stages},
    }
    if decided and (further := further_terms(plan.terms)):
        entry["terms"] = {name: or_none(value) for name, value in further.items()}
    if plan.moment.signals:
        entry["signals"] = {name: round(value, 9) for name, value in plan.moment.signals.items()}
    if plan.cuts:
        entry["gpus"] = plan.cut_gpus()
    if plan.amounts:
        entry["amounts"] = {name: or_none(value) for name, value in plan.amounts.items()}
    if decision and decision.trouble:
        entry["trouble"] = decision.trouble
    if decision and decision.forecast:
        entry["forecast"] = {name: list(values) for name, values in decision.forecast.items()}
    if decision and decision.gap:
        entry["optimality_gap"] = or_none(decision.gap)
    sla_j = _energy_sla_j(plan)
    if sla_j is not None:
        capped = decision.capped_load_rps if decision else None
        planned_at = None if capped is None else round(capped, 6)
        entry["energy_sla"] = {"joules": sla_j, "planned_at_rps": planned_at, "requests": 0}
    if decision and decision.switching:
        entry["switching"] = {**_switching(decision.switching), "loaded_joules": 0.0}
    if decision and decision.overrun_rps is not None:
        entry["overrun_rps"] = _rounded(decision.overrun_rps)
    if interval.gap_s:
        entry["gap_s"] = round(interval.gap_s, 6)
    return with_window(decided_live(entry, interval), served)


def _switching(expected: Switching) -> dict[str, Any]:
    return {
        "loading_joules": _rounded(expected.loading_j),
        "held_joules": _rounded(expected.held_j),
        "late_s": _rounded(expected.late_s),
        "penalty": _rounded(expected.penalty),
    }


def _energy_sla_j(plan: Plan) -> float | None:
    checks = plan.certificate.checks
    return next((check.limit for check in checks if check.constraint == "energy_sla_joules"), None)


def with_window(entry: dict[str, Any], served: Served) -> dict[str, Any]:
    """``entry`` with one more served window added to its joules and its end."""
    energy = {node: dict(figures) for node, figures in entry["energy"].items()}
    for index, figures in enumerate(energy.values()):
        for key, joules in (("idle_joules", served.idle_j), ("dynamic_joules", served.dynamic_j)):
            figures[key] = _add(figures.get(key, 0.0), float(joules[index]))
    totals = {
        key: _total([figures[key] for figures in energy.values()])
        for key in ("idle_joules", "dynamic_joules")
    }
    energy_j = _total(list(totals.values()))
    if "energy_sla" in entry:
        entry = entry | {"energy_sla": _held(entry["energy_sla"], served, energy_j)}
    if served.tally is not None:
        parts = [Tally.from_json(entry[TALLY])] if TALLY in entry else []
        entry = entry | {TALLY: merged([*parts, served.tally]).to_json()}
    if served.work:
        before = _work(entry)
        entry = entry | {WORK: as_json([one.rounded() for one in added([*before, *served.work])])}
    if "switching" in entry:
        loaded_j = _add(
            entry["switching"]["loaded_joules"],
            math.nan if served.loading_j is None else served.loading_j,
        )
        entry = entry | {"switching": {**entry["switching"], "loaded_joules": loaded_j}}
    if served.grams is not None:
        grams = entry.get("grams", 0.0)
        entry = entry | {
            "grams": None if grams is None else or_none(round(grams + served.grams, 9))
        }
    if served.sites:
        entry = entry | {"sites": sites_json(served, entry.get("sites"))}
    if served.embodied_g is not None:
        entry = entry | {"embodied_g": round(entry.get("embodied_g", 0.0) + served.embodied_g, 9)}
    return served_live(entry, served) | {
        "end_s": round(served.end_s, 6),
        "energy": energy,
        **totals,
        "energy_joules": energy_j,
        "energy_quality": weakest_quality(
            [as_quality(entry.get("energy_quality")), served.quality]
        ),
        "energy_meter": served.meter or entry.get("energy_meter"),
        "in_flight": served.in_flight,
    }


def _work(entry: Mapping[str, Any]) -> tuple[ClassWork, ...]:
    return tuple(ClassWork(**one) for one in entry.get(WORK) or ())


def sites_json(
    served: Served, before: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, dict[str, float]]:
    """Site → its joules and grams, added to what was before."""
    nothing = {"joules": 0.0, "grams": 0.0}
    sums = {site.name: (before or {}).get(site.name, nothing) for site in served.sites}
    return {
        site.name: {
            "joules": round(sums[site.name]["joules"] + site.joules, 6),
            "grams": round(sums[site.name]["grams"] + site.grams, 9),
        }
        for site in served.sites
    }


def _held(sla: Mapping[str, Any], served: Served, energy_j: float | None) -> dict[str, Any]:
    """Whether a step kept the energy SLA so far; without a request as if it had served one."""
    requests = sla["requests"] + served.left
    joules = None if energy_j is None else _rounded(energy_j / max(1, requests))
    return {
        **sla,
        "requests": requests,
        "joules_per_request": joules,
        "inside": None if joules is None else within(joules, sla["joules"]),
    }


def _ipa_config(stage: StagePlan) -> dict[str, Any]:
    return {
        "cpu": _whole(stage.option.cpu_cores),
        "replicas": stage.replicas,
        "batch": stage.option.batch,
        "variant": stage.option.variant,
        "latency": stage.option.latency_s,
        "accuracy": stage.accuracy,
        "throughput": stage.capacity_rps,
    }


def _node_energy(stage: StagePlan) -> dict[str, Any]:
    held = stage.option.allocation
    plain = Allocation.of(held.cpu_cores, held.gpu_share)
    tokens = stage.requests_per_input * stage.tokens_per_request
    return {
        "joules_per_request": _rounded(stage.joules_per_request),
        "power_w": _rounded(stage.power_w),
        "energy_quality": stage.quality,
        "energy_meter": stage.meter,
        "gpu_share": stage.option.gpu_share,
        "accuracy_raw": stage.option.accuracy,
        **({} if math.isnan(tokens) else {"tokens_per_request": _rounded(tokens)}),
        **({"allocation": held.label} if held.label != plain.label else {}),
        **({"parts": [part_json(part) for part in stage.parts]} if stage.is_wide else {}),
    }


def _whole(value: float) -> float | int | None:
    """An int where the number is one, as IPA writes loads, cores and seconds; None for NaN."""
    return int(value) if float(value).is_integer() else or_none(float(value))


def _rounded(value: float) -> float | None:
    return or_none(round(value, 6))


def _add(sum_j: float | None, joules: float) -> float | None:
    return None if sum_j is None else _rounded(sum_j + joules)


def _total(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return round(sum(known), 6) if len(known) == len(parts) else None


def start_of(timestep: str, entry: Mapping[str, Any]) -> float:
    """When a step began, seconds since the start: on a cluster IPA's keys merely count."""
    seconds = number(entry.get("time_interval"))
    return float(timestep) if math.isnan(seconds) else seconds


def parse_entry(
    timestep: str, entry: Mapping[str, Any], nodes: tuple[str, ...], end_s: float
) -> Step:
    """A timestep of any adaptation log: ours, IPA's, a patched IPA's.

    Args:
        timestep: the entry's key (seconds, or IPA's count of steps on a cluster).
        entry: the entry.
        nodes: node names in pipeline order.
        end_s: end of the step if the entry does not say.
    """
    config = entry.get("config") or {}
    energy = entry.get("energy") or {}
    return Step(
        start_s=start_of(timestep, entry),
        end_s=float(entry.get("end_s", end_s)),
        stages=tuple(
            _parse_stage(node, config[node], energy.get(node) or {})
            for node in nodes
            if config.get(node)
        ),
        status=entry.get("status"),
        method=entry.get("method"),
        accuracy=number(entry.get("accuracy")),
        accuracy_raw=number(entry.get("accuracy_raw")),
        terms={
            **{term: number(entry.get(key)) for term, key in IPA_TERMS.items()},
            **{term: number(value) for term, value in (entry.get("terms") or {}).items()},
        },
        monitored_load_rps=tuple(_load(load) for load in entry.get("monitored_load") or ()),
        predicted_load_rps=number(entry.get("predicted_load")),
        planned_load_rps=number(entry.get("planned_load")),
        decision_s=number(entry.get("duration")),
        reconfigured=tuple(entry.get("reconfigured") or ()),
        energy_j=number(entry.get("energy_joules")),
        quality=as_quality(entry.get("energy_quality")),
        meter=entry.get("energy_meter"),
        conflict=entry.get("conflict"),
        amounts={name: number(value) for name, value in (entry.get("amounts") or {}).items()},
        trouble=entry.get("trouble"),
        gap_s=float(entry.get("gap_s", 0.0)),
        optimality_gap=float(entry.get("optimality_gap") or 0.0),
        requests=number(entry.get("requests")),
        in_energy_sla=(entry.get("energy_sla") or {}).get("inside"),
        signals={name: number(value) for name, value in (entry.get("signals") or {}).items()},
        grams=number(entry.get("grams")),
        embodied_g=number(entry.get("embodied_g")),
        sites={
            name: (number(site.get("joules")), number(site.get("grams")))
            for name, site in (entry.get("sites") or {}).items()
        },
        overrun_rps=number(entry.get("overrun_rps")),
        switching={name: number(value) for name, value in (entry.get("switching") or {}).items()},
        forecast={
            name: tuple(number(value) for value in values)
            for name, values in (entry.get("forecast") or {}).items()
        },
        live=parse_live(entry),
        tally=Tally.from_json(entry[TALLY]) if TALLY in entry else None,
        work=_work(entry),
    )


def _parse_stage(node: str, config: Mapping[str, Any], energy: Mapping[str, Any]) -> StageStep:
    figures = {**config, **energy}
    return StageStep(
        node_name=node,
        variant=str(config.get("variant")),
        cpu_cores=number(config.get("cpu")),
        gpu_share=float(figures.get("gpu_share", 0.0)),
        allocation=figures.get("allocation"),
        batch=int(config.get("batch", 1)),
        replicas=int(config.get("replicas", 1)),
        latency_s=number(config.get("latency")),
        throughput_rps=number(config.get("throughput")),
        accuracy=number(config.get("accuracy")),
        accuracy_raw=number(figures.get("accuracy_raw")),
        joules_per_request=number(figures.get("joules_per_request")),
        power_w=number(figures.get("power_w")),
        quality=as_quality(figures.get("energy_quality")),
        meter=figures.get("energy_meter"),
        idle_j=number(figures.get("idle_joules")),
        dynamic_j=number(figures.get("dynamic_joules")),
        parts=tuple(_parse_part(node, part) for part in figures.get("parts") or ()),
        tokens_per_request=number(figures.get("tokens_per_request")),
    )


def _parse_part(node: str, part: Mapping[str, Any]) -> StageStep:
    classes = part.get("request_classes") or {EVERY_CLASS: part.get("share")}
    stage = _parse_stage(node, {**part, "cpu": part.get("cpu_cores")}, {})
    return replace(stage, shares=tuple((str(name), number(each)) for name, each in classes.items()))
