"""What serves a pipeline, what is sent to it, and by which clock: the three roles of a run.

::

    deploy(wanted) ──> Backend ──collect(until)──> Served        requests that left, joules, watts
                        │   ↑
       deployed(),      │   └── LoadSource                       what is sent, and until when
       received_rps() <─┘                                        Clock: now, and waiting

The runner gets all three and builds none (:data:`ipa_energy.registries.BACKENDS` makes them). A
simulation has them in virtual time; a live backend serves in processes or pods of its own while the
runner waits, and its load comes from another process or from the world. A fake stands in
:mod:`ipa_energy.testing`.

Times are seconds since the start of the run. A :class:`Served` reports what *finished* in its
window, so that a run can be written interval by interval and nothing is held back.

What goes wrong is a :class:`~ipa_energy.errors.TryAgainError` (the runner tries again, what runs
goes on) or any other :class:`~ipa_energy.errors.ServingError` (the run stops, what it finished
stays).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from ipa_energy.arrays import Counts, Floats, Mask
from ipa_energy.gpu_partitions import SLICE
from ipa_energy.optimizer.plan import Plan, parts_label
from ipa_energy.records import EVERY_CLASS, Option, Part, Quality, Stage
from ipa_energy.serving.class_work import ClassWork
from ipa_energy.serving.load import ClassesOfRequests
from ipa_energy.serving.observed import AdapterFigures, Spent
from ipa_energy.serving.tally import Tally

if TYPE_CHECKING:  # a process that serves reads no configuration, and starts without its libraries
    from ipa_energy.carbon.run_carbon import RunCarbon
    from ipa_energy.config import PipelineConfig

Resumes = Literal["replay", "adopt"]
"""How a killed run goes on: a simulation serves again with the logged decisions, to the same state;
a live backend takes over what runs and goes on from now."""


@dataclass(frozen=True, slots=True)
class DeployedStage:
    """What one stage is to run, wherever it was decided: by a plan, or by the YAML's start.

    Attributes:
        stage: task name of the stage.
        option: variant, allocation and batch; one of the stage's profiled options.
        replicas: n, at least 1.
        wait_s: planned wait to fill a batch, q = (b − 1)/λ_s; 0 where no plan says it.
        parts: of a stage that runs several options at once, what each runs and its share of the
            requests; the fields above are then the largest share's, with all replicas. Empty for
            one option.
    """

    stage: str
    option: Option
    replicas: int
    wait_s: float = 0.0
    parts: tuple[Part, ...] = ()

    @property
    def lanes(self) -> tuple[DeployedStage, ...]:
        """What each part is to run, as if it were a stage; itself where there is one option."""
        found = [
            DeployedStage(self.stage, part.option, part.replicas, part.wait_s)
            for part in self.parts
        ]
        return tuple(found) or (self,)

    @property
    def shares(self) -> tuple[dict[str, float], ...]:
        """Of each lane: class → share of the stage's requests that are of it and come there.

        One of :data:`~ipa_energy.records.EVERY_CLASS` where all are dealt out alike.
        """
        return tuple(dict(part.shares) for part in self.parts) or ({EVERY_CLASS: 1.0},)

    @property
    def label(self) -> str:
        """``yolov5n 1c b4 x3``; of several options with their shares."""
        return parts_label(self.parts or (Part(self.option, self.replicas),))


IPA_RECONFIGURATION_S = 8.0
"""Time until new replicas serve where nobody measured it; about what IPA's take on its cluster."""


Told = float | Mapping[str, float] | None
"""``reconfiguration_s`` of the YAML: one time for every change, or knob → time; None: as profiled,
for the option's variant and allocation, or :data:`IPA_RECONFIGURATION_S`. So are knobs not named.
"""

IN_PLACE = ("cores", "clock")
"""Knobs that are turned while a replica serves, if their time is told: no other one is started."""


def knob_of(before: Option | None, after: Option) -> str:
    """What changes for a replica, of several things the slowest.

    ``replicas`` (it is one more), ``variant``, ``cores``, ``clock`` (or a power cap) or
    ``partition`` (another slice of a GPU).
    """
    if before is None or (before.variant, before.allocation) == (after.variant, after.allocation):
        return "replicas"
    one, other = dict(before.allocation.resources), dict(after.allocation.resources)
    labels = set(before.allocation.labels) ^ set(after.allocation.labels)
    cores = one.pop("core", 0.0) != other.pop("core", 0.0)
    if any(name.startswith(SLICE) for name in {*one, *other}) and one != other:
        return "partition"
    if before.variant != after.variant or one != other:
        return "variant"
    if not {name for name, _ in labels} <= {"clock_mhz", "power_cap_w"}:
        return "variant"
    return "cores" if cores else "clock"


def ready_after_s(option: Option, told_s: Told, before: Option | None = None) -> float:
    """Seconds from the start of a change until what it brings serves.

    A slice of a GPU is cut before a replica starts on it, so the two times add up.

    Args:
        option: what is to run.
        told_s: see :data:`Told`.
        before: what ran in its place.
    """
    profiled_s = IPA_RECONFIGURATION_S if math.isnan(option.load_s) else option.load_s
    if told_s is None:
        return profiled_s
    if not isinstance(told_s, Mapping):
        return told_s
    start_s = told_s.get("replicas" if knob_of(before, option) == "replicas" else "variant")
    start_s = profiled_s if start_s is None else start_s
    knob = knob_of(before, option)
    if knob == "partition":
        return told_s.get("partition", 0.0) + start_s
    return told_s.get(knob, start_s)


def is_in_place(option: Option, told_s: Told, before: Option | None) -> bool:
    """True if replicas of ``before`` become ``option`` without another one being started."""
    if not isinstance(told_s, Mapping):
        return False
    knob = knob_of(before, option)
    return knob in IN_PLACE and knob in told_s


def replica_start(stages: Sequence[Stage], told_s: Told) -> str:
    """What starting a replica of these stages is taken to need, and who says so, for people."""
    options = [option for stage in stages for option in stage.options]
    if isinstance(told_s, Mapping):
        knobs = ", ".join(f"{knob} {seconds:g} s" for knob, seconds in told_s.items())
        return f"{knobs}, as reconfiguration_s says; else {replica_start(stages, None)}"
    known_s = [ready_after_s(option, told_s) for option in options]
    if told_s is not None:
        source = "as reconfiguration_s says"
    elif any(math.isnan(option.load_s) for option in options):
        source = "as IPA's where the profile has none"
    else:
        source = "as profiled"
    loads_j = [option.load_energy_j for option in options if not math.isnan(option.load_energy_j)]
    joules = f"{_range(loads_j)} J, as profiled" if loads_j else "its joules are not known"
    return f"{_range(known_s)} s, {source}; {joules}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


Deployment = tuple[DeployedStage, ...]
"""What a whole pipeline runs, first stage first."""


def deployment_of(plan: Plan) -> Deployment:
    """What is deployed where ``plan`` is applied."""
    return tuple(
        DeployedStage(
            stage.stage,
            stage.option,
            stage.replicas,
            stage.wait_s,
            stage.parts if len(stage.parts) > 1 else (),
        )
        for stage in plan.stages
    )


@dataclass(frozen=True, slots=True)
class StageState:
    """What of one option of a stage really runs; a stage in the middle of a change has several.

    Attributes:
        stage: task name of the stage.
        option: what these replicas run.
        ready: replicas that take batches.
        starting: replicas that will.
        draining: replicas that finish their batch and go.
        failed: replicas that died or did not start, and are not replaced yet.
        share: of the stage's requests that they are dealt, where several options serve at once.
        starting_for_s: of each of those that start for how long it has; those that are missing have
            begun just now, as far as anybody knows.
    """

    stage: str
    option: Option
    ready: int = 0
    starting: int = 0
    draining: int = 0
    failed: int = 0
    share: float | None = None
    starting_for_s: tuple[float, ...] = ()


def capacity_rps(stages: Sequence[Stage], deployment: Deployment) -> float:
    """Pipeline requests a second that a configuration sustains, all of it ready."""
    return min(
        math.fsum(lane.replicas * lane.option.throughput_rps for lane in run.lanes)
        / stage.requests_per_input
        for stage, run in zip(stages, deployment, strict=True)
    )


def changed_stages(new: Sequence[DeployedStage], running: Sequence[DeployedStage]) -> list[str]:
    """Names of the stages that would not run the same thing any more."""
    return [
        after.stage
        for after, before in zip(new, running, strict=True)
        if not _runs_the_same(after, before)
    ]


def _runs_the_same(after: DeployedStage, before: DeployedStage) -> bool:
    """The same options, replicas and, but for rounding, shares."""
    if len(after.lanes) != len(before.lanes):
        return False
    return all(
        new.replicas == old.replicas
        and _is_same(new.option, old.option)
        and one.keys() == other.keys()
        and all(abs(one[name] - other[name]) < 1e-6 for name in one)
        for new, old, one, other in zip(
            after.lanes, before.lanes, after.shares, before.shares, strict=True
        )
    )


def short_of(wanted: Deployment, states: Sequence[StageState]) -> dict[str, int]:
    """Stage → replicas that neither serve nor start, of those that lack some."""
    short: dict[str, int] = {}
    for stage in (lane for each in wanted for lane in each.lanes):
        there = sum(
            state.ready + state.starting
            for state in states
            if state.stage == stage.stage and _is_same(state.option, stage.option)
        )
        if there < stage.replicas:
            short[stage.stage] = short.get(stage.stage, 0) + stage.replicas - there
    return short


def adopted(states: Sequence[StageState], otherwise: Deployment) -> Deployment:
    """What runs, to go on from: of each stage the option with most replicas ready or starting.

    Where requests are dealt out to several options, all of these with their shares.

    Args:
        states: as observed.
        otherwise: what to go on from in stages of which nothing runs.
    """
    found = []
    for stage in otherwise:
        mine = [state for state in states if state.stage == stage.stage]
        if len(dealt := [state for state in mine if state.share]) > 1:
            found.append(_dealt_among(dealt))
            continue
        most = max(mine, key=lambda state: state.ready + state.starting, default=None)
        replicas = most.ready + most.starting if most else 0
        found.append(
            DeployedStage(stage.stage, most.option, replicas) if most and replicas else stage
        )
    return tuple(found)


def _dealt_among(states: Sequence[StageState]) -> DeployedStage:
    """A stage that runs several options at once, largest share first."""
    parts = tuple(
        Part(each.option, max(1, each.ready + each.starting), ((EVERY_CLASS, each.share or 0.0),))
        for each in sorted(states, key=lambda state: -(state.share or 0.0))
    )
    replicas = sum(part.replicas for part in parts)
    return DeployedStage(states[0].stage, parts[0].option, replicas, parts=parts)


def _is_same(one: Option, other: Option) -> bool:
    mine = (one.variant, one.allocation, one.batch)
    return mine == (other.variant, other.allocation, other.batch)


@dataclass(frozen=True, slots=True)
class Switching:
    """What a decision expects of the change that it makes.

    Attributes:
        loading_j: joules of loading replicas.
        held_j: idle joules of replicas that wait for their successors.
        late_s: seconds of arrivals that wait too long until it is done, over all stages.
        penalty: what all this weighs in the objective.
    """

    loading_j: float
    held_j: float
    late_s: float
    penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the adaptation decided at one timestep, and what it knew.

    Attributes:
        status: the solver's; with ``infeasible`` and ``kept`` the plan before it goes on, because
            there is none, or because it could not be decided or deployed.
        method: name of the solver.
        monitored_load_rps: requests per second of the window that the predictor saw, oldest first.
        predicted_load_rps: what the predictor said, margin included; NaN if it was not asked.
        planned_load_rps: what was planned for.
        decision_s: wall time of prediction, optimisation and choice; NaN without any.
        plan: what to run from now on; None if that is what runs already.
        conflict: why nothing was feasible; None if something was.
        trouble: what the backend failed at, or what had failed before; None if nothing.
        capped_load_rps: the low end of the load, at which the energy cap was to hold; None without.
        gap: how much better another plan may be, as a share of the objective, where the time for
            the decision was up; 0 if the plan is proven.
        forecast: quantiles of the load of the coming interval, ``levels``, ``peak_rps`` and
            ``mean_rps``; None where only a point was predicted.
        switching: what the change to it is expected to take; None if that played no part.
        overrun_rps: the load beyond the plan before that made it come before the interval's end;
            None: it was due.
    """

    status: Literal["optimal", "feasible", "infeasible", "kept"]
    method: str
    monitored_load_rps: tuple[float, ...]
    predicted_load_rps: float
    planned_load_rps: float
    decision_s: float
    plan: Plan | None = None
    conflict: str | None = None
    trouble: str | None = None
    capped_load_rps: float | None = None
    gap: float = 0.0
    forecast: Mapping[str, tuple[float, ...]] | None = None
    switching: Switching | None = None
    overrun_rps: float | None = None


@dataclass(frozen=True, slots=True)
class Requests:
    """Times of requests that left the pipeline, served or dropped; R requests, S stages.

    Attributes:
        request_id: (R,) position in the order of sending, counted from 0 by one backend object.
        sending_s: (R,) when the client sent it.
        done_s: (R,) when the client got the answer, or when it was dropped.
        dropped_at: (R,) index of the stage where it was lost, −1 if it was served.
        queued_s: (R, S) when it entered the stage's queue; NaN if it never did.
        started_s: (R, S) when its batch began to be served there; NaN if it never did.
        served_s: (R, S) when its batch was done there; NaN if it never was.
        failed: (R,) True if it was lost because something failed or it was refused, and not because
            it was older than the drop limit; empty if given so: nothing failed.
        kind: (R,) position of its class in the YAML's ``request_classes``; −1 where nobody tells
            them apart, and so if given empty.
    """

    request_id: Counts
    sending_s: Floats
    done_s: Floats
    dropped_at: Counts
    queued_s: Floats
    started_s: Floats
    served_s: Floats
    failed: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    kind: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.failed):
            object.__setattr__(self, "failed", np.zeros(len(self.request_id), dtype=np.bool_))
        if not len(self.kind):
            object.__setattr__(self, "kind", np.full(len(self.request_id), -1, dtype=np.int64))

    @property
    def has_classes(self) -> bool:
        """True if some of them are of a class."""
        return bool((self.kind >= 0).any())

    def __len__(self) -> int:
        return len(self.request_id)


Phase = Literal["asked", "starting", "ready", "draining", "stopped", "died", "repaired"]
"""What may happen to a replica, in the order in which most go through it."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change in the life of one replica, observed.

    Attributes:
        at_s: when; seconds since the start of the run (``perf_counter`` inside a live backend).
        stage: task name of the stage.
        option: label of what it runs: ``yolov5n 2c b4``.
        replica: its name; no two of a run's have the same.
        phase: what it is from now on, or what happened.
        why: in words; empty where it goes without saying.
    """

    at_s: float
    stage: str
    option: str
    replica: str
    phase: Phase
    why: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """How long a stage took from one configuration to another, observed.

    Times are seconds since the start of the run (``perf_counter`` inside a live backend).

    Attributes:
        stage: task name of the stage.
        to: label of what was wanted: ``yolov5n 2c b4 x3``.
        asked_s: when it was.
        ready_s: when all of it served; NaN if something else was wanted before.
        gone_s: when nothing else ran any more; NaN if something else was wanted before.
    """

    stage: str
    to: str
    asked_s: float
    ready_s: float = math.nan
    gone_s: float = math.nan


@dataclass(frozen=True, slots=True)
class SiteSpent:
    """What one of several places spent in a window.

    Attributes:
        name: of the site.
        joules: of all its replicas.
        power_w: (seconds,) its mean watts, as :attr:`Served.power_w`.
        grams: of CO2 equivalent at its meter; NaN before they are counted.
    """

    name: str
    joules: float
    power_w: Floats
    grams: float = math.nan


@dataclass(frozen=True, slots=True)
class Served:
    """What one window of serving did.

    Attributes:
        start_s, end_s: the window.
        requests: those that were answered or dropped in it.
        idle_j: (S,) joules the stages' replicas held while they existed (n·p over time, replicas
            that start or drain included).
        dynamic_j: (S,) joules above idle, spent in the window.
        power_w: (seconds,) mean watts of all stages in each second of the window, counted from its
            start; the last one is shorter if the window is no whole number of seconds.
        cores: (seconds,) mean cores reserved by all stages in each of the same seconds.
        in_flight: requests inside the pipeline at ``end_s``.
        meter: meter behind the joules (the profile's, for a simulation).
        quality: of the joules; None if there are none.
        overhead_j: what serves beside the stages (``router``, ``generator`` …) → joules above
            idle, which are in no stage's; empty where nothing of the kind runs.
        replicas: what each replica was charged with; empty where nobody tells them apart.
        events: what happened to replicas, in time.
        changes: those of stages that ended in it.
        notes: what is to be said of the joules or of serving, in words.
        machine_j: all joules that a meter of the whole machine showed; None without one.
        grams: of CO2 equivalent for the stages' joules, at the site's meter; None where nobody
            says what a joule emits.
        late_s: by how much each request was sent later than intended; empty for a simulation.
        embodied_g: grams that making the hardware of the replicas comes to while they existed; None
            where the profile does not say. In none of ``grams``.
        tally: the requests counted, where their times are not kept: then ``requests`` is empty.
        sites: where the joules were spent, if the pipeline runs in several places; else empty.
        loading_j: of ``dynamic_j`` what loading replicas took; None where it is not told apart.
        batches: (S, 2) requests of each stage that it served, and in how many batches; None where
            nobody counts them.
        held_by: what keeps replicas to their cores, in words; empty for a simulation.
        work: by class of requests; empty where nobody tells them apart.
    """

    start_s: float
    end_s: float
    requests: Requests
    idle_j: Floats
    dynamic_j: Floats
    power_w: Floats
    cores: Floats
    in_flight: int
    meter: str | None
    quality: Quality | None
    overhead_j: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    replicas: tuple[Spent, ...] = field(default=(), kw_only=True)
    events: tuple[Event, ...] = field(default=(), kw_only=True)
    changes: tuple[Change, ...] = field(default=(), kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    machine_j: float | None = field(default=None, kw_only=True)
    grams: float | None = field(default=None, kw_only=True)
    late_s: Floats = field(default_factory=lambda: np.zeros(0), kw_only=True)
    loading_j: float | None = field(default=None, kw_only=True)
    embodied_g: float | None = field(default=None, kw_only=True)
    tally: Tally | None = field(default=None, kw_only=True)
    batches: Counts | None = field(default=None, kw_only=True)
    held_by: str = field(default="", kw_only=True)
    work: tuple[ClassWork, ...] = field(default=(), kw_only=True)
    sites: tuple[SiteSpent, ...] = field(default=(), kw_only=True)

    @property
    def left(self) -> int:
        """Requests that left the pipeline in it."""
        return len(self.requests if self.tally is None else self.tally)

    @property
    def failed(self) -> int:
        """Of these, those that were lost for another reason than their age."""
        return int(self.requests.failed.sum()) if self.tally is None else self.tally.failed

    @property
    def dropped(self) -> int:
        """Of these, those that were lost for their age."""
        if self.tally is not None:
            return sum(self.tally.dropped)
        return int((self.requests.dropped_at >= 0).sum()) - self.failed


def with_grams(served: Served, carbon: RunCarbon) -> Served:
    """The window with the grams of its joules, each place's at its own intensity."""
    window = served.start_s, served.end_s
    if not served.sites:
        joules = float(served.idle_j.sum() + served.dynamic_j.sum())
        return replace(served, grams=carbon.grams(*window, joules, served.power_w))
    sites = tuple(
        replace(site, grams=carbon.sites[site.name].grams(*window, site.joules, site.power_w))
        for site in served.sites
    )
    return replace(served, sites=sites, grams=sum(site.grams for site in sites))


class Backend(Protocol):
    """Something that serves a pipeline. Implementations: one module or folder each here.

    Every method but :meth:`close` may raise a :class:`~ipa_energy.errors.ServingError`.
    """

    @property
    def name(self) -> str:
        """Its name in :data:`~ipa_energy.registries.BACKENDS`."""
        ...

    @property
    def resumes(self) -> Resumes:
        """How a killed run goes on."""
        ...

    def deploy(self, wanted: Deployment) -> None:
        """Move towards ``wanted`` from now on; returns at once.

        Called again with the same, it goes on towards it: what failed is replaced.
        """
        ...

    def deployed(self) -> tuple[StageState, ...]:
        """What really runs now, observed."""
        ...

    def received_rps(self, window_s: int) -> Counts:
        """Requests that arrived in each of the last ``window_s`` whole seconds, oldest first.

        Fewer where less was seen so far.
        """
        ...

    def collect(self, until_s: float) -> Served:
        """What was served since the last call, up to ``until_s``, which the clock has reached.

        Args:
            until_s: end of the window; what happens at this very time belongs to the next one.
                Infinity: when nothing is sent any more, wait until all that is under way has left.
        """
        ...

    def close(self) -> None:
        """Release whatever the backend holds; safe to call twice."""
        ...


class LoadSource(Protocol):
    """What is sent to a pipeline, and until when."""

    @property
    def duration_s(self) -> float:
        """Second of the run in which sending ends; infinity if nobody knows."""
        ...

    @property
    def trace(self) -> Counts | None:
        """Requests of every second of the run, if they are known in advance."""
        ...

    def start(self) -> None:
        """Begin to send, if it sends by itself; second 0 (or of resuming) is now."""
        ...

    def sending_s(self, start_s: float, until_s: float) -> Floats:
        """When requests are sent in [start_s, until_s), for a simulation to serve."""
        ...

    def close(self) -> None:
        """Stop sending; safe to call twice."""
        ...


class Clock(Protocol):
    """The time of a run."""

    @property
    def now_s(self) -> float:
        """Seconds since the start of the run."""
        ...

    def wait_until(self, time_s: float) -> None:
        """Return when it is ``time_s``, at once if it is later."""
        ...


class VirtualClock:
    """Time that passes by being waited for; ``now_s`` is when it begins."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def wait_until(self, time_s: float) -> None:
        """It is ``time_s`` now, if it was not later."""
        self.now_s = max(self.now_s, time_s)


class WallClock:
    """Time as it passes.

    Args:
        now_s: what it shows now: 0 at the start of a run, more where one is resumed.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self._zero_s = time.perf_counter() - now_s

    @property
    def now_s(self) -> float:
        """Seconds since the start of the run."""
        return time.perf_counter() - self._zero_s

    def wait_until(self, time_s: float) -> None:
        """Sleep until it is ``time_s``."""
        while (left_s := time_s - self.now_s) > 0:
            time.sleep(left_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a live run is watched; a simulation needs none of it.

    Attributes:
        meter: of the machine: a name of :data:`~ipa_energy.registries.METERS`, ``cpu-time`` for
            none, ``auto`` for a counter of the processors where there is one.
        powercap: the kernel's powercap folder, for ``rapl``.
        corrects_drift: True to decide with rescaled joules once live ones differ for long.
        lease: adaptation intervals for which a pipeline goes on serving when nobody decides, for
            whoever resumes the run.
        overcommits: True to plan and start what holds more cores than the machine has.
        stubs_work: True if stubs compute for the profile's times, and so spend its joules; else
            they sleep, and their joules are those of idling. None: they sleep where more cores are
            held than there are.
        exporter_port: where figures are offered to Prometheus; 0: any free port; None: nowhere.
        prometheus: folder for a Prometheus that is started; or the URL of one to look at; None:
            neither.
        kubeconfig, context, namespace: which cluster, and where in it; None: as the client has it.
    """

    meter: str = "auto"
    powercap: Path = Path("/sys/class/powercap")
    corrects_drift: bool = True
    lease: int = 6
    overcommits: bool = False
    stubs_work: bool | None = None
    exporter_port: int | None = None
    prometheus: Path | str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None

    @property
    def stubs_sleep(self) -> bool:
        """True if stubs do nothing meanwhile."""
        return self.overcommits if self.stubs_work is None else not self.stubs_work


@dataclass(frozen=True, slots=True)
class Setting:
    """What the three roles of a run are made from.

    Attributes:
        config: of the pipeline.
        stages: the pipeline with its whole profile, first stage first.
        start: what runs, ready to serve, at second 0.
        load: what is to be sent; a live backend puts a sender of it in its place.
        resumed_at_s: seconds since the start of the run by the wall clock, where a live run is
            taken up again; 0 for a new one. A simulation begins at 0 again.
        latency_sla_s: of the pipeline, from the YAML or by IPA's rule; None: unknown.
        live: how a live run is watched.
        folder: of the run; None if it has none. Whoever resumes it looks there for what runs.
        logged_until_s: where the intervals end that were logged before it was resumed.
        next_request_id: above the number of every request in them.
        classes: of the requests of ``load``; None where nobody tells them apart.
    """

    config: PipelineConfig
    stages: tuple[Stage, ...]
    start: Deployment
    load: LoadSource
    resumed_at_s: float = 0.0
    latency_sla_s: float | None = None
    live: LiveOptions = field(default_factory=LiveOptions)
    folder: Path | None = None
    logged_until_s: float = 0.0
    next_request_id: int = 0
    classes: ClassesOfRequests | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """The three roles of one run.

    Attributes:
        tell: takes what the decider knows; None where nobody wants it.
    """

    backend: Backend
    load: LoadSource
    clock: Clock
    tell: Callable[[AdapterFigures], None] | None = None

    def close(self) -> None:
        """Stop sending, then release the backend."""
        self.load.close()
        self.backend.close()
