"""Skips what needs a library that is not there, without the seconds that importing it takes."""

from __future__ import annotations

import importlib.util

import pytest


def require_installed(*names: str) -> None:
    """Skip the test, or the file, unless all of these could be imported."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)
