"""What ``workload_config`` may hold, by ``workload_type``.

``static`` and ``twitter`` are IPA's, key for key; the shapes and ``csv`` are ours. The type
of a workload that is registered from outside takes any mapping, which its maker has to check.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import SkipJsonSchema

from ipa_energy.config.fields import (
    FilePath,
    NaturalInteger,
    NonNegative,
    PositiveInteger,
    QuotedNaturalInteger,
    QuotedPositiveInteger,
    Sequence,
    StrictModel,
)

Damping = Annotated[
    PositiveInteger | None,
    Field(description="The trace's requests per second are divided by this integer; null: by 1."),
]


class StaticWorkload(StrictModel):
    """A constant load (IPA's ``static``)."""

    loads_to_test: NonNegative = Field(description="The load, requests per second.")
    load_duration: PositiveInteger = Field(description="How long, seconds.")


class TwitterWindow(StrictModel):
    """One window of IPA's Twitter trace; several are played one after another."""

    start: QuotedNaturalInteger = Field(description="First second of the trace to play.")
    end: QuotedPositiveInteger = Field(description="Second of the trace to stop before.")
    damping_factor: Damping = None


class ShapeWorkload(StrictModel):
    """A load generated here in one of IPA's four shapes, or in that of a day."""

    seed: NaturalInteger | None = Field(
        default=None, description="Seed of the generator; null: the pipeline's seed."
    )
    duration_s: PositiveInteger | None = Field(
        default=None,
        description="Length in seconds; null: the shape's own, 1200 s as in IPA's study.",
    )


class CsvWorkload(StrictModel):
    """A load read from a CSV file."""

    path: FilePath = Field(
        description="The file, relative to this YAML's folder, else to the working folder: a row a"
        " second, with a column requests, or a column requests:CLASS for each class of requests."
    )
    damping_factor: Damping = None


FreeWorkload = dict[str, Any]
WorkloadConfig = (
    StaticWorkload
    | Sequence[TwitterWindow]
    | ShapeWorkload
    | CsvWorkload
    | SkipJsonSchema[FreeWorkload]
    | None
)

SHAPES = ("bursty", "steady-low", "steady-high", "fluctuating", "diurnal")
MODELS: dict[str, type[StrictModel]] = {
    "static": StaticWorkload,
    "twitter": TwitterWindow,
    **dict.fromkeys(SHAPES, ShapeWorkload),
    "csv": CsvWorkload,
}
"""What a ``workload_config`` (for twitter: each window of it) is, by ``workload_type``."""

_WINDOWS: TypeAdapter[tuple[TwitterWindow, ...]] = TypeAdapter(Sequence[TwitterWindow])
_FREE: TypeAdapter[FreeWorkload] = TypeAdapter(FreeWorkload)


def parse_workload(workload_type: str, value: object) -> object:
    """``value`` as the workload of its type; null stays null.

    Raises:
        pydantic.ValidationError: it has not that type's shape.
    """
    if value is None:
        return None
    if workload_type == "twitter":
        return _WINDOWS.validate_python(value)
    if workload_type in MODELS:
        return MODELS[workload_type].model_validate(value)
    return _FREE.validate_python(value)
