"""What energy and carbon save, and what runs got of what was possible, as tables: a row a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ipa_energy.comparing.comparison import Comparison
from ipa_energy.comparing.hull import Saving
from ipa_energy.tables import DASH, Cell, Head, Row, Table, Value, fixed


def _colors(comparison: Comparison) -> dict[str, str]:
    return {run.name: f"run{index}" for index, run in enumerate(comparison.runs)}


def share_table(comparison: Comparison) -> Table | None:
    """What each run got of what was possible, a row a run; None if nobody asked."""
    colors = _colors(comparison)
    if not comparison.shares:
        return None

    def in_percent(value: float) -> Cell:
        return Cell(fixed(100 * value, 1), key=None if math.isnan(value) else 100 * value)

    rows = [
        Row(
            name,
            [
                in_percent(told.of_hindsight),
                in_percent(told.of_bound),
                told.objective,
                told.first_objective,
                told.static_objective,
                told.hindsight_objective,
                told.bound,
                told.missed_j,
            ],
            color=colors.get(name, ""),
        )
        for name, told in comparison.shares.items()
    ]
    heads = [
        Head("got", "% of hindsight's gain"),
        Head("of the bound's", "%"),
        Head("objective", "of the run", 5),
        Head("first run's", "", 5),
        Head("best static", "", 5),
        Head("hindsight", "", 5),
        Head("bound", "", 5),
        Head("missed", "J/request", 3),
    ]
    note = (
        "The objective of each run as the whole run comes to it, at its own weights: joules and"
        " core seconds that were spent, starting and draining replicas included; it says nothing of"
        " lateness. Gains are over the first run. Nothing that answers as promptly exceeds the"
        " bound. Missed: what the hindsight plan is better by, in joules at equal accuracy."
    )
    return Table(
        "What knowing the load would have gained", "run", heads, rows, note=note, together=3
    )


def yardstick_table(comparison: Comparison) -> Table | None:
    """What energy saves at equal accuracy and SLA attainment, a row a run; None if nobody asked."""
    colors = _colors(comparison)
    rows = [_saving_row(name, saving, colors) for name, saving in comparison.savings.items()]
    if not rows:
        return None
    return Table(
        "What energy saves at equal accuracy and SLA attainment",
        "run",
        _saving_heads("energy", "J/request"),
        rows,
        note="Least without: the joules, at the accuracy of the run, of the best mixture of runs of"
        " the same pipeline with no energy in the objective, at other weights and with IPA's"
        " baselines, that answer as many requests in time, half a point less at most (the hull"
        " without energy; means"
        " over the seeds of arrivals). A saving is what no other weight gives.",
        together=3,
    )


def grams_yardstick_table(comparison: Comparison) -> Table | None:
    """The same in grams, of runs with carbon in their objective; None without any."""
    colors = _colors(comparison)
    rows = [
        _saving_row(name, against, colors, [Cell(rival)])
        for name, saving in comparison.savings.items()
        if saving.grams is not None
        for rival, against in {
            "the best other weights": saving.grams,
            **saving.grams.rivals,
        }.items()
    ]
    if not rows:
        return None
    return Table(
        "What carbon saves at equal accuracy and SLA attainment",
        "run",
        [Head("against"), *_saving_heads("carbon", "g/million requests")],
        rows,
        note="As above, in grams. The best other weights: those without energy and constant weights"
        " of energy, so that what is left is what knowing the hour's intensity is worth. The least"
        " joules: the grams of whatever mixture of these needs least joules. Plans that never"
        " change are made for the busiest interval, and for somewhat less and more, at each weight"
        " of energy."
        " The same grams for every request: the budget as a cap on each. A forecast that is true"
        " is one that nobody has.",
        together=4,
    )


def _saving_heads(what: str, unit: str) -> list[Head]:
    return [
        Head(f"with {what}", unit),
        Head("least without", unit),
        Head("saving", "%"),
        Head("range", "over the seeds, %"),
        Head("seeds"),
        Head("accuracy"),
        Head("in SLA", "at least, %"),
    ]


def _saving_row(
    name: str, saving: Saving, colors: Mapping[str, str], before: Sequence[Cell] = ()
) -> Row:
    known = [at for at, value in enumerate(saving.savings) if not math.isnan(value)]
    cells: list[Cell | Value]
    if not known:
        reason = "no weights without energy reach this accuracy"
        if before:
            reason = "none of them is as accurate and as punctual"
        cells = [*before, Cell(DASH, reason=reason), *[None] * 6]
        return Row(name, cells, color=colors.get(name, ""))

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(known)

    outcomes = [saving.outcomes[at] for at in known]
    span = f"{fixed(100 * saving.least, 1)} to {fixed(100 * saving.most, 1)}"
    cells = [
        *before,
        mean(outcome.joules_per_request for outcome in outcomes),
        mean(saving.least_joules[at] for at in known),
        Cell(fixed(100 * saving.mean, 1), key=100 * saving.mean),
        Cell(span, key=100 * saving.least),
        len(known),
        Cell(fixed(mean(outcome.accuracy for outcome in outcomes), 4), key=outcomes[0].accuracy),
        Cell(fixed(100 * min(saving.attainments), 1), key=100 * min(saving.attainments)),
    ]
    return Row(name, cells, color=colors.get(name, ""))
