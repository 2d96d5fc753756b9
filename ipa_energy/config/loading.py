"""From a YAML file and the options of a command line to a :class:`PipelineConfig`, and back.

Pydantic's findings become messages that name the file, the line, the key and what is allowed. What
is allowed is read off the JSON schema of the model, so that a message, the schema file for editors
and the validation cannot disagree.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ipa_energy.config.fields import A_NAME, QUOTED
from ipa_energy.config.schema import WHOLE, PipelineConfig, pipeline_model
from ipa_energy.config.sections import MODELS, CsvWorkload
from ipa_energy.config.source import (
    SERIES,
    KeyPath,
    YamlSource,
    dump_yaml,
    raise_all,
    read_value,
    read_yaml,
    shown,
)
from ipa_energy.errors import ConfigError
from ipa_energy.registries import PREDICTORS, SOLVERS, WORKLOADS, energy_metrics

logger = logging.getLogger(__name__)

Schema = dict[str, Any]

WORKLOAD = "workload"
"""An override of its own: the name of a workload, or the path of a CSV."""

SET = "set"
"""An override of its own: the texts ``KEY=VALUE`` of the options ``--set``."""

OPTIONS: Mapping[str, str] = {
    "latency_sla_s": "--latency-sla",
    "optimization_method": "--method",
    "predictor_type": "--predictor",
}
"""Options of the command line whose name is not that of their key."""

_SHORTEST_WORD = 3
"""Of a key, for it to say what was meant."""

LARGEST_WHOLE = 1e15
"""Floats above this may not be whole numbers of what was meant; they are dumped as floats."""

_DEFAULT_WORKLOAD = PipelineConfig.model_fields["workload_type"].default
_PROFILING_KEYS = {"model_variants", "cpu_request", "max_batch_size", "repetition", "node_name"}


def load_config(path: str | Path, overrides: Mapping[str, object] | None = None) -> PipelineConfig:
    """Read a pipeline YAML, with options of the command line laid over it.

    Args:
        path: the file.
        overrides: key → value, validated as the file's keys are; None as a value means "not
            given". Beside the YAML's keys there are ``workload``: a ``workload_type`` (whose
            ``workload_config`` the file may hold), else the path of a CSV, divided by the
            ``damping_factor`` of the file's own workload; and ``set``: a list of ``KEY=VALUE``.

    Paths come back absolute: those of the file are looked up beside it, then in the working folder;
    those of an override in the working folder.

    Raises:
        ConfigError: with every mistake of the file, each with line, key and what is allowed.
    """
    path = Path(path)
    source = read_yaml(path)
    _refuse_profiling_config(source)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    options = {key: OPTIONS.get(key, f"--{key.replace('_', '-')}") for key in given}
    if WORKLOAD in given:
        given |= _workload_keys(str(given.pop(WORKLOAD)), source)
        options |= dict.fromkeys(("workload_type", "workload_config"), f"--{WORKLOAD}")
    for key, value in _set_keys(given.pop(SET, ()), options).items():
        first, dot, inner = key.partition(".")
        options[first] = f"--set {key}"
        given[first] = (
            _laid_over(given.get(first, source.data.get(first)), inner, value, options[first])
            if dot
            else value
        )
    data: dict[str, Any] = {**source.data, **given}

    def where(keys: KeyPath) -> str:
        return options.get(str(keys[0]), source.where(keys)) if keys else source.where(keys)

    problems = list(source.problems)
    try:
        config = pipeline_model().model_validate(data)
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
    fields = type(config).model_fields
    dumped = _whole_numbers(config.model_dump(mode="json"))
    kept = {
        key: value
        for key, value in dumped.items()
        if value is not None or key in config.model_fields_set or fields[key].default is not None
    }
    for key in SERIES:
        if isinstance(kept.get(key), dict):  # JSON has text for seconds
            kept[key] = {int(second): value for second, value in kept[key].items()}
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
    if workload in WORKLOADS:
        same = source.data.get("workload_type") == workload
        return {"workload_type": workload, "workload_config": in_file if same else None}
    first = in_file[0] if isinstance(in_file, list) and in_file else in_file
    damping = first.get("damping_factor") if isinstance(first, dict) else None
    if damping not in (None, 1):
        logger.warning(
            "%s: its requests are divided by %s, the damping_factor of %s; --set workload_type=csv"
            " --set 'workload_config={path: %s}' takes them as they are",
            workload,
            damping,
            source.path,
            workload,
        )
    return {
        "workload_type": "csv",
        "workload_config": {"path": workload, "damping_factor": damping},
    }


def _set_keys(texts: Any, options: Mapping[str, str]) -> dict[str, Any]:
    """What ``--set KEY=VALUE`` gives; ``options`` are the keys that other options give."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not (equals and key):
            raise ConfigError(f"it is {shown(text)}", where="--set", allowed="KEY=VALUE")
        if key in found or key in options:
            other = options.get(key, "another --set")
            raise ConfigError(f"{other} gives it too", where=f"--set {key}", fix="leave one out")
        found[key] = read_value(value, f"--set {key}")
    return found


def _laid_over(mapping: Any, key: str, value: Any, where: str) -> dict[str, Any]:
    """A mapping of the YAML with one of its keys set: ``--set carbon.weight=2``."""
    if not isinstance(mapping, dict | None):
        raise ConfigError("what it is a key of is no mapping", where=where)
    first, dot, inner = key.partition(".")
    whole = mapping or {}
    return {**whole, first: _laid_over(whole.get(first), inner, value, where) if dot else value}


def _with_absolute_paths(
    config: PipelineConfig, folder: Path, options: Mapping[str, str]
) -> PipelineConfig:
    changed: dict[str, Any] = {}
    if config.profile is not None:
        changed["profile"] = _absolute(config.profile, folder, given="profile" in options)
    if config.images is not None:
        changed["images"] = _absolute(config.images, folder, given="images" in options)
    if config.weights is not None:
        changed["weights"] = {
            variant: _absolute(path, folder, given="weights" in options)
            for variant, path in config.weights.items()
        }
    workload = config.workload_config
    if isinstance(workload, CsvWorkload):
        found = _absolute(workload.path, folder, given="workload_config" in options)
        changed["workload_config"] = workload.model_copy(update={"path": found})
    if config.carbon is not None:
        given = "carbon" in options
        files = config.carbon.files.items()
        paths = {key: _absolute(path, folder, given=given) for key, path in files}
        changed["carbon"] = config.carbon.with_files(paths)
    return config.model_copy(update=changed) if changed else config


def _absolute(path: Path, folder: Path, *, given: bool) -> Path:
    path = path.expanduser()
    if given or (not (folder / path).exists() and path.exists()):
        return path.absolute()
    return (folder / path).absolute()


def json_schema() -> Schema:
    """The JSON schema (draft 2020-12) of a pipeline YAML, for editors and for messages.

    Its choices are the names that the registries hold now.
    """
    return _json_schema(
        pipeline_model(), energy_metrics(), *map(tuple, (SOLVERS, PREDICTORS, WORKLOADS))
    )


def schema_text() -> str:
    """:func:`json_schema` as ``ipa-energy schema`` prints it and the committed file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


@cache
def _json_schema(model: type[PipelineConfig], *names: tuple[str, ...]) -> Schema:
    schema = model.model_json_schema()
    if any(name not in MODELS for name in names[-1]):
        free = {"type": "object", "description": "Of a workload that is registered from outside."}
        schema["properties"]["workload_config"]["anyOf"].append(free)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "ipa-energy pipeline"
    return schema


def problems_of(
    error: ValidationError, data: object, where: Callable[[KeyPath], str]
) -> list[ConfigError]:
    """One message for each mistake pydantic found in ``data``.

    Args:
        error: what pydantic raised.
        data: what it was given.
        where: key path → the place to name in the message.
    """
    found: dict[KeyPath, Any] = {}
    for detail in _meant(error.errors(include_url=False), data):
        # Of a union, the branch that got deepest is the one that was meant; the others are noise.
        found.setdefault(_key_path(detail["loc"], data, detail["type"]), detail)
    deepest = {
        keys: detail
        for keys, detail in found.items()
        if not any(other[: len(keys)] == keys for other in found if len(other) > len(keys))
    }
    kind = data.get("workload_type", _DEFAULT_WORKLOAD) if isinstance(data, dict) else None
    return [_message(keys, detail, where(keys), kind) for keys, detail in deepest.items()]


def _meant(details: Sequence[Any], data: object) -> list[Any]:
    """Of several kinds of mapping that a key may have, only the mistakes of the nearest kind."""
    branches = [_branch(detail["loc"], data) for detail in details]
    strange: dict[tuple[str | int, ...], int] = {}
    for branch, detail in zip(branches, details, strict=True):
        is_strange = detail["type"] in ("missing", "extra_forbidden")
        strange[branch] = strange.get(branch, 0) + is_strange
    nearest = {
        branch: min((count, other) for other, count in strange.items() if other[:-1] == branch[:-1])
        for branch in strange
        if branch
    }
    return [
        detail
        for branch, detail in zip(branches, details, strict=True)
        if not branch or nearest[branch][1] == branch
    ]


def _branch(loc: tuple[str | int, ...], data: object) -> tuple[str | int, ...]:
    """``loc`` up to the name of the first kind of mapping in it; empty without one."""
    for at, part in enumerate(loc[:-1]):
        try:
            data = data[part]  # type: ignore[index]
        except (LookupError, TypeError):
            return loc[: at + 1] if isinstance(data, dict) else ()
    return ()


def _key_path(loc: tuple[str | int, ...], data: object, kind: str) -> KeyPath:
    """``loc`` without the names of union branches that pydantic puts into it."""
    keys: list[str | int] = []
    absent = loc[-1:] if kind in ("missing", WHOLE) else ()
    for part in loc:
        try:
            data = data[part]  # type: ignore[index]
        except (LookupError, TypeError):
            continue
        keys.append(part)
    if absent and (not keys or keys[-1] != absent[0]):
        keys.append(absent[0])
    return tuple(keys)


def _message(keys: KeyPath, detail: Any, where: str, workload_type: Any) -> ConfigError:
    name = _name(keys)
    if detail["type"] == WHOLE:
        context = detail["ctx"]
        return ConfigError(
            context["what"], where=where, allowed=context["allowed"], fix=context["fix"]
        )
    if detail["type"] == "extra_forbidden":
        return _unknown(keys, where, workload_type)
    allowed = allowed_text(_schema_at(keys))
    if detail["type"] == "missing":
        return ConfigError(f"key {name} is missing", where=where, allowed=allowed)
    value = detail["input"]
    if detail["loc"][-1] == "[key]":
        return ConfigError(f"{_name(keys[:-1])} has the key {value!r}", where=where, allowed=A_NAME)
    return ConfigError(
        f"{name} is {shown(value)}", where=where, allowed=allowed, fix=_fix(value, allowed or "")
    )


def _fix(value: object, allowed: str) -> str | None:
    if isinstance(value, str):
        meant = ("number" in allowed or "integer" in allowed) and _is_number(value)
        return "write the number without quotes" if meant else None
    text = allowed.startswith(("text", "a name")) and not isinstance(
        value, dict | list | type(None)
    )
    return "put it in quotes" if text else None


def _unknown(keys: KeyPath, where: str, workload_type: Any) -> ConfigError:
    if keys[0] == "workload_config" and workload_type in MODELS:
        known = list(MODELS[workload_type].model_fields)
    else:
        known = _known_keys(_schema_at(keys[:-1]) or {})
    near = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.6)
    near = near or _with_its_word(str(keys[-1]), known)
    what = f"unknown key {_name(keys)}"
    if near:
        return ConfigError(f"{what}: did you mean {near[0]}?", where=where)
    allowed = ", ".join(known) if len(keys) > 1 else "the keys that ipa-energy schema prints"
    return ConfigError(what, where=where, allowed=allowed, fix="remove the key")


def _with_its_word(key: str, known: Iterable[str]) -> list[str]:
    """The one known key that has a word of the unknown one: ``network_delay_s`` for ``delay``."""
    words = {word for word in key.split("_") if len(word) >= _SHORTEST_WORD}
    found = [one for one in known if words & set(one.split("_"))]
    return found if len(found) == 1 else []


def _known_keys(schema: Schema) -> list[str]:
    """Keys of a mapping, or of any mapping of a union."""
    schema = _resolve(schema)
    found = list(schema.get("properties", {}))
    for branch in schema.get("anyOf", ()):
        found += _known_keys(branch)
    return found


def _name(keys: Iterable[str | int]) -> str:
    name = ""
    for key in keys:
        name += f"[{key}]" if isinstance(key, int) else f".{key}" if name else key
    return name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _resolve(schema: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    definition: Schema = json_schema()["$defs"][reference.rsplit("/", 1)[-1]]
    return definition


def _schema_at(keys: KeyPath, schema: Schema | None = None) -> Schema | None:
    schema = _resolve(json_schema() if schema is None else schema)
    if not keys:
        return schema
    for branch in schema.get("anyOf", ()):
        inner = _schema_at(keys, branch)
        if inner is not None:
            return inner
    key, rest = keys[0], keys[1:]
    if isinstance(key, int):
        child = schema.get("items")
    else:  # a key of its own, or one of a mapping from names that the user chooses
        free = next(iter(schema.get("patternProperties", {}).values()), None)
        child = schema.get("properties", {}).get(key, free)
    return None if child is None else _schema_at(rest, child)


def allowed_text(schema: Schema | None) -> str | None:
    """What a JSON schema allows, in words; None if it says nothing."""
    if schema is None:
        return None
    schema = _resolve(schema)
    kind = schema.get("type")
    text: str
    if "x-allowed" in schema:
        text = schema["x-allowed"]
    elif "enum" in schema or "const" in schema:
        text = " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    elif "anyOf" in schema:
        text = _union_text(schema["anyOf"])
    elif kind in ("number", "integer"):
        text = _number_text(schema)
    elif kind == "array":
        text = f"a list, each entry {allowed_text(schema.get('items'))}"
    else:
        text = {"boolean": "true or false", "null": "null", "string": "text"}.get(
            str(kind), "a mapping"
        )
    return text


def _union_text(branches: list[Schema]) -> str:
    meant = [branch for branch in branches if branch.get("x-allowed") != QUOTED]
    texts = dict.fromkeys(text for text in map(allowed_text, meant) if text)
    quoted = ", in quotes or not" if len(meant) < len(branches) else ""
    return " or ".join(texts) + quoted


def _number_text(schema: Schema) -> str:
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    noun = "an integer" if schema["type"] == "integer" else "a finite number"
    return " ".join([noun, " and ".join(bounds)]) if bounds else noun
