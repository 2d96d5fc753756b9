"""What energy and carbon save, what runs got of what was possible, and their grams, as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipa_energy import energy
from ipa_energy.comparing.comparison import Comparison, relative
from ipa_energy.comparing.hull import Saving
from ipa_energy.comparing.metrics import RunMetrics
from ipa_energy.tables import DASH, Cell, Head, Row, Table, Value, fixed, percent, significant


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


YEAR_S = 365.25 * 86_400

IN_CARBON_TABLE = ("grams_per_request", "priced_grams")
"""Quantities whose figures as served are in this table, so that planned ones need no column."""

EPA = "US EPA, Greenhouse Gas Equivalencies Calculator, on eGRID 2022"


EMBODIED = (
    " Embodied: the profile's grams of making the hardware, for as long as replicas held it; SCI is"
    " both, (E·I + M)/R."
)


@dataclass(frozen=True, slots=True)
class Equivalence:
    """What so many grams are as well.

    Attributes:
        noun: what is counted, in the plural.
        grams: of one.
        source: who says so, and for which year.
    """

    noun: str
    grams: float
    source: str


EQUIVALENCES = (
    Equivalence("miles by an average passenger car", 393.0, EPA),
    Equivalence("smartphones charged", 12.4, EPA),
    Equivalence("tree seedlings grown for ten years to take it up", 60_000.0, EPA),
)


def carbon_of_run(run: RunMetrics) -> Mapping[str, Any]:
    """What kind of intensities a run's grams were counted with; empty without any."""
    found: Mapping[str, Any] = run.settings.get("carbon") or {}
    return found


def grams_a_year(run: RunMetrics) -> float:
    """At the load of the run, day and night for a year."""
    return run.grams / run.duration_s * YEAR_S if run.duration_s else math.nan


def pues_of_sites(run: RunMetrics) -> dict[str, float]:
    """Site → its PUE; empty of a run in one place."""
    sites = carbon_of_run(run).get("sites", {})
    return {name: float(one.get("pue", 1.0)) for name, one in sites.items()}


def mean_g_per_kwh(run: RunMetrics) -> float:
    """Mean intensity of the run's joules at the site's meter."""
    pues = pues_of_sites(run)
    at_meter_j = run.energy_j * float(carbon_of_run(run).get("pue", 1.0))
    if pues and run.sites:
        at_meter_j = sum(site["joules"] * pues.get(name, 1.0) for name, site in run.sites.items())
    return run.grams * energy.JOULES_PER_KWH / at_meter_j if at_meter_j else math.nan


def carbon_table(comparison: Comparison) -> Table | None:
    """The grams, a row a run; None if no run counted any."""
    runs = [run for run in comparison.runs if not math.isnan(run.grams)]
    if not runs:
        return None
    heads = [
        Head("carbon", "g/million requests"),
        Head("at this load", "kg/year"),
        Head("intensity", "g/kWh, mean"),
        Head("kind"),
    ]
    has_embodied = any(not math.isnan(run.embodied_g) for run in runs)
    if has_embodied:
        heads[2:2] = [Head("embodied", "g/million requests"), Head("SCI", "g/million requests")]
    rows = [
        _row(run, runs[0], comparison.runs.index(run), has_embodied=has_embodied) for run in runs
    ]
    note = _note(runs, has_embodied=has_embodied)
    return Table("Carbon", "run", heads, rows, note=note, notes_as="  vs first")


def _row(run: RunMetrics, first: RunMetrics, index: int, *, has_embodied: bool) -> Row:
    def cell(value: float, base: float) -> Cell:
        note = "" if run is first else percent(relative(value, base))
        return Cell(significant(value, 4), note=note, key=value)

    per_million = run.grams_per_million_requests
    cells = [
        cell(per_million, first.grams_per_million_requests),
        cell(grams_a_year(run) / 1000, grams_a_year(first) / 1000),
        Cell(significant(mean_g_per_kwh(run), 4), key=mean_g_per_kwh(run)),
        Cell(kind_in_words(carbon_of_run(run))),
    ]
    if has_embodied:
        cells[2:2] = [
            cell(_embodied_per_million(run), _embodied_per_million(first)),
            cell(run.sci_g_per_million_requests, first.sci_g_per_million_requests),
        ]
    return Row(run.name, cells, color=f"run{index}")


def _embodied_per_million(run: RunMetrics) -> float:
    return run.embodied_g / run.served * 1e6 if run.served else math.nan


def kind_in_words(carbon: Mapping[str, Any]) -> str:
    """``average, life cycle, GB, 12 % estimated``."""
    known = [carbon.get("kind"), carbon.get("scope")]
    parts = [str(part) for part in known if part and part != "unknown"]
    parts += [str(carbon["zone"])] if carbon.get("zone") else []
    parts += ["synthetic"] if carbon.get("is_synthetic") else []
    share = carbon.get("estimated_share")
    if share:
        parts.append(f"{100 * share:.0f} % estimated")
    return ", ".join(parts) or "kind not said"


def _note(runs: Sequence[RunMetrics], *, has_embodied: bool) -> str:
    said = [one for run in runs for one in _places(carbon_of_run(run))]
    sources = dict.fromkeys(str(one.get("source")) for one in said)
    pues = dict.fromkeys(float(one.get("pue", 1.0)) for one in said)
    return (
        "Grams of CO2 equivalent of all joules of a run, each second's at its intensity, with"
        f" a PUE of {', '.join(f'{pue:g}' for pue in pues)}; operation alone, not the making of"
        f" the hardware.{EMBODIED if has_embodied else ''} Their quality is that of the joules."
        f" Intensities: {'; '.join(sources)}.{''.join(f' {told}' for told in by_site(runs))}"
    )


def _places(carbon: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is said of each site; of a run in one place what is said at all."""
    return list(carbon.get("sites", {}).values()) or [carbon]


def by_site(runs: Sequence[RunMetrics]) -> list[str]:
    """A sentence a run in several places: where its joules and grams were."""
    return [_by_site(run) for run in runs if run.sites]


def _by_site(run: RunMetrics) -> str:
    sums = {key: sum(site[key] for site in run.sites.values()) for key in ("joules", "grams")}
    parts = []
    for name, site in run.sites.items():
        of = [100 * site[key] / sums[key] if sums[key] else 0.0 for key in ("joules", "grams")]
        parts.append(f"{name} {of[0]:.0f} % of the joules and {of[1]:.0f} % of the grams")
    return f"Sites of {run.name}: {', '.join(parts)}."


def equivalences(runs: Sequence[RunMetrics]) -> list[str]:
    """A sentence a run: what a year of it is as well; empty without grams."""
    found = []
    for run in runs:
        grams = grams_a_year(run)
        if math.isnan(grams):
            continue
        same = [f"{significant(grams / one.grams)} {one.noun}" for one in EQUIVALENCES]
        found.append(
            f"A year of {run.name} at this load, {significant(grams / 1000)} kg, is about"
            f" {', '.join(same[:-1])}, or {same[-1]} ({EPA})."
        )
    return found
