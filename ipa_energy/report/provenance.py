"""What the quality of joules means, for the foot of every page."""

from __future__ import annotations

from collections.abc import Iterable

_MEANINGS = {
    "measured": "Measured joules were read from a hardware energy counter while the work ran.",
    "estimated": "Estimated joules were computed from a model (such as CPU time and watts per busy"
    " core), not read from an energy counter: good for comparing plans on one machine, not as"
    " absolute joules.",
    "imported": "Imported joules were taken from another tool or an earlier data set as it was"
    " given.",
}


def meanings(qualities: Iterable[str | None]) -> list[str]:
    """A sentence for each quality that occurs."""
    found = set(qualities)
    return [text for quality, text in _MEANINGS.items() if quality in found]
