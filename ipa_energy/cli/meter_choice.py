"""``--meter NAME`` → something that measures.

``auto`` takes the meter that other options are about, else the best counter that moves under load,
with the GPUs' where there are any, and the cpu-time estimate where the processor has none. Names
joined by ``+`` are measured together. A counter covers the machine; cpu-time charges the measured
command's own process tree, or the control group that is named.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.meter_options import chosen_meter, places_of
from ipa_energy.errors import ConfigError, MeterUnavailableError

if TYPE_CHECKING:
    from ipa_energy.measuring.command import TreeMeterFactory
    from ipa_energy.measuring.process_tree import CommandTree
    from ipa_energy.meters.base import Meter
    from ipa_energy.meters.cgroup import CgroupMeter
    from ipa_energy.meters.power_model import PowerModel
    from ipa_energy.meters.sources import Places

METER_HELP = (
    "rapl, perf, nvml, kepler, dcgm, prometheus, cpu-time, several joined by +, or auto: what the "
    "options below are about, else the best that works here (default)"
)


@dataclass(frozen=True, slots=True)
class CommandMeter:
    """A meter for a command, and what is said beside its figures.

    Attributes:
        meter_for: makes the meter once the command's tree exists.
        facts: for the JSON: ``power_model`` and ``relative_error`` of an estimate, ``cgroup``.
        note: for the text, after the meter's name; empty if there is nothing to add.
        own_cpu_s: CPU seconds of what is charged.
    """

    meter_for: TreeMeterFactory
    facts: Mapping[str, Any]
    note: str
    own_cpu_s: Callable[[CommandTree], float]


@contextmanager
def command_meter(args: argparse.Namespace) -> Iterator[CommandMeter]:
    """The meter for a command; counters are tried under load, and closed with the block.

    Args:
        args: ``meter``: ``auto``, or names of meters joined by ``+``; ``power_model``: file of the
            cpu-time meter's model, None for this machine's; and where to look
            (:func:`.meter_options.places_of`).

    Raises:
        ConfigError: no such meter or model.
        MeterUnavailableError: a counter is dead, denied or absent.
    """
    from ipa_energy.meters.discovery import AUTO, CPU_ESTIMATE, close_meter, discover, open_meter

    places, name = places_of(args), chosen_meter(args)
    if name == AUTO:
        name = discover(places).auto or CPU_ESTIMATE
    parts = name.split("+")
    model = _power_model(args.power_model) if CPU_ESTIMATE in parts else None
    group = _cgroup_meter(model, places)
    counters: dict[str, Meter] = {} if group is None else {CPU_ESTIMATE: group}
    try:
        for part in parts:
            if part != CPU_ESTIMATE:
                counters[part] = open_meter(part, places)
        yield CommandMeter(
            lambda tree: _composed(parts, counters, model, tree),
            _facts(model, group),
            _note(model, group),
            (lambda _: group.cgroup.cpu_s()) if group else (lambda tree: tree.cpu_s()),
        )
    finally:
        for meter in counters.values():
            close_meter(meter)


def _cgroup_meter(model: PowerModel | None, places: Places) -> CgroupMeter | None:
    from ipa_energy.meters.cgroup import CgroupMeter, find_cgroup

    if model is None or places.cgroup is None:
        return None
    group = find_cgroup(places.cgroup, places.cgroups)
    return CgroupMeter(model, group, reserved_cores=places.reserved_cores)


def _facts(model: PowerModel | None, group: CgroupMeter | None) -> dict[str, Any]:
    if model is None:
        return {}
    facts = {"power_model": model.to_json(), "relative_error": model.relative_error}
    if group is not None:
        facts["cgroup"] = {
            "folder": str(group.cgroup.folder),
            "reserved_cores": group.reserved_cores,
            "idle_power_w": group.reserved_cores * model.idle_w_per_core,
        }
    return facts


def _note(model: PowerModel | None, group: CgroupMeter | None) -> str:
    whose = f" of cgroup {group.cgroup.name}" if group is not None else ""
    return f"{whose}, good to ±{100 * model.relative_error:.0f} %" if model is not None else ""


@contextmanager
def counter(args: argparse.Namespace) -> Iterator[Meter]:
    """A real counter of the processors' energy, to calibrate against.

    Args:
        args: ``meter``: ``auto``, ``rapl`` or ``perf``; ``powercap``: where to look, or None.

    Raises:
        ConfigError: no such counter.
        MeterUnavailableError: there is none that moves.
    """
    from ipa_energy.meters.discovery import AUTO, CPU_COUNTERS, close_meter, discover, open_meter
    from ipa_energy.meters.sources import POWERCAP, Places

    name, places = args.meter, Places(powercap=args.powercap or POWERCAP)
    if name not in (AUTO, *CPU_COUNTERS):
        raise ConfigError(
            f"{name} is no counter of the processors' energy",
            where="--meter",
            allowed=", ".join((AUTO, *CPU_COUNTERS)),
        )
    if name == AUTO:
        statuses = [status for status in discover(places).statuses if status.name in CPU_COUNTERS]
        name = next((status.name for status in statuses if status.state == "measured"), "")
        if not name:
            found = "; ".join(f"{s.name} is {s.state}: {s.reason}" for s in statuses)
            raise MeterUnavailableError(f"{found}. {_UNCALIBRATED}")
    try:
        meter = open_meter(name, places)
    except MeterUnavailableError as error:
        raise MeterUnavailableError(f"{error}. {_UNCALIBRATED}") from error
    try:
        yield meter
    finally:
        close_meter(meter)


_UNCALIBRATED = (
    "Without a counter there is nothing to calibrate against, and the cpu-time meter stays an "
    "estimate good to ±50 %"
)


def _power_model(path: Path | None) -> PowerModel:
    from ipa_energy.meters.power_model import power_model_for_this_machine, power_model_in

    return power_model_for_this_machine() if path is None else power_model_in(path)


def _composed(
    parts: list[str], counters: Mapping[str, Meter], model: PowerModel | None, tree: CommandTree
) -> Meter:
    from ipa_energy.measuring.process_tree import TreeMeter
    from ipa_energy.meters.composite import CompositeMeter

    meters: list[Meter] = [
        TreeMeter(model, tree) if model is not None and part not in counters else counters[part]
        for part in parts
    ]
    return meters[0] if len(meters) == 1 else CompositeMeter(meters)
