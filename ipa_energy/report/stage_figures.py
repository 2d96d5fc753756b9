"""What each stage ran: variants as strips, batch and replicas as steps."""

from __future__ import annotations

import html
import math

from ipa_energy.report.figure import (
    SECONDS,
    Figure,
    Json,
    axis_of,
    line_of,
    name_of,
    times,
)
from ipa_energy.report.palette import scale_color
from ipa_energy.report.series import (
    Drawn,
    Series,
    segments,
    stepwise,
    variants_by_accuracy,
)


def stage_figure(runs: list[Drawn], stage: int, name: str) -> Figure:
    """What one stage ran: variant strips, and batch and replicas as steps."""
    variants = variants_by_accuracy(runs, stage)
    last = max(1, len(variants) - 1)
    data: list[Json] = []
    for position, variant in enumerate(variants):
        rows = [
            (drawn, segment)
            for drawn in runs
            for segment in segments(drawn.run, stage)
            if segment.variant == variant
        ]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": html.escape(variant),
                "y": [name_of(drawn) for drawn, _ in rows],
                "base": times([segment.start_s for _, segment in rows]),
                "x": times([segment.end_s - segment.start_s for _, segment in rows]),
                "text": [html.escape(segment.label) for _, segment in rows],
                "textposition": "none",
                "customdata": times([segment.end_s for _, segment in rows]),
                "marker": {"color": scale_color(position / last), "line": {"width": 0}},
                "yaxis": "y3",
                "hovertemplate": "<b>%{y}</b>, %{base:.0f} to %{customdata:.0f} s"
                "<br><b>%{text}</b><extra></extra>",
            }
        )
    for drawn in runs:
        for axis, knob in (("y2", "batch"), ("y", "replicas")):
            series = _knob(drawn, stage, knob)
            line = line_of(drawn, series, unit=knob, yaxis=axis, showlegend=False, legendgroup="")
            line["line"]["shape"] = "hv"
            data.append(line)
    height = 300 + 26 * len(runs)
    strip = 26 * len(runs) / (height - 90)
    return Figure(
        f"stage{stage}",
        f"Stage {name}",
        "Top: the variant each run used, dark the least accurate, light the most. Below: batch"
        " size, and number of replicas.",
        data,
        {
            "barmode": "overlay",
            "bargap": 0.25,
            "hovermode": "closest",
            "xaxis": axis_of(SECONDS, anchor="y"),
            "yaxis": axis_of("replicas", domain=[0, 0.4 * (1 - strip)], nticks=4),
            "yaxis2": axis_of("batch", domain=[0.53 * (1 - strip), 0.88 * (1 - strip)], nticks=4),
            "yaxis3": {
                "domain": [1 - strip, 1],
                "autorange": "reversed",
                "automargin": True,
                "categoryarray": [name_of(drawn) for drawn in runs],
                "ticksuffix": " ",
                "showgrid": False,
            },
        },
        height=height,
    )


def _knob(drawn: Drawn, stage: int, knob: str) -> Series:
    return stepwise(
        drawn.run,
        lambda step: (
            float(getattr(step.stages[stage], knob)) if stage < len(step.stages) else math.nan
        ),
    )
