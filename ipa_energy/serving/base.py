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

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ipa_energy.arrays import Counts, Floats
from ipa_energy.records import Stage
from ipa_energy.serving.deployment import Deployment, StageState
from ipa_energy.serving.load import ClassesOfRequests
from ipa_energy.serving.observed import AdapterFigures
from ipa_energy.serving.served import Served

if TYPE_CHECKING:  # a process that serves reads no configuration, and starts without its libraries
    from ipa_energy.config import PipelineConfig

Resumes = Literal["replay", "adopt"]
"""How a killed run goes on: a simulation serves again with the logged decisions, to the same state;
a live backend takes over what runs and goes on from now."""


class Backend(Protocol):
    """Something that serves a pipeline. Implementations: one module or folder each here.

    Every method but :meth:`close` may raise a :class:`~ipa_energy.errors.ServingError`.

    Attributes:
        name: its name in :data:`~ipa_energy.registries.BACKENDS`.
        resumes: how a killed run goes on.
    """

    name: str
    resumes: Resumes

    def deploy(self, wanted: Deployment) -> None:
        """Move towards ``wanted`` from now on; returns at once.

        Called again with the same, it goes on towards it: what failed is replaced.
        """
        ...

    def wanted(self) -> Deployment | None:
        """What it moves towards, as it was told last; None if it was never told."""
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
