"""``ipa-energy tradeoff`` as a stranger meets it, and the edges of what can be asked."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from command_line import call

Capture = pytest.CaptureFixture[str]


def study(capsys: Capture, *argv: str | Path) -> Any:
    status, out, err = call(capsys, "tradeoff", *argv, "--duration", "20", "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def refusal(capsys: Capture, *argv: str | Path) -> tuple[int, str]:
    status, out, err = call(capsys, "tradeoff", *argv)
    assert out == ""
    return status, err


def with_rows(pipeline: Path, keep: Any) -> Path:
    """The pipeline with the profile rows that ``keep`` returns, each a dict of cells, or None."""
    profile = pipeline.parent / "profile.csv"
    with profile.open(newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        rows = [kept for row in reader if (kept := keep(row)) is not None]
    with profile.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return pipeline


def test_ten_configurations_three_trials(small_pipeline: Path, capsys: Capture) -> None:
    found = study(capsys, small_pipeline, "--load", "6", "--energy-weight", "1")
    (case,) = found["cases"]
    assert found["trials"] == 3
    assert [point["key"] for point in case["points"]] == [f"C{n}" for n in range(1, 11)]
    assert len({point["label"] for point in case["points"]}) == 10
    for point in case["points"]:
        assert point["joules_per_request"]["trials"] == 3
        assert point["joules_per_request"]["value"] > 0
        assert point["latency_s"]["ci95"] > 0
        assert point["run_quality"] == "estimated"
        assert point["plan"]["certificate"]["holds"]
        for stage in point["plan"]["stages"]:
            assert stage["throughput_rps"] * stage["replicas"] >= 6
    assert 0 <= case["only_energy"]["only_front"] < case["only_energy"]["front"]
    assert case["hypervolume"]["gain"] >= 0
    assert {c["over"] for c in case["correlations"]} == {"points", "plans"}
    assert case["optimum"]["segments"][0]["weight_from"] == 0
    assert found["plan_map"]["rows"][0]["load_rps"] == 1
    assert any("estimated" in sentence for sentence in found["answer"])


def test_one_seed_one_study(small_pipeline: Path, capsys: Capture) -> None:
    argv = (small_pipeline, "--load", "6", "--seed", "3", "--trials", "2")
    assert study(capsys, *argv) == study(capsys, *argv)


def test_the_map_agrees_with_optimize(small_pipeline: Path, capsys: Capture) -> None:
    found = study(capsys, small_pipeline, "--load", "6", "--configurations", "1")
    segments = found["cases"][0]["optimum"]["segments"]
    assert len(segments) > 2
    for segment in segments:
        end = segment["weight_to"]
        weight = (
            segment["weight_from"] + (2 * segment["weight_from"] + 1 if end is None else end)
        ) / 2
        status, out, _ = call(
            capsys, "optimize", small_pipeline, "--load", "6", "--energy-weight", weight, "--json"
        )
        (best,) = json.loads(out)["plans"]
        assert status == 0
        assert best["joules_per_request"] == pytest.approx(segment["joules_per_request"])
        assert best["accuracy"] == pytest.approx(segment["accuracy"])


def test_the_terminal_gets_the_answer_and_the_tables(small_pipeline: Path, capsys: Capture) -> None:
    status, out, err = call(
        capsys, "tradeoff", small_pipeline, "--load", "6", "--duration", "20", "--quiet"
    )
    assert (status, err) == (0, "")
    assert out.startswith("small on profile.csv, 3 trials of each configuration, seed 0\n")
    assert "undominated plans" in out
    assert "optimal plan" in out
    assert "correlation (95 %)" in out
    assert out.count("\nC1 ") == 1


def test_several_loads_are_several_cases(small_pipeline: Path, capsys: Capture) -> None:
    found = study(
        capsys, small_pipeline, "--load", "2", "6", "--load", "2", "--configurations", "3"
    )
    assert [case["name"] for case in found["cases"]] == ["2 rps", "6 rps"]
    assert all(sentence.startswith("At ") for sentence in found["answer"][:-1])


def test_a_trace_is_a_case_of_its_own(
    small_pipeline: Path, tmp_path: Path, capsys: Capture
) -> None:
    trace = tmp_path / "steps.csv"
    trace.write_text("requests\n" + "2\n" * 15 + "9\n" * 15)
    found = study(
        capsys,
        *(small_pipeline, "--load", "3", "--workload", trace, "--configurations", "3"),
    )
    case = found["cases"][1]
    assert (case["name"], case["lowest_rps"], case["load_rps"], case["peak_rps"]) == (
        "steps",
        2,
        5.5,
        9,
    )
    for point in case["points"]:
        for stage in point["plan"]["stages"]:
            assert stage["throughput_rps"] * stage["replicas"] >= 9


def test_points_go_to_a_csv(small_pipeline: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "points.csv"
    found = study(capsys, small_pipeline, "--load", "6", "--configurations", "4", "--csv", path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = found["cases"][0]["points"]
    assert [row["configuration"] for row in rows] == [point["label"] for point in points]
    for row, point in zip(rows, points, strict=True):
        joules = point["joules_per_request"]
        assert float(row["joules_per_request"]) == pytest.approx(joules["value"])
        assert float(row["joules_per_request_ci95"]) == pytest.approx(joules["ci95"], rel=1e-6)
        assert row["on_front"] == str(point["on_front"]).lower()


def test_the_run_folders_can_be_kept_and_compared(
    small_pipeline: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "kept"
    study(capsys, small_pipeline, "--load", "6", "--configurations", "2", "--out", out)
    assert sorted(path.name for path in (out / "6-rps").iterdir()) == [
        f"C{c}-{t}" for c in (1, 2) for t in (1, 2, 3)
    ]
    status, _, _ = call(capsys, "compare", out / "6-rps" / "C1-1", out / "6-rps" / "C2-1")
    assert status == 0
    status, err = refusal(capsys, small_pipeline, "--load", "6", "--out", out)
    assert status == 2
    assert "not empty" in err


def test_the_users_own_list(small_pipeline: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "name,stage,variant,cpu_cores,batch,replicas\n"
        "mine,find,find-s,1,2,\nmine,name,name-s,1,1,5\n"
        "weak,find,find-l,1,1,1\nweak,name,name-s,1,1,\n"
    )
    found = study(capsys, small_pipeline, "--load", "6", "--list", path)
    (case,) = found["cases"]
    (point,) = case["points"]
    assert point["name"] == "mine"
    assert [stage["replicas"] for stage in point["plan"]["stages"]][1] == 5
    assert case["skipped"][0]["name"] == "weak"
    assert any("weak is left out" in warning for warning in found["warnings"])


def test_the_configurations_of_a_run(small_pipeline: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    assert call(capsys, "run", small_pipeline, "--out", run, "--quiet")[0] == 0
    log = json.loads((run / "adaptation_log.json").read_text())["timesteps"]
    expected = {
        tuple((c["variant"], c["cpu"], int(c["batch"])) for c in step["config"].values())
        for step in log.values()
    }
    found = study(capsys, small_pipeline, "--load", "6", "--from", run)
    points = found["cases"][0]["points"]
    got = {
        tuple((s["variant"], s["cpu_cores"], s["batch"]) for s in point["plan"]["stages"])
        for point in points
    }
    assert got == expected
    assert len(points) == len(expected)
    seconds = [float(point["origin"].removeprefix("run run, second ")) for point in points]
    assert seconds[0] == 0
    assert seconds == sorted(seconds)


def test_two_profiles_are_two_machines(
    small_pipeline: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = tmp_path / "other" / "profile.csv"
    other.parent.mkdir()
    text = (small_pipeline.parent / "profile.csv").read_text()
    other.write_text(text)
    frugal = with_rows(
        other, lambda row: {**row, "dynamic_energy_j": float(row["dynamic_energy_j"]) / 2}
    )
    mine = small_pipeline.parent / "profile.csv"
    found = study(
        capsys,
        *(small_pipeline, "--load", "6", "--energy-weight", "1", "--configurations", "1"),
        *("--profile", mine, frugal, mine),
    )
    compared = found["hardware_comparison"]
    assert [each["profile"] for each in compared["profiles"]] == [
        "small/profile.csv",
        "other/profile.csv",
    ]
    picks = compared["picks"]
    assert [pick["energy_weight"] for pick in picks] == [0, 0, 1, 1, None, None]
    for weight, pick in ((0, picks[0]), (1, picks[2])):
        out = call(
            capsys,
            *("optimize", small_pipeline, "--load", "6", "--energy-weight", weight),
            *("--profile", mine, "--json"),
        )[1]
        assert pick["plan"]["stages"] == json.loads(out)["plans"][0]["stages"]
    least = picks[4]["plan"]["joules_per_request"]
    last = found["cases"][0]["optimum"]["segments"][-1]
    assert picks[4]["label"] == last["label"]
    assert picks[5]["plan"]["joules_per_request"] < least
    assert any(sentence.startswith("Hardware at 6 rps") for sentence in found["answer"])


def test_one_profile_is_no_comparison(small_pipeline: Path, capsys: Capture) -> None:
    mine = small_pipeline.parent / "profile.csv"
    found = study(capsys, small_pipeline, "--load", "6", "--profile", mine, mine)
    assert found["hardware_comparison"] is None


def test_one_configuration_ends_in_a_sensible_answer(small_pipeline: Path, capsys: Capture) -> None:
    found = study(capsys, small_pipeline, "--load", "6", "--configurations", "1")
    (case,) = found["cases"]
    assert len(case["points"]) == 1
    for each in case["correlations"]:
        if each["over"] == "points":
            assert each["value"] is None
            assert "it takes 3" in each["reason"]
    assert case["points"][0]["on_front"] is True


def test_one_trial_has_no_intervals(small_pipeline: Path, capsys: Capture) -> None:
    found = study(capsys, small_pipeline, "--load", "6", "--trials", "1", "--configurations", "2")
    assert found["cases"][0]["points"][0]["latency_s"]["ci95"] is None
    assert "one trial has no spread: the points have no intervals" in found["warnings"]


def test_a_single_option_a_stage(small_pipeline: Path, capsys: Capture) -> None:
    """One variant, one allocation, one batch: nothing varies, everything is said."""
    pipeline = with_rows(
        small_pipeline,
        lambda row: (
            row
            if (row["variant"][-2:], row["cpu_cores"], row["batch"]) == ("-s", "1", "1")
            else None
        ),
    )
    found = study(capsys, pipeline, "--load", "6")
    (case,) = found["cases"]
    assert (case["plans"], len(case["points"])) == (1, 1)
    assert case["only_energy"]["front"] == 1
    assert case["hypervolume"]["gain"] == pytest.approx(0)
    assert len(case["optimum"]["segments"]) == 1
    assert any("only 1 configuration can be told apart" in warning for warning in found["warnings"])
    assert any("one plan is optimal at every energy weight" in text for text in found["answer"])


def test_a_single_variant_has_no_accuracy_to_correlate(
    small_pipeline: Path, capsys: Capture
) -> None:
    pipeline = with_rows(small_pipeline, lambda row: row if row["variant"].endswith("-s") else None)
    found = study(capsys, pipeline, "--load", "6")
    values = [
        each for each in found["cases"][0]["correlations"] if "accuracy" in (each["x"], each["y"])
    ]
    assert values
    for each in values:
        assert each["value"] is None
        assert each["reason"].startswith("accuracy is the same in all")


def test_a_profile_without_energy_is_studied_without_it(
    small_pipeline: Path, capsys: Capture
) -> None:
    blank = ("dynamic_energy_j", "idle_power_w", "joules_per_request", "energy_ci95_j")
    nothing = dict.fromkeys((*blank, "meter", "quality"), "")
    pipeline = with_rows(small_pipeline, lambda row: {**row, **nothing})
    found = study(capsys, pipeline, "--load", "6")
    (case,) = found["cases"]
    assert (case["only_energy"], case["hypervolume"], case["optimum"]) == (None, None, None)
    assert case["yardstick"] is None
    assert found["plan_map"] is None
    assert case["points"][0]["joules_per_request"]["reason"] == "no energy in the profile"
    assert not any("joules" in each["y"] for each in case["correlations"])
    assert any("the profile has no joules for" in warning for warning in found["warnings"])
    status, out, _ = call(
        capsys, "tradeoff", pipeline, "--load", "6", "--duration", "20", "--quiet"
    )
    assert status == 0
    assert "The profile has no energy" in out


def test_a_row_without_joules_is_named(small_pipeline: Path, capsys: Capture) -> None:
    blank = ("dynamic_energy_j", "idle_power_w", "joules_per_request", "energy_ci95_j")
    nothing = dict.fromkeys((*blank, "meter", "quality"), "")

    def gap(row: dict[str, str]) -> dict[str, str]:
        here = (row["variant"], row["cpu_cores"], row["batch"]) == ("find-m", "2", "4")
        return {**row, **nothing} if here else row

    found = study(capsys, with_rows(small_pipeline, gap), "--load", "6")
    assert found["quality"] is None
    assert "find-m 2c b4 of stage find" in found["warnings"][0]


def test_missing_rows_leave_fewer_plans(small_pipeline: Path, capsys: Capture) -> None:
    all_of_them = study(capsys, small_pipeline, "--load", "6")["cases"][0]["plans"]
    pipeline = with_rows(
        small_pipeline,
        lambda row: None if (row["variant"], row["batch"]) == ("find-m", "4") else row,
    )
    assert study(capsys, pipeline, "--load", "6")["cases"][0]["plans"] < all_of_them


def test_nothing_feasible_says_why_and_writes_nothing(
    small_pipeline: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, table = tmp_path / "out", tmp_path / "points.csv"
    status, err = refusal(
        capsys,
        *(small_pipeline, "--load", "6", "--latency-sla", "0.001"),
        *("--out", out, "--csv", table),
    )
    assert status == 3
    assert "latency SLA of at least" in err
    assert not out.exists()
    assert not table.exists()


def test_a_load_that_nothing_carries_beside_one_that_something_does(
    small_pipeline: Path, capsys: Capture
) -> None:
    found = study(capsys, small_pipeline, "--load", "6", "100000", "--configurations", "2")
    good, bad = found["cases"]
    assert good["conflict"] is None
    assert bad["points"] == []
    assert "scaling_cap" in bad["conflict"]
    assert any("no plan is feasible" in sentence for sentence in found["answer"])


def test_all_of_a_list_left_out_is_infeasible(
    small_pipeline: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "name,stage,variant,cpu_cores,batch,replicas\n"
        "weak,find,find-l,1,1,1\nweak,name,name-s,1,1,\n"
    )
    status, err = refusal(capsys, small_pipeline, "--load", "6", "--list", path)
    assert status == 3
    assert "weak: 1 of find-l 1c b1 in stage find carry 2 rps, not 6" in err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), "no load"),
        (("--load", "0"), "--load"),
        (("--load", "nan"), "--load"),
        (("--load", "6", "--trials", "0"), "--trials"),
        (("--load", "6", "--configurations", "0"), "--configurations"),
        (("--load", "6", "--duration", "0"), "duration"),
        (("--duration", "9", "--workload", "bursty"), "--duration"),
        (("--load", "6", "--list", "a", "--from", "b"), "not allowed with"),
        (("--load", "6", "--list", "missing.csv"), "no such file"),
        (("--load", "6", "--from", "missing"), "no such folder"),
        (("--load", "6", "--html", "/dev/null/at/all.html"), "/dev/null is no folder"),
        (("--load", "6", "--map-loads", "-1"), "--map-loads"),
    ],
)
def test_bad_usage_is_refused(
    small_pipeline: Path, capsys: Capture, argv: tuple[str, ...], expected: str
) -> None:
    status, err = refusal(capsys, small_pipeline, *argv)
    assert status == 2
    assert expected in err


def test_every_figure_of_the_json_is_finite_or_null(small_pipeline: Path, capsys: Capture) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        elif isinstance(value, float):
            assert math.isfinite(value)

    check(study(capsys, small_pipeline, "--load", "6", "--trials", "1"))


def test_the_sensitivity_of_each_case_is_added(small_pipeline: Path, capsys: Capture) -> None:
    found = study(
        capsys, small_pipeline, "--load", "2", "6", "--configurations", "1", "--sensitivity"
    )
    assert set(found["sensitivity"]) == {"2 rps", "6 rps"}
    status, out, _ = call(
        capsys,
        *("tradeoff", small_pipeline, "--load", "6", "--duration", "20", "--quiet"),
        *("--configurations", "1", "--sensitivity"),
    )
    assert status == 0
    assert "Sensitivity at 6 rps" in out


def test_report_and_figures_are_written(
    small_pipeline: Path, tmp_path: Path, capsys: Capture
) -> None:
    page, figures = tmp_path / "study.html", tmp_path / "figures"
    study(
        capsys,
        *(small_pipeline, "--load", "6", "--configurations", "3", "--html", page),
        *("--png", figures),
    )
    assert "<html" in page.read_text()[:300].lower()
    assert list(figures.glob("*.png"))
