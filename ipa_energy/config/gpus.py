"""The key ``gpus`` of a pipeline YAML: GPUs that all stages share, cut into slices as it suits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ipa_energy.config.fields import (
    Name,
    OneOf,
    PositiveInteger,
    Sequence,
    StrictModel,
    optional,
)
from ipa_energy.gpu_partitions import KINDS, GpuPool, Partition, partitions_of


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
