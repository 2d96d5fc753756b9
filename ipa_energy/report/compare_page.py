"""A comparison of runs to look at: one HTML file, or its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ipa_energy.comparing import Comparison, headline
from ipa_energy.comparing.carbon_table import carbon_table
from ipa_energy.comparing.class_table import class_table
from ipa_energy.comparing.run_table import (
    forecasts_of_runs,
    grams_yardstick_table,
    hindsight_table,
    run_table,
    share_table,
    yardstick_table,
)
from ipa_energy.errors import ConfigError
from ipa_energy.report.carbon_figure import carbon_figures
from ipa_energy.report.figure import Figure
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
)
from ipa_energy.report.run_series import Drawn
from ipa_energy.runlog.reader import Run


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
    numbers = (
        run_table(comparison),
        class_table(comparison),
        yardstick_table(comparison),
        grams_yardstick_table(comparison),
        carbon_table(comparison),
        forecasts_of_runs(comparison),
    )
    knowing = [hindsight_table(comparison), share_table(comparison)]
    hindsight = [table for table in knowing if table is not None]
    sections = [
        Section(
            title="In numbers",
            tables=[table for table in numbers if table is not None],
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
