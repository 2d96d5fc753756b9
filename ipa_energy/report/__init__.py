"""The comparison to look at: one HTML file that needs nothing else, or PNGs for a paper.

::

    write_html(comparison, runs, Path("report.html"))
    write_png(comparison, runs, Path("figures"))
"""

from ipa_energy.report.page import write_html
from ipa_energy.report.png import write_png

__all__ = ["write_html", "write_png"]
