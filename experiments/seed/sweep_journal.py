"""Every run of a sweep, one JSON line each, on disk the moment it ends; it is only added to.

Its lines::

    {"context": …}      what every figure depends on: command, machine, meter, settings
    {"session": …}      somebody started measuring
    {"run": …}          one run, whatever became of it
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweep_file import Point, Value

from ipa_energy.errors import ConfigError
from ipa_energy.jsonl import append_line, drop_torn_line, sealed, take_lines

NAME = "journal.jsonl"

Outcome = Literal["done", "failed", "timeout", "too-short", "unread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the command at one point.

    Attributes:
        point: the parameters' values.
        trial: 0, 1, …: which of the point's.
        outcome: ``done``, or why there are no figures: the command ``failed``, took too long
            (``timeout``), was ``too-short`` for the meter, or its output could not be read
            (``unread``).
        reason: of an outcome other than ``done``, naming the command.
        exit_status: as a shell gives it; None if it was stopped.
        energy_j: of the whole process tree, its start included; None without a figure.
        dynamic_energy_j: of it above idle; None without idle windows.
        duration_s: of the whole process.
        cpu_s: CPU seconds of the process tree.
        meter, quality: provenance of the joules.
        foreign_load: share of the cores that others used, above the idle windows'.
        fields: what was parsed from the output.
        started_utc: ISO time.
        output: the end of what it printed, kept where there are no figures.
    """

    point: Point
    trial: int
    outcome: Outcome
    reason: str = ""
    exit_status: int | None = None
    energy_j: float | None = None
    dynamic_energy_j: float | None = None
    duration_s: float | None = None
    cpu_s: float | None = None
    meter: str = ""
    quality: str = ""
    foreign_load: float | None = None
    fields: dict[str, float | None] = field(default_factory=dict)
    started_utc: str = ""
    output: str = ""


class SweepJournal:
    """The runs of one sweep, in memory and on disk.

    Args:
        path: the file; its folder must exist.

    Raises:
        ConfigError: the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.context: dict[str, Any] = {}
        self.sessions: list[dict[str, Any]] = []
        self.runs: list[Run] = []
        self._lines = 0
        if path.exists():
            self._read()

    def begin(self, context: Mapping[str, Any], session: Mapping[str, Any]) -> None:
        """Start adding runs.

        Raises:
            ConfigError: what is there was measured under other conditions.
        """
        now = json.loads(json.dumps(context))
        if self.context and self.context != now:
            raise ConfigError(
                f"the sweep was begun with {_difference(self.context, now)}; figures of both could "
                "not be compared",
                where=self.path,
                fix="choose another output",
            )
        if self.path.exists():
            drop_torn_line(self.path)
        if not self.context:
            self._append({"context": now})
            self.context = now
        self._append({"session": dict(session)})

    def add(self, run: Run) -> None:
        """Keep a run; it is on disk when this returns."""
        self._append({"run": {**asdict(run), "point": dict(run.point)}})
        self.runs.append(run)

    def finished(self, *, retry_failed: bool) -> set[tuple[Point, int]]:
        """(point, trial) of runs that need not be done again."""
        return {
            (run.point, run.trial) for run in self.runs if run.outcome == "done" or not retry_failed
        }

    def latest(self) -> list[Run]:
        """The last run of every (point, trial): one that was tried again replaces its failure."""
        return list({(run.point, run.trial): run for run in self.runs}.values())

    def _read(self) -> None:
        lines = self.path.read_bytes().split(b"\n")
        whole = lines[:-1]  # the last is empty, or torn by a kill
        self._lines = take_lines(whole, self._take, path=self.path, owner="sweep")

    def _take(self, record: dict[str, Any]) -> None:
        if "context" in record:
            self.context = record["context"]
        elif "session" in record:
            self.sessions.append(record["session"])
        else:
            run = record["run"]
            run["point"] = _point(run["point"])
            self.runs.append(Run(**run))

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False, separators=(",", ":"))
        append_line(self.path, sealed(line, self._lines + 1))
        self._lines += 1


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a sweep's folder; gives the lock's descriptor, for children that should hold it too.

    A killed sweep leaves the run that it had started; the lock is free when that has ended as well.

    Raises:
        ConfigError: somebody else holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                "another sweep, or a run that it left behind, is at work here",
                where=folder,
                fix="wait for its end, or choose another output",
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def number(value: Any) -> float:
    """A figure of a run; NaN for None."""
    return math.nan if value is None else float(value)


def label(point: Point) -> str:
    """A point in words: ``weights=yolov5n batch=8``."""
    return " ".join(f"{name}={value}" for name, value in point)


def _point(values: Mapping[str, Value]) -> Point:
    return tuple(values.items())


def _difference(found: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    key = min(key for key in {*found, *now} if found.get(key) != now.get(key))
    return f"{key} {found.get(key)!r}, and now it is {now.get(key)!r}"
