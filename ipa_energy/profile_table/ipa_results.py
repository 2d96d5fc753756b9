"""``N.json``: what one experiment of an IPA profiling series recorded, and its joules.

IPA's parser turns every key it does not know into columns, so what may be added to the file is
narrow: a list of numbers and nulls, or null. A text, a single number, a list of texts or a mapping
makes it fail on the *whole series*. Energy is therefore here as lists of numbers, and what does not
fit into such lists is beside it (:class:`.ipa_tables.Note`).

Per second the file has a list of requests ::

    {"times": {"request": {"sending": s, "arrival": s},
               "models": {NODE: {"arrival": s, "serving": s}}}}

A request's model latency is ``serving − arrival`` of its node, the time of the whole batch it was
in; IPA's parser takes the mean (``model_latencies_avg``) and the 99th percentile, interpolated
linearly (``model_latencies_p99``). A request without these times timed out.

Recorded joules are dynamic joules per request e, idle watts of a replica p, and joules per request
J = e + n·p/λ. With two of them, the load and the replicas the third follows. Profiles made before
there was energy have the container's cumulative CPU seconds. With a power model ``P = P_idle +
(P_max − P_idle)·utilisation`` of k cores they give ::

    e = (CPU seconds a second) · (P_max − P_idle)/k ÷ (requests a second of one replica)
    p = P_idle · (reserved cores)/k

IPA records counter and throughput of one replica, so its share of the requests is theirs by the
number of replicas. Prometheus repeats a value until its next scrape, so the CPU rate is that
between the first and the last *new* value inside the load, and a load shorter than a few scrapes
gives none. Such a figure is always ``estimated``.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ipa_energy.config.source import read_text
from ipa_energy.energy import joules_per_request
from ipa_energy.errors import ConfigError
from ipa_energy.interval import half_width_95
from ipa_energy.meters.cpu_time import CpuTimeMeter
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profile_table.ipa_tables import IpaExperiment, Note
from ipa_energy.records import Provenance, Quality

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


# ------------------------------------------------------------------ its joules

IMPORTED = "imported"
"""Meter and quality of joules of which nobody said where they come from."""

LEAST_COVERAGE = 0.5
"""The CPU counter's samples must span this much of the load for an estimate."""


class NoEnergyError(Exception):
    """There is no figure to be had; the message says why."""


@dataclass(frozen=True, slots=True)
class EntryJoules:
    """Energy columns of a profile's row; see :class:`.profile_row.ProfileRow`."""

    dynamic_energy_j: float
    idle_power_w: float
    joules_per_request: float
    energy_ci95_j: float
    trials: int
    meter: str
    quality: Quality | None

    @property
    def provenance(self) -> Provenance:
        """Where they come from."""
        quality = self.quality or "imported"
        return Provenance(self.meter, quality, self.trials, self.energy_ci95_j)


NO_JOULES = EntryJoules(math.nan, math.nan, math.nan, math.nan, 1, "", None)
"""The columns of a row without energy."""


def has_joules(result: IpaResult) -> bool:
    """True if any energy list of the experiment has a figure."""
    return bool(result.joules_per_request or result.dynamic_joules_per_request)


def recorded_joules(
    result: IpaResult, note: Note, *, replicas: int, load_rps: float, where: str
) -> EntryJoules:
    """Energy as the experiment's lists have it.

    Args:
        result: with at least one energy list.
        note: of the experiment; without meter and quality the figures are ``imported``.
        replicas: n.
        load_rps: λ that was served.
        where: the file, for messages.

    Raises:
        NoEnergyError: the lists cannot be split into dynamic and idle energy.
        ConfigError: they contradict each other.
    """
    dynamic, idle, whole = (
        _mean(result.dynamic_joules_per_request),
        _mean(result.idle_power_w),
        _mean(result.joules_per_request),
    )
    waiting_j = _waiting_j(replicas, idle, load_rps)
    if math.isnan(idle):
        raise NoEnergyError(f"no {IDLE_POWER} beside its joules")
    if math.isnan(dynamic):
        dynamic = whole - waiting_j
    if math.isnan(whole):
        whole = dynamic + waiting_j
    if not dynamic >= 0:
        raise ConfigError(
            f"{JOULES} is {whole:g} J, less than the {waiting_j:g} J of {replicas} idle replicas",
            where=where,
            allowed=f"{JOULES} = {DYNAMIC_JOULES} + replicas · {IDLE_POWER} / load",
        )
    each = result.dynamic_joules_per_request or result.joules_per_request
    interval_j = note.energy_ci95_j
    return EntryJoules(
        dynamic_energy_j=dynamic,
        idle_power_w=idle,
        joules_per_request=whole,
        energy_ci95_j=half_width_95(each) if interval_j is None else interval_j,
        trials=len(each) if note.trials is None else note.trials,
        meter=note.meter or IMPORTED,
        quality=note.quality or "imported",
    )


def estimated_joules(
    experiment: IpaExperiment, result: IpaResult, model: PowerModel, *, load_rps: float
) -> EntryJoules:
    """Energy from the experiment's CPU seconds, as the ``cpu-time`` meter would have it.

    Raises:
        NoEnergyError: the counter is absent, dead, fell, or does not cover the load.
    """
    cpu_rate = _cpu_rate(result)
    served_rps = len(result.latencies_s) / experiment.replicas / result.duration_s
    dynamic_j = cpu_rate * model.dynamic_w_per_core / served_rps
    idle_w = experiment.cpu_cores * model.idle_w_per_core
    return EntryJoules(
        dynamic_energy_j=dynamic_j,
        idle_power_w=idle_w,
        joules_per_request=dynamic_j + _waiting_j(experiment.replicas, idle_w, load_rps),
        energy_ci95_j=math.nan,
        trials=1,
        meter=CpuTimeMeter.name,
        quality=CpuTimeMeter.quality,
    )


def _cpu_rate(result: IpaResult) -> float:
    """CPU seconds a second of one replica under the load, between its first and last scrape."""

    def inside(samples: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        return [sample for sample in samples if result.start_s <= sample[0] <= result.end_s]

    during = inside(result.cpu_samples)
    if len(during) < 2:
        raise NoEnergyError("no cpu_usage_count during the load")
    if any(later < earlier for (_, earlier), (_, later) in itertools.pairwise(during)):
        raise NoEnergyError("cpu_usage_count fell during the load: the replica was restarted")
    if during[-1][1] == during[0][1]:
        raise NoEnergyError("cpu_usage_count did not rise under load: it is dead")
    scrapes = inside(_scrapes(result.cpu_samples))
    span_s = scrapes[-1][0] - scrapes[0][0]
    if span_s < LEAST_COVERAGE * result.duration_s:
        raise NoEnergyError(
            f"cpu_usage_count covers {span_s:g} s of a load of {result.duration_s:g} s"
        )
    return (scrapes[-1][1] - scrapes[0][1]) / span_s


def _scrapes(samples: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """The samples that are not the one before repeated."""
    for index, sample in enumerate(samples):
        if index == 0 or sample[1] != samples[index - 1][1]:
            yield sample


def _waiting_j(replicas: int, idle_power_w: float, load_rps: float) -> float:
    """n·p/λ; NaN without load, when there are no requests to share it."""
    return joules_per_request(0.0, idle_power_w, replicas, load_rps) if load_rps > 0 else math.nan


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
