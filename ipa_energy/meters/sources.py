"""What an entry of :data:`~ipa_energy.registries.METERS` stands for: how to try and open a meter.

A meter is one module with a :class:`Source` in it, and one entry. Whatever it needs to know of this
machine or of the user's wishes is in :class:`Places`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ipa_energy.meters.base import Meter, MeterFault, MeterStatus, min_window_for
from ipa_energy.meters.watching import (
    LEFT_OUT,
    BusyCores,
    SteppingMeter,
    moving,
    observe,
    standing_still,
)
from ipa_energy.registries import METERS, named

logger = logging.getLogger(__name__)

POWERCAP = Path("/sys/class/powercap")
POWER_PMU = Path("/sys/bus/event_source/devices/power")
CPUS = Path("/sys/devices/system/cpu")
CGROUPS = Path("/sys/fs/cgroup")

Counted = Literal["CPU", "GPU"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeplerTarget:
    """Whose joules: the narrowest thing that is named, or every node if nothing is.

    Attributes:
        node: name of the node.
        namespace: of the pods.
        pod: name of the pod; ``*`` stands for any characters (``yolo-*``).
        container: name of the container; likewise.
        memory: count memory too; False where its counter is dead.
    """

    node: str | None = None
    namespace: str | None = None
    pod: str | None = None
    container: str | None = None
    memory: bool = True

    @property
    def scope(self) -> Literal["node", "pod", "container"]:
        """What is counted."""
        if self.container is not None:
            return "container"
        return "node" if self.pod is None and self.namespace is None else "pod"


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look, and whose joules an estimate is about.

    Attributes:
        powercap: the kernel's powercap folder; containers mount it elsewhere.
        pmu: the kernel's folder of the power events.
        prometheus_url: server that scrapes Kepler or DCGM; None if there is none.
        prometheus_headers: sent to it with each request.
        kepler: whose joules ``kepler`` counts; None for all nodes.
        dcgm_host: only this host's GPUs; None for all hosts.
        dcgm_gpu: only the GPU with this UUID; None for all GPUs.
        query: what ``prometheus`` asks for, a :class:`.prometheus.query.WindowQuery`.
        cgroups: where the kernel's control groups are mounted.
        cgroup: the group that ``cpu-time`` charges (see :func:`.cgroup.find_cgroup`); None for the
            process tree.
        pid: root of the process tree that ``cpu-time`` charges.
        reserved_cores: cores whose idle power ``cpu-time`` charges; None for all, or for the
            limit of ``cgroup``.
    """

    powercap: Path = POWERCAP
    pmu: Path = POWER_PMU
    prometheus_url: str | None = None
    prometheus_headers: Mapping[str, str] = field(default_factory=dict)
    kepler: KeplerTarget | None = None
    dcgm_host: str | None = None
    dcgm_gpu: str | None = None
    query: Any = None
    cgroups: Path = CGROUPS
    cgroup: str | None = None
    pid: int = field(default_factory=os.getpid)
    reserved_cores: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of meter.

    Attributes:
        open: a meter that can be believed; raises MeterUnavailableError otherwise.
        probe: tries it and says what was found; raises nothing for a meter that does not work. The
            machine is kept busy meanwhile. None to open it and see whether its counters move.
        counts: whose joules; two meters of one kind would count the same twice. None if that is
            known only to whoever names what to measure: then no replica can be charged with it.
    """

    open: Callable[[Places], Meter]
    probe: Callable[[Places], MeterStatus] | None = None
    counts: Counted | None = "CPU"

    def status(self, places: Places) -> MeterStatus:
        """What was found when it was tried."""
        return _opened_status(self.open, places) if self.probe is None else self.probe(places)


def source(name: str) -> Source:
    """The source of this name.

    Raises:
        ConfigError: there is none.
    """
    found: Source = named(METERS, name, kind="meter")
    return found


def sources_of(counts: Counted) -> tuple[str, ...]:
    """Names of the meters that count these joules."""
    return tuple(name for name in METERS if source(name).counts == counts)


def counter_source(
    make: Callable[[Places, Collection[str]], SteppingMeter], counts: Counted = "CPU"
) -> Source:
    """A source whose counters are believed after they moved under load, and as far as they moved.

    Args:
        make: makes the meter without the domains that it is given.
        counts: whose joules.
    """

    def probe(places: Places) -> MeterStatus:
        try:
            meter, status = moving(lambda leave_out: make(places, leave_out))
        except MeterFault as fault:
            return fault.status()
        meter.close()
        return status

    def open_moving(places: Places) -> Meter:
        with BusyCores():
            meter, status = moving(lambda leave_out: make(places, leave_out))
        if LEFT_OUT in status.reason:
            logger.warning("%s: %s", status.name, status.reason)
        return meter

    return Source(open_moving, probe, counts)


def _opened_status(open_meter: Callable[[Places], Meter], places: Places) -> MeterStatus:
    """A meter of which nothing is known, opened and watched for a moment."""
    try:
        meter = open_meter(places)
        seen = observe(meter.read)
    except MeterFault as fault:
        return fault.status()
    getattr(meter, "close", lambda: None)()
    if seen.still:
        return standing_still(meter.name, seen).status()
    domains, period_s = tuple(seen.period_s), seen.slowest_s
    state: Literal["measured", "estimated"] = (
        "measured" if meter.quality == "measured" else "estimated"
    )
    return MeterStatus(
        meter.name,
        state,
        f"moved: {', '.join(domains)}",
        domains=domains,
        update_period_s=period_s,
        min_window_s=max(meter.min_window_s, min_window_for(period_s)),
    )
