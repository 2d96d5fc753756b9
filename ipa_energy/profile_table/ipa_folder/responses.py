"""Requests of an IPA profiling experiment: latencies out of them, and the way back.

``N.json`` has, per second, a list of requests ::

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

import math
from typing import Any

from ipa_energy.errors import ConfigError

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
