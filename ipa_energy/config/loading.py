"""From a YAML file and the options of a command line to a :class:`PipelineConfig`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ipa_energy.config.messages import problems_of
from ipa_energy.config.problems import raise_all
from ipa_energy.config.schema import PipelineConfig
from ipa_energy.config.workload_config import WORKLOAD_TYPES, CsvWorkload
from ipa_energy.config.yaml_source import KeyPath, YamlSource, dump_yaml, read_yaml
from ipa_energy.errors import ConfigError

WORKLOAD = "workload"
"""An override of its own: the name of a workload, or the path of a CSV."""

OPTIONS: Mapping[str, str] = {
    "latency_sla_s": "--latency-sla",
    "optimization_method": "--method",
    "predictor_type": "--predictor",
}
"""Options of the command line whose name is not that of their key."""

LARGEST_WHOLE = 1e15
"""Floats above this may not be whole numbers of what was meant; they are dumped as floats."""

_PROFILING_KEYS = {"model_variants", "cpu_request", "max_batch_size", "repetition", "node_name"}


def load_config(path: str | Path, overrides: Mapping[str, object] | None = None) -> PipelineConfig:
    """Read a pipeline YAML, with options of the command line laid over it.

    Args:
        path: the file.
        overrides: key → value, validated as the file's keys are; None as a value means "not
            given". Beside the YAML's keys there is ``workload``: a ``workload_type`` (whose
            ``workload_config`` the file may hold), else the path of a CSV, divided by the
            ``damping_factor`` of the file's own workload.

    Paths come back absolute: those of the file are looked up beside it, then in the working folder;
    those of an override in the working folder.

    Raises:
        ConfigError: with every mistake of the file, each with line, key and what is allowed.
    """
    path = Path(path)
    source = read_yaml(path)
    _refuse_profiling_config(source)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    data: dict[str, Any] = {**source.data, **given}
    options = {key: OPTIONS.get(key, f"--{key.replace('_', '-')}") for key in given}
    if WORKLOAD in given:
        data |= _workload_keys(str(data.pop(WORKLOAD)), source)
        options |= dict.fromkeys(("workload_type", "workload_config"), f"--{WORKLOAD}")

    def where(keys: KeyPath) -> str:
        return options.get(str(keys[0]), source.where(keys)) if keys else source.where(keys)

    problems = list(source.problems)
    try:
        config = PipelineConfig.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error, data, where)
        raise_all(problems, path)
    if problems:
        raise_all(problems, path)
    return _with_absolute_paths(config, path.parent, options)


def dump_config(config: PipelineConfig) -> str:
    """The config as YAML that loads back equal, and that IPA's own parser reads.

    Keys that are null by default and were never set are left out.
    """
    fields = PipelineConfig.model_fields
    dumped = _whole_numbers(config.model_dump(mode="json"))
    kept = {
        key: value
        for key, value in dumped.items()
        if value is not None or key in config.model_fields_set or fields[key].default is not None
    }
    if config.nodes is not None:
        kept["nodes"] = [
            {key: value for key, value in node.items() if value is not None}
            for node in dumped["nodes"]
        ]
    first = ["pipeline_name", "nodes"]
    ordered = {key: kept.pop(key) for key in first if key in kept}
    return dump_yaml({**ordered, **kept})


def _whole_numbers(value: Any) -> Any:
    """``value`` with 20.0 as 20, the way people (and IPA's files) write it."""
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_WHOLE:
        return int(value)
    return value


def _refuse_profiling_config(source: YamlSource) -> None:
    if "nodes" in source.data or "alpha" in source.data:
        return
    if len(_PROFILING_KEYS & source.data.keys()) >= 3:
        raise ConfigError(
            "this is one of IPA's profiling configs (one node, lists of what to measure), not a"
            " pipeline",
            where=source.path,
            allowed="a pipeline YAML, with nodes, alpha and beta, as in IPA's data/configs/final",
        )


def _workload_keys(workload: str, source: YamlSource) -> dict[str, Any]:
    in_file = source.data.get("workload_config")
    if workload in WORKLOAD_TYPES:
        same = source.data.get("workload_type") == workload
        return {"workload_type": workload, "workload_config": in_file if same else None}
    first = in_file[0] if isinstance(in_file, list) and in_file else in_file
    damping = first.get("damping_factor") if isinstance(first, dict) else None
    return {
        "workload_type": "csv",
        "workload_config": {"path": workload, "damping_factor": damping},
    }


def _with_absolute_paths(
    config: PipelineConfig, folder: Path, options: Mapping[str, str]
) -> PipelineConfig:
    changed: dict[str, Any] = {}
    if config.profile is not None:
        changed["profile"] = _absolute(config.profile, folder, given="profile" in options)
    workload = config.workload_config
    if isinstance(workload, CsvWorkload):
        found = _absolute(workload.path, folder, given="workload_config" in options)
        changed["workload_config"] = workload.model_copy(update={"path": found})
    return config.model_copy(update=changed) if changed else config


def _absolute(path: Path, folder: Path, *, given: bool) -> Path:
    path = path.expanduser()
    if given or (not (folder / path).exists() and path.exists()):
        return path.absolute()
    return (folder / path).absolute()
