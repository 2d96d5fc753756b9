"""What a call writes goes where it harms nothing, and closed or narrow streams harm no call."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import call
from test_cli_import import PERF

from ipa_energy.cli import main
from ipa_energy.meters.power_model import PowerModel

Capture = pytest.CaptureFixture[str]
MODEL = PowerModel(idle_w=8.0, max_w=40.0, cores=4, source="made up", relative_error=0.5)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def finished(small_pipeline: Path, tmp_path: Path, capsys: Capture) -> Path:
    """A run folder."""
    out = tmp_path / "run"
    assert call(capsys, "run", small_pipeline, "--out", out, "--quiet")[0] == 0
    return out


@pytest.fixture
def measuring(tmp_path: Path) -> list[str | Path]:
    """A quick measurement."""
    model = tmp_path / "model.json"
    model.write_text(json.dumps(MODEL.to_json()))
    return ["measure", "--meter", "cpu-time", "--power-model", model, "--idle", "0"]


SLEEP = ("--", "sleep", "0.2")


@pytest.mark.parametrize(
    ("option", "name", "says"),
    [
        ("--html", "run/0.json", "is read by this very call"),
        ("--html", "run/workload.csv", "is read by this very call"),
        ("--html", "small/pipeline.yaml", "holds something else"),
        ("--html", ".", "is a folder"),
        ("--html", "/", "is a folder"),
        ("--html", "./", "is a folder"),
        ("--png", "run", "is read by this very call"),
        ("--png", "run/0.json", "is a file"),
    ],
)
def test_compare_refuses_places_before_it_begins(
    *,
    finished: Path,
    small_pipeline: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    name: str,
    says: str,
) -> None:
    monkeypatch.chdir(finished.parent)
    small_pipeline.rename(small_pipeline.with_name("pipeline.yaml"))
    before = contents(finished.parent)
    status, out, err = call(capsys, "compare", "run", option, name)
    assert (status, out) == (2, "")
    assert f"{option}: " in err
    assert says in err
    assert contents(finished.parent) == before


@pytest.mark.parametrize(
    ("option", "name", "says"),
    [
        ("--csv", "profile.csv", "is read by this very call"),
        ("--html", "pipeline.yaml", "is read by this very call"),
        ("--csv", "list.yaml", "is read by this very call"),
        ("--csv", "trace.csv", "is read by this very call"),
        ("--csv", "other.csv", "holds something else"),
        ("--csv", ".", "is a folder"),
    ],
)
def test_tradeoff_refuses_places_before_it_begins(
    *,
    small_pipeline: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    name: str,
    says: str,
) -> None:
    monkeypatch.chdir(small_pipeline.parent)
    small_pipeline.rename("pipeline.yaml")
    Path("other.csv").write_text("mine,1\n")
    Path("list.yaml").write_text("[]\n")
    Path("trace.csv").write_text("6\n" * 20)
    before = contents(Path())
    status, _, err = call(
        capsys,
        *("tradeoff", "pipeline.yaml", "--load", "5", "--workload", "trace.csv"),
        *("--list", "list.yaml", option, name),
    )
    assert status == 2
    assert f"{option}: " in err
    assert says in err
    assert contents(Path()) == before


@pytest.mark.parametrize(("verb", "more"), [("tradeoff", ("--load", "6")), ("frontier", ())])
@pytest.mark.parametrize("options", [("--html", "--csv"), ("--csv", "--png"), ("--html", "--png")])
def test_two_outputs_of_a_study_are_in_two_places(
    *,
    small_pipeline: Path,
    tmp_path: Path,
    capsys: Capture,
    verb: str,
    more: tuple[str, ...],
    options: tuple[str, str],
) -> None:
    one, other = options
    words = (one, tmp_path / "one", other, tmp_path / "small" / ".." / "one")
    status, _, err = call(capsys, verb, small_pipeline, *more, *words)
    assert (status, f"{one}, {other}: " in err) == (2, True)
    assert not (tmp_path / "one").exists()


def test_folders_of_outputs_are_made_and_none_through_a_file(
    small_pipeline: Path, measuring: list[str | Path], tmp_path: Path, capsys: Capture
) -> None:
    log, nodes, profile = tmp_path / "log", tmp_path / "n", small_pipeline.parent / "profile.csv"
    log.write_text(PERF.format(50.0))
    assert call(capsys, "convert", "--profile", profile, "--to-ipa", nodes)[0] == 0
    study = (small_pipeline, "--load", "6", "--configurations", "2", "--trials", "1")
    of_ipa = ("--from-ipa", nodes / "series" / "1", "--stage", "find")
    of_ipa += ("--accuracies", nodes / "accuracies.yaml")

    def outputs_in(folder: Path) -> Iterator[tuple[Path, int, str]]:
        for number, words in enumerate(
            (
                ("tradeoff", *study, "--html", folder / "o/p", "--csv", folder / "q/r", "--out"),
                ("import", log, "--out"),
                ("convert", *of_ipa, "--out"),
                ("convert", "--profile", profile, "--to-ipa"),
                ("run", small_pipeline, "--quiet", "--out"),
                (*measuring, "--out"),
            )
        ):
            out = folder / f"{number}" / "new" / "out"
            status, _, err = call(capsys, *words, out, *(SLEEP if words[0] == "measure" else ()))
            yield out, status, err

    for out, status, err in outputs_in(tmp_path / "new"):
        assert (status, out.exists()) == (0, True), err
    assert (tmp_path / "new/o/p").is_file()
    assert (tmp_path / "new/q/r").is_file()
    (tmp_path / "file").touch()
    for _, status, err in outputs_in(tmp_path / "file"):
        assert status == 2
        assert "is no folder" in err or "not a directory" in err.lower(), err


@pytest.mark.parametrize(
    ("name", "says"),
    [("log", "is read by this very call"), ("old.csv", "there is a file already"),
     (".", "is a folder"), ("old.csv/no/table.csv", "old.csv is no folder")],
)  # fmt: skip
def test_import_refuses_places_before_it_reads(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log").write_text("no log at all\n")
    Path("old.csv").write_text("mine\n")
    before = contents(Path())
    status, _, err = call(capsys, "import", "log", "--out", name)
    assert (status, says in err) == (2, True)
    assert contents(Path()) == before


def test_frontier_does_not_write_over_its_profile(
    small_pipeline: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_pipeline.parent)
    before = contents(Path())
    status, _, err = call(capsys, "frontier", small_pipeline, "--csv", "profile.csv")
    assert status == 2
    assert "--csv: profile.csv: is read by this very call" in err
    assert contents(Path()) == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pipeline.yaml", "holds something else"),
        ("script.py", "is read by this very call"),
        ("model.json", "is read by this very call"),
        (".", "is a folder"),
        ("..", "is a folder"),
    ],
)
def test_measure_refuses_places_before_it_begins(
    *,
    measuring: list[str | Path],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipeline.yaml").write_text("alpha: 1\n")
    Path("script.py").write_text("open('ran', 'w')")
    before = contents(Path())
    status, out, err = call(capsys, *measuring, "--out", name, "--", sys.executable, "script.py")
    assert (status, out) == (2, "")
    assert f"--out: {name}: {says}" in err
    assert contents(Path()) == before


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A device of this test's own on which there is no room."""
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        path.open("wb").close()
    except OSError:
        pytest.skip("needs the right to make a device node")
    return path


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_a_study_outlives_a_disk_that_is_full(
    small_pipeline: Path, full: Path, capsys: Capture, option: str
) -> None:
    words = ("tradeoff", small_pipeline, "--load", "6", "--configurations", "2", "--trials", "1")
    status, out, err = call(capsys, *words, "--json", option, full)
    assert (status, len(json.loads(out)["cases"])) == (2, 1)
    assert re.search("cannot .*no space left on device.*the answer itself is printed", err, re.I)
    assert stat.S_ISCHR(full.stat().st_mode)


def test_a_comparison_outlives_a_disk_that_is_full(
    finished: Path, full: Path, capsys: Capture
) -> None:
    words = ("compare", finished, "--no-hindsight", "--no-yardstick")
    status, out, err = call(capsys, *words, "--html", full)
    assert (status, "report: " in out, "joules per request" in out) == (2, False, True)
    assert "the answer itself is printed" in err


def test_a_measurement_outlives_a_disk_that_is_full(
    measuring: list[str | Path], full: Path, capfd: Capture
) -> None:
    for words in (("--json",), ()):  # the second shows figures on standard error, without trials
        status, out, err = call(capfd, *measuring, *words, "--out", full, *SLEEP)
        assert status == 2
        assert json.loads(out)["energy_j"] > 0
        assert len(json.loads(out)["trials"]) == 1
    assert f"{full}: cannot write the output: No space left on device" in err
    assert stat.S_ISCHR(full.stat().st_mode)


def test_a_measurement_is_written_anew_and_into_a_pipe(
    measuring: list[str | Path], tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "out.json"
    for _ in range(2):
        assert call(capfd, *measuring, "--out", path, *SLEEP)[0] == 0
    assert json.loads(path.read_text())["command"] == ["sleep", "0.2"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert call(capfd, *measuring, "--out", pipe, *SLEEP)[0] == 0
        got, _ = reader.communicate(timeout=10)
    assert json.loads(got)["command"] == ["sleep", "0.2"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_report_goes_through_a_device_a_pipe_and_a_link(
    finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    pipe, link, target = (tmp_path / name for name in ("pipe", "link", "target.html"))
    os.mkfifo(pipe)
    link.symlink_to(target)
    with (
        (tmp_path / "got").open("wb") as got,
        subprocess.Popen(["cat", pipe], stdout=got) as reader,
    ):
        assert call(capsys, "compare", finished, "--no-hindsight", "--html", pipe)[0] == 0
        reader.wait(20)
    assert call(capsys, "compare", finished, "--no-hindsight", "--html", link)[0] == 0
    assert (tmp_path / "got").read_bytes() == target.read_bytes()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()


def test_run_into_the_folder_one_is_in_is_refused(
    small_pipeline: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    status, _, err = call(capsys, "run", small_pipeline, "--out", ".")
    assert status == 2
    assert ".: is the folder you are in; allowed: a new folder in it" in err
    assert main(["run", str(small_pipeline), "--out", "run", "--quiet"]) == 0
