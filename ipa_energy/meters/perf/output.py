"""What ``perf stat`` printed, whatever form it was asked for.

Three forms are in use (``-j`` JSON lines, ``-x,`` separated values, and the text for people), and
logs of all three turn up mixed with the output of the command that was measured. Only lines that
are perf's own are looked at. Text and separated values are rounded to 0.01 J by perf, JSON is not.

perf leaves with status 0 although it counted nothing (``<not supported>`` without privilege), so an
uncounted event is kept as a count without a value and never becomes 0 J.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipa_energy.errors import ConfigError
from ipa_energy.meters.perf.lines import (
    ENERGY_UNIT,
    PerfCount,
    PerfForm,
    TornLineError,
    looks_torn,
    parse_line,
)

NANOSECONDS = "ns"
DURATION_EVENT = "duration_time"

ADDED_EVENTS = {"energy-pkg": "package", "energy-ram": "dram"}
"""Event → domain of those that make up a machine's processors and memory."""

PLATFORM_EVENTS = {"energy-psys": "psys"}
"""The whole platform: alone, or not at all."""

TORN_FIX = "run perf again, with LC_ALL=C and until it ends by itself"

_EVENT_NAME = re.compile(r"^(?:\w+/)?(energy-\w+)/?[a-zA-Z]*$")
_ELAPSED = re.compile(r"^\s*(\d+[.,]\d+)(?:\s+\+-\s+\S+)? seconds time elapsed", re.MULTILINE)
_RUNS = re.compile(r"^ Performance counter stats for .* \((\d+) runs\):", re.MULTILINE)

_DENIED = ("No permission to enable", "Access to performance monitoring", "Permission denied")
_ABSENT = ("unknown term", "Cannot find PMU", "event syntax error", "Bad event name")


@dataclass(frozen=True, slots=True)
class PerfOutput:
    """The energy counts of one call of ``perf stat``.

    Attributes:
        form: ``json``, ``csv`` or ``text``.
        counts: of energy events, in the order of the output; uncounted ones have a ``problem``.
        duration_s: length of the call; NaN where the output does not tell (JSON and separated
            values do only if ``duration_time`` was among the events).
        runs: repeats (``-r``) whose mean the counts are.
    """

    form: PerfForm
    counts: tuple[PerfCount, ...]
    duration_s: float
    runs: int

    def events(self) -> tuple[str, ...]:
        """Short names of the energy events, e.g. ``energy-pkg``, each once."""
        return tuple(dict.fromkeys(event_name(count.event) for count in self.counts))

    def energy_of(self, event: str) -> float:
        """Joules of an event over all sockets and intervals; NaN if any of it was not counted."""
        found = [count.value for count in self.counts if event_name(count.event) == event]
        return math.fsum(found) if found else math.nan

    def problem_of(self, event: str) -> str | None:
        """What perf printed in place of a figure, e.g. ``not supported``; None if it counted."""
        return next(
            (c.problem for c in self.counts if c.problem and event_name(c.event) == event), None
        )

    def domains(self) -> dict[str, float]:
        """Joules by domain that may be added up: packages and memory, or else the platform.

        Core and graphics energies are inside the package's and never appear. Uncounted events are
        left out; an event at 0.00 J appears as 0.0, and is for the caller to call dead.
        """
        for events in (ADDED_EVENTS, PLATFORM_EVENTS):
            joules = {domain: self.energy_of(event) for event, domain in events.items()}
            counted = {domain: value for domain, value in joules.items() if not math.isnan(value)}
            if counted:
                return counted
        return {}


def parse_perf_output(text: str, *, where: str | Path | None = None) -> PerfOutput:
    """The energy counts in what ``perf stat`` printed.

    Args:
        text: output in any form; lines of other programs in between are passed over.
        where: file or command, for messages.

    Raises:
        ConfigError: no energy event in it, a line cut off, a number whose locale cannot be told, or
            a unit other than joules.
    """
    counts: list[PerfCount] = []
    forms: list[PerfForm] = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            found = parse_line(line)
            if found is None and number == len(lines) and not text.endswith("\n"):
                _refuse_torn(line)
        except TornLineError as error:
            place = f"{where}:{number}" if where is not None else f"line {number}"
            raise ConfigError(str(error), where=place, fix=TORN_FIX) from error
        if found is not None:
            form, count = found
            forms.append(form)
            counts.append(count)
    energies = tuple(count for count in counts if event_name(count.event))
    if not energies:
        raise _no_counts(text, where)
    for count in energies:
        if count.unit != ENERGY_UNIT and count.problem is None:
            raise ConfigError(
                f"{count.event} is in {count.unit or 'no unit'}", where=where, allowed=ENERGY_UNIT
            )
    runs = _RUNS.search(text)
    return PerfOutput(forms[0], energies, _duration_s(counts, text), int(runs[1]) if runs else 1)


def event_name(event: str) -> str:
    """``energy-pkg`` for ``power/energy-pkg/u``; empty for an event that is not of energy."""
    found = _EVENT_NAME.match(event)
    return found[1] if found else ""


def refusal(text: str) -> Literal["denied", "absent"] | None:
    """Why perf counted nothing, from its messages; None if they do not tell."""
    if any(phrase in text for phrase in _DENIED):
        return "denied"
    if any(phrase in text for phrase in _ABSENT):
        return "absent"
    return None


def _refuse_torn(line: str) -> None:
    if looks_torn(line):
        raise TornLineError(f"the output ends within a line: {line!r}")


def _duration_s(counts: list[PerfCount], text: str) -> float:
    for count in counts:
        if count.event == DURATION_EVENT and count.unit == NANOSECONDS:
            return count.value / 1e9
    elapsed = _ELAPSED.search(text)
    return float(elapsed[1].replace(",", ".")) if elapsed else math.nan


def _no_counts(text: str, where: str | Path | None) -> ConfigError:
    why = {
        "denied": "perf was denied: it says that it may not count system-wide",
        "absent": "perf knew no such event: the machine has no energy counter it could read",
        None: "no energy event of perf stat in it",
    }[refusal(text)]
    return ConfigError(
        why,
        where=where,
        allowed="output of perf stat -a -e power/energy-pkg/,power/energy-ram/, as text, -x or -j",
    )
