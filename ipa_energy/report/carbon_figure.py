"""The grams of runs over time, beside what a kilowatt-hour emitted then."""

from __future__ import annotations

import math

from ipa_energy.comparing.carbon_table import carbon_of_run
from ipa_energy.report.figure import Axis, Figure
from ipa_energy.report.run_series import Drawn, line_of, qualities, stepwise, time_axis
from ipa_energy.runlog.step import Step


def carbon_figures(runs: list[Drawn]) -> list[Figure]:
    """Intensity, and grams an hour; none if no run counted grams."""
    shown = [drawn for drawn in runs if carbon_of_run(drawn.metrics)]
    if not shown:
        return []
    return [
        Figure(
            key="intensity",
            title="What a kilowatt-hour emitted",
            caption="Grams of CO2 equivalent a kilowatt-hour, as decisions knew them.",
            marks=[line_of(drawn, stepwise(drawn.run, _intensity)) for drawn in shown],
            x=time_axis(shown),
            y=Axis("intensity (g/kWh)", from_zero=True),
        ),
        Figure(
            key="carbon",
            title="What was emitted",
            caption="Grams of CO2 equivalent an hour, at the site's meter, in each interval; the"
            f" joules behind them are {qualities(shown)}.",
            marks=[
                line_of(drawn, stepwise(drawn.run, _grams_an_hour), joules=drawn.joules)
                for drawn in shown
            ],
            x=time_axis(shown),
            y=Axis("carbon (g/h)", from_zero=True),
        ),
    ]


def _intensity(step: Step) -> float:
    return step.signals.get("g_per_kwh", math.nan)


def _grams_an_hour(step: Step) -> float:
    return step.grams / step.duration_s * 3600 if step.duration_s else math.nan
