"""Joules where no counter can be read: CPU time times an affine power model.

The model is ``P = P_idle + (P_max − P_idle)·utilisation``. A process tree that used *c* CPU seconds
in a window of *d* seconds, on *r* reserved cores of a machine with *k* cores, is charged ::

    dynamic   c · (P_max − P_idle) / k          joules above idle
    idle      d · P_idle · r / k                its share of the idle machine

so that one replica can be told from the rest of the machine. This is an estimate: published models
of this kind err by 9 to 46 % on average. The figures are always labelled ``estimated``, and
without a calibration against a real counter the model carries ±50 %.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.base import Energy, Reading
from ipa_energy.records import Quality

UNCALIBRATED_RELATIVE_ERROR = 0.5
"""What a model that was never held against a counter is good to, as a ratio."""

MIN_WINDOW_S = 0.1
"""The scheduler's clock has nanosecond steps; what remains is the microseconds a read takes."""

CLOCK_TICK_S = 0.01
"""Step of the CPU time of *reaped* children, the only part the kernel counts in ticks."""

COUNTER = "cpu_s"

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
        machine: kind of machine it was calibrated on (:func:`.stored_model.machine_key`); None for
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
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot read a power model: {reason}", where=path) from error
        return cls.from_json(data, where=path)


def stated_prior(cores: int) -> PowerModel:
    """A model for a machine of which nothing but its number of logical CPUs is known."""
    max_w = cores * PRIOR_MAX_W_PER_CPU
    return PowerModel(PRIOR_IDLE_RATIO * max_w, max_w, cores, PRIOR_SOURCE)


class CpuTimeMeter:
    """Estimated joules of one process and its descendants (Linux).

    A :class:`~ipa_energy.meters.base.Meter`. Processes that are alive are read from the scheduler's
    per-process clock (nanoseconds); descendants that ended and were waited for are added by the
    kernel in steps of a clock tick.

    Args:
        model: the machine's power model.
        pid: root of the process tree to charge.
        reserved_cores: cores reserved for the tree: its share of the machine's idle power.

    Raises:
        ConfigError: ``reserved_cores`` is not within the model's cores.
    """

    name = "cpu-time"
    quality: Quality = "estimated"
    min_window_s = MIN_WINDOW_S

    def __init__(self, model: PowerModel, *, pid: int, reserved_cores: float) -> None:
        if not 0 < reserved_cores <= model.cores:
            raise ConfigError(
                f"{reserved_cores:g} reserved cores do not fit the power model",
                allowed=f"more than 0, at most {model.cores}",
            )
        self.model = model
        self.pid = pid
        self.reserved_cores = reserved_cores

    def read(self) -> Reading:
        """CPU seconds of the tree so far, as counter ``cpu_s``.

        Raises:
            MeterUnavailableError: the root process is gone, or /proc cannot be read.
        """
        try:
            total_s = process_tree_cpu_s(self.pid)
        except (OSError, IndexError, ValueError) as error:
            raise MeterUnavailableError(
                f"cpu-time cannot read process {self.pid}: {error}; it has ended, or /proc hides it"
            ) from error
        return Reading(time.perf_counter(), {COUNTER: total_s})

    def energy_between(self, start: Reading, end: Reading) -> Energy:
        """Joules of the window: ``cpu-dynamic`` plus the reserved share of ``cpu-idle``.

        Raises:
            MeterUnavailableError: the window has no length, or the CPU time fell in it because a
                descendant ended and nobody waited for it.
        """
        fall_s = start.counters[COUNTER] - end.counters[COUNTER]
        if fall_s > CLOCK_TICK_S:
            raise MeterUnavailableError(
                f"cpu-time: the CPU time of process {self.pid} fell by {fall_s:g} s; "
                "a descendant ended without being waited for"
            )
        return modelled_energy(self.model, start, end, reserved_cores=self.reserved_cores)


def modelled_energy(
    model: PowerModel, start: Reading, end: Reading, *, reserved_cores: float
) -> Energy:
    """Joules of a window from its CPU seconds, as the module's equations have them.

    Raises:
        MeterUnavailableError: the window has no length.
    """
    duration_s = end.time_s - start.time_s
    if not duration_s > 0:
        raise MeterUnavailableError(f"cpu-time: a window of {duration_s:g} s has no length")
    cpu_s = end.counters[COUNTER] - start.counters[COUNTER]
    domains = {
        "cpu-dynamic": max(0.0, cpu_s) * model.dynamic_w_per_core,
        "cpu-idle": duration_s * reserved_cores * model.idle_w_per_core,
    }
    return Energy(
        sum(domains.values()), duration_s, domains, CpuTimeMeter.name, CpuTimeMeter.quality
    )


def process_tree_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of ``pid``, its descendants and those it has waited for.

    Raises:
        OSError: ``pid`` does not exist (a descendant that ends meanwhile is passed over: its time
            is already, or is about to be, in that of the process that waits for it).
    """
    total_s = _own_cpu_s(pid)
    for child in _children(pid):
        try:
            total_s += process_tree_cpu_s(child)
        except (OSError, IndexError):
            continue
    return total_s


def _own_cpu_s(pid: int) -> float:
    # The clock id of another process's CPU clock, as clock_getcpuclockid(3) makes it:
    # the complement of the pid above three bits that say "scheduler clock, whole process".
    live_s = time.clock_gettime((~pid << 3) | 2)
    # /proc/PID/stat: the name in parentheses may hold spaces; cutime and cstime are fields 16, 17.
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    after_name = stat.rpartition(")")[2].split()
    return live_s + (int(after_name[13]) + int(after_name[14])) * CLOCK_TICK_S


def _children(pid: int) -> list[int]:
    # A child hangs on the thread that started it, so every thread's list is read.
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children += [int(word) for word in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue  # the thread ended between the listing and the read
    return children
