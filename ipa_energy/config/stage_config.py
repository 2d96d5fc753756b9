"""One stage: its server in the YAML, and everything that the YAML says of it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from ipa_energy.config.fields import (
    Name,
    QuotedBoolean,
    QuotedNonNegative,
    QuotedPositive,
    QuotedPositiveInteger,
    StrictModel,
    Text,
    optional,
    unused,
)

DEFAULT_BATCH_TIMEOUT_S = 1.0
"""IPA's ``max_batch_time: '1'``, the same in all of its files."""


class UnusedNodeKeys(StrictModel):
    """Keys of a node that only IPA's Kubernetes templates read."""

    data_type: Text | None = unused("kind of input")
    memory_request: Text | None = unused("memory of one replica, e.g. 4Gi")
    use_threading: QuotedBoolean | None = unused("set the thread numbers in the container")
    num_interop_threads: QuotedPositiveInteger | None = unused("torch inter-op threads")
    num_threads: QuotedPositiveInteger | None = unused("torch intra-op threads")


class NodeConfig(UnusedNodeKeys):
    """One server of the pipeline."""

    node_name: Name = Field(description="Name of the server; IPA's logs are keyed by it.")
    model_variants: Text | None = optional(
        None, "Variant at the start, if initial_active_model does not say."
    )
    max_batch_size: QuotedPositiveInteger | None = optional(
        None, "Batch at the start, if initial_batch does not say."
    )
    max_batch_time: QuotedNonNegative | None = optional(
        None, "Longest wait for a batch to fill, seconds; null: 1 s, as in IPA's files."
    )
    cpu_request: QuotedPositive | None = optional(
        None, "Cores of a replica at the start, if initial_cpu_allocation is absent."
    )
    replicas: QuotedPositiveInteger | None = optional(
        None, "Replicas at the start, if initial_replica does not say."
    )


@dataclass(frozen=True, slots=True)
class StageConfig:
    """What the YAML says of one stage.

    Attributes:
        name: task name, e.g. ``crop``; the profile's ``stage``.
        node_name: name of its server, e.g. ``yolo``.
        model_name: name of its model family in IPA's profiling.
        initial_variant: what runs before the first decision; None: the YAML does not say.
        initial_cpu_cores: cores of one replica then; None: the YAML does not say.
        initial_replicas: replicas then.
        initial_batch: batch size then; None: the YAML does not say.
        batch_timeout_s: longest wait for a batch to fill.
        requests_per_input: requests this stage sees for one request of the pipeline.
    """

    name: str
    node_name: str
    model_name: str
    initial_variant: str | None
    initial_cpu_cores: float | None
    initial_replicas: int
    initial_batch: int | None
    batch_timeout_s: float
    requests_per_input: float
