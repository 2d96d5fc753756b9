"""Tables that people read: one model, shown alike as terminal text, on a page, as CSV.

A table is made once, of plain values where a column says how they are written; a page draws it
through its template, :func:`table_text` on a terminal, :func:`table_csv` as a file for programs.
"""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MINUS = "−"
DASH = "–"
NUMBER_BEGINS = frozenset("0123456789+±∞" + MINUS)

Value = str | float | bool | None


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column.

    Attributes:
        title: what it is.
        unit: its unit; "" for none.
        digits: decimals of its numbers; None: four significant digits, whole numbers whole.
        wide: only where there is room: on a page and in files, not on a terminal.
    """

    title: str
    unit: str = ""
    digits: int | None = None
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell, where its value alone does not say.

    Attributes:
        text: as shown.
        note: small, beneath or beside it: the change to another row, an interval.
        key: the number that it sorts by and that a CSV holds; None: the text itself.
        quiet: in the muted hand that qualities of joules are written in.
        reason: why there is no value; "" if there is one.
    """

    text: str
    note: str = ""
    key: float | None = None
    quiet: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        name: the head of the row.
        cells: as many as there are heads, without the row's own; NaN and None are a dash.
        detail: small, beneath the name; not on a terminal.
        color: of a dot before the name, a palette name; "" for none.
        muted: a row for comparison only.
    """

    name: str
    cells: Sequence[Cell | Value]
    detail: str = ""
    color: str = ""
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Attributes:
        title: what it shows, in a few words.
        corner: what the rows are.
        heads: of the columns after the first.
        rows: the body; muted ones last.
        note: how to read it, in whole sentences.
        notes_as: name of a line of its own under each row that holds the cells' notes, on a
            terminal; "": they stand beside the values.
        together: so many columns are never parted where a terminal is too narrow for all.
    """

    title: str
    corner: str
    heads: Sequence[Head]
    rows: Sequence[Row]
    note: str = ""
    notes_as: str = ""
    together: int = 1

    def is_words(self, at: int) -> bool:
        """True if column ``at`` has words, which stand to the left; numbers stand to the right."""
        cells = [cell_of(row.cells[at], self.heads[at]) for row in self.rows]
        words = [cell for cell in cells if cell.text not in ("", DASH)]
        return bool(words) and not any(
            cell.key is not None or cell.text[0] in NUMBER_BEGINS for cell in words
        )


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of texts that are ready: the first column is what the rows are."""
    corner, *titles = header
    return Table("", corner, [Head(title) for title in titles], [Row(r[0], r[1:]) for r in rows])


def cell_of(value: Cell | Value, head: Head | None = None) -> Cell:
    """A cell from a plain value, written as the head of its column says; a dash if not known."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if value is None or isinstance(value, str):
        return Cell(DASH if value is None else value)
    key = None if math.isnan(value) else float(value)
    return Cell(_number(value, None if head is None else head.digits), key=key)


def _number(value: float, digits: int | None) -> str:
    if math.isinf(value):
        return "∞"
    if digits is None and float(value).is_integer():
        digits = 0
    return significant(value, 4) if digits is None else fixed(value, digits)


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals, of which zero has no sign; a dash for NaN."""
    if math.isnan(value):
        return DASH
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """A number with about so many digits; a dash for NaN."""
    if math.isnan(value):
        return DASH
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return fixed(value, decimals)


def counted(number: int, noun: str) -> str:
    """``1 plan``, ``2 plans``, ``3 entries``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def signed(value: float, form: str) -> str:
    """A number with its sign, as ``form`` says (``+.2f``); the minus is the one of print."""
    return f"{value:{form}}".replace("-", MINUS)


def share(ratio: float, digits: int = 1) -> str:
    """A ratio as percent: ``6.6 %``; a dash for NaN."""
    return DASH if math.isnan(ratio) else f"{fixed(100 * ratio, digits)} %"


def percent(ratio: float) -> str:
    """A ratio minus one as signed percent: ``−23.1 %``; a dash for NaN."""
    return _signed(100 * ratio, "%")


def points(difference: float) -> str:
    """A difference of shares as signed percentage points; a dash for NaN."""
    return _signed(100 * difference, "pt")


def _signed(value: float, unit: str) -> str:
    if math.isnan(value):
        return DASH
    text = f"{signed(value, '+.1f')} {unit}"
    return f"±0.0 {unit}" if text[1:] == f"0.0 {unit}" else text


def table_text(table: Table, *, width: int | None = None, corner: bool = True) -> str:
    """The table as aligned lines, without its title and its note.

    Args:
        table: what to show.
        width: characters of a line; a wider table goes on in a second one below. None: no limit.
        corner: whether the rows are said what they are.
    """
    shown = [at for at, head in enumerate(table.heads) if not head.wide]
    heads = [table.heads[at] for at in shown]
    lines: list[list[str]] = [[table.corner if corner else "", *(head.title for head in heads)]]
    has_units = any(head.unit for head in heads)
    if has_units:
        lines.append(["", *(head.unit for head in heads)])
    bars = [len(lines)]
    reasons: dict[str, None] = {}
    for row in table.rows:
        cells = [cell_of(row.cells[at], table.heads[at]) for at in shown]
        if row.muted and len(bars) == 1:
            bars.append(len(lines))
        lines.append(
            [row.name, *(cell.text if table.notes_as else _with_note(cell) for cell in cells)]
        )
        if table.notes_as and not row.muted and any(cell.note for cell in cells):
            lines.append([table.notes_as, *(cell.note for cell in cells)])
        reasons |= {cell.reason: None for cell in cells if cell.reason}
    is_words = [True, *(table.is_words(at) for at in shown)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads) + 1)]
    blocks = [
        _block(lines, is_words, widths, part, bars)
        for part in _parts(widths, width, table.together)
    ]
    told = [wrapped(f"{DASH} {reason}", width) for reason in reasons]
    return "\n".join(["\n\n".join(blocks), *told])


def wrapped(text: str, width: int | None) -> str:
    """Words in lines of at most so many characters, as far as words allow; None: one line."""
    if width is None:
        return text
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _with_note(cell: Cell) -> str:
    if not cell.note:
        return cell.text
    return f"{cell.text} {cell.note}" if cell.note[0] == "±" else f"{cell.text} ({cell.note})"


def _parts(widths: Sequence[int], width: int | None, together: int) -> list[list[int]]:
    """Which columns stand in which block; the first is in each."""
    parts: list[list[int]] = [[]]
    used = widths[0]
    for column, needed in enumerate(widths[1:], start=1):
        if width is not None and used + 2 + needed > width and len(parts[-1]) >= together:
            parts.append([])
            used = widths[0]
        parts[-1].append(column)
        used += 2 + needed
    return parts


def _block(
    lines: Sequence[Sequence[str]],
    is_words: Sequence[bool],
    widths: Sequence[int],
    shown: Sequence[int],
    bars: Sequence[int],
) -> str:
    texts = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        for at in shown:
            text = line[at]
            cells.append(text.ljust(widths[at]) if is_words[at] else text.rjust(widths[at]))
        texts.append("  ".join(cells).rstrip())
    bar = "─" * (widths[0] + sum(2 + widths[at] for at in shown))
    for at in reversed(bars):
        texts.insert(at, bar)
    return "\n".join(texts)


def table_csv(table: Table) -> str:
    """The table for programs: numbers with nine digits, nothing where nothing is known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([table.corner, *(head.title for head in table.heads)])
    for row in table.rows:
        writer.writerow([row.name, *map(_csv_cell, row.cells)])
    return out.getvalue()


def _csv_cell(value: Cell | Value) -> str:
    if isinstance(value, Cell):
        value = value.text if value.key is None else value.key
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value or ""
