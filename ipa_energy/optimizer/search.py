"""Stage by stage, every partial plan worth going on with: labels, pruned, as wide as it takes.

A *label* is a partial plan over the first stages: its value so far, what it used of each resource
and, for a product of accuracies, the product so far. One step extends every label by every
candidate of the next stage, all at once, and drops

1. labels that must break an SLA whatever follows;
2. labels whose upper bound does not beat the threshold, by the plans known so far;
3. labels with as many dominators as plans are wanted (:mod:`.dominance`): at least as good as them
   after every completion, or better by a margin, so that what ties with the last plan wanted stays
   in. For a product that is checked at the least and the greatest factor that the rest can
   contribute; what lies between is linear.

A search that is *narrow* also drops all but the ``width`` most promising labels. If it never had
to, its answer is exact; otherwise what it found is a good start for a wider one.

Resources are summed in the order of the stages, as the certificate of a plan sums them, so that
labels with less use stay within an SLA to the last bit whenever those with more use do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ipa_energy.arrays import Floats, Ints
from ipa_energy.optimizer.deadline import Deadline, OutOfTimeError
from ipa_energy.optimizer.dominance import undominated
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.table import Table, suffix_factors

_CHUNK = 2_000_000
"""Most labels made at once; bounds the memory of a step (8 bytes a column each)."""

_TIMED_CHUNK = 200_000
"""The same where a deadline is looked at between them."""

MOST_UNCOMPARED = 1_000_000
"""Labels of a step, and a third of those of all steps, that have room where none are compared."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Partial plans, one entry each.

    Attributes:
        value: sum of the gains.
        product: scale times the product of the factors; None for a sum.
        used: one array a resource.
        parent: position of the label that each extends in the step before.
        option: candidate that it was extended by.
    """

    value: Floats
    product: Floats | None
    used: tuple[Floats, ...]
    parent: Ints
    option: Ints

    def __len__(self) -> int:
        return len(self.value)

    def take(self, index: Ints) -> Labels:
        """Some of the labels, in the order of ``index``."""
        return Labels(
            self.value[index],
            None if self.product is None else self.product[index],
            tuple(used[index] for used in self.used),
            self.parent[index],
            self.option[index],
        )

    def worth(self) -> Floats:
        """Objective of complete plans."""
        return self.value if self.product is None else self.value + self.product


class Bound(Protocol):
    """Upper bounds on what labels can become."""

    def refine(self, stage: int, labels: Labels, threshold: float) -> tuple[Ints, Floats]:
        """Indices of the labels that may beat ``threshold`` once complete, and their bounds.

        ``stage`` is the first stage that the labels have not decided.
        """
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came back with.

    Attributes:
        plans: (objective, choice) of feasible plans, best first; choices index the problem.
        exact: True if no plan above the threshold can be missing.
        bound: of those that are missing none is worth more; −inf if none is.
    """

    plans: list[tuple[float, Choice]]
    exact: bool
    bound: float


MANY_TIES = 128
"""With more labels of a stage as good as another one, ties are not worth carrying along."""


class TooManyTiesError(Exception):
    """A search with a margin would have to keep every tie of a program full of them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search is to find.

    Attributes:
        plans: how many, the best.
        most: how many to return, if so many are above the threshold.
        margin: plans that are worse than the last wanted one by less are to be found too.
        deadline: when to give up.
        compares: False to let dominated labels stay. That is quicker where bounds cut much and
            dominance little.
    """

    plans: int
    most: int
    margin: float = 0.0
    deadline: Deadline | None = None
    compares: bool = True

    def check(self) -> None:
        """Give up if it is time.

        Raises:
            OutOfTimeError: it is.
        """
        if self.deadline is not None:
            self.deadline.check()


class Search:
    """A table with everything about its unfinished ends that all widths share."""

    def __init__(self, table: Table, bound: Bound | None, wanted: Wanted) -> None:
        self._table, self._bound, self._wanted = table, bound, wanted
        self._least = [resource.suffix(np.minimum) for resource in table.resources]
        self._most = [resource.suffix(np.maximum) for resource in table.resources]
        self._factors = [] if table.factor is None else suffix_factors(table.factor)

    def run(self, threshold: float, width: int | None = None) -> Found:
        """The best plans above ``threshold``, looking at ``width`` labels a stage (None: all).

        Raises:
            TooManyTiesError: only with a margin.
            OutOfTimeError: only with a deadline, or without comparing labels.
        """
        steps: list[tuple[Ints, Ints]] = []
        labels = _nothing_decided(self._table)
        exact, bound, size = True, -math.inf, 0
        last = len(self._table) - 1
        for stage in range(last):
            labels, upper = self._extend(labels, stage, threshold)
            if width is not None and len(labels) > width:
                labels, cut = self._narrow(labels, stage + 1, upper, width)
                exact, bound = exact and cut is None, max(bound, -math.inf if cut is None else cut)
            elif self._wanted.compares:
                labels = labels.take(self._undominated(labels, stage + 1, _descending(upper)))
            if self._wanted.margin and len(labels) > MANY_TIES:
                self._refuse_ties(labels)
            steps.append((labels.parent, labels.option))
            size += len(labels)
            if size > 3 * MOST_UNCOMPARED and not self._wanted.compares:
                raise OutOfTimeError  # of memory, rather
        labels, _ = self._extend(labels, last, threshold, complete=True)
        return Found(self._plans(steps, labels), exact, bound)

    def _narrow(
        self, labels: Labels, stage: int, upper: Floats | None, width: int
    ) -> tuple[Labels, float | None]:
        """At most ``width`` labels, and the bound of those cut without a reason; None of none."""
        most = 4 * width
        promise = labels.value if upper is None else upper
        if not self._wanted.compares:
            order = np.argpartition(-promise, width)
            highest = math.inf if upper is None else float(promise[order[width]])
            return labels.take(order[:width]), highest
        order = np.argsort(-promise, kind="stable")
        cut: float | None = None
        if len(order) > most:
            cut = math.inf if upper is None else float(upper[order[most]])
            labels, promise = labels.take(order[:most]), promise[order[:most]]
            order = np.arange(most)
        kept = self._undominated(labels, stage, order, width)
        if len(kept) > width:
            # At most as promising are those that were not even compared.
            highest = math.inf if upper is None else float(promise[kept[width:]].max())
            return labels.take(kept[:width]), highest if cut is None else max(cut, highest)
        return labels.take(kept), cut

    def _undominated(
        self, labels: Labels, stage: int, order: Ints | None, enough: int | None = None
    ) -> Ints:
        columns, counting = self._columns(labels, stage)
        wanted = self._wanted
        return undominated(
            columns,
            wanted.plans,
            order,
            margin=wanted.margin,
            counting=counting,
            enough=enough,
            tick=wanted.check,
        )

    def _refuse_ties(self, labels: Labels) -> None:
        steps = np.diff(np.sort(labels.worth()))
        if np.count_nonzero(steps < self._wanted.margin) > MANY_TIES:
            raise TooManyTiesError

    def _extend(
        self, labels: Labels, stage: int, threshold: float, *, complete: bool = False
    ) -> tuple[Labels, Floats | None]:
        """Every label with every candidate of ``stage``, less what is hopeless, and its bounds."""
        count = len(self._table.gain[stage])
        timed = self._wanted.deadline is not None
        rows = max(1, (_TIMED_CHUNK if timed else _CHUNK) // count)
        made: list[tuple[Labels, Floats | None]] = []
        room = MOST_UNCOMPARED
        for start in range(0, len(labels), rows):
            product = self._product(labels, start, start + rows, stage)
            made.append(self._promising(product, stage + 1, threshold, complete))
            room -= len(made[-1][0])
            if room < 0 and not self._wanted.compares:
                raise OutOfTimeError  # of memory, rather
        if len(made) == 1:
            return made[0]
        if not made:
            return labels.take(np.empty(0, dtype=np.intp)), None
        return _concatenated(made)

    def _product(self, labels: Labels, start: int, stop: int, stage: int) -> Labels:
        self._wanted.check()
        table = self._table
        gain = table.gain[stage]
        value = (labels.value[start:stop, None] + gain).ravel()
        product = None
        if table.factor is not None and labels.product is not None:
            product = (labels.product[start:stop, None] * table.factor[stage]).ravel()
        used = tuple(
            (used[start:stop, None] + resource.use[stage]).ravel()
            for used, resource in zip(labels.used, table.resources, strict=True)
        )
        parent = np.repeat(np.arange(start, start + len(value) // len(gain)), len(gain))
        option = np.tile(np.arange(len(gain)), len(value) // len(gain))
        return Labels(value, product, used, parent, option)

    def _promising(
        self, labels: Labels, stage: int, threshold: float, complete: bool
    ) -> tuple[Labels, Floats | None]:
        fits = None
        for used, least, resource in zip(
            labels.used, self._least, self._table.resources, strict=True
        ):
            limit = resource.limit if complete else resource.loose_limit - least[stage]
            ok = used <= limit
            fits = ok if fits is None else fits & ok
        if fits is not None and not fits.all():
            labels = labels.take(np.flatnonzero(fits))
        if complete:
            worth = labels.worth()
            return labels.take(_best(worth, self._wanted, threshold)), None
        if self._bound is None:
            return labels, None
        index, upper = self._bound.refine(stage, labels, threshold)
        return (labels if len(index) == len(labels) else labels.take(index)), upper

    def _columns(self, labels: Labels, stage: int) -> tuple[list[Floats], int]:
        """What dominance compares, larger being better; the first so many are of the objective."""
        if labels.product is None:
            columns = [labels.value]
        else:
            low, high = self._factors[stage]
            columns = [labels.value + labels.product * low]
            if high > low and (low == 0 or labels.value.any()):
                columns.append(labels.value + labels.product * high)
        counting = len(columns)
        for used, least, most, resource in zip(
            labels.used, self._least, self._most, self._table.resources, strict=True
        ):
            # With less than this in use nothing that follows can break the SLA: all are equal.
            rounding = 1e-9 * (abs(resource.limit) + abs(float(most[stage])))
            harmless = resource.limit - most[stage] - rounding
            if len(used) and float(used.max()) > harmless and most[stage] > least[stage]:
                columns.append(-np.maximum(used, harmless))
            elif len(used) and float(used.max()) > harmless:
                columns.append(-used)
        return columns, counting

    def _plans(
        self, steps: Sequence[tuple[Ints, Ints]], last: Labels
    ) -> list[tuple[float, Choice]]:
        """The complete plans, from the (parent, option) of the steps before."""
        worth = last.worth()
        parts = [*steps, (last.parent, last.option)]
        plans = []
        for position in np.argsort(-worth, kind="stable")[: self._wanted.most].tolist():
            choice, at = [], position
            for index, (parent, option) in zip(self._table.index[::-1], parts[::-1], strict=True):
                choice.append(int(index[option[at]]))
                at = int(parent[at])
            plans.append((float(worth[position]), tuple(reversed(choice))))
        return plans


def _nothing_decided(table: Table) -> Labels:
    zero = np.zeros(1)
    return Labels(
        value=zero,
        product=None if table.factor is None else np.array([table.scale]),
        used=tuple(zero for _ in table.resources),
        parent=np.zeros(1, dtype=np.intp),
        option=np.zeros(1, dtype=np.intp),
    )


def _best(worth: Floats, wanted: Wanted, threshold: float) -> Ints:
    above = np.flatnonzero(worth > threshold)
    if wanted.margin and len(above) > wanted.plans:
        last = np.partition(worth[above], -wanted.plans)[-wanted.plans]
        above = above[worth[above] > last - wanted.margin]
    if len(above) > wanted.most:
        above = above[np.argpartition(-worth[above], wanted.most - 1)[: wanted.most]]
    return above


def _descending(upper: Floats | None) -> Ints | None:
    return None if upper is None else np.argsort(-upper, kind="stable")


def _concatenated(made: Sequence[tuple[Labels, Floats | None]]) -> tuple[Labels, Floats | None]:
    parts = [labels for labels, _ in made]
    products = [labels.product for labels in parts if labels.product is not None]
    labels = Labels(
        np.concatenate([labels.value for labels in parts]),
        np.concatenate(products) if products else None,
        tuple(
            np.concatenate(used) for used in zip(*(labels.used for labels in parts), strict=True)
        ),
        np.concatenate([labels.parent for labels in parts]),
        np.concatenate([labels.option for labels in parts]),
    )
    uppers = [upper for _, upper in made if upper is not None]
    return labels, np.concatenate(uppers) if len(uppers) == len(made) else None
