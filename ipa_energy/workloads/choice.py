"""The workload a pipeline YAML asks for."""

from __future__ import annotations

from pathlib import Path

from ipa_energy.config import (
    CsvWorkload,
    PipelineConfig,
    ShapeWorkload,
    StaticWorkload,
)
from ipa_energy.workloads.csv_file import csv_workload
from ipa_energy.workloads.shapes import DEFAULT_DURATION_S, named_workload
from ipa_energy.workloads.trace import Workload, static_workload
from ipa_energy.workloads.twitter import twitter_workload


def workload_from(config: PipelineConfig, ipa_home: Path | None = None) -> Workload:
    """The workload of ``workload_type`` and ``workload_config``.

    ``--workload NAME|FILE`` is laid over these two keys when the config is loaded, the file's
    damping factor being that of the YAML's own workload.

    Args:
        config: of the pipeline, validated.
        ipa_home: root of a checkout of IPA, for ``workload_type: twitter``; None if there is none.

    Raises:
        ConfigError: the trace cannot be made or read as asked; the message has file and line.
        UnavailableError: IPA's trace is asked for and there is no checkout.
    """
    wanted = config.workload_config
    if isinstance(wanted, StaticWorkload):
        return static_workload(wanted.loads_to_test, wanted.load_duration)
    if isinstance(wanted, CsvWorkload):
        return csv_workload(wanted.path, wanted.damping_factor)
    if isinstance(wanted, ShapeWorkload) or wanted is None:
        shape = wanted or ShapeWorkload()
        return named_workload(
            config.workload_type,
            seed=config.seed if shape.seed is None else shape.seed,
            duration_s=DEFAULT_DURATION_S if shape.duration_s is None else shape.duration_s,
        )
    return twitter_workload(ipa_home, wanted)
