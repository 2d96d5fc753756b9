"""The loop of one run: decide, apply, serve, interval after interval.

::

    workload ─> arrivals ─┬──────────────> backend ──served──> interval
                          └─> adapter ──plan──┘ │                 ↑
                                 ↑──────────────┴── decision ─────┘

The first interval runs the YAML's initial configuration; after that each begins with a decision
(the numbered steps of :meth:`Runner.intervals`). Intervals that an earlier, killed run finished are
replayed: served again with the decisions of its log, which gives a simulation the same state.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ipa_energy.adaptation.loop import Adapter, Decision, changed_stages
from ipa_energy.adaptation.predictor import make_predictor
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.problem import planned_load_rps
from ipa_energy.optimizer.solution import Plan
from ipa_energy.planning.planner import Planner
from ipa_energy.planning.policies import initial_deployment
from ipa_energy.records import Option, Stage
from ipa_energy.runlog import Decision as LoggedDecision
from ipa_energy.runlog import Interval, StageStep, Step
from ipa_energy.serving.base import Backend, DeployedStage, Deployment, deployment_of
from ipa_energy.serving.load import arrival_times_s
from ipa_energy.serving.simulated.backend import SimulatedBackend
from ipa_energy.workloads import Workload

logger = logging.getLogger(__name__)

PROGRESS_AFTER_S = 2.0


class Runner:
    """One run of a pipeline over a workload on the simulated backend.

    Args:
        planner: config, profile and program.
        workload: requests per second.
        fixed: what to run from the first second to the last without any adaptation; None for the
            adaptive system.

    Attributes:
        backend: what serves.
        infeasible_steps: decisions of this call so far that found no plan.
    """

    def __init__(
        self, planner: Planner, workload: Workload, *, fixed: Deployment | None = None
    ) -> None:
        config = planner.config
        self.planner = planner
        self.counts = workload.counts
        self.interval_s = config.adaptation_interval
        self.is_fixed = fixed is not None
        self.infeasible_steps = 0
        self.running = fixed or _initial(planner)
        self.adapter = Adapter(
            planner.program,
            make_predictor(
                config.predictor_type,
                backup_name=config.backup_predictor_type,
                backup_duration_min=config.backup_predictor_duration,
                monitoring_duration_min=config.monitoring_duration,
                margin_percent=config.predictor_margin,
                trace=self.counts,
                horizon_s=self.interval_s + int(np.ceil(config.reconfiguration_s)),
            ),
            method=config.optimization_method,
            monitoring_s=int(config.monitoring_duration * 60),
        )
        self.backend: Backend = SimulatedBackend(
            planner.stages,
            self.running,
            seed=config.seed,
            drop_limit_s=config.drop_limit,
            reconfiguration_s=config.reconfiguration_s,
            batch_timeout_s=[stage.batch_timeout_s for stage in config.stages],
        )

    def intervals(
        self, replayed: Sequence[Step | None] = (), *, show_progress: bool = False
    ) -> Iterator[Interval]:
        """Every interval in time, then the drain.

        Args:
            replayed: the steps of the intervals that an earlier run finished, in order.
            show_progress: a bar on stderr if that is a terminal.
        """
        config, counts = self.planner.config, self.counts
        sending_s = arrival_times_s(counts, mode=config.mode, seed=config.seed)
        first_load_rps = float(counts[: self.interval_s].mean())
        plan = self.planner.plan_running(self.running, planned_load_rps(first_load_rps))
        starts = range(0, len(counts), self.interval_s)
        for index, start_s in enumerate(_with_progress(starts, show=show_progress)):
            before, decision = self.running, None
            if start_s > 0 and not self.is_fixed:
                # (1) decide, or take what was decided
                plan, decision = (
                    self._replay(replayed[index])
                    if index < len(replayed)
                    else self._decide(start_s)
                )
            # (2) start moving there
            self.running = deployment_of(plan)
            changed = changed_stages(self.running, before)
            if changed:
                self.backend.apply(plan)
            # (3) serve the interval
            end_s = min(start_s + self.interval_s, len(counts))
            first, last = np.searchsorted(sending_s, [start_s, end_s])
            served = self.backend.serve(sending_s[first:last], float(end_s))
            names = tuple(plan.stages[stage].stage for stage in changed)
            yield Interval(
                timestep_s=start_s, plan=plan, decision=decision, served=served, reconfigured=names
            )
        if self.infeasible_steps > 1:
            logger.warning("%d of the steps had no feasible plan", self.infeasible_steps)
        # (4) let what is under way finish
        drained = self.backend.finish()
        yield Interval(timestep_s=len(counts), plan=plan, decision=None, served=drained)

    def _decide(self, now_s: int) -> tuple[Plan, LoggedDecision]:
        decision = self.adapter.decide(now_s, self.counts, self.running)
        plan = decision.plan
        if plan is None:
            self.infeasible_steps += 1
            level = logging.WARNING if self.infeasible_steps == 1 else logging.INFO
            logger.log(level, "second %d: %s; the running plan stays", now_s, decision.conflict)
            plan = self.planner.plan_running(self.running, decision.planned_load_rps)
        return plan, _logged(decision, self.adapter.method)

    def _replay(self, step: Step | None) -> tuple[Plan, LoggedDecision]:
        if step is None:
            raise ConfigError("the journal lacks a decision", fix="run again with another --out")
        stages = zip(self.planner.stages, step.stages, strict=True)
        running = [_deployed(stage, logged) for stage, logged in stages]
        decision = LoggedDecision(
            status="infeasible" if step.status == "infeasible" else "optimal",
            method=step.method or self.adapter.method,
            monitored_load_rps=step.monitored_load_rps,
            predicted_load_rps=step.predicted_load_rps,
            planned_load_rps=step.planned_load_rps,
            decision_s=step.decision_s,
            conflict=step.conflict,
        )
        return self.planner.plan_running(running, step.planned_load_rps), decision


def _initial(planner: Planner) -> Deployment:
    picks = initial_deployment(planner.config, planner.stages)
    return tuple(
        DeployedStage(stage.name, option, replicas)
        for stage, (option, replicas) in zip(planner.stages, picks, strict=True)
    )


def _deployed(stage: Stage, logged: StageStep) -> DeployedStage:
    """The profile's option behind a logged configuration."""

    def is_it(option: Option) -> bool:
        wanted = (logged.variant, logged.cpu_cores, logged.gpu_share, logged.batch)
        return (option.variant, *option.allocation, option.batch) == wanted

    option = next(filter(is_it, stage.options), None)
    if option is None:
        raise ConfigError(
            f"stage {stage.name}: the log has {logged.label}, the profile does not",
            fix="run again with another --out",
        )
    return DeployedStage(stage.name, option, logged.replicas)


def _logged(decision: Decision, method: str) -> LoggedDecision:
    return LoggedDecision(
        status=decision.status,
        method=method,
        monitored_load_rps=decision.monitored_load_rps,
        predicted_load_rps=decision.predicted_load_rps,
        planned_load_rps=decision.planned_load_rps,
        decision_s=decision.decision_s,
        conflict=str(decision.conflict) if decision.conflict else None,
    )


def _with_progress(starts: range, *, show: bool) -> Iterable[int]:
    if not (show and sys.stderr.isatty()):
        return starts
    from tqdm import tqdm

    return tqdm(starts, desc="simulated", unit="interval", delay=PROGRESS_AFTER_S, leave=False)
