"""Exact and without a licence: partial plans stage by stage, pruned by dominance and by bounds.

Small programs are searched at once (:mod:`.search`). For larger ones prices are put on the caps
first, which bounds what each candidate can be part of (:mod:`.bounds`); a narrow
search finds good plans, candidates that cannot beat them leave, and the search widens until it had
to cut nothing, which proves its answer.

For a product of accuracies those bounds need a straight line above ``exp(log product)``, good on
a short stretch only. So the range of the product is split where the bound is highest, best first,
until the line is about as good as the prices, and each stretch that can still hold a better plan
is searched.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.optimizer.bounds import (
    GainBound,
    LabelBound,
    Line,
    Priced,
    Relaxation,
    best_prices,
)
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Choice
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.search import Search, TooManyTiesError, Wanted
from ipa_energy.optimizer.table import Table

SMALL_COMBINATIONS = 100_000
"""Up to this many combinations bounds cost more than they save."""

FIRST_WIDTH = 40
_WIDENING = 8
_PRICES_FOR_OPTIONS = 3
_PRICES_FOR_LABELS = 6
_IMPROVED = 3
_LONGEST_STRETCH = 1.0
_SHORTEST_STRETCH = 1e-6
_TIE_MARGIN = 2 * EQUAL_OBJECTIVE_RTOL


def solve(problem: Problem, top_k: int = 1, wanted: int | None = None) -> list[Choice]:
    """The ``top_k`` best choices, best first; empty if infeasible. Exact.

    With ``wanted`` those after so many may be missing, unless they tie with the last one wanted:
    whoever looks for ties need not wait for what does not tie.
    """
    if problem.is_empty():
        return []
    table = Table.of(problem)
    if table.is_hopeless:
        return []
    if table.combinations <= SMALL_COMBINATIONS:
        return _search_small(table, Wanted(top_k, top_k))
    return solve_bounded(table, top_k, FIRST_WIDTH, wanted)


def solve_with_ties(
    problem: Problem, top_k: int, most: int, reached: float | None = None
) -> list[Choice] | None:
    """The ``top_k`` best choices and what ties with the last of them, in one search.

    Args:
        problem: the program.
        top_k: how many.
        most: how many at most with those that tie.
        reached: an objective that ``top_k`` choices are known to reach; the search is the quicker.

    Returns:
        best first, at most ``most``, with some that are a little worse than a tie perhaps; None if
        the program has so many ties that they are better looked for by and by.
    """
    if problem.is_empty():
        return []
    table = Table.of(problem)
    if table.is_hopeless:
        return []
    floor = table.floor()
    margin = _TIE_MARGIN * max(1.0, abs(floor), abs(table.ceiling()))
    wanted = Wanted(top_k, most, margin)
    if reached is not None:
        floor = max(floor, reached - margin)
    try:
        if table.combinations <= SMALL_COMBINATIONS and reached is not None:
            found = Search(table, GainBound(table), wanted).run(floor)
            return [choice for _, choice in found.plans]
        if table.combinations <= SMALL_COMBINATIONS:
            return _search_small(table, wanted)
        best = _Best(most, floor, top_k, margin)
        _search_all(table, best, FIRST_WIDTH)
    except TooManyTiesError:
        return None
    return best.choices()


def _search_small(table: Table, wanted: Wanted) -> list[Choice]:
    fewer = table.undominated(wanted.plans, wanted.margin)
    return [choice for _, choice in Search(fewer, None, wanted).run(table.floor()).plans]


def _search_all(table: Table, best: _Best, width: int) -> None:
    if table.factor is None:
        _search_part(_part(table, None, best), best, width)
        return
    _search_zero_products(table, best, width)
    _search_products(table, best, width)


def solve_bounded(table: Table, top_k: int, width: int, wanted: int | None = None) -> list[Choice]:
    """The same for large programs, starting with ``width`` labels a stage.

    What ties with the plans wanted of a sum is looked for when they are known: nearly everything is
    out by then, while looking for more plans from the start would keep many more labels. Stretches
    of a product are too many to be gone through twice.
    """
    if table.factor is not None:
        best = _Best(top_k, table.floor(), wanted)
        _search_all(table, best, width)
        return best.choices()
    best = _Best(top_k if wanted is None else wanted, table.floor())
    part = _part(table, None, best)
    _search_part(part, best, width)
    if best.top_k < top_k and best.is_full:
        best = best.with_ties(top_k)
        _search_part(part, best, width * _WIDENING)
    return best.choices()


class _Best:
    """The ``top_k`` best distinct plans known, and what a plan must beat to join them.

    Of these ``wanted`` are, and the others where they tie with the last of them: searches with a
    ``margin`` keep no more labels for them than they would otherwise.
    """

    def __init__(
        self, top_k: int, floor: float, wanted: int | None = None, margin: float = 0.0
    ) -> None:
        self.top_k, self.floor = top_k, floor
        self.wanted = top_k if wanted is None else wanted
        self.search = Wanted(self.wanted if margin else top_k, top_k, margin)
        self._worth: dict[Choice, float] = {}
        self.threshold = floor

    @property
    def is_full(self) -> bool:
        """True if as many plans are known as are asked for."""
        return len(self._worth) == self.top_k

    def with_ties(self, top_k: int) -> _Best:
        """These plans, to be joined by others up to ``top_k`` that tie with the last of them."""
        last = min(self._worth.values())
        wider = _Best(top_k, last - 2 * EQUAL_OBJECTIVE_RTOL * max(1.0, abs(last)))
        wider.add((worth, choice) for choice, worth in self._worth.items())
        return wider

    def add(self, plans: Iterable[tuple[float, Choice]]) -> None:
        """Take feasible plans into account."""
        self._worth.update({choice: worth for worth, choice in plans})
        ranked = sorted(self._worth.items(), key=lambda item: -item[1])[: self.top_k]
        self._worth = dict(ranked)
        if len(ranked) >= self.wanted:
            last = ranked[self.wanted - 1][1]
            self.threshold = max(self.floor, last - 2 * EQUAL_OBJECTIVE_RTOL * max(1.0, abs(last)))
        if len(ranked) == self.top_k:
            worst = ranked[-1][1]
            self.threshold = max(self.threshold, worst + 1e-12 * max(1.0, abs(worst)))

    def choices(self) -> list[Choice]:
        """Best first."""
        return list(self._worth)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the plans: all of a sum, or those of a product whose y is on one line's stretch.

    Attributes:
        table: their candidates.
        line: stands for the product; None for a sum.
        relaxation: of the sum that is left.
        priced: answers to the best prices met, best first.
        bound: no plan of this part is worth more.
    """

    table: Table
    line: Line | None
    relaxation: Relaxation
    priced: list[Priced]
    bound: float


def _part(table: Table, line: Line | None, best: _Best) -> _Part:
    linear = table if line is None else table.linear(line.slope)
    constant = 0.0 if line is None else line.constant
    relaxation = Relaxation(linear)
    priced = best_prices(
        relaxation,
        [resource.loose_limit for resource in table.resources],
        [float(resource.suffix(np.minimum)[0]) for resource in table.resources],
        linear.floor(),
    )
    choices = {answer.choice: answer.value for answer in priced if table.fits(answer.choice)}
    if len(priced) > 1:
        ranked = sorted(choices, key=lambda choice: -choices[choice])[:_IMPROVED]
        choices.update({relaxation.improved(choice): 0.0 for choice in ranked})
    feasible = [choice for choice in choices if table.fits(choice)]
    best.add((table.worth(choice), table.original(choice)) for choice in feasible)
    return _Part(table, line, relaxation, priced, priced[0].bound + constant)


def _search_part(part: _Part, best: _Best, width: int) -> None:
    """Add to ``best`` every plan of the part that belongs there."""
    constant = 0.0 if part.line is None else part.line.constant
    exact = part.bound <= best.threshold
    proven = False
    while not exact:
        kept = part.relaxation.contenders(
            part.priced[:_PRICES_FOR_OPTIONS], best.threshold - constant
        )
        if any(len(index) == 0 for index in kept):
            return
        table = part.table.select(kept)
        if proven:
            table = table.undominated(best.search.plans, best.search.margin)
        bound = LabelBound(table, part.line, part.priced[:_PRICES_FOR_LABELS])
        found = Search(table, bound, best.search).run(best.threshold, width)
        best.add(found.plans)
        exact, proven = found.exact, True
        width *= _WIDENING


def _search_zero_products(table: Table, best: _Best, width: int) -> None:
    """Plans with an accuracy of 0 somewhere: their product has no logarithm, nor any worth."""
    if table.factor is None:
        return
    zeros = [np.flatnonzero(factor == 0) for factor in table.factor]
    everything = [np.arange(len(factor)) for factor in table.factor]
    if table.scale > 0:
        # Without its product a plan is worth no more, and one with a zero the same: the best of
        # all plans without it are at least as good as the best with a zero.
        parts = [everything] if any(len(zero) for zero in zeros) else []
    else:
        parts = [
            [*everything[:stage], zero, *everything[stage + 1 :]]
            for stage, zero in enumerate(zeros)
            if len(zero)
        ]
    for kept in parts:
        part = table.select(kept)
        sums = Table(part.gain, None, part.scale, part.resources, part.index)
        if sums.is_hopeless:
            continue
        apart = _Best(best.top_k, sums.floor(), best.wanted, best.search.margin)
        _search_part(_part(sums, None, apart), apart, width)
        # `table` still has every candidate, so its positions are the problem's.
        best.add((table.worth(choice), choice) for choice in apart.choices())


def _search_products(table: Table, best: _Best, width: int) -> None:
    """Plans whose product is not 0, stretch by stretch."""
    if table.factor is None:
        return
    kept = [np.flatnonzero(factor > 0) for factor in table.factor]
    if any(len(index) == 0 for index in kept):
        return
    table = table.select(kept)
    if table.is_hopeless:
        return
    order = itertools.count()
    waiting: list[tuple[float, int, _Part]] = []
    _queue(waiting, order, table, _stretches(table), best)
    while waiting:
        bound, _, part = heapq.heappop(waiting)
        if -bound <= best.threshold or part.line is None:
            return
        line = part.line
        rough = line.error * abs(table.scale) * math.exp(line.high)
        if line.high - line.low > _SHORTEST_STRETCH and rough > 0.3 * (-bound - best.threshold):
            middle = (line.low + line.high) / 2
            halves = [(line.low, middle), (middle, line.high)]
            _queue(waiting, order, table, halves, best)
        else:
            _search_part(part, best, width)


def _stretches(table: Table) -> list[tuple[float, float]]:
    """The whole range of y in stretches of equal length."""
    factors = table.factor or ()
    low = sum(math.log(float(factor.min())) for factor in factors)
    high = sum(math.log(float(factor.max())) for factor in factors)
    ends = np.linspace(low, high, max(1, math.ceil((high - low) / _LONGEST_STRETCH)) + 1).tolist()
    return list(itertools.pairwise(ends))


def _queue(
    waiting: list[tuple[float, int, _Part]],
    order: itertools.count[int],
    table: Table,
    stretches: Sequence[tuple[float, float]],
    best: _Best,
) -> None:
    for low, high in stretches:
        part = _part(table, Line.above(table.scale, low, high), best)
        if part.bound > best.threshold:
            heapq.heappush(waiting, (-part.bound, next(order), part))
