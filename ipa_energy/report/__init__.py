"""Reports to look at: one HTML file each that needs nothing else, or figures as PNG, SVG and CSV.

::

    write_html(comparison, runs, Path("report.html"))
    write_figures(comparison, runs, Path("figures"))

Reports of trade-off studies are written by ``tradeoff_page``, those of any other experiment by
``page``; all have one look and one kind of :class:`~ipa_energy.report.figure.Figure`. What draws
them is no part of a plain install: ``pip install 'ipa-energy[report]'``.
"""

from __future__ import annotations

from ipa_energy.errors import require
from ipa_energy.report.compare_page import write_figures, write_html

__all__ = ["require_packages", "write_figures", "write_html"]

PACKAGES = {"html": ("jinja2", "plotly", "matplotlib"), "png": ("matplotlib",)}
"""Option of the command line → what it needs; each is imported only where it draws."""


def require_packages(**asked_for: object) -> None:
    """Refuse a report that cannot be drawn here, before any work is done for it.

    Args:
        asked_for: ``html`` and ``png``, by the names of the options; what is None is not asked for.

    Raises:
        UnavailableError: a package is missing.
    """
    for option, path in asked_for.items():
        for package in PACKAGES[option] if path is not None else ():
            require(package, what=f"--{option}", extra="report")
