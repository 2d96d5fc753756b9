"""``--meter NAME`` → something that measures.

``auto`` takes the best counter that moves under load, with the GPUs' where there are any, and the
cpu-time estimate where the processor has none. Names joined by ``+`` are measured together. A
counter covers the machine; cpu-time charges the measured command's own process tree.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.errors import ConfigError, MeterUnavailableError

if TYPE_CHECKING:
    from ipa_energy.meters.base import Meter
    from ipa_energy.meters.cpu_time import PowerModel
    from ipa_energy.meters.discovery.sources import Places
    from ipa_energy.profiling.command.measure import TreeMeterFactory
    from ipa_energy.profiling.command.tree import CommandTree

METER_HELP = (
    "rapl, perf, nvml, cpu-time, several joined by +, or auto: the best that works here (default)"
)


def add_powercap_option(parser: argparse.ArgumentParser) -> None:
    """``--powercap``, for every verb that may read rapl."""
    parser.add_argument(
        "--powercap",
        type=Path,
        metavar="DIR",
        help="of rapl: the powercap folder, where a container mounts the host's elsewhere "
        "(default: /sys/class/powercap)",
    )


@dataclass(frozen=True, slots=True)
class CommandMeter:
    """A meter for a command, and what is said beside its figures.

    Attributes:
        meter_for: makes the meter once the command's tree exists.
        facts: for the JSON: ``power_model`` and ``relative_error`` of an estimate.
        note: for the text, after the meter's name; empty if there is nothing to add.
    """

    meter_for: TreeMeterFactory
    facts: Mapping[str, Any]
    note: str


@contextmanager
def command_meter(args: argparse.Namespace) -> Iterator[CommandMeter]:
    """The meter for a command; counters are tried under load, and closed with the block.

    Args:
        args: ``meter``: ``auto``, or names of meters joined by ``+``; ``power_model``: file of the
            cpu-time meter's model, None for this machine's; ``powercap`` and ``prometheus``:
            where to look, None for the usual places.

    Raises:
        ConfigError: no such meter or model.
        MeterUnavailableError: a counter is dead, denied or absent.
    """
    from ipa_energy.meters.discovery.discover import (
        AUTO,
        CPU_ESTIMATE,
        close_meter,
        discover,
        open_meter,
    )

    places = _places(args.powercap, args.prometheus)
    name = args.meter if args.meter != AUTO else discover(places).auto or CPU_ESTIMATE
    parts = name.split("+")
    model = _power_model(args.power_model) if CPU_ESTIMATE in parts else None
    counters: dict[str, Meter] = {}
    try:
        for part in parts:
            if part != CPU_ESTIMATE:
                counters[part] = open_meter(part, places)
        yield CommandMeter(
            lambda tree: _composed(parts, counters, model, tree),
            {"power_model": model.to_json(), "relative_error": model.relative_error}
            if model
            else {},
            f", good to ±{100 * model.relative_error:.0f} %" if model else "",
        )
    finally:
        for meter in counters.values():
            close_meter(meter)


@contextmanager
def counter(args: argparse.Namespace) -> Iterator[Meter]:
    """A real counter of the processors' energy, to calibrate against.

    Args:
        args: ``meter``: ``auto``, ``rapl`` or ``perf``; ``powercap``: where to look, or None.

    Raises:
        ConfigError: no such counter.
        MeterUnavailableError: there is none that moves.
    """
    from ipa_energy.meters.discovery.discover import (
        AUTO,
        CPU_COUNTERS,
        close_meter,
        discover,
        open_meter,
    )

    name, places = args.meter, _places(args.powercap, None)
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


def _places(powercap: Path | None, prometheus_url: str | None) -> Places:
    from ipa_energy.meters.discovery.sources import Places
    from ipa_energy.meters.rapl.powercap import POWERCAP

    return Places(powercap=powercap or POWERCAP, prometheus_url=prometheus_url)


def _power_model(path: Path | None) -> PowerModel:
    from ipa_energy.meters.cpu_time import PowerModel
    from ipa_energy.meters.stored_model import power_model_for_this_machine

    return power_model_for_this_machine() if path is None else PowerModel.load(path)


def _composed(
    parts: list[str], counters: Mapping[str, Meter], model: PowerModel | None, tree: CommandTree
) -> Meter:
    from ipa_energy.meters.composite import CompositeMeter
    from ipa_energy.profiling.command.tree import TreeMeter

    meters: list[Meter] = [
        TreeMeter(model, tree) if model is not None and part not in counters else counters[part]
        for part in parts
    ]
    return meters[0] if len(meters) == 1 else CompositeMeter(meters)
