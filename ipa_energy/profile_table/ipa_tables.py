"""What lies beside the results of IPA's profiling: experiments, accuracies, and our notes.

``key_config_mapper.csv`` says which experiment of a series measured what. IPA writes one line an
experiment before it runs it, so a line whose ``N.json`` never came is an ordinary thing there. What
matters here are eight of its seventeen columns; the others are kept in the header so that IPA's own
profiler can go on in a series that was written here.

``accuracies.yaml`` is pipeline → stage → variant → percent. It is also where IPA's users choose: a
variant that is not in it is not offered, however well it was profiled. Some audio figures are minus
a word error rate, hence −100 to 100.

``ipa-energy.jsonl``, one :class:`Note` a line, has what IPA's format has no place for. It is a file
of its own because IPA's parser chokes on texts in ``N.json`` and takes any file whose name begins
with an experiment's number for that experiment; and lines are appended, so a kill costs one of
them. Of two lines for one experiment the later holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ipa_energy.config.source import YamlSource, raise_all, read_text, read_yaml, shown
from ipa_energy.errors import ConfigError
from ipa_energy.jsonl import append_line, drop_torn_line, records_of
from ipa_energy.profile_table.profile_csv import csv_lines
from ipa_energy.profile_table.profile_row import as_number
from ipa_energy.records import QUALITIES, Quality

MAPPER_FILE = "key_config_mapper.csv"
NOTES_FILE = "ipa-energy.jsonl"

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
        value = as_number(self.load)
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
    lines = csv_lines(read_text(path), path)
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


def load_label(text: str) -> str:
    """A load as it is compared: ``20``, ``20.0`` and ``2e1`` are one, a trace's name is itself."""
    value = as_number(text)
    return f"{value:g}" if math.isfinite(value) else text.strip()


def _experiment(cells: Mapping[str, str], where: str) -> IpaExperiment:
    for name in ("pipeline_name", "node_name", "model_variant", "load"):
        if not cells[name].strip():
            raise ConfigError(f"{name} is empty", where=where, allowed="a name")
    cpu_cores = as_number(cells["cpu_request"])
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
    value = as_number(cells[name])
    if not (value >= low and value.is_integer()):
        raise ConfigError(f"{name} is {cells[name]!r}", where=where, allowed=f"an integer ≥ {low}")
    return int(value)


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


def read_accuracies(path: Path, pipeline: str, stage: str) -> dict[str, float]:
    """Variant → accuracy as a ratio, of one stage of one pipeline.

    Mistakes elsewhere in the file (IPA's own has variants named by integers) do not matter here.

    Raises:
        ConfigError: the file lacks the pipeline or the stage, or a figure is no percentage.
    """
    source = read_yaml(path)
    stages = _mapping(source, (pipeline,), "pipeline", source.data)
    percents = _mapping(source, (pipeline, stage), "stage", stages)
    problems = _within(source, (pipeline, stage))
    for variant, percent in percents.items():
        if isinstance(percent, bool) or not (
            isinstance(percent, int | float) and -100 <= percent <= 100
        ):
            problems.append(
                ConfigError(
                    f"{pipeline}.{stage}.{variant} is {shown(percent)}",
                    where=source.where((pipeline, stage, variant)),
                    allowed="percent, -100 to 100",
                )
            )
    if problems:
        raise_all(problems, path)
    return {variant: percent / 100 for variant, percent in percents.items()}


def _mapping(
    source: YamlSource, keys: tuple[str, ...], noun: str, data: Mapping[str, Any]
) -> dict[str, Any]:
    if keys[-1] not in data:
        raise ConfigError(
            f"no {noun} {'.'.join(keys)}",
            where=source.where(keys[:-1]),
            allowed=", ".join(map(str, data)) or "nothing",
        )
    value = data[keys[-1]]
    if not isinstance(value, dict):
        what = f"{'.'.join(keys)} is {shown(value)}"
        raise ConfigError(what, where=source.where(keys), allowed="a mapping")
    return value


def _within(source: YamlSource, keys: tuple[str, str]) -> list[ConfigError]:
    """The file's problems that stand in the block of ``keys``."""
    first = source.lines[keys]
    after = [line for path, line in source.lines.items() if len(path) <= 2 and line > first]
    last = min(after, default=math.inf)
    return [problem for problem in source.problems if first <= _line(problem) < last]


def _line(problem: ConfigError) -> int:
    return int(str(problem.where).rpartition(":")[2])


# ------------------------------------------------------------------ notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a series cannot say of one experiment; None where nothing is known.

    Attributes:
        experiment_id: the N of ``N.json``.
        meter: what gave its joules.
        quality: how good they are.
        trials: windows behind them; 0 if a fit predicted them.
        energy_ci95_j: half width of the 95 % interval of the dynamic joules per request.
        load_rps: the load that was served, where the mapper's is a label.
        hardware: what it ran on.
    """

    experiment_id: int
    meter: str | None = None
    quality: Quality | None = None
    trials: int | None = None
    energy_ci95_j: float | None = None
    load_rps: float | None = None
    hardware: str | None = None

    def to_line(self) -> str:
        """The line of this note, with its end."""
        filled = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(filled, allow_nan=False) + "\n"


def read_notes(folder: Path) -> dict[int, Note]:
    """Experiment number → note; empty without the file. A torn last line is passed over.

    Raises:
        ConfigError: a line is no note, with its number and key.
    """
    path = folder / NOTES_FILE
    if not path.exists():
        return {}
    found = [_note(document, where) for where, document in records_of(read_text(path), path)]
    return {note.experiment_id: note for note in found}


def add_note(folder: Path, note: Note) -> None:
    """Add a note to a series; a line that a kill left torn goes.

    Raises:
        IpaEnergyError: it cannot be written.
    """
    path = folder / NOTES_FILE
    if path.exists():
        drop_torn_line(path)
    append_line(path, note.to_line().rstrip("\n"))


def _note(document: Any, where: str) -> Note:
    names = [field.name for field in fields(Note)]
    if not isinstance(document, dict) or "experiment_id" not in document:
        raise ConfigError("no experiment_id", where=where, allowed=f"a mapping of {names}")
    unknown = sorted(set(document) - set(names))
    if unknown:
        raise ConfigError(f"unknown keys {unknown}", where=where, allowed=", ".join(names))
    for key, value in document.items():
        _check(key, value, where)
    if (document.get("meter") is None) != (document.get("quality") is None):
        raise ConfigError(
            "meter without quality, or quality without meter", where=where, allowed="both, or none"
        )
    return Note(**document)


def _check(key: str, value: Any, where: str) -> None:
    if value is None and key != "experiment_id":
        return
    allowed: Mapping[str, tuple[bool, str]] = {
        "experiment_id": (_is_count(value), "an integer ≥ 0"),
        "trials": (_is_count(value), "an integer ≥ 0"),
        "quality": (value in QUALITIES, " | ".join(QUALITIES)),
        "meter": (_is_name(value), "a name"),
        "hardware": (_is_name(value), "a name"),
        "energy_ci95_j": (_is_amount(value), "a finite number ≥ 0"),
        "load_rps": (_is_amount(value), "a finite number ≥ 0"),
    }
    holds, what = allowed[key]
    if not holds:
        raise ConfigError(f"{key} is {value!r}", where=where, allowed=what)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()
