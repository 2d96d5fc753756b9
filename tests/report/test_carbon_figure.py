"""The day's carbon in one figure: intensity, watts, grams and each stage's variants."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ipa_energy.comparing import compare, metrics
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.report.compare_page import carbon_figures, drawn_runs
from ipa_energy.report.figure import Bars, Line, csv_of
from ipa_energy.report.run_series import Drawn, segments

CONFIG = Path(__file__).parents[2] / "configs" / "video.yaml"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Drawn]:
    intensity = tmp_path_factory.mktemp("grid") / "grid.csv"
    intensity.write_text("time,rate\n2023-04-17T00:00Z,40\n2023-04-17T01:00Z,900\n")
    said = {"path": str(intensity), "unit": "g/kWh", "time_column": "time", "value_column": "rate"}
    keys = {
        "workload_config": {"duration_s": 120},
        "carbon": {"intensity": said, "start": "2023-04-17T00:59Z", "weight": 50_000},
    }
    run = run_experiment(load_experiment(CONFIG, keys))
    return drawn_runs(compare([metrics(run)]), [run])


def test_panels_have_what_the_run_emitted_and_chose(drawn: list[Drawn]) -> None:
    (figure,) = carbon_figures(drawn)
    run = drawn[0].run
    titles = [axis.title for axis in figure.panels]
    assert titles[:3] == ["intensity (g/kWh)", "power (W)", "carbon (g/h)"]
    assert len(titles) == 3 + len(run.info.stages)
    intensity, _, grams = (mark for mark in figure.marks if isinstance(mark, Line))
    assert {*np.asarray(intensity.y)} == {40.0, 900.0}
    hours = np.diff(np.asarray(grams.x)) / 3600
    # The last step goes on until everything is answered, the figure to the end of the load.
    whole = math.fsum(step.grams for step in run.steps[:-1])
    last = run.steps[-1]
    counted = whole + last.grams * (run.duration_s - last.start_s) / last.duration_s
    assert float(np.asarray(grams.y)[:-1] @ hours) == pytest.approx(counted, rel=1e-6)
    assert "estimated" in figure.caption
    assert "estimated" in figure.footnote
    for stage, name in enumerate(run.info.stages):
        bars = [m for m in figure.marks if isinstance(m, Bars) and m.panel == 3 + stage]
        assert all(bar.name.startswith(f"{name}: ") for bar in bars)
        assert sum(float(np.sum(bar.lengths)) for bar in bars) == pytest.approx(run.duration_s)
        used = {step.stages[stage].variant for step in run.steps if step.start_s < run.duration_s}
        assert {bar.name.removeprefix(f"{name}: ") for bar in bars} == used
    assert "intensity (g/kWh)" in csv_of(figure).splitlines()[0]


def test_variants_alone_join_what_batch_and_replicas_part(drawn: list[Drawn]) -> None:
    joined = segments(drawn[0].run, 0, knobs=False)
    assert len(joined) <= len(segments(drawn[0].run, 0))
    for before, after in pairwise(joined):
        assert before.variant != after.variant


def test_runs_without_grams_have_no_such_figure(drawn: list[Drawn]) -> None:
    without = replace(drawn[0].metrics, grams=float("nan"), settings={})
    assert carbon_figures([replace(drawn[0], metrics=without)]) == []
