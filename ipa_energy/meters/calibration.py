"""The cpu-time model held against a real counter: fit, and honest error.

From windows of known CPU utilisation *u* with the counter's watts *P*, least squares finds ::

    P(u) = P_idle·(1 − u) + P_max·u        P_idle ≥ 0, P_max > P_idle

which is the affine model of :class:`.power_model.PowerModel`, written so that neither coefficient
is negative. How good it is, is asked of loads it has not seen: each load is left out in turn,
the rest is fitted, and the left-out one is predicted. Two errors matter, as ratios; P₀ is the
machine's power as measured without load ::

    total      |P̂(u) − P| / P                                  of the machine's watts
    dynamic    |(P̂_max − P̂_idle)·u − (P − P₀)| / (P − P₀)      of the watts above idle, which is
                                                                what a request is charged

The second is mostly the larger: a machine whose first cores cost most (a concave curve) may be
close in total and far off above idle. The model carries the worst of all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError, in_words
from ipa_energy.files import whole_file
from ipa_energy.interval import t_quantile_95
from ipa_energy.meters.power_model import PowerModel

MIN_LOADS = 4
"""Distinct utilisations a fit needs, so that three are left when one is left out."""

MIN_SPAN = 0.5
"""From the lowest to the highest utilisation; less, and idle and full load are extrapolations."""

IDLE_UTILISATION = 0.02
"""Below it a load counts as none."""


@dataclass(frozen=True, slots=True)
class PowerPoint:
    """One window of a known load.

    Attributes:
        load: name of the load; windows of the same name are repeats of one load.
        utilisation: busy share of all the machine's cores, 0..1.
        power_w: the counter's mean watts.
        foreign_load: share of the cores that other processes used meanwhile.
    """

    load: str
    utilisation: float
    power_w: float
    foreign_load: float = 0.0


@dataclass(frozen=True, slots=True)
class FitError:
    """Leave-one-out errors over the loads, as ratios.

    Attributes:
        mean: mean of the absolute errors.
        worst: the largest of them.
    """

    mean: float
    worst: float


@dataclass(frozen=True, slots=True)
class LoadPrediction:
    """A load, and what the model says of it that was fitted without it.

    Attributes:
        load: its name.
        utilisation, power_w: means over its windows.
        predicted_w: the model's watts.
        dynamic_w: measured watts above the idle machine's.
        predicted_dynamic_w: the model's.
    """

    load: str
    utilisation: float
    power_w: float
    predicted_w: float
    dynamic_w: float
    predicted_dynamic_w: float

    @property
    def error_w(self) -> float:
        """Watts by which the model is too high."""
        return self.predicted_w - self.power_w

    @property
    def dynamic_error_w(self) -> float:
        """Watts above idle by which the model is too high."""
        return self.predicted_dynamic_w - self.dynamic_w


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted model with all that speaks for and against it.

    Attributes:
        model: its ``relative_error`` is the worst of both errors below.
        meter: the counter it was held against.
        points: every window.
        predictions: every load, predicted from the others.
        total: error of the machine's watts.
        dynamic: error of the watts above idle, idle loads left out.
    """

    model: PowerModel
    meter: str
    points: tuple[PowerPoint, ...]
    predictions: tuple[LoadPrediction, ...]
    total: FitError
    dynamic: FitError

    def to_json(self) -> dict[str, Any]:
        """Everything, as it is kept beside the model."""
        return asdict(self) | {"model": self.model.to_json()}


def calibrate(
    points: Sequence[PowerPoint], *, cores: int, meter: str, when: str, machine: str | None = None
) -> Calibration:
    """Fit the power model to windows of known load.

    Args:
        points: at least :data:`MIN_LOADS` loads that span at least :data:`MIN_SPAN`.
        cores: of the machine.
        meter: name of the counter, for the model's source.
        when: date of the measurement, for the model's source.
        machine: its kind, so that no other machine takes the model for its own.

    Raises:
        MeterUnavailableError: the points are too few or too alike, are no numbers, or power does
            not rise with load, so that the counter is dead.
    """
    _check(points, meter)
    idle_w, max_w = fit_affine(points)
    _check_rise(points, idle_w, max_w, meter)
    predictions = _leave_one_out(points, _idle_w(points, idle_w))
    total = _error([abs(p.error_w) / p.power_w for p in predictions])
    loaded = [p for p in predictions if p.utilisation >= IDLE_UTILISATION and p.dynamic_w > 0]
    dynamic = _error([abs(p.dynamic_error_w) / p.dynamic_w for p in loaded])
    source = (
        f"Calibrated against {meter} on {when}: {len(predictions)} loads from "
        f"{min(p.utilisation for p in predictions):.0%} to "
        f"{max(p.utilisation for p in predictions):.0%} of {cores} CPUs, {len(points)} windows. "
        f"Leave-one-out error of power {total.mean:.1%} mean, {total.worst:.1%} worst; of power "
        f"above idle {dynamic.mean:.1%} mean, {dynamic.worst:.1%} worst."
    )
    model = PowerModel(idle_w, max_w, cores, source, max(total.worst, dynamic.worst), machine)
    return Calibration(model, meter, tuple(points), predictions, total, dynamic)


def store_calibration(calibration: Calibration, path: Path) -> Path:
    """Write the model to ``path`` and what it rests on beside it; returns the latter's path.

    Raises:
        ConfigError: the files cannot be written.
    """
    evidence = path.with_suffix(".calibration.json")
    try:
        _replace(evidence, calibration.to_json())
        _replace(path, calibration.model.to_json())
    except OSError as error:
        raise ConfigError(f"cannot write the power model: {in_words(error)}", where=path) from error
    return evidence


def fit_affine(points: Sequence[PowerPoint]) -> tuple[float, float]:
    """(P_idle, P_max) in watts by least squares, neither negative."""
    import numpy as np
    from scipy.optimize import nnls

    used = np.array([point.utilisation for point in points])
    watts = np.array([point.power_w for point in points])
    (idle_w, max_w), _ = nnls(np.column_stack([1 - used, used]), watts)
    return float(idle_w), float(max_w)


def _check(points: Sequence[PowerPoint], meter: str) -> None:
    for point in points:
        if not (math.isfinite(point.power_w) and 0 <= point.utilisation <= 1):
            raise MeterUnavailableError(
                f"{meter}: {point.power_w} W at utilisation {point.utilisation} ({point.load}) is "
                "no point of a power curve"
            )
        if not point.power_w > 0:
            raise MeterUnavailableError(
                f"{meter} shows {point.power_w:g} W under {point.load}: the counter is dead"
            )
    loads = {point.load for point in points}
    used = [point.utilisation for point in points]
    if len(loads) < MIN_LOADS or max(used) - min(used) < MIN_SPAN:
        span = f" over {max(used) - min(used):.0%} of the machine" if used else ""
        raise MeterUnavailableError(
            f"{len(loads)} loads{span} do not make a power model; needed are {MIN_LOADS} loads "
            f"over at least {MIN_SPAN:.0%}; fix: calibrate on more cores, with nothing else running"
        )


def _check_rise(points: Sequence[PowerPoint], idle_w: float, max_w: float, meter: str) -> None:
    """Power must rise with load beyond what noise explains (t-test of the slope, 97.5 %)."""
    import numpy as np

    used = np.array([point.utilisation for point in points])
    watts = np.array([point.power_w for point in points])
    spread = float(np.sum((used - used.mean()) ** 2))
    slope_w = float(np.sum((used - used.mean()) * watts)) / spread
    left_w = watts - watts.mean() - slope_w * (used - used.mean())
    freedom = len(points) - 2
    error_w = math.sqrt(float(np.sum(left_w**2)) / freedom / spread)
    margin_w = t_quantile_95(freedom) * error_w
    if not (max_w > idle_w and slope_w > margin_w):
        raise MeterUnavailableError(
            f"{meter} does not follow the load: {idle_w:.4g} W idle, {max_w:.4g} W at full load, "
            f"rise {slope_w:.2g} ± {margin_w:.2g} W; the counter is dead or covers something "
            "else; fix: choose another with --meter (ipa-energy meters lists them)"
        )


def _idle_w(points: Sequence[PowerPoint], fitted_w: float) -> float:
    """Measured watts without load; the fitted ones if no window was without load."""
    idle = [point.power_w for point in points if point.utilisation < IDLE_UTILISATION]
    return sum(idle) / len(idle) if idle else fitted_w


def _leave_one_out(points: Sequence[PowerPoint], idle_w: float) -> tuple[LoadPrediction, ...]:
    predictions = []
    for load in dict.fromkeys(point.load for point in points):
        own = [point for point in points if point.load == load]
        low_w, high_w = fit_affine([point for point in points if point.load != load])
        used = sum(point.utilisation for point in own) / len(own)
        power_w = sum(point.power_w for point in own) / len(own)
        rise_w = (high_w - low_w) * used
        predictions.append(
            LoadPrediction(load, used, power_w, low_w + rise_w, power_w - idle_w, rise_w)
        )
    return tuple(predictions)


def _error(ratios: Sequence[float]) -> FitError:
    return FitError(sum(ratios) / len(ratios), max(ratios))


def _replace(path: Path, data: dict[str, Any]) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(data, indent=2, allow_nan=False) + "\n")
