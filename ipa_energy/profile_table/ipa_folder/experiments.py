"""``key_config_mapper.csv``: which experiment of an IPA profiling series measured what.

IPA writes one line an experiment before it runs it, so a line whose ``N.json`` never came is an
ordinary thing there. What matters here are eight of its seventeen columns; the others are kept in
the header so that IPA's own profiler can go on in a series that was written here.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipa_energy.config.problems import raise_all
from ipa_energy.config.yaml_source import read_text
from ipa_energy.errors import ConfigError

MAPPER_FILE = "key_config_mapper.csv"

COLUMNS = (
    "experiment_id",
    "pipeline_name",
    "node_name",
    "model_variant",
    "cpu_request",
    "memory_request",
    "max_batch_size",
    "max_batch_time",
    "load",
    "load_duration",
    "series",
    "series_meta",
    "replicas",
    "no_engine",
    "mode",
    "data_type",
    "benchmark_duration",
)
"""The header as IPA writes it, in its order."""

NEEDED = (
    "experiment_id",
    "pipeline_name",
    "node_name",
    "model_variant",
    "cpu_request",
    "max_batch_size",
    "load",
    "replicas",
)


@dataclass(frozen=True, slots=True)
class IpaExperiment:
    """One line of the mapper, as far as it bears on a profile.

    Attributes:
        number: ``experiment_id``, the N of ``N.json``.
        pipeline: IPA's pipeline name, a key of its ``accuracies.yaml``.
        node: name of the server (``yolo``), under which responses have their times.
        variant: model variant.
        cpu_cores: cores reserved by one replica.
        batch: ``max_batch_size``.
        load: what IPA's ``profiling_load`` picks by: requests per second, or the name of a trace.
        replicas: servers that shared the load.
        where: ``file:line``, for messages.
    """

    number: int
    pipeline: str
    node: str
    variant: str
    cpu_cores: float
    batch: int
    load: str
    replicas: int
    where: str

    @property
    def load_rps(self) -> float:
        """The offered load; NaN if it was a trace."""
        value = _float(self.load)
        return value if value >= 0 else math.nan

    @property
    def entry(self) -> tuple[str, float, int, int, str]:
        """What was measured; two experiments of one series should not share it."""
        return (self.variant, self.cpu_cores, self.batch, self.replicas, self.load)


def read_experiments(folder: Path) -> list[IpaExperiment]:
    """Every experiment of a series, in the order of the file.

    Raises:
        ConfigError: the file is missing, lacks a column, or holds impossible values, repeated
            numbers, or more than one node; each with its line.
    """
    path = folder / MAPPER_FILE
    if not path.exists():
        raise ConfigError(
            f"no {MAPPER_FILE}",
            where=folder,
            allowed="a folder series/N of IPA's profiling results",
        )
    lines = _lines(path)
    if not lines:
        raise ConfigError("the file is empty", where=path, allowed="a header and experiments")
    header = [name.strip() for name in lines[0][1]]
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise ConfigError(
            f"missing columns {', '.join(missing)}", where=f"{path}:1", allowed=", ".join(COLUMNS)
        )
    problems: list[ConfigError] = []
    found: list[IpaExperiment] = []
    for number, cells in lines[1:]:
        where = f"{path}:{number}"
        if len(cells) != len(header):
            what = f"{len(cells)} cells under a header of {len(header)}"
            problems.append(ConfigError(what, where=where))
            continue
        try:
            found.append(_experiment(dict(zip(header, cells, strict=True)), where))
        except ConfigError as problem:
            problems.append(problem)
    problems += _contradictions(found, path)
    if problems:
        raise_all(problems, path)
    if not found:
        raise ConfigError("no experiments", where=path, allowed="at least one line")
    return found


def mapper_csv(lines: Iterable[Mapping[str, object]]) -> str:
    """The whole file: header and one line for each mapping, which has every column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def load_label(text: str) -> str:
    """A load as it is compared: ``20``, ``20.0`` and ``2e1`` are one, a trace's name is itself."""
    value = _float(text)
    return f"{value:g}" if math.isfinite(value) else text.strip()


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(c.strip() for c in cells)]
    except csv.Error as error:
        raise ConfigError(f"not CSV: {error}", where=f"{path}:{reader.line_num}") from error


def _experiment(cells: Mapping[str, str], where: str) -> IpaExperiment:
    for name in ("pipeline_name", "node_name", "model_variant", "load"):
        if not cells[name].strip():
            raise ConfigError(f"{name} is empty", where=where, allowed="a name")
    cpu_cores = _float(cells["cpu_request"])
    if not (math.isfinite(cpu_cores) and cpu_cores > 0):
        raise ConfigError(
            f"cpu_request is {cells['cpu_request']!r}",
            where=where,
            allowed="cores, a finite number > 0",
        )
    return IpaExperiment(
        number=_count(cells, "experiment_id", where, low=0),
        pipeline=cells["pipeline_name"].strip(),
        node=cells["node_name"].strip(),
        variant=cells["model_variant"].strip(),
        cpu_cores=cpu_cores,
        batch=_count(cells, "max_batch_size", where),
        load=load_label(cells["load"]),
        replicas=_count(cells, "replicas", where),
        where=where,
    )


def _count(cells: Mapping[str, str], name: str, where: str, low: int = 1) -> int:
    value = _float(cells[name])
    if not (value >= low and value.is_integer()):
        raise ConfigError(f"{name} is {cells[name]!r}", where=where, allowed=f"an integer ≥ {low}")
    return int(value)


def _float(text: str) -> float:
    """The number, or NaN: what it means that it is none, the caller knows."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _contradictions(found: list[IpaExperiment], path: Path) -> list[ConfigError]:
    problems = []
    lines: dict[int, str] = {}
    for experiment in found:
        if experiment.number in lines:
            what = f"experiment_id {experiment.number} is also in {lines[experiment.number]}"
            problems.append(ConfigError(what, where=experiment.where))
        lines.setdefault(experiment.number, experiment.where)
    for column, names in (
        ("node_name", sorted({experiment.node for experiment in found})),
        ("pipeline_name", sorted({experiment.pipeline for experiment in found})),
    ):
        if len(names) > 1:
            problems.append(
                ConfigError(
                    f"{column} is mixed: {', '.join(names)}",
                    where=path,
                    allowed="the experiments of one node of one pipeline in a series",
                    fix="copy the folder and keep the lines of one of them",
                )
            )
    return problems
