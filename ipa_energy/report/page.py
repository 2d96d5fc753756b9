"""One HTML file with everything in it: it opens from a mail, offline, and years later.

The page may load nothing (its content security policy says so), names are escaped by the template,
and the figures' data is JSON that cannot end its script element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ipa_energy.compare import Comparison, RunMetrics, headline
from ipa_energy.compare.table import COLUMNS
from ipa_energy.errors import ConfigError
from ipa_energy.report.figures import all_figures
from ipa_energy.report.palette import RUNS_DARK, RUNS_LIGHT
from ipa_energy.report.series import Drawn
from ipa_energy.runlog.folder import write_atomically
from ipa_energy.runlog.reader import Run

QUALITY_MEANING = {
    "measured": "read from a hardware energy counter while the work ran",
    "estimated": "computed from a model (such as CPU time and watts per busy core), not read from"
    " an energy counter: good for comparing plans on one machine, not as absolute joules",
    "imported": "taken from another tool or an earlier data set as it was given",
}


def drawn_runs(comparison: Comparison, runs: Sequence[Run]) -> list[Drawn]:
    """The runs with their figures and places.

    Raises:
        ConfigError: the comparison is of other runs.
    """
    if len(comparison.runs) != len(runs):
        raise ConfigError(
            f"a comparison of {len(comparison.runs)} runs with {len(runs)} runs to draw",
            fix="give the runs that were compared, in the same order",
        )
    return [
        Drawn(index=index, run=run, metrics=metrics)
        for index, (run, metrics) in enumerate(zip(runs, comparison.runs, strict=True))
    ]


def write_html(comparison: Comparison, runs: Sequence[Run], path: Path) -> Path:
    """Write the comparison as one self-contained HTML file.

    Args:
        comparison: what to show.
        runs: the runs behind ``comparison.runs``, in the same order.
        path: the file; its folder is made.

    Returns:
        ``path``.

    Raises:
        ConfigError: it cannot be written.
    """
    text = render(comparison, drawn_runs(comparison, runs))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text))
    return path


def render(comparison: Comparison, runs: list[Drawn]) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("ipa_energy.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("ipa_energy.report") / "templates"
    figures = all_figures(comparison, runs)
    return environment.get_template("page.html").render(
        headline=headline(comparison).replace(" %", "\u00a0%"),
        comparison=comparison,
        columns=COLUMNS,
        rows=_rows(comparison),
        figures=figures,
        data={
            "colors": {"light": _colors(RUNS_LIGHT), "dark": _colors(RUNS_DARK)},
            "steps": [_steps(drawn) for drawn in runs],
            "figures": [
                {"key": figure.key, "data": figure.data, "layout": figure.layout}
                for figure in figures
            ],
        },
        provenance=[_provenance(drawn) for drawn in runs],
        meanings=_meanings(comparison),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
    )


def _colors(runs: Sequence[str]) -> dict[str, str]:
    """Colours by the names that figures use; stages take them from the other end."""
    colors: dict[str, str] = {}
    for index in range(36):
        stage = runs[(2 + index) % len(runs)]
        colors |= {
            f"run{index}": runs[index % len(runs)],
            f"stage{index}": stage,
            f"stage{index}pale": f"{stage}73",
        }
    return colors


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The metrics table: per row a name, its colour, and per column text, change and sort key."""
    first = comparison.runs[0]

    def cells(run: RunMetrics, *, changes: bool) -> list[dict[str, str]]:
        return [
            {
                "text": column.text(run),
                "change": column.change(run, first) if changes else "",
            }
            for column in COLUMNS
        ]

    rows = [
        {"name": run.name, "detail": run.detail, "color": f"run{index}", "kind": "run"}
        | {"cells": cells(run, changes=run is not first)}
        for index, run in enumerate(comparison.runs)
    ]
    rows += [
        {"name": run.name, "detail": run.detail, "color": None, "kind": "baseline"}
        | {"cells": cells(run, changes=True)}
        for run in comparison.baselines
    ]
    return rows


def _steps(drawn: Drawn) -> dict[str, Any]:
    """When each configuration began, and what it was: the page puts it into every hover."""
    starts: list[float] = []
    labels: list[str] = []
    for step in drawn.run.steps:
        label = step.label or "configuration not logged"
        if step.status == "infeasible":
            label += " (infeasible: plan kept)"
        if not labels or labels[-1] != label:
            starts.append(round(step.start_s, 3))
            labels.append(label)
    metrics = drawn.metrics
    origin = f"{metrics.quality} by {metrics.meter}" if metrics.quality else "no energy"
    return {"starts": starts, "labels": labels, "origin": origin}


def _provenance(drawn: Drawn) -> dict[str, Any]:
    info, metrics = drawn.run.info, drawn.metrics
    facts = {
        "joules": f"{metrics.quality}, by {metrics.meter}"
        if metrics.quality
        else "none in the log",
        "workload": _named(info.workload, drawn.run.workload_digest),
        "profile": _named(info.profile, drawn.run.profile_digest),
        "hardware": info.hardware or "not recorded",
        "backend": info.backend,
        "seed": "none" if info.seed is None else str(info.seed),
        "latency SLA": "none" if info.latency_sla_s is None else f"{info.latency_sla_s:g} s",
        "duration": f"{metrics.duration_s:g} s, a decision every {info.interval_s:g} s",
        "settings": ", ".join(f"{key} {_text(value)}" for key, value in info.settings.items()),
        "infeasible steps": f"{metrics.infeasible_steps} of {metrics.decisions}",
        "status": drawn.run.status,
        "versions": ", ".join(f"{name} {version}" for name, version in info.versions.items()),
        "folder": drawn.run.path.name,
    }
    return {"name": drawn.name, "facts": {key: value for key, value in facts.items() if value}}


def _named(name: str, digest: str | None) -> str:
    known = name or "not recorded"
    return f"{known} (SHA-256 {digest[:12]}…)" if digest else known


def _text(value: object) -> str:
    if isinstance(value, float) and not math.isnan(value):
        return f"{value:g}"
    return "none" if value is None else str(value)


def _meanings(comparison: Comparison) -> dict[str, str]:
    """What each quality in this comparison means."""
    used = {run.quality for run in (*comparison.runs, *comparison.baselines)}
    return {quality: text for quality, text in QUALITY_MEANING.items() if quality in used}
