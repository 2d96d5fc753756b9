"""``ipa-energy run PIPELINE --backend local-stub``: served, adapted, logged, taken up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc")

from small_pipeline import write_small_pipeline

from ipa_energy.cli import main
from ipa_energy.runlog import read_run

pytestmark = pytest.mark.slow


def write_pipeline(folder: Path, counts: list[int]) -> Path:
    """Two stages under a load of so many requests a second, decided on every two seconds."""
    path = write_small_pipeline(folder)
    load = "workload_type: csv\nworkload_config: {path: load.csv}\nadaptation_interval: 2\n"
    text = path.read_text()
    path.write_text(text[: text.index("workload_type")] + load)
    rows = [f"{second},{count}" for second, count in enumerate(counts)]
    (folder / "load.csv").write_text("\n".join(["second,requests", *rows, ""]))
    return path


def ours() -> list[str]:
    """Command lines of live processes of the data path, run by this Python."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0] == sys.executable and any("ipa_energy.serving.local." in w for w in words):
            found.append(f"{path.parent.name} {words}")
    return found


def test_a_run_serves_every_request_adapts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    others = set(ours())
    pipeline = write_pipeline(tmp_path, [4, 4, 20, 20, 20, 20])
    out = tmp_path / "run"
    assert (
        main(["run", str(pipeline), "--backend", "local-stub", "--out", str(out), "--quiet"]) == 0
    )
    assert set(ours()) <= others
    run = read_run(out)
    assert run.info.backend == "local-stub"
    assert (run.info.meter, run.info.quality) == ("cpu-time", "estimated")
    assert run.offered_rps.sum() == 88
    assert len(run.requests) == 88
    assert np.isfinite(run.requests.done_s).all()
    times = np.stack([run.requests.sending_s, run.requests.done_s])
    assert (np.diff(times, axis=0) > 0.1).all()  # the profile's times of both stages
    assert 0 < run.power_w.max() < 100
    assert any(step.reconfigured for step in run.steps)


def test_stages_with_several_requests_an_input_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = write_pipeline(tmp_path, [1])
    pipeline.write_text(pipeline.read_text() + "requests_per_input: [1, 2]\n")
    words = ["run", str(pipeline), "--backend", "local-stub", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "stage name sees 2 requests for each input; allowed: 1" in capsys.readouterr().err


def test_a_run_killed_in_the_middle_leaves_nothing_behind_and_is_taken_up(tmp_path: Path) -> None:
    others = set(ours())
    pipeline = write_pipeline(tmp_path, [5] * 20)
    out = tmp_path / "run"
    words = ["run", str(pipeline), "--backend", "local-stub", "--out", str(out), "--quiet"]
    program = [sys.executable, "-m", "ipa_energy", *words]
    with subprocess.Popen(program) as process:
        end_s = time.perf_counter() + 60
        while _lines(out / "journal.jsonl") < 2 and time.perf_counter() < end_s:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    gone_s = time.perf_counter() + 5
    while set(ours()) - others and time.perf_counter() < gone_s:
        time.sleep(0.02)
    assert set(ours()) <= others
    assert main([*words, "--resume"]) == 0
    run = read_run(out)
    assert any(step.gap_s for step in run.steps)
    assert np.isfinite(run.requests.done_s).all()
    assert 0 < len(run.requests) < 100


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
