"""Joules of an IPA profiling experiment: recorded with it, or estimated from its CPU time.

Recorded are lists with one figure a trial: dynamic joules per request e, idle watts of a replica p,
and joules per request J = e + n·p/λ. With two of them, the load and the replicas the third follows.

What IPA's format has no place for is in ``ipa-energy.jsonl`` beside the series, one line an
experiment (:class:`Note`). It is a file of its own because IPA's parser chokes on texts in
``N.json`` and takes any file whose name begins with an experiment's number for that experiment; and
lines are appended, so a kill costs one of them. Of two lines for one experiment the later holds.

Profiles made before there was energy have the container's cumulative CPU seconds. With a power
model ``P = P_idle + (P_max − P_idle)·utilisation`` of k cores they give ::

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
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from ipa_energy.config.source import read_text
from ipa_energy.energy import joules_per_request
from ipa_energy.errors import ConfigError
from ipa_energy.interval import half_width_95
from ipa_energy.meters.cpu_time import CpuTimeMeter
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profile_table.ipa_results import (
    DYNAMIC_JOULES,
    IDLE_POWER,
    JOULES,
    IpaResult,
)
from ipa_energy.profile_table.ipa_tables import IpaExperiment
from ipa_energy.records import QUALITIES, Quality

NOTES_FILE = "ipa-energy.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a series cannot say of one experiment; None where nothing is known.

    Attributes:
        experiment_id: the N of ``N.json``.
        meter: what gave its joules.
        quality: how good they are.
        trials: windows behind them; 0 if a fit predicted them.
        energy_ci95_j: half width of the 95 % interval of the dynamic joules per request.
        load_rps: the load that was served, where the mapper's is a label.
        hardware: what it ran on.
    """

    experiment_id: int
    meter: str | None = None
    quality: Quality | None = None
    trials: int | None = None
    energy_ci95_j: float | None = None
    load_rps: float | None = None
    hardware: str | None = None

    def to_line(self) -> str:
        """The line of this note, with its end."""
        filled = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(filled, allow_nan=False) + "\n"


def read_notes(folder: Path) -> dict[int, Note]:
    """Experiment number → note; empty without the file. A torn last line is passed over.

    Raises:
        ConfigError: a line is no note, with its number and key.
    """
    path = folder / NOTES_FILE
    if not path.exists():
        return {}
    text = read_text(path)
    notes: dict[int, Note] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            document = json.loads(line)
        except ValueError as error:
            if number == len(lines) and not text.endswith("\n"):
                logger.warning("%s: a torn last line is passed over", where)
                continue
            raise ConfigError(f"not JSON: {error}", where=where) from error
        note = _note(document, where)
        notes[note.experiment_id] = note
    return notes


def _note(document: Any, where: str) -> Note:
    names = [field.name for field in fields(Note)]
    if not isinstance(document, dict) or "experiment_id" not in document:
        raise ConfigError("no experiment_id", where=where, allowed=f"a mapping of {names}")
    unknown = sorted(set(document) - set(names))
    if unknown:
        raise ConfigError(f"unknown keys {unknown}", where=where, allowed=", ".join(names))
    for key, value in document.items():
        _check(key, value, where)
    if (document.get("meter") is None) != (document.get("quality") is None):
        raise ConfigError(
            "meter without quality, or quality without meter", where=where, allowed="both, or none"
        )
    return Note(**document)


def _check(key: str, value: Any, where: str) -> None:
    if value is None and key != "experiment_id":
        return
    allowed: Mapping[str, tuple[bool, str]] = {
        "experiment_id": (_is_count(value), "an integer ≥ 0"),
        "trials": (_is_count(value), "an integer ≥ 0"),
        "quality": (value in QUALITIES, " | ".join(QUALITIES)),
        "meter": (_is_name(value), "a name"),
        "hardware": (_is_name(value), "a name"),
        "energy_ci95_j": (_is_amount(value), "a finite number ≥ 0"),
        "load_rps": (_is_amount(value), "a finite number ≥ 0"),
    }
    holds, what = allowed[key]
    if not holds:
        raise ConfigError(f"{key} is {value!r}", where=where, allowed=what)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_amount(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


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
