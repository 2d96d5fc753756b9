"""A comparison of runs to look at: one HTML file, or its figures as files; the figure of carbon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ipa_energy.comparing import Comparison, headline
from ipa_energy.comparing.run_table import hindsight_tables, tables_of
from ipa_energy.comparing.saving_tables import carbon_of_run, pues_of_sites
from ipa_energy.energy import JOULES_PER_KWH
from ipa_energy.errors import ConfigError
from ipa_energy.report.figure import Axis, Figure, Mark
from ipa_energy.report.image import write_images
from ipa_energy.report.live_section import live_figures, live_sections
from ipa_energy.report.page import (
    Configurations,
    Facts,
    Page,
    Section,
    as_title,
    meanings,
    notices,
    setting_text,
    write_page,
)
from ipa_energy.report.run_figures import (
    accuracy_figure,
    cores_figure,
    distribution_figure,
    energy_figure,
    latency_figure,
    load_figure,
    power_figure,
    split_figure,
    stage_figure,
    trade_figure,
    variant_strips,
)
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


def write_html(comparison: Comparison, runs: Sequence[Run], path: Path) -> Path:
    """Write the comparison as one self-contained HTML file.

    Args:
        comparison: what to show.
        runs: the runs behind ``comparison.runs``, in the same order.
        path: the file; its folder is made.

    Returns:
        ``path``.

    Raises:
        ConfigError: it cannot be written, or the comparison is of other runs.
    """
    return write_page(compare_page(comparison, drawn_runs(comparison, runs)), path)


def write_figures(comparison: Comparison, runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write every figure of the comparison into ``folder`` as PNG, SVG and CSV.

    Args:
        comparison: what to show.
        runs: the runs behind ``comparison.runs``, in the same order.
        folder: made if it does not exist; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        ConfigError: they cannot be written, or the comparison is of other runs.
    """
    return write_images(compare_figures(comparison, drawn_runs(comparison, runs)), folder)


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
        Drawn(index=index, run=run, metrics=metrics, count=len(runs))
        for index, (run, metrics) in enumerate(zip(runs, comparison.runs, strict=True))
    ]


def compare_figures(comparison: Comparison, runs: list[Drawn]) -> list[Figure]:
    """Every figure of the page in its order; some may have nothing to draw."""
    return [*_run_figures(comparison, runs), *live_figures(runs)]


def _run_figures(comparison: Comparison, runs: list[Drawn]) -> list[Figure]:
    stages = max((drawn.run.info.stages for drawn in runs), key=len, default=())
    return [
        trade_figure(comparison),
        load_figure(runs),
        power_figure(runs),
        energy_figure(runs),
        *carbon_figures(runs),
        split_figure(runs),
        accuracy_figure(runs),
        cores_figure(runs),
        latency_figure(runs),
        distribution_figure(runs),
        *(stage_figure(runs, index, name) for index, name in enumerate(stages)),
    ]


def compare_page(comparison: Comparison, runs: list[Drawn]) -> Page:
    """The page of a comparison."""
    warnings = Section(title="Before you compare", points=comparison.warnings, kind="warning")
    qualities = {run.quality for run in (*comparison.runs, *comparison.baselines)}
    hindsight = hindsight_tables(comparison)
    sections = [
        Section(
            title="In numbers",
            tables=[table for table in tables_of(comparison) if table not in hindsight],
            notes=notices(run.meter for run in comparison.runs),
        ),
        Section(title="In pictures", figures=_run_figures(comparison, runs)),
        *live_sections(runs),
        *([Section(title="In hindsight", tables=hindsight)] if hindsight else []),
        Section(
            title="Provenance",
            text=meanings(qualities),
            facts=[_facts(drawn) for drawn in runs],
        ),
    ]
    names = ", ".join(run.name for run in comparison.runs)
    return Page(
        kind="Energy comparison",
        title=as_title(headline(comparison, with_rivals=False)),
        name=f"Energy comparison: {names}",
        sections=[warnings, *sections] if comparison.warnings else sections,
        configurations=[_configurations(drawn) for drawn in runs],
    )


def _configurations(drawn: Drawn) -> Configurations:
    """When each configuration began, and what it was: the page puts it into every hover."""
    starts_s: list[float] = []
    labels: list[str] = []
    for step in drawn.run.steps:
        label = step.label or "configuration not logged"
        if step.status == "infeasible":
            label += " (infeasible: plan kept)"
        if not labels or labels[-1] != label:
            starts_s.append(step.start_s)
            labels.append(label)
    return Configurations(starts_s, labels, drawn.joules or "no energy")


def _facts(drawn: Drawn) -> Facts:
    info, metrics = drawn.run.info, drawn.metrics
    facts = {
        "joules": drawn.joules or "none in the log",
        "workload": _named(info.workload, drawn.run.workload_digest),
        "profile": _named(info.profile, drawn.run.profile_digest),
        "hardware": info.hardware or "not recorded",
        "backend": info.backend,
        "seed": "none" if info.seed is None else str(info.seed),
        "latency SLA": "none" if info.latency_sla_s is None else f"{info.latency_sla_s:g} s",
        "duration": f"{metrics.duration_s:g} s, a decision every {info.interval_s:g} s",
        "settings": ", ".join(
            f"{key} {setting_text(value)}" for key, value in info.settings.items()
        ),
        "infeasible steps": f"{metrics.infeasible_steps} of {metrics.decisions}",
        "status": drawn.run.status,
        "versions": ", ".join(f"{name} {version}" for name, version in info.versions.items()),
        "folder": drawn.run.path.name if drawn.run.path else "",
    }
    return Facts(drawn.name, {key: value for key, value in facts.items() if value})


def _named(name: str, digest: str | None) -> str:
    known = name or "not recorded"
    return f"{known} (SHA-256 {digest[:12]}…)" if digest else known


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
