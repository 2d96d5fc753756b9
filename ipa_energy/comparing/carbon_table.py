"""The grams of runs, in figures that people know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipa_energy import energy
from ipa_energy.comparing.comparison import Comparison, relative
from ipa_energy.comparing.metrics import RunMetrics
from ipa_energy.tables import Cell, Head, Row, Table, percent, significant

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
