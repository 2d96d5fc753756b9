"""The kinds of value a pipeline YAML has, strict except where IPA itself is not.

IPA writes some numbers in quotes (``max_batch_size: '1'``, ``start: '1301160'``, ``'True'``) and
its own code needs them so. Those fields take both forms here and are dumped quoted; all others are
strict: ``alpha: '2'`` is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
)
from pydantic_core import CoreSchema, PydanticCustomError

QUOTED = "quoted"
"""Value of ``x-allowed`` in the JSON schema for "the same in quotes"."""

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9]{1,15}")


class StrictModel(BaseModel):
    """Base of every part of a config: frozen, no unknown keys, no coercion, no NaN or infinity."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _QuotedToo:
    """Puts "or the same in quotes" into the JSON schema of a field."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        quoted = {"type": "string", "pattern": self.pattern, "x-allowed": QUOTED}
        return {"anyOf": [handler(core_schema), quoted]}


def _integer(value: object) -> object:
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _truth(value: object) -> object:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def _quote(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _path(value: object) -> object:
    if isinstance(value, str) and (not value.strip() or not value.isprintable()):
        raise PydanticCustomError("path", "not a path")
    return value


_as_text = PlainSerializer(_quote, return_type=str)

PositiveInteger = Annotated[int, Field(ge=1)]
NaturalInteger = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Percent = Annotated[float, Field(gt=-100)]
"""A margin in percent: −100 would make a latency or a load vanish."""

QuotedPositiveInteger = Annotated[
    PositiveInteger, BeforeValidator(_integer), _QuotedToo(r"^\+?[0-9]+$"), _as_text
]
QuotedNaturalInteger = Annotated[
    NaturalInteger, BeforeValidator(_integer), _QuotedToo(r"^\+?[0-9]+$"), _as_text
]
QuotedPositive = Annotated[
    Positive, BeforeValidator(_number), _QuotedToo(r"^[+]?[0-9.eE+-]+$"), _as_text
]
QuotedNonNegative = Annotated[
    NonNegative, BeforeValidator(_number), _QuotedToo(r"^[+]?[0-9.eE+-]+$"), _as_text
]
QuotedBoolean = Annotated[
    bool, BeforeValidator(_truth), _QuotedToo("^([Tt]rue|[Ff]alse|TRUE|FALSE)$"), _as_text
]

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        json_schema_extra={"x-allowed": "a name of letters, digits, . _ and - (it becomes a path)"},
    ),
]
"""A name that ends up in paths, log keys and the names of servers."""

Text = Annotated[str, Field(min_length=1, json_schema_extra={"x-allowed": "text"})]
FilePath = Annotated[
    Path,
    BeforeValidator(_path),
    Field(strict=False, json_schema_extra={"x-allowed": "the path of a file"}),
]

T = TypeVar("T")
# YAML lists become tuples; only the container is lax, the items stay strict.
Sequence = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]
