"""One line of ``perf stat``, in each of its three forms.

::

    {"counter-value" : "1.250000", "unit" : "Joules", "event" : "power/energy-pkg/", …}     JSON
    1.25,Joules,power/energy-pkg/,202367408,100.00,,                                        -x,
                  1.25 Joules power/energy-pkg/                                             text

In front of the value there may be a time (``-I``) and a place (``--per-socket``: ``S0`` and a
number of counters). The separators of a locale break the first form and make the second ambiguous
where the comma separates fields; such a line is refused, never guessed at. Outside JSON, perf
prints every energy with two decimals, which tells a decimal comma from one between thousands.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

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
_PLACE_KEYS = ("socket", "die", "node", "core", "cpu")

_UNCOUNTED = re.compile(r"^<(not supported|not counted)>$")
_NUMBER = re.compile(r"^\d+(\.\d+)?$")
_COMMA_NUMBER = re.compile(r"^\d+,\d\d$")
_TIME = re.compile(r"^\d+\.\d{9}$")
_PLACE = re.compile(r"^(S\d+(-\w+)*|CPU\d+|N\d+)$")
_EVENT = re.compile(r"^(\w+/[\w.=,-]+/[a-zA-Z]*|energy-\w+|duration_time|[a-z]+-clock)$")
_SEPARATORS = (",", ";", "|", "\t", ":")

_TEXT = re.compile(
    r"^\s*(?:(?P<time>\d+\.\d{9})\s+)?(?:(?P<place>S\d+(?:-\w+)*)\s+\d+\s+)?"
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
    """

    event: str
    value: float
    unit: str
    problem: str | None = None
    place: str | None = None
    time_s: float = math.nan


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
    place = next((str(found[key]) for key in _PLACE_KEYS if key in found), None)
    return PerfCount(event, value, str(found.get("unit", "")), problem, place, time_s)


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
        time_s, place = _before_value(fields[: at - 2], line)
        return PerfCount(fields[at], value, fields[at - 1], problem, place, time_s)
    return None


def _before_value(fields: list[str], line: str) -> tuple[float, str | None]:
    """Time and place in front of a value; anything else there is half of a number."""
    time_s, place = math.nan, None
    rest = [field.strip() for field in fields]
    if rest and _TIME.match(rest[0]):
        time_s = float(rest.pop(0))
    if rest and _PLACE.match(rest[0]):
        place = rest.pop(0)
        if rest and rest[0].isdigit():
            rest.pop(0)
    if rest:
        raise TornLineError(f"a number whose separators cannot be told apart: {line!r}")
    return time_s, place


def _from_text(line: str) -> PerfCount | None:
    found = _TEXT.match(line)
    if found is None or not _EVENT.match(found["event"]):
        return None
    unit, part = found["unit"] or "", found["part"] or ""
    time_s = float(found["time"]) if found["time"] else math.nan
    if found["problem"]:
        return PerfCount(found["event"], math.nan, unit, found["problem"], found["place"], time_s)
    if unit == ENERGY_UNIT and len(part) != 3:
        raise TornLineError(f"an energy of perf without its two decimals: {line!r}")
    value = float(re.sub(r"\D", "", found["whole"]) + part.replace(",", "."))
    return PerfCount(found["event"], value, unit, None, found["place"], time_s)


def _value(raw: str, line: str) -> tuple[float, str | None]:
    uncounted = _UNCOUNTED.match(raw)
    if uncounted:
        return math.nan, uncounted[1]
    if not _NUMBER.match(raw):
        raise TornLineError(f"{raw!r} where perf prints a number: {line!r}")
    return float(raw), None
