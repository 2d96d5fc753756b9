"""What users of the pipeline saw: load, accuracy, cores and latency."""

from __future__ import annotations

import math

import numpy as np

from ipa_energy.report.figure import (
    SECONDS,
    Figure,
    Json,
    axis_of,
    line_of,
    name_of,
    rounded,
    slas,
    times,
)
from ipa_energy.report.series import (
    Drawn,
    Series,
    latency_distribution,
    latency_percentiles,
    per_second,
    stepwise,
)


def load_figure(runs: list[Drawn]) -> Figure:
    """Offered load, and what each run expected."""
    first = runs[0]
    offered = per_second(first.run.offered_rps, first.run.duration_s)
    data: list[Json] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "offered",
            "x": times(offered.x),
            "y": rounded(offered.y),
            "line": {"color": "@muted", "width": 1},
            "fill": "tozeroy",
            "fillcolor": "@faint",
            "hovertemplate": "offered at %{x:.0f} s: <b>%{y:.4~g} rps</b><extra></extra>",
        }
    ]
    for drawn in runs:
        predicted = stepwise(
            drawn.run, lambda step: step.predicted_load_rps if step.start_s > 0 else math.nan
        )
        line = line_of(drawn, predicted, unit="rps", name="predicted")
        line["line"]["shape"] = "hv"
        data.append(line)
    return Figure(
        "load",
        "Load",
        "Requests offered each second (area), and the load that each run predicted for the next"
        " interval (lines).",
        data,
        {"xaxis": axis_of(SECONDS), "yaxis": axis_of("requests per second")},
    )


def cores_figure(runs: list[Drawn]) -> Figure:
    """Reserved cores over time."""
    data = []
    for drawn in runs:
        series = (
            per_second(drawn.run.cores, drawn.run.duration_s)
            if len(drawn.run.cores)
            else stepwise(drawn.run, lambda step: step.cores)
        )
        line = line_of(drawn, series, unit="cores")
        line["line"]["shape"] = "hv"
        data.append(line)
    return Figure(
        "cores",
        "Cores",
        "Cores reserved by all replicas, those that start or drain included.",
        data,
        {"xaxis": axis_of(SECONDS), "yaxis": axis_of("cores")},
    )


def accuracy_figure(runs: list[Drawn]) -> Figure:
    """Pipeline accuracy over time."""
    data = []
    for drawn in runs:
        raw = stepwise(drawn.run, lambda step: step.accuracy_raw)
        if np.isnan(raw.y).all():
            raw = stepwise(drawn.run, lambda step: step.terms["accuracy"])
        line = line_of(drawn, raw, unit="")
        line["line"]["shape"] = "hv"
        data.append(line)
    return Figure(
        "accuracy",
        "Accuracy",
        "Accuracy of the whole pipeline under the plan in force, from the variants' own figures"
        " (for logs without those: the accuracy term of the objective).",
        data,
        {"xaxis": axis_of(SECONDS), "yaxis": axis_of("pipeline accuracy", rangemode="normal")},
    )


def latency_figure(runs: list[Drawn]) -> Figure:
    """Latency percentiles over time, the SLA and drops."""
    data: list[Json] = []
    for drawn in runs:
        drops, (p50, p99) = latency_percentiles(drawn.run, (50, 99))
        data.append(line_of(drawn, p99, unit="s", name="p99"))
        data.append(line_of(drawn, p50, unit="s", name="p50", dash="dot"))
        if drops.any():
            data.append(
                {
                    "type": "bar",
                    "name": f"{name_of(drawn)} dropped",
                    "legendgroup": f"run{drawn.index}",
                    "showlegend": False,
                    "x": times(p50.x),
                    "y": rounded(drops),
                    "yaxis": "y2",
                    "marker": {"color": f"@run{drawn.index}", "line": {"width": 0}},
                    "hovertemplate": f"<b>{name_of(drawn)}</b><br>%{{x:.0f}} s:"
                    " <b>%{y} dropped</b><extra></extra>",
                }
            )
    for sla_s in slas(runs):
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"SLA {sla_s:g} s",
                "x": [0, max(drawn.run.duration_s for drawn in runs)],
                "y": [sla_s, sla_s],
                "line": {"color": "@text", "width": 1.2, "dash": "dash"},
                "hovertemplate": f"latency SLA: <b>{sla_s:g} s</b><extra></extra>",
            }
        )
    return Figure(
        "latency",
        "Latency",
        "End-to-end latency of answered requests by time of sending, p99 (solid) and p50 (dotted)"
        " of every 10 s, and the SLA (dashed). Bars beneath: requests dropped.",
        data,
        {
            "xaxis": axis_of(SECONDS, anchor="y2"),
            "yaxis": axis_of("latency (s)", domain=[0.3, 1]),
            "yaxis2": axis_of("drops", domain=[0, 0.2], nticks=3),
        },
        height=380,
    )


def distribution_figure(runs: list[Drawn]) -> Figure:
    """Cumulative distribution of latency."""
    data = []
    for drawn in runs:
        series = latency_distribution(drawn.run)
        line = line_of(drawn, Series(series.x, 100 * series.y), unit="%")
        del line["meta"]
        line["x"] = rounded(series.x)
        line["hovertemplate"] = (
            f"<b>{name_of(drawn)}</b><br>%{{y:.4~g}} % of all requests"
            " within <b>%{x:.4~g} s</b><extra></extra>"
        )
        data.append(line)
    data += [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"SLA {sla_s:g} s",
            "x": [sla_s, sla_s],
            "y": [0, 100],
            "line": {"color": "@text", "width": 1.2, "dash": "dash"},
            "hovertemplate": f"latency SLA: <b>{sla_s:g} s</b><extra></extra>",
        }
        for sla_s in slas(runs)
    ]
    return Figure(
        "distribution",
        "Distribution of latency",
        "Share of all requests answered within a latency; a line that ends below 100 % lost the"
        " rest.",
        data,
        {
            "xaxis": axis_of("latency (s)"),
            "yaxis": axis_of("requests answered (%)", range=[0, 101]),
            "hovermode": "closest",
        },
    )
