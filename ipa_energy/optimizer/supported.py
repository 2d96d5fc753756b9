r"""Which points of a front some weights would choose, and weights that do.

The objective is alpha·A less a weight times each quantity that the front trades it for; unless told
otherwise alpha·A − beta·cores − energy_weight·J (gamma, IPA's tie-break by batch, is left at 0, and
latency has an SLA but no weight). A point is *supported* if there are weights, **all above 0**,
under which no other point of the front is worth more. Weights of 0 are left out because they choose
nothing: without a weight on cores, for instance, every plan of the best accuracy is optimal,
however wasteful.

With x the losses (−A, cores, J …; each divided by its range) that is a linear program,

.. math::

    \max t \quad w·(x_q − x_p) ≥ 0 \ ∀q, \quad w_k ≥ t, \quad Σ_k w_k = 1

and p is supported if t > 0. It is supported *alone* if for some weights it is better than all
others, max t with ``w·(x_q − x_p) ≥ t`` above 0; a point that shares all its figures with another,
or lies on a line between others, is supported but never alone.

Most points need no program. What lies inside the convex hull of the points and of all that is worse
is optimal for no weights; the programs of the rest need the corners of the hull only. If the hull
cannot be computed all points get their program, so that the answer is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipa_energy.arrays import Floats, Ints, Mask
from ipa_energy.optimizer.dominance import pareto_points
from ipa_energy.optimizer.front import Front
from ipa_energy.registries import QUANTITIES

TOLERANCE = 1e-9
"""Of an objective's range. Solvers answer to about 1e-10; what is nearer than this is a tie."""

_FAR = 10.0
_HULL_ERROR = 1e-7
_FACETS = 2000
_FIRST_ROWS = 300


@dataclass(frozen=True, slots=True)
class Supported:
    """What weights can choose from a front; arrays with one entry a point of the front.

    Attributes:
        names: the weights, in the order of the columns: ``alpha``, then that of each quantity: the
            YAML's key, or the quantity's own name if it has none.
        mask: True if some weights, all above 0, make the point optimal.
        alone: True if some make it better than every other point.
        weights: (F, len(names)) such weights in the units of the YAML (per unit of accuracy, core,
            joule …), summing to 1; NaN where ``mask`` is False. Where ``alone`` they are the
            ones that make it stand out most.
    """

    names: tuple[str, ...]
    mask: Mask
    alone: Mask
    weights: Floats

    def witness(self, index: int) -> dict[str, float] | None:
        """Weights by name under which a point is optimal; None if there are none."""
        if not self.mask[index]:
            return None
        return dict(zip(self.names, self.weights[index].tolist(), strict=True))


def supported(front: Front, quantities: Sequence[str] | None = None) -> Supported:
    """Which points of ``front`` are optimal for some weights.

    Exact to :data:`TOLERANCE` of each objective's range. Give the whole front, not a thinned one:
    points that are missing cannot beat anything.

    Args:
        front: from :func:`~ipa_energy.optimizer.front.pareto_front`.
        quantities: those of ``front.amounts`` that have a weight, beside accuracy; default all but
            latency. A quantity without figures, joules of a profile without any, is never weighed.
    """
    if quantities is None:
        quantities = [name for name in front.amounts if name != "latency_s"]
    known = [name for name in quantities if not np.isnan(front.amounts[name]).any()]
    names = ["alpha", *map(weight_name, known)]
    losses = [-front.accuracy, *(front.amounts[name] for name in known)]
    count = len(front)
    found = Supported(
        names=tuple(names),
        mask=np.zeros(count, dtype=bool),
        alone=np.zeros(count, dtype=bool),
        weights=np.full((count, len(names)), np.nan),
    )
    if count == 0:
        return found
    spans = np.array([float(np.ptp(column)) or 1.0 for column in losses])
    points = np.stack([column - column.min() for column in losses], axis=1) / spans
    _judge_all(points, found)
    weights = found.weights / spans
    found.weights[:] = weights / weights.sum(axis=1, keepdims=True)
    return found


def weight_name(quantity: str) -> str:
    """What the YAML calls the weight of a quantity; the quantity's own name if it has none."""
    key = QUANTITIES[quantity].weight_key if quantity in QUANTITIES else None
    return key or quantity


def _judge_all(points: Floats, found: Supported) -> None:
    """Fill ``found`` for points whose columns have range 1."""
    grid = np.round(points / TOLERANCE)
    _, first, group = np.unique(grid, axis=0, return_index=True, return_inverse=True)
    of_group = [np.flatnonzero(group.ravel() == number) for number in range(len(first))]
    efficient = pareto_points(list(grid[first].T), first.astype(np.float64), len(first))
    if efficient is None:  # pareto_points gives up beyond its limit, which is all of them
        efficient = np.arange(len(first))
    distinct = points[first[efficient]]
    near, corners = _hull(distinct)
    for index in near.tolist():
        others = np.delete(np.arange(len(distinct)), index)
        rows = np.setdiff1d(corners, [index])
        gaps = distinct - distinct[index]
        members = of_group[efficient[index]]
        weights, best = _weights(gaps, rows, others, margin=True)
        found.alone[members] = best and len(members) == 1
        if not best:
            weights, best = _weights(gaps, rows, others, margin=False)
        found.mask[members] = best
        if best:
            found.weights[members] = weights


def _hull(points: Floats) -> tuple[Ints, Ints]:
    """Indices of the points not well inside the hull of all points and what is worse; its corners.

    What is worse than a point is stood for by the same point with one loss greatly raised, which
    makes the hull smaller than it is: what is inside this one is inside the true one.
    """
    from scipy.spatial import ConvexHull, QhullError

    count, width = points.shape
    everything = np.arange(count)
    worse = [points + _FAR * np.eye(width)[column] for column in range(width)]
    try:
        hull = ConvexHull(np.concatenate([points, *worse]))
    except QhullError:
        return everything, everything[:_FIRST_ROWS]
    outside = np.full(count, -np.inf)
    for facets in np.array_split(hull.equations, max(1, len(hull.equations) // _FACETS)):
        reach = points @ facets[:, :-1].T + facets[:, -1]
        outside = np.maximum(outside, reach.max(axis=1))
    return np.flatnonzero(outside > -_HULL_ERROR), np.sort(hull.vertices[hull.vertices < count])


def _weights(gaps: Floats, rows: Ints, others: Ints, *, margin: bool) -> tuple[Floats, bool]:
    """Weights, all above 0 and summing to 1, that make the point of the zero gap optimal.

    Args:
        gaps: (N, K) losses of the others above those of the point.
        rows: others to begin with; those that the weights turn out to break are added.
        others: all of them.
        margin: True: better than each of them, else at least as good.

    Returns:
        (the weights, whether there are any)
    """
    while True:
        weights, least = _program(gaps[rows], margin=margin)
        if least <= TOLERANCE:
            return weights, False
        worth = gaps[others] @ weights
        broken = others[worth < (0.5 * least if margin else -TOLERANCE)]
        broken = np.setdiff1d(broken, rows)
        if not len(broken):
            return weights, True
        worst = np.argsort(gaps[broken] @ weights)[:_FIRST_ROWS]
        rows = np.concatenate([rows, broken[worst]])


def _program(gaps: Floats, *, margin: bool) -> tuple[Floats, float]:
    """The linear program of the module's docstring: its weights and its t."""
    from scipy.optimize import linprog

    width = gaps.shape[1]
    above = np.hstack([-gaps, np.full((len(gaps), 1), 1.0 if margin else 0.0)])
    positive = np.hstack([-np.eye(width), np.ones((width, 1))])
    answer = linprog(
        c=np.append(np.zeros(width), -1.0),
        A_ub=np.vstack([above, positive]),
        b_ub=np.zeros(len(above) + width),
        A_eq=np.append(np.ones(width), 0.0)[None, :],
        b_eq=[1.0],
        bounds=[(0.0, 1.0)] * width + [(None, 1.0)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if answer.x is None:
        return np.full(width, np.nan), -np.inf
    weights = np.maximum(answer.x[:width], 0.0)
    return weights / weights.sum(), float(answer.x[width])
