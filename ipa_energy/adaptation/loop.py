"""One adaptation step: look at the load, predict it, decide, prefer the plan that changes least.

::

    load received ──> predictor ──> planned load ──> solver ──> the K best plans ──┐
                                                                                   │
    running plan <── fewest changes among the equally good plans <─────────────────┘

The loop owns no clock and no server: :class:`Adapter` is asked once an interval and answers with a
:class:`~ipa_energy.serving.base.Decision`. When no plan is feasible the running one stays, and the
decision says why.
"""

from __future__ import annotations

import math
import time

from ipa_energy.adaptation.predictor import Predictor
from ipa_energy.arrays import Counts
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import planned_load_rps
from ipa_energy.optimizer.solve import decide
from ipa_energy.serving.base import Decision, Deployment, changed_stages, deployment_of

PLANS_COMPARED = 8
"""How many of the best plans are looked at for one as good as the best that changes less."""


class Adapter:
    """Decides, interval by interval, what a pipeline runs.

    Args:
        program: the pipeline's integer program.
        predictor: of the load.
        method: name of the solver.
    """

    def __init__(self, program: Program, predictor: Predictor, *, method: str) -> None:
        self.program = program
        self.predictor = predictor
        self.method = method

    def decide(self, now_s: int, received_rps: Counts, running: Deployment) -> Decision:
        """The decision at ``now_s``.

        Args:
            now_s: seconds since the start of the run.
            received_rps: requests of each of the last seconds before ``now_s``, at least one.
            running: what each stage runs at the moment.
        """
        begin = time.perf_counter()
        predicted = self.predictor.predict(received_rps, now_s)
        planned = planned_load_rps(predicted)
        result = decide(self.program, planned, method=self.method, top_k=PLANS_COMPARED)
        plan = min(
            result.equally_good,
            key=lambda candidate: _preference(candidate, running),
            default=None,
        )
        return Decision(
            status=result.status,
            method=self.method,
            monitored_load_rps=tuple(received_rps.tolist()),
            predicted_load_rps=predicted,
            planned_load_rps=planned,
            decision_s=time.perf_counter() - begin,
            plan=plan,
            conflict=str(result.conflict) if result.conflict else None,
        )


def _preference(plan: Plan, running: Deployment) -> tuple[float, float, float]:
    """Order of equally good plans: fewest changes, then least joules (if known), then fastest."""
    joules = plan.joules_per_request
    known_j = 0.0 if math.isnan(joules) else joules
    return (len(changed_stages(deployment_of(plan), running)), known_j, plan.latency_s)
