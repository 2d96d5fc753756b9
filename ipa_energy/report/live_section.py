"""What only live runs have, as sections of a page: joules held against the profile, drift, changes.

A run that was simulated has none of it, and a page of such runs no section.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from ipa_energy.report.figure import Axis, Bars, Figure, Line, Mark, Points, key_of
from ipa_energy.report.page import Section
from ipa_energy.report.palette import Dash
from ipa_energy.report.run_series import Drawn, qualities, time_axis
from ipa_energy.runlog.live_step import LiveStep
from ipa_energy.runlog.step import Step
from ipa_energy.serving.observed import StageJoules, of_stage
from ipa_energy.tables import Head, Row, Table

MOST_ROWS = 60
"""Rows of a table; a run of hours has more changes than anybody reads."""

TROUBLE = ("died", "repaired")
OVERHEAD = {
    "router": "router and queues",
    "generator": "load generator",
    "adapter": "adapter",
    "template": "template of the replicas",
    "exporter": "exporter",
    "meter": "reading the meter",
}


def live_sections(runs: list[Drawn]) -> list[Section]:
    """One section for each run that was live, and a figure of what served beside their stages."""
    live = [drawn for drawn in runs if any(step.live for step in drawn.run.steps)]
    sections = [_section(drawn) for drawn in live]
    if live:
        figures = [*sections[-1].figures, overhead_figure(live)]
        sections[-1] = replace(sections[-1], figures=figures)
    return sections


def _section(drawn: Drawn) -> Section:
    tables = (drift_table(drawn), change_table(drawn), trouble_table(drawn), replica_table(drawn))
    return Section(
        title=f"Live: {drawn.name}",
        text=[_in_words(drawn)],
        points=[note for _, live in _steps(drawn) for note in live.notes][:MOST_ROWS],
        tables=[table for table in tables if table.rows],
        figures=[joules_figure(drawn)],
    )


def _steps(drawn: Drawn) -> Iterator[tuple[Step, LiveStep]]:
    for step in drawn.run.steps:
        if step.live is not None:
            yield step, step.live


def _in_words(drawn: Drawn) -> str:
    """How live joules and those of the profile compare over the run, and what drifted."""
    seen = [
        one for _, live in _steps(drawn) for one in live.joules if one.is_clean and one.ratio > 0
    ]
    told = []
    for stage in dict.fromkeys(one.stage for one in seen):
        mine = [one for one in seen if one.stage == stage]
        live_j = math.fsum(one.live_j * one.requests for one in mine)
        profile_j = math.fsum(one.profile_j * one.requests for one in mine)
        told.append(f"{live_j / profile_j:.2f} times its profile at stage {stage}")
    found = [c for _, live in _steps(drawn) for c in live.corrections]
    drift = "no drift was found" if not found else f"{len(found)} drifts were found"
    if len(found) == 1:
        drift = "one drift was found"
    if found and not any(one.is_applied for one in found):
        drift += " and not corrected"
    spent = ", ".join(told) or "no window says how its joules compare with its profile's"
    return (
        f"Joules of a request, in windows without a change: {spent}; {drift}. The profile's joules"
        " are taken at each window's own batch fill and load."
    )


def joules_figure(drawn: Drawn) -> Figure:
    """Joules per request over time, a panel a stage: as spent, and by the profile."""
    stages = drawn.run.info.stages
    marks: list[Mark] = []
    for panel, stage in enumerate(stages):
        times, seen = _of_stage(drawn, stage)
        profile = [one.profile_j if one else math.nan for one in seen]
        planned = [_planned_j(live, stage) for _, live in _steps(drawn)]
        lines: list[tuple[str, list[float], str, Dash]] = [("profile", profile, "muted", "dot")]
        if not all(map(math.isnan, planned)):
            lines.append(("profile, rescaled", planned, "text", "dash"))
        for name, values, color, dash in lines:
            look: dict[str, Any] = {"color": color, "dash": dash, "step": True, "group": name}
            look |= {"legend": panel == 0, "panel": panel, "joules": drawn.joules}
            marks.append(Line(name=name, x=times, y=values, **look))
        marks += _live_points(drawn, stage, panel)
    return Figure(
        key=key_of("live-joules", str(drawn.index)),
        title="Joules of a request, live and by the profile",
        caption="As spent in each interval (points; hollow where the stage was being changed or"
        " served too little to say), and what the profile says of the same batch fill and load"
        " (dotted)"
        + (", rescaled since a drift was found (dashed)." if _has_scales(drawn) else "."),
        marks=marks,
        x=time_axis([drawn]),
        y=tuple(Axis(f"{stage} (J/request)", from_zero=True) for stage in stages),
        height=110 + 130 * len(stages),
    )


def _of_stage(drawn: Drawn, stage: str) -> tuple[list[float], list[StageJoules | None]]:
    times, seen = [], []
    for step, live in _steps(drawn):
        times.append(step.start_s)
        seen.append(of_stage(live.joules, stage))
    return times, seen


def _live_points(drawn: Drawn, stage: str, panel: int) -> Iterator[Points]:
    times, seen = _of_stage(drawn, stage)
    half_s = drawn.run.info.interval_s / 2
    for is_clean in (True, False):
        picked = [
            (time_s, one)
            for time_s, one in zip(times, seen, strict=True)
            if one is not None and one.is_clean == is_clean
        ]
        yield Points(
            name="live" if is_clean else "live, being changed",
            x=[time_s + half_s for time_s, _ in picked],
            y=[one.live_j for _, one in picked],
            color=f"run{drawn.index}",
            hollow=not is_clean,
            size=7,
            labels=[f"{one.variant} {one.allocation}" for _, one in picked],
            hover=[
                f"{one.load_rps:.3g} requests/s in batches of {one.batch_fill:.3g}\n"
                f"{one.ratio:.2f} times the profile"
                for _, one in picked
            ],
            legend=panel == 0,
            group="live" if is_clean else "unclean",
            panel=panel,
            joules=drawn.joules,
        )


def _has_scales(drawn: Drawn) -> bool:
    return any(live.scales for _, live in _steps(drawn))


def _planned_j(live: LiveStep, stage: str) -> float:
    """Joules of a request by the rescaled profile, as the step was decided; NaN if it is not."""
    seen = next((one for one in live.joules if one.stage == stage), None)
    if seen is None:
        return math.nan
    ran = (stage, seen.variant, seen.allocation)
    for scale in live.scales:
        if (scale.stage, scale.variant, scale.allocation) == ran:
            dynamic_j = seen.profile_j - seen.profile_idle_j
            return scale.dynamic * dynamic_j + scale.idle * seen.profile_idle_j
    return math.nan


def overhead_figure(runs: list[Drawn]) -> Figure:
    """Joules beside the stages, by what spent them."""
    parts = dict.fromkeys(
        chain.from_iterable(live.overhead_j for drawn in runs for _, live in _steps(drawn))
    )
    return Figure(
        key="live-overhead",
        title="Beside the stages",
        caption="Joules above idle per answered request of what serves, sends and decides; they"
        " are in no stage's joules, nor in the run's.",
        marks=[
            Bars(
                name=OVERHEAD.get(part, part),
                places=[drawn.name for drawn in runs],
                lengths=[_overhead(drawn, part) for drawn in runs],
                color=f"stage{index}",
                joules=qualities(runs),
            )
            for index, part in enumerate(parts)
        ],
        x=Axis("energy (J/request)", from_zero=True),
        y=Axis("", categories=tuple(drawn.name for drawn in runs)),
        height=90 + 46 * len(runs),
    )


def _overhead(drawn: Drawn, part: str) -> float:
    total_j = math.fsum(live.overhead_j.get(part, 0.0) for _, live in _steps(drawn))
    return total_j / drawn.metrics.served if drawn.metrics.served else math.nan


def drift_table(drawn: Drawn) -> Table:
    """What drifted from its profile."""
    rows = [
        Row(
            f"second {one.found_s:.0f}",
            (
                one.stage,
                f"{one.variant} {one.allocation}",
                one.scale,
                one.dynamic,
                one.idle,
                one.windows,
                "yes" if one.is_applied else "no",
            ),
        )
        for _, live in _steps(drawn)
        for one in live.corrections
    ]
    heads = [
        Head("stage"),
        Head("option"),
        Head("joules", "× profile", digits=2),
        Head("dynamic", "× profile", digits=2),
        Head("idle", "× profile", digits=2),
        Head("intervals", "since it began"),
        Head("decided with"),
    ]
    note = "Every other option of the stage that never ran is counted with the stage's mean scale."
    return Table("Drift from the profile", "found at", heads, rows[:MOST_ROWS], note)


def change_table(drawn: Drawn) -> Table:
    """How long stages took from one configuration to another."""
    rows = [
        Row(
            f"second {one.asked_s:.1f}",
            (one.stage, one.to, one.ready_s - one.asked_s, one.gone_s - one.asked_s),
        )
        for _, live in _steps(drawn)
        for one in live.changes
    ]
    heads = [
        Head("stage"),
        Head("to"),
        Head("all served", "s after", digits=2),
        Head("old gone", "s after", digits=2),
    ]
    return _first_rows("Changes as they happened", "asked at", heads, rows, "changes")


def trouble_table(drawn: Drawn) -> Table:
    """Replicas that ended unasked, and what became of them."""
    rows = [
        Row(f"second {one.at_s:.1f}", (one.stage, one.replica, one.option, one.phase, one.why))
        for _, live in _steps(drawn)
        for one in live.events
        if one.phase in TROUBLE
    ]
    heads = [Head("stage"), Head("replica"), Head("option"), Head("what"), Head("why")]
    return _first_rows("Replicas in trouble", "at", heads, rows, "happenings")


def replica_table(drawn: Drawn) -> Table:
    """What each replica was charged with, the costliest first."""
    sums: dict[str, tuple[str, str, float, float, float, int]] = {}
    for one in chain.from_iterable(live.replicas for _, live in _steps(drawn)):
        _, _, idle_j, dynamic_j, cpu_s, requests = sums.get(one.replica, ("", "", 0.0, 0.0, 0.0, 0))
        sums[one.replica] = (
            one.stage,
            one.option,
            idle_j + one.idle_j,
            dynamic_j + one.dynamic_j,
            cpu_s + one.cpu_s,
            requests + one.requests,
        )
    ordered = sorted(sums.items(), key=lambda item: -(item[1][2] + item[1][3]))
    heads = [
        Head("stage"),
        Head("option"),
        Head("idle", "J", digits=1),
        Head("dynamic", "J", digits=1),
        Head("CPU", "s", digits=1),
        Head("answered", "requests", digits=0),
    ]
    rows = [Row(name, cells) for name, cells in ordered]
    return _first_rows("What each replica spent", "replica", heads, rows, "replicas")


def _first_rows(
    title: str, corner: str, heads: Sequence[Head], rows: Sequence[Row], what: str
) -> Table:
    """A table of :data:`MOST_ROWS` rows at most, with a note where there are more."""
    more = len(rows) > MOST_ROWS
    note = f"The first {MOST_ROWS} of {len(rows)} {what}." if more else ""
    return Table(title, corner, heads, rows[:MOST_ROWS], note)


def live_figures(runs: Iterable[Drawn]) -> list[Figure]:
    """The figures of all sections, for files."""
    return [figure for section in live_sections(list(runs)) for figure in section.figures]
