"""A sweep's result: one row a point, means over its trials with 95 % intervals, as a CSV.

Joules per image are the run's joules over the images it processed, whatever the batch. Beside them
stand those of the steady state, where the detector measures them itself: loading left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from sweep_file import IMAGES, Point
from sweep_journal import Run, number

from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file
from ipa_energy.interval import half_width_95
from ipa_energy.profile_table.profile_row import rounded

STEADY_ENERGY = "steady_energy_j"
"""Parsed field: joules of the images alone, as the detector's own meter saw them."""
PER_IMAGE = ("joules_per_image", "steady_joules_per_image", "dynamic_joules_per_image")


@dataclass(frozen=True, slots=True)
class Row:
    """One point.

    Attributes:
        point: the parameters' values.
        trials: runs behind the means.
        failed: runs without figures.
        means: column → mean; NaN where no run has it.
        intervals: column → half width of the 95 % t-interval; NaN below two trials.
        meter, quality: provenance of the joules; empty without any.
    """

    point: Point
    trials: int
    failed: int
    means: dict[str, float]
    intervals: dict[str, float]
    meter: str
    quality: str


def summarise(runs: Iterable[Run]) -> list[Row]:
    """A row for every point that was tried, in the order in which points first came.

    Raises:
        ConfigError: runs of one point were measured by different meters.
    """
    by_point: dict[Point, list[Run]] = {}
    for run in runs:
        by_point.setdefault(run.point, []).append(run)
    return [_row(point, found) for point, found in by_point.items()]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows; NaN is an empty cell.

    Raises:
        OSError: it cannot be written.
    """
    parameters = list(dict.fromkeys(name for row in rows for name, _ in row.point))
    columns = list(dict.fromkeys(name for row in rows for name in row.means))
    with_interval = [name for name in columns if name in {*PER_IMAGE, "run_energy_j", "latency_s"}]
    with whole_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        intervals = [f"{name}_ci95" for name in with_interval]
        writer.writerow([*parameters, "trials", "failed", *columns, *intervals, "meter", "quality"])
        for row in rows:
            values = dict(row.point)
            cells = [row.means.get(name, math.nan) for name in columns]
            cells += [row.intervals.get(name, math.nan) for name in with_interval]
            writer.writerow(
                [
                    *(values.get(name, "") for name in parameters),
                    row.trials,
                    row.failed,
                    *("" if math.isnan(cell) else rounded(cell) for cell in cells),
                    row.meter,
                    row.quality,
                ]
            )


def _row(point: Point, runs: Sequence[Run]) -> Row:
    done = [run for run in runs if run.outcome == "done"]
    meters = {(run.meter, run.quality) for run in done}
    if len(meters) > 1:
        raise ConfigError(f"{point} was measured by several meters: {sorted(meters)}")
    meter, quality = meters.pop() if meters else ("", "")
    samples = {name: [value(run) for run in done] for name, value in _columns(done).items()}
    return Row(
        point=point,
        trials=len(done),
        failed=len(runs) - len(done),
        means={name: fmean(values) if values else math.nan for name, values in samples.items()},
        intervals={name: half_width_95(values) for name, values in samples.items()},
        meter=meter,
        quality=quality,
    )


def _columns(done: Sequence[Run]) -> dict[str, Callable[[Run], float]]:
    """Column → its figure of one run. A run that lacks it makes the mean NaN."""

    def parsed(name: str) -> Callable[[Run], float]:
        return lambda run: number(run.fields.get(name))

    def per_image(joules: Callable[[Run], float]) -> Callable[[Run], float]:
        return lambda run: joules(run) / number(run.fields[IMAGES])

    columns: dict[str, Callable[[Run], float]] = {
        "run_energy_j": lambda run: number(run.energy_j),
        "dynamic_energy_j": lambda run: number(run.dynamic_energy_j),
        "duration_s": lambda run: number(run.duration_s),
        "cpu_s": lambda run: number(run.cpu_s),
        "joules_per_image": per_image(lambda run: number(run.energy_j)),
        "dynamic_joules_per_image": per_image(lambda run: number(run.dynamic_energy_j)),
    }
    names = list(dict.fromkeys(name for run in done for name in run.fields))
    columns |= {name: parsed(name) for name in names}
    if STEADY_ENERGY in names:
        columns["steady_joules_per_image"] = per_image(parsed(STEADY_ENERGY))
    return columns
