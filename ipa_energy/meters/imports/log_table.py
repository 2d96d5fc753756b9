"""Logs of many runs → a row each: joules, joules per request, and the same above idle.

::

    joules per request            E / N                    idle share included
    dynamic joules per request    (E − P_idle · d) / N     what a profile calls e(o)

for a log of E joules over d seconds in which N requests were served. The logs tell neither N nor
the idle power P_idle: whoever took them knows.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.as_json import or_none
from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file
from ipa_energy.meters.imports.imported import ImportedEnergy, LogFormat, import_energy
from ipa_energy.meters.imports.power_log import PowerLogChoice

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
        return {
            "log": str(self.log),
            "format": self.energy.format,
            "meter": self.energy.meter,
            "quality": self.energy.quality,
            "energy_j": self.energy.energy_j,
            "duration_s": or_none(self.energy.duration_s),
            "power_w": or_none(self.power_w),
            "requests": self.requests,
            "joules_per_request": or_none(self.per_request_j(self.energy.energy_j)),
            "idle_power_w": or_none(self.idle_power_w),
            "dynamic_energy_j": or_none(self.dynamic_energy_j),
            "dynamic_joules_per_request": or_none(self.per_request_j(self.dynamic_energy_j)),
            "domains": dict(self.energy.domains),
            "source": self.energy.source,
        }


def logs_in(paths: Sequence[Path]) -> list[Path]:
    """The files, and every file in the folders and below, each once; hidden ones left out.

    Raises:
        ConfigError: a path is not there, or a folder has no file in it.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path] if path.is_file() else sorted(path.rglob("*"))
        files = [one for one in inside if one.is_file() and not _hidden(one, path)]
        if not files:
            what = "a folder without files" if path.is_dir() else "no such file or folder"
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
    """One log as a row; the arguments are those of :func:`.imported.import_energy`.

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
    if path.exists():
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
                writer.writerow([_cell(value) for value in cells])
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=path) from error


def _hidden(file: Path, top: Path) -> bool:
    within = file.relative_to(top).parts if file != top else ()
    return any(part.startswith(".") for part in within)


def _cell(value: Any) -> Any:
    """Figures to nine digits, which is more than any of the tools writes."""
    return f"{value:.9g}" if isinstance(value, float) else value
