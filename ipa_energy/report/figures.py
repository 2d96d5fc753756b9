"""Every figure of the page, in its order."""

from __future__ import annotations

from ipa_energy.compare.comparison import Comparison
from ipa_energy.report.energy_figures import (
    energy_figure,
    power_figure,
    split_figure,
    trade_figure,
)
from ipa_energy.report.figure import Figure, Json
from ipa_energy.report.series import Drawn
from ipa_energy.report.service_figures import (
    accuracy_figure,
    cores_figure,
    distribution_figure,
    latency_figure,
    load_figure,
)
from ipa_energy.report.stage_figures import stage_figure


def all_figures(comparison: Comparison, runs: list[Drawn]) -> list[Figure]:
    """Every figure that these runs have data for, in the order of the page."""
    stages = max((drawn.run.info.stages for drawn in runs), key=len, default=())
    figures = [
        trade_figure(comparison),
        load_figure(runs),
        power_figure(runs),
        energy_figure(runs),
        split_figure(runs),
        accuracy_figure(runs),
        cores_figure(runs),
        latency_figure(runs),
        distribution_figure(runs),
        *(stage_figure(runs, index, name) for index, name in enumerate(stages)),
    ]
    return [figure for figure in figures if any(_drawable(trace) for trace in figure.data)]


def _drawable(trace: Json) -> bool:
    return any(value is not None for value in trace["y"]) and len(trace["x"]) > 0
