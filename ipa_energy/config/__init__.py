"""The pipeline YAML: read strictly, validated once, typed from then on.

::

    file ── source ──> data + lines ── schema ──> PipelineConfig ── .stages
                                  └─────────── loading ───> ConfigError with file:line
"""

from __future__ import annotations

from ipa_energy.config.loading import dump_config, json_schema, load_config, schema_text
from ipa_energy.config.schema import PipelineConfig
from ipa_energy.config.sections import (
    SHAPES,
    CsvWorkload,
    NodeConfig,
    ShapeWorkload,
    StageConfig,
    StaticWorkload,
    TwitterWindow,
)

__all__ = [
    "SHAPES",
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
    "schema_text",
]
