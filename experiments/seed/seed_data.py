"""Measured points of a detector, weights × batch: the published ones and those of a sweep."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.config.source import read_text
from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import load_pipeline

PUBLISHED = Path(__file__).parent / "published"
PIPELINE = Path(__file__).parents[2] / "pipelines" / "video"
IMAGES_1 = 496
"""Images of every run of experiment 1, as published."""
IMAGES_2 = 5000
"""Images of COCO val2017, all of which experiment 2 ran over ("almost 5000")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPoint:
    """What one (weights, batch) took.

    Attributes:
        weights, batch: what was run.
        images: of one run.
        latency_s: inference time over the images.
        run_energy_j: joules of the whole process.
        accuracy: F1 in the published data, mAP@.5 as published for a sweep's networks; NaN if
            unknown.
        trials: runs behind the means.
        latency_ci95_s: half width of the 95 % interval of :attr:`latency_s`; NaN for one run.
        ci95_j: half width of the 95 % interval of :attr:`joules_per_image`; NaN for one run.
        steady_joules_per_image, steady_ci95_j: loading left out; NaN where not measured.
        load_s: from the script's start to its first image; NaN where not measured.
        meter, quality: provenance of the joules.
    """

    weights: str
    batch: int
    images: float
    latency_s: float
    run_energy_j: float
    accuracy: float = math.nan
    trials: int = 1
    latency_ci95_s: float = math.nan
    ci95_j: float = math.nan
    steady_joules_per_image: float = math.nan
    steady_ci95_j: float = math.nan
    load_s: float = math.nan
    meter: str
    quality: str

    @property
    def label(self) -> str:
        """The point in words."""
        return f"{self.weights}, batch {self.batch}"

    @property
    def joules_per_image(self) -> float:
        """The run's joules over its images."""
        return self.run_energy_j / self.images

    @property
    def published_per_input_j(self) -> float:
        """The run's joules over the *batch size*, which figure 4 calls energy per input."""
        return self.run_energy_j / self.batch

    @property
    def power_w(self) -> float:
        """The whole process's joules over the seconds of inference: more than the true power."""
        return self.joules_per_image / self.latency_s


def experiment_1() -> list[SeedPoint]:
    """7 weights × 2 batches, with F1."""
    return _published(PUBLISHED / "experiment-1.csv", IMAGES_1)


def experiment_2() -> list[SeedPoint]:
    """YOLOv7-E6E at 11 batches."""
    return _published(PUBLISHED / "experiment-2.csv", IMAGES_2)


def read_points(folder: Path) -> list[SeedPoint]:
    """The points of a sweep over ``weights`` and ``batch`` that have figures.

    Raises:
        ConfigError: the folder holds no such sweep.
    """
    path = folder / "points.csv"
    accuracies = {v.name: v.accuracy for v in load_pipeline(str(PIPELINE)).VARIANTS}
    points = [
        SeedPoint(
            weights=row["weights"],
            batch=int(row["batch"]),
            images=_number(row, "images"),
            latency_s=_number(row, "latency_s"),
            run_energy_j=_number(row, "run_energy_j"),
            accuracy=accuracies.get(row["weights"], math.nan),
            trials=int(row["trials"]),
            latency_ci95_s=_number(row, "latency_s_ci95"),
            ci95_j=_number(row, "joules_per_image_ci95"),
            steady_joules_per_image=_number(row, "steady_joules_per_image"),
            steady_ci95_j=_number(row, "steady_joules_per_image_ci95"),
            load_s=_number(row, "load_s"),
            meter=row["meter"],
            quality=row["quality"],
        )
        for row in _rows(path, {"weights", "batch", "trials", "latency_s", "run_energy_j"})
        if row["trials"] != "0"
    ]
    if not points:
        raise ConfigError("no point of this sweep has figures", where=path)
    return points


def sweep_facts(folder: Path) -> Mapping[str, object]:
    """What a sweep's meta file says: machine, meter, versions, sessions.

    Raises:
        ConfigError: it cannot be read.
    """
    path = folder / "meta.json"
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=path) from error
    if not isinstance(found, dict):
        raise ConfigError("not a sweep's meta file", where=path)
    return found


def _published(path: Path, images: int) -> list[SeedPoint]:
    return [
        SeedPoint(
            weights=row["weights"],
            batch=int(row["batch"]),
            images=images,
            latency_s=_number(row, "latency_ms_per_image") / 1000,
            run_energy_j=_number(row, "run_energy_j"),
            accuracy=_number(row, "f1"),
            meter="perf",
            quality="imported",
        )
        for row in _rows(path, {"weights", "batch", "latency_ms_per_image", "run_energy_j"})
    ]


def _rows(path: Path, required: set[str]) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(read_text(path).splitlines())
    missing = sorted(required - set(reader.fieldnames or ()))
    if missing:
        raise ConfigError(
            f"no column {missing[0]}", where=path, allowed=", ".join(sorted(required))
        )
    for row in reader:
        try:
            int(row["batch"])
            yield row
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{error}", where=f"{path}:{reader.line_num}") from error


def _number(row: Mapping[str, str | None], column: str) -> float:
    """A cell; NaN if it is empty or not there."""
    text = row.get(column)
    try:
        return float(text) if text else math.nan
    except ValueError as error:
        raise ConfigError(f"{column} is {text!r}", allowed="a number") from error
