"""The command line as a stranger meets it: output, JSON shapes, exit status, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call, call_json


@pytest.fixture
def finished(small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run folder."""
    out = tmp_path / "run"
    status, _, err = call(capsys, "run", small_pipeline, "--out", out, "--quiet")
    assert (status, err) == (0, "")
    return out


@pytest.mark.parametrize(
    "verb",
    [
        "meters",
        "measure",
        "calibrate",
        "profile",
        "convert",
        "import",
        "optimize",
        "run",
        "compare",
        "frontier",
        "tradeoff",
        "patch",
    ],
)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, verb, "--help")
    assert status == 0
    assert "--json" in out


def test_help_names_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "--help")
    assert "2 bad input" in out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from ipa_energy.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'matplotlib', 'plotly', 'gurobipy', 'highspy',\n"
        "         'statsmodels', 'pydantic', 'yaml', 'torch', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_options_offer_what_the_program_has() -> None:
    """Choices come from the registries; see tests/test_registries.py."""
    from ipa_energy.cli.options import KEY_OF_OPTION
    from ipa_energy.config.loading import OPTIONS, SET, WORKLOAD
    from ipa_energy.config.schema import PipelineConfig

    keys = set(KEY_OF_OPTION.values()) - {SET, WORKLOAD}
    assert keys <= set(PipelineConfig.model_fields)
    named = {key: f"--{option.replace('_', '-')}" for option, key in KEY_OF_OPTION.items()}
    assert {key: named[key] for key in OPTIONS} == dict(OPTIONS)


def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ipa_energy", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("ipa-energy ")


# ------------------------------------------------------------------ optimize


@pytest.mark.parametrize("method", ["pareto", "gurobi", "highs", "brute-force"])
def test_optimize_json_has_the_documented_shape(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    status, found = call_json(
        capsys,
        *("optimize", small_pipeline, "--load", "7", "--energy-weight", "2", "--method", method),
    )
    assert status == 0
    assert found["status"] == "optimal"
    assert found["method"] == method
    assert found["conflict"] is None
    assert found["load_rps"] == 7
    plan = found["plans"][0]
    assert set(plan) >= {
        "stages", "accuracy", "cost_cores", "latency_s", "joules_per_request", "power_w",
        "objective", "terms", "certificate",
    }  # fmt: skip
    assert set(plan["terms"]) == {"accuracy", "cost", "batch", "energy"}
    assert set(plan["stages"][0]) >= {
        "stage", "variant", "cpu_cores", "gpu_share", "batch", "replicas", "latency_s", "wait_s",
        "throughput_rps", "joules_per_request", "power_w",
    }  # fmt: skip
    assert plan["certificate"]["holds"] is True
    terms = plan["terms"]
    assert plan["objective"] == pytest.approx(
        terms["accuracy"] - terms["cost"] - terms["batch"] - terms["energy"]
    )
    assert plan["energy_quality"] == "estimated"


def test_optimize_shows_the_k_best_in_order(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = call_json(capsys, "optimize", small_pipeline, "--load", "7", "--top", "5")
    objectives = [plan["objective"] for plan in found["plans"]]
    assert len(objectives) == 5
    assert objectives == sorted(objectives, reverse=True)


def test_optimize_text_says_estimated_beside_joules(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, "optimize", small_pipeline, "--load", "7")
    assert status == 0
    assert "J per request (estimated)" in out


def test_energy_risk_upper_plans_with_the_upper_end_and_shows_both(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The profile's half widths are a hundredth of its dynamic joules."""
    argv = ("optimize", small_pipeline, "--load", "7", "--energy-weight", "2")
    upper = (*argv, "--energy-risk", "upper")
    status, found = call_json(capsys, *upper)
    assert (status, found["energy_risk"]) == (0, "upper")
    plan = found["plans"][0]
    assert plan["energy_risk"] == "upper"
    joules, planned = plan["joules_per_request"], plan["planned_joules_per_request"]
    assert joules < planned < 1.01 * joules
    assert plan["terms"]["energy"] == pytest.approx(2 * planned)
    _, text, _ = call(capsys, *upper)
    assert f"planned as {planned:.3f} J (energy_risk: upper)" in text
    # A cap between the two is kept by the mean and broken by the upper end.
    cap = str((joules + planned) / 2)
    assert call_json(capsys, *upper, "--energy-sla-joules", cap)[1]["plans"] != found["plans"]
    _, by_mean = call_json(capsys, *argv, "--energy-sla-joules", cap)
    assert by_mean["energy_risk"] == "mean"
    plan = by_mean["plans"][0]
    assert plan["joules_per_request"] == plan["planned_joules_per_request"] <= float(cap)


@pytest.mark.parametrize(
    "verb", [("optimize", "--load", "7", "--energy-weight", "1"), ("tradeoff", "--load", "7")]
)
def test_energy_risk_upper_refuses_rows_of_one_trial(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]
) -> None:
    profile = small_pipeline.parent / "profile.csv"
    header, first, *rest = profile.read_text().splitlines()
    cells = first.split(",")
    names = header.split(",")
    cells[names.index("energy_ci95_j")], cells[names.index("trials")] = "", "1"
    profile.write_text("\n".join([header, ",".join(cells), *rest, ""]))
    argv = (verb[0], small_pipeline, *verb[1:])
    status, out, err = call(capsys, *argv, "--energy-risk", "upper")
    assert (status, out) == (2, "")
    assert "stage find, find-s 1c b1 on cpu: its joules have no 95 % interval" in err
    assert "energy_risk: mean" in err


def test_a_simulated_run_spends_the_mean_whatever_it_plans_with(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At weight 0 the decisions are the same, so the joules have to be."""
    spent = []
    for risk in ("mean", "upper"):
        out = tmp_path / risk
        status, _, err = call(
            capsys, "run", small_pipeline, "--energy-risk", risk, "--out", out, "--quiet"
        )
        assert (status, err) == (0, "")
        steps = json.loads((out / "adaptation_log.json").read_text())["timesteps"].values()
        spent.append([(step["energy_joules"], step["config"]) for step in steps])
        assert json.loads((out / "run.json").read_text())["settings"]["energy_risk"] == risk
    assert spent[0] == spent[1]
    assert sum(joules for joules, _ in spent[0]) > 0


def test_infeasible_exits_3_with_the_cheapest_way_out(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("optimize", small_pipeline, "--load", "7", "--latency-sla", "0.05")
    status, out, _ = call(capsys, *argv)
    assert status == 3
    assert "latency SLA of at least" in out
    status, found = call_json(capsys, *argv)
    assert status == 3
    assert found["status"] == "infeasible"
    assert found["plans"] == []
    needed = found["conflict"]["relaxations"][0]["needed"]
    status, _ = call_json(capsys, *argv[:-1], str(needed))
    assert status == 0


def test_joules_of_stages_add_up_where_a_stage_sees_several_requests(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_pipeline.open("a") as file:
        file.write("requests_per_input: [1, 3]\n")
    _, found = call_json(capsys, "optimize", small_pipeline, "--load", "4")
    plan = found["plans"][0]
    first, second = plan["stages"]
    assert second["joules_per_pipeline_request"] == 3 * second["joules_per_request"]
    total = first["joules_per_pipeline_request"] + second["joules_per_pipeline_request"]
    assert total == plan["joules_per_request"]
    status, text, _ = call(capsys, "optimize", small_pipeline, "--load", "4")
    assert status == 0
    assert "J/stage request  J/pipeline request" in text


def test_run_that_answers_nothing_does_not_deny_its_joules(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_pipeline.open("a") as file:
        file.write("drop_limit: 0.001\n")
    status, text, _ = call(capsys, "run", small_pipeline, "--out", tmp_path / "run")
    assert status == 0
    assert "J (estimated, cpu-time) and nothing answered" in text
    assert "no energy" not in text


def test_run_with_an_energy_sla_says_how_often_it_held(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("run", small_pipeline, "--energy-sla-joules", "1.2", "--out", tmp_path / "run")
    _, text, _ = call(capsys, *argv)
    assert "91.67% of the intervals inside the energy SLA of 1.2 J" in text


@pytest.mark.parametrize("weight", ["1.7e+308", "1.1e+100"])
def test_weights_beyond_arithmetic_are_refused(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str], weight: str
) -> None:
    text = small_pipeline.read_text()
    small_pipeline.write_text(text.replace("alpha: 20", f"alpha: {weight}"))
    status, _, err = call(capsys, "optimize", small_pipeline, "--load", "10")
    assert status == 2
    assert "alpha" in err
    assert "at most 1e+100" in err
    assert "RuntimeWarning" not in err
    small_pipeline.write_text(text.replace("alpha: 20", "alpha: 1.0e+100"))
    status, out, err = call(capsys, "optimize", small_pipeline, "--load", "10")
    assert (status, err) == (0, "")
    assert "optimal" in out


def test_load_under_one_is_planned_as_it_is(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = call_json(capsys, "optimize", small_pipeline, "--load", "0.2")
    assert (found["load_rps"], found["planned_load_rps"]) == (0.2, 0.2)
    plan = found["plans"][0]
    energy = sum(stage["power_w"] for stage in plan["stages"]) / 0.2
    assert plan["joules_per_request"] == pytest.approx(energy)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--load", "0", "above 0"),
        ("--load", "-3", "above 0"),
        ("--load", "nan", "above 0"),
        ("--load", "inf", "above 0"),
        ("--load", "many", "--load"),
        ("--energy-weight", "-1", "--energy-weight"),
        ("--energy-weight", "nan", "--energy-weight"),
        ("--energy-sla-joules", "0", "--energy-sla-joules"),
        ("--latency-sla", "0", "--latency-sla"),
        ("--method", "magic", "pareto"),
        ("--policy", "best", "fa2-low"),
        ("--top", "0", "from 1"),
        ("--profile", "nowhere.csv", "nowhere.csv"),
    ],
)
def test_bad_option_is_refused_with_one_message(
    small_pipeline: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    says: str,
) -> None:
    argv = ["optimize", str(small_pipeline), "--load", "7"]
    argv = [*argv[:2], option, value] if option == "--load" else [*argv, option, value]
    status, out, err = call(capsys, *argv)
    assert status == 2
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert err.count("error:") == 1


def test_error_is_also_json_on_stdout(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = call_json(capsys, "optimize", small_pipeline, "--load", "0")
    assert status == 2
    assert found["error"]["kind"] == "ConfigError"


def test_yaml_that_is_missing_or_broken_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "optimize", tmp_path / "no.yaml", "--load", "7")
    assert status == 2
    assert "no.yaml" in err
    (tmp_path / "bad.yaml").write_text("pipeline_name: [unclosed\n")
    status, _, err = call(capsys, "optimize", tmp_path / "bad.yaml", "--load", "7")
    assert status == 2
    assert "bad.yaml" in err


def test_pipeline_without_profile_says_how_to_get_one(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = small_pipeline.read_text().replace("profile: profile.csv\n", "")
    small_pipeline.write_text(text)
    status, _, err = call(capsys, "optimize", small_pipeline, "--load", "7")
    assert status == 2
    assert "--profile" in err


# ------------------------------------------------------------------ run and compare


def test_run_prints_where_and_what(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_dir = tmp_path / "deep" / "run"
    status, out, _ = call(capsys, "run", small_pipeline, "--out", out_dir)
    assert status == 0
    assert "estimated" in out
    assert str(out_dir) in out
    assert {path.name for path in out_dir.iterdir()} == {
        "0.yaml", "0.json", "adaptation_log.json", "run.json", "profile.csv", "workload.csv",
    }  # fmt: skip


def test_a_simulated_run_says_which_options_it_has_no_use_for(
    small_pipeline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = ["run", small_pipeline, "--workload", "steady-low", "--out"]
    live = ["--exporter", "0", "--lease", "6", "--no-drift-correction", "--meter", "auto"]
    assert call(capsys, *words, tmp_path / "plain")[0] == 0
    assert "no use" not in caplog.text
    assert call(capsys, *words, tmp_path / "live", *live)[0] == 0
    assert caplog.text.endswith("no use for --exporter, --no-drift-correction\n")


@pytest.mark.parametrize(
    ("backend", "unused"),
    [
        (
            "simulate",
            "--images, --weights, --meter, --lease, --overcommit, --kubeconfig, --namespace",
        ),
        ("local", "--kubeconfig, --namespace"),
        ("local-stub", "--weights, --kubeconfig, --namespace"),
        ("kubernetes", "--meter, --overcommit"),
        ("kubernetes-stub", "--weights, --meter, --overcommit"),
    ],
)
def test_a_run_says_which_options_its_backend_has_no_use_for(
    *,
    small_pipeline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    backend: str,
    unused: str,
) -> None:
    weights = f"a={small_pipeline}"
    config = tmp_path / "no such config"  # with which no cluster is reached, nor with --dry-run any
    words = ["--kubeconfig", config, "--namespace", "there", "--meter", "perf", "--lease", "3"]
    words += ["--overcommit", "--images", tmp_path, "--weights", weights, "--dry-run"]
    out = tmp_path / "run"
    assert call(capsys, "run", small_pipeline, "--out", out, "--backend", backend, *words)[0] == 2
    told = [line.partition("no use for ")[2] for line in caplog.messages if "no use" in line]
    assert told == [unused]
    assert not out.exists()


def test_run_json_is_the_metrics(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = call_json(capsys, "run", small_pipeline, "--out", tmp_path / "run")
    assert status == 0
    assert found["requests"] > 0
    assert found["quality"] == "estimated"


def test_run_refuses_a_taken_folder(
    small_pipeline: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    status, _, err = call(capsys, "run", small_pipeline, "--out", finished)
    assert status == 2
    assert "--resume" in err
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("second,requests\n", "no"),
        ("second,requests\n0,-1\n", "-1"),
        ("second,requests\n0,many\n", "many"),
        ("second,requests\n0,0\n1,0\n", "nothing to serve"),
    ],
)
def test_bad_trace_is_refused_and_nothing_written(
    small_pipeline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    says: str,
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(content)
    out = tmp_path / "run"
    status, _, err = call(capsys, "run", small_pipeline, "--workload", trace, "--out", out)
    assert status == 2
    assert "trace.csv" in err
    assert says in err
    assert not out.exists()


def test_run_of_an_ipa_trace_without_a_checkout_exits_4(
    small_pipeline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("IPA_HOME", raising=False)
    text = small_pipeline.read_text().replace(
        "workload_type: bursty\nworkload_config: {duration_s: 120}",
        "workload_type: twitter\nworkload_config: [{start: 0, end: 60, damping_factor: 8}]",
    )
    small_pipeline.write_text(text)
    status, _, err = call(capsys, "run", small_pipeline, "--out", tmp_path / "run")
    assert status == 4
    assert "--ipa-home" in err


def test_compare_json_has_the_documented_shape(
    small_pipeline: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    second = tmp_path / "second"
    call(capsys, "run", small_pipeline, "--energy-weight", "10", "--out", second)
    status, found = call_json(capsys, "compare", finished, second, "--no-yardstick")
    assert status == 0
    assert found["yardstick"] == {}
    for run in [*found["runs"], found["static_best"], found["hindsight"]]:
        assert set(run) >= {
            "name", "requests", "dropped", "sla_attainment", "latency_p50_s", "latency_p99_s",
            "accuracy_mean", "cores_mean", "energy_j", "joules_per_request", "reconfigurations",
            "decision_s_median", "meter", "quality",
        }  # fmt: skip
    assert [run["name"] for run in found["runs"]] == ["run", "second"]
    assert found["runs"][1]["joules_per_request"] < found["runs"][0]["joules_per_request"]


@pytest.mark.slow
def test_compare_says_first_what_energy_saves_against_the_best_other_weights(
    small_pipeline: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    second = tmp_path / "second"
    call(capsys, "run", small_pipeline, "--energy-weight", "10", "--out", second)
    _, found = call_json(capsys, "compare", finished, second, "--no-hindsight")
    yardstick = found["yardstick"]["second"]
    assert set(found["yardstick"]) == {"second"}  # the first has no energy in its objective
    assert len(yardstick["savings"]) == 3
    assert -0.5 < yardstick["saving_least"] <= yardstick["saving_mean"] <= yardstick["saving_most"]
    against_first = 1 - (
        found["runs"][1]["joules_per_request"] / found["runs"][0]["joules_per_request"]
    )
    assert yardstick["saving_mean"] < against_first
    status, out, _ = call(capsys, "compare", finished, second, "--no-hindsight")
    assert status == 0
    assert out.startswith(f"second: {yardstick['sentence']}. second ")


@pytest.mark.slow
def test_compare_writes_report_and_figures(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html, png = tmp_path / "report.html", tmp_path / "png"
    status, out, _ = call(
        capsys, "compare", finished, "--html", html, "--png", png, "--no-hindsight"
    )
    assert status == 0
    assert str(html) in out
    assert html.read_text().lstrip().lower().startswith("<!doctype html>")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in png.glob("*.png"))
    assert {path.suffix for path in png.iterdir()} == {".png", ".svg", ".csv"}


def test_what_would_be_simulated_for_hours_is_left_out_unless_asked_for(
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ipa_energy.frontier.yardsticks import Yardsticks

    asked: list[object] = []

    def yardsticks(*args: object, **_: object) -> Yardsticks:
        asked.append(args)
        return Yardsticks()

    monkeypatch.setattr("ipa_energy.cli.compare.MOST_REQUESTS", 10)
    monkeypatch.setattr("ipa_energy.frontier.yardsticks.yardsticks", yardsticks)
    assert call(capsys, "compare", finished)[0] == 0
    assert "run: no hindsight, which would simulate 0 million requests" in caplog.text
    assert not asked
    assert call(capsys, "compare", finished, "--hindsight")[0] == 0
    assert len(asked) == 1


def test_compare_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "compare", tmp_path / "nothing")
    assert status == 2
    assert "nothing" in err


# ------------------------------------------------------------------ what must not happen


def test_run_that_no_load_allows_exits_3_and_writes_nothing(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    argv = ("run", small_pipeline, "--latency-sla", "0.01", "--out", out)
    status, _, err = call(capsys, *argv)
    assert status == 3
    assert "latency SLA of at least" in err
    assert not out.exists()


def test_run_without_a_gurobi_licence_exits_4_and_writes_nothing(
    small_pipeline: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "ipa_energy", "run", str(small_pipeline), "--out", str(out)]
    done = subprocess.run(
        [*command, "--method", "gurobi"],
        env=os.environ | {"GRB_LICENSE_FILE": str(tmp_path / "none.lic")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "pareto" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_run_with_an_empty_drain_keeps_the_provenance_of_its_joules(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "second.csv"
    trace.write_text("requests\n0\n5\n")
    argv = ("run", small_pipeline, "--workload", trace, "--out", tmp_path / "run")
    _, found = call_json(capsys, *argv)
    assert found["energy_j"] > 0
    assert (found["meter"], found["quality"]) == ("cpu-time", "estimated")


def test_totals_and_comparison_count_reconfigurations_alike(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = call_json(capsys, "compare", finished, "--no-hindsight")
    totals = json.loads((finished / "run.json").read_text())["totals"]
    assert totals["reconfigurations"] == found["runs"][0]["reconfigurations"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("0.json", None), ("run.json", "[]"), ("adaptation_log.json", "{}"), ("0.json", "{")],
)
def test_damaged_run_folder_is_named(
    finished: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None
) -> None:
    if content is None:
        (finished / name).unlink()
    else:
        (finished / name).write_text(content)
    status, _, err = call(capsys, "compare", finished, "--no-hindsight")
    assert status == 2
    assert str(finished) in err


def test_run_killed_before_its_first_interval_is_no_traceback(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (finished / "run.json").read_text().replace('"complete"', '"running"')
    (finished / "run.json").write_text(text)
    (finished / "journal.jsonl").write_text("")
    status, _, err = call(capsys, "compare", finished, "--no-hindsight")
    assert status == 2
    assert "no interval is finished" in err


@pytest.mark.parametrize(
    ("environment", "stdout", "status"),
    [({"PYTHONIOENCODING": "ascii"}, os.devnull, 0), ({}, "/dev/full", 2)],
)
def test_stdout_that_cannot_take_the_output_is_no_traceback(
    small_pipeline: Path, environment: dict[str, str], stdout: str, status: int
) -> None:
    if not Path(stdout).exists():
        pytest.skip(f"no {stdout} on this system")
    with Path(stdout).open("w") as file:
        done = subprocess.run(
            [sys.executable, "-m", "ipa_energy", "optimize", str(small_pipeline), "--load", "3"],
            env=os.environ | environment,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_json_too(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["optimize", str(small_pipeline), "--json"]
    monkeypatch.setattr(sys, "argv", ["ipa-energy", *argv])
    status, out, err = call(capsys, *argv)
    assert status == 2
    assert json.loads(out)["error"]["kind"] == "UsageError"
    assert "--load" in err


def bad_file(folder: Path, kind: str) -> Path:
    """Something that stands, or does not, where a file is expected."""
    path = folder / "bad"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link to itself":
        path.symlink_to(path)
    elif kind == "through a file":
        path.touch()
        return path / "x"
    elif kind == "too long a name":
        return folder / ("a" * 300)
    elif kind != "nothing":
        path.write_bytes({"empty": b"", "latin-1": b"a: \xe4\n", "a control": b"a: \0\n"}[kind])
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "a folder",
        "a link to itself",
        "through a file",
        "too long a name",
        "nothing",
        "empty",
        "latin-1",
        "a control",
    ],
)
def test_what_is_no_file_or_another_one_is_refused_in_words(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Whatever a verb reads: one message that names it, and no figures."""
    bad = bad_file(tmp_path, kind)
    model = ("--meter", "cpu-time", "--power-model", bad, "--", "true")
    for words in (
        ("optimize", bad, "--load", "5"),
        ("optimize", small_pipeline, "--load", "5", "--profile", bad),
        ("run", bad, "--out", tmp_path / "run"),
        ("run", small_pipeline, "--workload", bad, "--out", tmp_path / "run"),
        ("tradeoff", small_pipeline, "--load", "5", "--profile", bad),
        ("tradeoff", small_pipeline, "--load", "5", "--list", bad),
        ("import", bad, "--format", "mlperf"),
        ("import", bad),
        ("measure", *model),
        ("doctor", bad),
    ):
        status, out, err = call(capsys, *words)
        assert (status, out) == (2, ""), words
        assert err.startswith("ipa-energy: error: "), err
        assert str(bad) in err, err
        assert "codec" not in err, err
        assert "char 0" not in err, err
    assert not (tmp_path / "run").exists()


def test_a_run_into_a_folder_through_a_file_says_so(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    status, _, err = call(capsys, "run", small_pipeline, "--out", tmp_path / "file" / "run")
    assert (status, "cannot write: not a directory" in err) == (2, True)


@pytest.mark.parametrize("content", [b"", b"[1]", b"7", b"null", b"\xff", b'{"a": [[{}]]}'])
def test_a_run_folder_with_other_files_in_it_is_refused_in_words(
    small_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    out = tmp_path / "run"
    assert call(capsys, "run", small_pipeline, "--out", out, "--quiet")[0] == 0
    for name in ("run.json", "0.json", "0.yaml", "adaptation_log.json"):
        before = (out / name).read_bytes()
        (out / name).write_bytes(content)
        status, _, err = call(capsys, "compare", out, "--no-hindsight", "--no-yardstick")
        if status:  # a YAML is a mapping of anything
            assert (status, err.count("\n")) == (2, 1), err
            assert str(out) in err, err
            assert "Error" not in err, err
        (out / name).write_bytes(before)
