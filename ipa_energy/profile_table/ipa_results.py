"""``N.json``: what one experiment of an IPA profiling series recorded.

IPA's parser turns every key it does not know into columns, so what may be added to the file is
narrow: a list of numbers and nulls, or null. A text, a single number, a list of texts or a mapping
makes it fail on the *whole series*. Energy is therefore here as lists of numbers, and what does not
fit into such lists is beside it (:mod:`.ipa_joules`).

Per second the file has a list of requests ::

    {"times": {"request": {"sending": s, "arrival": s},
               "models": {NODE: {"arrival": s, "serving": s}}}}

A request's model latency is ``serving − arrival`` of its node, the time of the whole batch it was
in; IPA's parser takes the mean (``model_latencies_avg``) and the 99th percentile, interpolated
linearly (``model_latencies_p99``). A request without these times timed out.

The way back is not a recording and does not look like one: a profile keeps two figures of a
distribution, so :func:`responses_for` makes the plainest set of requests whose mean and 99th
percentile are those two. Nothing else about it (variance, median, order, waiting) means anything.
Its clock starts at 0, where doubles resolve latencies fully; at today's epoch they would be good to
a quarter of a microsecond only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.config.source import read_text
from ipa_energy.errors import ConfigError

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


MOST_HUNDREDS = 50
"""Hundreds of requests a synthesised experiment may have."""


LEAST_SHARE = 1e-3
"""Least latency of a synthesised request over the mean: less could vanish beside its send time."""


def model_latencies(responses: Any, node: str, where: str) -> tuple[list[float], int]:
    """Seconds each request spent in ``node``, and the number of requests that never came back.

    Args:
        responses: the list of an ``N.json``.
        node: the node's name.
        where: the file, for messages.

    Raises:
        ConfigError: the list has another shape, times are no numbers or run backwards, or every
            answer is another node's; with the key at fault.
    """
    latencies_s: list[float] = []
    lost = 0
    others: set[str] = set()
    if not isinstance(responses, list):
        raise ConfigError("responses is no list", where=where, allowed="a list of seconds")
    for second, requests in enumerate(responses):
        if not isinstance(requests, list):
            raise ConfigError(
                f"responses[{second}] is no list", where=where, allowed="a list of requests"
            )
        for index, request in enumerate(requests):
            key = f"responses[{second}][{index}]"
            models = _models(request, key, where)
            others.update(models)
            latency_s = _latency(models.get(node), f"{key}.times.models.{node}", where)
            if latency_s is None:
                lost += 1
            else:
                latencies_s.append(latency_s)
    if not latencies_s and others - {node}:
        raise ConfigError(
            f"responses have no times of node {node}",
            where=where,
            allowed=f"the nodes they have: {', '.join(sorted(others))}",
        )
    return latencies_s, lost


def responses_for(
    latency_avg_s: float, latency_p99_s: float, pace_rps: float, node: str
) -> list[list[dict[str, Any]]]:
    """Requests by second, sent at an even pace, with this mean and this 99th percentile.

    Raises:
        ConfigError: no latencies have them: at least one request in a hundred takes the 99th
            percentile, so the mean cannot be under a hundredth of it.
    """
    seconds: list[list[dict[str, Any]]] = []
    for index, latency_s in enumerate(_latencies_for(latency_avg_s, latency_p99_s)):
        sent_s = index / pace_rps
        while len(seconds) <= int(sent_s):
            seconds.append([])
        end_s = sent_s + latency_s
        times = {
            "request": {"sending": sent_s, "arrival": end_s},
            "models": {node: {"arrival": sent_s, "serving": end_s}},
        }
        seconds[int(sent_s)].append({"times": times})
    return seconds


def _latencies_for(avg_s: float, p99_s: float) -> list[float]:
    """99k requests alike and k + 1 at the 99th percentile, for the smallest k that can do it.

    Of 100k + 1 sorted values the percentile is the one at index 99k, without interpolation.
    """
    p99_s = max(p99_s, avg_s)
    for hundreds in range(1, MOST_HUNDREDS + 1):
        usual, slow = 99 * hundreds, hundreds + 1
        usual_s = ((usual + slow) * avg_s - slow * p99_s) / usual
        if usual_s > LEAST_SHARE * avg_s:
            return [min(usual_s, p99_s)] * usual + [p99_s] * slow
    raise ConfigError(
        f"no {100 * MOST_HUNDREDS} latencies have a mean of {avg_s:g} s and a p99 of {p99_s:g} s",
        allowed="a p99 under 98 times the mean",
    )


def _models(request: Any, key: str, where: str) -> dict[str, Any]:
    """Times by node; empty for a request that timed out."""
    if not isinstance(request, dict):
        raise ConfigError(f"{key} is no mapping", where=where, allowed="a request with its times")
    times = request.get("times")
    models = times.get("models") if isinstance(times, dict) else None
    if not isinstance(times, dict | None) or not isinstance(models, dict | None):
        raise ConfigError(f"{key}.times is no mapping of mappings", where=where)
    return models or {}


def _latency(pair: Any, key: str, where: str) -> float | None:
    """Seconds between a pair of times; None if the pair, or one of it, is missing."""
    if pair is None:
        return None
    if not isinstance(pair, dict):
        raise ConfigError(f"{key} is no mapping", where=where, allowed="arrival and serving")
    arrival, serving = pair.get("arrival"), pair.get("serving")
    if arrival is None or serving is None:
        return None
    for name, value in (("arrival", arrival), ("serving", serving)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{key}.{name} is {value!r}", where=where, allowed="seconds")
    latency_s = float(serving) - float(arrival)
    if not (math.isfinite(latency_s) and latency_s > 0):
        raise ConfigError(
            f"{key}: a latency of {latency_s:g} s", where=where, allowed="serving after arrival"
        )
    return latency_s
