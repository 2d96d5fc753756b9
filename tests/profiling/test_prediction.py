"""Predicted rows: right where the truth is simple, marked, and replaced when measured."""

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from short_trials import SHORT

from ipa_energy.errors import ConfigError
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.planning.stages import _provenance, _weighted
from ipa_energy.profile_table.profile_csv import meta_path, read_profile
from ipa_energy.profile_table.profile_row import ProfileRow, format_row, parse_row
from ipa_energy.profiling.entry_rows import is_predicted, predict
from ipa_energy.profiling.grid import Entry, entry_of
from ipa_energy.profiling.profile_sweep import profile_pipeline
from ipa_energy.profiling.replica_meter import cpu_time_choice

PIPELINE = str(Path(__file__).with_name("fake_pipeline.py"))
CORE = max(os.sched_getaffinity(0))
MODEL = PowerModel(idle_w=2.0, max_w=10.0, cores=2, source="made up for the test")
BATCHES = (1, 2, 4, 8)


def row_of(variant, scale_s, batch, *, idle_w=0.5, **changes):
    latency_s = scale_s * (0.5 + 0.5 * batch)
    rate_rps = batch / latency_s
    dynamic_j = 2.0 * latency_s / batch
    plain = {
        "stage": "crop",
        "variant": variant,
        "hardware": "cpu",
        "cpu_cores": 1.0,
        "gpu_share": 0.0,
        "batch": batch,
        "replicas": 1,
        "load_rps": rate_rps,
        "latency_avg_s": latency_s,
        "latency_p99_s": 1.2 * latency_s,
        "throughput_rps": rate_rps,
        "accuracy": 0.5,
        "dynamic_energy_j": dynamic_j,
        "idle_power_w": idle_w,
        "joules_per_request": dynamic_j + idle_w / rate_rps,
        "energy_ci95_j": 0.01,
        "trials": 3,
        "meter": "rapl",
        "quality": "measured",
    }
    return ProfileRow(**(plain | changes))


def grid_rows(**changes):
    return [
        row_of(variant, scale_s, batch, **changes)
        for variant, scale_s in (("n", 0.1), ("m", 1.0))
        for batch in BATCHES
    ]


def split(rows):
    """All but batch 4 as measured, and the entries of batch 4."""
    return [row for row in rows if row.batch != 4], [entry_of(r) for r in rows if r.batch == 4]


def test_shares_of_a_gpu_are_fitted_apart():
    whole = grid_rows(hardware="h100", gpu_share=1.0)
    half = [
        dataclasses.replace(
            row,
            gpu_share=0.5,
            latency_avg_s=2 * row.latency_avg_s,
            latency_p99_s=2 * row.latency_p99_s,
        )
        for row in whole
    ]
    measured = [row for row in (*whole, *half) if row.batch != 4]
    wanted = [entry_of(row) for row in (*whole, *half) if row.batch == 4]
    found = predict(measured, wanted)
    assert set(found.meta["stages"]) == {"crop h100", "crop h100 0.5g"}
    truth = {entry_of(row): row.latency_avg_s for row in (*whole, *half)}
    assert len(found.rows) == 4
    for row in found.rows:
        assert row.latency_avg_s == pytest.approx(truth[entry_of(row)], rel=1e-3)


def test_rows_of_a_simple_truth_are_predicted_exactly_and_marked():
    rows = grid_rows()
    measured, wanted = split(rows)
    found = predict(measured, wanted)
    assert found.failures == {}
    truth = {entry_of(row): row for row in rows}
    for row in found.rows:
        actual = truth[entry_of(row)]
        for name in ("latency_avg_s", "latency_p99_s", "throughput_rps", "dynamic_energy_j"):
            assert getattr(row, name) == pytest.approx(getattr(actual, name), rel=1e-3)
        assert row.idle_power_w == pytest.approx(0.5)
        assert row.joules_per_request == pytest.approx(actual.joules_per_request, rel=1e-3)
        assert (row.meter, row.quality, row.trials) == ("fit(rapl)", "estimated", 0)
        assert is_predicted(row)
        assert parse_row(format_row(row), "here") == row


def test_intervals_and_held_out_errors_are_told_for_latency_as_for_joules():
    measured, wanted = split(grid_rows())
    noisy = [
        dataclasses.replace(row, latency_avg_s=row.latency_avg_s * (1 + 0.05 * (-1) ** number))
        for number, row in enumerate(measured)
    ]
    found = predict(noisy, wanted)
    fit = found.meta["stages"]["crop cpu"]["latency_avg_s"]
    assert fit["measured_points"] == 6
    assert 0.01 < fit["held_out"]["relative_mae"] <= fit["held_out"]["relative_max"]
    assert fit["interval_factor"] > 1.01
    assert fit["shape"] in fit["relative_mae_of_shapes"]
    for entry in wanted:
        figures = found.meta["entries"][entry.label]
        assert set(figures) == {
            "latency_avg_s",
            "latency_p99_s",
            "batch_s",
            "batch_energy_j",
            "idle_power_w",
        }
        assert figures["latency_avg_s"]["low"] < figures["latency_avg_s"]["value"]
        assert figures["latency_avg_s"]["value"] < figures["latency_avg_s"]["high"]


def test_energy_interval_of_a_row_is_that_of_the_prediction():
    measured, wanted = split(grid_rows())
    noisy = [
        dataclasses.replace(row, dynamic_energy_j=row.dynamic_energy_j * (1 + 0.1 * (-1) ** number))
        for number, row in enumerate(measured)
    ]
    found = predict(noisy, wanted)
    assert len(found.rows) == len(wanted)
    for row in found.rows:
        energy = found.meta["entries"][entry_of(row).label]["batch_energy_j"]
        half_width_j = (energy["high"] - energy["value"]) / row.batch
        assert row.energy_ci95_j == pytest.approx(half_width_j, rel=1e-5)


def test_meter_without_idle_power_predicts_none_not_an_error():
    measured, wanted = split(grid_rows(idle_w=0.0))
    rows = predict(measured, wanted).rows
    assert [row.idle_power_w for row in rows] == [0.0, 0.0]


def test_facts_of_a_hopeless_fit_are_strict_json():
    measured, wanted = split(grid_rows())
    wild = [
        dataclasses.replace(row, latency_avg_s=10.0 ** (25 * (-1) ** number))
        for number, row in enumerate(measured)
    ]
    found = predict(wild, wanted)
    assert found.failures or found.rows
    text = json.dumps(found.meta["stages"], allow_nan=False)
    assert "Infinity" not in text


def test_what_cannot_be_predicted_says_why():
    measured, wanted = split(grid_rows())
    other = Entry("crop", "never-measured", "cpu", 1, 4)
    found = predict(measured, [*wanted, other])
    assert len(found.rows) == 2
    assert "says nothing of never-measured" in found.failures[other]
    too_few = predict(measured[:2], wanted)
    assert too_few.rows == ()
    assert all("too few" in reason for reason in too_few.failures.values())
    assert all("too few" in reason for reason in predict([], wanted).failures.values())


def test_predicted_rows_and_rows_of_several_replicas_are_not_fitted_to():
    measured, wanted = split(grid_rows())
    plain = predict(measured, wanted).rows
    wild = [
        dataclasses.replace(row, latency_avg_s=99.0, latency_p99_s=99.0, **changes)
        for row in measured
        for changes in ({"replicas": 2}, {"meter": "fit(rapl)", "trials": 0})
    ]
    assert predict([*wild, *measured], wanted).rows == plain


def test_zero_trials_are_for_predictions_only():
    cells = format_row(dataclasses.replace(grid_rows()[0], trials=0))
    (problem,) = parse_row(cells, "p.csv:2")
    assert isinstance(problem, ConfigError)
    assert "trials is 0" in str(problem)


def test_prediction_never_dilutes_a_measurement_of_the_same_option():
    one = row_of("n", 0.1, 4)
    guess = dataclasses.replace(
        one, dynamic_energy_j=50.0, trials=0, meter="fit(rapl)", quality="estimated"
    )
    several = dataclasses.replace(one, replicas=2)
    assert _weighted([50.0, 3.0], [guess, several]) == 3.0
    found = _provenance([guess, several])
    assert (found.meter, found.quality, found.trials) == ("rapl", "measured", 3)
    alone = _provenance([guess])
    assert (alone.meter, alone.quality, alone.trials) == ("fit(rapl)", "estimated", 0)
    assert alone.ci95_j == pytest.approx(guess.energy_ci95_j)
    assert _weighted([50.0], [guess]) == 50.0


# Whole sweeps with a budget.


def sweep(out, **changes):
    arguments = {
        "out": out,
        "meter": cpu_time_choice(MODEL),
        "variants": ["steady", "slower"],
        "batches": BATCHES,
        "core_ids": [CORE],
        "trials": 1,
        "settings": SHORT,
        "budget": 0.6,
    }
    return profile_pipeline(PIPELINE, **(arguments | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("budget") / "p.csv"
    return out, sweep(out)


def copy_of(finished, tmp_path):
    out = tmp_path / "p.csv"
    for suffix in (".csv", ".trials.jsonl", ".meta.json"):
        out.with_suffix(suffix).write_bytes(finished[0].with_suffix(suffix).read_bytes())
    return out


def test_budget_measures_its_share_and_predicts_the_rest(finished):
    out, result = finished
    rows = read_profile(out)
    assert (len(result.rows), len(result.predicted), result.failures) == (5, 3, ())
    assert len(rows) == 8
    assert {row.quality for row in rows} == {"estimated"}
    assert {row.meter for row in rows if row.trials == 0} == {"fit(cpu-time)"}
    assert [row for row in rows if is_predicted(row)] == list(result.predicted)


def test_meta_names_every_predicted_entry_and_no_other(finished):
    out, result = finished
    meta = json.loads(meta_path(out).read_text())
    assert set(meta["fit"]["entries"]) == {entry_of(row).label for row in result.predicted}
    assert not set(meta["fit"]["entries"]) & set(meta["entries"])
    assert set(meta["fit"]["stages"]["work cpu"]) >= {"latency_avg_s", "batch_energy_j"}
    assert meta["sessions"][0]["budget"] == 0.6


def test_same_budget_again_changes_nothing(finished, tmp_path):
    out = copy_of(finished, tmp_path)
    before = out.read_bytes()
    result = sweep(out, resume=True)
    assert (result.rows, len(result.kept)) == ((), 5)
    assert out.read_bytes() == before
    assert json.loads(meta_path(out).read_text()) == json.loads(meta_path(finished[0]).read_text())


def test_measuring_a_predicted_entry_takes_the_prediction_out(finished, tmp_path):
    out = copy_of(finished, tmp_path)
    result = sweep(out, resume=True, budget=None)
    rows = read_profile(out)
    assert len(result.rows) == 3
    assert len(rows) == 8
    assert not any(is_predicted(row) for row in rows)
    assert "fit" not in json.loads(meta_path(out).read_text())


def test_measuring_some_of_them_keeps_the_other_predictions_and_what_is_said_of_them(
    finished, tmp_path
):
    out = copy_of(finished, tmp_path)
    one = finished[1].predicted[0]
    sweep(out, resume=True, budget=None, variants=[one.variant], batches=(one.batch,))
    left = [row for row in read_profile(out) if is_predicted(row)]
    assert left == list(finished[1].predicted[1:])
    fit = json.loads(meta_path(out).read_text())["fit"]
    assert set(fit["entries"]) == {entry_of(row).label for row in left}


def test_broken_meta_file_of_a_table_with_predictions_is_named(finished, tmp_path):
    out = copy_of(finished, tmp_path)
    meta_path(out).write_text("{")
    with pytest.raises(ConfigError, match=r"p\.meta\.json"):
        sweep(out, resume=True)


def test_entries_that_fail_leave_the_budget_to_say_what_it_lacks(tmp_path):
    result = sweep(tmp_path / "p.csv", variants=["raises"], budget=0.5)
    assert result.rows == ()
    assert all("too few" in f.reason or "bad input" in f.reason for f in result.failures)
    assert not (tmp_path / "p.csv").exists()


def test_prediction_is_never_nan(finished):
    assert finished[1].predicted
    for row in finished[1].predicted:
        assert not math.isnan(row.joules_per_request)
        assert row.dynamic_energy_j > 0
