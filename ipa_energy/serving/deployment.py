"""What a pipeline is to run, what it runs, what was decided about it, and how long a change takes.

A :data:`Deployment` is what is wanted, a :class:`StageState` what is observed of one option, and a
:class:`Decision` how another deployment came to be wanted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ipa_energy.gpu_partitions import SLICE
from ipa_energy.optimizer.plan import Plan, parts_label
from ipa_energy.records import EVERY_CLASS, Option, Part, Stage


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
