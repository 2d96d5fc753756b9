"""What a page shows of live runs, and that it shows nothing of it for others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")

from ipa_energy.comparing import compare
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.registries import BACKENDS, Named
from ipa_energy.report.compare_page import compare_page, drawn_runs, write_figures
from ipa_energy.report.live_section import live_sections
from ipa_energy.report.page import render
from ipa_energy.runlog import Run
from ipa_energy.serving.base import Setting
from ipa_energy.serving.observed import Spent
from ipa_energy.serving.served import Change, Event, Served
from ipa_energy.testing import FakeBackend, write_fake_run

pytestmark = pytest.mark.usefixtures("without_stills")

Made = Callable[[float], Run]


@pytest.fixture
def live(small_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes a live run whose joules are so many times its profile's."""
    collect = FakeBackend.collect

    def collect_live(self: FakeBackend, until_s: float) -> Served:
        served, second = collect(self, until_s), self.clock.now_s
        changes = (Change("find", "<b>find-m</b>", second, second + 0.5, math.nan),)
        events = (
            Event(second, "find", "find-m 1c b1", "find-1", "ready"),
            Event(second, "name", "name-s 1c b1", "name-1", "died", "signal <9>"),
        )
        return replace(
            served,
            overhead_j={"router": 1.0, "generator": 0.5},
            replicas=(Spent("find", "find-m 1c", "find-1", 2.0, 3.0, 0.5, 4, 2),),
            changes=changes if second == 60 else (),
            events=events if second == 60 else (),
            notes=("second 60: rapl counts again",) if second == 60 else (),
        )

    monkeypatch.setattr(FakeBackend, "collect", collect_live)

    def made(ratio: float) -> Run:
        def make(setting: Setting) -> Any:
            backend = FakeBackend(setting, resumes="adopt", joules_ratio=lambda *_: ratio)
            return backend.serving

        monkeypatch.setitem(BACKENDS, "fake", Named("a scripted world", make))
        return run_experiment(load_experiment(small_pipeline), name=f"x{ratio:g}", backend="fake")

    return made


def test_a_live_run_has_a_section_with_its_drift_changes_troubles_and_replicas(live: Made) -> None:
    run = live(1.5)
    comparison = compare([run])
    drawn = drawn_runs(comparison, [run])
    (section,) = live_sections(drawn)
    assert "1.50 times its profile at stage find" in section.text[0]
    assert section.points == ["second 60: rapl counts again"]
    tables = {table.title: table for table in section.tables}
    assert list(tables) == [
        "Drift from the profile",
        "Changes as they happened",
        "Replicas in trouble",
        "What each replica spent",
    ]
    drift = tables["Drift from the profile"].rows[0]
    assert drift.cells[2:5] == pytest.approx((1.5, 1.5, 1.5))
    (change,) = tables["Changes as they happened"].rows
    assert change.cells[2] == pytest.approx(0.5)
    (trouble,) = tables["Replicas in trouble"].rows
    assert trouble.cells[3:] == ("died", "signal <9>")
    (replica,) = tables["What each replica spent"].rows
    windows = len(run.steps) + 1  # and the drain
    sums = (2.0 * windows, 3.0 * windows, 0.5 * windows, 4 * windows)
    assert replica.cells[2:] == pytest.approx(sums)
    joules, overhead = section.figures
    assert [figure.key for figure in section.figures] == ["live-joules-0", "live-overhead"]
    assert {mark.name for mark in joules.marks} >= {"profile", "profile, rescaled", "live"}
    lengths = {mark.name: mark.lengths[0] for mark in overhead.marks}
    served = comparison.runs[0].served
    assert lengths == pytest.approx(
        {"router and queues": windows / served, "load generator": windows / 2 / served}
    )
    page = render(compare_page(comparison, drawn))
    assert "<b>find-m</b>" not in page
    assert "&lt;b&gt;find-m&lt;/b&gt;" in page


def test_two_live_runs_have_a_section_each_and_one_figure_of_what_served_beside(
    live: Made, tmp_path: Path
) -> None:
    runs = [live(1.5), live(1.0)]
    comparison = compare(runs)
    sections = live_sections(drawn_runs(comparison, runs))
    assert [section.title for section in sections] == ["Live: x1.5", "Live: x1"]
    assert "no drift was found" in sections[1].text[0]
    keys = [figure.key for section in sections for figure in section.figures]
    assert keys == ["live-joules-0", "live-joules-1", "live-overhead"]
    names = {path.name for path in write_figures(comparison, runs, tmp_path / "png")}
    assert {"live-joules-1.csv", "live-overhead.png"} <= names


def test_runs_that_were_simulated_have_none(tmp_path: Path) -> None:
    from ipa_energy.runlog import read_run

    run = read_run(write_fake_run(tmp_path / "run"))
    comparison = compare([run])
    assert live_sections(drawn_runs(comparison, [run])) == []
    assert "Live:" not in render(compare_page(comparison, drawn_runs(comparison, [run])))
    assert np.isfinite(run.power_w).all()
