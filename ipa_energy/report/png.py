"""The main figures as PNG, for papers and slides: titled, with units and the joules' quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ipa_energy.compare import Comparison
from ipa_energy.report.figure import qualities, slas
from ipa_energy.report.page import drawn_runs
from ipa_energy.report.palette import run_color, scale_color
from ipa_energy.report.series import (
    Drawn,
    Series,
    cumulative_energy,
    latency_distribution,
    latency_percentiles,
    per_second,
    segments,
    stepwise,
    variants_by_accuracy,
)
from ipa_energy.runlog.folder import writing
from ipa_energy.runlog.reader import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECONDS = "time since the start (s)"
DPI = 160
WIDTH_IN, HEIGHT_IN = 8.0, 3.4
Plot = Callable[["Axes"], None]


def write_png(comparison: Comparison, runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the main figures into ``folder``, one PNG each.

    Args:
        comparison: what to show.
        runs: the runs behind ``comparison.runs``, in the same order.
        folder: made if it does not exist; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        ConfigError: they cannot be written.
    """
    drawn = drawn_runs(comparison, runs)
    with_energy = [one for one in drawn if one.has_energy]
    quality = qualities(drawn)
    plots: list[tuple[str, str, list[Drawn], Callable[[Axes, list[Drawn]], None]]] = [
        ("load", "Load offered and predicted", drawn, _load),
        ("power", f"Power ({quality})", with_energy, _power),
        ("energy", f"Energy so far ({quality})", with_energy, _energy),
        ("split", f"Where the joules go ({quality})", with_energy, _split),
        ("accuracy", "Pipeline accuracy", drawn, _accuracy),
        ("cores", "Cores reserved", drawn, _cores),
        ("latency", "End-to-end latency, p99 and p50 of every 10 s", drawn, _latency),
        ("distribution", "Distribution of latency", drawn, _distribution),
    ]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, title, shown, plot in plots:
        if shown:
            figure = _figure(title, HEIGHT_IN)
            axes = figure.subplots()
            plot(axes, shown)
            paths.append(_save(figure, [axes], folder / f"{name}.png"))
    if not math.isnan(comparison.runs[0].joules_per_request):
        figure = _figure(f"Accuracy against energy ({quality})", HEIGHT_IN)
        axes = figure.subplots()
        _trade(axes, comparison)
        paths.append(_save(figure, [axes], folder / "trade.png"))
    stages = max((one.run.info.stages for one in drawn), key=len, default=())
    paths += [_stage(drawn, index, name, folder) for index, name in enumerate(stages)]
    return paths


def _figure(title: str, height_in: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _plain(text: str) -> str:
    """``text`` with no letter that Matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def _save(figure: Figure, axes: Sequence[Axes], path: Path) -> Path:
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(visible=True, color="#e3e6ea", linewidth=0.7)
        one.set_axisbelow(True)
        one.tick_params(labelsize=9)
    handles, labels = [], []
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    if labels:
        figure.legend(
            handles, labels, loc="outside lower left", ncols=4, fontsize=8.5, frameon=False
        )
    with writing(path):
        figure.savefig(path, dpi=DPI, facecolor="white")
    return path


def _draw(
    axes: Axes, drawn: Drawn, series: Series, *, label: str | None = None, style: str = "-"
) -> None:
    axes.plot(
        series.x,
        series.y,
        style,
        color=run_color(drawn.index),
        linewidth=1.2,
        label=_plain(drawn.name if label is None else label),
    )


def _hold(axes: Axes, drawn: Drawn, series: Series) -> None:
    axes.step(
        series.x,
        series.y,
        where="post",
        color=run_color(drawn.index),
        linewidth=1.2,
        label=_plain(drawn.name),
    )


def _titles(axes: Axes, x: str, y: str, *, from_zero: bool = True) -> None:
    axes.set_xlabel(x, fontsize=9.5)
    axes.set_ylabel(y, fontsize=9.5)
    if from_zero:
        axes.set_ylim(bottom=0)


def _load(axes: Axes, runs: list[Drawn]) -> None:
    offered = per_second(runs[0].run.offered_rps, runs[0].run.duration_s)
    axes.fill_between(offered.x, offered.y, color="#d5d9df", linewidth=0, label="offered")
    for drawn in runs:
        _hold(
            axes,
            drawn,
            stepwise(
                drawn.run, lambda step: step.predicted_load_rps if step.start_s > 0 else math.nan
            ),
        )
    _titles(axes, SECONDS, "requests per second")


def _power(axes: Axes, runs: list[Drawn]) -> None:
    for drawn in runs:
        _draw(axes, drawn, per_second(drawn.run.power_w, drawn.run.duration_s))
    _titles(axes, SECONDS, "power (W)")


def _energy(axes: Axes, runs: list[Drawn]) -> None:
    for drawn in runs:
        series = cumulative_energy(drawn.run)
        _draw(axes, drawn, Series(series.x, series.y / 1000))
    _titles(axes, SECONDS, "energy (kJ)")


def _split(axes: Axes, runs: list[Drawn]) -> None:
    places = np.arange(len(runs))
    left = np.zeros(len(runs))
    for index, name in enumerate(runs[0].run.info.stages):
        for part, alpha in (("idle", 0.45), ("dynamic", 1.0)):
            joules = np.array(
                [
                    sum(
                        getattr(step.stages[index], f"{part}_j")
                        for step in drawn.run.steps
                        if step.stages
                    )
                    / max(1, drawn.metrics.served)
                    for drawn in runs
                ]
            )
            axes.barh(
                places,
                joules,
                left=left,
                height=0.5,
                color=run_color(index + 2),
                alpha=alpha,
                label=_plain(f"{name}, {part}"),
            )
            left += np.nan_to_num(joules)
    axes.set_yticks(places, [_plain(drawn.name) for drawn in runs])
    axes.invert_yaxis()
    axes.set_xlabel("joules per request (J)", fontsize=9.5)


def _accuracy(axes: Axes, runs: list[Drawn]) -> None:
    for drawn in runs:
        _hold(axes, drawn, stepwise(drawn.run, lambda step: step.accuracy_raw))
    _titles(axes, SECONDS, "pipeline accuracy", from_zero=False)


def _cores(axes: Axes, runs: list[Drawn]) -> None:
    for drawn in runs:
        if len(drawn.run.cores):
            _hold(axes, drawn, per_second(drawn.run.cores, drawn.run.duration_s))
        else:
            _hold(axes, drawn, stepwise(drawn.run, lambda step: step.cores))
    _titles(axes, SECONDS, "cores")


def _latency(axes: Axes, runs: list[Drawn]) -> None:
    for drawn in runs:
        _, (p50, p99) = latency_percentiles(drawn.run, (50, 99))
        _draw(axes, drawn, p99, label=f"{drawn.name}, p99")
        _draw(axes, drawn, p50, label=f"{drawn.name}, p50", style=":")
    for sla_s in slas(runs):
        axes.axhline(sla_s, color="black", linestyle="--", linewidth=1, label=f"SLA {sla_s:g} s")
    _titles(axes, SECONDS, "latency (s)")


def _distribution(axes: Axes, runs: list[Drawn]) -> None:
    for drawn in runs:
        series = latency_distribution(drawn.run)
        _draw(axes, drawn, Series(series.x, 100 * series.y))
    for sla_s in slas(runs):
        axes.axvline(sla_s, color="black", linestyle="--", linewidth=1, label=f"SLA {sla_s:g} s")
    _titles(axes, "latency (s)", "requests answered (%)")
    axes.set_xlim(left=0)


def _trade(axes: Axes, comparison: Comparison) -> None:
    marked = [(run, run_color(index), "o") for index, run in enumerate(comparison.runs)]
    colors = {run.name: run_color(index) for index, run in enumerate(comparison.runs)}
    for baselines, symbol in ((comparison.static_best, "D"), (comparison.oracle, "*")):
        marked += [(run, colors.get(name, "#667080"), symbol) for name, run in baselines.items()]
    for run, color, marker in marked:
        axes.plot(
            run.joules_per_request,
            run.accuracy_mean,
            marker,
            color=color,
            markerfacecolor=color if marker == "o" else "none",
            markersize=9,
            label=_plain(run.name),
        )
    _titles(axes, "joules per request (J)", "mean accuracy", from_zero=False)


def _stage(runs: list[Drawn], stage: int, name: str, folder: Path) -> Path:
    """Variant strips, and batch and replicas beneath."""
    figure = _figure(f"Stage {name}: variant, batch and replicas", HEIGHT_IN + 0.3 * len(runs) + 1)
    strips, batch, replicas = figure.subplots(
        3, 1, sharex=True, height_ratios=[0.25 * len(runs) + 0.4, 1, 1]
    )
    variants = variants_by_accuracy(runs, stage)
    last = max(1, len(variants) - 1)
    for row, drawn in enumerate(runs):
        for segment in segments(drawn.run, stage):
            strips.barh(
                row,
                segment.end_s - segment.start_s,
                left=segment.start_s,
                height=0.7,
                color=scale_color(variants.index(segment.variant) / last),
            )
        for axes, knob in ((batch, "batch"), (replicas, "replicas")):
            series = stepwise(
                drawn.run,
                lambda step, knob=knob: (  # type: ignore[misc]
                    float(getattr(step.stages[stage], knob)) if len(step.stages) > stage else np.nan
                ),
            )
            _hold(axes, drawn, series)
    for position, variant in enumerate(variants):
        strips.barh([0], [0], color=scale_color(position / last), label=_plain(variant))
    strips.set_yticks(range(len(runs)), [_plain(drawn.name) for drawn in runs])
    strips.invert_yaxis()
    batch.set_ylabel("batch", fontsize=9.5)
    replicas.set_ylabel("replicas", fontsize=9.5)
    replicas.set_xlabel(SECONDS, fontsize=9.5)
    for axes in (batch, replicas):
        axes.set_ylim(bottom=0)
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return _save(figure, [strips, batch, replicas], folder / f"stage-{stage}-{safe}.png")
