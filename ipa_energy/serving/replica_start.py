"""What changes for a replica, and in how many seconds what is wanted serves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ipa_energy.gpu_partitions import SLICE
from ipa_energy.records import Option, Stage

IPA_RECONFIGURATION_S = 8.0
"""Time until new replicas serve where nobody measured it; about what IPA's take on its cluster."""


Told = float | Mapping[str, float] | None
"""``reconfiguration_s`` of the YAML: one time for every change, or knob → time; None: as profiled,
for the option's variant and allocation, or :data:`IPA_RECONFIGURATION_S`. So are knobs not named.
"""

IN_PLACE = ("cores", "clock")
"""Knobs that are turned while a replica serves, if their time is told: no other one is started."""


def knob_of(before: Option | None, after: Option) -> str:
    """What changes for a replica, of several things the slowest.

    ``replicas`` (it is one more), ``variant``, ``cores``, ``clock`` (or a power cap) or
    ``partition`` (another slice of a GPU).
    """
    if before is None or (before.variant, before.allocation) == (after.variant, after.allocation):
        return "replicas"
    one, other = dict(before.allocation.resources), dict(after.allocation.resources)
    labels = set(before.allocation.labels) ^ set(after.allocation.labels)
    cores = one.pop("core", 0.0) != other.pop("core", 0.0)
    if any(name.startswith(SLICE) for name in {*one, *other}) and one != other:
        return "partition"
    if before.variant != after.variant or one != other:
        return "variant"
    if not {name for name, _ in labels} <= {"clock_mhz", "power_cap_w"}:
        return "variant"
    return "cores" if cores else "clock"


def ready_after_s(option: Option, told_s: Told, before: Option | None = None) -> float:
    """Seconds from the start of a change until what it brings serves.

    A slice of a GPU is cut before a replica starts on it, so the two times add up.

    Args:
        option: what is to run.
        told_s: see :data:`Told`.
        before: what ran in its place.
    """
    profiled_s = IPA_RECONFIGURATION_S if math.isnan(option.load_s) else option.load_s
    if told_s is None:
        return profiled_s
    if not isinstance(told_s, Mapping):
        return told_s
    start_s = told_s.get("replicas" if knob_of(before, option) == "replicas" else "variant")
    start_s = profiled_s if start_s is None else start_s
    knob = knob_of(before, option)
    if knob == "partition":
        return told_s.get("partition", 0.0) + start_s
    return told_s.get(knob, start_s)


def is_in_place(option: Option, told_s: Told, before: Option | None) -> bool:
    """True if replicas of ``before`` become ``option`` without another one being started."""
    if not isinstance(told_s, Mapping):
        return False
    knob = knob_of(before, option)
    return knob in IN_PLACE and knob in told_s


def replica_start(stages: Sequence[Stage], told_s: Told) -> str:
    """What starting a replica of these stages is taken to need, and who says so, for people."""
    options = [option for stage in stages for option in stage.options]
    if isinstance(told_s, Mapping):
        knobs = ", ".join(f"{knob} {seconds:g} s" for knob, seconds in told_s.items())
        return f"{knobs}, as reconfiguration_s says; else {replica_start(stages, None)}"
    known_s = [ready_after_s(option, told_s) for option in options]
    if told_s is not None:
        source = "as reconfiguration_s says"
    elif any(math.isnan(option.load_s) for option in options):
        source = "as IPA's where the profile has none"
    else:
        source = "as profiled"
    loads_j = [option.load_energy_j for option in options if not math.isnan(option.load_energy_j)]
    joules = f"{_range(loads_j)} J, as profiled" if loads_j else "its joules are not known"
    return f"{_range(known_s)} s, {source}; {joules}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"
