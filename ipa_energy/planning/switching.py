"""What it costs to move from one configuration to another, in joules and in time.

The one account of a change that whoever plans over time counts with; the simulation
(:mod:`ipa_energy.serving.simulated.replicas`) charges the same, replica by replica. With n replicas
of idle watts p before a change and n' of p' after it, L the time until a new replica serves, E the
joules of loading it and T the time that a stopped one stays while it drains::

                     replicas that start     joules of loading     joules held
    same server      max(0, n' − n)          E' · started          max(0, n − n')·p·T
    another server   n'                      E' · n'               n·p·(L' + T)

The same server is the same variant on the same allocation: another batch size costs nothing.
*Held* are idle joules of replicas that are not wanted any more: with another server the old ones
serve until the new ones are ready. Idle joules of the new ones from their start on are those of the
new configuration itself, and so are no part of this.

Until the new replicas serve, what existed before does: with the same server as many of its replicas
as stay, else all of the old ones.

Where ``reconfiguration_s`` is told knob by knob, L depends on what changes; cores and clocks that
change in place load nothing and hold nothing, for as many replicas as there were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints, Mask
from ipa_energy.records import Option, Stage
from ipa_energy.serving.deployment import (
    DeployedStage,
    Deployment,
    Told,
    is_in_place,
    ready_after_s,
)
from ipa_energy.serving.simulated.replicas import Server, server_of


@dataclass(frozen=True, slots=True)
class Switches:
    """What changes from B configurations to A others cost; arrays are (B, A).

    Attributes:
        load_j: joules above idle of loading replicas; what was not measured counts as none.
        held_j: idle joules of replicas that are not wanted any more.
        ready_after_s: until the new configuration serves; 0 where no replica has to start.
        meanwhile_rps: pipeline requests per second that are sustained until then.
        meanwhile_j: dynamic joules of a pipeline request until then.
        held_core_s: core seconds of replicas that are not wanted any more.
    """

    load_j: Floats
    held_j: Floats
    ready_after_s: Floats
    meanwhile_rps: Floats
    meanwhile_j: Floats
    held_core_s: Floats

    @property
    def joules(self) -> Floats:
        """All joules of a change."""
        return self.load_j + self.held_j


def switches(
    stages: Sequence[Stage],
    before: Sequence[Deployment],
    after: Sequence[Deployment],
    *,
    reconfiguration_s: Told,
    drain_s: float = 0.0,
) -> Switches:
    """What it costs to go from each of some configurations to each of others.

    Args:
        stages: the pipeline.
        before: B configurations.
        after: A configurations.
        reconfiguration_s: as in the YAML; None: what the profile says of each variant.
        drain_s: how long a stopped replica stays.
    """
    shape = (len(before), len(after))
    found = Switches(*(np.zeros(shape) for _ in range(6)))
    found.meanwhile_rps.fill(np.inf)
    for index, stage in enumerate(stages):
        number: dict[Server, int] = {}
        one, from_ = _Side.of([plan[index] for plan in before], number, reconfiguration_s)
        other, to = _Side.of([plan[index] for plan in after], number, reconfiguration_s)
        changes = _Changes.of(one, other, reconfiguration_s)
        pairs, mine = np.ix_(from_, to), _of_stage(one, other, changes, drain_s)
        np.add(found.load_j, mine.load_j[pairs], out=found.load_j)
        np.add(found.held_j, mine.held_j[pairs], out=found.held_j)
        np.add(found.held_core_s, mine.held_core_s[pairs], out=found.held_core_s)
        ready_s, share = mine.ready_after_s[pairs], stage.requests_per_input
        np.maximum(found.ready_after_s, ready_s, out=found.ready_after_s)
        meanwhile_rps = mine.meanwhile_rps[pairs] / share
        np.minimum(found.meanwhile_rps, meanwhile_rps, out=found.meanwhile_rps)
        np.add(found.meanwhile_j, share * mine.meanwhile_j[pairs], out=found.meanwhile_j)
    return found


@dataclass(frozen=True, slots=True)
class _Side:
    """What one stage runs in each of some distinct configurations, as columns."""

    server: Ints
    replicas: Floats
    idle_w: Floats
    load_j: Floats
    ready_s: Floats
    throughput_rps: Floats
    dynamic_j: Floats
    cores: Floats
    options: tuple[Option, ...]

    @classmethod
    def of(
        cls, runs: Sequence[DeployedStage], number: dict[Server, int], told_s: Told
    ) -> tuple[_Side, Ints]:
        """The distinct ones of ``runs``, and which of them each is."""
        places: dict[tuple[int, int, int], int] = {}
        distinct: list[DeployedStage] = []
        which = []
        for run in runs:
            server = number.setdefault(server_of(run.option), len(number))
            key = (server, run.option.batch, run.replicas)
            if key not in places:
                places[key] = len(distinct)
                distinct.append(run)
            which.append(places[key])
        ready_s = np.array([ready_after_s(run.option, told_s) for run in distinct])
        load_j = np.array([run.option.load_energy_j for run in distinct])
        found = cls(
            server=np.array([number[server_of(run.option)] for run in distinct], dtype=np.intp),
            replicas=np.array([run.replicas for run in distinct], dtype=np.float64),
            idle_w=np.array([run.option.idle_power_w for run in distinct]),
            # A replica that is told to be ready at once is not charged for loading.
            load_j=np.where(np.isnan(load_j) | (ready_s == 0), 0.0, load_j),
            ready_s=ready_s,
            throughput_rps=np.array([run.option.throughput_rps for run in distinct]),
            dynamic_j=np.array([run.option.dynamic_energy_j for run in distinct]),
            cores=np.array([run.option.cpu_cores for run in distinct]),
            options=tuple(run.option for run in distinct),
        )
        return found, np.array(which, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class _Changes:
    """Of one stage from each configuration to each other: (B, A), or (A,) for every B alike."""

    ready_s: Floats
    in_place: Mask

    @classmethod
    def of(cls, one: _Side, other: _Side, told_s: Told) -> _Changes:
        if not isinstance(told_s, Mapping):
            return cls(other.ready_s, np.zeros(len(other.server), dtype=bool))
        pairs = [[(after, told_s, before) for after in other.options] for before in one.options]
        return cls(
            np.array([[ready_after_s(*pair) for pair in row] for row in pairs]),
            np.array([[is_in_place(*pair) for pair in row] for row in pairs]),
        )


def _of_stage(one: _Side, other: _Side, changes: _Changes, drain_s: float) -> Switches:
    """From each configuration of one stage to each other, in requests of the stage."""
    same = one.server[:, None] == other.server
    n, after = one.replicas[:, None], other.replicas
    starting = np.where(same | changes.in_place, np.maximum(after - n, 0.0), after)
    turned = changes.in_place & (after > 0)
    ready_s = np.where((starting > 0) | turned, changes.ready_s, 0.0)
    stays = same | changes.in_place
    stopping = np.where(stays, np.maximum(n - after, 0.0), n)
    held_s = stopping * (np.where(stays, 0.0, ready_s) + drain_s)
    serves = stays & ~changes.in_place
    kept_rps = np.minimum(n, after) * other.throughput_rps
    return Switches(
        load_j=starting * other.load_j,
        held_j=held_s * one.idle_w[:, None],
        ready_after_s=ready_s,
        meanwhile_rps=np.where(serves, kept_rps, n * one.throughput_rps[:, None]),
        meanwhile_j=np.where(serves, other.dynamic_j, one.dynamic_j[:, None]),
        held_core_s=held_s * one.cores[:, None],
    )
