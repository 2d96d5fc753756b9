"""A study with every part that a page can show, hostile names and both qualities of joules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ipa_energy.planning.planner import load_planner
from ipa_energy.tradeoff.conduct import Question, conduct
from ipa_energy.tradeoff.named_configurations import Skipped
from ipa_energy.tradeoff.sensitivity import Sensitivity
from ipa_energy.tradeoff.study import Study
from ipa_energy.tradeoff.trials import Point, constant_load

HOSTILE = '<img src=x onerror=alert(1)> </script> & $a^2 %{x} "quoted", comma'


def study_to_draw(pipeline: Path) -> Study:
    """Two loads, two profiles; at the first load every other point is measured."""
    second = pipeline.parent / "second.csv"
    second.write_text((pipeline.parent / "profile.csv").read_text().replace(",cpu,", ",arm,"))
    planners = [
        load_planner(pipeline, {"energy_weight": 1.0} | further, policy=None)
        for further in ({}, {"profile": str(second)})
    ]
    study = conduct(
        Question(
            planners=planners,
            loads=[constant_load(6.0, 20), constant_load(12.0, 20)],
            count=8,
            named=None,
            trials=3,
            mapped_loads_rps=[2.0, 6.0, 12.0],
            sensitivity=True,
            folder=None,
        ),
        show_progress=False,
    )
    first, *others = study.cases
    points = tuple(_as(point, index) for index, point in enumerate(first.points))
    first = replace(first, points=points, skipped=(Skipped(HOSTILE, "no such variant"),))
    return replace(
        study,
        pipeline=HOSTILE,
        hardware=HOSTILE,
        cases=(first, *others),
        warnings=(HOSTILE,),
        sensitivity={**study.sensitivity, first.name: _hostile(study.sensitivity[first.name])},
    )


def _hostile(found: Sensitivity) -> Sensitivity:
    """With markup for a plan's name, and neither front nor exchange rates."""
    plan = replace(found.plan, label=HOSTILE)
    reasons = {"front": HOSTILE, "exchanges": HOSTILE}
    return replace(found, plan=plan, front=None, exchanges=None, reasons=reasons)


def _as(point: Point, index: int) -> Point:
    if index % 2:
        return replace(point, quality="measured", meter="rapl")
    named = replace(point.configuration, name=HOSTILE)
    return replace(point, configuration=named)
