"""Watts of a machine as an affine function of its CPU utilisation, stated or calibrated.

What was calibrated is kept between runs, in a file for each kind of processor and number of
cores, so that a home directory shared by several machines holds one for each. Beside the model lies
what it was fitted to (``*.calibration.json``).
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, in_words

UNCALIBRATED_RELATIVE_ERROR = 0.5
"""What a model that was never held against a counter is good to, as a ratio."""

_TYPES: dict[str, type | tuple[type, ...]] = {"cores": int, "source": str, "machine": str}

PRIOR_MAX_W_PER_CPU = 3.0
PRIOR_IDLE_RATIO = 0.23
PRIOR_SOURCE = (
    "Generic prior, not calibrated: 3 W a logical CPU at full load (thermal design power by "
    "hardware thread: EPYC 9654 360 W / 192, Xeon Gold 6240R 165 W / 48, EPYC 7763 280 W / 128), "
    "idle 0.23 of that (geometric mean of 0.13 and 0.40, SPECpower_ssj2008). Processor package "
    "only: no memory, fans or power supply."
)
"""Where :func:`stated_prior` comes from; the three processors lie at 1.9, 3.4 and 2.2 W."""


@dataclass(frozen=True, slots=True)
class PowerModel:
    """Watts of a machine as an affine function of its CPU utilisation.

    Attributes:
        idle_w: watts of the whole machine when idle.
        max_w: watts of the whole machine with every core busy.
        cores: cores that share these watts.
        source: where the two figures come from, in words; it ends in every profile's meta file.
        relative_error: half width of the model's uncertainty as a ratio (0.5 is ±50 %).
        machine: kind of machine it was calibrated on (:func:`machine_key`); None for
            a model that was not.
    """

    idle_w: float
    max_w: float
    cores: int
    source: str
    relative_error: float = UNCALIBRATED_RELATIVE_ERROR
    machine: str | None = None

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise ConfigError(f"power model has cores {self.cores}", allowed="1 or more")
        if not (0 <= self.idle_w < self.max_w and math.isfinite(self.max_w)):
            raise ConfigError(
                f"power model has idle_w {self.idle_w} W and max_w {self.max_w} W",
                allowed="0 <= idle_w < max_w, both finite",
            )
        if not self.relative_error >= 0:
            raise ConfigError(
                f"power model has relative_error {self.relative_error}", allowed="0 or more"
            )
        if not self.source.strip():
            raise ConfigError("power model names no source", fix="say where its watts come from")

    @property
    def dynamic_w_per_core(self) -> float:
        """Watts above idle of one busy core; also joules above idle per CPU second."""
        return (self.max_w - self.idle_w) / self.cores

    @property
    def idle_w_per_core(self) -> float:
        """Idle watts that one reserved core stands for."""
        return self.idle_w / self.cores

    def to_json(self) -> dict[str, Any]:
        """The model as :meth:`from_json` reads it; without ``machine`` if that is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: object, *, where: str | Path | None = None) -> PowerModel:
        """The model of a JSON object with exactly this record's fields.

        Raises:
            ConfigError: a key is missing, unknown or mistyped, or a value is impossible.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(data, dict):
            raise ConfigError("a power model must be a JSON object", where=where)
        unknown = sorted(set(data) - set(names))
        missing = [name for name in names[:4] if name not in data]
        if unknown or missing:
            raise ConfigError(
                f"power model has unknown keys {unknown} and lacks {missing}",
                where=where,
                allowed=", ".join(names),
            )
        for name, value in data.items():
            expected = _TYPES.get(name, (int, float))
            if isinstance(value, bool) or not isinstance(value, expected):
                raise ConfigError(f"power model has {name} {value!r}", where=where)
        return cls(**data)

    @classmethod
    def load(cls, path: Path) -> PowerModel:
        """The model in a JSON file.

        Raises:
            ConfigError: the file cannot be read, is not JSON, or is no power model.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot read a power model: {in_words(error)}", where=path
            ) from error
        return cls.from_json(data, where=path)


def stated_prior(cores: int) -> PowerModel:
    """A model for a machine of which nothing but its number of logical CPUs is known."""
    max_w = cores * PRIOR_MAX_W_PER_CPU
    return PowerModel(PRIOR_IDLE_RATIO * max_w, max_w, cores, PRIOR_SOURCE)


CPUINFO = Path("/proc/cpuinfo")


def first_cpu(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """What the kernel says of the first processor; the others are like it."""
    facts: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            break
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    return facts


def machine_key(cpuinfo: Path = CPUINFO) -> str:
    """The machine's kind as part of a file name: ``amd-epyc-25-17-1-2cpu``."""
    facts = first_cpu(cpuinfo)
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


def power_model_beside(meta: Path | None) -> PowerModel:
    """The model for what is held against a profile's joules, so that both are in the same watts.

    A calibration of this machine goes first; then the model that the profile was estimated with, if
    it is of as many cores as this machine has; then the stated prior.

    Args:
        meta: meta file of the profile; None without one.

    Raises:
        ConfigError: this machine's calibration cannot be used.
    """
    if meta is not None and meta.exists() and not stored_model_path().exists():
        with suppress(ConfigError, OSError, ValueError, KeyError, TypeError):
            told = json.loads(meta.read_text(encoding="utf-8"))["meter"]["power_model"]
            model = PowerModel.from_json(told, where=meta)
            if model.cores == (os.cpu_count() or 1) and model.machine in (None, machine_key()):
                return model
    return power_model_for_this_machine()


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
