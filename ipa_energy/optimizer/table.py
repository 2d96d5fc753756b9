"""A problem as the label search sees it: for each candidate what it gains and what it uses up.

The objective (6) of a choice is ``Σ gain`` for a sum or average of accuracies, and
``scale·Π factor + Σ gain`` for their product. Every cap is a *resource* that the
stages use up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.deadline import Deadline
from ipa_energy.optimizer.dominance import undominated
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.pools import SliceUse
from ipa_energy.optimizer.problem import CONSTRAINT_RTOL, Problem

_CLEARLY = 4.0
"""How many times the tolerance of an SLA a bound must be beyond it before it excludes anything:
bounds are summed in another order than the SLA itself and must not be stricter than it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A cap: what each candidate uses of it, and how much there is.

    Attributes:
        use: one array a stage.
        limit: the largest total that :func:`~.problem.within` admits.
        loose_limit: a little more; a bound above it proves a violation despite rounding.
    """

    use: tuple[Floats, ...]
    limit: float
    loose_limit: float

    @classmethod
    def of(cls, use: Sequence[Floats], cap: float) -> Resource:
        """The resource whose SLA is ``cap``."""
        room = CONSTRAINT_RTOL * abs(cap)
        return cls(tuple(use), limit=cap + room, loose_limit=cap + _CLEARLY * room)

    def suffix(self, extreme: np.ufunc) -> Floats:
        """(S + 1,) least (``np.minimum``) or most (``np.maximum``) use from each stage on."""
        return suffix_sums([float(extreme.reduce(use)) for use in self.use])

    def select(self, kept: Sequence[Ints]) -> Resource:
        """The same for fewer candidates."""
        use = tuple(use[index] for use, index in zip(self.use, kept, strict=True))
        return Resource(use, self.limit, self.loose_limit)


def suffix_sums(values: Sequence[float]) -> Floats:
    """(S + 1,) sums of ``values[s:]``, the last of them 0."""
    sums = np.zeros(len(values) + 1)
    sums[:-1] = np.cumsum(values[::-1])[::-1]
    return sums


def suffix_factors(factors: Sequence[Floats]) -> list[tuple[float, float]]:
    """Least and greatest product of the factors of stages s, s + 1, …; (1, 1) at the end."""
    found = [(1.0, 1.0)]
    for factor in reversed(factors):
        low, high = found[-1]
        found.append((low * float(factor.min()), high * float(factor.max())))
    return found[::-1]


@dataclass(frozen=True, slots=True)
class Table:
    """Gains, factors and resources of the candidates that are still open.

    Attributes:
        gain: one array a stage.
        factor: accuracies of a product, one array a stage, none negative; None for a sum.
        scale: alpha, the weight of the product.
        resources: the caps that are set.
        index: position in ``problem.stages[s]`` of each candidate.
        pools: GPUs to be cut, which are no sum within a limit.
    """

    gain: tuple[Floats, ...]
    factor: tuple[Floats, ...] | None
    scale: float
    resources: tuple[Resource, ...]
    index: tuple[Ints, ...]
    pools: tuple[SliceUse, ...] = ()

    @classmethod
    def of(cls, problem: Problem) -> Table:
        """The table of a problem none of whose stages is empty.

        Raises:
            ConfigError: stages may run several options at once, which is no table of choices.
        """
        if problem.settings.mix:
            raise ConfigError(
                "this looks at one option a stage",
                where="mix",
                allowed="mix: false, or the methods highs, gurobi and auto",
            )
        settings, stages = problem.settings, problem.stages
        product = settings.accuracy_method == "multiply" and settings.alpha != 0
        if product or settings.alpha == 0:
            gain = tuple(-candidates.penalty for candidates in stages)
        else:
            share = len(stages) if settings.accuracy_method == "average" else 1
            weight = settings.alpha / share
            gain = tuple(weight * stage.accuracy - stage.penalty for stage in stages)
        return cls(
            gain=gain,
            factor=tuple(candidates.accuracy for candidates in stages) if product else None,
            scale=settings.alpha,
            resources=tuple(
                Resource.of(problem.columns(cap.quantity), cap.limit) for cap in problem.caps
            ),
            index=tuple(np.arange(len(candidates)) for candidates in stages),
            pools=tuple(SliceUse.of(pool, stages) for pool in settings.gpus),
        )

    def __len__(self) -> int:
        return len(self.gain)

    @property
    def combinations(self) -> int:
        """How many choices there are, feasible or not."""
        return math.prod(len(gain) for gain in self.gain)

    @property
    def is_hopeless(self) -> bool:
        """True if some SLA cannot be met even by the candidates that use least of it."""
        return any(
            resource.suffix(np.minimum)[0] > resource.loose_limit for resource in self.resources
        )

    def floor(self) -> float:
        """A value below that of every choice."""
        worst = sum(float(gain.min()) for gain in self.gain)
        if self.factor is not None:
            extreme = np.minimum if self.scale > 0 else np.maximum
            worst += self.scale * math.prod(float(extreme.reduce(f)) for f in self.factor)
        return worst - 1e-6 * max(1.0, abs(worst))

    def ceiling(self) -> float:
        """A value above that of every choice."""
        best = sum(float(gain.max()) for gain in self.gain)
        if self.factor is not None and self.scale > 0:
            best += self.scale * math.prod(float(f.max()) for f in self.factor)
        return best + 1e-6 * max(1.0, abs(best))

    def select(self, kept: Sequence[Ints]) -> Table:
        """The table of fewer candidates; ``kept`` holds indices, one array a stage."""
        return Table(
            gain=tuple(gain[index] for gain, index in zip(self.gain, kept, strict=True)),
            factor=None
            if self.factor is None
            else tuple(factor[index] for factor, index in zip(self.factor, kept, strict=True)),
            scale=self.scale,
            resources=tuple(resource.select(kept) for resource in self.resources),
            index=tuple(old[index] for old, index in zip(self.index, kept, strict=True)),
            pools=tuple(pool.select(kept) for pool in self.pools),
        )

    def linear(self, slope: float) -> Table:
        """The table of a sum in which ``slope·log(product)`` stands for the product."""
        if self.factor is None:
            return self
        gain = tuple(
            gain + slope * np.log(factor)
            for gain, factor in zip(self.gain, self.factor, strict=True)
        )
        return Table(gain, None, self.scale, self.resources, self.index)

    def worth(self, choice: Sequence[int]) -> float:
        """Objective of a choice of this table's candidates."""
        worth = sum(float(gain[at]) for gain, at in zip(self.gain, choice, strict=True))
        if self.factor is None:
            return worth
        factors = (float(factor[at]) for factor, at in zip(self.factor, choice, strict=True))
        return worth + self.scale * math.prod(factors)

    def fits(self, choice: Sequence[int]) -> bool:
        """True if a choice of this table's candidates respects every SLA."""
        return all(
            sum(float(use[at]) for use, at in zip(resource.use, choice, strict=True))
            <= resource.limit
            for resource in self.resources
        ) and all(pool.fits(choice) for pool in self.pools)

    def original(self, choice: Sequence[int]) -> tuple[int, ...]:
        """A choice of this table's candidates as one of the problem's."""
        return tuple(int(index[at]) for index, at in zip(self.index, choice, strict=True))

    def _other_products(self) -> list[tuple[float, float]]:
        """Per stage the least and the greatest product of the other stages' factors."""
        factors = self.factor or ()
        least = [float(factor.min()) for factor in factors]
        most = [float(factor.max()) for factor in factors]
        return [
            (math.prod(least[:at] + least[at + 1 :]), math.prod(most[:at] + most[at + 1 :]))
            for at in range(len(factors))
        ]

    def undominated(self, keep: int, margin: float = 0.0) -> Table:
        """Without the candidates that ``keep`` others of their stage beat in every respect.

        With a margin these have to be worth more by that much, whatever the other stages have.
        """
        kept = []
        ends = self._other_products() if margin and self.factor is not None else []
        for stage, gain in enumerate(self.gain):
            uses = [-resource.use[stage] for resource in self.resources]
            counting = [gain]
            if self.factor is not None and margin:
                counting = [gain + self.scale * end * self.factor[stage] for end in ends[stage]]
            elif self.factor is not None:
                uses.append(math.copysign(1.0, self.scale) * self.factor[stage])
            columns = [*counting, *uses]
            kept.append(undominated(columns, keep, margin=margin, counting=len(counting)))
        return self.select(kept)


def grid_step(table: Table) -> float:
    """The least by which two plans can differ in worth, if all gains lie on a decimal grid; else 0.

    Two-decimal accuracies and round prices make such grids. Of two plans the better one is then
    better by this much at least, which no bound would say.
    """
    if table.factor is not None:
        return 0.0
    excess = np.concatenate([gain.max() - gain for gain in table.gain])
    largest = float(excess.max())
    if largest <= 0:
        return 0.0
    for exponent in range(_DECIMALS + 1):
        steps = excess / 10.0**-exponent
        rounding = 1e-9 * max(1.0, float(steps.max()))
        if np.abs(steps - np.round(steps)).max() <= min(rounding, 1e-3):
            return 10.0**-exponent
    return 0.0


_DECIMALS = 6


_MOST_MENDED = 200
_ROWS = 250_000
"""Most pairs of changes looked at at once: bounds the memory."""


class Exchange:
    """All single changes of a table's choices, one entry each: good plans quickly.

    A plan is mended until it is feasible, then bettered by one or two changes. A change gives one
    stage another candidate. Two at once find what one cannot: room that one stage gives up and
    another takes, which is what is left to win near a limit.
    """

    def __init__(self, table: Table) -> None:
        sizes = [len(gain) for gain in table.gain]
        self._table = table
        self._stage = np.repeat(np.arange(len(sizes)), sizes)
        self._first = np.cumsum([0, *sizes[:-1]])
        self._gain = np.concatenate(table.gain)
        self._factor = None if table.factor is None else np.concatenate(table.factor)
        self._use = [np.concatenate(resource.use) for resource in table.resources]
        self._limits = [resource.limit for resource in table.resources]

    def improved(self, starts: Iterable[Choice], deadline: Deadline) -> list[Choice]:
        """The feasible ends of these starts; fewer when time is up."""
        found = []
        for start in starts:
            at = self._mended(self._first + np.array(start), deadline)
            if at is None:
                continue
            while deadline.left_s > 0:
                better = self._better_pair(at, deadline)
                if better is None:
                    break
                at = better
            choice = tuple((at - self._first).tolist())
            if self._table.fits(choice):
                found.append(choice)
        return found

    def _mended(self, at: Ints, deadline: Deadline) -> Ints | None:
        """A feasible choice near this one, or None."""
        for _ in range(_MOST_MENDED):
            over = float(self._excess(self._used(at)))
            if over <= 0:
                return at
            changed = [
                total - use[at][self._stage] + use
                for use, total in zip(self._use, self._used(at), strict=True)
            ]
            excess = self._excess(changed)
            lost = self._gain[at][self._stage] - self._gain
            fits = np.flatnonzero(excess <= 0)
            if len(fits):
                move = int(fits[np.argmin(lost[fits])])
            else:
                move = int(np.argmin(excess))
                if excess[move] >= over or deadline.left_s <= 0:
                    return None
            at = self._with(at, move)
        return None

    def _used(self, at: Ints) -> list[float]:
        return [float(use[at].sum()) for use in self._use]

    def _excess(self, used: Iterable[Floats | float]) -> Floats:
        """How far sums are beyond the limits, relative to these and added up."""
        total = np.zeros(())
        for one, limit in zip(used, self._limits, strict=True):
            total = total + np.maximum(0.0, one - limit) / (abs(limit) or 1.0)
        return total

    def _with(self, at: Ints, *moves: int) -> Ints:
        at = at.copy()
        for move in moves:
            at[self._stage[move]] = move
        return at

    def _better_pair(self, at: Ints, deadline: Deadline) -> Ints | None:
        """The choice after the best two changes (one of them may be none); None if none helps."""
        now = at[self._stage]
        idle = now == np.arange(len(now))
        gain = self._gain - self._gain[now]
        ratio = None
        if self._factor is not None:
            # A stage that has a factor of 0 takes part in no ratio: its changes count as none.
            known = self._factor[now]
            ratio = np.divide(self._factor, known, out=np.ones(len(now)), where=known > 0)
        room = [limit - total for limit, total in zip(self._limits, self._used(at), strict=True)]
        uses = [use - use[now] for use in self._use]
        product = self._table.scale * self._product(at)
        best, found = 1e-12 * max(1.0, float(np.abs(self._gain[at]).sum())), None
        rows = max(1, _ROWS // len(gain))
        for start in range(0, len(gain), rows):
            if deadline.left_s <= 0:
                break
            block = slice(start, start + rows)
            worth = gain[block, None] + gain
            if ratio is not None:
                worth += product * (ratio[block, None] * ratio - 1.0)
            # Two changes of one stage are none, but one beside "no change" is a single one.
            twice = self._stage[block, None] == self._stage
            worth[twice & ~idle[block, None]] = -np.inf
            for use, left in zip(uses, room, strict=True):
                worth[use[block, None] + use > left] = -np.inf
            top = int(worth.argmax())
            if worth.flat[top] > best:
                best = float(worth.flat[top])
                found = (start + top // len(gain), top % len(gain))
        if found is None:
            return None
        return self._with(at, *sorted(found, key=lambda move: move != now[move]))

    def _product(self, at: Ints) -> float:
        return 0.0 if self._factor is None else float(self._factor[at].prod())
