"""The sweep file: which command is measured, over what, and how its output is read.

::

    command: ["{python}", detect.py, --weights, "{weights}", --batch, "{batch}"]
    parameters: {weights: [yolov5n, yolov5s], batch: [1, 8]}
    trials: 3
    parse:
      images: {json: images}                                  # a key of the last JSON line
      latency_s: {regex: 'Speed: ([0-9.]+)', scale: 0.001}    # the last match's first group

Every combination of the parameters is a point. ``{NAME}`` in an argument is replaced by the point's
value, or by one of the names in :data:`BUILT_IN`. Arguments go to the program as they are: no shell
sees them, whatever is in them, unless ``shell`` says so, and then they are quoted for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ipa_energy.config.source import YamlSource, raise_all, read_yaml, shown
from ipa_energy.errors import ConfigError

Value = str | int | float
Point = tuple[tuple[str, Value], ...]
"""One combination: (parameter, value), in the order of the file."""

BUILT_IN = {
    "python": "the interpreter that runs the sweep",
    "sweep_dir": "the folder of the sweep file",
    "meter": "the meter in use, for detectors that measure a part of themselves",
    "power_model": "the file of its power model; empty for this machine's",
}

IMAGES = "images"
"""The field every run must give: without it there are no joules per image."""

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAME = r"^[a-z][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=_NAME)]


class Reading(BaseModel):
    """How one number is found in a command's output; exactly one of the three ways.

    Attributes:
        json_key: key of the last line of the output that is a JSON object.
        regex: the first group of its last match.
        value: a constant, where the output does not say.
        scale: factor to SI units.
        optional: a run without it counts all the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    json_key: str | None = Field(default=None, alias="json", min_length=1)
    regex: str | None = None
    value: float | int | None = Field(default=None, allow_inf_nan=False)
    scale: float | int = Field(default=1, gt=0, allow_inf_nan=False)
    optional: bool = False

    @field_validator("regex")
    @classmethod
    def _one_group(cls, regex: str | None) -> str | None:
        if regex is None:
            return None
        try:
            groups = re.compile(regex).groups
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"has {groups} groups; allowed: one, around the number")
        return regex

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.json_key, self.regex, self.value)) != 1:
            raise ValueError("allowed: exactly one of json, regex, value")
        return self


class Sweep(BaseModel):
    """A sweep file's content.

    Attributes:
        command: program and arguments; with ``shell`` one text.
        shell: give the command to ``sh -c``, its values quoted.
        working_dir: where it runs, beside the sweep file.
        environment: variables on top of the sweep's own.
        parameters: name → values.
        trials: measured runs a point.
        idle_s: idle windows before and after each run; None for what the meter needs, at least 1 s.
        meter: as ``ipa-energy measure --meter``.
        power_model: of the cpu-time meter, beside the sweep file; None for this machine's.
        timeout_s: a run that takes longer is stopped and counts as failed.
        seed: of the order of the runs.
        parse: field → how it is read; ``images`` must be among them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    command: list[str] | str
    shell: bool = False
    working_dir: str = "."
    environment: dict[str, str] = Field(default_factory=dict)
    parameters: dict[Name, Annotated[list[Value], Field(min_length=1)]] = Field(min_length=1)
    trials: int = Field(default=3, ge=1)
    idle_s: float | int | None = Field(default=None, ge=0, allow_inf_nan=False)
    meter: str = "auto"
    power_model: str | None = None
    timeout_s: float | int = Field(default=3600, gt=0, allow_inf_nan=False)
    seed: int = 0
    parse: dict[Name, Reading]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.command, str) != self.shell:
            kind = "one text" if self.shell else "a list of texts"
            raise ValueError(f"command: allowed with shell: {str(self.shell).lower()}: {kind}")
        if not self.command or not self.command[0]:
            raise ValueError("command is empty")
        if IMAGES not in self.parse:
            raise ValueError(f"parse: {IMAGES} is missing: there are no joules per image without")
        taken = sorted(set(self.parameters) & ({*BUILT_IN, *self.parse}))
        if taken:
            raise ValueError(f"parameters: {taken[0]} is a built-in name or a parsed field")
        for name, values in self.parameters.items():
            if len({str(value) for value in values}) < len(values):
                raise ValueError(f"parameters: {name} has a value twice")
        known = {*BUILT_IN, *self.parameters}
        unknown = sorted(placeholders(self.command) - known)
        if unknown:
            allowed = ", ".join(sorted(known))
            raise ValueError(f"command: {{{unknown[0]}}} is no parameter; allowed: {allowed}")
        unused = sorted(set(self.parameters) - placeholders(self.command))
        if unused:
            raise ValueError(f"command: {{{unused[0]}}} does not occur: its values change nothing")
        return self

    @property
    def points(self) -> list[Point]:
        """Every combination of the parameters."""
        names = list(self.parameters)
        return [
            tuple(zip(names, values, strict=True)) for values in product(*self.parameters.values())
        ]


def read_sweep(path: Path) -> Sweep:
    """The sweep of a YAML file.

    Raises:
        ConfigError: with every mistake, its line, and what is allowed.
    """
    source = read_yaml(path)
    problems = list(source.problems)
    try:
        sweep = Sweep.model_validate(source.data)
    except ValidationError as error:
        problems += [_problem(detail, source) for detail in error.errors(include_url=False)]
        raise_all(problems, path)
    if problems:
        raise_all(problems, path)
    return sweep


def placeholders(command: list[str] | str) -> set[str]:
    """Names in braces in a command."""
    texts = [command] if isinstance(command, str) else command
    return {match[1] for text in texts for match in _PLACEHOLDER.finditer(text) if match[1]}


def fill(command: list[str] | str, values: Mapping[str, Value]) -> list[str]:
    """The command with its placeholders replaced, once: braces in a value stay what they are.

    A text becomes ``sh -c TEXT`` with every value quoted.
    """

    def replaced(text: str, *, quoted: bool) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]  # {{ and }} are braces
            value = str(values[match[1]])
            return shlex.quote(value) if quoted else value

        return _PLACEHOLDER.sub(one, text)

    if isinstance(command, str):
        return ["sh", "-c", replaced(command, quoted=True)]
    return [replaced(argument, quoted=False) for argument in command]


def _problem(detail: Any, source: YamlSource) -> ConfigError:
    known = [part for part in detail["loc"] if part in {*Sweep.model_fields, *Reading.model_fields}]
    keys = tuple(part for part in detail["loc"] if isinstance(part, str | int))
    while keys and keys not in source.lines:
        keys = keys[:-1]
    name = ".".join(map(str, keys)) or (str(known[-1]) if known else "")
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        unknown, fields = detail["loc"][-1], Sweep.model_fields
        return ConfigError(
            f"unknown key {unknown}", where=source.where(keys), allowed=", ".join(fields)
        )
    if detail["type"] == "missing":
        return ConfigError(f"key {detail['loc'][-1]} is missing", where=source.where(keys))
    if detail["type"] == "value_error":
        return ConfigError(f"{name}: {message}" if name else message, where=source.where(keys))
    return ConfigError(
        f"{name} is {shown(detail['input'])}", where=source.where(keys), allowed=message
    )
