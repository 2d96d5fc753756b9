"""Keys of IPA's YAMLs that nothing here uses, accepted by name and type.

IPA's files must load unchanged, and a typo in a key must still be caught: so every key that IPA
knows is listed, and none is let through by wildcard.
"""

from __future__ import annotations

from pydantic import Field

from ipa_energy.config.fields import (
    NonNegative,
    PositiveInteger,
    QuotedBoolean,
    QuotedPositiveInteger,
    Sequence,
    StrictModel,
    Text,
)


class UnusedNodeKeys(StrictModel):
    """Keys of a node that only IPA's Kubernetes templates read."""

    data_type: Text | None = Field(default=None, description="IPA: kind of input. Not used here.")
    memory_request: Text | None = Field(
        default=None, description="IPA: memory of one replica, e.g. 4Gi. Not used here."
    )
    use_threading: QuotedBoolean | None = Field(
        default=None, description="IPA: set the thread numbers in the container. Not used here."
    )
    num_interop_threads: QuotedPositiveInteger | None = Field(
        default=None, description="IPA: torch inter-op threads. Not used here."
    )
    num_threads: QuotedPositiveInteger | None = Field(
        default=None, description="IPA: torch intra-op threads. Not used here."
    )


class UnusedKeys(StrictModel):
    """Keys of a pipeline that only IPA's own runners read."""

    pipeline_folder_name: Text | None = Field(
        default=None, description="IPA: folder of the pipeline's sources. Not used here."
    )
    timeout: NonNegative | None = Field(
        default=None, description="IPA: seconds to wait for a deployment. Not used here."
    )
    benchmark_duration: NonNegative | None = Field(
        default=None, description="IPA: repetitions of the benchmark. Not used here."
    )
    metaseries: int | None = Field(default=None, description="IPA: results folder. Not used here.")
    series: int | None = Field(default=None, description="IPA: results folder. Not used here.")
    metadata: str | None = Field(default=None, description="IPA: a note to the run. Not used here.")
    series_meta: str | None = Field(
        default=None, description="IPA: a note to the series. Not used here."
    )
    profiling_series: Sequence[int] | None = Field(
        default=None,
        description="IPA: folder of each stage's profiling results. Not used here: a profile CSV"
        " is used whole.",
    )
    profiling_load: NonNegative | Sequence[NonNegative] | None = Field(
        default=None,
        description="IPA: load in rps of the profiling rows to read. Not used here: a profile CSV"
        " is used whole.",
    )
    num_state_limit: PositiveInteger | None = Field(
        default=None, description="IPA: most states to enumerate. Not used here: solvers are exact."
    )
    lowest_model_accuracy: float | None = Field(
        default=None, description="IPA: read by nothing in it either. Not used here."
    )
    central_queue: bool | None = Field(
        default=None, description="IPA: queue in front of each stage. Not used here: always so."
    )
    distrpution_time: NonNegative | None = Field(
        default=None, description="IPA: seconds of its container disruption (sic). Not used here."
    )
    debug_mode: bool | None = Field(
        default=None, description="IPA: full container logs. Not used here."
    )
    simulation_mode: bool | None = Field(
        default=None, description="IPA: which of its runners may load the file. Not used here."
    )
    warm_up: bool | None = Field(
        default=None, description="IPA: 10 s of load before the run. Not used here."
    )
    teleport_mode: bool | None = Field(
        default=None, description="IPA: skip ahead in the trace for the predictor. Not used here."
    )
    teleport_interval: NonNegative | None = Field(
        default=None, description="IPA: seconds to skip in teleport mode. Not used here."
    )
    logs_enabled: bool | None = Field(
        default=None, description="IPA: logging in the containers. Not used here."
    )
    from_storage: Sequence[bool] | None = Field(
        default=None, description="IPA: read the models from storage, per stage. Not used here."
    )
    arrival_rate: NonNegative | None = Field(
        default=None, description="IPA: load in rps of its static search. Not used here: --load."
    )
    complete_profile: bool | None = Field(
        default=None, description="IPA: log every column of its static search. Not used here."
    )
    random_sample: bool | None = Field(
        default=None, description="IPA: sample the static search. Not used here."
    )
    generate: Sequence[Text] | None = Field(
        default=None, description="IPA: which states its static search writes. Not used here."
    )
