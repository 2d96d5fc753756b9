"""Load traces: how many requests arrive in each second of a run, and where the numbers come from.

Four sources behind one record, :class:`Workload`: a constant load, our own seeded generators with
the statistics of IPA's four windows (:mod:`.shapes`), CSV files and IPA's own trace in
a checkout (:mod:`.trace_files`). :func:`workload_from` picks by the pipeline YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from ipa_energy.config import CsvWorkload, PipelineConfig, ShapeWorkload, StaticWorkload
from ipa_energy.errors import ConfigError
from ipa_energy.registries import WORKLOADS, named
from ipa_energy.workloads.shapes import DEFAULT_DURATION_S, SHAPES, named_workload
from ipa_energy.workloads.trace import Workload, damped, static_workload
from ipa_energy.workloads.trace_files import csv_workload, twitter_workload

__all__ = [
    "SHAPES",
    "Workload",
    "csv_workload",
    "damped",
    "named_workload",
    "static_workload",
    "twitter_workload",
    "workload_from",
]

Asked = TypeVar("Asked")


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
    make = named(WORKLOADS, config.workload_type, kind="workload", where="workload_type")
    workload: Workload = make(config, ipa_home)
    return workload


def static_of(config: PipelineConfig, _: Path | None) -> Workload:
    """``workload_type: static``."""
    asked = _of_type(config, StaticWorkload)
    return static_workload(asked.loads_to_test, asked.load_duration)


def csv_of(config: PipelineConfig, _: Path | None) -> Workload:
    """``workload_type: csv``."""
    asked = _of_type(config, CsvWorkload)
    return csv_workload(asked.path, asked.damping_factor)


def twitter_of(config: PipelineConfig, ipa_home: Path | None) -> Workload:
    """``workload_type: twitter``."""
    return twitter_workload(ipa_home, _of_type(config, tuple))


def shape_of(config: PipelineConfig, _: Path | None) -> Workload:
    """``workload_type``: one of :data:`.shapes.SHAPES`."""
    asked = config.workload_config
    shape = asked if isinstance(asked, ShapeWorkload) else ShapeWorkload()
    return named_workload(
        config.workload_type,
        seed=config.seed if shape.seed is None else shape.seed,
        duration_s=DEFAULT_DURATION_S if shape.duration_s is None else shape.duration_s,
    )


def _of_type(config: PipelineConfig, kind: type[Asked]) -> Asked:
    """What ``workload_config`` holds; its shape was checked when the config was loaded."""
    asked = config.workload_config
    if not isinstance(asked, kind):
        raise ConfigError(
            f"workload_type {config.workload_type} has no such workload_config",
            where="workload_config",
        )
    return asked
