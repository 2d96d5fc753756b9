"""Configurations that the user names: from a run's log or from a list, as the profile has them.

A YAML list::

    configurations:
      - name: light
        stages:
          - {stage: crop, variant: yolov5n, cpu_cores: 1, batch: 4}
          - {stage: classification, variant: resnet18, cpu_cores: 1, batch: 1, replicas: 2}

A CSV list has the same with one stage a row, rows of one name belonging together::

    name,stage,variant,cpu_cores,batch,replicas
    light,crop,yolov5n,1,4,
    light,classification,resnet18,1,1,2

``replicas`` may be absent or empty: then they are what the load needs. ``gpu_share`` is 0 unless it
is given. ``cpu_cores`` may be absent where the profile has the variant on one allocation.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ipa_energy.config.fields import Positive, PositiveInteger, StrictModel, Text
from ipa_energy.config.fields import Sequence as Listed
from ipa_energy.config.loading import allowed_text
from ipa_energy.config.source import KeyPath, raise_all, read_text, read_yaml, shown
from ipa_energy.energy import replicas_needed
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.plan_building import plan_of
from ipa_energy.optimizer.problem import Program, within
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.stage_columns import throughputs
from ipa_energy.records import Option, Stage
from ipa_energy.runlog import Run
from ipa_energy.tradeoff.trials import Configuration


@dataclass(frozen=True, slots=True)
class Skipped:
    """A configuration that was asked for and not run.

    Attributes:
        name: what the list calls it, or its label.
        reason: why, in a sentence.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class NamedConfiguration:
    """A named configuration.

    Attributes:
        name: what the user or the log calls it.
        options: of each stage, first stage first.
        replicas: of each stage; None: what the load needs.
        origin: where it is from, for people.
    """

    name: str
    options: tuple[Option, ...]
    replicas: tuple[int | None, ...]
    origin: str


def configurations_of_run(run: Run, stages: Sequence[Stage]) -> tuple[NamedConfiguration, ...]:
    """The distinct configurations of a run's adaptation log, in order of first use.

    Steps that differ in replicas alone are one configuration: here it gets the replicas that the
    study's load needs.

    Raises:
        ConfigError: the log has other stages, an option that the profile does not have, or no
            configuration at all.
    """
    found: dict[tuple[Option, ...], NamedConfiguration] = {}
    for step in run.steps:
        if not step.stages:  # an infeasible step of IPA's own log
            continue
        if len(step.stages) != len(stages):
            raise ConfigError(
                f"the log has {len(step.stages)} stages, the pipeline {len(stages)}",
                where=run.path,
                fix="give a run of this pipeline",
            )
        if any(logged.parts for logged in step.stages):
            raise ConfigError(
                f"second {step.start_s:g} runs several options at once, which no list names",
                where=run.path,
                fix="leave out --from: with mix: true the study chooses mixes by itself",
            )
        options = tuple(
            profiled_option(
                stage,
                logged.variant,
                cpu_cores=logged.cpu_cores,
                gpu_share=logged.gpu_share,
                batch=logged.batch,
                where=str(run.path),
            )
            for stage, logged in zip(stages, step.stages, strict=True)
        )
        if options not in found:
            name = " | ".join(option.label for option in options)
            origin = f"run {run.name}, second {step.start_s:g}"
            found[options] = NamedConfiguration(name, options, (None,) * len(options), origin)
    if not found:
        raise ConfigError("no step of the log has a configuration", where=run.path)
    return tuple(found.values())


def profiled_option(
    stage: Stage,
    variant: str,
    *,
    cpu_cores: float | None,
    gpu_share: float,
    batch: int,
    where: str,
) -> Option:
    """The option of a stage's profile; ``cpu_cores`` may be None if that leaves one.

    Raises:
        ConfigError: the profile has none, or several.
    """
    fitting = [
        option
        for option in stage.options
        if (option.variant, option.batch, option.gpu_share) == (variant, batch, gpu_share)
        and cpu_cores in (None, option.cpu_cores)
    ]
    if len(fitting) == 1:
        return fitting[0]
    cores = "" if cpu_cores is None else f" on {cpu_cores:g} cores"
    gpu = f" and {gpu_share:g} of a GPU" if gpu_share else ""
    what = f"{variant}{cores}{gpu} at batch {batch}"
    if fitting:
        raise ConfigError(
            f"stage {stage.name}: the profile has {what} on several allocations",
            where=where,
            allowed=", ".join(option.label for option in fitting),
            fix="give cpu_cores",
        )
    same = [option for option in stage.options if option.variant == variant]
    raise ConfigError(
        f"stage {stage.name}: the profile has no {what}",
        where=where,
        allowed=", ".join(option.label for option in same or stage.options),
    )


Where = Callable[[KeyPath], str]

_Share = Annotated[float, Field(ge=0, le=1)]


class _Stage(StrictModel):
    stage: Text
    variant: Text
    cpu_cores: Positive | None = None
    gpu_share: _Share = 0.0
    batch: PositiveInteger
    replicas: PositiveInteger | None = None


class _Entry(StrictModel):
    name: Text
    stages: Listed[_Stage]


class _List(StrictModel):
    configurations: Listed[_Entry]


COLUMNS = ("name", *_Stage.model_fields)
NEEDED = ("name", "stage", "variant", "batch")


def read_configurations(path: Path, stages: Sequence[Stage]) -> tuple[NamedConfiguration, ...]:
    """The configurations of a list: CSV if the file's name ends so, else YAML.

    Raises:
        ConfigError: with every mistake of the file: not such a list, a name twice, a stage missing
            or unknown, an option that the profile does not have.
    """
    data, where = _csv_data(path) if path.suffix.lower() == ".csv" else _yaml_data(path)
    try:
        entries = _List.model_validate(data).configurations
    except ValidationError as error:
        raise_all([_problem(detail, where) for detail in error.errors(include_url=False)], path)
    problems: list[ConfigError] = []
    found: dict[str, NamedConfiguration] = {}
    for index, entry in enumerate(entries):
        try:
            if entry.name in found:
                place = where(("configurations", index))
                raise ConfigError(f"two configurations named {entry.name}", where=place)
            found[entry.name] = _named(entry, stages, index, where, path.name)
        except ConfigError as error:
            problems.append(error)
    if problems:
        raise_all(problems, path)
    return tuple(found.values())


def _named(
    entry: _Entry, stages: Sequence[Stage], index: int, where: Where, origin: str
) -> NamedConfiguration:
    names = [stage.name for stage in stages]
    given = [stage.stage for stage in entry.stages]
    if sorted(given) != sorted(names):
        raise ConfigError(
            f"configuration {entry.name} has the stages {', '.join(given)}",
            where=where(("configurations", index)),
            allowed=f"each of {', '.join(names)} once",
        )
    places = [given.index(name) for name in names]
    options = tuple(
        profiled_option(
            stage,
            entry.stages[place].variant,
            cpu_cores=entry.stages[place].cpu_cores,
            gpu_share=entry.stages[place].gpu_share,
            batch=entry.stages[place].batch,
            where=where(("configurations", index, "stages", place)),
        )
        for stage, place in zip(stages, places, strict=True)
    )
    replicas = tuple(entry.stages[place].replicas for place in places)
    return NamedConfiguration(entry.name, options, replicas, origin)


def _problem(detail: Any, where: Where) -> ConfigError:
    keys: KeyPath = detail["loc"]
    name = str(keys[-1])
    properties = _Stage.model_json_schema()["properties"]
    if detail["type"] == "extra_forbidden":
        known = {1: ("configurations",), 3: ("name", "stages")}.get(len(keys), COLUMNS[1:])
        return ConfigError(f"unknown key {name}", where=where(keys), allowed=", ".join(known))
    allowed = allowed_text(properties.get(name)) or detail["msg"].lower()
    if detail["type"] == "missing":
        return ConfigError(f"{name} is missing", where=where(keys[:-1]), allowed=allowed)
    return ConfigError(f"{name} is {shown(detail['input'])}", where=where(keys), allowed=allowed)


def _yaml_data(path: Path) -> tuple[dict[str, Any], Where]:
    source = read_yaml(path)
    if source.problems:
        raise_all(source.problems, path)
    return source.data, source.where


def _csv_data(path: Path) -> tuple[dict[str, Any], Where]:
    """A CSV list in the shape of the YAML's, and where each of its stages stands."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    lines: dict[str, list[int]] = {}
    try:
        _check_header(reader.fieldnames or (), path)
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise ConfigError("more or fewer cells than the header has", where=place)
            name = row.pop("name").strip()
            cells = {column: _cell(text.strip(), column) for column, text in row.items()}
            rows.setdefault(name, []).append({c: v for c, v in cells.items() if v != ""})
            lines.setdefault(name, []).append(reader.line_num)
    except csv.Error as error:
        raise ConfigError(f"not CSV: {error}", where=f"{path}:{reader.line_num}") from error
    names = list(rows)

    def where(keys: KeyPath) -> str:
        if len(keys) < 2:
            return str(path)
        stage = int(keys[3]) if len(keys) > 3 else 0
        return f"{path}:{lines[names[int(keys[1])]][stage]}"

    entries = [{"name": name, "stages": stages} for name, stages in rows.items()]
    return {"configurations": entries}, where


def _check_header(header: Sequence[str], path: Path) -> None:
    unknown = [name for name in header if name not in COLUMNS]
    missing = [name for name in NEEDED if name not in header]
    if unknown or missing or len(set(header)) < len(header):
        raise ConfigError(
            f"the header is {','.join(header)!r}",
            where=f"{path}:1",
            allowed=f"{','.join(NEEDED)} and any of cpu_cores,gpu_share,replicas, each once",
        )


def _cell(text: str, column: str) -> object:
    """The number a cell holds where its column has numbers; else its text, for the message."""
    kinds: Mapping[str, type[int] | type[float]] = {
        "cpu_cores": float,
        "gpu_share": float,
        "batch": int,
        "replicas": int,
    }
    try:
        return kinds[column](text) if column in kinds and text else text
    except ValueError:
        return text


def with_replicas(
    named: Sequence[NamedConfiguration], program: Program, loads: Moment
) -> tuple[list[Configuration], list[Skipped]]:
    """Those configurations that carry the load, each with its replicas; and the others.

    One that breaks an SLA by the profile stays in: the user asked for it, and the share of requests
    inside the SLA will tell.
    """
    found: list[Configuration] = []
    skipped: list[Skipped] = []
    for one in named:
        plan = _plan(one, program, loads)
        if isinstance(plan, Skipped):
            skipped.append(plan)
            continue
        key = f"C{len(found) + 1}"
        found.append(Configuration(key=key, name=one.name, origin=one.origin, plan=plan))
    return found, skipped


def _plan(named: NamedConfiguration, program: Program, loads: Moment) -> Plan | Skipped:
    picks = []
    for stage, option, given in zip(program.stages, named.options, named.replicas, strict=True):
        load_rps = stage.requests_per_input * loads.peak_rps
        (needed,) = replicas_needed(load_rps, throughputs([option])).astype(int).tolist()
        replicas = needed if given is None else given
        capacity_rps = replicas * option.at(replicas).throughput_rps
        if not within(load_rps, capacity_rps):
            return Skipped(
                named.name,
                f"{replicas} of {option.label} in stage {stage.name} carry"
                f" {capacity_rps / stage.requests_per_input:.3g} rps, not {loads.peak_rps:g}:"
                f" it takes {needed}",
            )
        if given is None and needed > program.settings.scaling_cap:
            return Skipped(
                named.name,
                f"stage {stage.name} needs {needed} replicas of {option.label}, and scaling_cap is"
                f" {program.settings.scaling_cap}",
            )
        picks.append((stage, option, replicas))
    return plan_of(picks, program.settings, program.rules, loads.mean_rps)
