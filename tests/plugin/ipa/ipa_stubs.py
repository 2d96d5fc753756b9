"""What IPA imports and a test machine cannot have: stand-ins that answer, and nothing more.

IPA loads tensorflow, LSTM weights, a Kubernetes configuration and its load tester at import,
whatever it is asked to do. None of the decisions under test depends on them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np

from ipa_energy.config import TwitterWindow
from ipa_energy.workloads.trace_files import twitter_workload

IPA_PROJECT_PATH = "/home/cc/ipa"
"""Hard-coded in IPA; every path derived from it is moved to the checkout at hand."""


class ApiException(Exception):  # noqa: N818 (the client's name for it)
    """Of the Kubernetes client."""


class LargestOfWindow:
    """In place of LSTM weights: predicts the largest load of its window."""

    def predict(self, window: Any) -> Any:
        """(1, 1) prediction from a (1, 12, 1) window."""
        return np.array([[float(np.max(window))]])


def install(home: Path) -> None:
    """Make IPA's modules importable from the checkout at ``home``."""
    sys.path.insert(0, str(home))
    _module("kubernetes", config=MagicMock(), client=MagicMock())
    _module("kubernetes.client", **{"api": MagicMock(), "Configuration": MagicMock()})
    _module("kubernetes.client.exceptions", ApiException=ApiException)
    sys.modules["kubernetes"].client = sys.modules["kubernetes.client"]  # type: ignore[attr-defined]
    sys.modules["kubernetes.client"].CustomObjectsApi = MagicMock()  # type: ignore[attr-defined]
    _module("tensorflow", convert_to_tensor=lambda x, **_: np.asarray(x), float32="float32")
    _module("tensorflow.keras")
    _module("tensorflow.keras.models", load_model=lambda _path: LargestOfWindow())
    _module("barazmoon", Data=MagicMock(), MLServerAsyncGrpc=MagicMock())
    _module(
        "barazmoon.twitter",
        twitter_workload_generator=lambda days, damping_factor=None: _window(
            home, days, damping_factor
        ),
    )
    for name in ("datasets", "requests", "tabulate", "PIL", "jinja2", "tqdm"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = MagicMock()
    constants = importlib.import_module("experiments.utils.constants")
    for name, value in list(vars(constants).items()):
        if isinstance(value, str) and value.startswith(IPA_PROJECT_PATH):
            setattr(constants, name, str(home) + value[len(IPA_PROJECT_PATH) :])


def _module(name: str, **names: Any) -> None:
    module = ModuleType(name)
    vars(module).update(names)
    sys.modules[name] = module


def _window(home: Path, days: str, damping_factor: int | None) -> list[int]:
    start, end = (int(part) for part in days.split("-"))
    window = TwitterWindow(start=start, end=end, damping_factor=damping_factor)
    return [int(count) for count in twitter_workload(home, [window]).counts]
