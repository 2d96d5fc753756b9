"""Every trial of a sweep, one JSON line each, written the moment it ends.

The profile table keeps one row an entry; the journal beside it keeps what the row was computed
from: each batch's latency, each trial's joules, outliers included. It is also how a sweep goes on
after a kill. Nothing is ever taken out of it. Its lines, each sealed (:mod:`ipa_energy.jsonl`) ::

    {"context": …}         what every later figure depends on: machine, meter, versions, settings
    {"inputs": …}          what the later figures of the named variants depend on
    {"session": …}         somebody started measuring
    {"entry": …, "trial": …}
    {"superseded": ENTRY, "reason": …}     its trials so far no longer count
    {"redone": ENTRY, "started_utc": …}    nor does this one: others used its cores meanwhile
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.jsonl import append_line, drop_torn_line, dump_line, sealed, take_lines
from ipa_energy.pipeline_models import Variant
from ipa_energy.profiling.charging import PartEnergy
from ipa_energy.profiling.grid import Entry
from ipa_energy.profiling.trial import Trial

GONE = "the pipeline has no more "
"""How the reason begins when trials are set aside because their variant is gone."""


class Journal:
    """The trials of one profile, in memory and on disk.

    Args:
        path: the file; its folder must exist.
        context: what every figure depends on: machine, meter, versions, settings.
        inputs: what the figures of each variant depend on.

    Raises:
        ConfigError: the file holds something else.
    """

    def __init__(self, path: Path, context: Mapping[str, Any], inputs: Inputs) -> None:
        self.path = path
        self.context: dict[str, Any] = {}
        self.inputs: Inputs = {}
        self.sessions: list[dict[str, Any]] = []
        self.trials: dict[Entry, list[Trial]] = {}
        self.superseded: dict[Entry, list[str]] = {}
        self.redone: dict[Entry, list[str]] = {}
        self._now: dict[str, Any] = json.loads(dump_line(context))
        self._inputs_now: Inputs = json.loads(dump_line(inputs))
        self._lines = 0
        if path.exists():
            drop_torn_line(path)
        if path.exists() and path.stat().st_size:
            lines = path.read_bytes().splitlines()
            self._lines = take_lines(lines, self._take, path=path, owner="profile")

    def changes(self) -> dict[Entry, str]:
        """Entries whose trials were measured under other conditions than now → what changed."""
        by_context = _difference(self.context, self._now) if self.context else None
        if by_context is not None:
            return dict.fromkeys(self.trials, by_context)
        found = {}
        for entry in self.trials:
            key = variant_key(entry.stage, entry.variant)
            if key not in self._inputs_now:
                found[entry] = f"{GONE}{key}"
            elif key in self.inputs:  # journals of older versions do not say
                change = _difference(self.inputs[key], self._inputs_now[key])
                if change is not None:
                    found[entry] = change
        return found

    def require_unchanged(self) -> None:
        """Refuse to add to trials that were measured under other conditions.

        Raises:
            ConfigError: with what changed, and how to go on.
        """
        change = _difference(self.context, self._now) if self.context else None
        by_entry = {e: why for e, why in self.changes().items() if not why.startswith(GONE)}
        if change is None and by_entry:
            entry = min(by_entry)
            change = f"{entry.stage}/{entry.variant}, whose {by_entry[entry]}"
        if change is not None:
            raise ConfigError(
                f"the profile was begun with {change}; figures of both in one table could not be "
                "compared",
                where=self.path,
                fix="choose another output, or measure anew what changed (--only-changed)",
            )

    def begin(self, stale: Mapping[Entry, str]) -> None:
        """Set aside the trials of ``stale`` entries and note the conditions of what follows.

        The trials stay in the file. They are set aside before the new conditions are written: a
        kill between the two leaves nothing that could pass for measured under the new ones.

        Args:
            stale: entry → what changed since; all of :meth:`changes`, or none if there are none
                but those of variants that are gone.
        """
        for entry, reason in stale.items():
            self._append({"superseded": asdict(entry), "reason": reason})
            self._set_aside(entry, reason)
        if self.context != self._now:
            self._append({"context": self._now})
            self.context = self._now
        new = {
            key: found for key, found in self._inputs_now.items() if self.inputs.get(key) != found
        }
        if new:
            self._append({"inputs": new})
            self.inputs |= new

    def redo_contended(self) -> int:
        """Set aside every trial during which others used its cores; how many there were.

        They stay in the file, and :attr:`redone` names them by the time they started.
        """
        contended = [
            (entry, trial.started_utc)
            for entry, trials in self.trials.items()
            for trial in trials
            if trial.contended
        ]
        for entry, started_utc in contended:
            self._append({"redone": asdict(entry), "started_utc": started_utc})
            self._redo(entry, started_utc)
        return len(contended)

    def add_session(self, session: dict[str, Any]) -> None:
        """Note that somebody started measuring."""
        self.sessions.append(session)
        self._append({"session": session})

    def add_trial(self, entry: Entry, trial: Trial) -> None:
        """Keep one finished trial; it is on disk when this returns."""
        self._append({"entry": asdict(entry), "trial": asdict(trial)})
        self.trials.setdefault(entry, []).append(trial)

    def _take(self, record: dict[str, Any]) -> None:
        if "context" in record:
            self.context = record["context"]
        elif "inputs" in record:
            self.inputs |= record["inputs"]
        elif "session" in record:
            self.sessions.append(record["session"])
        elif "superseded" in record:
            self._set_aside(Entry(**record["superseded"]), record["reason"])
        elif "redone" in record:
            self._redo(Entry(**record["redone"]), record["started_utc"])
        else:
            self.trials.setdefault(Entry(**record["entry"]), []).append(_trial(record["trial"]))

    def _set_aside(self, entry: Entry, reason: str) -> None:
        self.trials.pop(entry, None)
        self.superseded.setdefault(entry, []).append(reason)

    def _redo(self, entry: Entry, started_utc: str) -> None:
        left = [
            trial
            for trial in self.trials.pop(entry, [])
            if not (trial.contended and trial.started_utc == started_utc)
        ]
        if left:
            self.trials[entry] = left
        self.redone.setdefault(entry, []).append(started_utc)

    def _append(self, record: Mapping[str, Any]) -> None:
        append_line(self.path, sealed(dump_line(record), self._lines + 1))
        self._lines += 1


def _trial(record: dict[str, Any]) -> Trial:
    """A trial from its JSON, in which NaN is null."""
    parts = {
        name: PartEnergy(**part | {"load_energy_j": _number(part["load_energy_j"])})
        for name, part in record.get("parts", {}).items()
    }
    load_energy_j = _number(record["load_energy_j"])
    return Trial(**record | {"load_energy_j": load_energy_j, "parts": parts})


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _difference(found: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first difference in words, as deep as it is; None if there is none."""
    changed = [key for key in {*found, *now} if found.get(key) != now.get(key)]
    if not changed:
        return None
    key = min(changed)
    one, other = found.get(key), now.get(key)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return f"{key}: {_difference(one, other)}"
    if key not in found:
        return f"no {key} (another version or kind of profile), and now it is {other!r}"
    if key not in now:
        return f"{key} {one!r}, and now there is none"
    return f"{key} {one!r}, and now it is {other!r}"


Inputs = dict[str, dict[str, Any]]
"""``stage/variant`` → its inputs, as JSON has them."""

RANDOM_WEIGHTS = "random"


def inputs_of(variants: Sequence[Variant], weights: Mapping[str, str]) -> Inputs:
    """The inputs of every variant; weights by their content, not their name.

    Args:
        variants: all of the pipeline's.
        weights: variant → weights file.

    Raises:
        ConfigError: a weights file cannot be read, or is for no variant of the pipeline.
    """
    stray = sorted(set(weights) - {variant.name for variant in variants})
    if stray:
        raise ConfigError(
            f"weights for {stray[0]}, which the pipeline does not have",
            allowed=", ".join(variant.name for variant in variants),
        )
    return {
        variant_key(variant.stage, variant.name): {
            "accuracy": variant.accuracy,
            "input_shape": list(variant.input_shape),
            "weights": weights_digest(weights[variant.name])
            if variant.name in weights
            else RANDOM_WEIGHTS,
        }
        for variant in variants
    }


def variant_key(stage: str, variant: str) -> str:
    """How a variant is named in the journal and the meta file."""
    return f"{stage}/{variant}"


def weights_digest(path: str) -> str:
    """``sha256:…`` of a weights file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ConfigError(f"cannot read weights: {error.strerror}", where=path) from error
