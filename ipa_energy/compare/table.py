"""The comparison as text: one line a run, units in the header, differences under each run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ipa_energy.compare.comparison import Comparison, relative
from ipa_energy.compare.metrics import RunMetrics

MINUS = "−"
DASH = "–"
_TOGETHER = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its two-line header, its text, and how it differs from the first run's.

    Attributes:
        title: what it is.
        unit: its unit, "" for a count.
        text: a run's value.
        change: the difference of the second run to the first as text.
    """

    title: str
    unit: str
    text: Callable[[RunMetrics], str]
    change: Callable[[RunMetrics, RunMetrics], str]


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals; a dash for NaN."""
    return DASH if math.isnan(value) else f"{value:.{digits}f}".replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """A number with about so many digits; a dash for NaN."""
    if math.isnan(value):
        return DASH
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return fixed(value, decimals)


def percent(ratio: float) -> str:
    """A ratio minus one as signed percent: ``−23.1 %``; a dash for NaN."""
    if math.isnan(ratio):
        return DASH
    text = f"{100 * ratio:+.1f} %".replace("-", MINUS)
    return "±0.0 %" if text[1:] == "0.0 %" else text


def points(difference: float) -> str:
    """A difference of shares as signed percentage points; a dash for NaN."""
    if math.isnan(difference):
        return DASH
    text = f"{100 * difference:+.1f} pt".replace("-", MINUS)
    return "±0.0 pt" if text[1:] == "0.0 pt" else text


def _share(value: float) -> str:
    return fixed(100 * value, 1)


def _relative(key: str) -> Callable[[RunMetrics, RunMetrics], str]:
    return lambda run, first: percent(relative(getattr(run, key), getattr(first, key)))


def _points(key: str) -> Callable[[RunMetrics, RunMetrics], str]:
    return lambda run, first: points(getattr(run, key) - getattr(first, key))


def _count(key: str) -> Callable[[RunMetrics, RunMetrics], str]:
    def text(run: RunMetrics, first: RunMetrics) -> str:
        difference = getattr(run, key) - getattr(first, key)
        return f"{difference:+d}".replace("-", MINUS) if difference else "±0"

    return text


def quality_of(run: RunMetrics) -> str:
    """How the run's joules came to be, in a word for a table."""
    return run.quality or "none"


def _nothing(_: RunMetrics, __: RunMetrics) -> str:
    return ""


COLUMNS: tuple[Column, ...] = (
    Column(
        "energy",
        "J/request",
        lambda run: significant(run.joules_per_request, 4),
        _relative("joules_per_request"),
    ),
    Column("quality", "of joules", quality_of, _nothing),
    Column("total", "kJ", lambda run: significant(run.energy_j / 1000, 4), _relative("energy_j")),
    Column("power", "W", lambda run: significant(run.power_mean_w), _relative("power_mean_w")),
    Column("in SLA", "%", lambda run: _share(run.sla_attainment), _points("sla_attainment")),
    Column("p50", "s", lambda run: fixed(run.latency_p50_s, 3), _relative("latency_p50_s")),
    Column("p99", "s", lambda run: fixed(run.latency_p99_s, 3), _relative("latency_p99_s")),
    Column("accuracy", "", lambda run: fixed(run.accuracy_mean, 4), _relative("accuracy_mean")),
    Column("cores", "mean", lambda run: fixed(run.cores_mean, 1), _relative("cores_mean")),
    Column("core", "hours", lambda run: significant(run.core_hours), _relative("core_hours")),
    Column("requests", "", lambda run: f"{run.requests}", _count("requests")),
    Column("dropped", "", lambda run: f"{run.dropped}", _count("dropped")),
    Column("changes", "", lambda run: f"{run.reconfigurations}", _count("reconfigurations")),
    Column(
        "decision",
        "ms",
        lambda run: significant(1000 * run.decision_s_median),
        _nothing,
    ),
)


def comparison_table(comparison: Comparison, *, width: int | None = None) -> str:
    """The comparison as aligned text, without a final newline.

    Under each run but the first stands its difference to the first (percent; percentage points,
    ``pt``, for shares), under all runs the baselines, then warnings.

    Args:
        comparison: what to show.
        width: characters of a line; a wider table goes on in a second one below. None: no limit.
    """
    names = ["", "", *(label for label, _ in _rows(comparison))]
    first_width = max(map(len, names))
    blocks: list[list[Column]] = [[]]
    used = first_width
    for column in COLUMNS:
        needed = 2 + _column_width(comparison, column)
        # The first three stay together: joules never stand without their quality.
        if width is not None and used + needed > width and len(blocks[-1]) >= _TOGETHER:
            blocks.append([])
            used = first_width
        blocks[-1].append(column)
        used += needed
    tables = [_block(comparison, columns) for columns in blocks]
    details = [f"{run.name}: {run.detail}" for run in comparison.baselines if run.detail]
    notes = details + [f"warning: {text}" for text in comparison.warnings]
    return "\n\n".join([*tables, "\n".join(notes)] if notes else tables)


def _rows(comparison: Comparison) -> list[tuple[str, Callable[[Column], str]]]:
    """Every line of the body: its label, and its text in a column."""
    first = comparison.runs[0]
    rows = []
    for run in comparison.runs:
        rows.append((run.name, _value(run)))
        if run is not first:
            rows.append(("  vs first", _change(run, first)))
    return rows + [(run.name, _value(run)) for run in comparison.baselines]


def _value(run: RunMetrics) -> Callable[[Column], str]:
    return lambda column: column.text(run)


def _change(run: RunMetrics, first: RunMetrics) -> Callable[[Column], str]:
    return lambda column: column.change(run, first)


def _column_width(comparison: Comparison, column: Column) -> int:
    cells = [text(column) for _, text in _rows(comparison)]
    return max(map(len, [column.title, column.unit, *cells]))


def _block(comparison: Comparison, columns: list[Column]) -> str:
    body = _rows(comparison)
    lines = [["", *(column.title for column in columns)], ["", *(c.unit for c in columns)]]
    lines += [[label, *(text(column) for column in columns)] for label, text in body]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns) + 1)]
    texts = [_aligned(line, widths) for line in lines]
    bar = "─" * (sum(widths) + 2 * len(columns))
    if comparison.baselines:
        texts.insert(len(texts) - len(comparison.baselines), bar)
    texts.insert(2, bar)
    return "\n".join(texts)


def _aligned(line: list[str], widths: list[int]) -> str:
    cells = [line[0].ljust(widths[0])]
    cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join(cells).rstrip()
