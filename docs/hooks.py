"""Fills the pages that are made from the program: every key of a YAML, every verb, every name."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from ipa_energy import registries
from ipa_energy.cli import build_parser
from ipa_energy.config import json_schema

REGISTRIES = (
    "SOLVERS",
    "PREDICTORS",
    "POLICIES",
    "METERS",
    "WORKLOADS",
    "BACKENDS",
    "PIPELINES",
    "QUANTITIES",
)
UNUSED = "Not used here"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts where a page asks for them; mkdocs calls this for each page."""
    for mark, make in (("KEYS", keys), ("VERBS", verbs), ("REGISTRIES", names)):
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", make())
    return markdown


def keys() -> str:
    """A table of the YAML's keys, from the schema that validates them."""
    schema = json_schema()
    parts = [_table("A pipeline", schema)]
    parts += [_table(name, definition) for name, definition in schema["$defs"].items()]
    return "\n\n".join(part for part in parts if part)


def _table(title: str, definition: dict[str, Any]) -> str:
    if "properties" not in definition:
        return ""
    lines = [f"## {title}", "", "| key | values | default | meaning |", "|---|---|---|---|"]
    required = definition.get("required", ())
    unused = [key for key, value in definition["properties"].items() if UNUSED in _meaning(value)]
    for key, value in definition["properties"].items():
        if key in unused:
            continue
        default = "required" if key in required else _shown(value.get("default"))
        lines.append(f"| `{key}` | {_values(value)} | {default} | {_meaning(value)} |")
    if unused:
        listed = ", ".join(f"`{key}`" for key in unused)
        lines += ["", f"Keys of IPA's that are accepted and not used: {listed}."]
    return "\n".join(lines)


def _meaning(value: dict[str, Any]) -> str:
    return str(value.get("description", "")).replace("|", "\\|")


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(value: dict[str, Any]) -> str:
    if "enum" in value or "const" in value:
        return ", ".join(_shown(one) for one in value.get("enum", [value.get("const")]))
    if "$ref" in value:
        return str(value["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in value or "oneOf" in value:
        parts = value.get("anyOf", value.get("oneOf", []))
        return " or ".join(dict.fromkeys(_values(one) for one in parts))
    kind = value.get("type", "anything")
    if kind == "array":
        return f"list of {_values(value.get('items', {}))}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    limits = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return " ".join([kind if isinstance(kind, str) else " or ".join(kind), *limits])


def verbs() -> str:
    """What ``--help`` prints, for each verb."""
    os.environ["COLUMNS"] = "96"
    parser = build_parser()
    parts = [f"```\n{parser.format_help().rstrip()}\n```"]
    parts += [f"## {n}\n\n```\n{p.format_help().rstrip()}\n```" for n, p in verb_parsers(parser)]
    return "\n\n".join(parts)


def verb_parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Name and parser of each verb, and of each verb of a verb."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                yield name, verb
                yield from ((f"{name} {inner}", p) for inner, p in verb_parsers(verb))


def names() -> str:
    """What can be chosen by name, from the registries."""
    parts = []
    for registry in REGISTRIES:
        entries = getattr(registries, registry)
        lines = [f"| `{name}` | {getattr(e, 'help', '')} |" for name, e in entries.items()]
        parts.append(
            "\n".join([f"### {registry}", "", "| name | what it is |", "|---|---|", *lines])
        )
    return "\n\n".join(parts)
