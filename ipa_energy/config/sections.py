"""Keys of a pipeline YAML that hold keys: servers, GPUs, changes, classes, workload, cluster.

Of ``workload_config`` ``static`` and ``twitter`` are IPA's, key for key; the shapes and ``csv`` are
ours. The type of a workload that is registered from outside takes any mapping, which its maker has
to check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from ipa_energy.config.fields import (
    FilePath,
    HttpUrl,
    Name,
    NaturalInteger,
    NonNegative,
    OneOf,
    Positive,
    PositiveInteger,
    QuotedBoolean,
    QuotedNaturalInteger,
    QuotedNonNegative,
    QuotedPositive,
    QuotedPositiveInteger,
    Sequence,
    StrictModel,
    Text,
    optional,
    unused,
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
    return tuple(
        RequestClass(name, each.share, each.latency_sla_s)
        if isinstance(each, RequestClassConfig)
        else RequestClass(name, each)
        for name, each in (said or {}).items()
    )


def wrong_shares(classes: Iterable[RequestClass]) -> str | None:
    """What is wrong with the shares; None if they add up to 1, or if there are no classes."""
    shares = [each.share for each in classes]
    if not shares or abs(sum(shares) - 1) <= SHARES_ROOM:
        return None
    return f"the shares of request_classes add up to {sum(shares):g}"


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


Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$",
        json_schema_extra={"x-allowed": "an amount as Kubernetes writes it: 512Mi, 2Gi"},
    ),
]
Namespace = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length=63,
        json_schema_extra={"x-allowed": "a name of lower-case letters, digits and -"},
    ),
]
Labels = dict[Text, Text]


class KubernetesConfig(StrictModel):
    """What ``--backend kubernetes`` makes of a pipeline."""

    namespace: Namespace | None = optional(
        None, "Where everything is made; null: the kubeconfig's, or the pod's own."
    )
    rendering: Literal["deployments", "seldon"] = optional(
        "deployments",
        "Deployments, or IPA's SeldonDeployments, which need Seldon Core v1 in the cluster.",
    )
    server_image: Text = optional(
        "ipa-energy-server:latest", "Image of the model servers (configs/kubernetes/images)."
    )
    router_image: Text = optional("ipa-energy-router:latest", "Image of the router.")
    pull_secret: Name | None = optional(None, "Secret of the registry; null: none is needed.")
    server_memory: Quantity = optional("2Gi", "Memory that one replica holds.")
    router_cores: Positive = optional(
        1, "Cores that the router holds, its load generator included."
    )
    router_memory: Quantity = optional("1Gi", "Memory that the router holds.")
    node_selector: Labels = optional({}, "Labels of the nodes that anything may run on.")
    hardware_nodes: dict[Text, Labels] = optional(
        {}, "Hardware of the profile: labels of the nodes that have it."
    )
    resources: dict[Text, Text] = optional(
        {},
        "Resource of the profile: its name in the cluster. gpu is nvidia.com/gpu and mig-1g.10gb"
        " is nvidia.com/mig-1g.10gb unless this says otherwise.",
    )
    prometheus_url: HttpUrl | None = optional(
        None,
        "Prometheus that scrapes Kepler and DCGM, as seen by whoever decides; null: joules are"
        " estimated from how long replicas were busy.",
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
