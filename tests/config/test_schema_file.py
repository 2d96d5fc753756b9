"""The JSON schema for editors: current, and true to the loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ipa_energy.config import PipelineConfig, json_schema, schema_text

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
SHARED = ROOT.parent / "shared" / "data" / "ipa-configs"


def test_committed_schema_is_current() -> None:
    committed = (CONFIGS / "pipeline.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "run make schema"


def test_every_key_is_described() -> None:
    bare = [
        f"{name}.{key}"
        for name, model in [("", json_schema()), *json_schema()["$defs"].items()]
        for key, schema in model["properties"].items()
        if not schema.get("description")
    ]
    assert bare == []


def test_only_these_keys_are_required() -> None:
    assert set(json_schema()["required"]) == {"pipeline_name", "alpha", "beta"}
    assert set(json_schema()["properties"]) == set(PipelineConfig.model_fields)


def test_shipped_and_ipa_files_are_valid_under_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    paths = sorted(CONFIGS.glob("*.yaml")) + sorted(SHARED.glob("final-*.yaml"))
    if not paths:
        pytest.skip("no YAML to check: configs/ ships none and IPA's are not beside the checkout")
    for path in paths:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        errors = jsonschema.Draft202012Validator(json_schema()).iter_errors(document)
        assert [error.message for error in errors] == []
