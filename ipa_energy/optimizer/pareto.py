"""Exact and without a licence: partial plans stage by stage, pruned by dominance and by bounds.

Small programs are searched at once (:mod:`.search`). For larger ones prices are put on the caps
first, which bounds what each candidate can be part of (:mod:`.bounds`); a narrow
search finds good plans, candidates that cannot beat them leave, and the search widens until it had
to cut nothing, which proves its answer.

For a product of accuracies those bounds need a straight line above ``exp(log product)``, good on
a short stretch only. So the range of the product is split where the bound is highest, best first,
until the line is about as good as the prices, and each stretch that can still hold a better plan
is searched.

A search that must end in time first shows that no plan reaches what is well above the best one
known, then a little less, and so on: near the bound few labels are left, so few that comparing them
with each other costs more than it saves.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from ipa_energy.optimizer.deadline import Bounded, Deadline, OutOfTimeError, stops_in_time
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, Choice
from ipa_energy.optimizer.pools import require_no_pools
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.search import MOST_UNCOMPARED, Search, TooManyTiesError, Wanted
from ipa_energy.optimizer.table import Exchange, Table, grid_step

SMALL_COMBINATIONS = 100_000
"""Up to this many combinations bounds cost more than they save."""

FIRST_WIDTH = 40
_WIDENING = 8
_PRICES_FOR_OPTIONS = 3
_PRICES_FOR_LABELS = 6
_IMPROVED = 3
_LONGEST_STRETCH = 1.0
_SHORTEST_STRETCH = 1e-6
_KEPT_STRETCHES = 300
_TIE_MARGIN = 2 * EQUAL_OBJECTIVE_RTOL
_MOST_TIES = 512

_EXACT_SHARE = 0.4
"""Of the time to a deadline, for the search that would be made without one."""

_EXCHANGE_SHARE = 0.3
"""Of what is left then, for changes of one and two stages."""

_MENDED = 8
_WIDEST = 25_000
"""Labels of a stage; more take too much memory beside a deadline."""

_QUICK_WIDTH = 20_000
"""Labels of a stage where none are compared and better plans are looked for."""

_ROUGH_SHARE = 0.3
_QUICK_ROUGH_SHARE = 0.1
"""How much of the room above the threshold the line for a product may take up."""

_AIMS = 8
"""In how many steps a bound is brought down to the best plan."""

_GROWTH = 4
"""So many times as long as the last step the next one may take."""


def _table_of(problem: Problem) -> Table | None:
    """What is searched; None if nothing can be feasible.

    Raises:
        ConfigError: GPUs are to be cut, which is no sum within a limit.
    """
    require_no_pools(problem.settings.gpus, "pareto")
    if problem.is_empty():
        return None
    table = Table.of(problem)
    return None if table.is_hopeless else table


def solve(problem: Problem, top_k: int = 1, wanted: int | None = None) -> list[Choice]:
    """The ``top_k`` best choices, best first; empty if infeasible. Exact.

    With ``wanted`` those after so many may be missing, unless they tie with the last one wanted:
    whoever looks for ties need not wait for what does not tie.

    Raises:
        ConfigError: GPUs are to be cut, which is no sum within a limit.
    """
    table = _table_of(problem)
    if table is None:
        return []
    if table.combinations <= SMALL_COMBINATIONS:
        return _search_small(table, Wanted(top_k, top_k))
    return solve_bounded(table, top_k, FIRST_WIDTH, wanted)


def within(problem: Problem, top_k: int, deadline: Deadline) -> Bounded:
    """The best choices found until the deadline, and a bound on all.

    The exact search has a part of the time; what it leaves open, one after the other: changes of
    one and two stages at once, a wide search for something better, and the bound brought down to
    the best plan step by step.

    Raises:
        ConfigError: as :func:`solve`.
    """
    table = _table_of(problem)
    if table is None:
        return Bounded([], -math.inf)
    if table.combinations <= SMALL_COMBINATIONS:
        choices = solve_with_ties(problem, top_k, _MOST_TIES) or solve(problem, top_k)
        return Bounded(choices, max((problem.worth(each) for each in choices), default=-math.inf))
    return _table_within(table, top_k, deadline)


def best_of_table(table: Table, top_k: int, deadline: Deadline) -> list[Choice]:
    """The best choices of a table that is not hopeless, found until the deadline."""
    if table.combinations <= SMALL_COMBINATIONS:
        return _search_small(table, Wanted(top_k, top_k))
    return _table_within(table, top_k, deadline).choices


def _table_within(table: Table, top_k: int, deadline: Deadline) -> Bounded:
    exact = deadline.share(_EXACT_SHARE)
    first = _Best(_MOST_TIES, table.floor(), top_k, margin=_tie_margin(table), deadline=exact)
    with contextlib.suppress(OutOfTimeError, TooManyTiesError):
        _search_all(table, first, FIRST_WIDTH)
        return Bounded(first.choices(), first.worth)
    best = _Best(top_k, table.floor(), 1, deadline=deadline, step=grid_step(table))
    best.bound = min(first.bound, table.ceiling())
    best.add_from(first)
    best.stretches = first.stretches
    with contextlib.suppress(OutOfTimeError):
        _better(table, best, deadline)
    return Bounded(best.choices(), best.rounded_bound())


def _better(table: Table, best: _Best, deadline: Deadline) -> None:
    """Better plans and better bounds, until the best one is proven or time is up."""
    starts = [*best.choices(), *_priced_choices(table, best)]
    found = Exchange(table).improved(dict.fromkeys(starts), deadline.share(_EXCHANGE_SHARE))
    best.add((table.worth(choice), table.original(choice)) for choice in found)
    _search_zero_products(table, best, FIRST_WIDTH * _WIDENING)
    if best.choices():
        with contextlib.suppress(OutOfTimeError):
            best.compare_labels(False)
            _close_gap(table, best, deadline)
            return
        best.compare_labels(True)
        best.aim_at(-math.inf)
    _search_rest(table, best, FIRST_WIDTH * _WIDENING)
    best.bound = best.worth


def _close_gap(table: Table, best: _Best, deadline: Deadline) -> None:
    """Bring the bound down to the best plan step by step, each with no label compared.

    To show that no plan reaches what lies far above the best one takes a small part of what it
    takes to show that none is better.

    Raises:
        OutOfTimeError: time is up, or the labels are too many.
    """
    with contextlib.suppress(OutOfTimeError):
        _search_rest(table, best, _QUICK_WIDTH)
        best.bound = best.worth
        return
    step = (best.bound - best.worth) / _AIMS
    while best.bound > best.worth:
        left_s = deadline.left_s
        best.aim_at(best.bound - step)
        _search_rest(table, best, MOST_UNCOMPARED)
        best.bound = best.worth if best.threshold > best.aim else best.aim
        if left_s - deadline.left_s > deadline.left_s / _GROWTH:
            step /= 2


def _priced_choices(table: Table, best: _Best) -> list[Choice]:
    """What the best prices choose, limits or not: near the best plans, and easily mended."""
    if table.factor is None:
        return [answer.choice for answer in _part(table, None, best).priced[:_MENDED]]
    kept = [np.flatnonzero(factor > 0) for factor in table.factor]
    if any(len(index) == 0 for index in kept):
        return []
    rest = table.select(kept)
    middle = (best.bound + best.worth) / 2 / table.scale if best.choices() else 0.0
    stretches = _stretches(rest)
    if middle > 0:  # the gains, small beside accuracies, are left out
        y = math.log(middle)
        stretches = [(y - width, y + width) for width in (0.01, 0.05, 0.2)]
    priced = [
        answer
        for low, high in stretches
        for answer in _part(rest, Line.above(rest.scale, low, high), best).priced[:4]
    ]
    return [
        tuple(int(index[at]) for index, at in zip(kept, answer.choice, strict=True))
        for answer in priced[: 2 * _MENDED]
    ]


def _tie_margin(table: Table) -> float:
    return _TIE_MARGIN * max(1.0, abs(table.floor()), abs(table.ceiling()))


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

    Raises:
        ConfigError: as :func:`solve`.
    """
    table = _table_of(problem)
    if table is None:
        return []
    floor, margin = table.floor(), _tie_margin(table)
    wanted = Wanted(top_k, most, margin)
    if reached is not None:
        floor = max(floor, reached - margin)
    try:
        if table.combinations <= SMALL_COMBINATIONS and reached is not None:
            found = Search(table, GainBound(table), wanted).run(floor)
            return [choice for _, choice in found.plans]
        if table.combinations <= SMALL_COMBINATIONS:
            return _search_small(table, wanted)
        best = _Best(most, floor, top_k, margin=margin)
        _search_all(table, best, FIRST_WIDTH)
    except TooManyTiesError:
        return None
    return best.choices()


def _search_small(table: Table, wanted: Wanted) -> list[Choice]:
    fewer = table.undominated(wanted.plans, wanted.margin)
    return [choice for _, choice in Search(fewer, None, wanted).run(table.floor()).plans]


def _search_all(table: Table, best: _Best, width: int) -> None:
    _search_zero_products(table, best, width)
    _search_rest(table, best, width)


def _search_rest(table: Table, best: _Best, width: int) -> None:
    """All plans but those with an accuracy of 0 in a product."""
    if table.factor is None:
        part = _part(table, None, best)
        best.bound = min(best.bound, part.bound)
        _search_part(part, best, width)
    else:
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
    ``margin`` keep no more labels for them than they would otherwise. With a ``step`` only plans
    that are better than the best one by nearly so much are looked for.

    Attributes:
        bound: no plan is worth more.
        aim: with a ``step``, only plans that are better than this are looked for.
        stretches: of a product, the first that were looked at, for the next search of its table.
    """

    def __init__(
        self,
        top_k: int,
        floor: float,
        wanted: int | None = None,
        *,
        margin: float = 0.0,
        deadline: Deadline | None = None,
        step: float | None = None,
    ) -> None:
        self.top_k, self.floor, self.step = top_k, floor, step
        self.wanted = top_k if wanted is None else wanted
        keep = self.wanted if margin or step is not None else top_k
        self.search = Wanted(keep, top_k, margin, deadline)
        self.bound = math.inf
        self.aim = -math.inf
        self.stretches: dict[tuple[float, float], _Part] = {}
        self._worth: dict[Choice, float] = {}
        self.threshold = floor

    @property
    def is_full(self) -> bool:
        """True if as many plans are known as are asked for."""
        return len(self._worth) == self.top_k

    @property
    def worth(self) -> float:
        """Of the best plan; −inf if none is known."""
        return max(self._worth.values(), default=-math.inf)

    def rounded_bound(self) -> float:
        """The bound, or the last step of the grid below it."""
        bound = max(self.bound, self.worth)
        if not self.step or not self._worth:
            return bound
        return self.worth + math.floor((bound - self.worth) / self.step + 1e-6) * self.step

    def aim_at(self, aim: float) -> None:
        """Look only for plans that are better than this, too."""
        self.aim = aim
        self.add(())

    def compare_labels(self, compares: bool) -> None:
        """Whether searches are to drop dominated labels."""
        self.search = dataclasses.replace(self.search, compares=compares)

    def add_from(self, other: _Best) -> None:
        """Take the plans of another one into account."""
        self.add((worth, choice) for choice, worth in other._worth.items())

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
        if self.step is not None:
            if ranked:
                top = ranked[0][1]
                room = EQUAL_OBJECTIVE_RTOL * max(1.0, abs(top))
                self.threshold = max(self.floor, self.aim, top + max(room, 0.999 * self.step))
            return
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
    bound = priced[0].bound + constant
    if line is not None:
        bound = min(bound, line.highest + sum(float(gain.max()) for gain in table.gain))
    return _Part(table, line, relaxation, priced, bound)


def _search_part(part: _Part, best: _Best, width: int, others: float = -math.inf) -> None:
    """Add to ``best`` every plan of the part that belongs there, where others may reach ``others``.

    Raises:
        OutOfTimeError: only with a deadline.
    """
    constant = 0.0 if part.line is None else part.line.constant
    exact = part.bound <= best.threshold
    proven = False
    for_options, for_labels = part.priced[:_PRICES_FOR_OPTIONS], part.priced[:_PRICES_FOR_LABELS]
    if not best.search.compares:
        for_options = for_labels = part.relaxation.around(part.priced[0])
    while not exact:
        kept = part.relaxation.contenders(for_options, best.threshold - constant)
        if any(len(index) == 0 for index in kept):
            return
        table = part.table.select(kept)
        if proven or not best.search.compares:
            table = table.undominated(best.search.plans, best.search.margin)
        bound = LabelBound(table, part.line, for_labels)
        found = Search(table, bound, best.search).run(best.threshold, width)
        best.add(found.plans)
        exact, proven = found.exact, True
        best.bound = min(best.bound, max(found.bound, best.threshold, others))
        width *= _WIDENING
        if best.search.deadline is not None and width > _WIDEST and not exact:
            raise OutOfTimeError  # of memory, rather


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
        margin, deadline = best.search.margin, best.search.deadline
        apart = _Best(best.top_k, sums.floor(), best.wanted, margin=margin, deadline=deadline)
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
    share = _ROUGH_SHARE if best.search.compares else _QUICK_ROUGH_SHARE
    order = itertools.count()
    waiting: list[tuple[float, int, _Part]] = []
    _queue(waiting, order, table, _stretches(table), best)
    while waiting:
        bound, _, part = heapq.heappop(waiting)
        best.bound = min(best.bound, max(-bound, best.threshold))
        if -bound <= best.threshold or part.line is None:
            return
        line = part.line
        rough = line.error * abs(table.scale) * math.exp(line.high)
        if line.high - line.low > _SHORTEST_STRETCH and rough > share * (-bound - best.threshold):
            middle = (line.low + line.high) / 2
            halves = [(line.low, middle), (middle, line.high)]
            _queue(waiting, order, table, halves, best)
        else:
            others = -waiting[0][0] if waiting else -math.inf
            _search_part(part, best, width, others)


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
        part = best.stretches.get((low, high))
        if part is None:
            part = _part(table, Line.above(table.scale, low, high), best)
            if best.search.deadline is not None and len(best.stretches) < _KEPT_STRETCHES:
                best.stretches[low, high] = part
        if part.bound > best.threshold:
            heapq.heappush(waiting, (-part.bound, next(order), part))


stops_in_time(within)(solve)
