"""What each stage ran: variants as strips, batch and replicas as steps."""

from __future__ import annotations

import math

from ipa_energy.report.figure import Axis, Bars, Figure, Mark, key_of
from ipa_energy.report.palette import scale_color
from ipa_energy.report.run_lines import SECONDS, line_of
from ipa_energy.report.series import Drawn, Series, segments, stepwise, variants_by_accuracy


def stage_figure(runs: list[Drawn], stage: int, name: str) -> Figure:
    """What one stage ran: variant strips, and batch and replicas as steps."""
    variants = variants_by_accuracy(runs, stage)
    last = max(1, len(variants) - 1)
    marks: list[Mark] = [
        _strips(runs, stage, variant, scale_color(position / last))
        for position, variant in enumerate(variants)
    ]
    for drawn in runs:
        for panel, knob in ((1, "batch"), (2, "replicas")):
            series = _knob(drawn, stage, knob)
            marks.append(line_of(drawn, series, knob, step=True, legend=False, panel=panel))
    strips = 26.0 * len(runs)
    return Figure(
        key=key_of(f"stage-{stage}", name),
        title=f"Stage {name}",
        caption="Top: the variant each run used, dark the least accurate, light the most. Below:"
        " batch size, and number of replicas, in the runs' colours.",
        marks=marks,
        x=SECONDS,
        y=(
            Axis("", categories=tuple(drawn.name for drawn in runs), share=strips),
            Axis("batch", from_zero=True, share=85),
            Axis("replicas", from_zero=True, share=85),
        ),
        overlay=True,
        height=300 + 26 * len(runs),
    )


def _strips(runs: list[Drawn], stage: int, variant: str, color: str) -> Bars:
    """Where the runs used one variant."""
    rows = [
        (drawn, segment)
        for drawn in runs
        for segment in segments(drawn.run, stage)
        if segment.variant == variant
    ]
    return Bars(
        name=variant,
        places=[drawn.name for drawn, _ in rows],
        starts=[segment.start_s for _, segment in rows],
        lengths=[segment.end_s - segment.start_s for _, segment in rows],
        labels=[segment.label for _, segment in rows],
        color=color,
    )


def _knob(drawn: Drawn, stage: int, knob: str) -> Series:
    return stepwise(
        drawn.run,
        lambda step: (
            float(getattr(step.stages[stage], knob)) if stage < len(step.stages) else math.nan
        ),
    )
