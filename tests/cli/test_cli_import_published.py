"""``ipa-energy import`` of MLPerf's result folders and of the table of ML.ENERGY."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call
from mlperf_submission import write_model

from ipa_energy.profile_table.profile_csv import read_profile

ROOT = Path(__file__).parent.parent.parent
MLENERGY = ROOT / "experiments" / "profiles" / "mlenergy"
TABLE = MLENERGY / "mlenergy-v3-gpqa.csv"
ACCURACIES = MLENERGY / "accuracies-gpqa.csv"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "submission" / "results"
    folder.mkdir(parents=True)
    write_model(folder, model="a")
    write_model(folder, model="b", watts=(20.0, 20.0))
    return folder


def test_a_folder_of_mlperf_becomes_a_profile(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_csv = tmp_path / "profile.csv"
    status, out, err = call(capsys, "import", results, "--resource", "pi", "--out", out_csv)
    assert (status, err) == (0, "")
    assert "J/request" in out
    assert "quality: measured" in out
    assert "not verified by MLCommons" in out
    rows = read_profile(out_csv)
    assert [(r.variant, r.joules_per_request, r.resource) for r in rows] == [
        ("a", 2.75, "pi"),
        ("b", 5.0, "pi"),
    ]
    meta = json.loads((tmp_path / "profile.meta.json").read_text())
    assert "not verified by MLCommons Association" in meta["notice"]
    assert "power_begin" in meta["method"]
    assert (meta["entries"], meta["meter"]["quality"]) == (2, "measured")


def test_a_summary_alone_is_told_how_a_result_folder_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "mlperf_log_summary.txt"
    summary.write_text("MLPerf Results Summary\n")
    for path in (tmp_path, summary):
        status, _, err = call(capsys, "import", path)
        assert status == 2
        assert "SCENARIO/performance/run_1/mlperf_log_summary.txt" in err


def test_json_has_rows_and_notice(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(
        capsys, "import", results, "--json", "--format", "mlperf", "--idle-power", "4"
    )
    document = json.loads(out)
    assert status == 0
    assert document["rows"][0]["idle_power_w"] == 4
    assert document["rows"][0]["precision"] == ""
    assert document["table"] is None
    assert "not verified" in document["notice"]


def test_a_refused_model_stops_or_is_left_out_by_name(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "board" / "a" / "singlestream" / "performance" / "run_1" / "spl.txt").unlink()
    out_csv = tmp_path / "profile.csv"
    status, _, err = call(capsys, "import", results, "--out", out_csv)
    assert status == 2
    assert "no power log" in err
    assert "--skip-refused" in err
    assert not out_csv.exists()
    status, _, err = call(capsys, "import", results, "--out", out_csv, "--skip-refused")
    assert status == 0
    assert "left out:" in err
    assert [row.variant for row in read_profile(out_csv)] == ["b"]


def test_a_profile_is_not_replaced(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profile.meta.json").write_text("{}")
    status, _, err = call(capsys, "import", results, "--out", tmp_path / "profile.csv")
    assert status == 2
    assert "there is a file already" in err
    assert not (tmp_path / "profile.csv").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--requests", "10"), "--requests means nothing with mlperf"),
        (("--task", "gpqa"), "--task means nothing with mlperf"),
        (("--cores", "0"), "--cores: 0; allowed: a finite number above 0"),
        ((str(TABLE),), "published results beside something else"),
    ],
)
def test_what_does_not_go_together(
    results: Path, options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "import", results, *options)
    assert status == 2
    assert words in err


def test_a_log_takes_no_option_of_published_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("TimeInSeconds,NV Pwr(W) (API)\n0,10\n1,20\n")
    status, _, err = call(capsys, "import", log, "--stage", "s")
    assert status == 2
    assert "--stage means nothing with logs" in err


MLENERGY_OPTIONS = ("--task", "gpqa", "--accuracies", str(ACCURACIES))


def test_the_table_of_mlenergy_becomes_a_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_csv = tmp_path / "llm.csv"
    options = (*MLENERGY_OPTIONS, "--idle-watts", "H100=100", "--stage", "answer")
    status, out, err = call(capsys, "import", TABLE, *options, "--out", out_csv)
    assert status == 0
    assert "quality: imported" in out
    assert "left out: no accuracy of openai/gpt-oss-20b" in err
    assert "left out: no idle watts of B200" in err
    rows = read_profile(out_csv)
    assert {(row.stage, row.resource) for row in rows} == {("answer", "H100")}
    meta = json.loads((tmp_path / "llm.meta.json").read_text())
    assert "arXiv:2505.09388" in meta["accuracies"]["Qwen/Qwen3-8B"]["source"]
    assert meta["idle_power_w"]["H100"]["value"] == 100
    assert "GPUs alone" in meta["notice"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "no task chosen; allowed: gpqa"),
        (("--task", "chat"), "no task 'chat'; allowed: gpqa"),
        (("--task", "gpqa"), "give accuracies"),
        ((*MLENERGY_OPTIONS,), "no idle watts of H100"),
        ((*MLENERGY_OPTIONS, "--idle-watts", "H100"), "such as H100=116"),
        ((*MLENERGY_OPTIONS, "--idle-watts", "H100=900"), "less than 900 W at rest"),
        (("--scenario", "offline"), "--scenario means nothing with mlenergy"),
    ],
)
def test_what_the_table_lacks_is_asked_for(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "import", TABLE, *options)
    assert status == 2
    assert words in err


def test_a_device_is_written_to_without_a_meta_file(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "import", results, "--out", "/dev/null")
    assert (status, err) == (0, "")
    assert not Path("/dev/null.meta.json").exists()
