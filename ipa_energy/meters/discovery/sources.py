"""The meters by name: how each is tried, and how it is opened.

A meter joins by an entry in :data:`SOURCES`. Its module is imported when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Meter
from ipa_energy.meters.cgroup import CGROUPS
from ipa_energy.meters.discovery.busy import BusyCores
from ipa_energy.meters.discovery.scraped import open_dcgm, open_kepler, open_query, probe_query
from ipa_energy.meters.discovery.tried import CounterMeter, tried
from ipa_energy.meters.fault import MeterFault
from ipa_energy.meters.perf.meter import POWER_PMU, PerfMeter
from ipa_energy.meters.rapl.meter import RaplMeter
from ipa_energy.meters.rapl.powercap import POWERCAP, zone_names
from ipa_energy.meters.status import MeterStatus

if TYPE_CHECKING:
    from ipa_energy.meters.prometheus.kepler import KeplerTarget
    from ipa_energy.meters.prometheus.meter import PrometheusMeter
    from ipa_energy.meters.prometheus.query import WindowQuery


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
        query: what ``prometheus`` asks for.
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
    query: WindowQuery | None = None
    cgroups: Path = CGROUPS
    cgroup: str | None = None
    pid: int = field(default_factory=os.getpid)
    reserved_cores: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of meter.

    Attributes:
        probe: tries it and says what was found; raises nothing for a meter that does not work.
            Keep the machine busy meanwhile.
        open: a meter that passed its trial; raises MeterUnavailableError otherwise.
    """

    probe: Callable[[Places], MeterStatus]
    open: Callable[[Places], Meter]


def _tried_rapl(places: Places) -> tuple[CounterMeter, MeterStatus]:
    names = zone_names(places.powercap)
    platform_only = "psys" in names and not any(name.startswith("package") for name in names)
    return tried(
        lambda leave_out: RaplMeter(places.powercap, psys=platform_only, leave_out=leave_out)
    )


def _tried_perf(places: Places) -> tuple[CounterMeter, MeterStatus]:
    return tried(lambda leave_out: PerfMeter(places.pmu, leave_out=leave_out))


def _counter(attempt: Callable[[Places], tuple[CounterMeter, MeterStatus]]) -> Source:
    """A source whose counters are believed after they moved under load."""

    def probe(places: Places) -> MeterStatus:
        try:
            meter, status = attempt(places)
        except MeterFault as fault:
            return fault.status()
        meter.close()
        return status

    def open_tried(places: Places) -> Meter:
        with BusyCores():
            return attempt(places)[0]

    return Source(probe, open_tried)


def _probe_nvml(places: Places) -> MeterStatus:
    from ipa_energy.meters.nvml.meter import NvmlMeter

    return NvmlMeter().probe()


def _open_nvml(places: Places) -> Meter:
    from ipa_energy.meters.nvml.meter import NvmlMeter

    meter = NvmlMeter()
    _ = meter.update_period_s  # watches the counters, and raises where they cannot be believed
    return meter


def _probe_nvml_power(places: Places) -> MeterStatus:
    from ipa_energy.meters.nvml.power import NvmlPowerMeter

    meter = NvmlPowerMeter()
    status = meter.probe()
    meter.close()
    return status


def _open_nvml_power(places: Places) -> Meter:
    from ipa_energy.meters.nvml.power import NvmlPowerMeter

    meter = NvmlPowerMeter()
    meter.read()  # raises where there is no GPU or no power sensor
    return meter


def _scraped(open_scraped: Callable[[Places], PrometheusMeter]) -> Source:
    """A source that a Prometheus server scrapes."""

    def probe(places: Places) -> MeterStatus:
        try:
            return open_scraped(places).probe()
        except MeterFault as fault:
            return fault.status()

    return Source(probe, open_scraped)


def _probe_cpu_time(places: Places) -> MeterStatus:
    from ipa_energy.meters.cgroup import CgroupMeter, find_cgroup
    from ipa_energy.meters.cpu_time import UNCALIBRATED_RELATIVE_ERROR, CpuTimeMeter
    from ipa_energy.meters.stored_model import power_model_for_this_machine

    name, min_window_s = CpuTimeMeter.name, CpuTimeMeter.min_window_s
    try:
        model = power_model_for_this_machine()
        if places.cgroup is not None:
            group = find_cgroup(places.cgroup, places.cgroups)
            meter = CgroupMeter(model, group, reserved_cores=places.reserved_cores)
            meter.read()
            min_window_s = meter.min_window_s
            whose = f"of cgroup {group.name}, idle power of {meter.reserved_cores:g} cores, "
        else:
            whose = _charged(places)
    except MeterFault as fault:
        return fault.status()
    except ConfigError as error:
        return MeterStatus(name, "absent", str(error))
    prior = model.relative_error >= UNCALIBRATED_RELATIVE_ERROR
    return MeterStatus(
        name,
        "estimated",
        f"CPU time {whose}× a power model, good to ±{100 * model.relative_error:.0f} %. "
        f"{model.source}",
        "calibrate it against a counter where one can be read: ipa-energy calibrate"
        if prior
        else None,
        domains=("cpu-dynamic", "cpu-idle"),
        min_window_s=min_window_s,
    )


def _charged(places: Places) -> str:
    """What CPU time can be told apart here, in words."""
    from ipa_energy.meters.cgroup import hierarchies

    found = hierarchies(places.cgroups)
    if not found:
        return f"of a process tree (no cgroups with CPU time under {places.cgroups}) "
    where = ", ".join(f"version {version} at {top}" for top, version in found)
    return f"of a process tree, or of a cgroup by --cgroup ({where}), "


def _open_cpu_time(places: Places) -> Meter:
    from ipa_energy.meters.cgroup import CgroupMeter, find_cgroup
    from ipa_energy.meters.cpu_time import CpuTimeMeter
    from ipa_energy.meters.stored_model import power_model_for_this_machine

    model = power_model_for_this_machine()
    if places.cgroup is not None:
        group = find_cgroup(places.cgroup, places.cgroups)
        return CgroupMeter(model, group, reserved_cores=places.reserved_cores)
    return CpuTimeMeter(
        model, pid=places.pid, reserved_cores=places.reserved_cores or float(model.cores)
    )


SOURCES: dict[str, Source] = {
    "rapl": _counter(_tried_rapl),
    "perf": _counter(_tried_perf),
    "nvml": Source(_probe_nvml, _open_nvml),
    "nvml-power": Source(_probe_nvml_power, _open_nvml_power),
    "kepler": _scraped(open_kepler),
    "dcgm": _scraped(open_dcgm),
    "prometheus": Source(probe_query, open_query),
    "cpu-time": Source(_probe_cpu_time, _open_cpu_time),
}
"""Every meter that can be opened by name, in the order they are shown in."""
