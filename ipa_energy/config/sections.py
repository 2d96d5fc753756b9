"""Smaller keys of a pipeline YAML that hold keys: GPUs, times of changes, classes of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ipa_energy.config.fields import (
    Name,
    NonNegative,
    OneOf,
    Positive,
    PositiveInteger,
    Sequence,
    StrictModel,
    optional,
)
from ipa_energy.gpu_partitions import KINDS, GpuPool, Partition, partitions_of
from ipa_energy.records import RequestClass

SHARES_ROOM = 1e-6
"""How far the shares' sum may be from 1."""


class GpusConfig(StrictModel):
    """GPUs of one kind; their name is the ``hardware`` of the profile's rows that run on them."""

    count: PositiveInteger = Field(description="How many GPUs.")
    kind: Annotated[str, OneOf(lambda: KINDS)] | None = optional(
        None,
        "How they can be cut, by NVIDIA's list of MIG slices; null: as the kind of that name,"
        " unless partitions says it. Replicas hold mig-SLICE (mig-1g.10gb) or a whole gpu.",
    )
    partitions: Sequence[dict[Name, PositiveInteger]] | None = optional(
        None,
        "Ways to cut a GPU, where kind does not say: each a mapping from the resource that a"
        " replica holds to how many a GPU then has, e.g. [{gpu: 1}, {mig-1g.10gb: 7}].",
    )

    @model_validator(mode="after")
    def _one_list(self) -> GpusConfig:
        if self.kind is not None and self.partitions is not None:
            raise PydanticCustomError("gpus", "kind and partitions exclude each other")
        return self

    def pool(self, name: str) -> GpuPool:
        """The pool of that name."""
        if self.partitions is None:
            return GpuPool(name, self.count, partitions_of(self.kind or name))
        return GpuPool(name, self.count, tuple(Partition.of(each) for each in self.partitions))


class ReconfigurationConfig(StrictModel):
    """Seconds that each kind of change takes; what is not named takes what the profile measured."""

    replicas: NonNegative | None = optional(None, "Until one more replica of what runs serves.")
    variant: NonNegative | None = optional(
        None, "Until a replica of another variant, precision or hardware serves."
    )
    cores: NonNegative | None = optional(
        None, "To change the cores of running replicas in place; null: others are started instead."
    )
    clock: NonNegative | None = optional(
        None,
        "To change clock_mhz or power_cap_w in place; null: others are started instead.",
    )
    partition: NonNegative | None = optional(
        None, "To cut a GPU into other slices, before a replica starts on one; null: none."
    )

    def told(self) -> dict[str, float]:
        """Knob → seconds, of those that are named."""
        named = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: float(seconds) for name, seconds in named if seconds is not None}


Reconfiguration = NonNegative | ReconfigurationConfig


class RequestClassConfig(StrictModel):
    """One class, where more than its share is to be said."""

    share: NonNegative = Field(description="Of all requests, 0 to 1; all shares add up to 1.")
    latency_sla_s: Positive | None = optional(
        None, "Hard cap on the seconds of its requests; null: that of the pipeline."
    )


ClassesConfig = Mapping[str, float | RequestClassConfig]


def classes_of(said: ClassesConfig | None) -> tuple[RequestClass, ...]:
    """The classes, in the order of the YAML; none where it names none."""
    return tuple(_class_of(name, each) for name, each in (said or {}).items())


def _class_of(name: str, said: float | RequestClassConfig) -> RequestClass:
    if isinstance(said, RequestClassConfig):
        return RequestClass(name, said.share, said.latency_sla_s)
    return RequestClass(name, said)


def wrong_shares(classes: Iterable[RequestClass]) -> str | None:
    """What is wrong with the shares; None if they add up to 1, or if there are no classes."""
    shares = [each.share for each in classes]
    if not shares or abs(sum(shares) - 1) <= SHARES_ROOM:
        return None
    return f"the shares of request_classes add up to {sum(shares):g}"
