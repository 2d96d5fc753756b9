"""``N.json``: what one experiment of an IPA profiling series recorded.

IPA's parser turns every key it does not know into columns, so what may be added to the file is
narrow: a list of numbers and nulls, or null. A text, a single number, a list of texts or a mapping
makes it fail on the *whole series*. Energy is therefore here as lists of numbers, and what does not
fit into such lists is beside it (:mod:`ipa_energy.profile_table.ipa_folder.notes`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.config.yaml_source import read_text
from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.ipa_folder.responses import model_latencies

JOULES = "joules_per_request"
DYNAMIC_JOULES = "dynamic_joules_per_request"
IDLE_POWER = "idle_power_w"
CPU_COUNT = "cpu_usage_count"


class UnusableError(Exception):
    """An experiment without result, as IPA's own runs leave them; the message says why."""


@dataclass(frozen=True, slots=True)
class IpaResult:
    """One experiment's recordings.

    Attributes:
        latencies_s: of every request that came back.
        lost: requests that did not.
        start_s, end_s: wall clock at the beginning and end of the load.
        throughput_rps: of one replica, over time.
        joules_per_request, dynamic_joules_per_request, idle_power_w: one figure a trial; empty if
            there are none.
        cpu_samples: (wall clock, cumulative CPU seconds of one replica), in order of time.
    """

    latencies_s: tuple[float, ...]
    lost: int
    start_s: float
    end_s: float
    throughput_rps: tuple[float, ...]
    joules_per_request: tuple[float, ...]
    dynamic_joules_per_request: tuple[float, ...]
    idle_power_w: tuple[float, ...]
    cpu_samples: tuple[tuple[float, float], ...]

    @property
    def duration_s(self) -> float:
        """Length of the load."""
        return self.end_s - self.start_s


def read_result(path: Path, node: str) -> IpaResult:
    """The experiment in ``path``, its latencies those of ``node``.

    Raises:
        UnusableError: the file is missing or torn, or no request came back: IPA passes over these.
        ConfigError: the file holds something else than IPA writes; with the key.
    """
    if not path.exists():
        raise UnusableError("no such file: the experiment was not finished")
    try:
        document = json.loads(read_text(path))
    except ValueError as error:
        raise UnusableError(f"torn: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError("the file holds no mapping", where=path, allowed="IPA's N.json")
    where = str(path)
    if "responses" not in document:
        raise ConfigError("no key responses", where=where, allowed="IPA's N.json")
    latencies_s, lost = model_latencies(document["responses"], node, where)
    if not latencies_s:
        raise UnusableError(f"none of {lost} requests came back")
    start_s, end_s = (
        _time(document, f"{name}_time_experiment", where) for name in ("start", "end")
    )
    if not end_s > start_s:
        raise ConfigError(
            f"end_time_experiment is {end_s - start_s:g} s after start_time_experiment", where=where
        )
    return IpaResult(
        latencies_s=tuple(latencies_s),
        lost=lost,
        start_s=start_s,
        end_s=end_s,
        throughput_rps=_figures(document, "throughput", where),
        joules_per_request=_figures(document, JOULES, where),
        dynamic_joules_per_request=_figures(document, DYNAMIC_JOULES, where),
        idle_power_w=_figures(document, IDLE_POWER, where),
        cpu_samples=_samples(document, where),
    )


def _time(document: Mapping[str, Any], key: str, where: str) -> float:
    value = document.get(key)
    if value is None or not _is_number(value) or not math.isfinite(value):
        raise ConfigError(f"{key} is {value!r}", where=where, allowed="seconds since the epoch")
    return float(value)


def _figures(document: Mapping[str, Any], key: str, where: str) -> tuple[float, ...]:
    """The numbers of a list, absent ones (null, NaN) left out; nothing for null or no key."""
    values = [value for value in _list(document, key, where) if value is not None]
    for index, value in enumerate(values):
        if not _is_number(value) or value < 0 or math.isinf(value):
            raise ConfigError(
                f"{key}[{index}] is {value!r}", where=where, allowed="finite numbers ≥ 0, or null"
            )
    return tuple(float(value) for value in values if not math.isnan(value))


def _samples(document: Mapping[str, Any], where: str) -> tuple[tuple[float, float], ...]:
    counts = _list(document, CPU_COUNT, where)
    times = _list(document, f"time_{CPU_COUNT}", where)
    if len(counts) != len(times):
        raise ConfigError(
            f"{len(counts)} values of {CPU_COUNT} and {len(times)} of time_{CPU_COUNT}", where=where
        )
    for index, (count, time_s) in enumerate(zip(counts, times, strict=True)):
        if not (_is_number(count) and _is_number(time_s) and count >= 0 and math.isfinite(time_s)):
            raise ConfigError(
                f"{CPU_COUNT}[{index}] is {count!r} at {time_s!r}",
                where=where,
                allowed="cumulative CPU seconds ≥ 0 at a time",
            )
    return tuple(
        sorted((float(time_s), float(count)) for time_s, count in zip(times, counts, strict=True))
    )


def _list(document: Mapping[str, Any], key: str, where: str) -> list[Any]:
    values = document.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise ConfigError(f"{key} is no list", where=where, allowed="a list of numbers, or null")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
