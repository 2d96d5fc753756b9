"""The row of an entry: from what its trials say together, or predicted from other entries' rows.

A predicted row has ``trials`` 0 (no window stands behind it), ``meter`` ``fit(METER)`` and
``quality`` ``estimated`` whatever the meter's own; its ``energy_ci95_j`` is the half width of the
95 % prediction interval. The profile's meta file names every predicted entry with the interval of
each figure, latencies included, and the held-out error of each fit.

What is fitted is the cost of a *batch* (:mod:`.fit_surface`): its mean and p99 latency, the time
between two batches at saturation, its joules; and the idle watts of a replica.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any, cast

import numpy as np

from ipa_energy.energy import joules_per_request
from ipa_energy.errors import ConfigError, MeterUnavailableError, ServingError
from ipa_energy.interval import half_width_95
from ipa_energy.profile_table.profile_row import FITTED, SATURATED, ProfileRow, rounded
from ipa_energy.profiling.fit_shapes import Point
from ipa_energy.profiling.fit_surface import LARGEST_LN, Prediction, Surface, fit_surface
from ipa_energy.profiling.grid import Entry, entry_of
from ipa_energy.profiling.trial import Trial
from ipa_energy.records import Quality, joined_meters
from ipa_energy.tables import signed

METER_PRECISION = 0.01
"""What the shortest useful window of a counter is good to."""


def profile_row(entry: Entry, trials: Sequence[Trial], accuracy: float) -> ProfileRow:
    """The row of a finished entry: saturated replicas, so the load is their throughput.

    Latencies are over every batch of every trial (p99 interpolated linearly), the throughput is
    that of all windows over their busy time. Joules and watts are means over the trials, with the
    95 % t-interval of the joules; NaN for a single trial. What loading a replica takes is the
    median, since the first of all loads has cold files.

    Raises:
        MeterUnavailableError: the meter did not rise above idle under full load: it is dead, and
            its figures are no joules; or only the GPU's did not, and then the model did not run
            on it.
    """
    _require_busy_gpu(trials)
    latencies_s = np.concatenate([trial.latencies_s for trial in trials])
    joules = [trial.dynamic_energy_j / (entry.batch * len(trial.latencies_s)) for trial in trials]
    if not np.mean(joules) > 0:
        raise MeterUnavailableError(
            f"{trials[0].meter} shows {np.mean(joules):g} J per request above idle under full "
            "load: the counter is dead, or too coarse for these windows"
        )
    latency_avg_s = float(latencies_s.mean())
    busy_s = sum(trial.busy_s for trial in trials)
    throughput_rps = rounded(entry.batch * len(latencies_s) / busy_s)
    load_rps = rounded(entry.replicas * throughput_rps)
    dynamic_energy_j = rounded(float(np.mean(joules)))
    idle_power_w = rounded(float(np.mean([trial.idle_power_w for trial in trials])))
    whole_j = joules_per_request(dynamic_energy_j, idle_power_w, entry.replicas, load_rps)
    load_energies_j = [t.load_energy_j for t in trials if not math.isnan(t.load_energy_j)]
    return ProfileRow(
        **_columns_of(entry),
        load_rps=load_rps,
        latency_avg_s=rounded(latency_avg_s),
        # One long stall among hundreds of batches lifts their mean above their p99; to plan with
        # less than the mean would be to plan with less than was seen.
        latency_p99_s=rounded(max(float(np.percentile(latencies_s, 99)), latency_avg_s)),
        throughput_rps=throughput_rps,
        accuracy=accuracy,
        dynamic_energy_j=dynamic_energy_j,
        idle_power_w=idle_power_w,
        joules_per_request=rounded(whole_j),
        energy_ci95_j=rounded(half_width_95(joules)),
        trials=len(trials),
        meter=trials[0].meter,
        quality=cast(Quality, trials[0].quality),
        load_s=rounded(median(trial.load_s for trial in trials)),
        # A counter's noise can put a short load below idle.
        load_energy_j=rounded(max(0.0, median(load_energies_j))) if load_energies_j else math.nan,
    )


def _columns_of(entry: Entry) -> dict[str, Any]:
    return {
        "stage": entry.stage,
        "variant": entry.variant,
        "hardware": entry.hardware,
        "cpu_cores": float(entry.cpu_cores),
        "gpu_share": entry.gpu_share,
        "precision": entry.precision,
        "batch": entry.batch,
        "replicas": entry.replicas,
    }


def at_load(row: ProfileRow, load_rps: float, throughput_rps: float) -> ProfileRow:
    """The row of trials under a set load: J at that load, and what a replica serves saturated.

    Raises:
        ServingError: the load is saturation, or near it.
    """
    if load_rps >= SATURATED * row.replicas * throughput_rps:
        raise ServingError(
            f"a load of {load_rps:g} rps saturates {row.replicas} replicas, which serve "
            f"{row.replicas * throughput_rps:g} rps"
        )
    whole_j = joules_per_request(row.dynamic_energy_j, row.idle_power_w, row.replicas, load_rps)
    return replace(
        row, load_rps=load_rps, throughput_rps=throughput_rps, joules_per_request=rounded(whole_j)
    )


def _require_busy_gpu(trials: Sequence[Trial]) -> None:
    """The processor's joules must not hide that a GPU did nothing."""
    for name in {name for t in trials for name, part in t.parts.items() if part.counts == "GPU"}:
        found = [trial.parts[name] for trial in trials if name in trial.parts]
        above = fmean(part.dynamic_energy_j / part.window_s for part in found)
        waiting_w = fmean(part.waiting_power_w for part in found)
        if not above > METER_PRECISION * waiting_w:
            raise MeterUnavailableError(
                f"{name} shows {signed(above, '.3g')} W above the {waiting_w:.3g} W of waiting, "
                "within its precision, in windows of an entry on a GPU: the model did not run on "
                "the GPU that is measured, or hardly worked, or the counter is dead"
            )


# ------------------------------------------------------------------ predicted rows

QUANTITIES: dict[str, Callable[[ProfileRow], float]] = {
    "latency_avg_s": lambda row: row.latency_avg_s,
    "latency_p99_s": lambda row: row.latency_p99_s,
    "batch_s": lambda row: row.batch / row.throughput_rps,
    "batch_energy_j": lambda row: row.batch * row.dynamic_energy_j,
    "idle_power_w": lambda row: row.idle_power_w,
}
"""What is fitted, each a cost of one batch but the last, which is of one waiting replica."""

NO_IDLE_POWER = Prediction(0.0, 0.0, 0.0)
"""Where the meter shows none for any measured entry, as a power model without idle does."""


def is_predicted(row: ProfileRow) -> bool:
    """True if a fit wrote the row, not a measurement."""
    return row.meter.startswith(FITTED)


def is_fitted_to(row: ProfileRow) -> bool:
    """True for what the fits are made from: one replica, measured, back to back."""
    return row.replicas == 1 and row.is_saturated and not is_predicted(row)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the fits of a profile gave.

    Attributes:
        rows: one for each entry that could be predicted.
        meta: for the meta file: ``stages`` (stage → quantity → the fit and its held-out error)
            and ``entries`` (label → quantity → value and interval).
        failures: entry → why it could not be predicted.
    """

    rows: tuple[ProfileRow, ...]
    meta: dict[str, Any]
    failures: dict[Entry, str]


def predict(measured: Iterable[ProfileRow], wanted: Sequence[Entry]) -> Predicted:
    """Predict entries from measured rows of the same stage, hardware and GPU share.

    Args:
        measured: rows of a profile; predicted ones, and those of several replicas or lower loads,
            are left out.
        wanted: entries of one replica.
    """
    rows: list[ProfileRow] = []
    failures: dict[Entry, str] = {}
    stages: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    usable = [row for row in measured if is_fitted_to(row)]
    for kind in dict.fromkeys(entry.family for entry in wanted):
        family = [row for row in usable if entry_of(row).family == kind]
        missing = [entry for entry in wanted if entry.family == kind]
        stage, hardware, share, precision = kind
        law = f"{stage} {hardware}" + (f" {share:g}g" if 0 < share < 1 else "")
        law += f" {precision}" if precision else ""
        try:
            fits = _fits(family)
        except ConfigError as error:
            failures |= dict.fromkeys(missing, str(error))
            continue
        stages[law] = {name: _fit_meta(fit) for name, fit in fits.items()}
        for entry in missing:
            try:
                at = entry.variant, float(entry.cpu_cores), entry.batch
                found = {n: fit.predict(*at) if fit else NO_IDLE_POWER for n, fit in fits.items()}
            except ConfigError as error:
                failures[entry] = str(error)
                continue
            rows.append(_row(entry, found, family))
            entries[entry.label] = {name: asdict(figure) for name, figure in found.items()}
    return Predicted(tuple(rows), {"stages": stages, "entries": entries}, failures)


def _fits(rows: Sequence[ProfileRow]) -> dict[str, Surface | None]:
    """Quantity → fit; None where every value is exactly 0, which only idle power may be."""
    fits: dict[str, Surface | None] = {}
    for name, quantity in QUANTITIES.items():
        values = [quantity(row) for row in rows]
        if name == "idle_power_w" and rows and not any(values):
            fits[name] = None
            continue
        points = [
            Point(row.variant, row.cpu_cores, row.batch, value)
            for row, value in zip(rows, values, strict=True)
        ]
        stage = rows[0].stage if rows else "a stage without measured entries"
        fits[name] = fit_surface(points, f"{name} of {stage}")
    return fits


def _row(entry: Entry, found: dict[str, Prediction], family: Sequence[ProfileRow]) -> ProfileRow:
    figures = {name: rounded(prediction.value) for name, prediction in found.items()}
    load_rps = rounded(entry.batch / figures["batch_s"])
    energy = found["batch_energy_j"]
    dynamic_energy_j = rounded(energy.value / entry.batch)
    half_width_j = (energy.high - energy.value) / entry.batch
    idle_power_w = figures["idle_power_w"]
    accuracy = next(row.accuracy for row in family if row.variant == entry.variant)
    meters = joined_meters(sorted({row.meter for row in family}))
    return ProfileRow(
        **_columns_of(entry),
        load_rps=load_rps,
        latency_avg_s=figures["latency_avg_s"],
        latency_p99_s=max(figures["latency_avg_s"], figures["latency_p99_s"]),
        throughput_rps=load_rps,
        accuracy=accuracy,
        dynamic_energy_j=dynamic_energy_j,
        idle_power_w=idle_power_w,
        joules_per_request=rounded(dynamic_energy_j + idle_power_w / load_rps),
        energy_ci95_j=rounded(half_width_j) if math.isfinite(half_width_j) else math.nan,
        trials=0,
        meter=f"{FITTED}{meters})",
        quality="estimated",
    )


def _fit_meta(fit: Surface | None) -> dict[str, Any]:
    if fit is None:
        return {"shape": "zero: no measured entry has any"}
    return {
        "shape": fit.shape,
        "measured_points": fit.points,
        "held_out": {name: _finite(value) for name, value in asdict(fit.held_out).items()},
        "interval_factor": _finite(math.exp(min(fit.half_width_ln, LARGEST_LN))),
        "relative_mae_of_shapes": {n: _finite(value) for n, value in fit.candidates.items()},
    }


def _finite(value: float) -> float | None:
    """The value, or None for an error or interval without bound."""
    return value if value < math.exp(LARGEST_LN) else None
