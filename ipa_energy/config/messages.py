"""Pydantic's findings as messages that name the file, the line, the key and what is allowed.

What is allowed is read off the JSON schema of the model, so that a message, the schema file for
editors and the validation cannot disagree.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from pydantic import ValidationError

from ipa_energy.config.checks import WHOLE
from ipa_energy.config.fields import QUOTED
from ipa_energy.config.problems import shown
from ipa_energy.config.schema import PipelineConfig
from ipa_energy.config.workload_config import MODELS
from ipa_energy.config.yaml_source import KeyPath
from ipa_energy.errors import ConfigError

Schema = dict[str, Any]

DEFAULT_WORKLOAD = PipelineConfig.model_fields["workload_type"].default


@cache
def json_schema() -> Schema:
    """The JSON schema (draft 2020-12) of a pipeline YAML, for editors and for messages."""
    schema = PipelineConfig.model_json_schema()
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
    for detail in error.errors(include_url=False):
        # Of a union, the branch that got deepest is the one that was meant; the others are noise.
        found.setdefault(_key_path(detail["loc"], data, detail["type"]), detail)
    deepest = {
        keys: detail
        for keys, detail in found.items()
        if not any(other[: len(keys)] == keys for other in found if len(other) > len(keys))
    }
    kind = data.get("workload_type", DEFAULT_WORKLOAD) if isinstance(data, dict) else None
    return [_message(keys, detail, where(keys), kind) for keys, detail in deepest.items()]


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
        known = list(_resolve(_schema_at(keys[:-1]) or {}).get("properties", {}))
    near = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.6)
    what = f"unknown key {_name(keys)}"
    if near:
        return ConfigError(f"{what}: did you mean {near[0]}?", where=where)
    allowed = ", ".join(known) if len(keys) > 1 else "the keys of configs/pipeline.schema.json"
    return ConfigError(what, where=where, allowed=allowed, fix="remove the key")


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
    child = schema.get("items") if isinstance(key, int) else schema.get("properties", {}).get(key)
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
