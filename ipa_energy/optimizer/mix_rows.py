"""The linear program of a mix: its variables and its rows, by the equations of :mod:`.mixing`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.energy import ROUNDING_RTOL
from ipa_energy.gpu_partitions import GpuPool
from ipa_energy.optimizer.linear import SCALE, LinearProgram, Rows
from ipa_energy.optimizer.mixing import CAP_ROOM, MixProgram, class_of
from ipa_energy.optimizer.plan import SHARE_RTOL
from ipa_energy.optimizer.pools import held
from ipa_energy.optimizer.quantities import is_latency
from ipa_energy.optimizer.settings import Cap

_MOST_GPUS = 1024
"""More of them are not looked for in a pool."""


def linear_mix(
    mix: MixProgram, objective: tuple[Floats, Floats, Floats] | None = None
) -> LinearProgram | None:
    """The program with an objective; None if it is plainly infeasible.

    Args:
        mix: what may run.
        objective: worth of a replica, of a share, and of a use; None: what the elastic limits are
            exceeded by, each as a share of what it is.
    """
    if mix.unserved:
        return None
    rows = _MixRows(mix)
    rows.split()
    rows.replicas(mix.enforced)
    rows.places()
    delays_s = mix.delays_s()
    for cap in mix.caps:
        if is_latency(cap.quantity):
            rows.delays(cap, delays_s)
        else:
            rows.cap(cap, mix.amounts(cap.quantity))
    for index, pool in enumerate(mix.pools):
        rows.pool(index, pool)
    return replace(rows.worth(objective), is_delicate=len(mix.classes) > 1)


class Layout:
    """Where the variables of a program are: z (U,), n (U,), x (U, K).

    Of a class x is here the share of the requests of that class, so that all classes are of one
    size: HiGHS 1.16 missed optima, without a word, where one class had few of the requests.

    ``levels`` choose the delay of a stage and class, ``cutoffs`` how two stages divide an SLA
    between them, and ``parts`` a site's share of the load by cutoff; ``cuts`` are how the GPUs of a
    pool are cut, and ``over`` is what the elastic caps are exceeded by.
    """

    def __init__(self, program: MixProgram) -> None:
        uses, classes = len(program.uses), len(program.classes)
        self.z = np.arange(uses)
        width = uses
        self.levels = {}
        for key, delays_s in program.levels_s.items():
            self.levels[key] = width + np.arange(len(delays_s))
            width += len(delays_s)
        self.cutoffs = {}
        for path, cutoffs_s in program.cutoffs_s.items():
            self.cutoffs[path] = width + np.arange(len(cutoffs_s))
            width += len(cutoffs_s)
        self.binaries = width
        self.n = width + np.arange(uses)
        width += uses
        self.cuts = []
        for pool in program.pools:
            self.cuts.append(width + np.arange(len(pool.partitions)))
            width += len(pool.partitions)
        self.integers = width
        self.x = (self.integers + np.arange(uses * classes)).reshape(uses, classes)
        width = self.integers + uses * classes
        self.parts = {}
        for path, chosen in self.cutoffs.items():
            if program.paths[path][1]:
                self.parts[path] = width + np.arange(len(chosen))
                width += len(chosen)
        self.over = width + np.arange(len(program.elastic))
        self.width = width + len(program.elastic)


class _MixRows(Rows):
    """The rows of a program under construction."""

    def __init__(self, mix: MixProgram) -> None:
        super().__init__()
        self._mix, self._at = mix, Layout(mix)
        self._upper = np.ones(self._at.width)
        self._upper[self._at.n] = [use.most for use in mix.uses]
        self._upper[self._at.over] = np.inf
        self._upper[self._at.x] = np.where(mix.serves, 1.0, 0.0)

    def split(self) -> None:
        """(1'), and the least shares of (3')."""
        mix, at = self._mix, self._at
        for s in range(len(mix.stages)):
            mine = np.flatnonzero(mix.stage_of == s)
            for k in range(len(mix.classes)):
                self.add(at.x[mine, k], np.ones(len(mine)), 1.0, 1.0)
        for u, use in enumerate(mix.uses):
            if use.least_share == 1.0:  # all or nothing
                self._upper[at.z[u]] = float(mix.serves[u].all())
                for k in range(len(mix.classes)):
                    self.add([at.x[u, k], at.z[u]], [1.0, -1.0], 0.0, 0.0)
            for k in np.flatnonzero(mix.serves[u]).tolist():
                self.add([at.x[u, k], at.z[u]], [1.0, -1.0], -np.inf, 0.0)
            if 0 < use.least_share < 1:
                # A right side of -1e-9 instead made HiGHS 1.16 miss optima without a word.
                least = use.least_share * (1 - SHARE_RTOL)
                self.add([*at.x[u], at.z[u]], [*mix.shares, -least], 0.0, np.inf)

    def replicas(self, enforced: Callable[[str], bool]) -> None:
        """(2'), with one use an option."""
        mix, at = self._mix, self._at
        settings = mix.problem.settings
        for u, use in enumerate(mix.uses):
            # The fewest replicas that carry a load are whole but for rounding.
            need = mix.per_share(u) * (1 - ROUNDING_RTOL)
            self.add([*at.x[u], at.n[u]], [*(need * mix.shares), -1.0], -np.inf, 0.0)
            fixed = mix.problem.rules[use.stage].replicas
            enough = use.most if fixed else max(use.least, int(np.ceil(need.max())))
            most = float(min(use.most, enough))
            self._upper[at.n[u]] = most
            self.add([at.n[u], at.z[u]], [1.0, -most], -np.inf, 0.0)
            self.add([at.n[u], at.z[u]], [1.0, -float(use.least)], 0.0, np.inf)
        for s, stage in enumerate(mix.stages):
            mine = np.flatnonzero(mix.stage_of == s)
            fixed = mix.problem.rules[s].replicas
            if fixed is not None and enforced(f"replicas:{stage.name}"):
                self.add(at.n[mine], np.ones(len(mine)), fixed, fixed)
                self.add(at.z[mine], np.ones(len(mine)), -np.inf, 1.0)
            elif fixed is None and enforced(f"scaling_cap:{stage.name}"):
                cap = settings.scaling_cap
                column, unit = self._over("scaling_cap", cap)
                columns, values = [*at.n[mine], *column], [*np.ones(len(mine)), *unit]
                self.add(columns, values, -np.inf, cap)
            for index in {mix.uses[u].option_index for u in mine}:
                same = [u for u in mine if mix.uses[u].option_index == index]
                if len(same) > 1:
                    self.add(at.z[same], np.ones(len(same)), -np.inf, 1.0)

    def delays(self, cap: Cap, delays_s: Floats) -> None:
        """(3'), in units of the SLA; a stage alone has nothing to add up."""
        mix, at = self._mix, self._at
        over = self._over(cap.name, 1.0)
        if len(mix.stages) == 1 and not over[0]:
            return  # what is late has gone
        k = [each.name for each in mix.classes].index(class_of(cap))
        for p, (_, site) in enumerate(mix.paths):
            if mix.paths[p][0] == k and p in mix.cutoffs_s:
                self._cut_off(p, delays_s)
            if mix.paths[p][0] != k or (0, p) not in mix.levels_s:
                continue
            total: tuple[list[int], list[float]] = ([], [])
            for s in range(len(mix.stages)):
                levels_s, chosen = mix.levels_s[s, p], at.levels[s, p]
                self.add(chosen, np.ones(len(chosen)), 1.0, 1.0)
                there = (mix.stage_of == s) & mix.serves[:, k] & mix.at_site(site)
                mine = np.flatnonzero(there)
                for j, level_s in enumerate(levels_s[:-1], start=1):
                    slower = at.x[mine[delays_s[mine, k] > level_s], k]
                    values = [1.0] * len(slower) + [-1.0] * (len(chosen) - j)
                    self.add([*slower, *chosen[j:]], values, -np.inf, 0.0)
                total[0].extend(chosen.tolist())
                total[1].extend((levels_s / cap.limit).tolist())
            self.add([*total[0], *over[0]], [*total[1], *over[1]], -np.inf, 1 + CAP_ROOM)

    def _cut_off(self, p: int, delays_s: Floats) -> None:
        """(3') of two stages: the first takes no longer than a cutoff, the second what is left.

        At a site each cutoff has its part of the site's load, all but one of them none: what is
        slower than a cutoff gets no more than the parts of longer ones.
        """
        mix, at = self._mix, self._at
        k, site = mix.paths[p]
        chosen = at.cutoffs[p]
        there = mix.serves[:, k] & mix.at_site(site)
        first, second = (np.flatnonzero(there & (mix.stage_of == s)) for s in (0, 1))
        self.add(chosen, np.ones(len(chosen)), 1.0, 1.0)
        load = at.parts.get(p, chosen)
        if p in at.parts:
            for part, one in zip(load, chosen, strict=True):
                self.add([part, one], [1.0, -1.0], -np.inf, 0.0)
            values = [1.0] * len(load) + [-1.0] * len(first)
            self.add([*load, *at.x[first, k]], values, 0.0, 0.0)
        for j, limits_s in enumerate(mix.limits_s(p)):
            rest = (load[j + 1 :], load[:j])
            for mine, longest_s, others in zip((first, second), limits_s, rest, strict=True):
                slower = at.x[mine[delays_s[mine, k] > longest_s], k]
                if len(slower):
                    values = [1.0] * len(slower) + [-1.0] * len(others)
                    self.add([*slower, *others], values, -np.inf, 0.0)

    def places(self) -> None:
        """Each site serves the same share of the load in every stage."""
        mix, at = self._mix, self._at
        for k, site in mix.paths:
            if not site:
                continue
            there = mix.at_site(site)
            first, *others = (at.x[(mix.stage_of == s) & there, k] for s in range(len(mix.stages)))
            for other in others:
                values = [1.0] * len(first) + [-1.0] * len(other)
                self.add([*first, *other], values, 0.0, 0.0)

    def cap(self, cap: Cap, amounts: tuple[Floats, Floats, Floats]) -> None:
        """(4')."""
        at, limit = self._at, cap.limit
        g, f, c = amounts
        columns = np.concatenate([at.n, at.x.ravel(), at.z])
        by_class = np.where(self._mix.serves, f, 0.0) * self._mix.shares
        values = np.concatenate([g, by_class.ravel(), c])
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        over = self._over(cap.name, abs(limit) or 1.0)
        columns, values = np.append(columns, over[0]), np.append(values, over[1])
        room = CAP_ROOM * abs(limit)
        scale = SCALE / largest
        self.add(columns, values * scale, -np.inf, (limit + room) * scale)

    def pool(self, index: int, pool: GpuPool) -> None:
        """(6') of :mod:`.pools`."""
        at, mix = self._at, self._mix
        cuts = at.cuts[index]
        self._upper[cuts] = pool.gpus
        for name in pool.slices:
            used = [float(held(pool, name, use.option)) for use in mix.uses]
            made = [-float(part.count(name)) for part in pool.partitions]
            self.add([*at.n, *cuts], [*used, *made], -np.inf, 0.0)
        column, unit = self._over(f"gpus:{pool.name}", float(pool.gpus) or 1.0)
        if column:
            self._upper[cuts] = _MOST_GPUS
        values = [*np.ones(len(cuts)), *unit]
        self.add([*cuts, *column], values, -np.inf, float(pool.gpus))

    def _over(self, name: str, unit: float) -> tuple[list[int], list[float]]:
        """Column and coefficient of what an elastic cap is exceeded by; of others nothing."""
        if name not in self._mix.elastic:
            return [], []
        return [int(self._at.over[self._mix.elastic.index(name)])], [-unit]

    def worth(self, objective: tuple[Floats, Floats, Floats] | None) -> LinearProgram:
        """All of them, with the worth of a replica, a share and a use; None: the least excess."""
        at = self._at
        cost = np.zeros(at.width)
        if objective is None:
            cost[at.over] = -1.0
        else:
            replica, share, use = objective
            cost[at.n], cost[at.x], cost[at.z] = replica, share * self._mix.shares, use
        return self.program(cost, self._upper, binaries=at.binaries, integers=at.integers)
