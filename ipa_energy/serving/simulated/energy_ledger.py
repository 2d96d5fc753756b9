"""Joules of a simulated run: watts that replicas hold over time, and what loads and batches add.

All are piecewise constant, so every figure is an exact integral, whatever the windows: a batch
that runs across the end of a window is paid for in both, in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.records import Option
from ipa_energy.serving.observed import ClassWork, added


@dataclass(frozen=True, slots=True)
class Held:
    """What a stage's replicas hold from ``since_s`` on, until the next entry.

    Attributes:
        since_s: from when.
        power_w: idle watts of all of them; NaN if the profile of one has none.
        cores: cores reserved by all of them.
        meters: meters behind their joules; None if the profile of one has no joules.
        loading_w: watts above idle of those that start.
        embodied_g_per_h: embodied grams an hour of all of them; NaN if the profile of one has none.
    """

    since_s: float
    power_w: float
    cores: float
    meters: frozenset[str] | None
    loading_w: float = 0.0
    embodied_g_per_h: float = math.nan


def held(since_s: float, replicas: Iterable[tuple[Option, int, float]]) -> Held:
    """What ``replicas``, (option, count, loading watts of all), hold."""
    power_w = cores = loading_w = embodied = 0.0
    meters: frozenset[str] | None = frozenset()
    for option, count, loading in replicas:
        if count == 0:
            continue
        power_w += count * option.idle_power_w
        loading_w += loading
        embodied += count * option.embodied_g_per_hour
        cores += count * option.cpu_cores
        if not option.has_energy or option.provenance is None:
            meters = None
        elif meters is not None:
            meters |= {option.provenance.meter}
    return Held(since_s, power_w, cores, meters, loading_w, embodied)


@dataclass(slots=True)
class _StageLedger:
    """One stage's entries since the last close; columns of ``starts_s`` … belong to its batches."""

    holding: list[Held]
    starts_s: list[float] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)
    energies_j: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spent:
    """One window's energy and cores; the fields are those of :class:`.served.Served`."""

    idle_j: Floats
    dynamic_j: Floats
    power_w: Floats
    cores: Floats
    meters: frozenset[str] | None
    loading_j: float
    embodied_g: float
    work: tuple[ClassWork, ...]


def in_all(parts: Sequence[Spent]) -> Spent:
    """What was spent at several places in one window."""
    if len(parts) == 1:
        return parts[0]
    known = [part.meters for part in parts if part.meters is not None]
    meters = frozenset().union(*known) if len(known) == len(parts) else None
    return Spent(
        idle_j=np.sum([part.idle_j for part in parts], axis=0),
        dynamic_j=np.sum([part.dynamic_j for part in parts], axis=0),
        power_w=np.sum([part.power_w for part in parts], axis=0),
        cores=np.sum([part.cores for part in parts], axis=0),
        meters=meters,
        loading_j=sum(part.loading_j for part in parts),
        embodied_g=sum(part.embodied_g for part in parts),
        work=tuple(each for part in parts for each in part.work),
    )


class EnergyLedger:
    """Entries of every stage, closed window by window."""

    def __init__(self, holding: Iterable[Held]) -> None:
        self._stages = [_StageLedger([first]) for first in holding]
        self._work: list[ClassWork] = []

    def hold(self, stage: int, entry: Held) -> None:
        """From ``entry.since_s`` on, the stage's replicas hold what ``entry`` says."""
        self._stages[stage].holding.append(entry)

    def batch(self, stage: int, start_s: float, end_s: float, energy_j: float) -> None:
        """A batch spends ``energy_j`` above idle, evenly from ``start_s`` to ``end_s``."""
        ledger = self._stages[stage]
        ledger.starts_s.append(start_s)
        ledger.ends_s.append(end_s)
        ledger.energies_j.append(energy_j)

    def worked(self, work: ClassWork) -> None:
        """A batch begins, of which this is what one class of requests has."""
        self._work.append(work)

    def close(self, start_s: float, end_s: float) -> Spent:
        """The window's figures; what reaches beyond ``end_s`` is kept for the next window."""
        edges_s = second_edges(start_s, end_s)
        idle_j = np.zeros(len(self._stages))
        dynamic_j = np.zeros(len(self._stages))
        energy_j, core_seconds = np.zeros(len(edges_s) - 1), np.zeros(len(edges_s) - 1)
        meters: frozenset[str] | None = frozenset()
        loading_j = embodied_g = 0.0
        for index, ledger in enumerate(self._stages):
            since_s, power_w, cores, loading_w, embodied = (
                np.array([getattr(entry, name) for entry in ledger.holding])
                for name in ("since_s", "power_w", "cores", "loading_w", "embodied_g_per_h")
            )
            until_s = np.append(since_s[1:], end_s)
            length_s = until_s - since_s.clip(min=start_s)
            real = length_s > 0
            idle_j[index] = (power_w[real] * length_s[real]).sum()
            embodied_g += float((embodied[real] * length_s[real]).sum()) / 3600.0
            energy_j += integrals(since_s, until_s, power_w, edges_s)
            core_seconds += integrals(since_s, until_s, cores, edges_s)
            for entry, exists in zip(ledger.holding, real, strict=True):
                if exists:
                    meters = (
                        None if meters is None or entry.meters is None else meters | entry.meters
                    )
            dynamic_j[index], by_second_j = _close_batches(ledger, edges_s)
            energy_j += by_second_j
            if loading_w.any():
                stage_loading_j = float((loading_w[real] * length_s[real]).sum())
                loading_j += stage_loading_j
                dynamic_j[index] += stage_loading_j
                energy_j += integrals(since_s, until_s, loading_w, edges_s)
            del ledger.holding[:-1]
        width_s = np.diff(edges_s)
        spent = (idle_j, dynamic_j, energy_j / width_s, core_seconds / width_s)
        work, self._work = added(self._work), []
        return Spent(*spent, meters, loading_j, embodied_g, work)


def _close_batches(ledger: _StageLedger, edges_s: Floats) -> tuple[float, Floats]:
    """(joules of the batches within the edges, the same by second); keeps those that go on."""
    if not ledger.starts_s:
        return 0.0, np.zeros(len(edges_s) - 1)
    starts_s, ends_s = np.array(ledger.starts_s), np.array(ledger.ends_s)
    energies_j = np.array(ledger.energies_j)
    first_s, last_s = edges_s[0], edges_s[-1]
    length_s = ends_s - starts_s
    share = (ends_s.clip(max=last_s) - starts_s.clip(min=first_s)) / length_s
    by_second_j = integrals(starts_s, ends_s, energies_j / length_s, edges_s)
    going_on = ends_s > last_s
    ledger.starts_s = starts_s[going_on].tolist()
    ledger.ends_s = ends_s[going_on].tolist()
    ledger.energies_j = energies_j[going_on].tolist()
    return float((energies_j * share).sum()), by_second_j


def second_edges(start_s: float, end_s: float) -> Floats:
    """Edges of the seconds of a window, counted from its start; the last may be shorter."""
    seconds = max(0, math.ceil(end_s - start_s))
    edges_s = start_s + np.arange(seconds + 1, dtype=np.float64)
    edges_s[-1] = end_s
    return edges_s


def integrals(starts: Floats, ends: Floats, rates: Floats, edges: Floats) -> Floats:
    """Integral of Σ rates·[starts ≤ t < ends] between neighbouring ``edges``.

    Args:
        starts: (N,) beginnings of intervals.
        ends: (N,) their ends.
        rates: (N,) the constant rate in each.
        edges: (E + 1,) ascending.

    Returns:
        (E,) one integral a bin.
    """
    bins = len(edges) - 1
    starts, ends = np.maximum(starts, edges[0]), np.minimum(ends, edges[-1])
    real = ends > starts
    starts, ends, rates = starts[real], ends[real], rates[real]
    first = np.searchsorted(edges, starts, side="right") - 1
    spans = np.searchsorted(edges, ends, side="left") - first
    interval = np.repeat(np.arange(len(starts)), spans)
    nth = np.arange(len(interval)) - np.repeat(np.cumsum(spans) - spans, spans)
    where = first[interval] + nth
    overlap = np.minimum(ends[interval], edges[where + 1]) - np.maximum(
        starts[interval], edges[where]
    )
    return np.bincount(where, weights=rates[interval] * overlap, minlength=bins).astype(np.float64)
