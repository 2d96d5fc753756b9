"""What the log of a live run has beside a simulation's: a step's ``live``.

``overhead_joules`` of what serves beside the stages, ``machine_joules``, ``replicas`` (what each
was charged with), ``stages`` (live joules per request beside the profile's), ``scales`` of the
joules that the decision counted with, ``corrections`` found at the step's end, ``events`` of
replicas, ``changes`` of stages, and ``notes``. Steps of a simulation have none of it, and no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipa_energy.as_json import as_json
from ipa_energy.runlog.record import Interval
from ipa_energy.serving.observed import Correction, Scale, Spent, StageJoules
from ipa_energy.serving.served import Change, Event, Served

KEY = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStep:
    """What happened to a live pipeline in a step.

    Attributes:
        overhead_j: what serves beside the stages → joules above idle.
        machine_j: of the whole machine, by its meter; None without one.
        replicas: what each was charged with.
        joules: live joules per request of each stage beside the profile's.
        scales: of the profile's joules, as the decision counted with them.
        corrections: drifts that were found at its end.
        events: of replicas, in time.
        changes: of stages, that ended in it.
        notes: on the joules or on serving.
    """

    overhead_j: Mapping[str, float] = field(default_factory=dict)
    machine_j: float | None = None
    replicas: tuple[Spent, ...] = ()
    joules: tuple[StageJoules, ...] = ()
    scales: tuple[Scale, ...] = ()
    corrections: tuple[Correction, ...] = ()
    events: tuple[Event, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def scales_after(self) -> tuple[Scale, ...]:
        """The scales with what was found at the step's end."""
        new = [
            Scale(one.stage, one.variant, one.allocation, one.scale, one.dynamic, one.idle)
            for one in self.corrections
            if one.is_applied
        ]
        scales = {(one.stage, one.variant, one.allocation): one for one in (*self.scales, *new)}
        return tuple(scales.values())


def decided_live(entry: dict[str, Any], interval: Interval) -> dict[str, Any]:
    """``entry`` with what the runner knows of a live interval; itself for others."""
    parts = {
        "stages": interval.joules,
        "scales": interval.scales,
        "corrections": interval.corrections,
    }
    known = {name: as_json(value) for name, value in parts.items() if value}
    return {**entry, KEY: known} if known else entry


def served_live(entry: dict[str, Any], served: Served) -> dict[str, Any]:
    """``entry`` with what one more window of serving adds; itself if that is nothing."""
    parts = (served.overhead_j, served.replicas, served.events, served.changes, served.notes)
    if not any(parts):
        return entry
    live = dict(entry.get(KEY) or {})
    overhead_j = dict(live.get("overhead_joules") or {})
    for name, joules in served.overhead_j.items():
        overhead_j[name] = round(overhead_j.get(name, 0.0) + joules, 6)
    live["overhead_joules"] = overhead_j
    replicas = {one["replica"]: Spent(**one) for one in live.get("replicas") or ()}
    for spent in served.replicas:
        before = replicas.get(spent.replica)
        replicas[spent.replica] = before + spent if before else spent
    live["replicas"] = [_rounded(spent) for spent in replicas.values()]
    told = {"events": served.events, "changes": served.changes, "notes": served.notes}
    for name, more in told.items():
        if more:
            live[name] = [*(live.get(name) or ()), *as_json(more)]
    if served.machine_j is not None:
        live["machine_joules"] = round(live.get("machine_joules", 0.0) + served.machine_j, 6)
    return {**entry, KEY: live}


def parse_live(entry: Mapping[str, Any]) -> LiveStep | None:
    """The step's ``live``; None if it has none."""
    live = entry.get(KEY)
    if not live:
        return None
    return LiveStep(
        overhead_j=live.get("overhead_joules") or {},
        machine_j=live.get("machine_joules"),
        replicas=tuple(Spent(**one) for one in live.get("replicas") or ()),
        joules=tuple(StageJoules(**known(one)) for one in live.get("stages") or ()),
        scales=tuple(Scale(**one) for one in live.get("scales") or ()),
        corrections=tuple(Correction(**one) for one in live.get("corrections") or ()),
        events=tuple(Event(**one) for one in live.get("events") or ()),
        changes=tuple(Change(**known(one)) for one in live.get("changes") or ()),
        notes=tuple(live.get("notes") or ()),
    )


def _rounded(spent: Spent) -> dict[str, Any]:
    found = as_json(spent)
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in found.items()}


def known(one: Mapping[str, Any]) -> dict[str, Any]:
    """Null is NaN."""
    return {name: float("nan") if value is None else value for name, value in one.items()}
