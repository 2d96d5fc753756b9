"""The carbon of runs over the day: intensity, watts, grams and variants above one time axis."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ipa_energy.comparing.carbon_table import carbon_of_run, pues_of_sites
from ipa_energy.energy import JOULES_PER_KWH
from ipa_energy.report.figure import Axis, Figure, Mark
from ipa_energy.report.run_figures import variant_strips
from ipa_energy.report.run_series import (
    MOST_POINTS,
    Drawn,
    Series,
    line_of,
    per_second,
    qualities,
    stepwise,
    time_axis,
)
from ipa_energy.runlog.reader import Run
from ipa_energy.runlog.step import Step

LINES_PX = 110.0
STRIP_PX = 22.0
LINE_PANELS = (
    Axis("intensity (g/kWh)", from_zero=True, share=LINES_PX),
    Axis("power (W)", from_zero=True, share=LINES_PX),
    Axis("carbon (g/h)", from_zero=True, share=LINES_PX),
)


def carbon_figures(runs: list[Drawn]) -> list[Figure]:
    """What a kilowatt-hour emitted and what runs did then; none if no run counted grams."""
    shown = [drawn for drawn in runs if carbon_of_run(drawn.metrics)]
    if not shown:
        return []
    stages = max((drawn.run.info.stages for drawn in shown), key=len)
    marks: list[Mark] = [mark for drawn in shown for mark in _lines(drawn)]
    for stage, name in enumerate(stages):
        marks += variant_strips(
            shown, stage, panel=len(LINE_PANELS) + stage, prefix=f"{name}: ", knobs=False
        )
    strips = STRIP_PX * len(shown) + 8
    names = tuple(drawn.name for drawn in shown)
    return [
        Figure(
            key="carbon",
            title="Carbon over the day",
            caption="From top to bottom: grams of CO2 equivalent a kilowatt-hour, as decisions knew"
            " them, of several sites the mean of their joules; mean watts of all stages, idle"
            " included; grams an hour at the site's meter, in each interval; and the variants of"
            f" {', '.join(stages)}, dark the least accurate, light"
            f" the most. Watts, and the joules behind the grams, are {qualities(shown)}.",
            marks=marks,
            x=time_axis(shown),
            y=(*LINE_PANELS, *(Axis("", categories=names, share=strips) for _ in stages)),
            overlay=True,
            height=int(1.3 * LINES_PX * len(LINE_PANELS) + (strips + 12) * len(stages)),
        )
    ]


def _lines(drawn: Drawn) -> list[Mark]:
    watts = per_second(drawn.run.power_w, drawn.run.duration_s)
    grams = _grams_an_hour(drawn.run)
    pues = pues_of_sites(drawn.metrics)
    return [
        line_of(drawn, stepwise(drawn.run, lambda step: _intensity(step, pues)), step=True),
        line_of(drawn, watts, legend=False, panel=1, joules=drawn.joules),
        line_of(drawn, grams, step=True, legend=False, panel=2, joules=drawn.joules),
    ]


def _intensity(step: Step, pues: Mapping[str, float]) -> float:
    """As known; of several sites the mean of their joules at the sites' meters, as in the table."""
    at_meters_j = sum(joules * pues.get(name, 1.0) for name, (joules, _) in step.sites.items())
    if at_meters_j > 0:
        return step.grams / at_meters_j * JOULES_PER_KWH
    return step.signals.get("g_per_kwh", math.nan)


def _grams_an_hour(run: Run) -> Series:
    """The mean of each interval, of a long run of equal blocks of them, as watts are."""
    steps = [step for step in run.steps if step.start_s < run.duration_s and step.duration_s]
    if len(steps) <= MOST_POINTS:
        return stepwise(run, lambda s: s.grams / s.duration_s * 3600 if s.duration_s else math.nan)
    so_far_g = np.cumsum([0.0, *(step.grams for step in steps)])
    at_s = np.array([steps[0].start_s, *(step.end_s for step in steps)])
    edges_s = np.linspace(at_s[0], run.duration_s, MOST_POINTS)
    rates = np.diff(np.interp(edges_s, at_s, so_far_g)) / np.diff(edges_s) * 3600
    return Series(edges_s, np.append(rates, rates[-1]))
