"""Tables of a page: they sort by a click or the keyboard and copy to the clipboard as TSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ipa_energy.compare.table import DASH, fixed, significant

Value = str | float | None


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column: what it is, and its unit ("" for none)."""

    title: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell.

    Attributes:
        text: as shown.
        note: small, beneath it, such as the change to another row or an interval.
        key: what it sorts by, where the text does not say; None: the text itself.
        quiet: in the muted hand that qualities of joules are written in.
    """

    text: str
    note: str = ""
    key: float | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        name: the head of the row.
        cells: as many as there are heads, without the row's own; NaN and None are a dash.
        detail: small, beneath the name.
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
        rows: the body.
        note: how to read it, in whole sentences.
    """

    title: str
    corner: str
    heads: Sequence[Head]
    rows: Sequence[Row]
    note: str = ""


def cell_of(value: Cell | Value) -> Cell:
    """A cell from a plain value: numbers with four digits, whole ones without a point.

    What is not known is a dash.
    """
    if isinstance(value, Cell):
        return value
    if value is None:
        return Cell(DASH)
    if isinstance(value, str):
        return Cell(value)
    if math.isnan(value):
        return Cell(DASH)
    if float(value).is_integer():
        return Cell(fixed(value, 0), key=float(value))
    return Cell(significant(value, 4), key=value)
