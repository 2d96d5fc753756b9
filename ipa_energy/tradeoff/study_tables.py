"""The points of a study as one CSV table, a row a configuration and load."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file
from ipa_energy.tradeoff.study import Case, Study
from ipa_energy.tradeoff.trials import Estimate, Point

ESTIMATES = (
    "latency_s",
    "latency_p99_s",
    "sla_attainment",
    "answered",
    "joules_per_request",
    "power_w",
)
"""Figures of a point that have an interval: a column each, and one named ``…_ci95``."""

COLUMNS = (
    "case",
    "load_rps",
    "key",
    "name",
    "configuration",
    "origin",
    "trials",
    "accuracy",
    "cost_cores",
    *(column for name in ESTIMATES for column in (name, f"{name}_ci95")),
    "profile_ci95_j",
    "meter",
    "quality",
    "on_front",
    "on_front_without_energy",
)


def write_points(study: Study, path: Path) -> None:
    """Write the table; empty cells are figures that nobody has.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        with whole_file(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows_of(study))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=path) from error


def rows_of(study: Study) -> Iterator[list[str]]:
    """The cells of every point, in the order of :data:`COLUMNS`."""
    for case in study.cases:
        for point in case.points:
            yield _row(case, point)


def _row(case: Case, point: Point) -> list[str]:
    configuration = point.configuration
    estimates: list[Estimate] = [getattr(point, name) for name in ESTIMATES]
    return [
        case.name,
        _cell(case.load_rps),
        configuration.key,
        configuration.name,
        configuration.label,
        configuration.origin,
        str(estimates[0].trials),
        _cell(point.accuracy),
        _cell(point.cost_cores),
        *(_cell(value) for found in estimates for value in (found.value, found.ci95)),
        _cell(configuration.profile_ci95_j),
        point.meter or "",
        point.quality or "",
        _truth(point.on_front),
        _truth(point.on_front_without_energy),
    ]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"


def _truth(value: bool | None) -> str:
    return "" if value is None else str(value).lower()
