"""A good mix to begin with, and the uses that no better one has.

With all replicas known, shares are a linear program, and what is best lies at its *corners*: all
parts of a stage but one have as much as their replicas carry, or as little as their batches need.
The corners of one and of two parts are few, a table of choices like any other: the search of
:mod:`.pareto` finds the best plan of them, whose shares are then bettered with its replicas kept.

The table's prices of the caps (:mod:`.bounds`) bound what any mix is worth. At these prices a stage
is on its own, so all its mixes, of however many parts, that a mix better than the known one may
have can be written down, as long as they are few; a use that is in none of them is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.energy import ROUNDING_RTOL
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.bounds import Priced, Relaxation, best_prices
from ipa_energy.optimizer.deadline import Deadline
from ipa_energy.optimizer.mixing import CAP_ROOM, MixProgram
from ipa_energy.optimizer.quantities import is_latency
from ipa_energy.optimizer.table import Resource, Table

Stretch = tuple[int, int, float]
"""(use, replicas, share of the stage's requests)."""

_SEARCH_S = 0.3
"""For the best choice of corners; most take a few milliseconds."""

_STARTS = 5
"""Choices of corners whose shares are bettered."""

_CARRIED = 1e-8
"""A share that may be left over: solvers miss rows by less."""

_MOST_MIXES = 20_000
_MOST_TRIED = 400_000
"""Of a stage, before nothing is left out."""


@dataclass(frozen=True, slots=True)
class _Uses:
    """The uses of a stage at one site, in arrays; amounts are those of the objective, then caps'.

    Attributes:
        index: position of each in the program.
        replica, request, use: (Q, U) what a replica, all requests and being in use add.
        need: replicas for all requests.
        delay_s: latency and wait.
        least, most: replicas.
        share: least share; 1: all or nothing.
        option: only one use of an option may be there.
        scaling_cap: most replicas of all together.
    """

    index: Ints
    replica: Floats
    request: Floats
    use: Floats
    need: Floats
    delay_s: Floats
    least: Ints
    most: Ints
    share: Floats
    option: Ints
    scaling_cap: int

    @classmethod
    def of(cls, mix: MixProgram, stage: int, mine: Ints) -> _Uses:
        """Those of a stage; ``mine`` are positions in the program of one class of requests."""
        caps = [cap for cap in mix.caps if not is_latency(cap.quantity)]
        sums = [mix.objective(), *(mix.amounts(cap.quantity) for cap in caps)]
        replica, request, use = (
            np.array([part.reshape(len(mix.uses), -1)[mine, 0] for part in parts])
            for parts in zip(*sums, strict=True)
        )
        uses = [mix.uses[u] for u in mine]
        need = np.array([float(mix.per_share(u)[0]) for u in mine]) * (1 - ROUNDING_RTOL)
        least = np.array([each.least for each in uses], dtype=np.intp)
        most = np.array([each.most for each in uses], dtype=np.intp)
        share = np.array([each.least_share for each in uses])
        fixed = mix.problem.rules[stage].replicas
        if fixed is None:  # more than all requests need are idle
            most = np.minimum(most, np.maximum(least, np.ceil(need).astype(np.intp)))
        else:  # one option has all of them
            least, share = np.full(len(uses), fixed), np.ones(len(uses))
        option = np.array([each.option_index for each in uses], dtype=np.intp)
        delay_s = mix.delays_s()[mine, 0]
        cap = mix.problem.settings.scaling_cap if fixed is None else fixed
        return cls(mine, replica, request, use, need, delay_s, least, most, share, option, cap)

    def select(self, kept: Ints) -> _Uses:
        """Some of them, in this order."""
        return _Uses(
            self.index[kept], self.replica[:, kept], self.request[:, kept], self.use[:, kept],
            self.need[kept], self.delay_s[kept], self.least[kept], self.most[kept],
            self.share[kept], self.option[kept], self.scaling_cap,
        )  # fmt: skip

    def corners(self) -> _Corners:
        """All corners of one part, and those of two."""
        everything = np.arange(len(self.need))
        counts = np.maximum(self.least, np.ceil(self.need).astype(np.intp))
        alone = everything[counts <= np.minimum(self.most, self.scaling_cap)]
        found = [_Corners.of(self, alone, counts[alone], np.ones(len(alone)))]
        some = np.flatnonzero(self.share < 1)
        one, two = (some[side] for side in np.triu_indices(len(some), 1))
        fits = (self.option[one] != self.option[two]) & (self.share[one] + self.share[two] <= 1)
        one, two = one[fits], two[fits]
        for first, second in ((one, two), (two, one)):
            most = int(self.most[first].max(initial=0))
            found += [self._full(first, second, count) for count in range(1, most + 1)]
        return _Corners.joined(found)

    def _full(self, first: Ints, second: Ints, count: int) -> _Corners:
        """Corners with so many replicas of the first, which get what they carry."""
        able = (count >= self.least[first]) & (count <= self.most[first])
        able &= count < self.need[first]
        first, second = first[able], second[able]
        share = np.minimum(count / self.need[first], 1 - self.share[second])
        others = np.ceil(self.need[second] * (1 - share) - CAP_ROOM).astype(np.intp)
        others = np.maximum(self.least[second], others)
        fits = (share >= self.share[first]) & (others <= self.most[second])
        fits &= count + others <= self.scaling_cap
        counts = np.full(int(fits.sum()), count)
        return _Corners.of(self, first[fits], counts, share[fits], (second[fits], others[fits]))


@dataclass(frozen=True, slots=True)
class _Corners:
    """Ways of a stage to run one or two uses.

    Attributes:
        amounts: (Q, M) of the objective and the caps.
        delay_s: (M,) the longer of the two.
        uses, replicas: (M, 2); −1 where there is no second part.
        share: (M,) of the first.
    """

    amounts: Floats
    delay_s: Floats
    uses: Ints
    replicas: Ints
    share: Floats

    @classmethod
    def of(
        cls,
        uses: _Uses,
        first: Ints,
        count: Ints,
        share: Floats,
        beside: tuple[Ints, Ints] | None = None,
    ) -> _Corners:
        """Those of some uses, and of others beside them."""
        amounts = uses.replica[:, first] * count + uses.request[:, first] * share
        amounts = amounts + uses.use[:, first]
        delay_s = uses.delay_s[first]
        none = np.full(len(first), -1)
        if beside is None:
            pairs = np.stack([uses.index[first], none], 1)
            return cls(amounts, delay_s, pairs, np.stack([count, none], 1), share)
        second, others = beside
        amounts = amounts + uses.replica[:, second] * others + uses.use[:, second]
        amounts = amounts + uses.request[:, second] * (1 - share)
        delay_s = np.maximum(delay_s, uses.delay_s[second])
        pairs = np.stack([uses.index[first], uses.index[second]], 1)
        return cls(amounts, delay_s, pairs, np.stack([count, others], 1), share)

    @classmethod
    def joined(cls, found: list[_Corners]) -> _Corners:
        """All of them."""
        return cls(
            np.concatenate([each.amounts for each in found], axis=1),
            np.concatenate([each.delay_s for each in found]),
            np.concatenate([each.uses for each in found]),
            np.concatenate([each.replicas for each in found]),
            np.concatenate([each.share for each in found]),
        )

    def parts(self, at: int) -> list[Stretch]:
        """What one of them runs."""
        share = float(self.share[at])
        pairs = zip(self.uses[at].tolist(), self.replicas[at].tolist(), strict=True)
        shares = (share, 1 - share)
        return [(u, n, x) for (u, n), x in zip(pairs, shares, strict=True) if u >= 0]


class Beginning:
    """The mixes at one site of a program with one class of requests."""

    def __init__(self, mix: MixProgram, site: str) -> None:
        there = mix.at_site(site)
        stages = range(len(mix.stages))
        self.uses = [_Uses.of(mix, s, np.flatnonzero(there & (mix.stage_of == s))) for s in stages]
        self._corners = [each.corners() for each in self.uses]
        caps = [cap for cap in mix.caps if not is_latency(cap.quantity)]
        rows = [
            (tuple(each.amounts[1 + q] for each in self._corners), cap.limit)
            for q, cap in enumerate(caps)
        ]
        rows += [
            (tuple(each.delay_s for each in self._corners), cap.limit)
            for cap in mix.caps
            if is_latency(cap.quantity)
        ]
        self._amounts = len(caps)
        resources = [
            Resource(use, limit + CAP_ROOM * abs(limit), limit + 2 * CAP_ROOM * abs(limit))
            for use, limit in rows
        ]
        gain = tuple(each.amounts[0] for each in self._corners)
        every = tuple(np.arange(len(each)) for each in gain)
        self.table = Table(gain, None, 0.0, tuple(resources), every)
        self.is_empty = any(len(each) == 0 for each in gain) or self.table.is_hopeless

    def starts(self) -> Iterator[list[Stretch]]:
        """The best choices of corners, best first."""
        if self.is_empty:
            return
        fewer = self.table.undominated(1)
        for choice in pareto.best_of_table(fewer, _STARTS, Deadline.after(_SEARCH_S)):
            corners = zip(self._corners, choice, strict=True)
            yield list(chain.from_iterable(each.parts(at) for each, at in corners))

    def contenders(self, worth: float) -> Ints:
        """The uses that a mix may have which is worth more; all of them if these mixes are many."""
        everything = np.concatenate([each.index for each in self.uses])
        relaxation = Relaxation(self.table)
        limits = [resource.loose_limit for resource in self.table.resources]
        least = [float(resource.suffix(np.minimum)[0]) for resource in self.table.resources]
        priced = best_prices(relaxation, limits, least, self.table.floor())[0]
        tops = relaxation.reduced(priced.prices).max(axis=1)
        room = priced.bound - float(tops.sum())
        best: list[float] = []
        for uses, top in zip(self.uses, tops.tolist(), strict=True):
            found = self._above(uses, priced, top - CAP_ROOM * max(1.0, abs(top)))
            if found is None:
                return everything
            best.append(max(top, found[1]))
        slack = sum(best) + room - worth
        slack += CAP_ROOM * max(1.0, abs(worth))
        kept = [
            self._above(uses, priced, top - slack)
            for uses, top in zip(self.uses, best, strict=True)
        ]
        return np.concatenate(
            [
                uses.index if found is None else uses.index[found[0]]
                for uses, found in zip(self.uses, kept, strict=True)
            ]
        )

    def _above(self, uses: _Uses, priced: Priced, threshold: float) -> tuple[Ints, float] | None:
        weights = np.array([1.0, *(-price for price in priced.prices[: self._amounts])])
        per_second = sum(priced.prices[self._amounts :])
        return _Mixes(uses, weights, per_second).above(threshold)


class _Mixes:
    """All mixes of a stage at fixed prices, part by part.

    Uses are in the order of what all requests cost on them, replicas being as fine as one likes:
    what is still to come is then never cheaper than the next one.
    """

    def __init__(self, uses: _Uses, weights: Floats, per_second: float) -> None:
        costs = [-(weights @ each) for each in (uses.replica, uses.request, uses.use)]
        self._order = np.argsort(costs[0] * uses.need + costs[1])
        self.uses = uses.select(self._order)
        self._replica, self._request, self._use = (each[self._order] for each in costs)
        cheapest = self._replica * self.uses.need + self._request
        self._rest = np.append(np.minimum.accumulate(cheapest[::-1])[::-1], np.inf)
        self._per_second = per_second
        self._numbers = int(np.maximum(0, self.uses.most - self.uses.least + 1).sum())

    def above(self, threshold: float) -> tuple[Ints, float] | None:
        """Uses of the mixes that are worth as much at these prices, and the most of all.

        None where they are too many, or more replicas would be worth more.
        """
        if (self._replica < 0).any() or (self._use < 0).any():
            return None
        kept = np.zeros(len(self._order), dtype=bool)
        parts, counts = np.zeros((1, 0), dtype=np.intp), np.zeros((1, 0), dtype=np.intp)
        best, mixes = -np.inf, 0
        while len(parts):
            if len(parts) * self._numbers > _MOST_TRIED:
                return None
            parts, counts = self._longer(parts, counts)
            fixed = (self._replica[parts] * counts + self._use[parts]).sum(1)
            fixed += self._per_second * self.uses.delay_s[parts].max(1, initial=0.0)
            whole = np.full(len(parts), np.inf)
            worth = -(fixed + self._filled(parts, counts, whole))
            good = worth >= threshold
            kept[parts[good].ravel()] = True
            best = max(best, float(worth.max(initial=-np.inf)))
            mixes += int(good.sum())
            rest = self._rest[parts[:, -1] + 1]
            open_ = np.isfinite(rest) & (-(fixed + self._filled(parts, counts, rest)) >= threshold)
            parts, counts = parts[open_], counts[open_]
            if mixes + len(parts) > _MOST_MIXES:
                return None
        return self._order[kept], best

    def _longer(self, parts: Ints, counts: Ints) -> tuple[Ints, Ints]:
        """Each with one part more, in the order of the uses."""
        uses = self.uses
        last = parts[:, -1] if parts.shape[1] else np.full(len(parts), -1)
        at, more = np.nonzero(np.arange(len(uses.need)) > last[:, None])
        if parts.shape[1]:
            fits = (uses.option[parts[at]] != uses.option[more][:, None]).all(1)
            fits &= uses.share[parts[at]].sum(1) + uses.share[more] <= 1
            fits &= (uses.share[more] < 1) & (uses.share[parts[at]] < 1).all(1)
            at, more = at[fits], more[fits]
        numbers = np.maximum(0, uses.most[more] - uses.least[more] + 1)
        each = np.repeat(np.arange(len(at)), numbers)
        first = np.cumsum(numbers) - numbers
        count = uses.least[more][each] + np.arange(len(each)) - first[each]
        at, more = at[each], more[each]
        parts = np.column_stack([parts[at], more])
        counts = np.column_stack([counts[at], count])
        fits = counts.sum(1) <= uses.scaling_cap
        fits &= count >= uses.need[more] * uses.share[more] * (1 - CAP_ROOM)
        return parts[fits], counts[fits]

    def _filled(self, parts: Ints, counts: Ints, rest: Floats) -> Floats:
        """The least cost of all requests on these parts, and on others at ``rest`` each."""
        carried = np.minimum(1.0, counts / self.uses.need[parts])
        cost = self._request[parts]
        order = np.argsort(cost, axis=1)
        cost = np.take_along_axis(cost, order, 1)
        carried = np.take_along_axis(carried, order, 1)
        taken = np.clip(1.0 - (np.cumsum(carried, 1) - carried), 0.0, carried)
        taken[cost > rest[:, None]] = 0.0
        left = 1.0 - taken.sum(1)
        others = np.zeros(len(parts))
        np.multiply(left, rest, out=others, where=left > _CARRIED)
        found: Floats = (taken * cost).sum(1) + others
        return found
