"""Pipelines made so that energy adds a known share, or nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_pipeline import NOTHING, THIRTY_PERCENT, pipeline

from ipa_energy.cli import main
from ipa_energy.comparing import compare, comparison_table, headline, metrics
from ipa_energy.comparing.hull import saving_of
from ipa_energy.experiment import Experiment, load_experiment, run_experiment
from ipa_energy.frontier import sweep as sweeping
from ipa_energy.frontier.courses import Rehearser, served
from ipa_energy.frontier.frontier import Frontier, frontier_of, outcomes_table
from ipa_energy.frontier.sweep import cached_sweep, run_outcome, saving_study, sweep
from ipa_energy.frontier.weightings import (
    CONSTANT,
    EVEN,
    FEW_ALPHA_FACTORS,
    FIXED_VARIANT,
    FOLLOWING,
    LEAST_JOULES,
    ORACLE,
    STATIC,
    SWITCHING,
    Weighting,
    constant_energy,
    reweighted,
    with_energy,
    without_energy,
)
from ipa_energy.report.figure import Line
from ipa_energy.report.frontier_page import frontier_figure, frontier_page
from ipa_energy.report.page import render
from ipa_energy.report.plotly_json import plotly_json
from ipa_energy.tables import table_csv
from ipa_energy.workloads import Workload


def frontier(experiment: Experiment, folder: Path) -> Frontier:
    return frontier_of(experiment, attainment=0.99, seeds=[0], cache=folder, workers=1)


@pytest.mark.parametrize(("variant", "weight", "alpha"), [("small", 0.5, 1), ("large", 0.5, 100)])
def test_energy_that_adds_thirty_percent_is_said_to(
    variant: str, weight: float, alpha: float, tmp_path: Path
) -> None:
    experiment = pipeline(tmp_path, THIRTY_PERCENT, initial=variant)
    changes = {"alpha": alpha, "energy_weight": weight}
    ran = run_outcome(experiment, Weighting("with energy", changes, None, weight), 0)
    assert ran is not None
    without = sweep(experiment, without_energy(experiment.planner), [0], workers=1)
    saving = saving_of([ran], without)
    assert saving.mean == pytest.approx(0.3)
    assert "30.0 % fewer joules" in saving.sentence()


def test_a_live_run_is_told_by_simulations_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own joules are another meter's: a tenth of the profile's saves nothing by itself."""
    experiment = pipeline(tmp_path, THIRTY_PERCENT, initial="small")
    path = experiment.planner.profile_path.parent / "made-up.yaml"
    experiment = load_experiment(path, {"alpha": 1, "energy_weight": 0.5, "capacity": {"core": 40}})
    simulated = metrics(run_experiment(experiment))
    live = replace(
        simulated, backend="local-stub", joules_per_request=simulated.joules_per_request / 10
    )
    found = []
    for figures in (simulated, live):
        study = saving_study(experiment, figures, seeds=1)
        assert study is not None
        found.append(study.conduct(cache=tmp_path / "cache", workers=1))
        assert study.runs - len(without_energy(experiment.planner)) == (figures is live)
    assert found[1] == found[0]
    assert found[0].mean == pytest.approx(0.3)
    assert "served live" in caplog.text


def test_a_frontier_shows_the_thirty_percent(tmp_path: Path) -> None:
    found = frontier(pipeline(tmp_path, THIRTY_PERCENT), tmp_path / "cache")
    assert found.accuracies()[0] == 0.5
    assert found.savings_at(0.5) == pytest.approx([0.3])


def test_runs_below_the_floor_are_on_no_hull(tmp_path: Path) -> None:
    """All begin with the small variant for 10 of 60 s; where nothing else can serve, for longer."""
    free = frontier(pipeline(tmp_path, THIRTY_PERCENT), tmp_path / "cache")
    assert free.below_floor is None
    assert min(run.accuracy for run in free.without) == 0.5
    path = tmp_path / "made-up.yaml"
    found = frontier(load_experiment(path, {"accuracy_floor": 0.6}), tmp_path / "cache")
    runs = [*found.without, *found.added]
    assert runs
    assert {run.accuracy for run in runs} <= {0.75, 0.8}
    assert all(hull.corners[0].accuracy >= 0.75 for hull in found.hulls[0])
    assert found.savings_at(0.75) == pytest.approx([0.3])
    assert found.below_floor == found.to_json()["below_floor"] == 0
    counts = ["120"] * 30 + ["4"] * 30
    (tmp_path / "load.csv").write_text("\n".join(["requests", *counts]) + "\n")
    changes = {"accuracy_floor": 0.7, "scaling_cap": 2, "latency_sla_s": 100}
    late = frontier(load_experiment(path, changes), tmp_path / "cache")
    assert late.below_floor
    assert all(run.accuracy >= 0.7 - 0.2 / 6 - 1e-6 for run in (*late.without, *late.added))
    assert f"{late.below_floor} runs below the accuracy_floor left out" in late.sentence()


@pytest.mark.parametrize(
    ("limit", "way_out"),
    [
        ("accuracy_floor=0.9", "an accuracy floor of at most 0.8"),
        ("energy_sla_joules=0.1", "an energy SLA of at least"),
        ("capacity={core: 0.5}", "a capacity of at least 1"),
    ],
)
def test_a_limit_that_nobody_can_meet_is_named_before_any_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str, way_out: str
) -> None:
    pipeline(tmp_path, THIRTY_PERCENT)
    path = tmp_path / "made-up.yaml"
    for words in (
        ["frontier"],
        ["run", "--out", str(tmp_path / "run")],
        ["tradeoff", "--load", "4"],
        ["optimize", "--load", "4"],
    ):
        status = main([words[0], str(path), *words[1:], "--set", limit, "--quiet"])
        told = capsys.readouterr()
        assert status == 3, told
        assert limit.partition("=")[0] in (told.out + told.err)
        assert way_out in told.out + told.err


def test_energy_that_adds_nothing_is_said_to(tmp_path: Path) -> None:
    found = frontier(pipeline(tmp_path, NOTHING), tmp_path / "cache")
    savings = [found.savings_at(accuracy)[0] for accuracy in found.accuracies()]
    assert savings == pytest.approx([0.0] * len(savings), abs=1e-9)
    assert "saves 0.0 % of the joules" in found.sentence()


def test_the_sweep_without_energy_has_no_energy_in_it(tmp_path: Path) -> None:
    settings = without_energy(pipeline(tmp_path, NOTHING).planner)
    assert {setting.changes["energy_weight"] for setting in settings} == {0.0}
    assert {setting.changes["energy_sla_joules"] for setting in settings} == {None}
    policies = [setting.policy for setting in settings if setting.policy]
    switching = [policy for policy in SWITCHING for _ in FEW_ALPHA_FACTORS]
    mine = ["ipa-switch"] * len(FEW_ALPHA_FACTORS)
    assert policies == [*FIXED_VARIANT, *switching, *FOLLOWING, *mine]


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    experiment = pipeline(tmp_path, NOTHING)
    settings = without_energy(experiment.planner)[:4]
    assert sweep(experiment, settings, [0, 1], workers=2) == sweep(
        experiment, settings, [0, 1], workers=1
    )


VIDEO = Path(__file__).parents[2] / "configs" / "video.yaml"


def test_a_sweep_finds_what_whole_runs_find(tmp_path: Path) -> None:
    """Courses decided once and simulated without a log, against runs logged as any other."""
    load = np.random.default_rng(1).poisson(np.linspace(4, 24, 150)).tolist()
    (tmp_path / "load.csv").write_text("\n".join(["requests", *map(str, load)]) + "\n")
    trace = {"path": str(tmp_path / "load.csv")}
    experiment = load_experiment(VIDEO, {"workload_type": "csv", "workload_config": trace})
    planner = experiment.planner
    settings = [*without_energy(planner)[:45:9], *with_energy(planner.config, planner)[5::20]]
    settings += [one for one in without_energy(planner) if one.policy in FOLLOWING]
    settings += [replace(one, policy="ipa-switch") for one in settings[:1]]
    found = sweep(experiment, settings, [2, 3], workers=1)
    runs = [run_outcome(experiment, one, seed) for seed in (2, 3) for one in settings]
    assert len({outcome.joules_per_request for outcome in found}) > 8
    for outcome, run in zip(found, runs, strict=True):
        assert run is not None
        assert outcome.joules_per_request == pytest.approx(run.joules_per_request, rel=1e-6)
        assert replace(outcome, joules_per_request=0) == replace(run, joules_per_request=0)


def test_an_autoscaler_whose_replicas_still_start_is_run_whole(small_pipeline: Path) -> None:
    """It counts the ready ones alone, which nobody knows in advance."""
    slow = {"reconfiguration_s": 25}
    experiment = load_experiment(small_pipeline, slow)
    load = Workload("steps", np.array([2] * 60 + [8] * 120), "a test")
    experiment = replace(experiment, workload=load)
    setting = Weighting("hpa-high", {"energy_weight": 0.0}, "hpa-high")
    found = sweep(experiment, [setting, replace(setting, policy="fa2-low")], [3], workers=1)
    assert found[0] == run_outcome(experiment, setting, 3)
    foreseen = Rehearser(experiment).courses([setting])[0]
    assert foreseen is not None
    rehearsed = served(experiment, foreseen, 3)
    assert rehearsed[0] != pytest.approx(found[0].joules_per_request, rel=1e-3)


def test_what_was_kept_of_other_intensities_in_the_same_file_is_not_taken(tmp_path: Path) -> None:
    """A run folder's copy has the same name whatever is in it."""
    path = pipeline(tmp_path, THIRTY_PERCENT).planner.profile_path.with_name("made-up.yaml")
    file = tmp_path / "intensity.csv"
    carbon = {"intensity": {"path": str(file), "unit": "g/kWh", "kind": "average"}}
    keys = []
    for value in (200, 400, 200):
        rows = [f"2024-01-01T00:{at:02d}Z,{value}" for at in range(3)]
        file.write_text("\n".join(["time,value", *rows, ""]))
        keys.append(sweeping.cache_key(load_experiment(path, {"carbon": carbon}), [], [0]))
    assert keys[0] == keys[2] != keys[1]


def test_a_baseline_that_cannot_serve_the_load_is_no_alternative(
    small_pipeline: Path, tmp_path: Path
) -> None:
    """The large variants serve the busy beginning at no number of replicas, and the rest easily."""
    load = [40] * 60 + [1] * 180
    (tmp_path / "load.csv").write_text("\n".join(["requests", *map(str, load)]) + "\n")
    trace = {"path": str(tmp_path / "load.csv")}
    keys = {"scaling_cap": 2, "workload_type": "csv", "workload_config": trace}
    experiment = load_experiment(small_pipeline, keys)
    settings = [one for one in without_energy(experiment.planner) if one.policy in FOLLOWING]
    found = sweep(experiment, settings, [0], workers=1)
    assert [outcome.label for outcome in found] == ["hpa-low", "hpa-high", "inferline-low"]


def test_with_a_budget_of_grams_nothing_is_decided_in_advance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pipeline(tmp_path, THIRTY_PERCENT).planner.profile_path.with_name("made-up.yaml")
    carbon = {"intensity": 300, "budget_grams_per_day": 10}
    experiment = load_experiment(path, {"carbon": carbon})
    monkeypatch.setattr("ipa_energy.frontier.courses.Rehearser.courses", None)
    setting = Weighting("as it is", {}, None, 0.0)
    assert sweep(experiment, [setting], [0], workers=1) == [run_outcome(experiment, setting, 0)]
    off = without_energy(experiment.planner)[0].changes["carbon"]
    assert (off.budget_grams_per_day, off.intensity) == (None, 300)


def test_another_planner_sweeps_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = pipeline(tmp_path / "p", NOTHING)
    setting = without_energy(experiment.planner)[:1]
    for source in (b"one", b"one", b"other"):
        monkeypatch.setattr(sweeping, "_source", lambda source=source: source)
        cached_sweep(experiment, setting, [0], folder=tmp_path / "c", workers=1)
    assert len(list((tmp_path / "c").iterdir())) == 2


def test_a_sweep_is_kept_until_something_that_it_depends_on_changes(tmp_path: Path) -> None:
    experiment = pipeline(tmp_path / "p", NOTHING)
    settings = without_energy(experiment.planner)[:2]
    ran: list[int] = []

    def outcomes(of: Experiment) -> list[object]:
        return [
            *cached_sweep(
                of, settings, [0], folder=tmp_path / "c", workers=1, ran=lambda: ran.append(1)
            )
        ]

    first = outcomes(experiment)
    assert (outcomes(experiment), len(ran)) == (first, 2)
    dearer = [(*option[:4], 2 * option[4]) for option in NOTHING]
    assert outcomes(pipeline(tmp_path / "p", dearer)) != first
    assert len(ran) == 4


@pytest.mark.parametrize("damage", ["{", "{}", '{"outcomes": [], "sha256": ""}', "figure"])
def test_a_kept_sweep_that_was_damaged_is_made_anew(tmp_path: Path, damage: str) -> None:
    experiment = pipeline(tmp_path / "p", NOTHING)
    settings = without_energy(experiment.planner)[:1]

    def outcomes() -> list[object]:
        return [*cached_sweep(experiment, settings, [0], folder=tmp_path / "c", workers=1)]

    first = outcomes()
    (cache,) = (tmp_path / "c").iterdir()
    whole = cache.read_text()
    if damage == "figure":
        damage = whole.replace('"accuracy": 0', '"accuracy": 1')
        assert damage != whole
    cache.write_text(damage)
    assert outcomes() == first
    assert cache.read_text() == whole


def test_the_verb_prints_both_hulls_and_writes_every_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pipeline(tmp_path, THIRTY_PERCENT)
    runs = tmp_path / "new" / "runs.csv"
    call = ["frontier", str(tmp_path / "made-up.yaml"), "--csv", str(runs)]
    assert main(call) == 0
    text = capsys.readouterr().out
    assert "energy in the objective saves" in text
    assert "−30.0 %" in text
    assert main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["by_accuracy"][0]["savings"] == pytest.approx([0.3])
    lines = runs.read_text().splitlines()
    assert len(lines) == 1 + len(found["without_energy"]) + len(found["with_energy"])


def test_impossible_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(tmp_path, NOTHING)
    path = str(tmp_path / "made-up.yaml")
    assert main(["frontier", path, "--attainment", "97"]) == 2
    assert "--attainment: 97; allowed: a share from 0 to 1" in capsys.readouterr().err
    assert main(["frontier", path, "--seeds", "0"]) == 2


def test_where_no_run_keeps_the_sla_that_is_the_answer(tmp_path: Path) -> None:
    found = Frontier("p", "w", 0.99, None, (), (), (0,))
    assert found.sentence().startswith("No accuracy is reached both with and without energy")
    assert table_csv(outcomes_table(found)).count("\n") == 1


def test_every_line_of_a_table_says_that_mlcommons_did_not_verify_it(tmp_path: Path) -> None:
    found = frontier(pipeline(tmp_path, NOTHING), tmp_path / "cache")
    said = table_csv(outcomes_table(replace(found, meter="mlperf-wall"))).splitlines()[1:]
    assert said and all("not verified by MLCommons" in line for line in said)
    plain = table_csv(outcomes_table(found)).splitlines()[1:]
    assert not any("MLCommons" in line for line in plain)


def test_the_figure_shades_what_energy_saves(tmp_path: Path) -> None:
    found = frontier(pipeline(tmp_path, THIRTY_PERCENT), tmp_path / "cache")
    figure = frontier_figure(found)
    marks = {mark.name: mark for mark in figure.marks}
    assert {"saved by energy", "hull without energy", "hull with energy", "baselines"} <= set(marks)
    gain = marks["saved by energy"]
    assert isinstance(gain, Line)
    half = len(gain.x) // 2
    without, added = np.asarray(gain.x)[:half], np.asarray(gain.x)[half:][::-1]
    at = list(np.asarray(gain.y)[:half]).index(0.75)
    assert (without[0], added[0]) == pytest.approx((10.0, 7.0))
    assert (without[at], added[at]) == pytest.approx((10 + 10 * 0.25 / 0.3, 14.0))
    assert (without[-1], added[-1]) == pytest.approx((20.0, 20.0))
    assert figure.x.title == "estimated energy (J/request)"
    (trace,) = (t for t in plotly_json(figure)["data"] if t["name"] == "saved by energy")
    assert trace["fill"] == "toself"
    assert "−30.0" in render(frontier_page(found))


def test_the_verb_draws_page_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pipeline(tmp_path, THIRTY_PERCENT)
    page, folder = tmp_path / "page.html", tmp_path / "figures"
    call = ["frontier", str(tmp_path / "made-up.yaml"), "--html", str(page), "--png", str(folder)]
    assert main(call) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert {path.name for path in folder.iterdir()} == {f"hulls.{k}" for k in ("png", "svg", "csv")}
    assert "estimated energy (J/request)" in (folder / "hulls.csv").read_text().splitlines()[0]


def test_a_page_without_its_packages_is_refused_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(tmp_path, NOTHING)
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setattr("ipa_energy.frontier.frontier.frontier_of", lambda *_, **__: pytest.fail())
    page = tmp_path / "page.html"
    assert main(["frontier", str(tmp_path / "made-up.yaml"), "--html", str(page)]) == 4
    assert "ipa-energy[report]" in capsys.readouterr().err
    assert not page.exists()


def test_nothing_to_weigh_joules_against_is_no_saving(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(tmp_path, NOTHING)
    path = str(tmp_path / "made-up.yaml")
    assert main(["frontier", path, "--set", "alpha=0"]) == 2
    assert "alpha is 0: no accuracy is weighed against joules" in capsys.readouterr().err


def test_other_prices_are_weights_too(tmp_path: Path) -> None:
    """By idle watts and by cores, with the mean of the YAML's own; equal ones say nothing new."""
    boards = load_experiment(Path(__file__).parents[2] / "configs" / "boards.yaml").planner
    own = boards.config.prices
    assert own is not None
    kinds = {setting.label.partition(", ")[2]: setting for setting in without_energy(boards)}
    for kind in ("prices by idle watts", "by cores"):
        prices = kinds[kind].changes["prices"]
        assert set(prices) == set(own)
        assert sum(prices.values()) == pytest.approx(sum(own.values()))
        assert prices["orin"] > 2 * prices["rpi4"]


def test_carbon_is_held_in_grams_against_constant_weights_of_energy_as_well(
    tmp_path: Path,
) -> None:
    """Where nothing changes over the day, carbon gives what a weight of energy gives: nothing more.

    Where intensities change it may give more, and whole runs and courses find the same grams.
    """
    path = pipeline(tmp_path, THIRTY_PERCENT).planner.profile_path.with_name("made-up.yaml")
    carbon = {"intensity": 360, "weight": 5000}
    experiment = load_experiment(path, {"carbon": carbon, "energy_weight": 0, "alpha": 1})
    figures = metrics(run_experiment(experiment, name="by carbon"))
    study = saving_study(experiment, figures, seeds=1)
    assert study is not None
    constant = study.rivals[CONSTANT]
    weights = [one.changes["energy_weight"] for one in constant]
    assert 0.5 in [round(weight, 6) for weight in weights]  # 5000 a gram at 1e-4 grams a joule
    assert {one.changes["carbon"].weight for one in constant} == {0}
    saving = study.conduct(cache=tmp_path / "c", workers=1)
    assert saving.mean == pytest.approx(0.3)
    assert saving.grams is not None
    assert saving.grams.mean == pytest.approx(0.0, abs=1e-6)
    comparison = compare([figures], savings={"by carbon": saving})
    first, second = headline(comparison).split(". ")[:2]
    assert "0.0 % fewer grams than the best other weights" in first
    assert "0.0 % fewer than the least joules, 0.0 % fewer than a constant weight" in first
    assert "30.0 % fewer joules" in second
    assert "than the least joules" not in headline(comparison, with_rivals=False)
    shown = comparison_table(comparison, width=80)
    assert "What carbon saves" in shown
    assert STATIC in shown
    told = comparison.to_json()["yardstick"]["by carbon"]["grams"]
    assert told["savings"] == saving.grams.savings
    assert told["against"][STATIC]["savings"] == pytest.approx([0.0], abs=1e-6)
    assert told["sentence"] in first
    (own,) = sweep(experiment, [Weighting("as it is", {}, None, 0.0)], [0], workers=1)
    assert own.grams_per_request == pytest.approx(figures.grams / figures.served, rel=1e-6)


def test_a_budget_is_held_against_an_even_split_of_it_and_against_the_truth(tmp_path: Path) -> None:
    """200 and 400 g/kWh by turns: an even split has the large variant at 200 alone, or never.

    The small variant needs 7 J, the large 14 J (``THIRTY_PERCENT``).
    """
    path = pipeline(tmp_path, THIRTY_PERCENT).planner.profile_path.with_name("made-up.yaml")
    rows = [
        f"2024-01-01T00:0{at // 2}:{30 * (at % 2):02d}Z,{200 + 200 * (at % 2)}" for at in range(4)
    ]
    (tmp_path / "turns.csv").write_text("\n".join(["time,value", *rows, ""]))
    file = {"path": str(tmp_path / "turns.csv"), "unit": "g/kWh", "kind": "average"}
    carbon = {"intensity": file, "budget_grams_per_day": 300.0, "load_forecast": "trace"}
    experiment = load_experiment(path, {"carbon": carbon, "alpha": 1, "beta": 0})
    figures = metrics(run_experiment(experiment, name="by budget"))
    study = saving_study(experiment, figures, seeds=1)
    assert study is not None
    rivals = study.rivals
    a_day = figures.served / figures.duration_s * 86_400
    caps = [one.changes["carbon"].sla_grams for one in rivals[EVEN]]
    assert 300 / a_day in caps
    assert {one.changes["carbon"].budget_grams_per_day for one in rivals[EVEN]} == {None}
    known = [one.changes["carbon"] for one in rivals[ORACLE]]
    assert {one.load_forecast for one in known} == {"trace"}
    assert {one.forecast for one in known} == {experiment.planner.config.carbon.intensity}
    seen = reweighted(experiment.planner, rivals[ORACLE][0]).carbon
    assert seen is not None
    assert seen.seen is seen.series
    saving = study.conduct(cache=tmp_path / "c", workers=1).grams
    assert saving is not None
    assert [*saving.rivals] == [LEAST_JOULES, CONSTANT, STATIC, EVEN, ORACLE]


def test_a_static_plan_is_the_one_for_the_busiest_interval(tmp_path: Path) -> None:
    experiment = pipeline(tmp_path, THIRTY_PERCENT)
    load = Workload("steps", np.array([2] * 30 + [120] * 10 + [4] * 20), "a test")
    experiment = replace(experiment, workload=load)
    setting = Weighting("static", {"energy_weight": 1.0}, None, 1.0, static_room=1.0)
    (course,) = Rehearser(experiment).courses([setting])
    assert course is not None
    ((second, (stage,)),) = course.deployments
    assert (second, stage.replicas) == (0, 3)  # of 50 a second each
    assert stage.option.hardware == "frugal"


def test_a_run_without_carbon_in_its_objective_has_no_saving_in_grams(tmp_path: Path) -> None:
    experiment = pipeline(tmp_path, THIRTY_PERCENT)
    assert constant_energy(experiment.planner, 1.0, 1e-4) == []
