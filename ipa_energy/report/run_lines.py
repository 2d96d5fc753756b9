"""The lines that most figures of runs are made of, and what captions say of the runs."""

from __future__ import annotations

from typing import Any

from ipa_energy.report.figure import Axis, Line
from ipa_energy.report.series import Drawn, Series

SECONDS = Axis("time since the start (s)", from_zero=True)


def line_of(drawn: Drawn, series: Series, name: str = "", **further: Any) -> Line:
    """A line of one run; the configuration at each point is in its hover.

    Args:
        drawn: the run.
        series: its values.
        name: what the line is, after the run's name.
        further: fields of :class:`Line`.
    """
    given = {
        "color": f"run{drawn.index}",
        "group": f"run{drawn.index}",
        "run": drawn.index,
        **further,
    }
    return Line(name=f"{drawn.name} {name}".strip(), x=series.x, y=series.y, **given)


def sla_line(sla_s: float, x: tuple[float, float], y: tuple[float, float]) -> Line:
    """A latency SLA from one point to another."""
    return Line(name=f"SLA {sla_s:g} s", x=x, y=y, color="text", width=1.2, dash="dash")


def slas(runs: list[Drawn]) -> list[float]:
    """The latency SLAs of the runs, seconds, each once."""
    found = {drawn.metrics.latency_sla_s for drawn in runs}
    return sorted(sla_s for sla_s in found if sla_s is not None)


def qualities(runs: list[Drawn]) -> str:
    """Where the joules of the runs come from, for captions."""
    found = {
        (drawn.metrics.quality, drawn.metrics.meter) for drawn in runs if drawn.metrics.quality
    }
    if not found:
        return "no energy in these logs"
    return ", ".join(sorted(f"{quality} by {meter}" for quality, meter in found))
