"""The names of ``import ipa_energy``, and what they do."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ipa_energy as ie
from ipa_energy.profile_table.profile_csv import read_profile
from ipa_energy.testing import FakeMeter

NAMES = [
    "Allocation",
    "ConfigError",
    "InfeasibleError",
    "IpaEnergyError",
    "Option",
    "Plan",
    "Stage",
    "UnavailableError",
    "__version__",
    "compare",
    "load_pipeline",
    "measure",
    "plan",
    "profile",
    "read_run",
    "run",
    "study",
]


def test_these_names_are_exported_and_are_there() -> None:
    assert ie.__all__ == NAMES
    assert all(getattr(ie, name) is not None for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ie.nonsense


def test_a_submodule_does_not_stand_in_the_way_of_a_name() -> None:
    # Importing ipa_energy.x sets the attribute x: no module may bear the name of a function.
    package = Path(ie.__file__).parent
    modules = {path.stem for path in package.iterdir()}
    assert not modules & set(NAMES)


def test_importing_it_imports_no_library() -> None:
    code = "import ipa_energy, sys; print({'numpy', 'pydantic', 'yaml'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_plan_by_name_and_by_path(small_pipeline: Path) -> None:
    by_name = ie.plan("video", load_rps=10, energy_weight=2, top=3)
    assert len(by_name.plans) == 3 and isinstance(by_name.plans[0], ie.Plan)
    loaded = ie.load_pipeline(small_pipeline, energy_weight=4)
    assert ie.plan(loaded, load_rps=5).plans[0].label == (
        ie.plan(small_pipeline, load_rps=5, energy_weight=4).plans[0].label
    )
    with pytest.raises(ie.ConfigError, match="takes no overrides"):
        ie.plan(loaded, load_rps=5, alpha=1)
    with pytest.raises(ie.ConfigError, match="allowed: a number above 0"):
        ie.plan(loaded, load_rps=0)
    with pytest.raises(ie.ConfigError, match=r"no pipeline is called nonsense; allowed: .*video"):
        ie.plan("nonsense", load_rps=1)


def test_what_cannot_be_planned_has_a_conflict(small_pipeline: Path) -> None:
    result = ie.plan(small_pipeline, load_rps=5, latency_sla_s=0.001)
    assert not result.plans and result.conflict is not None
    with pytest.raises(ie.InfeasibleError):
        ie.run(small_pipeline, latency_sla_s=0.001)


def test_runs_with_and_without_a_folder_are_one(small_pipeline: Path, tmp_path: Path) -> None:
    without = ie.run(small_pipeline, name="a", energy_weight=0)
    ie.run(small_pipeline, tmp_path / "a", energy_weight=0)
    ie.run(small_pipeline, tmp_path / "b", energy_weight=20)
    found = ie.compare(without, tmp_path / "a", ie.read_run(tmp_path / "b"), hindsight=True)
    first, second, third = found.runs
    assert first.energy_j == second.energy_j > third.energy_j
    assert set(found.hindsight) == {"a (2)", "b"}  # as the rows are called


@pytest.mark.slow
def test_profile_measures_a_pipelines_models_into_a_table(
    small_pipeline: Path, tmp_path: Path
) -> None:
    models = Path(__file__).parent / "profiling" / "fake_pipeline.py"
    out = tmp_path / "profile.csv"
    served = tmp_path / "served"
    served.touch()
    # The counter counts batches: 3 J each, 1.5 J for each of its two requests.
    meter = FakeMeter(lambda _: 3.0 * len(served.read_text().splitlines()))
    weights = {"steady": str(served)}
    entries: dict[str, Any] = {"models": models, "variants": ["steady"], "batches": (2,)}
    found = ie.profile(small_pipeline, out, meter=meter, quick=True, weights=weights, **entries)
    (row,) = found.rows
    assert (row.variant, row.batch, row.trials, row.meter) == ("steady", 2, 1, "fake")
    assert row.dynamic_energy_j == 1.5
    assert [each.dynamic_energy_j for each in read_profile(out)] == [1.5]
    with pytest.raises(ie.ConfigError, match="the profile exists already"):
        ie.profile(small_pipeline, out, meter=meter, quick=True, **entries)
    other = tmp_path / "other.csv"
    first = ie.profile(small_pipeline, other, meter="cpu-time", quick=True, **entries)
    again = ie.profile(small_pipeline, other, meter="cpu-time", quick=True, resume=True, **entries)
    assert (first.rows[0].meter, again.rows, len(again.kept)) == ("cpu-time", (), 1)
    with pytest.raises(ie.ConfigError, match=r"'nonsense' is no meter"):
        ie.profile(small_pipeline, tmp_path / "third.csv", meter="nonsense", models=models)
    with pytest.raises(ie.ConfigError, match=r"no models for the pipeline"):
        ie.profile(small_pipeline, tmp_path / "third.csv", meter=FakeMeter())


@pytest.mark.slow
def test_study_says_what_energy_adds(small_pipeline: Path) -> None:
    found = ie.study(small_pipeline, 5, duration_s=20, configurations=3, trials=1)
    (case,) = found.cases
    assert case.load_rps == 5 and len(case.points) == 3
    assert found.answer and found.plan_map is not None
    with pytest.raises(ie.ConfigError, match="no load to judge configurations under"):
        ie.study(small_pipeline)
    with pytest.raises(ie.ConfigError, match="trials: 0; allowed: 1 or more"):
        ie.study(small_pipeline, 5, trials=0)


def test_the_modules_behind_the_names_are_where_they_are_said_to_be() -> None:
    for name, module in ie._TARGETS.items():
        there = ie._NAME_THERE.get(name, name)
        assert hasattr(importlib.import_module(module), there)
