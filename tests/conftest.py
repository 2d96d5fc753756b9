"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline


@pytest.fixture
def small_pipeline(tmp_path: Path) -> Path:
    """Path of a pipeline YAML with its profile beside it."""
    folder = tmp_path / "small"
    folder.mkdir()
    return write_small_pipeline(folder)
