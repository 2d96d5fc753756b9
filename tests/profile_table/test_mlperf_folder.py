"""MLPerf's result folders as rows of a profile: by hand, and every refusal."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from mlperf_submission import write_model, write_run

from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.mlperf_folder import (
    MlperfChoice,
    is_mlperf_folder,
    model_folders,
    profile_rows,
    read_result,
)
from ipa_energy.profile_table.profile_row import ProfileRow

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "experiments" / "profiles" / "mlperf" / "edge-classification-wall-power.csv"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "inference_results_v1.0" / "open" / "Someone" / "results"
    folder.mkdir(parents=True)
    return folder


def rows_of(
    results: Path, choice: MlperfChoice | None = None, scenario: str | None = None
) -> list[ProfileRow]:
    found = [read_result(folders, scenario) for folders in model_folders([results])]
    return profile_rows(found, choice or MlperfChoice())


def test_a_row_by_hand(results: Path) -> None:
    """10 W and 12 W at 4 a second are 2.5 and 3 J; 2 W at rest leave 2.75 − 0.5 J."""
    write_model(results)
    (row,) = rows_of(results)
    assert (row.stage, row.variant, row.hardware) == ("classification", "net", "board")
    assert (row.joules_per_request, row.dynamic_energy_j, row.idle_power_w) == (2.75, 2.25, 2)
    assert row.energy_ci95_j == pytest.approx(12.7062 * 0.25, rel=1e-5)
    assert (row.throughput_rps, row.load_rps) == (4, 4)
    assert (row.latency_avg_s, row.latency_p99_s) == (0.25, 0.5)
    assert (row.accuracy, row.cpu_cores, row.batch, row.trials) == (0.71254, 4, 1, 2)
    assert (row.resource, row.resource_units, row.quality) == ("board", 1, "measured")
    assert row.source == "MLPerf Inference v1.0 open, Someone"


def test_what_is_given_goes_before_what_is_there(results: Path) -> None:
    write_model(results, accuracy=None, cores=None)
    choice = MlperfChoice(
        stage="s", idle_power_w=4, cpu_cores=6, resource="pi", accuracies={"net": 0.5}
    )
    (row,) = rows_of(results, choice)
    assert (row.stage, row.cpu_cores, row.resource, row.accuracy) == ("s", 6, "pi", 0.5)
    assert (row.idle_power_w, row.dynamic_energy_j) == (4, 1.75)


def test_many_models_of_many_systems_are_one_table_and_idle_is_the_systems(results: Path) -> None:
    write_model(results, model="a", idle_w=1.0)
    write_model(results, model="b", idle_w=3.0)
    write_model(results, system="other", model="a", idle_w=5.0)
    rows = rows_of(results)
    assert [(r.hardware, r.variant) for r in rows] == [
        ("board", "a"),
        ("board", "b"),
        ("other", "a"),
    ]
    assert [r.idle_power_w for r in rows] == [2, 2, 5]  # median of as many 1 as 3 W


def test_the_scenario_folder_itself_will_do(results: Path) -> None:
    folder = write_model(results)
    assert is_mlperf_folder(folder)
    assert rows_of(folder) == rows_of(results)
    assert not is_mlperf_folder(results.parent / "systems")


def test_further_testing_runs_are_trials(results: Path) -> None:
    folder = write_model(results)
    write_run(folder / "performance" / "run_2", watts=14.0, qps=2.0)
    (row,) = rows_of(results)
    assert row.trials == 3
    assert row.joules_per_request == pytest.approx((2.5 + 3 + 7) / 3, rel=1e-5)
    assert row.throughput_rps == 3  # of the testing runs


@pytest.mark.parametrize(
    ("hours", "zones_s"),
    [
        (0, (28800, 28800)),  # v1.0, both in California, local times
        (0, (0, 3600)),  # later: UTC on both sides, zones kept in the files
        (-1, (0, 3600)),  # v1.0: the analyser an hour west of the run
        (8, (28800, 0)),
        (0, None),
    ],
)
def test_clocks_of_two_machines(
    results: Path, hours: float, zones_s: tuple[int, int] | None
) -> None:
    write_model(results, hours=hours, zones_s=zones_s)
    (row,) = rows_of(results)
    assert row.joules_per_request == 2.75


def test_a_failed_reading_is_no_reading(results: Path) -> None:
    folder = write_model(results)
    path = folder / "performance" / "run_1" / "spl.txt"
    lines = path.read_text().splitlines()
    lines[100] = lines[100].replace("Watts,12.000000", "Watts,-1.000000")
    path.write_text("\n".join(lines))
    (row,) = rows_of(results)
    assert row.joules_per_request == 2.75


def _no_power_log(folder: Path) -> None:
    (folder / "performance" / "run_1" / "spl.txt").unlink()


def _no_times(folder: Path) -> None:
    path = folder / "performance" / "run_1" / "mlperf_log_detail.txt"
    path.write_text("\n".join(x for x in path.read_text().splitlines() if "power_" not in x))


def _no_detail(folder: Path) -> None:
    (folder / "performance" / "ranging" / "mlperf_log_detail.txt").unlink()


def _torn_sample(folder: Path) -> None:
    path = folder / "performance" / "run_1" / "spl.txt"
    path.write_text(path.read_text() + "Time,03-07-2021 00:0")


def _only_ranging(folder: Path) -> None:
    for path in (folder / "performance" / "run_1").iterdir():
        path.unlink()


def _hole(folder: Path) -> None:
    path = folder / "performance" / "run_1" / "spl.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:100] + lines[112:]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_power_log, r"run_1: no power log: spl\.txt is not there"),
        (_no_times, r"without power_begin, power_end"),
        (_no_detail, r"ranging: no mlperf_log_detail\.txt"),
        (_torn_sample, r"spl\.txt:633: not a sample"),
        (_only_ranging, "a ranging run without a testing run"),
        (_hole, "the clocks do not overlap.*never more than 10 s apart"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(
    results: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(write_model(results))
    with pytest.raises(ConfigError, match=words):
        rows_of(results)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"hours": 5}, r"clocks do not overlap: the run went from 2021-03-06 23:53:12.*\+0 h"),
        ({"hours": 5, "zones_s": (0, 3600)}, r"\+0 h, \+1 h for the time zones"),
        ({"result": "INVALID"}, "the run is INVALID; allowed: a VALID run"),
        ({"scenario": "offline"}, None),
        ({"accuracy": None}, "no accuracy of net.*--accuracies"),
        ({"accuracy": '{"f1": 90.1}\n'}, "no accuracy of net"),
        ({"cores": None}, "cores of the system are not known.*--cores"),
        ({"idle_w": 20.0}, "11 W under load, 20 W at rest.*--idle-power"),
        ({"rest_s": 2}, "idle watts are not known.*--idle-power"),
    ],
)
def test_what_cannot_be_a_row_is_refused(
    results: Path, made: dict[str, object], words: str | None
) -> None:
    write_model(results, **made)  # type: ignore[arg-type]
    if words is None:  # the folder is called so; the log says SingleStream, and counts
        assert len(rows_of(results)) == 1
        return
    with pytest.raises(ConfigError, match=words):
        rows_of(results)


def test_another_scenario_makes_no_row(results: Path) -> None:
    folder = write_model(results, model="other", scenario="offline")
    for path in folder.glob("performance/*/mlperf_log_summary.txt"):
        path.write_text(path.read_text().replace("SingleStream", "Offline"))
    with pytest.raises(ConfigError, match="scenario Offline: it does not tell how long one"):
        rows_of(results)


def test_of_several_scenarios_one_is_to_be_chosen(results: Path) -> None:
    write_model(results)
    write_model(results, scenario="offline", watts=(20.0, 20.0))
    with pytest.raises(ConfigError, match="several scenarios of one model: offline, singlestream"):
        rows_of(results)
    (row,) = rows_of(results, scenario="SingleStream")
    assert row.joules_per_request == 2.75
    with pytest.raises(ConfigError, match="scenario 'server' of this model; allowed: offline"):
        rows_of(results, scenario="server")


def test_a_folder_without_runs_is_refused(results: Path) -> None:
    with pytest.raises(ConfigError, match="no run of MLPerf in it"):
        model_folders([results])


def test_a_published_run_from_its_raw_logs() -> None:
    """To 0.1 % of the table's figures; one run of the two, so there is no interval."""
    published = Path(__file__).with_name("inference_results_v1.0")
    (row,) = rows_of(published, MlperfChoice(cpu_cores=4, resource="rpi4"))
    with TABLE.open(encoding="utf-8", newline="") as file:
        (line,) = (
            line
            for line in csv.DictReader(file)
            if (line["system"], line["model"]) == (row.hardware, row.variant)
        )
    assert row.joules_per_request == pytest.approx(float(line["joules_run"]), rel=1e-3)
    assert row.joules_per_request * row.throughput_rps == pytest.approx(
        float(line["power_w"]), rel=1e-3
    )
    assert row.throughput_rps == pytest.approx(float(line["throughput_sps"]), rel=1e-3)
    assert row.latency_avg_s == pytest.approx(float(line["latency_avg_s"]), rel=1e-8)
    assert row.latency_p99_s == pytest.approx(float(line["latency_p99_s"]), rel=1e-8)
    assert row.accuracy == pytest.approx(float(line["accuracy_top1"]), abs=1e-9)
    assert row.idle_power_w == 3.875  # median of this run; 3.87 in the table is the whole stack's
    assert (row.trials, row.source) == (1, "MLPerf Inference v1.0 open, Krai")
    notice = (published / "README.md").read_text()
    assert "not verified by MLCommons Association" in notice
    assert "Apache-2.0" in notice


@pytest.mark.skipif(
    "MLPERF_RESULTS" not in os.environ,
    reason="needs MLPERF_RESULTS: a folder of copies of inference_results_v1.0 to _v3.0",
)
def test_the_published_figures_from_raw_logs() -> None:
    """Every entry of the table that the shipped profiles come from, as far as it is in the folder.

    Queries a second have two decimals in the table, and in the log more.
    """
    with TABLE.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    table = {(line["round"], line["system"], line["model"]): line for line in lines}

    def key(folder: Path) -> tuple[str, ...]:
        (results,) = (part for part in folder.parts if part.startswith("inference_results_v"))
        return (results.removeprefix("inference_results_"), *folder.parts[-3:-1])

    found, refused = [], []
    for scenarios in model_folders([Path(os.environ["MLPERF_RESULTS"])]):
        if key(scenarios[0]) in table:
            try:
                found.append(read_result(scenarios, "singlestream"))
            except ConfigError as error:
                refused.append(str(error))
    assert found
    assert not [text for text in refused if "the run is INVALID" not in text]
    for result, row in zip(found, profile_rows(found, MlperfChoice(cpu_cores=4)), strict=True):
        line = table[key(result.folder)]
        (testing,) = result.testing
        assert testing.power_w == pytest.approx(float(line["power_w"]), rel=1e-3)
        assert row.throughput_rps == pytest.approx(float(line["throughput_sps"]), abs=0.0051)
        assert row.latency_avg_s == pytest.approx(float(line["latency_avg_s"]), rel=1e-6)
        assert row.latency_p99_s == pytest.approx(float(line["latency_p99_s"]), rel=1e-6)
        assert row.accuracy == pytest.approx(float(line["accuracy_top1"]), abs=1e-5)
        if "Krai" in result.folder.parts:  # of the others, the table has a part of a stack
            assert row.idle_power_w == pytest.approx(float(line["idle_power_w"]), rel=2e-3)
        joules = (float(line["joules_run"]) + float(line["joules_ranging_run"])) / 2
        assert row.joules_per_request == pytest.approx(joules, rel=4e-3)
