"""What ``perf stat`` printed, whatever form it was asked for.

::

    {"counter-value" : "1.250000", "unit" : "Joules", "event" : "power/energy-pkg/", …}     JSON
    1.25,Joules,power/energy-pkg/,202367408,100.00,,                                        -x,
                  1.25 Joules power/energy-pkg/                                             text

Logs of all three turn up mixed with the output of the command that was measured; only lines that
are perf's own are looked at. In front of the value there may be a time (``-I``) and a place
(``--per-socket``: ``S0`` and a number of counters). Outside JSON perf prints every energy with two
decimals, which tells a decimal comma from one between thousands. The separators of a locale break
JSON and make ``-x,`` ambiguous; such a line is refused, never guessed at.

A log is one run. The rows of ``-I`` are added up, and what ``--summary`` repeats of them is not
added once more; an event that comes twice otherwise is from several runs (``--append``, a loop), of
which a sum over the seconds of one would be many times the power.

perf leaves with status 0 although it counted nothing (``<not supported>`` without privilege), so an
uncounted event is kept as a count without a value and never becomes 0 J.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ipa_energy.errors import ConfigError

PerfForm = Literal["json", "csv", "text"]

ENERGY_UNIT = "Joules"

_JSON_KEYS = (
    "counter-value",
    "interval",
    "socket",
    "die",
    "cluster",
    "cache",
    "node",
    "core",
    "cpu",
)
_JSON_STARTS = tuple(f'{{"{key}" : ' for key in _JSON_KEYS)
_PLACE_KEYS = ("socket", "die", "cluster", "cache", "node", "core", "cpu")
_COUNTERS_KEYS = ("aggregate-number", "counters")

_UNCOUNTED = re.compile(r"^<(not supported|not counted)>$")
_NUMBER = re.compile(r"^\d+(\.\d+)?$")
_COMMA_NUMBER = re.compile(r"^\d+,\d\d$")
_TIME = re.compile(r"^\d+\.\d{9}$")
_PLACE = re.compile(r"^(S\d+(-\w+)*|CPU\d+|N\d+)$")
_EVENT = re.compile(r"^(\w+/[\w.=,-]+/[a-zA-Z]*|energy-\w+|duration_time|[a-z]+-clock)$")
SUMMARY = "summary"
"""Where ``-I --summary -x,`` has the time of an interval."""

_SEPARATORS = (",", ";", "|", "\t", ":")

_TEXT = re.compile(
    r"^\s*(?:(?P<time>\d+\.\d{9})\s+)?"
    r"(?:(?P<place>S\d+(?:-\w+)*|N\d+|CPU\d+)\s+(?:(?P<counters>\d+)\s+)?)?"
    r"(?:(?P<whole>\d{1,3}(?:[.,'’ \u00a0\u202f]\d{3})*|\d+)(?P<part>[.,]\d+)?"
    r"|<(?P<problem>not supported|not counted)>)"
    r"\s+(?:(?P<unit>[A-Za-z]+)\s+)?(?P<event>\S+)(?:\s.*)?$"
)


class TornLineError(ValueError):
    """A line that perf began and that cannot be read to its end."""


@dataclass(frozen=True, slots=True)
class PerfCount:
    """One figure of ``perf stat``.

    Attributes:
        event: as perf names it, e.g. ``power/energy-pkg/``.
        value: in ``unit``; NaN if it was not counted.
        unit: as perf names it, e.g. ``Joules``; may be empty.
        problem: ``not supported`` or ``not counted``; None if it was counted.
        place: ``S0`` and the like where counts are by socket; else None.
        time_s: end of the interval since the start, where counts are by interval; else NaN.
        counters: counters that were added up at ``place``; None where perf does not say.
    """

    event: str
    value: float
    unit: str
    problem: str | None = None
    place: str | None = None
    time_s: float = math.nan
    counters: int | None = None

    @property
    def elsewhere(self) -> bool:
        """True if it may be a place without a counter: a package's is read on one of its CPUs."""
        nobody = self.counters == 0 or (self.place or "").startswith("CPU")
        return self.problem == "not counted" and nobody


def parse_line(line: str) -> tuple[PerfForm, PerfCount] | None:
    """The figure in a line, and the form it is in; None for a line that is not a figure of perf.

    Raises:
        TornLineError: the line is cut off, or its numbers carry the separators of a locale.
    """
    if line.startswith(_JSON_STARTS):
        return "json", _from_json(line)
    separated = _from_separated(line)
    if separated is not None:
        return "csv", separated
    text = _from_text(line)
    return ("text", text) if text is not None else None


def looks_torn(line: str) -> bool:
    """True if a line without its end may be the beginning of a figure of perf."""
    begins_json = len(line) > 1 and any(start.startswith(line) for start in _JSON_STARTS)
    begins_figure = re.match(r"^\s*(S\d+[\s\S])?(<not|<no?$|<$|\d)", line) is not None
    return begins_json or (begins_figure and "seconds" not in line)


def _from_json(line: str) -> PerfCount:
    try:
        found: dict[str, Any] = json.loads(line)
        raw, event = str(found["counter-value"]), str(found["event"])
        time_s = float(found.get("interval", math.nan))
    except (ValueError, KeyError, TypeError) as error:
        raise TornLineError(f"a JSON line of perf that cannot be read: {line!r}") from error
    value, problem = _value(raw, line)
    key = next((key for key in _PLACE_KEYS if key in found), "")
    place = str(found[key]) if key else None
    place = f"CPU{place}" if key == "cpu" and place and place.isdigit() else place
    counters = next((found[key] for key in _COUNTERS_KEYS if key in found), None)
    counters = counters if isinstance(counters, int) else None
    unit = str(found.get("unit", ""))
    return PerfCount(event, value, unit, problem, place, time_s, counters)


def _from_separated(line: str) -> PerfCount | None:
    for separator in _SEPARATORS:
        fields = line.split(separator)
        at = next((i for i, field in enumerate(fields) if i >= 2 and _EVENT.match(field)), None)
        if at is None:
            if ENERGY_UNIT in fields:
                raise TornLineError(f"a line of perf that names no event: {line!r}")
            continue
        if len(fields) < at + 3:
            raise TornLineError(f"a line of perf that is cut off: {line!r}")
        raw = fields[at - 2].strip()
        if separator != "," and _COMMA_NUMBER.match(raw):
            raw = raw.replace(",", ".")
        value, problem = _value(raw, line)
        time_s, place, counters = _before_value(fields[: at - 2], line)
        return PerfCount(fields[at], value, fields[at - 1], problem, place, time_s, counters)
    return None


def _before_value(fields: list[str], line: str) -> tuple[float, str | None, int | None]:
    """Time, place and counters before a value; anything else there is half of a number."""
    time_s, place, counters = math.nan, None, None
    rest = [field.strip() for field in fields]
    if rest and _TIME.match(rest[0]):
        time_s = float(rest.pop(0))
    elif rest and rest[0] == SUMMARY:
        rest.pop(0)
    if rest and _PLACE.match(rest[0]):
        place = rest.pop(0)
        if rest and rest[0].isdigit():
            counters = int(rest.pop(0))
    if rest:
        raise TornLineError(f"a number whose separators cannot be told apart: {line!r}")
    return time_s, place, counters


def _from_text(line: str) -> PerfCount | None:
    found = _TEXT.match(line)
    if found is None or not _EVENT.match(found["event"]):
        return None
    unit, part = found["unit"] or "", found["part"] or ""
    time_s = float(found["time"]) if found["time"] else math.nan
    counters = int(found["counters"]) if found["counters"] else None
    value = math.nan
    if not found["problem"]:
        if unit == ENERGY_UNIT and len(part) != 3:
            raise TornLineError(f"an energy of perf without its two decimals: {line!r}")
        value = float(re.sub(r"\D", "", found["whole"]) + part.replace(",", "."))
    place = found["place"]
    return PerfCount(found["event"], value, unit, found["problem"], place, time_s, counters)


def _value(raw: str, line: str) -> tuple[float, str | None]:
    uncounted = _UNCOUNTED.match(raw)
    if uncounted:
        return math.nan, uncounted[1]
    if not _NUMBER.match(raw):
        raise TornLineError(f"{raw!r} where perf prints a number: {line!r}")
    return float(raw), None


NANOSECONDS = "ns"
DURATION_EVENT = "duration_time"

ADDED_EVENTS = {"energy-pkg": "package", "energy-ram": "dram"}
"""Event → domain of those that make up a machine's processors and memory."""

PLATFORM_EVENTS = {"energy-psys": "psys"}
"""The whole platform: alone, or not at all."""

ONE_RUN_FIX = "one run a file, each event named once: perf stat -o a new FILE, without --append"

SUMMARY_TOLERANCE = 1e-3
"""A summary against the sum of its intervals, beyond what two decimals a row make."""

TORN_FIX = "run perf again, with LC_ALL=C and until it ends by itself"

_EVENT_NAME = re.compile(r"^(?:\w+/)?(energy-\w+)/?[a-zA-Z]*$")
_ELAPSED = re.compile(r"^\s*(\d+[.,]\d+)(?:\s+\+-\s+\S+)? seconds time elapsed", re.MULTILINE)
_BEGINNINGS = (
    re.compile(r"^# started on ", re.MULTILINE),
    re.compile(r"^ Performance counter stats for ", re.MULTILINE),
)
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
        last_s: end of the last interval; NaN without ``-I``.
    """

    form: PerfForm
    counts: tuple[PerfCount, ...]
    duration_s: float
    runs: int
    last_s: float = math.nan

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
        ConfigError: no energy event in it, a line cut off, a number whose locale cannot be told, a
            unit other than joules, or more than one run.
    """
    counts: list[PerfCount] = []
    forms: list[PerfForm] = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            found = parse_line(line)
            is_last = number == len(lines) and not text.endswith("\n")
            if found is None and is_last and looks_torn(line):
                raise TornLineError(f"the output ends within a line: {line!r}")
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
    return PerfOutput(
        forms[0],
        _of_one_run(energies, text, where),
        _duration_s(counts, text),
        int(runs[1]) if runs else 1,
        max((count.time_s for count in energies if not math.isnan(count.time_s)), default=math.nan),
    )


def _of_one_run(
    counts: tuple[PerfCount, ...], text: str, where: str | Path | None
) -> tuple[PerfCount, ...]:
    """The counts that add up: each once, places without a counter and summaries left out.

    Raises:
        ConfigError: there is more than one run in the output, or an event was named twice.
    """
    if any(len(each.findall(text)) > 1 for each in _BEGINNINGS):
        raise ConfigError("more than one run of perf in it", where=where, fix=ONE_RUN_FIX)
    seen: set[tuple[str, str | None, float | None]] = set()
    last_s = 0.0
    for count in counts:
        timed = not math.isnan(count.time_s)
        key = event_name(count.event), count.place, count.time_s if timed else None
        if key in seen or (timed and count.time_s < last_s):
            at = f" at {count.time_s:g} s" if timed else ""
            raise ConfigError(
                f"{count.event}{at} for the second time: more than one run of perf, or one event "
                "counted twice",
                where=where,
                fix=ONE_RUN_FIX,
            )
        seen.add(key)
        last_s = count.time_s if timed else last_s
    return _without_summary(_without_empty_places(counts), where)


def _without_empty_places(counts: tuple[PerfCount, ...]) -> tuple[PerfCount, ...]:
    """The counts but for CPUs where an event that was counted on another has no counter."""
    counted = {event_name(count.event) for count in counts if count.problem is None}
    return tuple(c for c in counts if not (c.elsewhere and event_name(c.event) in counted))


def _without_summary(
    counts: tuple[PerfCount, ...], where: str | Path | None
) -> tuple[PerfCount, ...]:
    """The counts of the intervals, if there are any, without their sum (``-I --summary``)."""
    timed = tuple(count for count in counts if not math.isnan(count.time_s))
    if not timed:
        return counts
    for count in counts:
        if count in timed or math.isnan(count.value):
            continue
        rows = [c.value for c in timed if (c.event, c.place) == (count.event, count.place)]
        room_j = 0.01 * (len(rows) + 1) + SUMMARY_TOLERANCE * count.value
        if not abs(math.fsum(rows) - count.value) <= room_j:
            raise ConfigError(
                f"{count.event} is {count.value:g} J beside intervals that make "
                f"{math.fsum(rows):g} J: more than one run of perf",
                where=where,
                fix=ONE_RUN_FIX,
            )
    return timed


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


def _duration_s(counts: list[PerfCount], text: str) -> float:
    told: dict[float, float] = {}  # end of the interval, infinity for the whole → nanoseconds
    for count in counts:
        if count.event == DURATION_EVENT and count.unit == NANOSECONDS and count.problem is None:
            end_s = math.inf if math.isnan(count.time_s) else count.time_s
            told[end_s] = max(told.get(end_s, 0.0), count.value)  # counted at one of its places
    if told:
        return told.get(math.inf, math.fsum(told.values())) / 1e9
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
