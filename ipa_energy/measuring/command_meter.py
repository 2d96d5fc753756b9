"""The meter of a command: counters of the machine, and the estimate for whoever is charged.

``auto`` is the best that works here. Names joined by ``+`` are measured together. A counter covers
the machine; cpu-time charges the command's own process tree, or the control group that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.measuring.command import TreeMeterFactory
from ipa_energy.measuring.command_tree import CommandTree, TreeMeter
from ipa_energy.meters.base import Meter
from ipa_energy.meters.cgroup import CgroupMeter, find_cgroup
from ipa_energy.meters.composite import CompositeMeter
from ipa_energy.meters.discovery import AUTO, CPU_ESTIMATE, best_here, close_meter, open_meter
from ipa_energy.meters.power_model import PowerModel, power_model_for_this_machine, power_model_in
from ipa_energy.meters.sources import Places
from ipa_energy.records import meters_in


@dataclass(frozen=True, slots=True)
class CommandMeter:
    """A meter for a command, and what is said beside its figures.

    Attributes:
        meter_for: makes the meter once the command's tree exists.
        facts: for the JSON: ``power_model`` and ``relative_error`` of an estimate, ``cgroup``.
        note: for the text, after the meter's name; empty if there is nothing to add.
        own_cpu_s: CPU seconds of what is charged.
        warnings: what ``auto`` leaves out.
    """

    meter_for: TreeMeterFactory
    facts: Mapping[str, Any]
    note: str
    own_cpu_s: Callable[[CommandTree], float]
    warnings: tuple[str, ...] = ()


@contextmanager
def command_meter(
    name: str, places: Places, power_model: Path | None = None
) -> Iterator[CommandMeter]:
    """The meter for a command; counters are tried under load, and closed with the block.

    Args:
        name: ``auto``, or names of meters joined by ``+``.
        places: where to look.
        power_model: file of the cpu-time meter's model; None for this machine's.

    Raises:
        ConfigError: no such meter or model.
        MeterUnavailableError: a counter is dead, denied or absent.
    """
    warnings: tuple[str, ...] = ()
    if name == AUTO:
        found = best_here(places)
        name, warnings = found.auto or CPU_ESTIMATE, found.notes
    parts = meters_in(name)
    model, group = None, None
    if CPU_ESTIMATE in parts:
        model = power_model_in(power_model) if power_model else power_model_for_this_machine()
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
            warnings,
        )
    finally:
        for meter in counters.values():
            close_meter(meter)


def _cgroup_meter(model: PowerModel, places: Places) -> CgroupMeter | None:
    if places.cgroup is None:
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


def _composed(
    parts: Sequence[str],
    counters: Mapping[str, Meter],
    model: PowerModel | None,
    tree: CommandTree,
) -> Meter:
    meters: list[Meter] = [
        TreeMeter(model, tree) if model is not None and part not in counters else counters[part]
        for part in parts
    ]
    return meters[0] if len(meters) == 1 else CompositeMeter(meters)
