"""Energy for Inference Pipeline Adaptation (IPA): profile, optimise, run, compare.

::

    import ipa_energy as ie

    best = ie.plan("video", load_rps=10, energy_weight=2).plans[0]
    print(best.label, best.joules_per_request)

A name is imported when it is first used, so that ``import ipa_energy`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipa_energy.api import compare, load_pipeline, plan, profile, run, study
    from ipa_energy.errors import ConfigError, InfeasibleError, IpaEnergyError, UnavailableError
    from ipa_energy.measuring.block import measure_block as measure
    from ipa_energy.optimizer.plan import Plan
    from ipa_energy.records import Allocation, Option, Stage
    from ipa_energy.runlog.reader import read_run

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "ConfigError",
    "InfeasibleError",
    "IpaEnergyError",
    "Option",
    "Plan",
    "Stage",
    "UnavailableError",
    "__version__",
    "compare",
    "load_pipeline",
    "measure",
    "plan",
    "profile",
    "read_run",
    "run",
    "study",
]

_PLACES = {
    "api": ("compare", "load_pipeline", "plan", "profile", "run", "study"),
    "errors": ("ConfigError", "InfeasibleError", "IpaEnergyError", "UnavailableError"),
    "measuring.block": ("measure",),
    "optimizer.plan": ("Plan",),
    "records": ("Allocation", "Option", "Stage"),
    "runlog.reader": ("read_run",),
}
_TARGETS = {name: f"{__name__}.{place}" for place, names in _PLACES.items() for name in names}
_NAME_THERE = {"measure": "measure_block"}


def __getattr__(name: str) -> Any:
    if name not in _TARGETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_TARGETS[name]), _NAME_THERE.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
