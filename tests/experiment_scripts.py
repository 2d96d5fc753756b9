"""The programs of experiments/ as modules, for the tests of what they are made of."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def script(name: str) -> ModuleType:
    """A program, e.g. ``clover/clover``, importing what lies beside it as when it is run."""
    path = EXPERIMENTS / name
    sys.path.insert(0, str(path.parent))
    try:
        return importlib.import_module(path.name)
    finally:
        sys.path.remove(str(path.parent))
