"""The calibrated power model of this machine, kept between runs.

A file per kind of processor and number of cores, so that a home directory shared by several
machines holds one for each. Beside the model lies what it was fitted to (``*.calibration.json``).
"""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file
from ipa_energy.meters.calibration import Calibration
from ipa_energy.meters.cpu_time import PowerModel, stated_prior

CPUINFO = Path("/proc/cpuinfo")


def machine_key(cpuinfo: Path = CPUINFO) -> str:
    """The machine's kind as part of a file name: ``amd-epyc-25-17-1-2cpu``."""
    facts: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            break  # the first processor; the others are like it
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    parts = [facts.get(name, "") for name in ("model name", "cpu family", "model", "stepping")]
    kind = " ".join(part for part in parts if part) or platform.machine()
    slug = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    return f"{slug}-{os.cpu_count() or 1}cpu"


def stored_model_path() -> Path:
    """Where this machine's model is, or would be (``$XDG_DATA_HOME``, else ``~/.local/share``)."""
    configured = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    base = Path(configured) if configured.startswith("/") else Path.home() / ".local" / "share"
    return base / "ipa-energy" / f"power-model-{machine_key()}.json"


def store_calibration(calibration: Calibration, path: Path) -> Path:
    """Write the model to ``path`` and what it rests on beside it; returns the latter's path.

    Raises:
        ConfigError: the files cannot be written.
    """
    evidence = path.with_suffix(".calibration.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(evidence, calibration.to_json())
        _replace(path, calibration.model.to_json())
    except OSError as error:
        raise ConfigError(f"cannot write the power model: {error}", where=path) from error
    return evidence


def power_model_for_this_machine() -> PowerModel:
    """The stored calibration of this machine, or the stated prior where there is none.

    Raises:
        ConfigError: there is one, and it cannot be used.
    """
    cores, path = os.cpu_count() or 1, stored_model_path()
    if not path.exists():
        return stated_prior(cores)
    model = power_model_in(path)
    if model.cores != cores:
        raise ConfigError(
            f"the power model is for {model.cores} cores, and this machine has {cores}",
            where=path,
            fix="delete it, or calibrate again (ipa-energy calibrate)",
        )
    return model


def power_model_in(path: Path) -> PowerModel:
    """The model in a file, for a use on this machine.

    Raises:
        ConfigError: it cannot be read, or was calibrated on another kind of machine.
    """
    model = PowerModel.load(path)
    if model.machine is not None and model.machine != machine_key():
        raise ConfigError(
            f"the power model was calibrated on another machine ({model.machine}; this is "
            f"{machine_key()})",
            where=path,
            fix="calibrate here (ipa-energy calibrate), or leave --power-model out",
        )
    return model


def _replace(path: Path, data: dict[str, Any]) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(data, indent=2, allow_nan=False) + "\n")
