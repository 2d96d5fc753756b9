"""The numbers of a figure as CSV: one row a point, one column a quantity.

The page's button gives the same table with the digits that the page holds.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ipa_energy.report.figure import Bars, Figure, Line, Mark, Numbers

SERIES = "series"
LABEL = "configuration"
Column = tuple[str, str]


def columns_of(figure: Figure) -> list[list[Column]]:
    """For each mark, title and place (a path in the Plotly trace) of its columns."""
    return [[(title, path) for title, path, _ in _columns(figure, mark)] for mark in figure.marks]


def csv_of(figure: Figure) -> str:
    """The numbers of ``figure`` as CSV with a header; absent is empty."""
    tables = [_columns(figure, mark) for mark in figure.marks]
    titles = list(dict.fromkeys(title for table in tables for title, _, _ in table))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([SERIES, *titles])
    for mark, table in zip(figure.marks, tables, strict=True):
        columns = {title: values for title, _, values in table}
        for index in range(max((len(values) for values in columns.values()), default=0)):
            cells = [_cell(columns.get(title), index) for title in titles]
            if any(cells):
                writer.writerow([mark.name, *cells])
    return out.getvalue()


def _cell(values: Sequence[Any] | None, index: int) -> str:
    if values is None:
        return ""
    value = values[index]
    if isinstance(value, str):
        return value.replace("\n", " ")
    return repr(float(value)) if math.isfinite(value) else ""


def _columns(figure: Figure, mark: Mark) -> list[tuple[str, str, Sequence[Any]]]:
    if isinstance(mark, Bars):
        return _bar_columns(figure, mark)
    y_title = figure.panels[mark.panel].title
    found: list[tuple[str, str, Sequence[Any]]] = [
        (figure.x.title, "x", _floats(mark.x)),
        (y_title, "y", _floats(mark.y)),
    ]
    if isinstance(mark, Line):
        return found
    titles = {"x": figure.x.title, "y": y_title, "z": figure.z.title if figure.z else ""}
    if mark.z is not None:
        found.append((titles["z"], "z", _floats(mark.z)))
    for letter, title in titles.items():
        error = getattr(mark, f"{letter}_error")
        if error is not None:
            found.append((f"± {title}", f"error_{letter}.array", _floats(error)))
    if mark.values is not None and figure.scale:
        found.append((figure.scale.title, "meta.values", _floats(mark.values)))
    if mark.labels:
        found.append((LABEL, "customdata", list(mark.labels)))
    return found


def _bar_columns(figure: Figure, mark: Bars) -> list[tuple[str, str, Sequence[Any]]]:
    panel = figure.panels[mark.panel]
    place, value = (figure.x, panel) if mark.upright else (panel, figure.x)
    where = "x" if mark.upright else "y"
    along = "y" if mark.upright else "x"
    found: list[tuple[str, str, Sequence[Any]]] = [
        (place.title or "of", where, _floats(mark.at) if len(mark.at) else list(mark.places)),
    ]
    if len(mark.starts):
        found += [
            (f"from {value.title}", "meta.starts", [start for start, _ in spans(mark)]),
            (f"to {value.title}", "meta.ends", [end for _, end in spans(mark)]),
        ]
    else:
        found.append((value.title, along, _floats(mark.lengths)))
    if mark.labels:
        found.append((LABEL, "customdata", list(mark.labels)))
    return found


def spans(mark: Bars) -> list[tuple[float, float]]:
    """Start and end of each bar of a mark with ``starts``."""
    ends = np.asarray(mark.starts, dtype=np.float64) + np.asarray(mark.lengths, dtype=np.float64)
    return list(zip(_floats(mark.starts), ends.tolist(), strict=True))


def _floats(values: Numbers) -> list[float]:
    found: list[float] = np.asarray(values, dtype=np.float64).tolist()
    return found
