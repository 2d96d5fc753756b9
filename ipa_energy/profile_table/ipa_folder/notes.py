"""``ipa-energy.jsonl``: beside an IPA profiling series, what its format has no place for.

One line an experiment: meter and quality of its joules, trials and interval, and two figures that
IPA keeps as a label or not at all (the true load, the hardware). It is a file of its own because
IPA's parser chokes on texts in ``N.json`` and takes any file whose name begins with an
experiment's number for that experiment; and lines are appended, so a kill costs one of them. Of two
lines for one experiment the later holds.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ipa_energy.config.yaml_source import read_text
from ipa_energy.errors import ConfigError
from ipa_energy.records import QUALITIES, Quality

NOTES_FILE = "ipa-energy.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a series cannot say of one experiment; None where nothing is known.

    Attributes:
        experiment_id: the N of ``N.json``.
        meter: what gave its joules.
        quality: how good they are.
        trials: windows behind them; 0 if a fit predicted them.
        energy_ci95_j: half width of the 95 % interval of the dynamic joules per request.
        load_rps: the load that was served, where the mapper's is a label.
        hardware: what it ran on.
    """

    experiment_id: int
    meter: str | None = None
    quality: Quality | None = None
    trials: int | None = None
    energy_ci95_j: float | None = None
    load_rps: float | None = None
    hardware: str | None = None

    def to_line(self) -> str:
        """The line of this note, with its end."""
        filled = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(filled, allow_nan=False) + "\n"


def read_notes(folder: Path) -> dict[int, Note]:
    """Experiment number → note; empty without the file. A torn last line is passed over.

    Raises:
        ConfigError: a line is no note, with its number and key.
    """
    path = folder / NOTES_FILE
    if not path.exists():
        return {}
    text = read_text(path)
    notes: dict[int, Note] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            document = json.loads(line)
        except ValueError as error:
            if number == len(lines) and not text.endswith("\n"):
                logger.warning("%s: a torn last line is passed over", where)
                continue
            raise ConfigError(f"not JSON: {error}", where=where) from error
        note = _note(document, where)
        notes[note.experiment_id] = note
    return notes


def _note(document: Any, where: str) -> Note:
    names = [field.name for field in fields(Note)]
    if not isinstance(document, dict) or "experiment_id" not in document:
        raise ConfigError("no experiment_id", where=where, allowed=f"a mapping of {names}")
    unknown = sorted(set(document) - set(names))
    if unknown:
        raise ConfigError(f"unknown keys {unknown}", where=where, allowed=", ".join(names))
    for key, value in document.items():
        _check(key, value, where)
    if (document.get("meter") is None) != (document.get("quality") is None):
        raise ConfigError(
            "meter without quality, or quality without meter", where=where, allowed="both, or none"
        )
    return Note(**document)


def _check(key: str, value: Any, where: str) -> None:
    if value is None and key != "experiment_id":
        return
    allowed: Mapping[str, tuple[bool, str]] = {
        "experiment_id": (_is_count(value), "an integer ≥ 0"),
        "trials": (_is_count(value), "an integer ≥ 0"),
        "quality": (value in QUALITIES, " | ".join(QUALITIES)),
        "meter": (_is_name(value), "a name"),
        "hardware": (_is_name(value), "a name"),
        "energy_ci95_j": (_is_amount(value), "a finite number ≥ 0"),
        "load_rps": (_is_amount(value), "a finite number ≥ 0"),
    }
    holds, what = allowed[key]
    if not holds:
        raise ConfigError(f"{key} is {value!r}", where=where, allowed=what)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_amount(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()
