"""The kinds of value a pipeline YAML has, strict except where IPA itself is not.

IPA writes some numbers in quotes (``max_batch_size: '1'``, ``start: '1301160'``, ``'True'``) and
its own code needs them so. Those fields take both forms here and are dumped quoted; all others are
strict: ``alpha: '2'`` is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

QUOTED = "quoted"
"""Value of ``x-allowed`` in the JSON schema for "the same in quotes"."""

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9]{1,15}")


class StrictModel(BaseModel):
    """Base of every part of a config: frozen, no unknown keys, no coercion, no NaN or infinity."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class OneOf:
    """A text that a registry holds when the value is checked, or when the schema is built.

    Args:
        names: gives the names that there are now.
    """

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    def _known(self, value: str) -> str:
        if value not in self._names():
            raise PydanticCustomError("choice", "not one of the names")
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": list(self._names()), "type": "string"}


def optional(default: object, text: str) -> Any:
    """A key that may be left out, and what it says."""
    return Field(default=default, description=text)


def unused(text: str, *, because: str = "") -> Any:
    """A key of IPA's that nothing here reads."""
    why = f": {because}" if because else ""
    return Field(default=None, description=f"IPA: {text}. Not used here{why}.")


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
NonNegativeOrInfinite = Annotated[float, Field(ge=0, allow_inf_nan=True)]
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

HTTP_URL = r"^https?://[^/?#\s]+(/[^?#\s]*)?$"
AN_HTTP_URL = "http://HOST:PORT or https://HOST:PORT, with a path prefix if it has one"
A_NAME = "a name of letters, digits, . _ and - (it becomes a path)"

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        json_schema_extra={"x-allowed": A_NAME},
    ),
]
"""A name that ends up in paths, log keys and the names of servers."""

Text = Annotated[str, Field(min_length=1, json_schema_extra={"x-allowed": "text"})]
HttpUrl = Annotated[str, Field(pattern=HTTP_URL, json_schema_extra={"x-allowed": AN_HTTP_URL})]
FilePath = Annotated[
    Path,
    BeforeValidator(_path),
    Field(strict=False, json_schema_extra={"x-allowed": "the path of a file"}),
]

FolderPath = Annotated[
    Path,
    BeforeValidator(_path),
    Field(strict=False, json_schema_extra={"x-allowed": "the path of a folder"}),
]

T = TypeVar("T")
# YAML lists become tuples; only the container is lax, the items stay strict.
Sequence = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]


# Keys of IPA's YAMLs that nothing here uses, accepted by name and type: IPA's files must load
# unchanged, and a typo in a key must still be caught, so none is let through by wildcard.


class UnusedKeys(StrictModel):
    """Keys of a pipeline that only IPA's own runners read."""

    pipeline_folder_name: Text | None = unused("folder of the pipeline's sources")
    timeout: NonNegative | None = unused("seconds to wait for a deployment")
    benchmark_duration: NonNegative | None = unused("repetitions of the benchmark")
    metaseries: int | None = unused("results folder")
    series: int | None = unused("results folder")
    metadata: str | None = unused("a note to the run")
    series_meta: str | None = unused("a note to the series")
    profiling_series: Sequence[int] | None = unused(
        "folder of each stage's profiling results", because="a profile CSV is used whole"
    )
    profiling_load: NonNegative | Sequence[NonNegative] | None = unused(
        "load in rps of the profiling rows to read", because="a profile CSV is used whole"
    )
    num_state_limit: PositiveInteger | None = unused(
        "most states to enumerate", because="solvers are exact"
    )
    lowest_model_accuracy: float | None = unused("read by nothing in it either")
    central_queue: bool | None = unused("queue in front of each stage", because="always so")
    distrpution_time: NonNegative | None = unused("seconds of its container disruption (sic)")
    debug_mode: bool | None = unused("full container logs")
    simulation_mode: bool | None = unused("which of its runners may load the file")
    warm_up: bool | None = unused("10 s of load before the run")
    teleport_mode: bool | None = unused("skip ahead in the trace for the predictor")
    teleport_interval: NonNegative | None = unused("seconds to skip in teleport mode")
    logs_enabled: bool | None = unused("logging in the containers")
    from_storage: Sequence[bool] | None = unused("read the models from storage, per stage")
    arrival_rate: NonNegative | None = unused("load in rps of its static search", because="--load")
    complete_profile: bool | None = unused("log every column of its static search")
    random_sample: bool | None = unused("sample the static search")
    generate: Sequence[Text] | None = unused("which states its static search writes")
