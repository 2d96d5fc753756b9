"""One adaptation step: look at the load, predict it, decide, prefer the plan that changes least.

::

    load received ──> predictor ──> planned load ──> solver ──> the K best plans ──┐
                                                                                   │
    running plan <── fewest changes among the equally good plans <─────────────────┘

The loop owns no clock and no server: :class:`Adapter` is asked once an interval and answers with a
:class:`~ipa_energy.serving.deployment.Decision`. When no plan is feasible the running one stays,
and the decision says why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ipa_energy.adaptation.forecast import STEP_S, Forecast
from ipa_energy.adaptation.predictor import Predictor, QuantilePredictor
from ipa_energy.arrays import Counts
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Program
from ipa_energy.optimizer.quantities import (
    AT_LOW_END,
    USUAL_INTERVAL_S,
    Moment,
    lowest_load_rps,
    planned_load_rps,
)
from ipa_energy.optimizer.solve import Result, decide, prepared
from ipa_energy.registries import SOLVERS
from ipa_energy.serving.deployment import (
    Decision,
    Deployment,
    StageState,
    changed_stages,
    deployment_of,
)

PLANS_COMPARED = 8
"""How many of the best plans are looked at for one as good as the best that changes less."""


MIXES_KEPT = 256
"""Mixes of equal moments that are remembered."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is seen of a pipeline when a decision is due.

    Attributes:
        states: its replicas; empty where nobody looked.
        in_pipeline: requests that were sent and have not left.
    """

    states: tuple[StageState, ...] = ()
    in_pipeline: int = 0


NOT_OBSERVED = Observed()


def _no_signals(_: float, __: float) -> Mapping[str, float]:
    """A joule costs the same at all times."""
    return {}


class Adapter:
    """Decides, interval by interval, what a pipeline runs.

    Args:
        program: the pipeline's integer program.
        predictor: of the load.
        method: name of the solver.
        interval_s: between decisions.
        limit_s: for a decision; None: as long as it takes.
        signals: what is known beside the load at a second of the run (given that second and the
            planned load): what a joule costs then.
        levels: of the quantiles that are planned with, ascending: the energy cap holds and batches
            fill at the first, joules are counted at the second, replicas carry the third; None:
            all of them at the predictor's point, as IPA.
        ahead_s: until when a plan has to do.
        monitoring_s: seconds of load that are logged; 0: all that are seen.
        margin_percent: added to what replicas have to carry at ``levels``.

    Attributes:
        known: what was decided before at the same moment, for runs of one program that are not
            timed; None: every decision is made anew.
    """

    def __init__(
        self,
        program: Program,
        predictor: Predictor,
        *,
        method: str,
        interval_s: float = USUAL_INTERVAL_S,
        limit_s: float | None = None,
        signals: Callable[[float, float], Mapping[str, float]] = _no_signals,
        levels: Sequence[float] | None = None,
        ahead_s: float = 2 * STEP_S,
        monitoring_s: int = 0,
        margin_percent: float = 0.0,
    ) -> None:
        self.levels, self.ahead_s, self.monitoring_s = levels, ahead_s, monitoring_s
        self.margin = 1 + margin_percent / 100
        self.program = program
        self.predictor = predictor
        self.method = method
        if method in SOLVERS:
            prepared(method, program.settings)
        self.interval_s = interval_s
        self.limit_s = limit_s
        self.signals = signals
        self.known: dict[str, Result] | None = None
        self._mixes: tuple[Program, dict[str, Result]] = (program, {})

    @property
    def memory_s(self) -> int:
        """Seconds of load before a decision that it looks at, beside those that are logged."""
        sees_all = self.levels is not None or isinstance(self.predictor, QuantilePredictor)
        return self.predictor.memory_s if sees_all else 0

    def decide(
        self,
        now_s: int,
        received_rps: Counts,
        running: Deployment,
        observed: Observed = NOT_OBSERVED,
    ) -> Decision:
        """The decision at ``now_s``.

        Args:
            now_s: seconds since the start of the run.
            received_rps: requests of each of the last seconds before ``now_s``, at least one.
            running: what each stage runs at the moment.
            observed: what is seen of it, which plays no part here.
        """
        del observed
        begin = time.perf_counter()
        seen = received_rps[-(self.monitoring_s or len(received_rps)) :]
        told = None
        if self.levels is None:
            predicted = self.predictor.predict(received_rps, now_s)
            planned = planned_load_rps(predicted, self.interval_s)
            capped = self._low_end_rps(seen, planned)
            moment = Moment(planned, planned, planned, self.signals(now_s, planned), capped)
        else:
            forecast = self.predictor.forecast(received_rps, now_s)
            moment = self._moment_at(forecast, self.levels, now_s)
            predicted, told = moment.peak_rps, forecast.told(self.interval_s)
        result = self._best(moment)
        plan = min(
            result.equally_good,
            key=lambda candidate: self.preference(candidate, running),
            default=None,
        )
        late = result.status == "unknown"
        return self.decision(
            seen,
            predicted_rps=predicted,
            planned_rps=moment.mean_rps,
            begin=begin,
            status="kept" if result.status == "unknown" else result.status,
            capped_load_rps=moment.capped_rps,
            plan=plan,
            conflict=str(result.conflict) if result.conflict else None,
            trouble=f"no plan was found in {self.limit_s:g} s" if late else None,
            gap=result.gap if plan else 0.0,
            forecast=told,
        )

    def most_rps(self, planned_rps: float, carried_rps: float, since_s: float) -> float:
        """The load that is waited out where decisions may come early.

        Args:
            planned_rps: what the plan in force was made for; 0: nobody decided yet.
            carried_rps: what it carries when all of it is ready.
            since_s: how long ago it was decided.
        """
        del since_s
        return max(planned_rps, carried_rps)

    def decision(
        self, seen: Counts, *, predicted_rps: float, planned_rps: float, begin: float, **more: Any
    ) -> Decision:
        """What was decided.

        Args:
            seen: requests of the seconds that were looked at.
            predicted_rps: what the predictor said.
            planned_rps: what was planned for.
            begin: when, on :func:`time.perf_counter`, the decision was asked for.
            more: further attributes.
        """
        found = Decision(
            status="optimal",
            method=self.method,
            monitored_load_rps=tuple(seen.tolist()),
            predicted_load_rps=predicted_rps,
            planned_load_rps=planned_rps,
            decision_s=time.perf_counter() - begin,
        )
        return replace(found, **more)

    def preference(self, plan: Plan, running: Deployment) -> tuple[float, ...]:
        """Order of equally good plans: fewest changes, then least joules (if known), then speed."""
        joules = plan.joules_per_request
        known_j = 0.0 if math.isnan(joules) else joules
        return (len(changed_stages(deployment_of(plan), running)), known_j, plan.latency_s)

    def _moment_at(self, forecast: Forecast, levels: Sequence[float], now_s: int) -> Moment:
        """The loads that quantiles of a forecast are planned with."""
        low, middle, upper = levels
        peak = self.margin * forecast.peak(upper, 0.0, self.ahead_s)
        means = [forecast.mean(level, 0.0, self.ahead_s) for level in (low, middle)]
        lowest_rps, mean_rps, peak_rps = (
            planned_load_rps(min(load_rps, peak), self.interval_s) for load_rps in (*means, peak)
        )
        capped = any(cap.quantity in AT_LOW_END for cap in self.program.caps)
        signals = self.signals(now_s, mean_rps)
        return Moment(lowest_rps, mean_rps, peak_rps, signals, lowest_rps if capped else None)

    def _best(self, moment: Moment) -> Result:
        """The best plans at a moment; a mix, which takes long, is found once for equal moments."""
        known = self._known_mixes() if self.known is None else self.known
        key = "" if known is None else repr(moment)
        if known is not None and key in known:
            return known[key]
        result = decide(
            self.program,
            moment,
            method=self.method,
            top_k=PLANS_COMPARED,
            limit_s=self.limit_s,
            only_equal=True,
        )
        # What was cut short may be better at another time.
        if known is not None and (self.known is not None or result.status == "optimal"):
            known[key] = result
        return result

    def _known_mixes(self) -> dict[str, Result] | None:
        """Mixes of the program as it is now; None where it has none."""
        if not self.program.settings.mix:
            return None
        of, found = self._mixes
        if of is not self.program or len(found) >= MIXES_KEPT:
            self._mixes = (self.program, {})
        return self._mixes[1]

    def _low_end_rps(self, received_rps: Counts, planned_rps: float) -> float | None:
        """The least load that may come: that of the quietest interval seen; None without a cap.

        At most the planned one, which predictors put near the upper end.
        """
        if not any(cap.quantity in AT_LOW_END for cap in self.program.caps):
            return None
        quietest_rps = lowest_load_rps(received_rps, self.interval_s)
        return min(planned_rps, planned_load_rps(quietest_rps, self.interval_s))
