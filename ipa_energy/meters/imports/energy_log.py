"""Joules that another tool measured and left in a file; many such runs make a table.

The figures are taken as they are and always labelled ``imported``, with the tool and the file
behind them: nothing here can know how well they were measured. A log that is torn, in another unit
or another locale, or from a counter that did not move is refused with its line; nothing is guessed.

::

    joules per request            E / N                    idle share included
    dynamic joules per request    (E − P_idle · d) / N     what a profile calls e(o)

for a log of E joules over d seconds in which N requests were served. The logs tell neither N nor
the idle power P_idle: whoever took them knows.
"""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ipa_energy.as_json import as_json
from ipa_energy.errors import ConfigError, in_words
from ipa_energy.files import whole_file
from ipa_energy.meters.base import MOST_W, Energy
from ipa_energy.meters.imports.etrace2 import (
    VERSION,
    Etrace2Output,
    looks_like_etrace2,
    parse_etrace2,
)
from ipa_energy.meters.imports.perf_log import PerfOutput, parse_perf_output
from ipa_energy.meters.imports.power_log import (
    PowerLog,
    PowerLogChoice,
    looks_like_power_log,
    parse_power_log,
)

logger = logging.getLogger(__name__)

IMPORTED = "imported"

LogFormat = Literal["etrace2", "frameview", "perf"]

FORMATS: tuple[LogFormat, ...] = ("etrace2", "frameview", "perf")

_PERF_MARKS = ("Performance counter stats for", '"counter-value"', "Joules", "power/energy-")


INTERVALS_TOLERANCE = 0.02
"""A duration that is given may be off the end of the log's last interval by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    found = _read(text, path, chosen, choice, duration_s)
    for domain, joules in found.domains.items():
        if joules > MOST_W * found.duration_s:  # not where the duration is not known
            raise ConfigError(
                f"{domain}: {joules:g} J in {found.duration_s:g} s, which no power explains",
                where=path,
                fix="measure again: the counter went round, or was read wrongly",
            )
    for note in found.notes:
        logger.warning("%s: %s", path, note)
    return found


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        # Tools of Windows write UTF-16 with a byte order mark now and then.
        coding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = raw.decode(coding)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot read a log: {in_words(error)}", where=path) from error
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


def _read(
    text: str,
    path: Path,
    chosen: LogFormat,
    choice: PowerLogChoice | None,
    duration_s: float | None,
) -> ImportedEnergy:
    """What a log of a format says."""
    if chosen == "etrace2":
        run: Etrace2Output | PowerLog = parse_etrace2(text, where=path)
        told, source = (run.duration_s, run.domains, run.notes), f"etrace2 {VERSION}: {path}"
    elif chosen == "frameview":
        run = parse_power_log(text, choice or PowerLogChoice(), where=path)
        told = run.duration_s, run.domains, run.notes
        source = f"power log, columns {', '.join(run.columns)}: {path}"
    else:
        output = parse_perf_output(text, where=path)
        domains, notes = _moved(output, path)
        told = _perf_duration_s(output, duration_s, path), domains, notes
        runs = f", mean of {output.runs} runs" if output.runs > 1 else ""
        source = f"perf stat ({output.form}{runs}): {path}"
    length_s, joules_of, found_notes = told
    return ImportedEnergy(
        energy_j=math.fsum(joules_of.values()),
        duration_s=length_s,
        domains=joules_of,
        meter=IMPORTED,
        quality="imported",
        source=source,
        format=chosen,
        notes=found_notes,
    )


def _perf_duration_s(output: PerfOutput, given_s: float | None, path: Path) -> float:
    """What the log tells, else what is given, else where its intervals end; NaN for neither."""
    told_s, last_s = output.duration_s, output.last_s
    if not math.isnan(told_s):
        if given_s is not None:
            raise ConfigError(f"the log tells its duration, {told_s:g} s", where=path)
        if not told_s > 0:
            raise ConfigError(
                f"the log says that its run took {told_s:g} s",
                where=path,
                allowed="more than 0 s",
                fix="measure a run that takes longer; a tenth of a second at least",
            )
        return told_s
    if given_s is None:
        return last_s
    if abs(given_s - last_s) > INTERVALS_TOLERANCE * given_s:
        raise ConfigError(
            f"a duration of {given_s:g} s, and the log's intervals end at {last_s:g} s", where=path
        )
    return given_s


def _moved(output: PerfOutput, path: Path) -> tuple[dict[str, float], tuple[str, ...]]:
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
    return moved, (f"left out: {'; '.join(idle)}",) if idle else ()


COLUMNS = (
    "log",
    "format",
    "meter",
    "quality",
    "energy_j",
    "duration_s",
    "power_w",
    "requests",
    "joules_per_request",
    "idle_power_w",
    "dynamic_energy_j",
    "dynamic_joules_per_request",
)
"""Of the table, in order; a column ``DOMAIN_energy_j`` follows for each domain of any log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """One log and what its run served.

    Attributes:
        log: the file.
        energy: what the log says.
        requests: served in the window of the log; None if not known.
        idle_power_w: watts of the idle machine, of the same domains; NaN if not known.
    """

    log: Path
    energy: ImportedEnergy
    requests: int | None = None
    idle_power_w: float = math.nan

    @property
    def power_w(self) -> float:
        """Mean watts; NaN where the log does not tell its duration."""
        return self.energy.energy_j / self.energy.duration_s

    @property
    def dynamic_energy_j(self) -> float:
        """Joules above idle; NaN without idle power or duration."""
        return self.energy.energy_j - self.idle_power_w * self.energy.duration_s

    def per_request_j(self, energy_j: float) -> float:
        """Joules by request; NaN where the requests are not known."""
        return math.nan if self.requests is None else energy_j / self.requests

    def to_json(self) -> dict[str, Any]:
        """The row, its domains and its source; what is not known is None."""
        energy = self.energy
        row: dict[str, Any] = as_json(
            {
                "log": self.log,
                "format": energy.format,
                "meter": energy.meter,
                "quality": energy.quality,
                "energy_j": energy.energy_j,
                "duration_s": energy.duration_s,
                "power_w": self.power_w,
                "requests": self.requests,
                "joules_per_request": self.per_request_j(energy.energy_j),
                "idle_power_w": self.idle_power_w,
                "dynamic_energy_j": self.dynamic_energy_j,
                "dynamic_joules_per_request": self.per_request_j(self.dynamic_energy_j),
                "domains": energy.domains,
                "source": energy.source,
                "notes": energy.notes,
            }
        )
        return row


def logs_in(paths: Sequence[Path]) -> list[Path]:
    """The files, and every file in the folders and below, each once; hidden ones left out.

    Raises:
        ConfigError: a path is not there, a folder has no file in it, or one of them or below may
            not be read.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        files = [path] if path.is_file() else _files_below(path)
        if not files:
            what = (
                "a folder without files"
                if path.is_dir()
                else "neither a file nor a folder"
                if path.exists()
                else "no such file or folder"
            )
            raise ConfigError(what, where=path, allowed="a log, or a folder of logs")
        for one in files:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def import_run(
    log: Path,
    format: LogFormat | None = None,  # noqa: A002 - as in import_energy
    *,
    choice: PowerLogChoice | None = None,
    duration_s: float | None = None,
    requests: int | None = None,
    idle_power_w: float = math.nan,
) -> LoggedRun:
    """One log as a row; the arguments are those of :func:`import_energy`.

    Raises:
        ConfigError: the log gives no figure, ``requests`` is under 1, or ``idle_power_w`` is not a
            power, is more than the run drew, or the log does not tell the duration it needs.
    """
    if requests is not None and requests < 1:
        raise ConfigError(f"{requests} requests", where="--requests", allowed="1 or more")
    if not (math.isnan(idle_power_w) or 0 <= idle_power_w < math.inf):
        raise ConfigError(f"{idle_power_w:g} W", where="--idle-power", allowed="0 W or more")
    energy = import_energy(log, format, choice=choice, duration_s=duration_s)
    run = LoggedRun(log=log, energy=energy, requests=requests, idle_power_w=idle_power_w)
    if not math.isnan(idle_power_w) and math.isnan(energy.duration_s):
        raise ConfigError(
            "the log does not tell how long its run took, and joules above idle need it",
            where=log,
            fix="give it as --duration",
        )
    if run.dynamic_energy_j < 0:
        raise ConfigError(
            f"its {energy.energy_j:.6g} J in {energy.duration_s:.6g} s are {run.power_w:.4g} W, "
            f"less than the idle power of {idle_power_w:g} W",
            where=log,
            fix="give the idle power of the domains that are in the log",
        )
    return run


def write_table(path: Path, runs: Sequence[LoggedRun]) -> None:
    """Write the rows as CSV, whole or not at all; what is not known is an empty cell.

    Raises:
        ConfigError: there is a file already, or it cannot be written.
    """
    if path.is_file() or path.is_dir():  # a pipe or a device is written to
        raise ConfigError("there is a file already", where=path, fix="choose another name")
    domains = list(dict.fromkeys(name for run in runs for name in run.energy.domains))
    try:
        with whole_file(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*COLUMNS, *(f"{name}_energy_j" for name in domains)])
            for run in runs:
                row = run.to_json()
                cells = [row[name] for name in COLUMNS]
                cells += [run.energy.domains.get(name) for name in domains]
                # Nine digits are more than any of the tools writes.
                writer.writerow([f"{c:.9g}" if isinstance(c, float) else c for c in cells])
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=path) from error


def _files_below(folder: Path) -> list[Path]:
    """Every file in a folder and below that is not hidden, in order; none where there is none."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise ConfigError(
                f"this folder may not be read: {in_words(error)}",
                where=error.filename,
                fix="let it be read, or name the logs that may be",
            ) from error

    found: list[Path] = []
    for at, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(at, name) for name in names if not name.startswith(".")]
    return sorted(one for one in found if one.is_file())
