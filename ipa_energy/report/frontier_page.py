"""A pipeline's two hulls to look at: without energy in the objective and with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ipa_energy.comparing.hull import SAME_ATTAINMENT, Outcome
from ipa_energy.frontier.frontier import Frontier
from ipa_energy.frontier.weightings import BASELINES
from ipa_energy.report.figure import Axis, Figure, Line, Mark, Numbers, Points, Symbol, outline
from ipa_energy.report.page import Facts, Page, Section, as_title, meanings, notices
from ipa_energy.tables import share

WITHOUT, WITH = "run1", "run0"
HOW = (
    "Every run is one setting of the weights over the whole trace. Two settings can be mixed over"
    " the day, so what a system reaches is the hull of its runs; each hull is read at the same"
    " accuracies. Runs that answer too few requests in time are on neither."
)


def frontier_figure(found: Frontier) -> Figure:
    """Every run, both hulls and what lies between them."""
    quality = found.quality or "no quality"
    enough = found.attainment - SAME_ATTAINMENT
    runs = partial(_runs, joules=found.joules)
    late = [run for run in (*found.without, *found.added) if run.sla_attainment < enough]
    plain: list[Outcome] = []
    baselines: list[Outcome] = []
    for run in found.without:
        if run.sla_attainment >= enough:
            is_baseline = run.label.split(",")[0] in BASELINES
            (baselines if is_baseline else plain).append(run)
    added = [run for run in found.added if run.sla_attainment >= enough]
    marks: list[Mark] = [
        *_gain(found),
        runs(f"under {share(found.attainment)} in time", late, "muted", "cross"),
        runs("runs without energy", plain, WITHOUT),
        runs("runs with energy", added, WITH),
        runs("baselines", baselines, WITHOUT, "diamond", size=10, pale=False),
        _hull("hull without energy", found.line(added=False), WITHOUT, found.joules),
        _hull("hull with energy", found.line(added=True), WITH, found.joules),
    ]
    return Figure(
        key="hulls",
        title=f"Accuracy and {quality} joules, without energy in the objective and with it",
        caption="Mean accuracy against joules per request: up and to the left is better. Every run"
        " is a point; lines are what mixtures of runs reach. The shaded area is what energy in the"
        f" objective adds. Joules are {quality}.",
        marks=[mark for mark in marks if len(mark.x)],  # type: ignore[union-attr]
        x=Axis(f"{quality} energy (J/request)"),
        y=Axis("mean accuracy"),
        height=420,
    )


def _runs(
    name: str,
    runs: Sequence[Outcome],
    color: str,
    symbol: Symbol = "circle",
    *,
    joules: str,
    size: float = 6,
    pale: bool = True,
) -> Points:
    return Points(
        name=name,
        x=[run.joules_per_request for run in runs],
        y=[run.accuracy for run in runs],
        color=color,
        symbol=symbol,
        hollow=True,
        pale=pale,
        size=size,
        labels=[run.label for run in runs],
        hover=[f"{share(run.sla_attainment)} in time, seed {run.seed}" for run in runs],
        joules=joules,
    )


def _hull(name: str, line: tuple[Numbers, Numbers], color: str, joules: str) -> Line:
    accuracies, least = line
    return Line(name=name, x=least, y=accuracies, color=color, width=2.4, joules=joules)


def _gain(found: Frontier) -> list[Line]:
    """The area between the hulls where both are."""
    corners = [*found.line(added=False)[0], *found.line(added=True)[0]]
    shown = found.accuracies()
    if not shown:
        return []
    places = sorted({*shown, *(at for at in corners if shown[0] <= at <= shown[-1])})
    first, without = found.line(added=False, at=places)
    second, added = found.line(added=True, at=places)
    # Below its first corner a hull is that corner: nothing needs less.
    x, y = outline(without, first, other_x=added, other_y=second)
    return [Line(name="saved by energy", x=x, y=y, inside=True, silent=True)]


def frontier_page(found: Frontier) -> Page:
    """The page of a frontier."""
    facts = {
        "pipeline": found.pipeline,
        "workload": found.workload,
        "requests in time": f"at least {share(found.attainment)}",
        "joules": found.joules or "none",
        "runs": f"{len(found.without)} without energy, {len(found.added)} with it",
        "seeds": ", ".join(str(seed) for seed in found.seeds),
    }
    tables = [found.table()] if found.accuracies() else []
    said = notices([found.meter])
    return Page(
        kind="Energy frontier",
        title=as_title(found.sentence()),
        name=f"Energy frontier: {found.pipeline}",
        sections=[
            Section(
                title="Both hulls",
                figures=[frontier_figure(found)],
                notes=[HOW, *said],
            ),
            Section(title="In numbers", tables=tables),
            Section(
                title="Provenance",
                text=[*meanings([found.quality]), *said],
                facts=[Facts(found.pipeline, facts)],
            ),
        ],
    )
