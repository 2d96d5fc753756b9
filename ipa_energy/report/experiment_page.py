"""The page of any experiment: words, tables and figures in the look of every other report.

::

    from ipa_energy.report.experiment_page import write_experiment_html
    from ipa_energy.report.figure import Axis, Figure, Points
    from ipa_energy.report.section import Facts, Section
    from ipa_energy.tables import Head, Row, Table

    curve = Figure(
        key="energy-latency",
        title="Energy over latency",
        caption="Each point is one batch size, its bar the 95 % interval of three trials.",
        marks=[Points(name="YOLOv5n", x=[0.1, 0.2], y=[3.0, 4.0], y_error=[0.1, 0.2],
                      labels=["YOLOv5n, batch 1", "YOLOv5n, batch 2"], color="run0", hollow=True)],
        x=Axis("latency (s)", from_zero=True),
        y=Axis("energy (J/image)", from_zero=True),
    )
    numbers = Table("Measured", "weights", [Head("energy", "J/image")], [Row("YOLOv5n", [3.0])])
    section = Section(title="Experiment 1", text=["What it shows."], tables=[numbers],
                      figures=[curve], facts=[Facts("Provenance", {"meter": "cpu-time"})])
    write_experiment_html("The answer in a sentence", [section], Path("page.html"))
    write_experiment_figures([section], Path("figures"))

Points with ``hollow=True`` are estimates, filled ones are measurements: name the difference in the
legend too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ipa_energy.report.image import write_images
from ipa_energy.report.page import write_page
from ipa_energy.report.section import Page, Section


def write_experiment_html(
    title: str, sections: Sequence[Section], path: Path, *, kind: str = "Experiment"
) -> Path:
    """Write one self-contained HTML file.

    Args:
        title: the answer in one sentence.
        sections: what follows, in order; keys of figures are unique over all of them.
        path: the file; its folder is made.
        kind: what sort of report it is, small above the title.

    Returns:
        ``path``.

    Raises:
        ConfigError: it cannot be written, or two figures have one key.
    """
    page = Page(kind=kind, title=title, name=f"{kind}: {title}", sections=sections)
    return write_page(page, path)


def write_experiment_figures(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write each figure of the sections into ``folder`` as PNG, SVG and CSV, named by its key.

    Returns:
        The files.

    Raises:
        ConfigError: they cannot be written.
    """
    return write_images([figure for section in sections for figure in section.figures], folder)
