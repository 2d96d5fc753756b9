"""make live, with stubs: two short runs, compared, and the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

pytest.importorskip("grpc")

from ipa_energy.runlog import read_run

pytestmark = [pytest.mark.slow, pytest.mark.measures]

ROOT = Path(__file__).resolve().parents[2]


def test_two_runs_of_one_load_are_served_and_compared(tmp_path: Path) -> None:
    pipeline, out = write_small_pipeline(tmp_path), tmp_path / "runs"
    script = ROOT / "experiments" / "live" / "first_run.py"
    words = ["--pipeline", str(pipeline), "--backend", "local-stub", "--seconds", "6"]
    done = subprocess.run(
        [sys.executable, str(script), *words, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    runs = [read_run(out / name) for name in ("live-ipa", "live-energy")]
    assert [run.info.settings["energy_weight"] for run in runs] == [0.0, 20.0]
    sent = [run.requests.sending_s.tolist() for run in runs]
    assert len(sent[0]) == len(sent[1]) > 0
    assert done.stdout.startswith("two runs of 6 s at 2 requests a second")
    assert done.stdout.count(f"report: {out / 'live.html'}\n") == 1
    assert (out / "live.html").stat().st_size > 100_000


def test_make_live_says_what_it_installs_before_it_does(tmp_path: Path) -> None:
    told = subprocess.run(
        ["make", "-n", "live", f"VENV={tmp_path / 'venv'}", "LIVE_SECONDS=5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 0 <= told.index("4 GB to download") < told.index("serve,video]")
    assert told.index("serve,video]") < told.index("first_run.py") < told.index("--seconds 5")
