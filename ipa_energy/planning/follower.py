"""Decisions that were made in advance."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ipa_energy.adaptation.loop import Adapter
from ipa_energy.arrays import Counts
from ipa_energy.optimizer.quantities import planned_load_rps
from ipa_energy.planning.planner import Planner
from ipa_energy.serving.deployment import Decision, Deployment

Schedule = tuple[tuple[int, Deployment], ...]
"""(second from which it is wanted, what), by rising second."""


class Follower(Adapter):
    """Takes every decision from a course.

    Args:
        planner: config, profile and program.
        like: whose program, method and signals these are.
        course: what to run from which second on.
    """

    def __init__(self, planner: Planner, like: Adapter, course: Schedule) -> None:
        super().__init__(like.program, like.predictor, method=like.method)
        self._planner, self._course = planner, course

    def decide(
        self, now_s: int, received_rps: Counts, running: Deployment, *_: Any, **__: Any
    ) -> Decision:
        """What the course has at ``now_s``."""
        del running
        load_rps = planned_load_rps(float(received_rps.mean()), self.interval_s)
        wanted = next(what for second, what in reversed(self._course) if second <= now_s)
        plan = self._planner.plan_running(wanted, self._planner.moment(load_rps, now_s))
        return self.decision(
            received_rps,
            predicted_rps=load_rps,
            planned_rps=load_rps,
            begin=math.nan,
            decision_s=0.0,
            plan=replace(plan),
        )
