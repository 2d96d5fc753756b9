"""What a page is made of: sections with words, tables, figures and lists of facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ipa_energy.report.figure import Figure
from ipa_energy.tables import Table


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
        points: a list after them.
        tables, figures, facts: in this order.
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
        kind: what sort of report it is, small above the title.
        title: the answer in one sentence.
        name: of the browser's tab.
        sections: the rest.
        configurations: per run, what it ran when; for the hover of lines with ``run``.
    """

    kind: str
    title: str
    name: str
    sections: Sequence[Section]
    configurations: Sequence[Configurations] = ()

    @property
    def figures(self) -> list[Figure]:
        """Every figure of every section that has something to draw."""
        return [
            figure for section in self.sections for figure in section.figures if figure.drawable
        ]
