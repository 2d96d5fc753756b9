"""The pipeline YAML: read strictly, validated once, typed from then on.

::

    file ── yaml_source ──> data + lines ── schema, checks ──> PipelineConfig ── .stages
                                  └─────────── messages ──> ConfigError with file:line
"""

from __future__ import annotations

from ipa_energy.config.loading import dump_config, load_config
from ipa_energy.config.messages import json_schema
from ipa_energy.config.schema import NodeConfig, PipelineConfig, StageConfig
from ipa_energy.config.workload_config import (
    SHAPES,
    WORKLOAD_TYPES,
    CsvWorkload,
    ShapeWorkload,
    StaticWorkload,
    TwitterWindow,
)

__all__ = [
    "SHAPES",
    "WORKLOAD_TYPES",
    "CsvWorkload",
    "NodeConfig",
    "PipelineConfig",
    "ShapeWorkload",
    "StageConfig",
    "StaticWorkload",
    "TwitterWindow",
    "dump_config",
    "json_schema",
    "load_config",
]
