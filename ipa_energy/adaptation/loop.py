"""One adaptation step: look at the load, predict it, decide, prefer the plan that changes least.

::

    counts so far ──> last monitoring_duration ──> predictor ──> planned load ──> solver ──┐
                                                                                           │
    running plan <── fewest changes among the equally good plans <── the K best plans <────┘

The loop owns no clock and no server: :class:`Adapter` is asked once an interval and answers with a
:class:`Decision`. When no plan is feasible the running one stays, and the decision says why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ipa_energy.adaptation.predictor import Predictor
from ipa_energy.optimizer.problem import Program, planned_load_rps
from ipa_energy.optimizer.solution import Conflict, Plan, Status
from ipa_energy.optimizer.solve import decide
from ipa_energy.records import Option

PLANS_COMPARED = 8
"""How many of the best plans are looked at for one as good as the best that changes less."""


class Runs(Protocol):
    """What a stage runs now: the part of a plan that changes are counted against."""

    @property
    def option(self) -> Option:
        """Variant, allocation and batch."""
        ...

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What one adaptation step decided.

    Attributes:
        timestep_s: seconds since the start of the run; the decision governs the interval after it.
        monitored_load_rps: per-second counts the predictor saw.
        predicted_load_rps: what it predicted.
        planned_load_rps: what was planned for (never under 1 rps).
        status: the solver's.
        plan: the plan to run from now on; None if none is feasible, then the running one stays.
        changed_stages: indices of the stages whose variant, allocation, batch or replicas change.
        decision_s: wall time of prediction, solving and choosing.
        conflict: why nothing is feasible, else None.
    """

    timestep_s: int
    monitored_load_rps: tuple[int, ...]
    predicted_load_rps: float
    planned_load_rps: float
    status: Status
    plan: Plan | None
    changed_stages: tuple[int, ...]
    decision_s: float
    conflict: Conflict | None


class Adapter:
    """Decides, interval by interval, what a pipeline runs.

    Args:
        program: the pipeline's integer program.
        predictor: of the load.
        method: name of the solver.
        monitoring_s: length of the load history the predictor gets.
    """

    def __init__(
        self, program: Program, predictor: Predictor, *, method: str, monitoring_s: int
    ) -> None:
        self.program = program
        self.predictor = predictor
        self.method = method
        self.monitoring_s = monitoring_s

    def decide(
        self, now_s: int, counts_rps: npt.NDArray[np.int64], running: Sequence[Runs]
    ) -> Decision:
        """The decision at ``now_s``.

        Args:
            now_s: seconds since the start of the run.
            counts_rps: requests of every second of the run; only those before ``now_s`` are seen.
            running: what each stage runs at the moment.
        """
        begin = time.perf_counter()
        history = counts_rps[max(0, now_s - self.monitoring_s) : now_s]
        predicted = self.predictor.predict(history, now_s)
        planned = planned_load_rps(predicted)
        result = decide(self.program, planned, method=self.method, top_k=PLANS_COMPARED)
        plan = min(
            result.equally_good,
            key=lambda candidate: _preference(candidate, running),
            default=None,
        )
        return Decision(
            timestep_s=now_s,
            monitored_load_rps=tuple(history.tolist()),
            predicted_load_rps=predicted,
            planned_load_rps=planned,
            status=result.status,
            plan=plan,
            changed_stages=changed_stages(plan.stages, running) if plan else (),
            decision_s=time.perf_counter() - begin,
            conflict=result.conflict,
        )


def _preference(plan: Plan, running: Sequence[Runs]) -> tuple[float, float, float]:
    """Order of equally good plans: fewest changes, then least joules (if known), then fastest."""
    joules = plan.joules_per_request
    known_j = 0.0 if math.isnan(joules) else joules
    return (len(changed_stages(plan.stages, running)), known_j, plan.latency_s)


def changed_stages(new: Sequence[Runs], running: Sequence[Runs]) -> tuple[int, ...]:
    """Indices of the stages that would not run the same thing any more."""
    return tuple(
        index
        for index, (after, before) in enumerate(zip(new, running, strict=True))
        if (after.option.variant, after.option.allocation, after.option.batch, after.replicas)
        != (before.option.variant, before.option.allocation, before.option.batch, before.replicas)
    )
