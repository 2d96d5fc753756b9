"""``--backend local``: a pipeline's own models served; what cannot be is told before it begins."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from installed import require_installed

pytest.importorskip("grpc")

from test_local_backend import write_pipeline

from ipa_energy.cli import main
from ipa_energy.runlog import read_run
from ipa_energy.serving.local import prometheus_process
from ipa_energy.serving.local.plane import Plane

require_installed("mlserver")
pytestmark = [pytest.mark.slow, pytest.mark.measures]

MODELS = Path(__file__).with_name("served_pipeline.py")
NAMES = {"find": "first", "name": "second", "-s": "echo", "-m": "other", "-l": "other"}


def served_pipeline(folder: Path, counts: list[int]) -> Path:
    """A pipeline YAML whose models are those of ``served_pipeline.py``."""
    path = write_pipeline(folder, counts)
    for file in (path, folder / "profile.csv"):
        lines = [line for line in file.read_text().splitlines() if ",find-l," not in line]
        text = "\n".join(lines)
        for stage in ("find", "name"):
            for size in ("-s", "-m", "-l"):
                text = text.replace(f"{stage}{size}", NAMES[size])
            text = text.replace(f"{stage},", f"{NAMES[stage]},")
        file.write_text(text.replace("[first, name]", "[first, second]") + "\n")
    home = folder / "pipelines" / "small"
    home.mkdir(parents=True)
    shutil.copy(MODELS, home / "pipeline.py")
    return path


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """The verb in this process, in a pipeline's folder: its exit status and what it told."""

    def called(path: Path, *words: str) -> tuple[int, str]:
        # Each test has another pipeline.py, which is looked for in the working folder.
        monkeypatch.chdir(path.parent)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.delitem(sys.modules, "pipeline", raising=False)
        out = str(path.parent / "run")
        status = main(["run", str(path), "--backend", "local", "--out", out, *words])
        monkeypatch.delitem(sys.modules, "pipeline", raising=False)
        return status, capfd.readouterr().err + caplog.text

    return called


def test_a_run_is_served_by_the_pipelines_own_models(run: Run, tmp_path: Path) -> None:
    path = served_pipeline(tmp_path, [4, 4, 20, 20, 20, 20])
    status, said = run(path)
    assert status == 0, said
    found = read_run(tmp_path / "run")
    assert found.info.backend == "local"
    assert found.offered_rps.sum() == 88
    assert np.isfinite(found.requests.done_s).all()
    assert (found.requests.dropped_at == -1).all()


def test_requests_carry_the_pictures_of_a_folder(run: Run, tmp_path: Path) -> None:
    path = served_pipeline(tmp_path, [2, 2])
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.jpg").write_bytes(b"unreadable")  # as the pipeline of this test has it
    status, said = run(path, "--images", str(pictures))
    assert status == 0, said
    assert "element 0 is unreadable" in said
    (pictures / "a.jpg").unlink()
    status, said = run(path, "--images", str(pictures), "--out", str(tmp_path / "other"))
    assert status == 2
    assert "pictures: no pictures in it; allowed: .jpg" in said


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ((", yields=1", ""), 2, "stage first is to make 2 elements of one for the next stage"),
        (("def handler", "def other"), 2, "cannot be served: it has no handler; allowed"),
        (('"echo", ', ""), 2, "no variant first/echo; allowed: first/other"),
        (("def versions", "REQUIRES = ('nosuch',)\ndef versions"), 4, "need nosuch, not installed"),
        (None, 2, "no models for the pipeline small"),
    ],
)
def test_models_that_cannot_be_served_are_told_before_anything_starts(
    *, run: Run, tmp_path: Path, change: tuple[str, str] | None, status: int, told: str
) -> None:
    path = served_pipeline(tmp_path, [1])
    path.write_text(path.read_text() + "requests_per_input: [1, 2]\n")
    models = tmp_path / "pipelines" / "small" / "pipeline.py"
    if change is None:
        models.unlink()
    else:
        models.write_text(models.read_text().replace(*change))
    found, said = run(path)
    assert found == status
    assert told in said
    assert "Traceback" not in said


def test_shares_of_a_core_are_refused_where_replicas_are_pinned(run: Run, tmp_path: Path) -> None:
    path = served_pipeline(tmp_path, [1])
    profile = tmp_path / "profile.csv"
    profile.write_text(profile.read_text().replace("first,other,cpu,2,", "first,other,cpu,1.5,"))
    status, said = run(path)
    assert status == 2
    assert "stage first has other 1.5c b1 in its profile" in said
    assert "allowed: whole numbers of cores; fix: profile whole cores" in said


def test_slices_of_a_gpu_are_refused_on_one_machine(run: Run, tmp_path: Path) -> None:
    path = served_pipeline(tmp_path, [1])
    profile = tmp_path / "profile.csv"
    head, *rows = profile.read_text().splitlines()
    rows = [row + (",mig-1g.10gb,1" if ",other," in row else ",,") for row in rows]
    profile.write_text("\n".join([f"{head},resource,resource_units", *rows]) + "\n")
    status, said = run(path)
    assert status == 2
    assert "no replica is put on a slice of a GPU here" in said
    assert "allowed: CPUs and whole GPUs; fix: --backend kubernetes" in said


def test_a_prometheus_that_is_not_there_is_told_before_anything_starts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = served_pipeline(tmp_path, [1])
    monkeypatch.setattr(prometheus_process.shutil, "which", lambda _: None)
    monkeypatch.setattr(Plane, "__init__", lambda *_, **__: pytest.fail("a plane was started"))
    status, said = run(path, "--prometheus")
    assert status == 4
    assert "there is no prometheus on the path; fix: install it" in said


def test_weights_that_do_not_load_are_told_before_anything_starts(run: Run, tmp_path: Path) -> None:
    path = served_pipeline(tmp_path, [1])
    text = (tmp_path / "profile.csv").read_text()
    (tmp_path / "profile.csv").write_text(text.replace(",other,", ",unloadable,"))
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"torn")
    status, said = run(path, "--weights", f"unloadable={weights}")
    assert (status, "these weights are torn" in said) == (2, True), said
    status, said = run(path, "--set", "weights.another=weights.pt", "--out", str(tmp_path / "next"))
    assert status == 2
    assert "weights: another is no variant of the profile" in said
