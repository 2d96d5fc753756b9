"""Where the joules of a whole profile come from."""

from __future__ import annotations

from collections.abc import Sequence

from ipa_energy.records import Quality, Stage, weakest_quality


def has_energy(stages: Sequence[Stage]) -> bool:
    """True if every option of every stage has joules."""
    return all(option.has_energy for stage in stages for option in stage.options)


def meter_of(stages: Sequence[Stage]) -> str | None:
    """The meters behind the joules, joined by ``+``; None without energy."""
    options = [option for stage in stages for option in stage.options]
    return "+".join(sorted({o.provenance.meter for o in options if o.provenance})) or None


def quality_of(stages: Sequence[Stage]) -> Quality | None:
    """The weakest quality of the joules; None if any option has none."""
    if not has_energy(stages):
        return None
    options = [option for stage in stages for option in stage.options]
    return weakest_quality([o.provenance.quality for o in options if o.provenance])
