"""The loop of one run: look, decide, deploy, wait, collect, interval after interval.

::

    load ───> backend ──collect──> served ──> interval
                │  ↑                             ↑
       received │  │ deploy                      │
                ↓  │                             │
              adapter ──────── decision ─────────┘

The first interval runs the YAML's initial configuration; after that each begins with a decision
(the numbered phases of :meth:`Runner.intervals`). The load goes on meanwhile: a decision that takes
longer than an interval lengthens it. A run that was killed goes on as its backend says: by replay
(the logged decisions are served again, which gives a simulation the same state) or by adoption
(what runs is taken over; the time in between is a gap in the log).
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from ipa_energy.adaptation.drift import DriftWatch
from ipa_energy.adaptation.loop import Observed
from ipa_energy.adaptation.predictor import make_predictor
from ipa_energy.errors import ConfigError, TryAgainError
from ipa_energy.optimizer.plan import Plan
from ipa_energy.planning.carbon_budget import CarbonBudget
from ipa_energy.planning.follower import Follower, Schedule
from ipa_energy.planning.horizon_adapter import adapter_for
from ipa_energy.planning.planner import Planner
from ipa_energy.planning.policies import initial_deployment
from ipa_energy.records import Option, Part, Stage
from ipa_energy.runlog import Finished, Interval, StageStep, Step
from ipa_energy.serving.base import Serving
from ipa_energy.serving.deployment import (
    Decision,
    DeployedStage,
    Deployment,
    StageState,
    capacity_rps,
    changed_stages,
    deployment_of,
    ready_after_s,
    short_of,
)
from ipa_energy.serving.live_joules import stage_joules, unsettled_stages
from ipa_energy.serving.observed import AdapterFigures, Scale, StageJoules
from ipa_energy.serving.served import Served, with_grams

logger = logging.getLogger(__name__)

_LOGGED_STATUS: dict[str, Literal["infeasible", "feasible"]] = {
    "infeasible": "infeasible",
    "feasible": "feasible",
}

PROGRESS_AFTER_S = 2.0

RETRY_AFTER_S = (0.5, 1.0, 2.0, 4.0)
"""Waits before what may work in a moment is tried again; after the last one it has failed."""

TICK_S = 1.0
"""Between two looks of a :class:`View`."""

OVERRUN_S = 2
"""Seconds whose mean load is held against what is deployed, where decisions may come early."""

Answer = TypeVar("Answer")


class View(Protocol):
    """Shows a run while it goes on."""

    def interval(self, interval: Interval) -> None:
        """One more interval was served."""
        ...

    def tick(self, now_s: float, states: Sequence[StageState], received_rps: float | None) -> None:
        """A second has passed.

        Args:
            now_s: seconds since the start of the run.
            states: what runs.
            received_rps: requests that came in the last second; None if nobody knows.
        """
        ...

    def clear(self) -> None:
        """Something else is written now."""
        ...


class Runner:
    """One run of a pipeline.

    Args:
        planner: config, profile and program.
        serving: the backend, which runs the initial configuration (or ``fixed``) already, the load,
            and the clock.
        fixed: what runs from the first second to the last without any adaptation; None for the
            adaptive system.
        corrects_drift: True to decide with rescaled joules once live ones differ for long.
        watches_drift: False where live joules are none of the profile's work.
        view: shows the run while it goes on.
        course: what to run from which second on, instead of deciding; the first runs from second 0.

    Attributes:
        running: what is deployed, or being deployed.
        infeasible_steps: decisions of this call so far that found no plan.
    """

    def __init__(
        self,
        planner: Planner,
        serving: Serving,
        *,
        fixed: Deployment | None = None,
        corrects_drift: bool = True,
        watches_drift: bool = True,
        view: View | None = None,
        course: Schedule = (),
    ) -> None:
        config = planner.config
        self.view = view
        self.planner = planner
        self.backend, self.load, self.clock = serving.backend, serving.load, serving.clock
        self.tell = serving.tell
        self.interval_s = config.adaptation_interval
        self.monitoring_s = int(config.monitoring_duration * 60)
        self.is_fixed = fixed is not None
        self.is_early = config.is_early and not course
        self.infeasible_steps = 0
        self.running = fixed or initial_configuration(planner)
        # A simulation serves by the profile itself, and is replayed by the letter.
        is_live = self.backend.resumes == "adopt"
        self.drift = DriftWatch(planner.stages, corrects=corrects_drift) if is_live else None
        self._watches_drift = watches_drift
        self._unsettled: set[str] = set()
        self._in_flight = 0
        self._last_decision: Decision | None = None
        self._last_joules: tuple[StageJoules, ...] = ()
        ahead_s = self.interval_s + math.ceil(_slowest_start_s(planner))
        predictor = make_predictor(
            config.predictor_type,
            backup_name=config.backup_predictor_type,
            backup_duration_min=config.backup_predictor_duration,
            monitoring_duration_min=config.monitoring_duration,
            margin_percent=config.predictor_margin,
            trace=self.load.trace,
            horizon_s=ahead_s,
        )
        self.adapter = adapter_for(planner, predictor, self._signals, ahead_s)
        if course:
            self.adapter = Follower(planner, self.adapter, course)
        self.budget = self._budget()

    def intervals(
        self, finished: Sequence[Finished] = (), *, show_progress: bool = False
    ) -> Iterator[Interval]:
        """Every interval in time, then the drain; replayed ones included, adopted ones not.

        Args:
            finished: the intervals that an earlier, killed run finished, in order.
            show_progress: a bar on stderr if that is a terminal.
        """
        self.load.start()
        replayed = finished if self.backend.resumes == "replay" else ()
        start_s, gap_s = 0, 0.0
        overrun_rps: float | None = None
        if finished and self.backend.resumes == "adopt":
            start_s, gap_s = self._adopt(finished)
        first = self.planner.moment(self._first_load_rps(), start_s)
        plan = self.planner.plan_running(self.running, first)
        duration_s = self.load.duration_s
        with self._progress(show=show_progress) as bar:
            for index in range(sys.maxsize):
                if start_s >= duration_s:
                    break
                before, decision = self.running, None
                if start_s > 0 and (gap_s or not self.is_fixed):
                    # (1) look and decide, or take what was decided
                    decision = (
                        self._logged(replayed[index].step)
                        if index < len(replayed)
                        else self._decide(start_s, plan)
                    )
                    decision = replace(decision, overrun_rps=overrun_rps)
                    # (2) start moving there; what runs stays if that fails
                    plan, decision = self._deploy(decision, start_s)
                    self._last_decision = decision
                    scales = self.drift.scales if self.drift else ()
                    self._tell(plan, scales, status=decision.status, decision_s=decision.decision_s)
                # (3) wait for the interval's end while the backend serves
                end_s, overrun_rps = self._wait(start_s, self._end_of(start_s))
                # (4) collect what was served
                served = self._collect(float(end_s))
                interval = Interval(
                    timestep_s=start_s,
                    plan=plan,
                    decision=decision,
                    served=served,
                    reconfigured=tuple(changed_stages(self.running, before)),
                    gap_s=gap_s,
                )
                # (5) hold its joules against the profile's
                interval = self._watched(interval)
                if self.view is not None:
                    self.view.interval(interval)
                yield interval
                start_s, gap_s = end_s, 0.0
                bar.update(1)
        if self.infeasible_steps > 1:
            logger.warning("%d of the steps had no feasible plan", self.infeasible_steps)
        # (6) let what is under way finish
        drained = self._collect(math.inf)
        for text in [] if self.budget is None else self.budget.told():
            logger.warning("%s", text)
        if gap_s:
            note = f"nobody decided in the {gap_s:g} s before second {start_s}"
            drained = replace(drained, notes=(*drained.notes, note))
        yield Interval(timestep_s=start_s, plan=plan, decision=None, served=drained)

    def _wait(self, start_s: int, end_s: int) -> tuple[int, float | None]:
        """Wait for the interval's end; (its end, the load for which that comes early).

        It comes early when more arrives than the controller waits out with the plan in force.
        """
        if self.is_early and not self.is_fixed:
            decision = self._last_decision
            planned_rps = 0.0 if decision is None else decision.planned_load_rps
            carried_rps = capacity_rps(self.planner.stages, self.running)
            for second in range(start_s + 1, end_s):
                self._wait_until(second)
                load_rps = self._arriving_rps()
                most_rps = self.adapter.most_rps(planned_rps, carried_rps, second - start_s)
                if load_rps > most_rps:
                    logger.info("second %d: %g requests a second arrive", second, load_rps)
                    return second, load_rps
        self._wait_until(end_s)
        return end_s, None

    def _arriving_rps(self) -> float:
        """Mean load of the last seconds; NaN while nobody knows."""
        try:
            received = self.backend.received_rps(OVERRUN_S)
        except TryAgainError as error:
            logger.info("%s", error)
            return math.nan
        return math.nan if len(received) < OVERRUN_S else float(received.mean())

    def _wait_until(self, time_s: float) -> None:
        """Wait; show every second what goes on meanwhile."""
        while self.view is not None and self.clock.now_s + TICK_S < time_s:
            now_s = self.clock.now_s
            try:
                received = self.backend.received_rps(1)
                received_rps = float(received[-1]) if len(received) else None
                self.view.tick(now_s, self.backend.deployed(), received_rps)
            except TryAgainError as error:
                logger.info("%s", error)
            self.clock.wait_until(now_s + TICK_S)
        self.clock.wait_until(time_s)

    def _budget(self) -> CarbonBudget | None:
        """The day's grams, if the YAML has a budget of them."""
        said, carbon = self.planner.config.carbon, self.planner.carbon
        if said is None or carbon is None or said.budget_grams_per_day is None:
            return None
        return CarbonBudget(
            said.budget_grams_per_day,
            self.planner.program,
            carbon,
            duration_s=self.load.duration_s,
            interval_s=self.interval_s,
            known_rps=self._of_trace if said.load_forecast == "trace" else None,
        )

    def _of_trace(self, begin_s: float, end_s: float) -> float:
        trace = self.load.trace
        if trace is None:
            raise ConfigError(
                "nobody knows the load in advance",
                where="carbon.load_forecast",
                allowed="yesterday",
            )
        return float(trace[int(begin_s) : max(int(begin_s) + 1, int(end_s))].mean())

    def _signals(self, now_s: float, planned_rps: float) -> dict[str, float]:
        """What a decision knows beside the load."""
        budget = {} if self.budget is None else self.budget.signals(now_s, planned_rps)
        return {**self.planner.signals(now_s), **budget}

    def _collect(self, until_s: float) -> Served:
        """What was served, with its grams where somebody says what a joule emits."""
        served = self._again_if_told(partial(self.backend.collect, until_s))
        self._in_flight = served.in_flight
        carbon = self.planner.carbon
        if carbon is None:
            return served
        served = with_grams(served, carbon)
        grams = served.grams or 0.0
        if self.budget is not None:
            self.budget.add(served.start_s, served.end_s, grams, served.left)
        return served

    def _watched(self, interval: Interval) -> Interval:
        """The interval with its live joules, and what is decided with from now on."""
        drift = self.drift
        if drift is None:
            return interval
        served, before = interval.served, drift.scales
        changing = {*interval.reconfigured, *self._unsettled}
        joules = stage_joules(served, self.running, self.planner.stages, unsettled=changing)
        watched = joules if self._watches_drift else ()
        corrections = drift.watch(watched, served.end_s, served.quality)
        if drift.scales != before:
            self.adapter.program = self.planner.program_of(drift.scaled_stages())
        self._last_joules = joules
        self._tell(interval.plan, drift.scales)
        return replace(interval, joules=joules, corrections=corrections, scales=before)

    def _tell(self, plan: Plan, scales: Sequence[Scale], **known: Any) -> None:
        """Let whoever exports figures know what was decided, or how an interval went."""
        if self.tell is None:
            return
        decision = self._last_decision
        if decision is not None:
            known["is_feasible"] = decision.status not in ("infeasible", "kept")
            known["predicted_load_rps"] = decision.predicted_load_rps
            known["planned_load_rps"] = decision.planned_load_rps
        figures = AdapterFigures(
            told_at_s=time.time(),
            plan=plan.label,
            accuracy=plan.accuracy_raw,
            objective={**plan.terms, "objective": plan.objective},
            scales=tuple(scales),
            joules=self._last_joules,
            **known,
        )
        try:
            self.tell(figures)
        except TryAgainError as error:
            logger.info("the exporter was not told: %s", error)

    def _first_load_rps(self) -> float:
        """What the plan that runs first is described at."""
        trace = self.load.trace
        return 0.0 if trace is None else float(trace[: self.interval_s].mean())

    def _end_of(self, start_s: int) -> int:
        """End of the interval that began at ``start_s``: on its grid, and not past already."""
        late = max(0, math.floor((self.clock.now_s - start_s) / self.interval_s))
        end_s = start_s + self.interval_s * (1 + late)
        return int(min(end_s, self.load.duration_s))

    def _adopt(self, finished: Sequence[Finished]) -> tuple[int, float]:
        """Take over what runs; (second of the run to go on at, seconds that nobody logged)."""
        last = next(one.step for one in reversed(finished) if one.step is not None)
        wanted = self._again_if_told(self.backend.wanted)
        self.running = wanted or self._configuration_of(last)
        if self.drift is not None and last.live and last.live.scales_after:
            self.drift.restore(last.live.scales_after)
            self.adapter.program = self.planner.program_of(self.drift.scaled_stages())
        start_s = math.ceil(self.clock.now_s)
        self.clock.wait_until(start_s)
        gap_s = start_s - finished[-1].end_s
        label = " | ".join(stage.label for stage in self.running)
        logger.warning(
            "second %d: taken over %s; nobody decided in the %g s before it",
            start_s,
            label,
            gap_s,
        )
        return start_s, gap_s

    def _decide(self, now_s: int, before: Plan) -> Decision:
        """What to run from now on; what runs, if nobody can say what arrives."""
        trouble = "taken over" if self.is_fixed else "no load was seen yet"
        try:
            window_s = max(self.monitoring_s, self.adapter.memory_s)
            received_rps = self._again_if_told(partial(self.backend.received_rps, window_s))
            if len(received_rps) and not self.is_fixed:
                return self.adapter.decide(now_s, received_rps, self.running, self._observed())
        except TryAgainError as error:
            trouble = str(error)
        return Decision(
            status="kept",
            method=self.adapter.method,
            monitored_load_rps=(),
            predicted_load_rps=math.nan,
            planned_load_rps=before.load_rps,
            decision_s=math.nan,
            trouble=trouble,
        )

    def _observed(self) -> Observed:
        """What runs and how much is under way."""
        states = self._again_if_told(self.backend.deployed)
        return Observed(states, self._in_flight)

    def _deploy(self, decision: Decision, now_s: int) -> tuple[Plan, Decision]:
        """Move to the decision's plan; (what runs from now on, the decision as it came out)."""
        wanted = deployment_of(decision.plan) if decision.plan else self.running
        if decision.status == "infeasible":
            self.infeasible_steps += 1
            level = logging.WARNING if self.infeasible_steps == 1 else logging.INFO
            logger.log(level, "second %d: %s; the running plan stays", now_s, decision.conflict)
        try:
            states = self._again_if_told(self.backend.deployed)
            self._unsettled = unsettled_stages(states)
            short = short_of(self.running, states)
            if short or changed_stages(wanted, self.running):
                self._again_if_told(partial(self.backend.deploy, wanted))
        except TryAgainError as error:
            logger.warning("second %d: %s; the running plan stays", now_s, error)
            decision = replace(decision, status="kept", plan=None, trouble=str(error))
        else:
            self.running = wanted
            if short:
                lost = ", ".join(f"{count} of stage {stage}" for stage, count in short.items())
                logger.warning("second %d: lost replicas: %s", now_s, lost)
                decision = replace(decision, trouble=decision.trouble or f"lost replicas: {lost}")
        at = self.planner.moment(decision.planned_load_rps, now_s)
        plan = decision.plan or self.planner.plan_running(self.running, at)
        return plan, decision

    def _again_if_told(self, act: Callable[[], Answer]) -> Answer:
        """Call ``act``, and again a little later each time while it says that this may help."""
        for wait_s in RETRY_AFTER_S:
            try:
                return act()
            except TryAgainError as error:
                logger.info("%s; again in %g s", error, wait_s)
                self.clock.wait_until(self.clock.now_s + wait_s)
        return act()

    def _logged(self, step: Step | None) -> Decision:
        """The decision that an earlier run made."""
        if step is None:
            raise ConfigError("the journal lacks a decision", fix="run again with another --out")
        at = self.planner.moment(step.planned_load_rps, step.start_s)
        plan = self.planner.plan_running(self._configuration_of(step), at)
        return Decision(
            status=_LOGGED_STATUS.get(step.status or "", "optimal"),
            method=step.method or self.adapter.method,
            monitored_load_rps=step.monitored_load_rps,
            predicted_load_rps=step.predicted_load_rps,
            planned_load_rps=step.planned_load_rps,
            decision_s=step.decision_s,
            plan=plan,
            conflict=step.conflict,
            gap=step.optimality_gap,
        )

    def _configuration_of(self, step: Step) -> Deployment:
        return configuration_of(self.planner, step)

    def _progress(self, *, show: bool) -> AbstractContextManager[Any]:
        if not (show and sys.stderr.isatty() and math.isfinite(self.load.duration_s)):
            return nullcontext(_NoBar())
        from tqdm import tqdm

        total = math.ceil(self.load.duration_s / self.interval_s)
        unit = "interval"
        return tqdm(total=total, desc="run", unit=unit, delay=PROGRESS_AFTER_S, leave=False)


class _NoBar:
    def update(self, _: int) -> None:
        """Nothing to show."""


def _slowest_start_s(planner: Planner) -> float:
    """How long it can take until a decision is what serves."""
    told_s = planner.config.told_s
    found_s = max(
        ready_after_s(option, told_s) for stage in planner.stages for option in stage.options
    )
    if not isinstance(told_s, Mapping):
        return found_s
    return max(found_s, told_s.get("variant", found_s) + told_s.get("partition", 0.0))


def initial_configuration(planner: Planner) -> Deployment:
    """What the YAML starts with."""
    picks = initial_deployment(planner.config, planner.stages)
    return tuple(
        DeployedStage(stage.name, option.at(replicas), replicas)
        for stage, (option, replicas) in zip(planner.stages, picks, strict=True)
    )


def configuration_of(planner: Planner, step: Step) -> Deployment:
    """What a logged step had in force.

    Raises:
        ConfigError: the profile does not have it.
    """
    stages = zip(planner.stages, step.stages, strict=True)
    return tuple(_deployed(stage, logged) for stage, logged in stages)


def _deployed(stage: Stage, logged: StageStep) -> DeployedStage:
    """The profile's option behind a logged configuration."""
    if logged.parts:
        parts = tuple(
            Part(_logged_option(stage, part).at(part.replicas), part.replicas, part.shares)
            for part in logged.parts
        )
        replicas = sum(part.replicas for part in parts)
        return DeployedStage(stage.name, parts[0].option, replicas, parts=parts)
    option = _logged_option(stage, logged)
    return DeployedStage(stage.name, option.at(logged.replicas), logged.replicas)


def _logged_option(stage: Stage, logged: StageStep) -> Option:
    option = next(filter(logged.is_of, stage.options), None)
    if option is None:
        raise ConfigError(
            f"stage {stage.name}: the log has {logged.label}, the profile does not",
            fix="run again with another --out",
        )
    return option
