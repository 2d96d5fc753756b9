"""What one window of serving did: requests that left, joules, and what happened to replicas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ipa_energy.arrays import Counts, Floats, Mask
from ipa_energy.records import Quality
from ipa_energy.serving.observed import ClassWork, Spent
from ipa_energy.serving.tally import Tally

if TYPE_CHECKING:  # a process that serves reads no configuration, and starts without its libraries
    from ipa_energy.carbon.run_carbon import RunCarbon


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

    def since(self, zero_s: float) -> Change:
        """The same, counted from another second."""
        times = {name: getattr(self, name) - zero_s for name in ("asked_s", "ready_s", "gone_s")}
        return replace(self, **times)


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
