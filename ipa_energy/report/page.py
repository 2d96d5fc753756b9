"""One HTML file with everything in it: it opens from a mail, offline, and years later.

The page may load nothing (its content security policy says so), names are escaped by the template,
and the figures' data is JSON that cannot end its script element. Plotly stands in it compressed,
which makes the file a third of the size; the browser unpacks it (``DecompressionStream``).

A page is made of sections with words, tables and figures, for any experiment::

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
    page = Page(title="The answer in a sentence", sections=[section])
    write_page(page, Path("page.html"))
    write_images(page.figures, Path("figures"))

Points with ``hollow=True`` are estimates, filled ones are measurements: name the difference in the
legend too.
"""

from __future__ import annotations

import base64
import gzip
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ipa_energy.errors import ConfigError
from ipa_energy.records import notice_of
from ipa_energy.report.figure import Figure
from ipa_energy.report.palette import named_colors, paper_color, run_dash
from ipa_energy.report.plotly_json import plotly_json
from ipa_energy.runlog.folder import write_atomically
from ipa_energy.tables import Table, cell_of


@dataclass(frozen=True, slots=True)
class Facts:
    """A list of names and values under a heading: settings, provenance."""

    title: str
    items: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page; what is empty is left out.

    Attributes:
        title: its heading.
        text: paragraphs before everything else, plain text.
        points: a list after them, each item a sentence.
        figures, tables, facts: in this order.
        notes: paragraphs after everything else.
        kind: a warning stands in a coloured box.
    """

    title: str
    text: Sequence[str] = ()
    points: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    facts: Sequence[Facts] = ()
    notes: Sequence[str] = ()
    kind: Literal["plain", "warning"] = "plain"


@dataclass(frozen=True, slots=True)
class Configurations:
    """When each configuration of a run began, what it was, and where the run's joules are from."""

    starts_s: Sequence[float]
    labels: Sequence[str]
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page.

    Attributes:
        title: the answer in one sentence.
        sections: the rest.
        kind: what sort of report it is, small above the title.
        name: of the browser's tab; "" for kind and title.
        configurations: per run, what it ran when; for the hover of lines with ``run``.
    """

    title: str
    sections: Sequence[Section]
    kind: str = "Experiment"
    name: str = ""
    configurations: Sequence[Configurations] = ()

    @property
    def figures(self) -> list[Figure]:
        """Every figure of every section that has something to draw."""
        return [
            figure for section in self.sections for figure in section.figures if figure.drawable
        ]


_MEANINGS = {
    "measured": "Measured joules were read from a hardware energy counter while the work ran.",
    "estimated": "Estimated joules were computed from a model (such as CPU time and watts per busy"
    " core, or a simulation from a profile), not read from an energy counter: good for comparing"
    " plans on one machine, not as absolute joules.",
    "imported": "Imported joules were taken from another tool or an earlier data set as it was"
    " given.",
}


def meanings(qualities: Iterable[str | None]) -> list[str]:
    """A sentence for each quality that occurs."""
    found = set(qualities)
    return [text for quality, text in _MEANINGS.items() if quality in found]


def notices(meters: Iterable[str | None]) -> list[str]:
    """What has to be said beside joules of these meters, as sentences."""
    found = dict.fromkeys(notice_of(meter) for meter in meters)
    return [f"The joules of the profile are {notice}." for notice in found if notice]


def as_title(sentence: str) -> str:
    """A sentence as the title of a page: a percent sign stays with its number."""
    return sentence.replace(" %", "\u00a0%")


def setting_text(value: object) -> str:
    """A setting of a YAML as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not math.isnan(value):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(setting_text, value)) or "none"
    if isinstance(value, Mapping):
        told = (f"{key} {setting_text(each)}" for key, each in value.items() if each != "")
        return f"({', '.join(told)})"
    return "none" if value is None else str(value)


def write_page(page: Page, path: Path) -> Path:
    """Write ``page`` as one self-contained HTML file; its folder is made.

    Returns:
        ``path``.

    Raises:
        ConfigError: it cannot be written, or two figures have one key.
    """
    text = render(page)
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
        still_of=_still,
        dashes_of=_dashes,
        color_of=paper_color,
        data=_data(page),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        scripts=[
            Markup((folder / name).read_text(encoding="utf-8"))
            for name in ("table.js", "figure.js")
        ],
        plotly=Markup(_plotly()) if page.figures else None,
    )


_DASHES = {"solid": "none", "dash": "7 4", "dot": "2 3", "dashdot": "8 3 2 3", "longdash": "11 4"}


def _dashes(color: str) -> str:
    """The dashes of a run's line by the name of its colour, as SVG writes them."""
    number = color.removeprefix("run")
    return _DASHES[run_dash(int(number))] if number.isdecimal() else "none"


def _still(figure: Figure) -> str:
    """A picture for browsers without scripts, as an address that holds it."""
    from ipa_energy.report.image import still

    return f"data:image/png;base64,{base64.b64encode(still(figure)).decode()}"


def _data(page: Page) -> dict[str, Any]:
    return {
        "colors": {"light": named_colors(dark=False), "dark": named_colors(dark=True)},
        "configurations": [
            {
                "starts": [round(start_s, 3) for start_s in one.starts_s],
                "labels": list(one.labels),
                "origin": one.origin,
            }
            for one in page.configurations
        ],
        "figures": [plotly_json(figure) for figure in page.figures],
    }


@cache
def _plotly() -> str:
    """Plotly's script, gzipped, in base 64."""
    from plotly.offline import get_plotlyjs

    # mtime 0: the same page twice is the same file.
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
