"""What ``workload_config`` may hold, by ``workload_type``.

``static`` and ``twitter`` are IPA's, key for key; the four shapes and ``csv`` are ours.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter

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

ShapeName = Literal["bursty", "steady-low", "steady-high", "fluctuating"]
WorkloadType = Literal[
    "static", "twitter", "bursty", "steady-low", "steady-high", "fluctuating", "csv"
]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)
WORKLOAD_TYPES: tuple[WorkloadType, ...] = get_args(WorkloadType)

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
    """A load generated here in one of IPA's four shapes."""

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
        description="The file, relative to this YAML's folder, else to the working folder."
    )
    damping_factor: Damping = None


WorkloadConfig = StaticWorkload | Sequence[TwitterWindow] | ShapeWorkload | CsvWorkload | None

MODELS: dict[WorkloadType, type[StrictModel]] = {
    "static": StaticWorkload,
    "twitter": TwitterWindow,
    **dict.fromkeys(SHAPES, ShapeWorkload),
    "csv": CsvWorkload,
}
"""What a ``workload_config`` (for twitter: each window of it) is, by ``workload_type``."""

_STATIC: TypeAdapter[StaticWorkload] = TypeAdapter(StaticWorkload)
_TWITTER: TypeAdapter[tuple[TwitterWindow, ...]] = TypeAdapter(Sequence[TwitterWindow])
_SHAPE: TypeAdapter[ShapeWorkload] = TypeAdapter(ShapeWorkload)
_CSV: TypeAdapter[CsvWorkload] = TypeAdapter(CsvWorkload)


def parse_workload(workload_type: WorkloadType, value: object) -> object:
    """``value`` as the workload of its type; null stays null.

    Raises:
        pydantic.ValidationError: it has not that type's shape.
    """
    if value is None:
        return None
    if workload_type == "static":
        return _STATIC.validate_python(value)
    if workload_type == "twitter":
        return _TWITTER.validate_python(value)
    if workload_type == "csv":
        return _CSV.validate_python(value)
    return _SHAPE.validate_python(value)
