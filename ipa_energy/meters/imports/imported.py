"""Joules that another tool measured and left in a file.

The figures are taken as they are and always labelled ``imported``, with the tool and the file
behind them: nothing here can know how well they were measured. A log that is torn, in another unit
or another locale, or from a counter that did not move is refused with its line; nothing is guessed.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import Energy
from ipa_energy.meters.imports.etrace2 import VERSION, looks_like_etrace2, parse_etrace2
from ipa_energy.meters.imports.power_log import (
    PowerLogChoice,
    looks_like_power_log,
    parse_power_log,
)
from ipa_energy.meters.perf.output import PerfOutput, parse_perf_output

logger = logging.getLogger(__name__)

IMPORTED = "imported"

LogFormat = Literal["etrace2", "frameview", "perf"]

FORMATS: tuple[LogFormat, ...] = ("etrace2", "frameview", "perf")

_PERF_MARKS = ("Performance counter stats for", '"counter-value"', "Joules", "power/energy-")


@dataclass(frozen=True, slots=True)
class ImportedEnergy(Energy):
    """An :class:`~ipa_energy.meters.base.Energy` with where it was read.

    Attributes:
        source: tool, file, and what else there is to know, in words.
        format: of the file.
    """

    source: str
    format: LogFormat


def import_energy(
    path: Path,
    format: LogFormat | None = None,  # noqa: A002 - the word users look for
    *,
    choice: PowerLogChoice | None = None,
    duration_s: float | None = None,
) -> ImportedEnergy:
    """Joules from a log: etrace2 output, FrameView or PCAT CSV, or ``perf stat`` output.

    Args:
        path: the log.
        format: of the log; None to tell from its text.
        choice: columns and window of a CSV of power; None for FrameView's own and the whole log.
        duration_s: length of the window where a perf log does not tell (JSON and ``-x``); NaN in
            the result if neither says.

    Returns:
        Joules with quality ``imported``; ``energy_j`` is the mean of a run for ``perf stat -r``.

    Raises:
        ConfigError: the file cannot be read, is of no known format or of several, is torn, is in
            another unit or locale, or holds a counter that did not count or move.
    """
    text = _text(path)
    chosen = format or _detected(text, path)
    if chosen not in FORMATS:
        raise ConfigError(f"format {chosen!r}", where=path, allowed=", ".join(FORMATS))
    if choice is not None and chosen != "frameview":
        raise ConfigError(f"columns and windows do not go with {chosen} logs", where=path)
    if duration_s is not None and (chosen != "perf" or not duration_s > 0):
        raise ConfigError(
            f"a duration of {duration_s:g} s given for a {chosen} log",
            where=path,
            allowed="more than 0 s, for perf logs that do not tell it",
        )
    if chosen == "etrace2":
        return _from_etrace2(text, path)
    if chosen == "frameview":
        return _from_power_log(text, path, choice or PowerLogChoice())
    return _from_perf(text, path, duration_s)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        # Tools of Windows write UTF-16 with a byte order mark now and then.
        coding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = raw.decode(coding)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot read a log: {error}", where=path) from error
    if not text.strip():
        raise ConfigError("the log is empty", where=path)
    return text


def _detected(text: str, path: Path) -> LogFormat:
    found: list[LogFormat] = []
    if looks_like_etrace2(text):
        found.append("etrace2")
    if looks_like_power_log(text):
        found.append("frameview")
    if any(mark in text for mark in _PERF_MARKS):
        found.append("perf")
    if len(found) != 1:
        what = "no known log of energy" if not found else f"a log that may be {', '.join(found)}"
        raise ConfigError(what, where=path, allowed=", ".join(FORMATS), fix="name its format")
    return found[0]


def _from_etrace2(text: str, path: Path) -> ImportedEnergy:
    found = parse_etrace2(text, where=path)
    return _imported(found.duration_s, found.domains, f"etrace2 {VERSION}: {path}", "etrace2")


def _from_power_log(text: str, path: Path, choice: PowerLogChoice) -> ImportedEnergy:
    found = parse_power_log(text, choice, where=path)
    source = f"power log, columns {', '.join(found.columns)}: {path}"
    return _imported(found.duration_s, found.domains, source, "frameview")


def _from_perf(text: str, path: Path, duration_s: float | None) -> ImportedEnergy:
    output = parse_perf_output(text, where=path)
    domains = _moved(output, path)
    if duration_s is not None and not math.isnan(output.duration_s):
        raise ConfigError(f"the log tells its duration, {output.duration_s:g} s", where=path)
    length_s = output.duration_s if duration_s is None else duration_s
    runs = f", mean of {output.runs} runs" if output.runs > 1 else ""
    return _imported(length_s, domains, f"perf stat ({output.form}{runs}): {path}", "perf")


def _moved(output: PerfOutput, path: Path) -> dict[str, float]:
    """Domains that moved; memory may be missing, the processors (or the platform) may not."""
    events = [(event, output.problem_of(event)) for event in output.events()]
    idle = [f"{event}: {problem}" for event, problem in events if problem is not None]
    domains = output.domains()
    idle += [f"{domain} stood at 0.00 J" for domain, joules in domains.items() if joules == 0]
    moved = {domain: joules for domain, joules in domains.items() if joules > 0}
    if not moved or set(moved) == {"dram"}:
        raise ConfigError(
            f"perf did not count the processors: {'; '.join(idle) or 'no such event'}",
            where=path,
            allowed="power/energy-pkg/ or power/energy-psys/ that was counted and moved",
            fix="run perf stat as root on a machine whose energy counter moves",
        )
    if idle:
        logger.warning("%s: left out: %s", path, "; ".join(idle))
    return moved


def _imported(
    duration_s: float, domains: dict[str, float], source: str, kind: LogFormat
) -> ImportedEnergy:
    total_j = math.fsum(domains.values())
    return ImportedEnergy(total_j, duration_s, domains, IMPORTED, "imported", source, kind)
