"""Text tables and JSON on stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON object on stdout; a NaN in it is a defect and raises."""
    print(json.dumps(document, allow_nan=False, indent=2))


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def decimals(value: float, digits: int) -> str:
    """A number with so many decimals; a dash for NaN, which is a figure nobody has."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
