"""Reports to look at: one HTML file each that needs nothing else, or figures as PNG, SVG and CSV.

::

    write_html(comparison, runs, Path("report.html"))
    write_figures(comparison, runs, Path("figures"))

Reports of trade-off studies are written by ``tradeoff_page``, those of any other experiment by
``experiment_page``; all have one look and one kind of :class:`~ipa_energy.report.figure.Figure`.
"""

from ipa_energy.report.compare_page import write_figures, write_html

__all__ = ["write_figures", "write_html"]
