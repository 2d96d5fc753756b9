"""The first stages of plans, grown by one stage after the other for :mod:`.front`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.optimizer.problem import Candidates, Problem
from ipa_energy.optimizer.sweep import pareto_points
from ipa_energy.optimizer.table import Resource

EQUAL_RTOL = 1e-10
"""Figures closer than this share of the largest possible one are equal."""

_CHUNK = 1_000_000
"""Most beginnings made at once: bounds the memory (about 100 bytes each)."""


@dataclass(frozen=True, slots=True)
class Beginnings:
    """Plans of the first stages, one entry each, in the order of their choices."""

    accuracy: Floats
    cost_cores: Floats
    delay_s: Floats
    energy_j: Floats
    batch: Floats
    parent: Ints
    option: Ints

    def __len__(self) -> int:
        return len(self.accuracy)

    def take(self, index: Ints) -> Beginnings:
        """Some of them, in the order of ``index``."""
        return Beginnings(*(getattr(self, name)[index] for name in self.__slots__))

    def followed_by(self, other: Beginnings) -> Beginnings:
        """These and then the others."""
        return Beginnings(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in self.__slots__
            )
        )


class Growth:
    """How plans of one problem grow by a stage, and which of them are worth keeping.

    Args:
        problem: no stage of it is empty.
        most: beginnings held at once.
    """

    def __init__(self, problem: Problem, most: int) -> None:
        stages, settings = problem.stages, problem.settings
        self._most = most
        self._product = settings.accuracy_method == "multiply"
        energy_j = [candidates.energy_j for candidates in stages]
        if any(np.isnan(joules).any() for joules in energy_j):
            energy_j = [np.zeros(len(joules)) for joules in energy_j]
        self._stages = [
            Beginnings(
                accuracy=candidates.accuracy,
                cost_cores=reserved_cores(candidates),
                delay_s=candidates.delay_s,
                energy_j=joules,
                batch=_batches(candidates),
                parent=np.arange(0),
                option=np.arange(len(candidates)),
            )
            for candidates, joules in zip(stages, energy_j, strict=True)
        ]
        self._delay = _resource([stage.delay_s for stage in stages], settings.latency_sla_s)
        self._energy = _resource(energy_j, settings.energy_sla_joules)
        self._units = self._rounding_units()

    def _rounding_units(self) -> list[float]:
        """Of accuracy, cost, latency, energy: what is less than this apart is equal."""
        units = []
        for name in ("accuracy", "cost_cores", "delay_s", "energy_j"):
            columns = [np.abs(getattr(stage, name)) for stage in self._stages]
            largest = [float(column.max()) for column in columns]
            product = name == "accuracy" and self._product
            units.append(EQUAL_RTOL * (math.prod(largest) if product else sum(largest)) or 1.0)
        return units

    def beginnings(self) -> Beginnings:
        """The one plan of no stage."""
        zero, first = np.zeros(1), np.zeros(1, dtype=np.intp)
        accuracy = np.ones(1) if self._product else zero
        return Beginnings(accuracy, zero, zero, zero, zero, first, first)

    def extended(self, before: Beginnings, stage: int) -> Beginnings | None:
        """Beginnings one stage longer, feasible and not beaten; None if there are too many."""
        rows = max(1, _CHUNK // len(self._stages[stage]))
        found: Beginnings | None = None
        for start in range(0, max(1, len(before)), rows):
            grown = self._grown(before, start, start + rows, stage)
            found = self._best(grown if found is None else found.followed_by(grown), stage)
            if found is None:
                break
        return found

    def _grown(self, before: Beginnings, start: int, stop: int, stage: int) -> Beginnings:
        part, options = before.take(np.arange(start, min(stop, len(before)))), self._stages[stage]

        def combined(name: str) -> Floats:
            old, new = getattr(part, name)[:, None], getattr(options, name)
            product = name == "accuracy" and self._product
            return np.asarray(old * new if product else old + new).ravel()

        flat = np.arange(len(part) * len(options))
        grown = Beginnings(
            combined("accuracy"),
            combined("cost_cores"),
            combined("delay_s"),
            combined("energy_j"),
            combined("batch"),
            parent=flat // len(options) + start,
            option=flat % len(options),
        )
        fits = np.ones(len(flat), dtype=bool)
        last = stage == len(self._stages) - 1
        for used, resource in ((grown.delay_s, self._delay), (grown.energy_j, self._energy)):
            if resource is not None:
                rest = resource.suffix(np.minimum)[stage + 1]
                fits &= used <= (resource.limit if last else resource.loose_limit - rest)
        return grown.take(np.flatnonzero(fits))

    def _best(self, beginnings: Beginnings, stage: int) -> Beginnings | None:
        columns = [
            -beginnings.accuracy,
            beginnings.cost_cores,
            beginnings.delay_s,
            beginnings.energy_j,
        ]
        # A beginning's use of an SLA counts to the last bit: rounded, one that fits could fall.
        bound = (None, None, self._delay, self._energy)
        last = stage == len(self._stages) - 1
        rounded = [
            np.round(column / unit) if last or resource is None else column
            for column, unit, resource in zip(columns, self._units, bound, strict=True)
        ]
        kept = pareto_points(rounded, beginnings.batch, self._most)
        return None if kept is None else beginnings.take(kept)


def reserved_cores(candidates: Candidates) -> Floats:
    """n·c of each candidate of a stage."""
    cores = [candidates.stage.options[index].cpu_cores for index in candidates.option_index]
    return np.asarray(candidates.replicas * np.array(cores), dtype=np.float64)


def _batches(candidates: Candidates) -> Floats:
    options = candidates.stage.options
    return np.array([options[index].batch for index in candidates.option_index], dtype=np.float64)


def _resource(use: Sequence[Floats], cap: float | None) -> Resource | None:
    return None if cap is None else Resource.of(use, cap)
