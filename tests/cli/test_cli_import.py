"""``ipa-energy import``: logs of other tools as a table, and what is said of those refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from ipa_energy.cli.importing import FORMATS
from ipa_energy.meters.imports import energy_log

PERF = """\
 Performance counter stats for 'detect.py':

            {:.2f} Joules power/energy-pkg/

      10.000000000 seconds time elapsed
"""
POWER = "Seconds,Board (W)\n0,10\n1,20\n2,20\n3,10\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder as the seed has it: a perf log of each run."""
    folder = tmp_path / "logs"
    folder.mkdir()
    for number, joules in enumerate((50.0, 75.0)):
        (folder / f"run-{number}.txt").write_text(PERF.format(joules))
    return folder


def documents(out: str) -> dict[str, Any]:
    return dict(json.loads(out))


def test_formats_are_those_that_can_be_read() -> None:
    assert set(FORMATS.values()) == set(energy_log.FORMATS)


def test_a_folder_of_logs_becomes_a_table(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    status, out, err = call(capsys, "import", logs, "--requests", "25", "--out", table)
    assert (status, err) == (0, "")
    assert "J/request" in out
    assert "above idle" not in out  # nobody said what idle is
    assert "quality: imported" in out
    assert str(table) in out
    assert [line.split(",")[8] for line in table.read_text().splitlines()[1:]] == ["2", "3"]


def test_json_has_everything(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(
        capsys,
        "import",
        logs,
        "--json",
        "--requests",
        "25",
        "--idle-power",
        "2",
        "--format",
        "perf",
    )
    found = documents(out)
    assert status == 0
    assert [run["dynamic_joules_per_request"] for run in found["logs"]] == [1.2, 2.2]
    assert {run["quality"] for run in found["logs"]} == {"imported"}
    assert (found["refused"], found["warnings"], found["table"]) == ([], [], None)


@pytest.mark.parametrize("kind", ["pcat", "frameview"])
def test_columns_and_window_of_a_log_of_power(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "pcat.csv"
    log.write_text(POWER)
    words = ["--format", kind, "--time-column", "Seconds", "--power-column", "Board (W)"]
    status, out, _ = call(capsys, "import", log, *words, "--window", "1", "3", "--json")
    (run,) = documents(out)["logs"]
    assert status == 0
    assert run["energy_j"] == pytest.approx(20.0 + 15.0)  # trapezoids
    assert run["duration_s"] == pytest.approx(2.0)
    assert call(capsys, "import", log, *words, "--max-gap", "0.5")[0] == 2


def test_all_refusals_are_named_and_nothing_is_written(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (logs / "torn.txt").write_text("# ETRACE2_VERSION=0.1\n# ELAPSED=2.0\n")
    (logs / "dead.txt").write_text(PERF.format(0.0))
    (logs / "note.txt").write_text("bring milk\n")
    table = tmp_path / "table.csv"
    status, out, err = call(capsys, "import", logs, "--out", table)
    assert (status, out) == (2, "")
    assert "3 of 5 logs are refused" in err
    for name in ("torn.txt", "dead.txt", "note.txt"):
        assert name in err
    assert not table.exists()
    status, out, err = call(capsys, "import", logs, "--out", table, "--skip-refused")
    assert status == 0
    assert err.count("left out: ") == 3
    assert len(table.read_text().splitlines()) == 3


def test_a_log_in_a_foreign_locale_or_unit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    words = ("--format", "pcat", "--time-column", "Seconds")
    log.write_text("Seconds;Board (W)\n0,0;10,5\n")
    status, _, err = call(capsys, "import", log, *words, "--power-column", "Board (W)")
    assert (status, err.count("\n")) == (2, 1)
    assert "English locale" in err
    log.write_text("Seconds,Board (A)\n0,10\n1,10\n")
    assert "is in A" in call(capsys, "import", log, *words, "--power-column", "Board (A)")[2]


def test_logs_that_count_different_things_do_not_compare(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (logs / "board.csv").write_text("TimeInSeconds,NV Pwr(W) (API)\n0,10\n1,10\n")
    status, _, err = call(capsys, "import", logs)
    assert status == 0
    assert "do not compare: gpu-board; package" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--requests", "0"], "--requests: 0 requests"),
        (["--idle-power", "nan"], "--idle-power: nan"),
        (["--idle-power", "-1"], "--idle-power: -1 W"),
        (["--max-gap", "0"], "--max-gap: 0 s"),
        (["--window", "1", "2"], "do not go with perf logs"),
        (["--format", "watts"], "--format"),
        (["--duration", "3"], "the log tells its duration"),
        (["--out", ""], "--out: an empty path"),
    ],
)
def test_bad_options_are_refused(
    logs: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "import", logs, *words)
    assert (status, out) == (2, "")
    assert says in err


def test_no_log_at_all_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "import", tmp_path / "nowhere")[0] == 2
    assert call(capsys, "import", "")[0] == 2
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    status, _, err = call(capsys, "import", pipe)
    assert status == 2
    assert f"{pipe}: neither a file nor a folder" in err
