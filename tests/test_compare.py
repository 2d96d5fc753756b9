"""Figures of a run by hand, differences, warnings, table and headline."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipa_energy.as_json import as_json
from ipa_energy.comparing import (
    RunMetrics,
    compare,
    comparison_table,
    headline,
    metrics,
    numbered,
)
from ipa_energy.comparing.hull import Outcome, Saving, saving_of
from ipa_energy.comparing.run_table import tables_of
from ipa_energy.comparing.saving_tables import yardstick_table
from ipa_energy.errors import ConfigError
from ipa_energy.registries import QUANTITIES, Quantity
from ipa_energy.runlog import Run, read_run
from ipa_energy.serving.served import Requests
from ipa_energy.tables import cell_of
from ipa_energy.testing import write_fake_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        read_run(write_fake_run(folder / f"{weight:g}", seconds=120, energy_weight=weight))
        for weight in (0.0, 1.0)
    ]


def hand_made(run: Run) -> Run:
    """Two steps of 10 s: 4 requests of 0.1, 0.2, 0.3 and 2 s, and one that was dropped."""
    sending_s = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    done_s = sending_s + np.array([0.1, 0.2, 1.0, 2.0, 0.5])
    matrix = np.zeros((5, 2))
    first, second = run.steps[:2]
    stages = first.stages
    return replace(
        run,
        info=replace(run.info, duration_s=20.0, latency_sla_s=1.0),
        steps=(
            replace(first, start_s=0.0, end_s=10.0, energy_j=60.0, accuracy_raw=0.5, stages=stages),
            replace(
                second,
                start_s=10.0,
                end_s=25.0,
                energy_j=140.0,
                accuracy_raw=0.9,
                decision_s=0.004,
                terms={**second.terms, "accuracy": 1.8},
            ),
        ),
        requests=Requests(
            request_id=np.arange(5),
            sending_s=sending_s,
            done_s=done_s,
            dropped_at=np.array([-1, -1, -1, -1, 1]),
            queued_s=matrix,
            started_s=matrix,
            served_s=matrix,
        ),
        power_w=np.array([10.0] * 20 + [0.0] * 5),
        cores=np.array([2.0] * 10 + [4.0] * 10 + [1.0] * 5),
    )


def test_figures_of_a_run_by_hand(runs: list[Run]) -> None:
    figures = metrics(hand_made(runs[0]))
    assert (figures.requests, figures.served, figures.dropped) == (5, 4, 1)
    assert figures.sla_attainment == 3 / 5  # exactly 1 s is within, dropped is not
    assert figures.latency_p50_s == pytest.approx(0.6)
    assert figures.latency_mean_s == pytest.approx(0.825)
    assert figures.energy_j == 200.0
    assert figures.joules_per_request == 50.0  # over the 4 answered
    assert figures.accuracy_mean == pytest.approx(0.7)  # the drain has no weight
    assert figures.accuracy_objective_mean == 1.8  # the initial configuration has none
    assert figures.cores_mean == 3.0
    assert figures.core_hours == pytest.approx(65 / 3600)
    assert figures.power_mean_w == 10.0
    assert figures.decision_s_median == 0.004
    assert (figures.quality, figures.meter) == ("estimated", "fake")


def test_shape_of_the_json(runs: list[Run]) -> None:
    data = as_json(compare(runs, static_best=metrics(runs[0]), hindsight=metrics(runs[1])))
    keys = {
        "name",
        "requests",
        "dropped",
        "sla_attainment",
        "latency_p50_s",
        "latency_p99_s",
        "accuracy_mean",
        "cores_mean",
        "energy_j",
        "joules_per_request",
        "reconfigurations",
        "decision_s_median",
        "meter",
        "quality",
    }
    for record in (*data["runs"], data["static_best"], data["hindsight"]):
        assert keys <= set(record)
    json.dumps(data, allow_nan=False)
    first, second = data["runs"]
    ratio = second["joules_per_request"] / first["joules_per_request"] - 1
    assert data["difference"][0]["joules_per_request_ratio"] == pytest.approx(ratio)


def test_baselines_by_run(runs: list[Run]) -> None:
    found = metrics(runs[1])
    data = as_json(compare(runs, static_best={"a": metrics(runs[0]), "b": found}))
    assert data["static_best"]["joules_per_request"] == found.joules_per_request
    assert set(data["static_best"]) == set(data["runs"][0]), "runs nested in a run"
    assert set(data["static_best_per_run"]) == {"a", "b"}
    assert (data["hindsight"], data["hindsight_per_run"]) == (None, {})


def test_runs_of_one_name_are_told_apart(runs: list[Run]) -> None:
    names = [run.name for run in compare([runs[0], runs[0], runs[1]]).runs]
    assert names == ["energy weight 0 (1)", "energy weight 0 (2)", "energy weight 1"]


def test_comparable_runs_raise_no_warning(runs: list[Run]) -> None:
    assert compare(runs).warnings == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latency_sla_s": 2.0}, "different latency SLA|(2 s, not 1 s)"),
        ({"latency_sla_s": None}, "different latency SLA|(none, not 1 s)"),
        ({"workload": "another"}, "different workload"),
        ({"requests": 7}, "7 requests"),
        ({"profile": "another"}, "different profile"),
        ({"hardware": "gpu"}, "different hardware|(gpu, not made up)"),
        ({"quality": "measured"}, "joules of another quality|(measured, not estimated)"),
        ({"meter": "rapl"}, "different energy meter|(rapl, not fake)"),
        ({"status": "running"}, "is running"),
        ({"energy_j": math.nan}, "has no joules"),
    ],
)
def test_what_is_not_comparable_is_said(
    runs: list[Run], change: dict[str, object], words: str
) -> None:
    first, second = (metrics(run) for run in runs)
    warnings = compare([first, replace(second, **change)]).warnings  # type: ignore[arg-type]
    found = [all(word in text for word in words.split("|")) for text in warnings]
    assert any(found), warnings


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare([])


def pair(runs: list[Run], **change: float) -> list[RunMetrics]:
    first = replace(
        metrics(runs[0]), joules_per_request=10.0, sla_attainment=0.99, accuracy_mean=0.9
    )
    second = replace(first, name="energy weight 1", joules_per_request=7.69, accuracy_mean=0.859)
    return [first, replace(second, **change)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {},
            "energy weight 1 used 23.1 % fewer joules per request (estimated) than"
            " energy weight 0 at the same SLA attainment (99.0 %);"
            " it cost 4.1 points of accuracy.",
        ),
        (
            {"joules_per_request": 11.0, "sla_attainment": 0.95, "accuracy_mean": 0.95},
            "energy weight 1 used 10.0 % more joules per request (estimated) than"
            " energy weight 0, with 95.0 % of the requests answered in time instead of 99.0 %;"
            " it gained 5.0 points of accuracy.",
        ),
    ],
)
def test_headline(runs: list[Run], change: dict[str, float], sentence: str) -> None:
    assert headline(compare(pair(runs, **change))) == sentence


def test_headline_without_energy_claims_none(runs: list[Run]) -> None:
    text = headline(compare(pair(runs, joules_per_request=math.nan)))
    assert "for want of energy" in text
    assert "fewer" not in text


def test_headline_without_energy_is_made_of_whole_sentences(runs: list[Run]) -> None:
    text = headline(compare(pair(runs, joules_per_request=math.nan, energy_j=math.nan)))
    assert text == (
        "The joules of energy weight 1 and energy weight 0 cannot be compared: for want of energy"
        " in the log of energy weight 1. energy weight 1 answered 99.0 % of the requests in time,"
        " as many as energy weight 0; it cost 4.1 points of accuracy."
    )


def test_joules_of_a_run_that_answered_nothing_are_not_denied(runs: list[Run]) -> None:
    first, second = pair(
        runs, served=0, energy_j=361.1, joules_per_request=math.nan, sla_attainment=0.0
    )
    alone = headline(compare([second]))
    assert alone == (
        "energy weight 1 used 361.1 joules (estimated) and answered none of"
        f" {second.requests} requests."
    )
    both = headline(compare([first, second]))
    assert "cannot be compared: energy weight 1 answered nothing. energy weight 1 answered" in both
    for text in (alone, both, comparison_table(compare([first, second]))):
        assert "no energy" not in text
        assert "want of" not in text


def test_changes_have_an_honest_name_and_accuracy_is_in_points(runs: list[Run]) -> None:
    first, second = pair(runs, joules_per_request=8.3, accuracy_mean=0.8)
    first = replace(first, settings={**first.settings, "accuracy_method": "sum"})
    found = compare([first, second])
    difference = as_json(found)["difference"][0]
    expected = 8.3 / first.joules_per_request - 1
    assert difference["joules_per_request_change"] == pytest.approx(expected)
    assert difference["joules_per_request_ratio"] == difference["joules_per_request_change"]
    table = comparison_table(found)
    assert "−10.0 pt" in table
    assert "summed over the stages, so that it can be above 1" in table


def test_energy_sla_has_a_column_where_a_run_has_one(runs: list[Run]) -> None:
    first, second = pair(runs)
    assert "energy SLA" not in comparison_table(compare([first, second]))
    capped = replace(second, energy_sla_joules=2.0, energy_sla_attainment=0.75)
    found = compare([first, capped])
    assert "in energy SLA" in comparison_table(found)
    assert "75.0" in comparison_table(found)
    assert as_json(found)["runs"][1]["energy_sla_attainment"] == 0.75


def test_table_shows_differences_and_quality(runs: list[Run]) -> None:
    first, second = pair(runs)
    known = replace(second, name="hindsight", joules_per_request=7.0)
    lines = comparison_table(compare([first, second], hindsight=known)).splitlines()
    assert lines[0].split()[:2] == ["energy", "quality"]
    assert lines[1].split()[0] == "J/request"
    assert lines[3].split()[3:5] == ["10.00", "estimated"]
    assert "−23.1 %" in lines[5]
    (last,) = [line for line in lines if line.startswith("hindsight")]
    assert last.split()[:3] == ["hindsight", "7.000", "estimated"]
    assert "know the load beforehand" in lines[-1]
    ends = {len(line.rstrip()) for line in lines if "estimated" in line}
    assert len(ends) == 1  # aligned


def test_narrow_table_stays_within_its_width(runs: list[Run]) -> None:
    table = comparison_table(compare(runs), width=80)
    assert max(map(len, table.splitlines())) <= 80
    assert table.count("energy weight 1") == 3 - (len(table.split("\n\n")) == 2)


def test_unfinished_run_is_read_as_far_as_it_got(tmp_path: Path, runs: list[Run]) -> None:
    run = replace(runs[0], status="running", steps=runs[0].steps[:3])
    assert run.duration_s == 30.0
    assert "first 30 s" in compare([run]).warnings[0]


def test_quantity_from_outside_has_a_column_and_keys(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(QUANTITIES, "money", Quantity("rent", lambda *_: 1.0, "ct/request"))
    first, second = pair(runs)
    first, second = replace(first, amounts={"money": 4.0}), replace(second, amounts={"money": 3.0})
    found = compare([first, second])
    lines = comparison_table(found).splitlines()
    assert lines[0].split()[-1] == "money"
    assert lines[1].split()[-1] == "ct/request"
    assert [lines[at].split()[-1] for at in (3, 4)] == ["4.000", "3.000"]
    assert lines[5].endswith("−25.0 %")
    data = as_json(found)
    assert [run["amounts"] for run in data["runs"]] == [{"money": 4.0}, {"money": 3.0}]
    assert data["difference"][0]["money_ratio"] == pytest.approx(-0.25)


def test_amount_of_a_quantity_is_weighted_by_requests(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(QUANTITIES, "money", Quantity("rent", lambda *_: 1.0, "ct", "money_weight"))
    run = hand_made(runs[0])  # 3 requests before second 3, 2 from there on
    first, second = run.steps
    steps = (
        replace(first, end_s=3.0, terms={**first.terms, "money": 1.0}),
        replace(second, start_s=3.0, terms={**second.terms, "money": 3.0}),
    )
    info = replace(run.info, settings={**run.info.settings, "money_weight": 0.5})
    found = metrics(replace(run, info=info, steps=steps)).amounts
    assert found == {"money": pytest.approx((3 * 1.0 + 2 * 3.0) / 5 / 0.5)}
    unlogged = replace(steps[0], terms=first.terms)
    assert metrics(replace(run, info=info, steps=(unlogged, steps[1]))).amounts == {"money": 6.0}
    assert metrics(run).amounts == {}


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["workload", "profile"])
def test_a_copy_that_is_missing_is_no_other_load(tmp_path: Path, which: int, name: str) -> None:
    paths = [write_fake_run(tmp_path / part, seconds=60) for part in ("one", "other")]
    (paths[which] / f"{name}.csv").unlink()
    found = compare(
        [
            replace(read_run(path), info=replace(read_run(path).info, name=path.name))
            for path in paths
        ]
    )
    assert "do not compare" not in headline(found)
    (warning,) = found.warnings
    assert warning == (
        f"{paths[which].name} has no copy of its {name} ({name}.csv): it cannot be told whether"
        " other and one had the same"
    )
    (paths[1 - which] / f"{name}.csv").unlink()
    assert compare([read_run(path) for path in paths]).warnings == ()


def test_every_run_with_energy_is_held_against_the_best_other_weights(runs: list[Run]) -> None:
    """Two runs of one name: each sentence goes to the run that the table calls so."""
    named = numbered([run.called("same") for run in runs])
    assert [run.name for run in named] == ["same (1)", "same (2)"]
    point = Outcome(label="", accuracy=0.5, joules_per_request=1.0, sla_attainment=1.0)
    savings = {"same (1)": saving_of([point], [point]), "same (2)": saving_of([point], [point])}
    told = headline(compare(named, savings=savings))
    for name in savings:
        assert f"{name}: at the same accuracy and SLA attainment, 0.0 % fewer joules" in told


def many(runs: list[Run], count: int) -> list[RunMetrics]:
    first, second = pair(runs)
    made = [
        replace(second, name=f"r{at}", joules_per_request=10.0 - at, accuracy_mean=0.9 - at / 100)
        for at in range(1, count)
    ]
    return [first, *made]


def test_headline_speaks_of_every_run(runs: list[Run]) -> None:
    few = headline(compare(many(runs, 4)))
    assert few == (
        "Joules per request (estimated) against energy weight 0: r1 −10.0 % (±0.0 pt in SLA,"
        " −1.0 pt accuracy); r2 −20.0 % (±0.0 pt in SLA, −2.0 pt accuracy); r3 −30.0 % (±0.0 pt in"
        " SLA, −3.0 pt accuracy)."
    )
    first, *others = many(runs, 8)
    others[0] = replace(others[0], joules_per_request=math.nan)
    others[1] = replace(others[1], workload="another")
    told = headline(compare([first, *others]))
    assert "5 runs, from r7 −70.0 % (±0.0 pt in SLA, −7.0 pt accuracy) to r3 −30.0 %" in told
    assert "r2 had another load than energy weight 0." in told
    assert "r1 cannot be held in joules against energy weight 0." in told


def test_many_savings_are_one_sentence_and_a_table_has_them_all(runs: list[Run]) -> None:
    found = many(runs, 8)
    hull = Outcome(label="", accuracy=0.95, joules_per_request=10.0, sla_attainment=1.0)

    def saving(run: RunMetrics, accuracy: float = 0.9) -> Saving:
        own = replace(hull, accuracy=accuracy, joules_per_request=run.joules_per_request)
        return saving_of([own], [hull])

    savings = {run.name: saving(run) for run in found[1:-1]} | {"r7": saving(found[7], 0.99)}
    comparison = compare(found, savings=savings)
    told = headline(comparison)
    assert "saves 10.0 % (r1) to 60.0 % (r6) of the joules of 6 runs; 1 more have nothing" in told
    assert told.count("IPA with its best other weights") == 1
    table = yardstick_table(comparison)
    assert table is not None
    shown = {row.name: [cell_of(cell).text for cell in row.cells] for row in table.rows}
    assert shown["r3"][:4] == ["7", "10", "30.0", "30.0 to 30.0"]
    assert shown["r7"][0] == "–"
    lines = comparison_table(comparison).splitlines()
    assert "– no weights without energy reach this accuracy" in lines
    data = as_json(comparison)["yardstick"]["r3"]
    assert (data["joules_per_request"], data["least_joules_without_energy"]) == ([7.0], [10.0])


def test_hindsight_of_many_runs_has_a_table_of_its_own(runs: list[Run]) -> None:
    found = many(runs, 5)
    static = {run.name: replace(run, name=f"static of {run.name}", detail="v") for run in found}
    known = {run.name: replace(run, name=f"hindsight of {run.name}") for run in found}
    comparison = compare(found, static_best=static, hindsight=known)
    first, hindsight = tables_of(comparison)
    assert [row.name for row in first.rows] == [run.name for run in found]
    assert [row.name for row in hindsight.rows][2:4] == ["static of r1", "hindsight of r1"]
    assert cell_of(hindsight.rows[2].cells[0]).note == "±0.0 %", "held against its own run"
    assert "static of energy weight 0, static of r1, static" in comparison_table(comparison)
    (few,) = tables_of(compare(found[:3], static_best=dict(list(static.items())[:3])))
    assert len(few.rows) == 6
