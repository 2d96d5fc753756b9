"""YAML read strictly, with the line of every value kept.

PyYAML's own loader lets a repeated key win silently and forgets where a value stood; an experiment
whose second ``alpha:`` overrides the first is a wrong figure in a paper. This reader composes the
document into nodes, which know their lines, and builds plain data from them.

Numbers deviate from YAML 1.1 as PyYAML has it: ``1e-6`` is one here, as in YAML 1.2 and as everyone
who writes it means. ``1:30``, ``1_000`` and ``010``, which YAML 1.1 takes for 90, 1000 and 8, are
texts, so that whoever asks for a number refuses them. :func:`dump_yaml` quotes texts that look like
any of these, so that a dump reads back equal.

A file with five wrong keys should take one round to mend, not five: readers collect a
:class:`~ipa_energy.errors.ConfigError` per mistake, and :func:`raise_all` raises them as one.
"""

from __future__ import annotations

import datetime
import logging
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ipa_energy.errors import ConfigError

logger = logging.getLogger(__name__)

KeyPath = tuple[str | int, ...]
"""Where a value stands: ``("nodes", 0, "node_name")``."""

_FLOAT_TAG = "tag:yaml.org,2002:float"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"^[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)$"),
    _FLOAT_TAG: re.compile(
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"
        r"|^[-+]?[0-9]+[eE][-+]?[0-9]+$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
}

LONGEST_TEXT = 4_000_000
"""Characters that are read in a second or two; no pipeline comes near."""

MOST_SHOWN = 10
"""More mistakes than this are counted, not listed: the rest is likely the same one again."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 - a table of PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))
_Dumper.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+0123456789"))


@dataclass(frozen=True, slots=True)
class YamlSource:
    """A YAML mapping and where everything in it stands.

    Attributes:
        path: the file.
        data: its content as plain dicts, lists and scalars.
        lines: key path → line, counted from 1.
        problems: mistakes that left ``data`` usable: repeated keys, keys that are not text.
    """

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[ConfigError] = field(default_factory=list)

    def where(self, keys: KeyPath) -> str:
        """``file:line`` of a key, or of the nearest thing around it that is in the file."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{self.path}:{self.lines.get(keys, 1)}"


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, byte order mark dropped.

    Raises:
        ConfigError: it is missing, a folder, unreadable or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("no such file", where=path) from None
    except IsADirectoryError:
        raise ConfigError("this is a folder", where=path, allowed="a file") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"byte 0x{content[error.start]:02x} is not UTF-8",
            where=f"{path}:{line}",
            allowed="UTF-8 text",
            fix="save the file as UTF-8",
        ) from None


def read_yaml(path: Path) -> YamlSource:
    """The mapping a YAML file holds.

    Raises:
        ConfigError: the file cannot be read, is not YAML, is empty, or holds no mapping.
    """
    text = read_text(path)
    if len(text) > LONGEST_TEXT:
        raise ConfigError(
            f"the file has {len(text) / 1e6:.0f} million characters",
            where=path,
            allowed=f"a YAML of at most {LONGEST_TEXT / 1e6:.0f} million",
        )
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _not_yaml(path, text, error) from error
    except RecursionError:
        raise ConfigError("nested too deeply", where=path) from None
    if root is None:
        raise ConfigError("the file is empty", where=path, allowed="a mapping of key: value")
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise ConfigError(
            f"the file holds {kind}",
            where=f"{path}:{root.start_mark.line + 1}",
            allowed="a mapping of key: value",
        )
    source = YamlSource(path, {})
    try:
        source.data.update(_Builder(source).mapping(root, ()))
    except RecursionError:
        raise ConfigError("nested too deeply, or an alias of itself", where=path) from None
    return source


def read_value(text: str, where: str) -> Any:
    """One YAML value that stands on a command line, by the rules of a file.

    Raises:
        ConfigError: it is not YAML; ``where`` is what the message names.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{shown(text)} is not YAML", where=where) from error
    source = YamlSource(Path(where), {})
    try:
        value = None if node is None else _Builder(source).value(node, ())
    except RecursionError:
        raise ConfigError("an alias of itself", where=where) from None
    if source.problems:
        raise ConfigError(str(source.problems[0]).partition(": ")[2], where=where)
    return value


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain data as YAML that :func:`read_yaml` reads back equal, in the order it has."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    return text


def _not_yaml(path: Path, text: str, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        line = mark.line + 1
    else:
        line = text[: getattr(error, "position", 0)].count("\n") + 1
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    lines = text.splitlines()
    tab = line <= len(lines) and "\t" in lines[line - 1]
    return ConfigError(
        f"not YAML: {context + ', ' if context else ''}{what}",
        where=f"{path}:{line}",
        fix="indent with spaces, not tabs" if tab else None,
    )


SERIES = ("latency_sla_s",)
"""The key whose mapping is from seconds."""


class _Builder:
    """Plain data out of composed nodes, noting lines and problems in a source."""

    def __init__(self, source: YamlSource) -> None:
        self._source = source
        self._scalars = _Loader("")
        self._built: dict[int, Any] = {}

    def value(self, node: yaml.Node, keys: KeyPath) -> Any:
        """The node's data; built once however often an alias repeats it."""
        self._source.lines.setdefault(keys, node.start_mark.line + 1)
        if id(node) in self._built:
            return self._built[id(node)]
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = self.mapping(node, keys)
        elif isinstance(node, yaml.SequenceNode):
            value = [self.value(item, (*keys, index)) for index, item in enumerate(node.value)]
        else:
            value = self._scalar(node)
        self._built[id(node)] = value
        return value

    def mapping(self, node: yaml.MappingNode, keys: KeyPath) -> dict[str, Any]:
        """The mapping's data, merge keys (``<<``) laid under its own."""
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                for part in _merged_nodes(value_node):
                    merged = {**self.mapping(part, keys), **merged}
                continue
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                kind = "a list" if isinstance(key_node, yaml.SequenceNode) else "a mapping"
                self._problem(line, f"a key is {kind}", allowed="text as key")
                continue
            key = self._scalar(key_node)
            if self._is_of_seconds(keys) and isinstance(key, str) and key.isdecimal():
                key = int(key)  # as JSON has it, and what was written from it
            is_second = self._is_of_seconds(keys) and type(key) in (int, float)
            if not isinstance(key, str) and not is_second:
                self._problem(line, f"a key is {shown(key)}", allowed="text as key")
                continue
            value = self.value(value_node, (*keys, key)) if key not in own else None
            if key in own:
                first = self._source.lines[(*keys, key)]
                value = _Builder(YamlSource(self._source.path, {})).value(value_node, ())
                self._repeated(".".join(map(str, (*keys, key))), own[key], value, first, line)
                continue
            self._source.lines[(*keys, key)] = line
            own[key] = value
        return {**merged, **own}

    def _is_of_seconds(self, keys: KeyPath) -> bool:
        """True if a mapping's keys are seconds: ``latency_sla_s: {0: 1.0, 600: 0.5}``."""
        return (keys or str(self._source.path).split())[-1:] in (SERIES, list(SERIES))

    def _repeated(self, key: str, first: Any, second: Any, first_line: int, line: int) -> None:
        if type(first) is type(second) and first == second:
            logger.warning(
                "%s:%d: %s repeats line %d with the same value",
                self._source.path,
                line,
                key,
                first_line,
            )
            return
        self._problem(
            line,
            f"{key} is {shown(second)}, but {shown(first)} in line {first_line}",
            fix="keep one of the two",
        )

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            what = getattr(error, "problem", None) or str(error)
            self._problem(node.start_mark.line + 1, f"{shown(getattr(node, 'value', ''))}: {what}")
            return None

    def _problem(
        self, line: int, what: str, *, allowed: str | None = None, fix: str | None = None
    ) -> None:
        where = f"{self._source.path}:{line}"
        self._source.problems.append(ConfigError(what, where=where, allowed=allowed, fix=fix))


def _merged_nodes(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _merged_nodes(item)


def shown(value: object) -> str:
    """A value from a file as a message shows it: short, and telling text from numbers."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = _SHORT.repr(value)
    if isinstance(value, str):
        text = f"the text {text}"
    elif isinstance(value, dict):
        text = "a mapping"
    elif isinstance(value, list | tuple):
        text = f"a list of {len(value)}"
    elif isinstance(value, datetime.date):
        text = f"the date {value}"
    return text


def raise_all(problems: Sequence[ConfigError], where: str | Path) -> NoReturn:
    """Raise the one problem as it is, or all of them as one error with a line each.

    Raises:
        ConfigError: always; ``problems`` must not be empty.
    """
    if len(problems) == 1:
        raise problems[0]
    lines = [f"{len(problems)} problems", *(str(problem) for problem in problems[:MOST_SHOWN])]
    if len(problems) > MOST_SHOWN:
        lines.append(f"… and {len(problems) - MOST_SHOWN} more")
    raise ConfigError("\n  ".join(lines), where=where)
