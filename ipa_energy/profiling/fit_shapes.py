"""Shapes that the cost of a batch may take over batch size and cores.

A cost y (seconds or joules of one batch) of variant v at batch b on c cores is fitted as ::

    constant       y = s_v                               the baseline that any shape must beat
    proportional   y = s_v · b
    affine         y = s_v · (η + δ·b)
    convex         y = s_v · (η + δ·b + κ·b²)            IPA's quadratic, kept from falling
    amdahl         y = s_v · (γ·b/c + δ·b + ε/c + η)     a parallel and a serial part of each
    overhead       y = s_v · (η + δ·b + κ·c + μ·b·c)     every core more costs something
    power          y = s_v · b^p · c^q
    power-cores    y = s_v · c^q · (η + δ·b)
    quadratic      y = α·b² + β·b + γ, own for each (v, c): IPA's own, by plain least squares

All Greek coefficients but those of ``quadratic`` are held at 0 or above, which keeps a prediction
above 0 and rising with the batch. A shape is shared by a stage's variants and only the scale s_v
is a variant's own, so one or two measured points place a variant; ``own-…`` shapes have
coefficients of their own for each variant, where there are enough points. Fits minimise *relative*
squared error, because the values of one stage span two orders of magnitude.

Amdahl's form over batch and cores is that of Sponge (Razavi et al. 2024), and the quadratic that
of the IPA paper, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Features = Callable[[Vector, Vector], Vector]
"""(batches, cores) → one column a coefficient."""

Model = Callable[[str, float, int], float]
"""(variant, cores, batch) → predicted value; NaN where the fit says nothing."""

ALTERNATIONS = 100
SETTLED = 1e-6
POWER_BOUNDS = (-1.0, 1.5)
"""Exponents of the cores that ``power-cores`` may have: from costlier with cores to superlinear."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measured cost.

    Attributes:
        variant: whose.
        cores: of its allocation.
        batch: batch size.
        value: cost of one batch, above 0.
    """

    variant: str
    cores: float
    batch: int
    value: float


@dataclass(frozen=True, slots=True)
class Shape:
    """A way to fit points.

    Attributes:
        name: as in the module's table.
        parameters: coefficients that all variants share, or that each has; of two shapes equally
            good the one with fewer is taken.
        fit: points → model.
    """

    name: str
    parameters: int
    fit: Callable[[Sequence[Point]], Model]


def shapes_for(points: Sequence[Point]) -> tuple[Shape, ...]:
    """The shapes that these points can tell apart, simplest first."""
    several_cores = len({point.cores for point in points}) > 1
    of_cores = ("amdahl", "overhead")
    names = [name for name in LINEAR if several_cores or name not in of_cores]
    shapes = [_pooled(name, features(name)) for name in names]
    own = of_cores if several_cores else ("affine", "convex")
    shapes += [_own(name, features(name)) for name in own]
    shapes.append(Shape("power", 1 + several_cores, _fit_power))
    if several_cores:
        shapes.append(Shape("power-cores", 3, _fit_power_cores))
    shapes.append(Shape("quadratic", 3, _fit_quadratic))
    return tuple(sorted(shapes, key=lambda shape: shape.parameters))


LINEAR: dict[str, Callable[[Vector, Vector], list[Vector]]] = {
    "constant": lambda b, c: [np.ones_like(b)],
    "proportional": lambda b, c: [b],
    "affine": lambda b, c: [np.ones_like(b), b],
    "convex": lambda b, c: [np.ones_like(b), b, b**2],
    "amdahl": lambda b, c: [b / c, b, 1 / c, np.ones_like(b)],
    "overhead": lambda b, c: [np.ones_like(b), b, c, b * c],
}
"""Shape that is linear in its coefficients → what each is multiplied by."""


def features(name: str) -> Features:
    """The columns of a shape of :data:`LINEAR`."""
    return lambda batch, cores: np.stack(LINEAR[name](batch, cores), axis=-1)


def _pooled(name: str, columns: Features) -> Shape:
    return Shape(name, _width(columns), lambda points: _fit_pooled(points, columns))


def _own(name: str, features: Features) -> Shape:
    width = _width(features)

    def fit(points: Sequence[Point]) -> Model:
        models: dict[str, Model] = {}
        for variant in {point.variant for point in points}:
            mine = [point for point in points if point.variant == variant]
            if len(mine) >= width:
                models[variant] = _fit_pooled(mine, features)
        return lambda variant, cores, batch: (
            models[variant](variant, cores, batch) if variant in models else math.nan
        )

    # After the shared shapes of the same width: its coefficients are as many for every variant.
    return Shape(f"own-{name}", width + 1, fit)


def _width(features: Features) -> int:
    return int(features(np.ones(1), np.ones(1)).shape[1])


@dataclass(frozen=True, slots=True)
class _Columns:
    """Points as arrays; ``index`` is each point's place in ``variants``."""

    variants: list[str]
    index: NDArray[np.intp]
    batch: Vector
    cores: Vector
    value: Vector


def _columns(points: Sequence[Point]) -> _Columns:
    variants = sorted({point.variant for point in points})
    return _Columns(
        variants,
        np.array([variants.index(point.variant) for point in points], dtype=np.intp),
        np.array([point.batch for point in points], dtype=float),
        np.array([point.cores for point in points], dtype=float),
        np.array([point.value for point in points], dtype=float),
    )


def _fit_pooled(points: Sequence[Point], features: Features) -> Model:
    data = _columns(points)
    scales, theta = _alternate(data, features(data.batch, data.cores))
    return _scaled(data.variants, scales, lambda b, c: float(features(b, c)[0] @ theta))


def _alternate(
    data: _Columns, columns: Vector, scales: Vector | None = None
) -> tuple[Vector, Vector]:
    """Scales of the variants and shared coefficients, fitted in turns until both stand still.

    ``scales`` is where to begin, if something better is known than each variant's mean.
    """
    from scipy.optimize import nnls

    count = len(data.variants)
    if scales is None:
        log_rate = np.log(data.value / data.batch)
        members = np.bincount(data.index, minlength=count)
        scales = np.exp(np.bincount(data.index, log_rate, count) / members)
    theta = np.zeros(columns.shape[1])
    for _ in range(ALTERNATIONS):
        design = columns * (scales[data.index] / data.value)[:, None]
        before, theta = theta, nnls(design, np.ones(len(data.value)))[0]
        if count == 1:
            break
        ratio = columns @ theta / data.value
        squares = np.bincount(data.index, ratio**2, count)
        fitted = np.bincount(data.index, ratio, count)
        # A variant whose every point the shape puts at 0 has no scale that would help it.
        scales = np.divide(fitted, squares, out=scales.copy(), where=squares > 0)
        size = float(np.exp(np.log(scales).mean()))
        scales, theta = scales / size, theta * size
        if np.abs(theta - before).max() <= SETTLED * np.abs(theta).max():
            break
    return scales, theta


def _scaled(variants: list[str], scales: Vector, shape: Callable[[Vector, Vector], float]) -> Model:
    known = dict(zip(variants, scales.tolist(), strict=True))

    def model(variant: str, cores: float, batch: int) -> float:
        if variant not in known:
            return math.nan
        with np.errstate(all="ignore"):  # far outside the points a power may have no number
            value = known[variant] * shape(np.array([float(batch)]), np.array([cores]))
        return value if 0 < value < math.inf else math.nan

    return model


def _fit_power(points: Sequence[Point]) -> Model:
    data = _columns(points)
    columns = np.zeros((len(points), len(data.variants) + 2))
    columns[np.arange(len(points)), data.index] = 1.0
    columns[:, -2], columns[:, -1] = np.log(data.batch), np.log(data.cores)
    # The solution of least norm: an exponent that nothing in the points speaks for is 0.
    solution: Any = np.linalg.lstsq(columns, np.log(data.value), rcond=1e-10)[0]
    by_batch, by_cores = float(solution[-2]), float(solution[-1])
    with np.errstate(over="ignore"):
        scales = np.exp(solution[:-2])
    return _scaled(
        data.variants,
        scales,
        lambda b, c: float(b[0] ** by_batch * c[0] ** by_cores),
    )


def _fit_power_cores(points: Sequence[Point]) -> Model:
    from scipy.optimize import minimize_scalar

    data, affine = _columns(points), features("affine")
    scales: Vector | None = None

    def fitted(exponent: float) -> tuple[Vector, Vector, float]:
        nonlocal scales
        columns = affine(data.batch, data.cores) * (data.cores**exponent)[:, None]
        scales, theta = _alternate(data, columns, scales)
        ratio = scales[data.index] * (columns @ theta) / data.value
        return scales, theta, float(((ratio - 1) ** 2).sum())

    low, high = POWER_BOUNDS
    found: Any = minimize_scalar(
        lambda q: fitted(-q)[2], bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    exponent = -float(found.x)
    final, theta, _ = fitted(exponent)
    return _scaled(
        data.variants, final, lambda b, c: float(c[0] ** exponent * (affine(b, c)[0] @ theta))
    )


def _fit_quadratic(points: Sequence[Point]) -> Model:
    polynomials: dict[tuple[str, float], Vector] = {}
    for key in {(point.variant, point.cores) for point in points}:
        mine = [point for point in points if (point.variant, point.cores) == key]
        if len({point.batch for point in mine}) >= 3:
            batches = [point.batch for point in mine]
            polynomials[key] = np.polyfit(batches, [point.value for point in mine], 2)

    def model(variant: str, cores: float, batch: int) -> float:
        if (variant, cores) not in polynomials:
            return math.nan
        value = float(np.polyval(polynomials[variant, cores], batch))
        return value if value > 0 else math.nan

    return model
