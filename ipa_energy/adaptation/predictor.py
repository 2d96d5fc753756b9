"""What load to plan for, from the loads seen so far.

::

    per-second counts ─ last monitoring_duration minutes ─ maxima of 10 s ─ forecast
        ─ × (1 + predictor_margin / 100) ─ rounded from 1 on ─> requests per second to plan for

The chain is IPA's, with these differences: ``avg`` is a real mean (IPA divides the maximum by the
length), the margin counts in simulation too (IPA's simulation ignores it), a forecast that fails
falls back to the backup with a warning, and ``oracle`` is new: it knows the trace, for comparison.

Windows of 10 s begin at the start of the history, so the last one may be shorter, as in IPA. The
mean is that of the maxima: like every other forecast it is a load to be ready for, and the mean
over the seconds would be exceeded about half of the time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from ipa_energy.adaptation import lstm
from ipa_energy.adaptation.forecast import (
    HORIZON_S,
    STEP_S,
    Forecast,
    QuantileForecast,
    takes_counts,
    with_residuals,
)
from ipa_energy.adaptation.seasonal import MEMORY_S, ensemble_of, seasonal
from ipa_energy.arrays import Counts, Floats
from ipa_energy.errors import ConfigError
from ipa_energy.registries import PREDICTORS, backup_predictors

PointForecast = Callable[[Floats], float]
"""Maxima of 10 s, oldest first and at least one, to requests per second; NaN if it cannot tell."""

RESIDUALS_S = 600
"""Seconds over which a forecast's own errors are looked at."""
POINT_LEVEL = 0.8
"""Level of the quantile that is one number's worth: that of the network's training."""
ARIMA_LEAST_MAXIMA = 5
"""Fewer points than this cannot carry ARIMA's three parameters."""
ARIMA_STEPS_AHEAD = 2
AR1_GRID = 201
AR1_REFINEMENTS = 4
AR1_MOST = 1 - 1e-9
"""Largest |φ|: beyond it a process has no mean."""

logger = logging.getLogger(__name__)


class Predictor(Protocol):
    """Says what load to plan for."""

    @property
    def name(self) -> str:
        """Name in the YAML's ``predictor_type``."""
        ...

    @property
    def memory_s(self) -> int:
        """Seconds of history that a forecast uses, if there are so many."""
        ...

    def predict(self, history_rps: Sequence[int] | Counts, now_s: int) -> float:
        """The load to plan for, a whole number of requests per second, at least 0.

        Args:
            history_rps: requests of each second of the run so far, or of the last part of it.
            now_s: seconds since the start of the run: that of the first second not in the history.

        Raises:
            ValueError: the history is empty and the predictor needs one.
        """
        ...

    def forecast(
        self, history_rps: Sequence[int] | Counts, now_s: int, horizon_s: int = HORIZON_S
    ) -> Forecast:
        """The loads to be expected, without any margin.

        Args:
            history_rps: as of :meth:`predict`.
            now_s: as of :meth:`predict`.
            horizon_s: how far to look ahead, a multiple of :data:`~.forecast.STEP_S`.

        Raises:
            ValueError: the history is empty and the predictor needs one.
        """
        ...


def window_maxima(counts: Sequence[int] | Counts, step_s: int = STEP_S) -> Floats:
    """Maxima of consecutive windows of ``step_s`` seconds; the last window may be shorter."""
    loads = np.asarray(counts, dtype=np.float64)
    if not len(loads):
        return loads
    return np.asarray(np.maximum.reduceat(loads, np.arange(0, len(loads), step_s)))


def forecast_reactive(maxima: Floats) -> float:
    """The last maximum."""
    return float(maxima[-1])


def forecast_max(maxima: Floats) -> float:
    """The largest load of the history."""
    return float(maxima.max())


def forecast_avg(maxima: Floats) -> float:
    """The mean of the maxima."""
    return float(maxima.mean())


def forecast_arima(maxima: Floats) -> float:
    """ARIMA(1, 0, 0) fitted to the maxima: the larger of the next two; NaN if it cannot be fitted.

    A constant history has no variance to fit and is its own forecast.
    """
    if len(maxima) < ARIMA_LEAST_MAXIMA:
        return math.nan
    if np.ptp(maxima) == 0:
        return float(maxima[-1])
    phi, mean = fitted_ar1(maxima)
    ahead = mean + phi ** np.arange(1, ARIMA_STEPS_AHEAD + 1) * (maxima[-1] - mean)
    return max(0.0, float(ahead.max()))


def fitted_ar1(x: Floats) -> tuple[float, float]:
    r"""(φ, μ) of x_t − μ = φ·(x_{t−1} − μ) + ε_t that make ``x`` most likely, ε normal.

    The exact likelihood, the first value included. Given φ, the best μ and variance have closed
    forms, with y = x − μ::

        μ(φ) = ((1 + φ)·x_1 + Σ (x_t − φ·x_{t−1})) / ((1 + φ) + (n − 1)·(1 − φ))
        S(φ) = (1 − φ²)·y_1² + Σ (y_t − φ·y_{t−1})²
        −2·ln L = n·ln S(φ) − ln(1 − φ²) + constant

    so one line is searched, −1 < φ < 1, on grids that get finer around the best point.
    """
    phi = np.linspace(-1, 1, AR1_GRID)[1:-1]
    for _ in range(AR1_REFINEMENTS):
        mean = ((1 + phi) * x[0] + x[1:].sum() - phi * x[:-1].sum()) / (
            (1 + phi) + (len(x) - 1) * (1 - phi)
        )
        y = x[:, None] - mean
        squares = (1 - phi**2) * y[0] ** 2 + ((y[1:] - phi * y[:-1]) ** 2).sum(axis=0)
        with np.errstate(divide="ignore"):  # a perfect fit is the most likely one
            best = int(np.argmin(len(x) * np.log(squares) - np.log(1 - phi**2)))
        found = float(phi[best]), float(mean[best])
        step = phi[1] - phi[0]
        phi = np.linspace(phi[best] - step, phi[best] + step, AR1_GRID).clip(-AR1_MOST, AR1_MOST)
    return found


def forecast_lstm(maxima: Floats) -> float:
    """The network of :mod:`.lstm` on the last two minutes, the oldest maximum repeated if short."""
    return float(lstm.forecast(lstm.padded(maxima)[None], lstm.load_weights())[0])


forecast_lstm.quantiles = lstm.forecast_quantiles  # type: ignore[attr-defined]


@takes_counts
def forecast_seasonal(counts: Counts, horizon_s: int = HORIZON_S) -> Forecast:
    """What followed the same phase of earlier periods: :mod:`.seasonal`."""
    return seasonal(counts, horizon_s)


@takes_counts
def forecast_ensemble(counts: Counts, horizon_s: int = HORIZON_S) -> Forecast:
    """The network, ARIMA and the season, by how good they were lately: :mod:`.seasonal`."""
    return _ENSEMBLE(counts, horizon_s)


def _arima_quantiles(counts: Counts, horizon_s: int) -> Forecast:
    """ARIMA on two minutes, with the spread of its own errors."""

    def point(maxima: Floats) -> float:
        known = maxima.tobytes()
        found = _kept(forecast_arima, known) if maxima.any() else 0.0
        return found if math.isfinite(found) else forecast_max(maxima)

    return with_residuals(point, counts[-RESIDUALS_S:], lstm.STEPS, horizon_s=horizon_s)


_ENSEMBLE = ensemble_of([lstm.forecast_quantiles, _arima_quantiles, seasonal])


@dataclass(frozen=True, slots=True)
class HistoryPredictor:
    """A forecast from the history, with IPA's backup and margin.

    Attributes:
        name: name of the first forecast.
        forecasts: (name, forecast) of the one asked for, of the backup used while the history is
            short or when the first one fails, and of the maximum, which never does.
        backup_maxima: length of history, in maxima, from which ``name`` is used.
        monitoring_s: seconds of history that are looked at.
        margin_percent: added to the forecast, percent.
        quantiles: the first one's own; None: it has none, so that its own errors are looked at.
    """

    name: str
    forecasts: tuple[tuple[str, PointForecast], ...]
    backup_maxima: int
    monitoring_s: int
    margin_percent: float
    quantiles: QuantileForecast | None = None

    def predict(self, history_rps: Sequence[int] | Counts, now_s: int) -> float:
        """See :meth:`Predictor.predict`; the time plays no part."""
        maxima = window_maxima(history_rps[-self.monitoring_s :])
        if not len(maxima):
            raise ValueError(f"no load was seen before second {now_s}")
        if not maxima.any():
            return 0.0
        return _with_margin(self._forecast(maxima, now_s), self.margin_percent)

    @property
    def memory_s(self) -> int:
        """See :attr:`Predictor.memory_s`."""
        return self.monitoring_s + RESIDUALS_S

    def forecast(
        self, history_rps: Sequence[int] | Counts, now_s: int, horizon_s: int = HORIZON_S
    ) -> Forecast:
        """See :meth:`Predictor.forecast`: the point with the spread of its own errors."""
        counts = _remembered(history_rps, self.memory_s, now_s)
        if self.quantiles is not None:
            return self.quantiles(counts, horizon_s)
        windows = math.ceil(self.monitoring_s / STEP_S)
        return with_residuals(self._point, counts, windows, horizon_s=horizon_s)

    def _point(self, maxima: Floats) -> float:
        """The first forecast that can tell, without a word about those that cannot."""
        usable = self.forecasts[0 if len(maxima) >= self.backup_maxima else 1 :]
        known = maxima.tobytes()
        found = (_kept(forecast, known) if maxima.any() else 0.0 for _, forecast in usable)
        return next(load_rps for load_rps in found if math.isfinite(load_rps))

    def _forecast(self, maxima: Floats, now_s: int) -> float:
        usable = self.forecasts[0 if len(maxima) >= self.backup_maxima else 1 :]
        for name, forecast in usable:
            forecast_rps = forecast(maxima)
            if math.isfinite(forecast_rps):
                break
            logger.warning(
                "second %d: %s has no forecast from %d maxima of %d s, using the next in %s",
                now_s, name, len(maxima), STEP_S, [name for name, _ in usable],
            )  # fmt: skip
        return forecast_rps


def _remembered(history_rps: Sequence[int] | Counts, memory_s: int, now_s: int) -> Counts:
    """The part of the history that a forecast looks at.

    Raises:
        ValueError: there is none.
    """
    counts = np.asarray(history_rps[-memory_s:], dtype=np.int64)
    if not len(counts):
        raise ValueError(f"no load was seen before second {now_s}")
    return counts


@lru_cache(maxsize=4096)
def _kept(forecast: PointForecast, maxima: bytes) -> float:
    """A forecast of windows that are looked at again, ten seconds later, for its error."""
    return forecast(np.frombuffer(maxima))


def _with_margin(load_rps: float, margin_percent: float) -> float:
    """A load with its margin; IPA's are whole numbers."""
    planned_rps = max(0.0, load_rps * (1 + margin_percent / 100))
    return planned_rps if planned_rps < 1 else float(round(planned_rps))


@dataclass(frozen=True, slots=True)
class QuantilePredictor:
    """A forecast of quantiles from all the load so far, with IPA's margin.

    Attributes:
        name: of the forecast.
        quantiles: the forecast.
        margin_percent: added to the point, percent.
    """

    name: str
    quantiles: QuantileForecast
    margin_percent: float
    memory_s: int = MEMORY_S

    def predict(self, history_rps: Sequence[int] | Counts, now_s: int) -> float:
        """See :meth:`Predictor.predict`: a high quantile of the next 20 s, as the network's."""
        peak_rps = self.forecast(history_rps, now_s).peak(POINT_LEVEL, 0.0, lstm.POINT_HORIZON_S)
        return _with_margin(peak_rps, self.margin_percent)

    def forecast(
        self, history_rps: Sequence[int] | Counts, now_s: int, horizon_s: int = HORIZON_S
    ) -> Forecast:
        """See :meth:`Predictor.forecast`."""
        counts = _remembered(history_rps, self.memory_s, now_s)
        return self.quantiles(counts, horizon_s)


class OraclePredictor:
    """Knows the trace: the largest load of the coming seconds, without margin or backup.

    Args:
        trace: requests of every second of the run.
        horizon_s: seconds ahead that the next plan must carry.
    """

    name = "oracle"

    def __init__(self, trace: Counts, horizon_s: int) -> None:
        self.trace, self.horizon_s = trace, horizon_s

    def predict(self, history_rps: Sequence[int] | Counts, now_s: int) -> float:
        """See :meth:`Predictor.predict`; 0 after the trace's end. The history plays no part."""
        return float(self.trace[now_s : now_s + self.horizon_s].max(initial=0))

    memory_s = 0

    def forecast(
        self, history_rps: Sequence[int] | Counts, now_s: int, horizon_s: int = HORIZON_S
    ) -> Forecast:
        """See :meth:`Predictor.forecast`: what comes, at every level."""
        ahead = self.trace[now_s : now_s + horizon_s]
        return Forecast.known(np.concatenate([ahead, np.zeros(horizon_s - len(ahead))]))


def make_predictor(
    name: str,
    *,
    backup_name: str = "max",
    backup_duration_min: float = 2,
    monitoring_duration_min: float = 2,
    margin_percent: float = 0,
    trace: Counts | None = None,
    horizon_s: int = 2 * STEP_S,
) -> Predictor:
    """The predictor that a pipeline YAML asks for.

    Args:
        name: ``predictor_type``: a name in :data:`~ipa_energy.registries.PREDICTORS`.
        backup_name: ``backup_predictor_type``: one that needs no trace.
        backup_duration_min: ``backup_predictor_duration``: minutes of history from which ``name``
            takes over.
        monitoring_duration_min: ``monitoring_duration``: minutes of history looked at.
        margin_percent: ``predictor_margin``: added to the forecast.
        trace: requests of every second of the run, for predictors that know it (``oracle``); None
            if nobody does.
        horizon_s: seconds ahead that these look: those until the next plan serves.

    Raises:
        ConfigError: an unknown name, a duration or margin that is impossible, LSTM weights that
            cannot be read, or a predictor that needs a trace and gets none.
    """
    first = _found("predictor_type", name, PREDICTORS)
    backup = _found("backup_predictor_type", backup_name, backup_predictors())
    if isinstance(first, type):
        if trace is None:
            raise ConfigError(
                f"the {name} has no trace",
                where="predictor_type",
                allowed=", ".join(backup_predictors()),
            )
        predictor: Predictor = first(np.asarray(trace, dtype=np.int64), horizon_s)
        return predictor
    monitoring_s = int(monitoring_duration_min * 60)
    if monitoring_s < 1:
        raise ConfigError(
            f"{monitoring_duration_min:g} min", where="monitoring_duration", allowed="above 0"
        )
    if not margin_percent > -100:
        raise ConfigError(f"{margin_percent:g} %", where="predictor_margin", allowed="above -100")
    if hasattr(first, "takes_counts"):
        return QuantilePredictor(name, first, margin_percent)
    backup_maxima = int(backup_duration_min * 60 / STEP_S)
    if backup_maxima > math.ceil(monitoring_s / STEP_S):
        logger.warning(
            "backup_predictor_duration (%g min) is above monitoring_duration (%g min): "
            "%s is used for the whole run and %s never",
            backup_duration_min, monitoring_duration_min, backup_name, name,
        )  # fmt: skip
    if "lstm" in (name, backup_name):
        lstm.load_weights()
    forecasts = ((name, first), (backup_name, backup), ("max", forecast_max))
    own = getattr(first, "quantiles", None)
    return HistoryPredictor(name, forecasts, backup_maxima, monitoring_s, margin_percent, own)


def _found(key: str, name: str, names: Iterable[str]) -> Any:
    if name not in names:
        raise ConfigError(f"there is no predictor {name!r}", where=key, allowed=", ".join(names))
    return PREDICTORS[name].load()
