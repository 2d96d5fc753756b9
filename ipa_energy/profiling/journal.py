"""Every trial of a sweep, one JSON line each, written the moment it ends.

The profile table keeps one row an entry; the journal beside it keeps what the row was computed
from: each batch's latency, each trial's joules, outliers included. It is also how a sweep goes on
after a kill. First line: what must not change while a table grows (machine, meter, versions,
settings). Then one line for each session and each trial.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError, IpaEnergyError
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.trial import Trial


class Journal:
    """The trials of one profile, in memory and on disk.

    Args:
        path: the file; its folder must exist.
        context: what must be equal whenever the file is opened again.

    Raises:
        ConfigError: the file holds something else, or was begun in another context.
    """

    def __init__(self, path: Path, context: Mapping[str, Any]) -> None:
        self.path = path
        self.context = dict(context)
        self.sessions: list[dict[str, Any]] = []
        self.trials: dict[Entry, list[Trial]] = {}
        if path.exists():
            drop_torn_line(path)
        if path.exists() and path.stat().st_size:
            self._read()
        else:
            self._append({"context": self.context})

    def add_session(self, session: dict[str, Any]) -> None:
        """Note that somebody started measuring."""
        self.sessions.append(session)
        self._append({"session": session})

    def add_trial(self, entry: Entry, trial: Trial) -> None:
        """Keep one finished trial; it is on disk when this returns."""
        self._append({"entry": asdict(entry), "trial": asdict(trial)})
        self.trials.setdefault(entry, []).append(trial)

    def _read(self) -> None:
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{self.path}:{number}"
            try:
                record = json.loads(line)
                if number == 1:
                    self._check_context(record["context"])
                elif "session" in record:
                    self.sessions.append(record["session"])
                else:
                    self._take(Entry(**record["entry"]), record["trial"])
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"not a line of a profile's journal: {error!r}",
                    where=where,
                    fix="move the file away, or choose another output",
                ) from error

    def _take(self, entry: Entry, record: dict[str, Any]) -> None:
        if record["load_energy_j"] is None:
            record["load_energy_j"] = math.nan
        self.trials.setdefault(entry, []).append(Trial(**record))

    def _check_context(self, found: Mapping[str, Any]) -> None:
        now = json.loads(_dump(self.context))
        changed = [key for key in {*found, *now} if found.get(key) != now.get(key)]
        if changed:
            key = min(changed)
            raise ConfigError(
                f"the profile was begun with {key} {found.get(key)!r}, and now it is "
                f"{now.get(key)!r}; figures of both in one table could not be compared",
                where=self.path,
                fix="choose another output",
            )

    def _append(self, record: Mapping[str, Any]) -> None:
        append_line(self.path, _dump(record))


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, on disk when this returns, or not at all.

    Raises:
        IpaEnergyError: it cannot be written; what was in the file stays.
    """
    try:
        with path.open("ab") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise
    except OSError as error:
        raise IpaEnergyError(
            f"{path}: cannot write: {error.strerror}; what was measured so far is kept; "
            "fix: make room or give the right, then resume"
        ) from error


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left without its end."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step: readers see the old one or the new one.

    Raises:
        IpaEnergyError: it cannot be written; the old file stays.
    """
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_text(json.dumps(_without_nan(data), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise IpaEnergyError(f"{path}: cannot write: {error.strerror}") from error


def _dump(record: Mapping[str, Any]) -> str:
    return json.dumps(_without_nan(record), separators=(",", ":"))


def _without_nan(value: Any) -> Any:
    """The value with NaN as null, which is what JSON has for "not measured"."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
