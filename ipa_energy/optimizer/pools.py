r"""GPUs that stages share, cut into slices: constraint (6') of :mod:`.problem`.

With :math:`u_{go}` the slices of kind *g* that one replica holds, and :math:`y_p` the GPUs of a
pool that are cut as partition *p*::

    Σ_so u_go·n_so ≤ Σ_p count(p, g)·y_p   for each kind of slice,   Σ_p y_p ≤ GPUs,   y integer

That is no sum of the stages within a limit: which slices there are depends on how the GPUs are cut.
:func:`cut` finds y for what a plan holds, and of several the one that cuts anew the fewest GPUs.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

import numpy as np

from ipa_energy.arrays import Counts, Floats, Ints
from ipa_energy.errors import ConfigError
from ipa_energy.gpu_partitions import GpuPool, Partition
from ipa_energy.records import Option, Stage

Cut = Mapping[Partition, int]
"""Partition → how many GPUs are cut so."""

METHODS = "highs, gurobi, auto or brute-force"
"""The solvers that can plan for pools."""


class Held(Protocol):
    """What a stage may hold: :class:`.problem.Candidates`."""

    @property
    def stage(self) -> Stage: ...  # noqa: D102
    @property
    def option_index(self) -> Ints: ...  # noqa: D102
    @property
    def replicas(self) -> Counts: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class SliceUse:
    """What each candidate holds of a pool, all its replicas together.

    Attributes:
        pool: the GPUs.
        use: per kind of slice, in the order of ``pool.slices``, one array a stage.
    """

    pool: GpuPool
    use: tuple[tuple[Floats, ...], ...]

    @classmethod
    def of(cls, pool: GpuPool, stages: Sequence[Held]) -> SliceUse:
        """That of a problem's candidates."""
        return cls(
            pool,
            tuple(tuple(_held(pool, name, each) for each in stages) for name in pool.slices),
        )

    def select(self, kept: Sequence[Ints]) -> SliceUse:
        """The same for fewer candidates."""
        return SliceUse(
            self.pool,
            tuple(
                tuple(column[index] for column, index in zip(columns, kept, strict=True))
                for columns in self.use
            ),
        )

    def fits(self, choice: Sequence[int]) -> bool:
        """True if the GPUs can be cut so that a choice has the slices that it holds."""
        counts = [sum(int(c[at]) for c, at in zip(cs, choice, strict=True)) for cs in self.use]
        return _fewest_cuts(self.pool, tuple(counts), ()) is not None


def _held(pool: GpuPool, slice_: str, candidates: Held) -> Floats:
    options = candidates.stage.options
    units = np.array(
        [held(pool, slice_, options[index]) for index in candidates.option_index], dtype=np.float64
    )
    return units * candidates.replicas


def held(pool: GpuPool, slice_: str, option: Option) -> int:
    """Slices of a kind that one replica holds of a pool."""
    return round(option.units(slice_)) if option.hardware == pool.name else 0


def require_slices(pools: Sequence[GpuPool], stages: Sequence[Stage]) -> None:
    """Refuse options on a pool's hardware that hold what its GPUs are not cut into.

    Raises:
        ConfigError: such an option, or one that holds a part of a slice.
    """
    if pools:
        importlib.import_module("scipy.optimize")  # else the first decision waits for it
    for pool in pools:
        on_it = [
            (stage, option)
            for stage in stages
            for option in stage.options
            if option.hardware == pool.name
        ]
        for stage, option in on_it:
            resources = [item for item in option.allocation.resources if item[0] != "core"]
            for name, units in resources:
                if name not in pool.slices or units != round(units):
                    raise ConfigError(
                        f"stage {stage.name}, {option.label}: a replica holds {units:g} {name},"
                        f" and GPUs of the pool {pool.name} are not cut so",
                        where="gpus",
                        allowed="whole numbers of " + ", ".join(pool.slices),
                    )


def require_no_pools(pools: Sequence[GpuPool], method: str) -> None:
    """Refuse pools where only sums within limits are understood.

    Raises:
        ConfigError: there are any.
    """
    if pools:
        raise ConfigError(
            f"{method} cannot choose how GPUs are cut, which the key gpus asks for",
            where="gpus",
            allowed=f"method {METHODS}",
            fix="--method highs, or optimization_method: highs",
        )


def cut(pool: GpuPool, counts: Mapping[str, int], before: Cut = MappingProxyType({})) -> Cut | None:
    """How to cut the GPUs for so many slices of each kind; None if they cannot be.

    Args:
        pool: the GPUs.
        counts: kind of slice → how many are held.
        before: how they are cut now: as many as possible are left as they are, and no GPU that is
            not needed is cut anew.
    """
    known = tuple((each, before[each]) for each in pool.partitions if before.get(each))
    needed = tuple(counts.get(name, 0) for name in pool.slices)
    found = _fewest_cuts(pool, needed, known)
    return None if found is None else dict(found)


def cuts_of(
    pools: Sequence[GpuPool],
    running: Sequence[tuple[Option, int]],
    before: Mapping[str, Cut] = MappingProxyType({}),
) -> dict[str, Cut | None]:
    """Pool → how its GPUs are cut for what runs, (option, replicas) each; None if they cannot be.

    Args:
        pools: the GPUs.
        running: what holds slices of them.
        before: pool → how its GPUs are cut now.
    """
    found = {}
    for pool in pools:
        counts = _slices(pool, running)
        found[pool.name] = cut(pool, counts, before.get(pool.name, {}))
    return found


def gpus_used(pool: GpuPool, running: Sequence[tuple[Option, int]], cut: Cut | None) -> float:
    """How many GPUs a cut takes, if it has every slice that runs on it; infinity if it has not."""
    if cut is None:
        return math.inf
    for name, needed in _slices(pool, running).items():
        if sum(part.count(name) * gpus for part, gpus in cut.items()) < needed:
            return math.inf
    return float(sum(cut.values()))


def _slices(pool: GpuPool, running: Sequence[tuple[Option, int]]) -> dict[str, int]:
    """Kind of slice → how many of it (option, replicas) hold."""
    return {
        name: sum(held(pool, name, option) * replicas for option, replicas in running)
        for name in pool.slices
    }


@lru_cache(maxsize=65536)
def _fewest_cuts(
    pool: GpuPool, needed: tuple[int, ...], before: tuple[tuple[Partition, int], ...]
) -> tuple[tuple[Partition, int], ...] | None:
    """The y of this module with the most GPUs left as they are, then the fewest GPUs."""
    if not any(needed):
        return before
    from scipy.optimize import Bounds, LinearConstraint, milp

    parts, kept = pool.partitions, dict(before)
    count = np.array([[part.count(name) for part in parts] for name in pool.slices], dtype=float)
    ones, width = np.eye(len(parts)), len(parts)
    most = np.full(width, float(pool.gpus))
    limits = [
        LinearConstraint(np.hstack([count, 0 * count]), lb=np.array(needed, dtype=float)),
        LinearConstraint(np.repeat([[1.0, 0.0]], width, axis=1), ub=float(pool.gpus)),
        LinearConstraint(np.hstack([-ones, ones]), ub=0.0),
    ]
    as_before = np.array([float(kept.get(part, 0)) for part in parts])
    bounds = Bounds(0, np.concatenate([most, np.minimum(most, as_before)]))
    worth = np.concatenate([np.ones(width), np.full(width, -2.0 * pool.gpus)])
    answer = milp(worth, integrality=np.ones(2 * width), bounds=bounds, constraints=limits)
    if answer.x is None:
        return None
    chosen = [round(float(value)) for value in answer.x[:width]]
    return tuple((part, number) for part, number in zip(parts, chosen, strict=True) if number)
