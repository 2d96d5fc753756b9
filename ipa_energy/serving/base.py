"""What every serving backend is: a clock, a deployed plan, and requests that go through it.

::

    backend.apply(plan)                      start moving to a plan, old replicas serve meanwhile
    served = backend.serve(sending_s, 10.0)  offer requests, run the clock to 10 s
    served = backend.finish()                no more requests: drain what is under way

Times are seconds since the start of the run. A :class:`Served` reports what *finished* in its
window, so that a run can be written interval by interval and nothing is held back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ipa_energy.arrays import Counts, Floats
from ipa_energy.optimizer.solution import Plan
from ipa_energy.records import Option, Quality


@dataclass(frozen=True, slots=True)
class DeployedStage:
    """What one stage runs, wherever it was decided: by a plan, or by the pipeline YAML's start.

    Attributes:
        stage: task name of the stage.
        option: variant, allocation and batch; one of the stage's profiled options.
        replicas: n, at least 1.
        wait_s: planned wait to fill a batch, q = (b − 1)/λ_s; 0 where no plan says it.
    """

    stage: str
    option: Option
    replicas: int
    wait_s: float = 0.0


Deployment = tuple[DeployedStage, ...]
"""What a whole pipeline runs, first stage first."""


def deployment_of(plan: Plan) -> Deployment:
    """What is deployed where ``plan`` is applied."""
    return tuple(
        DeployedStage(stage.stage, stage.option, stage.replicas, stage.wait_s)
        for stage in plan.stages
    )


@dataclass(frozen=True, slots=True)
class Requests:
    """Times of requests that left the pipeline, served or dropped; R requests, S stages.

    Attributes:
        request_id: (R,) position in the order of sending, counted over the whole run.
        sending_s: (R,) when the client sent it.
        done_s: (R,) when the client got the answer, or when it was dropped.
        dropped_at: (R,) index of the stage that dropped it, −1 if it was served.
        queued_s: (R, S) when it entered the stage's queue; NaN if it never did.
        started_s: (R, S) when its batch began to be served there; NaN if it never did.
        served_s: (R, S) when its batch was done there; NaN if it never was.
    """

    request_id: Counts
    sending_s: Floats
    done_s: Floats
    dropped_at: Counts
    queued_s: Floats
    started_s: Floats
    served_s: Floats

    def __len__(self) -> int:
        return len(self.request_id)


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


class Backend(Protocol):
    """Something that serves a pipeline. Implementations: one module each in this package."""

    @property
    def name(self) -> str:
        """``simulate``, ``local`` or ``kubernetes``."""
        ...

    @property
    def now_s(self) -> float:
        """Seconds since the start of the run."""
        ...

    def apply(self, plan: Plan) -> None:
        """Start moving to ``plan`` at the current time; returns at once.

        Raises:
            ServingError: the backend cannot run it.
        """
        ...

    def serve(self, sending_s: Floats, until_s: float) -> Served:
        """Offer requests sent at ``sending_s`` and run the clock up to ``until_s``.

        Args:
            sending_s: (R,) ascending, now ≤ each < ``until_s``.
            until_s: end of the window; what happens at this very time belongs to the next one.
        """
        ...

    def finish(self) -> Served:
        """Drain: run until every request has been answered or dropped, and no longer."""
        ...

    def close(self) -> None:
        """Release whatever the backend holds; safe to call twice."""
        ...
