"""Sections of a report as Markdown: the same words, tables and figures as the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipa_energy.report.page import Section
from ipa_energy.tables import Table, cell_of


def markdown(title: str, sections: Sequence[Section], figures: str | None) -> str:
    """The sections as one document.

    Args:
        title: its heading.
        sections: what follows.
        figures: folder of the figures as links see it; None leaves them out.
    """
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", "", *_paragraphs(section.text)]
        if section.points:
            lines += [*(f"- {point}" for point in section.points), ""]
        for table in section.tables:
            lines += [*_table(table), ""]
        if figures is not None:
            for figure in section.figures:
                alternative = figure.caption.replace("]", ")").replace("[", "(")
                lines += [f"![{alternative}]({figures}/{figure.key}.png)", ""]
        for facts in section.facts:
            lines += [f"{facts.title}:", ""]
            lines += [*(f"- {name}: {value}" for name, value in facts.items.items()), ""]
        lines += _paragraphs(section.notes)
    return "\n".join(lines).rstrip() + "\n"


def _paragraphs(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield text
        yield ""


def _table(table: Table) -> Iterator[str]:
    heads = [f"{head.title} ({head.unit})" if head.unit else head.title for head in table.heads]
    yield f"{table.title}:"
    yield ""
    yield _row([table.corner, *heads])
    yield _row(["---", *("---:" for _ in heads)])
    for row in table.rows:
        cells = [cell_of(value) for value in row.cells]
        yield _row([row.name, *(f"{c.text} {c.note}".strip() for c in cells)])
    if table.note:
        yield ""
        yield table.note


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
