"""What the points say: does energy tell anything that accuracy and latency do not?

Published figures were read off plots, each to about ±1 % of its axis (:func:`reading_error`).
Whatever is concluded from them is repeated over draws with errors of that size, and the share of
draws in which it holds stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
from seed_data import SeedPoint

from ipa_energy.tradeoff.correlation import Correlation, correlations

Floats = npt.NDArray[np.float64]

READING_SHARE = 0.01
"""Error of a figure read off a plot, as a share of its axis."""
MARGIN = 1.1
"""An axis that does not begin at 0 is this much longer than its values' range."""
DRAWS = 4000
SEED = 2024
PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Largest errors of three figures in their own units, one for all points or one each."""

    latency_s: float | Floats = 0.0
    energy_j: float | Floats = 0.0
    accuracy: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingError(Errors):
    """Errors of figures read off a plot: one for all points."""

    latency_s: float
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OnFront:
    """One point and the fronts.

    Attributes:
        point: which.
        without, with_energy: it is on the front of accuracy and latency, and on that of accuracy,
            latency and energy, by the figures as read.
        share_without, share_with: of the draws in which it is.
        share_only: of the draws in which it is on the second alone: energy makes it a choice.
    """

    point: SeedPoint
    without: bool
    with_energy: bool
    share_without: float
    share_with: float
    share_only: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two points of which ``dearer`` takes more joules than its latency would say.

    Attributes:
        dearer, cheaper: the points.
        ratio: of their joules per image.
        low, high: of the ratio, errors at their worst.
    """

    dearer: SeedPoint
    cheaper: SeedPoint
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A figure's change from the smallest batch to the largest, as ratios; bounds at worst."""

    first: SeedPoint
    last: SeedPoint
    energy: float
    energy_low: float
    energy_high: float
    latency: float
    power: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedCost:
    """A line through two runs of one point over different numbers of images.

    Attributes:
        batch: of both runs.
        fixed_j: joules at no images: start and loading, if all else was equal.
        slope_j: joules an image beyond that.
        share: of the smaller run's joules that is fixed.
    """

    batch: int
    fixed_j: float
    slope_j: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Least squares of joules per image over latency: ``offset_j + power_w · latency``.

    Attributes:
        r2: share of the variance it explains.
        worst: largest distance of a point from it, as a share of the point's joules.
        worst_point: which.
    """

    offset_j: float
    power_w: float
    r2: float
    worst: float
    worst_point: SeedPoint


def reading_error(points: Sequence[SeedPoint], *, f1_from_zero: bool = False) -> ReadingError:
    """±1 % of each axis. Those of latency and energy are taken to begin at 0, which is the worst.

    An F1 axis from 0 would blur all weights but two, so that one is taken to span its values.
    """
    latency_s, energy_j, accuracy = _columns(points)
    span = float(np.ptp(accuracy)) * MARGIN
    axis = float(accuracy.max()) if f1_from_zero else span
    return ReadingError(
        latency_s=READING_SHARE * float(latency_s.max()),
        energy_j=READING_SHARE * float(energy_j.max()),
        accuracy=0.0 if math.isnan(axis) else READING_SHARE * axis,
    )


def steady_points(points: Sequence[SeedPoint]) -> list[SeedPoint]:
    """The points with the joules of their steady state in place of the whole process's.

    Those without a steady state are left out.
    """
    return [
        replace(
            point,
            run_energy_j=point.steady_joules_per_image * point.images,
            ci95_j=point.steady_ci95_j,
        )
        for point in points
        if not math.isnan(point.steady_joules_per_image)
    ]


def trial_error(points: Sequence[SeedPoint]) -> Errors:
    """Half widths of the 95 % intervals over trials; 0 for a single trial, which has none."""
    return Errors(
        latency_s=np.nan_to_num([point.latency_ci95_s for point in points]),
        energy_j=np.nan_to_num([point.ci95_j * point.images for point in points]),
    )


def correlated(points: Sequence[SeedPoint]) -> tuple[Correlation, ...]:
    """Pearson and Spearman of accuracy, latency and joules per image, and energy at one latency."""
    return correlations(
        {
            "accuracy": np.array([point.accuracy for point in points]),
            "latency_s": np.array([point.latency_s for point in points]),
            "joules_per_request": np.array([point.joules_per_image for point in points]),
        },
        "points",
    )


def fronts(points: Sequence[SeedPoint], errors: Errors, *, seed: int = SEED) -> list[OnFront]:
    """Every point on the fronts with and without energy. Accuracy takes part if all have one.

    Points must have the same number of images: their runs' joules are compared.
    """
    latency_s, energy_j, accuracy = _columns(points)
    generator = np.random.default_rng(seed)

    def drawn(values: Floats, error: float | Floats) -> Floats:
        noise = error * generator.uniform(-1, 1, (DRAWS, len(values)))
        noise[0] = 0.0  # the first draw is the figures as read
        return np.asarray(values + noise)

    blind = [drawn(latency_s, errors.latency_s)]
    if not np.isnan(accuracy).any():
        blind.append(-drawn(accuracy, errors.accuracy))
    without = undominated(np.stack(blind))
    with_energy = undominated(np.stack([*blind, drawn(energy_j, errors.energy_j)]))
    only = with_energy & ~without
    return [
        OnFront(
            point=point,
            without=bool(without[0, index]),
            with_energy=bool(with_energy[0, index]),
            share_without=float(without[:, index].mean()),
            share_with=float(with_energy[:, index].mean()),
            share_only=float(only[:, index].mean()),
        )
        for index, point in enumerate(points)
    ]


def undominated(losses: Floats) -> npt.NDArray[np.bool_]:
    """Which points no other one beats.

    Args:
        losses: (objectives, draws, points), less is better.

    Returns:
        (draws, points); True where no point of the same draw is at least as good in every
        objective and better in one.
    """
    _, draws, points = losses.shape
    step = max(1, PAIRS_AT_ONCE // points**2)  # bounds the memory
    found = []
    for start in range(0, draws, step):
        some = losses[:, start : start + step]
        as_good = np.all(some[:, :, :, None] <= some[:, :, None, :], axis=0)
        better = np.any(some[:, :, :, None] < some[:, :, None, :], axis=0)
        found.append(~np.any(as_good & better, axis=1))
    return np.concatenate(found)


def equally_fast(points: Sequence[SeedPoint]) -> list[Pair]:
    """Published pairs of different weights whose latencies differ by less than two reading errors.

    Points must have the same number of images. The largest energy ratio comes first.
    """
    errors = reading_error(points)
    found = []
    for a, b in combinations(points, 2):
        dearer, cheaper = sorted((a, b), key=lambda point: -point.run_energy_j)
        if a.weights != b.weights and abs(a.latency_s - b.latency_s) <= 2 * errors.latency_s:
            found.append(_pair(dearer, cheaper, errors))
    return sorted(found, key=lambda pair: -pair.ratio)


def reversals(points: Sequence[SeedPoint]) -> list[Pair]:
    """Published pairs in which the *faster* one takes more joules, both beyond reading errors.

    Points must have the same number of images. The largest energy ratio comes first.
    """
    errors = reading_error(points)
    found = []
    for a, b in combinations(points, 2):
        faster, slower = sorted((a, b), key=lambda point: point.latency_s)
        pair = _pair(faster, slower, errors)
        if slower.latency_s - faster.latency_s > 2 * errors.latency_s and pair.low > 1:
            found.append(pair)
    return sorted(found, key=lambda pair: -pair.ratio)


def _pair(dearer: SeedPoint, cheaper: SeedPoint, errors: ReadingError) -> Pair:
    low, high = _bounds(dearer.run_energy_j, cheaper.run_energy_j, errors.energy_j)
    ratio = dearer.joules_per_image / cheaper.joules_per_image
    return Pair(dearer=dearer, cheaper=cheaper, ratio=ratio, low=low, high=high)


def batch_change(points: Sequence[SeedPoint]) -> Change:
    """From the smallest batch to the largest; published points of one weights and images."""
    errors = reading_error(points)
    ordered = sorted(points, key=lambda point: point.batch)
    first, last = ordered[0], ordered[-1]
    low, high = _bounds(last.run_energy_j, first.run_energy_j, errors.energy_j)
    return Change(
        first=first,
        last=last,
        energy=last.joules_per_image / first.joules_per_image,
        energy_low=low,
        energy_high=high,
        latency=last.latency_s / first.latency_s,
        power=last.power_w / first.power_w,
    )


def fixed_costs(few: Sequence[SeedPoint], many: Sequence[SeedPoint]) -> list[FixedCost]:
    """For every (weights, batch) of both: what a run takes beside its images."""
    by_point = {(point.weights, point.batch): point for point in few}
    found = []
    for large in many:
        small = by_point.get((large.weights, large.batch))
        if small is None:
            continue
        slope_j = (large.run_energy_j - small.run_energy_j) / (large.images - small.images)
        fixed_j = small.run_energy_j - slope_j * small.images
        found.append(
            FixedCost(
                batch=large.batch,
                fixed_j=fixed_j,
                slope_j=slope_j,
                share=fixed_j / small.run_energy_j,
            )
        )
    return found


def line(points: Sequence[SeedPoint]) -> Line:
    """Joules per image over latency; at least two latencies."""
    latency_s = np.array([point.latency_s for point in points])
    joules = np.array([point.joules_per_image for point in points])
    power_w, offset_j = (float(value) for value in np.polyfit(latency_s, joules, 1))
    left = joules - (offset_j + power_w * latency_s)
    worst = int(np.argmax(np.abs(left) / joules))
    return Line(
        offset_j=offset_j,
        power_w=power_w,
        r2=1 - float(np.sum(left**2) / np.sum((joules - joules.mean()) ** 2)),
        worst=float(left[worst] / joules[worst]),
        worst_point=points[worst],
    )


def _columns(points: Sequence[SeedPoint]) -> tuple[Floats, Floats, Floats]:
    return (
        np.array([point.latency_s for point in points]),
        np.array([point.run_energy_j for point in points]),
        np.array([point.accuracy for point in points]),
    )


def _bounds(upper: float, lower: float, error: float) -> tuple[float, float]:
    """Smallest and largest ``upper / lower`` if each may be off by ``error``."""
    return (upper - error) / (lower + error), (upper + error) / (lower - error)
