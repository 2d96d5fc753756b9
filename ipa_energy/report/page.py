"""One HTML file with everything in it: it opens from a mail, offline, and years later.

The page may load nothing (its content security policy says so), names are escaped by the template,
and the figures' data is JSON that cannot end its script element. Plotly stands in it compressed,
which makes the file a third of the size; the browser unpacks it (``DecompressionStream``).
"""

from __future__ import annotations

import base64
import gzip
from collections import Counter
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.report.palette import named_colors
from ipa_energy.report.plotly_json import plotly_json
from ipa_energy.report.section import Configurations, Page
from ipa_energy.runlog.folder import write_atomically, writing
from ipa_energy.tables import cell_of


def write_page(page: Page, path: Path) -> Path:
    """Write ``page`` as one self-contained HTML file; its folder is made.

    Returns:
        ``path``.

    Raises:
        ConfigError: it cannot be written, or two figures have one key.
    """
    text = render(page)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text))
    return path


def render(page: Page) -> str:
    """The page as text.

    Raises:
        ConfigError: two figures have one key.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    shared = [key for key, count in Counter(f.key for f in page.figures).items() if count > 1]
    if shared:
        raise ConfigError(
            "figures of one page share a key", where=", ".join(shared), allowed="one key each"
        )
    environment = Environment(
        loader=PackageLoader("ipa_energy.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("ipa_energy.report") / "templates"
    return environment.get_template("page.html").render(
        page=page,
        cell_of=cell_of,
        data=_data(page),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        scripts=[
            Markup((folder / name).read_text(encoding="utf-8"))
            for name in ("table.js", "figure.js")
        ],
        plotly=Markup(_plotly()) if page.figures else None,
    )


def _data(page: Page) -> dict[str, Any]:
    return {
        "colors": {"light": named_colors(dark=False), "dark": named_colors(dark=True)},
        "configurations": [_configurations(one) for one in page.configurations],
        "figures": [plotly_json(figure) for figure in page.figures],
    }


def _configurations(found: Configurations) -> dict[str, Any]:
    return {
        "starts": [round(start_s, 3) for start_s in found.starts_s],
        "labels": list(found.labels),
        "origin": found.origin,
    }


@cache
def _plotly() -> str:
    """Plotly's script, gzipped, in base 64."""
    from plotly.offline import get_plotlyjs

    # mtime 0: the same page twice is the same file.
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
