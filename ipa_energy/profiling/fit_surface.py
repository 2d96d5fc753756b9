"""A cost over batch and cores from some of its points: which shape, how good, how far off.

The shape is chosen by cross-validation. How good the *choice and the fit together* are is held out
once more: each fold is predicted by the shape that the other folds alone would have chosen, so the
reported error and the interval are those of points the fit never saw. ::

    half width (of ln y) = t(0.975, m − 1) · sqrt( Σ ln²(ŷ_i / y_i) / m )   over m held-out points

Points of a variant that has no other are never held out: without a point it has no scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ipa_energy.errors import ConfigError
from ipa_energy.interval import t_quantile_95
from ipa_energy.profiling.fit_shapes import Model, Point, Shape, shapes_for
from ipa_energy.profiling.grid import MIN_HELD_OUT

FOLDS = 5

AS_GOOD = 1.05
"""A simpler shape is taken if its held-out error is at most this many times the best one's."""

SMALLEST, LARGEST = 1e-30, 1e30
"""Costs outside these bounds are no seconds or joules of anything that could be measured."""

LARGEST_LN = 300.0
"""An interval wider than this many powers of e has no bound that anyone could use."""

ROUNDING = 1e-4
"""Relative errors below this are all the same: that of an iteration that has settled, or less."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Errors at points the fit did not see, relative to what was measured there.

    Attributes:
        points: how many.
        relative_mae: mean of |ŷ/y − 1|.
        relative_max: largest of them.
    """

    points: int
    relative_mae: float
    relative_max: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted value with the bounds of its 95 % prediction interval, all above 0."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Surface:
    """A fitted cost.

    Attributes:
        shape: name of the chosen shape (:mod:`.fit_shapes`).
        points: measured points behind it.
        held_out: error of choice and fit together.
        candidates: shape → its own held-out relative MAE, infinite if it cannot predict them all.
        half_width_ln: of the 95 % prediction interval, of ln y.
    """

    shape: str
    points: int
    held_out: HeldOut
    candidates: dict[str, float]
    half_width_ln: float
    _model: Model

    def predict(self, variant: str, cores: float, batch: int) -> Prediction:
        """Cost of one batch.

        Raises:
            ConfigError: the variant has no measured point, or the shape says nothing there.
        """
        value = self._model(variant, cores, batch)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(
                f"the fit says nothing of {variant} at batch {batch} on {cores:g} cores",
                fix="measure at least one entry of that variant",
            )
        spread = math.exp(min(self.half_width_ln, LARGEST_LN))
        return Prediction(value, value / spread, value * spread)


def fit_surface(points: Sequence[Point], what: str = "cost") -> Surface:
    """Choose a shape for the points and fit it.

    Args:
        points: of one quantity of one stage, on one kind of hardware.
        what: what they are, for messages.

    Raises:
        ConfigError: a value is not above 0, or too few points have another of their variant to be
            held out against.
    """
    for point in points:
        if not SMALLEST < point.value < LARGEST:
            raise ConfigError(
                f"{what}: {point.value:g} of {point.variant} at batch {point.batch}",
                allowed=f"values above 0, from {SMALLEST:g} to {LARGEST:g}",
            )
    folds = _folds(points)
    held_out = sum(len(fold) for fold in folds)
    if held_out < MIN_HELD_OUT:
        raise ConfigError(
            f"{what}: {len(points)} points are too few to fit; {held_out} of them have another "
            "of their variant to be held out against",
            allowed=f"{MIN_HELD_OUT} or more of those",
            fix="measure a larger share",
        )
    shapes = shapes_for(points)
    ratios = _ratios_of_choices(points, folds, shapes)
    chosen, candidates = _choose(points, shapes)
    errors = [abs(ratio - 1) for ratio in ratios]
    return Surface(
        shape=chosen.name,
        points=len(points),
        held_out=HeldOut(len(errors), sum(errors) / len(errors), max(errors)),
        candidates=candidates,
        half_width_ln=_half_width(ratios),
        _model=chosen.fit(points),
    )


def _ratios_of_choices(
    points: Sequence[Point], folds: Sequence[set[int]], shapes: Sequence[Shape]
) -> list[float]:
    """Predicted over measured for every held-out point, the choice of the shape included."""
    ratios: list[float] = []
    for fold in folds:
        seen = [point for number, point in enumerate(points) if number not in fold]
        shape, _ = _choose(seen, shapes)
        ratios += _ratios(shape, points, fold)
    return ratios


def _choose(points: Sequence[Point], shapes: Sequence[Shape]) -> tuple[Shape, dict[str, float]]:
    """The simplest shape about as good as the best, and every shape's held-out error."""
    folds = _folds(points)
    scores: dict[str, float] = {}
    for shape in shapes:
        errors = [abs(ratio - 1) for fold in folds for ratio in _ratios(shape, points, fold)]
        scores[shape.name] = sum(errors) / len(errors) if errors else math.inf
        complete = shape.fit(points)
        said = [complete(point.variant, point.cores, point.batch) for point in points]
        if not all(map(math.isfinite, said)):
            scores[shape.name] = math.inf
    limit = AS_GOOD * min(scores.values()) + ROUNDING
    return next(shape for shape in shapes if scores[shape.name] <= limit), scores


def _ratios(shape: Shape, points: Sequence[Point], fold: set[int]) -> list[float]:
    model = shape.fit([point for number, point in enumerate(points) if number not in fold])
    ratios = []
    for number in sorted(fold):
        point = points[number]
        value = model(point.variant, point.cores, point.batch)
        ratios.append(value / point.value if math.isfinite(value) else math.inf)
    return ratios


def _folds(points: Sequence[Point]) -> list[set[int]]:
    """Numbers of the points of each fold; no fold has all points of a variant."""
    folds: list[set[int]] = [set() for _ in range(FOLDS)]
    turn = 0
    for variant in sorted({point.variant for point in points}):
        mine = [number for number, point in enumerate(points) if point.variant == variant]
        if len(mine) < 2:
            continue
        mine.sort(key=lambda number: (points[number].cores, points[number].batch))
        for number in mine:
            folds[turn % FOLDS].add(number)
            turn += 1
    return [fold for fold in folds if fold]


def _half_width(ratios: Sequence[float]) -> float:
    if not all(ratio > 0 and math.isfinite(ratio) for ratio in ratios):
        return math.inf
    mean_square = sum(math.log(ratio) ** 2 for ratio in ratios) / len(ratios)
    return t_quantile_95(len(ratios) - 1) * math.sqrt(mean_square)
