"""Numbers out of what a command printed: standard output and error, as they came."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep_file import IMAGES, Reading

from ipa_energy.errors import ConfigError

MOST_READ_BYTES = 16 * 2**20
"""Of a longer output the end is read: results stand there."""
TAIL_CHARACTERS = 2000
"""Kept of every run that gave no figures."""


def read_output(path: Path) -> str:
    """The end of a file of output, with whatever is not UTF-8 marked as such."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MOST_READ_BYTES))
        return file.read().decode("utf-8", errors="replace")


def parse_output(text: str, readings: Mapping[str, Reading]) -> dict[str, float | None]:
    """Field → number in SI units; None for an optional field that is not there.

    Raises:
        ConfigError: a field is missing, is no finite number, or ``images`` is not above 0.
    """
    last = _last_object(text)
    found: dict[str, float | None] = {}
    for field, reading in readings.items():
        raw = _raw(text, last, reading)
        if raw is None and reading.optional:
            found[field] = None
            continue
        found[field] = _number(raw, field, reading) * reading.scale
    images = found[IMAGES]
    if images is None or images <= 0:
        raise ConfigError(f"{IMAGES} is {images}", allowed="more than 0")
    return found


def _raw(text: str, last: Mapping[str, Any], reading: Reading) -> Any:
    if reading.value is not None:
        return reading.value
    if reading.json_key is not None:
        return last.get(reading.json_key)
    matches = re.findall(reading.regex or "", text, flags=re.MULTILINE)
    return matches[-1] if matches else None


def _number(raw: Any, field: str, reading: Reading) -> float:
    place = f"JSON key {reading.json_key}" if reading.json_key else f"regex {reading.regex!r}"
    if raw is None:
        raise ConfigError(f"no {field} in the output", where=place)
    try:
        number = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{field} is {str(raw)[:60]!r}", where=place, allowed="a finite number")
    return number


def _last_object(text: str) -> Mapping[str, Any]:
    """The last line that is a JSON object; empty if none is."""
    for line in reversed(text.splitlines()):
        stripped = line.strip()
        if stripped.startswith("{") and stripped.endswith("}"):
            try:
                found = json.loads(stripped)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return found
    return {}
