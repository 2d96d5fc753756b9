"""The committed profile of the video pipeline: complete, and believable."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from ipa_energy.pipeline_models import load_pipeline
from ipa_energy.profile_table.profile_csv import meta_path, read_profile

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "configs/profiles/video-epyc-9005-2vcpu.csv"
VARIANTS = load_pipeline(str(ROOT / "pipelines/video")).VARIANTS
BATCHES = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def rows():
    return {
        (row.variant, int(row.cpu_cores), row.batch): row
        for row in read_profile(PROFILE)
        if row.replicas == 1
    }


@pytest.fixture(scope="module")
def meta():
    return json.loads(meta_path(PROFILE).read_text())


def names(stage):
    return [variant.name for variant in VARIANTS if variant.stage == stage]


def test_grid_is_complete(rows):
    wanted = {(v.name, cores, batch) for v in VARIANTS for cores in (1, 2) for batch in BATCHES}
    assert wanted == set(rows)


def test_two_replicas_at_once_bear_out_the_model(meta):
    check = meta["replica_check"]
    assert len(check["entries"]) == 20
    assert check["relative_error_max_abs"] < 0.05


def test_nobody_else_used_the_cores_in_any_window_that_counts(meta):
    assert meta["stability"]["contended"] == 0
    assert not any(facts["contended"] for facts in meta["entries"].values())


def test_accuracies_are_the_pipelines_own(rows):
    published = {variant.name: variant.accuracy for variant in VARIANTS}
    assert all(row.accuracy == published[row.variant] for row in rows.values())


def test_joules_never_pass_as_measured(rows, meta):
    assert {(row.meter, row.quality) for row in rows.values()} == {("cpu-time", "estimated")}
    assert all(row.trials >= 3 for row in rows.values())
    assert "±50 %" in meta["meter"]["uncertainty"]
    assert meta["meter"]["power_model"]["relative_error"] == 0.5


def test_every_row_has_its_windows_in_the_meta_file(rows, meta):
    labels = {
        f"{r.stage}/{r.variant} {r.hardware} {r.cpu_cores:g}c b{r.batch}": r for r in rows.values()
    }
    assert set(labels) <= set(meta["entries"])
    for label, row in labels.items():
        facts = meta["entries"][label]
        assert len(facts["windows"]) == row.trials
        assert facts["samples_behind_p99"] == sum(w["batches"] for w in facts["windows"])


@pytest.mark.parametrize("stage", ["crop", "classification"])
@pytest.mark.parametrize("batch", BATCHES)
def test_larger_networks_take_longer_and_more_joules(rows, stage, batch):
    line = [rows[name, 1, batch] for name in names(stage)]
    for small, large in pairwise(line):
        assert small.latency_avg_s < large.latency_avg_s
        assert small.dynamic_energy_j < large.dynamic_energy_j


@pytest.mark.parametrize("variant", [variant.name for variant in VARIANTS])
def test_larger_batches_take_longer(rows, variant):
    line = [rows[variant, 1, batch].latency_avg_s for batch in BATCHES]
    assert line == sorted(line)


def test_a_busy_core_never_draws_more_than_the_model_allows(rows, meta):
    model = meta["meter"]["power_model"]
    dynamic_w_per_core = (model["max_w"] - model["idle_w"]) / model["cores"]
    for row in rows.values():
        power_w = row.dynamic_energy_j * row.throughput_rps
        assert 0.8 * row.cpu_cores < power_w / dynamic_w_per_core < 1.02 * row.cpu_cores


def test_waiting_replicas_use_no_core(rows, meta):
    model = meta["meter"]["power_model"]
    for row in rows.values():
        idle_w = row.cpu_cores * model["idle_w"] / model["cores"]
        assert row.idle_power_w == pytest.approx(idle_w, rel=0.005)
