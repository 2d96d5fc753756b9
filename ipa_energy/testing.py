"""Fakes for tests, yours and ours: a backend, a meter, and a run folder without any of the three.

::

    BACKENDS["fake"] = Named("scripted", lambda setting: FakeBackend(setting).serving)
    run_experiment(experiment, backend="fake")            the whole runner over a scripted world

    FakeMeter(power_w=10.0)                               a meter that draws what you say
    write_fake_run(path, energy_weight=2.0)               a plausible run folder, nothing simulated

Joules of the fake backend and the fake run are labelled estimates of a meter called ``fake``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipa_energy.arrays import Counts, Floats
from ipa_energy.meters.base import CounterMeter, Reading
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.plan_building import plan_of
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.stage_columns import StageRules
from ipa_energy.records import Allocation, Option, Provenance, Quality, Stage
from ipa_energy.runlog.record import Interval, RunInfo, taken
from ipa_energy.runlog.writer import RunLog
from ipa_energy.serving.base import Resumes, Serving, Setting, VirtualClock
from ipa_energy.serving.deployment import (
    Decision,
    DeployedStage,
    Deployment,
    StageState,
    changed_stages,
    deployment_of,
)
from ipa_energy.serving.live_joules import dynamic_joules_at, options_of
from ipa_energy.serving.served import Requests, Served

FAKE = "fake"


@dataclass(slots=True)
class _Replicas:
    """Some replicas of one option: ready from one time on, leaving from another."""

    stage: str
    option: Option
    count: int
    ready_at_s: float
    leaves_at_s: float = math.inf
    failed: int = 0


class FakeBackend:
    """A :class:`~ipa_energy.serving.base.Backend` whose world is scripted; time is virtual.

    Every request is answered ``latency_s`` after it was sent, whatever is deployed. New replicas
    are ready ``ready_s`` after :meth:`deploy`; those of another option serve until then.

    Args:
        setting: what serves at first, and the load that arrives.
        resumes: how a killed run goes on.
        ready_s: seconds until new replicas are ready.
        latency_s: seconds from sending to answer.
        faults: name of a method → what its next calls raise, in order; None lets one pass.
        running: what is there at the beginning; default ``setting.start``.
        joules_ratio: what a stage's variant really spends in a window that ends at some second,
            relative to its profile: ``joules_ratio(stage, variant, end_s)``; default 1.

    Attributes:
        clock: the time; waiting is what makes it pass.
        deploys: (second, what was wanted) of every call of :meth:`deploy` that did not fail.
    """

    name = FAKE

    def __init__(
        self,
        setting: Setting,
        *,
        resumes: Resumes = "replay",
        ready_s: float = 2.0,
        latency_s: float = 0.25,
        faults: Mapping[str, Sequence[Exception | None]] | None = None,
        running: Deployment | None = None,
        joules_ratio: Callable[[str, str, float], float] | None = None,
    ) -> None:
        self._ratio = joules_ratio or (lambda _stage, _variant, _end_s: 1.0)
        self.resumes = resumes
        self.clock = VirtualClock(setting.resumed_at_s if resumes == "adopt" else 0.0)
        self.deploys: list[tuple[float, Deployment]] = []
        self._stages = setting.stages
        self._load = setting.load
        self._ready_s, self._latency_s = ready_s, latency_s
        self._faults = {name: list(errors) for name, errors in (faults or {}).items()}
        self._begin_s = self._collected_s = self.clock.now_s
        self._requests = 0
        self._begins_with = setting.start if running is None else running
        self._replicas = [
            _Replicas(stage.stage, stage.option, stage.replicas, -math.inf)
            for stage in self._begins_with
        ]

    @property
    def serving(self) -> Serving:
        """Itself, its load and its clock, as the runner gets them."""
        return Serving(self, self._load, self.clock)

    def lose(self, stage: str, count: int) -> None:
        """``count`` replicas of a stage die; the next :meth:`deploy` replaces them."""
        mine = next(found for found in self._replicas if found.stage == stage)
        mine.count -= count
        mine.failed += count

    def deploy(self, wanted: Deployment) -> None:
        """Start what is missing, let go of what is not wanted."""
        self._fail_if_told("deploy")
        now_s = self.clock.now_s
        self.deploys.append((now_s, wanted))
        for stage in wanted:
            self._move(stage, now_s)

    def _move(self, stage: DeployedStage, now_s: float) -> None:
        """Replicas of what is wanted start or go; those of other options serve until they do."""
        mine = [found for found in self._replicas if found.stage == stage.stage]
        same = [found for found in mine if found.option.label == stage.option.label]
        missing = stage.replicas - sum(found.count for found in same)
        ready_at_s = now_s + self._ready_s if missing > 0 else now_s
        for found in mine:
            found.failed = 0
            if found not in same:
                found.leaves_at_s = min(found.leaves_at_s, ready_at_s)
        if missing > 0:
            self._replicas.append(_Replicas(stage.stage, stage.option, missing, ready_at_s))
        for found in reversed(same):
            going = min(found.count, max(0, -missing))
            found.count -= going
            missing += going

    def wanted(self) -> Deployment:
        """What was deployed last, or what runs from the beginning."""
        return self.deploys[-1][1] if self.deploys else self._begins_with

    def deployed(self) -> tuple[StageState, ...]:
        """What is there now; what leaves drains for as long as a request takes."""
        self._fail_if_told("deployed")
        now_s = self.clock.now_s
        gone_s = now_s - self._latency_s
        self._replicas = [found for found in self._replicas if found.leaves_at_s > gone_s]
        states = []
        for found in self._replicas:
            phase = "ready" if found.ready_at_s <= now_s else "starting"
            phase = phase if now_s < found.leaves_at_s else "draining"
            counts: dict[str, Any] = {phase: found.count, "failed": found.failed}
            states.append(StageState(found.stage, found.option, **counts))
        return tuple(states)

    def received_rps(self, window_s: int) -> Counts:
        """What the load's trace says of the last seconds, as far as this backend was there."""
        self._fail_if_told("received_rps")
        now_s = int(self.clock.now_s)
        trace = np.empty(0, dtype=np.int64) if self._load.trace is None else self._load.trace
        return trace[max(math.ceil(self._begin_s), now_s - window_s) : now_s]

    def collect(self, until_s: float) -> Served:
        """Everything that was answered since the last call."""
        self._fail_if_told("collect")
        start_s, latency_s = self._collected_s, self._latency_s
        first_s = max(self._begin_s, start_s - latency_s)
        sending_s = self._load.sending_s(first_s, until_s - latency_s)
        end_s = until_s if until_s < math.inf else max([start_s, *(sending_s + latency_s)])
        self._collected_s = end_s
        ids = np.arange(self._requests, self._requests + len(sending_s))
        self._requests += len(sending_s)
        later = np.repeat(sending_s[:, None], len(self._stages), axis=1)
        seconds = math.ceil(end_s - start_s)
        figures = [self._watts_and_joules(stage, end_s) for stage in self._stages]
        held_w, spent_j = np.array(figures).T
        cores = sum(found.count * found.option.cpu_cores for found in self._replicas)
        return Served(
            start_s=start_s,
            end_s=end_s,
            requests=Requests(
                request_id=ids,
                sending_s=sending_s,
                done_s=sending_s + latency_s,
                dropped_at=np.full(len(ids), -1),
                queued_s=later,
                started_s=later,
                served_s=later + latency_s,
            ),
            idle_j=held_w * (end_s - start_s),
            dynamic_j=spent_j * len(ids),
            power_w=np.full(seconds, held_w.sum()),
            cores=np.full(seconds, float(cores)),
            in_flight=len(self._load.sending_s(max(first_s, until_s - latency_s), until_s)),
            meter=FAKE,
            quality="estimated",
        )

    def close(self) -> None:
        """Nothing to release."""

    def _watts_and_joules(self, stage: Stage, end_s: float) -> tuple[float, float]:
        """Watts that a stage's replicas hold, and joules of a request, which is served alone."""
        held_w = spent_j = 0.0
        for found in self._replicas:
            if found.stage != stage.name:
                continue
            option = found.option
            profiled = options_of(stage, option.variant, option.allocation)
            ratio = self._ratio(stage.name, option.variant, end_s)
            held_w += ratio * found.count * profiled[0].idle_power_w
            spent_j += ratio * dynamic_joules_at(profiled, 1.0)
        return held_w, spent_j

    def _fail_if_told(self, method: str) -> None:
        errors = self._faults.get(method, [])
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error


class FakeMeter(CounterMeter):
    """A :class:`~ipa_energy.meters.base.Meter` that draws a power you choose.

    Args:
        power_w: constant watts, or a function from seconds since construction to joules so far.
        clock: seconds, increasing; inject one to script windows without waiting.
        quality: what the figures claim to be.
        min_window_s: smallest useful window it claims.
    """

    name = FAKE
    may_rest = True

    def __init__(
        self,
        power_w: float | Callable[[float], float] = 10.0,
        *,
        clock: Callable[[], float] = time.perf_counter,
        quality: Quality = "measured",
        min_window_s: float = 0.01,
    ) -> None:
        self.quality = quality
        self.min_window_s = min_window_s
        self._clock = clock
        self._start_s = clock()
        self._power_w = power_w

    def read(self) -> Reading:
        """Joules since construction, as counter ``fake``."""
        now_s = self._clock()
        elapsed_s = now_s - self._start_s
        power_w = self._power_w
        joules = power_w(elapsed_s) if callable(power_w) else power_w * elapsed_s
        return Reading(now_s, {FAKE: joules})


INTERVAL_S = 10
START_TIME_S = 1_700_000_000.0
NODES = ("yolo", "resnet-human")
_VARIANTS = (
    (("yolov5n", 0.457, 0.05, 0.9), ("yolov5s", 0.568, 0.11, 2.1), ("yolov5m", 0.641, 0.26, 4.9)),
    (
        ("resnet18", 0.698, 0.03, 0.4),
        ("resnet34", 0.733, 0.05, 0.8),
        ("resnet50", 0.761, 0.07, 1.1),
    ),
)


def _option(variant: str, accuracy: float, latency_s: float, joules: float, batch: int) -> Option:
    batch_s = latency_s * (0.4 + 0.6 * batch)
    return Option(
        variant=variant,
        allocation=Allocation.of(1.0),
        batch=batch,
        latency_s=batch_s,
        latency_avg_s=batch_s,
        latency_p99_s=batch_s,
        throughput_rps=batch / batch_s,
        accuracy=accuracy,
        dynamic_energy_j=joules * (0.7 + 0.3 / batch),
        idle_power_w=1.5,
        provenance=Provenance(meter="fake", quality="estimated", trials=3, ci95_j=0.1 * joules),
    )


def fake_stages() -> tuple[Stage, ...]:
    """Two stages of three variants at batches 1, 2 and 4."""
    return tuple(
        Stage(
            name=name,
            node_name=node,
            options=tuple(_option(*variant, batch) for variant in variants for batch in (1, 2, 4)),
        )
        for name, node, variants in zip(("crop", "classification"), NODES, _VARIANTS, strict=True)
    )


def fake_intervals(
    *, seconds: int = 120, energy_weight: float = 0.0, seed: int = 1, drop_share: float = 0.01
) -> Iterator[Interval]:
    """The intervals of a made-up run, initial configuration and drain included.

    Args:
        seconds: length of the workload, a multiple of 10 s.
        energy_weight: above 0, cheaper variants and larger batches are chosen.
        seed: of the requests' times.
        drop_share: share of the requests that the first stage drops.
    """
    rng = np.random.default_rng(seed)
    time_s = np.arange(seconds)
    load = 12 + 8 * np.sin(time_s / 40.0) + np.where(time_s % 97 < 12, 10, 0)
    counts = rng.poisson(np.maximum(load, 1))
    sending_s = np.sort(np.repeat(time_s, counts) + rng.random(int(counts.sum())))
    sending_s = np.minimum(sending_s, seconds - 1e-6)
    requests = _requests(sending_s, rng, energy_weight, drop_share)
    plan = _plan(float(counts[0]), energy_weight)
    order = np.argsort(requests.done_s, kind="stable")
    drained_s = float(max(requests.done_s.max(), seconds)) + 0.001
    for start_s in range(0, seconds + INTERVAL_S, INTERVAL_S):
        end_s = float(start_s + INTERVAL_S) if start_s < seconds else drained_s
        done = requests.done_s[order]
        inside = order[(done >= start_s) & (done < end_s)]
        sent = int(np.sum(sending_s < end_s))
        decision, changed = None, tuple[str, ...]()
        if 0 < start_s < seconds:
            seen = counts[max(0, start_s - 60) : start_s]
            before, plan = plan, _plan(float(seen[-10:].max()), energy_weight)
            decision = _decision(plan, seen.tolist(), rng)
            changed = tuple(changed_stages(deployment_of(plan), deployment_of(before)))
        yield Interval(
            timestep_s=float(start_s),
            plan=plan,
            decision=decision,
            served=_served(requests, inside, plan, (float(start_s), end_s), sent),
            reconfigured=changed,
        )


def _decision(plan: Plan, seen: list[int], rng: np.random.Generator) -> Decision:
    return Decision(
        status="optimal",
        method="pareto",
        monitored_load_rps=tuple(seen),
        predicted_load_rps=plan.load_rps,
        planned_load_rps=plan.load_rps,
        decision_s=float(rng.gamma(4.0, 0.00005)),
    )


def _plan(load_rps: float, energy_weight: float) -> Plan:
    load_rps = max(1.0, load_rps)
    best = 1 if energy_weight > 0 else 2
    size = (best if load_rps < 20 else best - 1) * 3 + (1 if energy_weight > 0 else 0)
    picks = []
    for stage in fake_stages():
        option = stage.options[size]
        picks.append((stage, option, int(np.ceil(load_rps / option.throughput_rps))))
    settings = Settings(
        alpha=2.0,
        beta=0.05,
        gamma=1e-6,
        energy_weight=energy_weight,
        latency_sla_s=1.0,
        scaling_cap=30,
        batching_cap=4,
    )
    return plan_of(picks, settings, (StageRules(),) * len(picks), load_rps)


def _requests(
    sending_s: Floats, rng: np.random.Generator, energy_weight: float, drop_share: float
) -> Requests:
    count = len(sending_s)
    scale = 0.8 if energy_weight > 0 else 1.0
    queue_s = rng.gamma(1.5, 0.05 * scale, (count, 2))
    serve_s = rng.gamma(20.0, [0.011 * scale, 0.004 * scale], (count, 2))
    steps = np.cumsum(np.stack([queue_s, serve_s], axis=2).reshape(count, 4), axis=1)
    times = np.round(sending_s[:, None] + steps, 6)
    sending_s = np.round(sending_s, 6)
    dropped = rng.random(count) < drop_share
    never = np.where(dropped[:, None], np.nan, 0.0)
    queued = np.stack([sending_s, times[:, 1]], axis=1)
    queued[:, 1] += never[:, 0]
    return Requests(
        request_id=np.arange(count),
        sending_s=sending_s,
        done_s=np.where(dropped, sending_s + 1.0, times[:, 3]),
        dropped_at=np.where(dropped, 0, -1),
        queued_s=queued,
        started_s=times[:, [0, 2]] + never,
        served_s=times[:, [1, 3]] + never,
    )


def _served(
    requests: Requests, inside: Counts, plan: Plan, window: tuple[float, float], sent: int
) -> Served:
    start_s, end_s = window
    seconds = int(np.ceil(end_s - start_s))
    left = taken(requests, inside)
    answered = left.dropped_at < 0
    idle_w = np.array([stage.replicas * stage.option.idle_power_w for stage in plan.stages])
    dynamic_j = np.array([stage.option.dynamic_energy_j for stage in plan.stages])
    per_second = np.bincount(
        np.floor(left.done_s[answered] - start_s).astype(np.int64), minlength=seconds
    )
    return Served(
        start_s=start_s,
        end_s=end_s,
        requests=left,
        idle_j=idle_w * (end_s - start_s),
        dynamic_j=dynamic_j * float(answered.sum()),
        power_w=idle_w.sum() + per_second[:seconds] * dynamic_j.sum(),
        cores=np.full(seconds, plan.cost_cores),
        in_flight=int(sent - np.sum(requests.done_s < end_s)),
        meter="fake",
        quality="estimated",
    )


def fake_info(*, seconds: int = 120, energy_weight: float = 0.0, name: str = "") -> RunInfo:
    """What ``run.json`` says of such a run."""
    return RunInfo(
        name=name or f"energy weight {energy_weight:g}",
        stages=("crop", "classification"),
        nodes=NODES,
        start_time_s=START_TIME_S,
        duration_s=float(seconds),
        interval_s=float(INTERVAL_S),
        latency_sla_s=1.0,
        seed=1,
        meter="fake",
        quality="estimated",
        workload="made up",
        profile="made up",
        hardware="made up",
        settings={"alpha": 2.0, "beta": 0.05, "gamma": 1e-6, "energy_weight": energy_weight},
        versions={"ipa-energy": "0"},
    )


def fake_config() -> str:
    """The part of ``0.yaml`` that IPA's parser needs."""
    nodes = "".join(f"  - node_name: {node}\n" for node in NODES)
    return f"nodes:\n{nodes}adaptation_interval: {INTERVAL_S}\naccuracy_method: sum\n"


def write_fake_run(
    path: Path, *, seconds: int = 120, energy_weight: float = 0.0, seed: int = 1, name: str = ""
) -> Path:
    """A complete run folder; arguments as in :func:`fake_intervals`."""
    log = RunLog.create(
        path,
        config_yaml=fake_config(),
        info=fake_info(seconds=seconds, energy_weight=energy_weight, name=name),
        attachments={"workload.csv": f"made up {seconds} {seed}\n", "profile.csv": "made up\n"},
    )
    for interval in fake_intervals(seconds=seconds, energy_weight=energy_weight, seed=seed):
        log.append_interval(interval)
    log.complete({})
    return path
